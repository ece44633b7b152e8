#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Families of plain attention as llama.cpp's converter writes them, against what transformers computed.

    make_converted_cases.py OUT LLAMA_CPP [CASE...]      needs torch, transformers 5.24, safetensors, gguf

make_family_cases.py makes the model and its reference; its attention, under the names and in the words of the published
files, goes through LLAMA_CPP/convert_hf_to_gguf.py without a tokenizer. OUT/hf/<case>/ gets config.json and
reference.safetensors, OUT/gguf/<case>-bf16.gguf the tensors of attention alone. LLAMA_CPP is a checkout of late 2026.
"""
import json
import os
import sys
import traceback

import torch
from safetensors.torch import load_file, save_file

import make_family_cases
import make_gguf_cases
from family_sizes import LLAMA3, YARN, experts, sizes
from newer_family_cases import DELTA, FULL, LINEAR, SHARED, SLIDING, STEP, plain, ropes

MROPE = {"rope_type": "default", "rope_theta": 500.0}
LAST_CHUNK = {"attention_chunk_size": 12, "floor_scale": 10, "attn_scale": 0.3}  # which GGUF has no words for

# case: (what make_family_cases.py calls it, configuration)
CASES = {
    "llama4_converted": ("llama4_text__converted", sizes(
        12, 4, 2, 6, 4, **LAST_CHUNK, use_qk_norm=True, attention_bias=True, intermediate_size_mlp=8,
        rope_parameters=LLAMA3, **{**experts(), "num_local_experts": 16})),
    "glm4_converted": ("glm4__converted", sizes(20, 4, 2, 8, partial_rotary_factor=0.5, rope_theta=500.0)),
    "glm4v_converted": ("glm4v_text__converted", sizes(
        24, 4, 2, 0, rope_parameters={**MROPE, "partial_rotary_factor": 2 / 3, "mrope_section": [1, 1, 0]})),
    "glm_converted": ("glm__converted", sizes(24, 3, 1, 8, attention_bias=True)),
    "chatglm_converted": ("chatglm__converted", sizes(16, 2, 1, 8, attention_bias=True)),
    "qwen3_vl_converted": ("qwen3_vl_text__converted", sizes(
        20, 4, 2, 6, attention_bias=True,
        rope_parameters={**MROPE, "mrope_section": [1, 1, 1], "mrope_interleaved": True})),
    "qwen3_vl_moe_converted": ("qwen3_vl_moe_text__converted", sizes(
        16, 4, 2, 6, rope_parameters={**MROPE, "mrope_section": [1, 1, 1], "mrope_interleaved": True}, **experts())),
    "qwen2_vl_converted": ("qwen2_vl_text__converted", sizes(
        24, 4, 2, 0, rope_parameters={**MROPE, "mrope_section": [1, 1, 1]})),
    "ministral3_converted": ("ministral3__converted", sizes(
        20, 4, 2, 6, rope_parameters={**YARN, "llama_4_scaling_beta": 0.3, "beta_fast": 4.0, "beta_slow": 1.0,
                                      "mscale": 1.0, "mscale_all_dim": 1.0})),
    "qwen3_next_converted": ("qwen3_next__converted", sizes(
        20, 4, 2, 8, 5, attention_bias=True, rope_theta=500.0, **DELTA, **SHARED,
        layer_types=[LINEAR, FULL, FULL, LINEAR, FULL])),
    "qwen3_5_converted": ("qwen3_5_text__converted", sizes(
        12, 4, 2, 8, 3, **DELTA, layer_types=[LINEAR, FULL, FULL], mtp_num_hidden_layers=1,
        rope_parameters={**MROPE, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0],
                         "mrope_interleaved": True})),
    "qwen3_5_moe_converted": ("qwen3_5_moe_text__converted", sizes(
        16, 2, 1, 8, 2, **DELTA, **SHARED, layer_types=[FULL, LINEAR], mtp_num_hidden_layers=1,
        rope_parameters={**MROPE, "partial_rotary_factor": 0.75, "mrope_section": [1, 1, 1],
                         "mrope_interleaved": True})),
    "exaone_converted": ("exaone__converted", {
        key.replace("num_hidden_layers", "num_layers").replace("rms_norm_eps", "layer_norm_epsilon"): value
        for key, value in sizes(24, 4, 2, 0, rope_scaling=LLAMA3, attention_bias=True).items()}),
    "minicpm_converted": ("minicpm__converted", sizes(24, 4, 2, 0, scale_emb=12, scale_depth=1.4, dim_model_base=8)),
    "olmo3_converted": ("olmo3__converted", sizes(
        16, 2, 1, 0, 3, sliding_window=9, layer_types=[FULL, SLIDING, FULL], rope_scaling=YARN, attention_bias=True)),
    "nemotron_nas_converted": ("nemotron-nas", sizes(24, 4, 2, 0, 2, rope_scaling=LLAMA3)),
    "laguna_converted": ("laguna__converted", sizes(
        12, 2, 1, 6, 5, sliding_window=9, layer_types=[FULL, SLIDING, SLIDING, SLIDING, FULL],
        num_attention_heads_per_layer=[2, 3, 3, 3, 2], mlp_layer_types=["dense"] * 5, moe_routed_scaling_factor=2.0,
        rope_parameters=ropes({**YARN, "partial_rotary_factor": 2 / 3}, plain(20.0)), **SHARED)),
    "mimo_v2_flash_converted": ("mimo_v2_flash__converted", sizes(
        20, 4, 1, 8, 3, v_head_dim=6, attention_bias=True, sliding_window=7, **make_family_cases.MIMO)),
    "hy_v3_converted": ("hy_v3__converted", sizes(
        20, 4, 2, 6, attention_bias=True, rope_theta=500.0, first_k_dense_replace=2, **experts())),
    "gemma4_converted": ("gemma4_text__converted", sizes(
        12, 4, 2, 4, 4, attention_k_eq_v=True, global_head_dim=8, num_global_key_value_heads=1, sliding_window=7,
        num_kv_shared_layers=0, hidden_size_per_layer_input=0, layer_types=[SLIDING, FULL, SLIDING, FULL],
        rope_parameters=ropes({"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
                              plain(20.0)))),
    "gemma4_shared_converted": ("gemma4_text__shared_converted", sizes(
        12, 2, 1, 4, 6, global_head_dim=8, hidden_size_per_layer_input=4, vocab_size_per_layer_input=32,
        sliding_window=7, num_kv_shared_layers=2, layer_types=[FULL, SLIDING, FULL, SLIDING, SLIDING, FULL],
        rope_parameters=ropes({"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
                              plain(20.0)))),
    "granitemoehybrid_converted": ("granitemoehybrid__converted", sizes(
        16, 4, 2, 0, 3, layer_types=[LINEAR, FULL, FULL], attention_multiplier=0.3, position_embedding_type="nope",
        attention_bias=True, mamba_n_heads=2, mamba_d_head=16, mamba_d_state=4, mamba_d_conv=2, mamba_n_groups=1,
        shared_intermediate_size=8, **experts())),
    "lfm2_converted": ("lfm2__converted", sizes(
        24, 4, 2, 0, 4, norm_eps=1e-2, rope_theta=500.0, layer_types=[FULL, "conv", "conv", FULL])),
    "lfm2_moe_converted": ("lfm2_moe__converted", sizes(
        24, 4, 1, 0, 2, norm_eps=1e-2, layer_types=["conv", FULL], num_dense_layers=2, **experts())),
    "laguna_elements_converted": ("laguna__elements_converted", sizes(
        12, 2, 1, 6, 2, gating="per-element", mlp_layer_types=["dense"] * 2, layer_types=[FULL, FULL],
        sliding_window=0, moe_routed_scaling_factor=2.0, rope_parameters=ropes(plain(500.0), plain(20.0)), **SHARED)),
    "step3p5_converted": ("step3p5", {
        **sizes(12, 2, None, 8, 4), **STEP, "num_attention_groups": 1,
        "attention_other_setting": {**STEP["attention_other_setting"], "num_attention_heads": 3,
                                    "num_attention_groups": 1}}),
}

# The class that a multimodal model is published as.
WITHIN = {"glm4v_converted": "Glm4vForConditionalGeneration", "qwen3_vl_converted": "Qwen3VLForConditionalGeneration",
          "qwen3_vl_moe_converted": "Qwen3VLMoeForConditionalGeneration",
          "qwen2_vl_converted": "Qwen2VLForConditionalGeneration",
          "qwen3_5_converted": "Qwen3_5ForConditionalGeneration",
          "qwen3_5_moe_converted": "Qwen3_5MoeForConditionalGeneration"}

# Configurations that are not read through transformers, whose classes rename or drop what the converter asks for.
READ_AS_PUBLISHED = {"chatglm_converted", "exaone_converted", "minicpm_converted", "nemotron_nas_converted",
                     "step3p5_converted", "mimo_v2_flash_converted", "granitemoehybrid_converted"}


def random(tensor):
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())).to(tensor.dtype)


def predicting(tensors, layer):
    """The attention of a block that predicts further tokens, which nothing reads."""
    at = f".layers.{layer}.self_attn."
    own = {"mtp.layers.0.self_attn." + name.split(at)[1]: random(x) for name, x in tensors.items() if at in name}
    return {**tensors, **own, "mtp.fc.weight": torch.zeros(4, 8, dtype=torch.bfloat16)}


def as_the_converter_asks(case, config, tensors):
    """What it reads beside attention, and models that see as they are published."""
    if case in WITHIN:
        config["architectures"] = [WITHIN[case]]
        config["vision_config"] = {"deepstack_visual_indexes": []}
    if case.startswith("qwen3_next"):
        tensors = predicting(tensors, 1)
    if case.startswith("qwen3_5"):
        tensors = predicting(tensors, 0 if "moe" in case else 1)
    if case == "exaone_converted":
        config.update(architectures=["ExaoneForCausalLM"], activation_function="silu")
    if case == "granitemoehybrid_converted":
        config["layer_types"] = ["mamba" if kind == LINEAR else "attention" for kind in config["layer_types"]]
        config["mamba_expand"] = 2
    if case == "nemotron_nas_converted":
        linear = random(tensors["model.layers.0.self_attn.o_proj.weight"])
        tensors["model.layers.2.self_attn.linear_attn.weight"] = linear
        for block in config["block_configs"]:
            block["ffn"] = {"ffn_mult": 1.0}
        config["rope_theta"] = 10000.0
    if case == "mimo_v2_flash_converted":
        config.update(swa_head_dim=8, swa_num_attention_heads=4, swa_v_head_dim=6, swa_num_key_value_heads=2,
                      hybrid_layer_pattern=[0, 1, 1], topk_method="noaux_tc", rope_theta=5000000, swa_rope_theta=10000,
                      partial_rotary_factor=0.334, attention_value_scale=0.707)
    if case.startswith("lfm2"):
        config.update(block_auto_adjust_ff_dim=False, block_ffn_dim_multiplier=1.0, block_multiple_of=1)
    return config, tensors


def make(out, case):
    name, stated = CASES[case]
    folder = os.path.join(out, "hf", case)
    make_family_cases.CASES[name] = stated
    make_family_cases.make(name, folder)
    config, tensors = json.load(open(f"{folder}/config.json")), load_file(f"{folder}/model.safetensors")
    config, tensors = as_the_converter_asks(case, config, tensors)
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file, indent=1, sort_keys=True)
        file.write("\n")
    save_file(tensors, f"{folder}/model.safetensors", {"format": "pt"})


def convert(out, case, llama_cpp):
    """In a child, since the converter runs once in a process."""
    child = os.fork()
    if child == 0:
        make_gguf_cases.READ_AS_PUBLISHED.update(READ_AS_PUBLISHED)
        try:
            make_gguf_cases.convert(llama_cpp, os.path.join(out, "hf", case),
                                    os.path.join(out, "gguf", case + "-bf16.gguf"))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(case + " was not converted")


def main(out, llama_cpp, names):
    os.makedirs(os.path.join(out, "gguf"), exist_ok=True)
    for case in names or CASES:
        make(out, case)
        convert(out, case, llama_cpp)
        os.remove(os.path.join(out, "hf", case, "model.safetensors"))
        print(case, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
