#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tiny whole models of families with latent attention, and the GGUF files that llama.cpp's converter makes of them.

    make_gguf_cases.py OUT LLAMA_CPP [CASE...]      needs torch, transformers 5.24, safetensors, gguf

OUT/hf/<case>/ gets config.json, model.safetensors and, where transformers runs the model, reference.safetensors as
make_mla_cases.py writes it; OUT/gguf/<case>-bf16.gguf what LLAMA_CPP/convert_hf_to_gguf.py wrote of it, without a
tokenizer. LLAMA_CPP is a checkout of llama.cpp of late 2026. Prediction blocks, which transformers does not run, hold
random numbers in the names and sizes of the published files.
"""
import importlib
import inspect
import json
import os
import runpy
import shutil
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file

import make_mla_cases
from make_mla_cases import sizes, yarn

EXPERTS = dict(intermediate_size=24, moe_intermediate_size=16, n_routed_experts=3, num_experts_per_tok=2,
               n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=2.5,
               first_k_dense_replace=1)

# case: (model class, configuration, number of prediction blocks)
CASES = {
    "minicpm3_gguf": ("MiniCPM3", {**sizes(32, 4, 14, 12, 10, 6, 8, intermediate_size=24), "rms_norm_eps": 1e-5,
                      "rope_parameters": dict(rope_type="longrope", rope_theta=10000.0, factor=1.0,
                                              original_max_position_embeddings=256, short_factor=[1.0, 1.5, 2.0],
                                              long_factor=[1.0, 3.0, 9.0])}, 0),
    "youtu_gguf": ("Youtu", sizes(32, 2, 20, 12, 6, 8, 10, intermediate_size=24, first_k_dense_replace=None,
                   rope_parameters=dict(rope_type="default", rope_theta=500.0)), 0),
    "glm4_moe_lite_gguf": ("Glm4MoeLite", sizes(32, 3, 20, 12, 10, 6, 14, **EXPERTS,
                           rope_parameters=dict(rope_type="default", rope_theta=500.0)), 1),
    "glm_moe_dsa_gguf": ("GlmMoeDsa", sizes(32, 3, 20, 12, 10, 6, 14, layers=3, **EXPERTS, index_topk=9, index_head_dim=10,
                         index_n_heads=5, indexer_types=["full", "shared", "full"],
                         mlp_layer_types=["dense", "sparse", "sparse"],
                         rope_parameters=dict(rope_type="default", rope_theta=500.0)), 1),
    "mistral4_gguf": ("Mistral4", sizes(32, 3, 18, 14, 8, 6, 12, **EXPERTS, rope_parameters=yarn(
                      mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3, original=16, partial_rotary_factor=6 / 14)),
                      0),
    "kimi_linear_gguf": ("KimiLinear", sizes(32, 3, None, 12, 6, 4, 10, layers=5, intermediate_size=24,
                         moe_intermediate_size=16, num_experts=3, num_experts_per_tok=2, n_shared_experts=1, n_group=1,
                         topk_group=1, linear_head_dim=8, linear_num_heads=3, linear_conv_kernel_dim=4,
                         layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention",
                                      "full_attention"]), 0),
    "bailing_gguf": ("BailingHybrid", sizes(32, 3, None, 12, 10, 6, 14, layers=4, **{**EXPERTS, "n_group": 2}, num_experts=4,
                     head_dim=8, layer_group_size=2, short_conv_kernel_size=4,
                     rope_parameters=dict(rope_type="default", rope_theta=900.0)), 0),
    "glm5_next_gguf": ("Glm5NextText", sizes(32, 3, 20, 12, 10, 0, 14, layers=4, **EXPERTS, index_topk=8, index_kpool=4,
                       index_head_dim=10, index_n_heads=5, linear_head_dim=8, linear_num_heads=3, head_dim=0,
                       layer_types=["indexed_attention", "indexed_attention", "linear_attention", "indexed_attention"],
                       indexer_types=["full", "shared", "shared", "full"],
                       mlp_layer_types=["dense", "sparse", "sparse", "sparse"]), 1),
    "kimi_vl_gguf": ("DeepseekV3", sizes(32, 3, None, 12, 10, 6, 14, **EXPERTS,
                     rope_parameters=dict(rope_type="default", rope_theta=500.0)), 0),
}

# The converter asks transformers for the configuration first, which renames keys of these that the converter needs by the
# names of the published file; a transformers that does not know the model leaves them as they are.
READ_AS_PUBLISHED = {"bailing_gguf"}


def random(shape, seed):
    return (0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


def add_predicting(tensors, config, count):
    """Blocks after the model's, each with what the last block has and what joins it to the model."""
    hidden, last, first = config["hidden_size"], config["num_hidden_layers"] - 1, config["num_hidden_layers"]
    for block in range(first, first + count):
        for name in [one for one in tensors if one.startswith(f"model.layers.{last}.") and ".hc_" not in one]:
            tensors[name.replace(f".{last}.", f".{block}.", 1)] = random(tensors[name].shape, len(tensors))
        for name, shape in {"embed_tokens": [config["vocab_size"], hidden], "enorm": [hidden], "hnorm": [hidden],
                            "eh_proj": [hidden, 2 * hidden], "shared_head.norm": [hidden],
                            "shared_head.head": [config["vocab_size"], hidden]}.items():
            tensors[f"model.layers.{block}.{name}.weight"] = random(shape, len(tensors))


def in_wrapper(config, tensors):
    """Mistral-Small-4 as it is published: within Mistral3, beside a tower that sees."""
    tensors = {("lm_head.weight" if name == "lm_head.weight" else name.replace("model.", "model.language_model.", 1)): x
               for name, x in tensors.items()}
    tensors["model.vision_tower.patch_conv.weight"] = random([4, 3, 2, 2], 1)
    tensors["model.multi_modal_projector.norm.weight"] = random([4], 2)
    vision = dict(model_type="pixtral", hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1,
                  image_size=4, patch_size=2)
    text = {key: value for key, value in config.items() if key not in ("architectures", "transformers_version", "dtype")}
    outer = dict(architectures=["Mistral3ForConditionalGeneration"], model_type="mistral3", dtype="bfloat16",
                 image_token_index=5, spatial_merge_size=2, text_config=text, vision_config=vision,
                 transformers_version=config["transformers_version"])
    return outer, tensors


def in_kimi_vl(config, tensors):
    """Moonlight as it is published within Kimi-VL, beside a tower that sees."""
    tensors = {"language_model." + name: x for name, x in tensors.items()}
    tensors["vision_tower.patch_embed.proj.weight"] = random([4, 3, 2, 2], 1)
    tensors["multi_modal_projector.pre_norm.weight"] = random([4], 2)
    rope = config.pop("rope_parameters")
    text = {**{key: value for key, value in config.items() if key not in ("transformers_version", "dtype")},
            "rope_theta": rope["rope_theta"], "rope_scaling": None, "num_nextn_predict_layers": 0, "scoring_func": "sigmoid",
            "topk_method": "noaux_tc"}
    outer = dict(architectures=["KimiVLForConditionalGeneration"], model_type="kimi_vl", torch_dtype="bfloat16",
                 media_placeholder_token_id=5, text_config=text, vocab_size=config["vocab_size"],
                 vision_config=dict(model_type="moonvit", hidden_size=8, intermediate_size=8, num_attention_heads=2,
                                    num_hidden_layers=1, patch_size=2))
    return outer, tensors


def as_kimi_linear(config, tensors):
    """Kimi-Linear as it is published: with an object of linear layers, whose decay is float32 in some files, and a dense
    first layer whose names are those of Llama."""
    types = config.pop("layer_types")
    for key in ("mlp_layer_types", "qk_head_dim"):
        config.pop(key)
    config["linear_attn_config"] = {
        "full_attn_layers": [1 + i for i, kind in enumerate(types) if kind == "full_attention"],
        "kda_layers": [1 + i for i, kind in enumerate(types) if kind == "linear_attention"],
        "head_dim": config.pop("linear_head_dim"), "num_heads": config.pop("linear_num_heads"),
        "short_conv_kernel_size": config.pop("linear_conv_kernel_dim")}
    config.update(first_k_dense_replace=1, mla_use_nope=True, moe_router_activation_func="sigmoid", rope_theta=10000.0,
                  rope_scaling=None, q_lora_rank=None)
    tensors = {name.replace("layers.0.block_sparse_moe.", "layers.0.mlp."): x for name, x in tensors.items()}
    decay = "model.layers.3.self_attn.A_log"  # as it is drawn at first: what is below 1 GGUF does not tell exactly
    tensors[decay] = torch.log(torch.empty(tensors[decay].shape).uniform_(3, 16, generator=torch.Generator().manual_seed(7)))
    return config, tensors


def as_ling(config, tensors):
    """Ling 3 as it is published: its configuration says head_dim of the linear layers, and has keys of its own code."""
    for key in ("layer_types", "mlp_layer_types", "qk_head_dim", "linear_num_heads", "linear_conv_kernel_dim",
                "n_routed_experts", "rope_parameters"):
        config.pop(key, None)
    config["head_dim"] = config.pop("linear_head_dim")
    config["architectures"] = ["BailingMoeV3ForCausalLM"]
    for published, own in {"max_position_embeddings": "model_max_length", "norm_topk_prob": "moe_renormalize",
                           "n_group": "num_expert_group", "num_experts_per_tok": "num_experts_per_token"}.items():
        config[published] = config.pop(own)
    config.update(no_kda_lora=True, gated_attention_proj_granularity_type="head_wise", score_function="sigmoid",
                  moe_shared_expert_intermediate_size=config["moe_intermediate_size"], num_nextn_predict_layers=0,
                  rope_theta=900.0, expert_swiglu_limit_list=[None, None, 7.0, 7.0])
    return config, tensors


def as_glm5_next(config, tensors):
    """GLM-5.3-Flash as it is published: within a multimodal model, beside a tower that sees."""
    for key in ("mlp_layer_types", "qk_head_dim", "head_dim", "num_local_experts", "router_aux_loss_coef"):
        config.pop(key, None)
    config["layer_types"] = [kind.replace("indexed", "full") for kind in config["layer_types"]]
    config["linear_attn_config"] = {
        "head_dim": config.pop("linear_head_dim"), "num_heads": config.pop("linear_num_heads"),
        "short_conv_kernel_size": config.pop("linear_conv_kernel_dim"), "gate_lower_bound": config.pop("linear_lower_bound"),
        "safe_gate": True}
    config.update(mla_use_nope=True, mhc=True, scoring_func="sigmoid", topk_method="noaux_tc", first_k_dense_replace=1)
    tensors = {name.replace("model.", "model.language_model.", 1): x for name, x in tensors.items()}
    tensors["lm_head.weight"] = random([config["vocab_size"], config["hidden_size"]], 3)
    tensors["model.visual.patch_embed.proj.weight"] = random([4, 3, 2, 2], 1)
    text = {key: value for key, value in config.items() if key not in ("architectures", "transformers_version", "dtype")}
    outer = dict(architectures=["Glm5NextForConditionalGeneration"], model_type="glm5_next", dtype="bfloat16",
                 image_token_id=5, text_config=text, tie_word_embeddings=False,
                 vision_config=dict(model_type="glm5_next_vision", depth=1, hidden_size=8, intermediate_size=8, num_heads=2),
                 transformers_version=config["transformers_version"])
    return outer, tensors


def as_params_json(config, tensors):
    """The same model as Mistral-Large-3 is published; its experts have no tensor of their own for gate and up there."""
    names = {"self_attn.q_a_proj": "attention.wq_a", "self_attn.q_a_layernorm": "attention.q_a_norm",
             "self_attn.q_b_proj": "attention.wq_b", "self_attn.kv_a_proj_with_mqa": "attention.wkv_a_with_mqa",
             "self_attn.kv_a_layernorm": "attention.kv_a_norm", "self_attn.kv_b_proj": "attention.wkv_b",
             "self_attn.o_proj": "attention.wo", "input_layernorm": "attention_norm",
             "post_attention_layernorm": "ffn_norm", "mlp.shared_experts.gate_proj": "shared_experts.w1",
             "mlp.shared_experts.down_proj": "shared_experts.w2", "mlp.shared_experts.up_proj": "shared_experts.w3",
             "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3",
             "mlp.gate": "gate", "embed_tokens": "tok_embeddings", "lm_head": "output"}
    made, rope = {}, config["rope_parameters"]
    for name, x in tensors.items():
        name = name.removeprefix("model.")
        if name.endswith("experts.gate_up_proj"):
            for expert, (gate, up) in enumerate(zip(*x.chunk(2, dim=1))):
                base = name.replace("mlp.experts.gate_up_proj", f"experts.{expert}")
                made[f"{base}.w1.weight"], made[f"{base}.w3.weight"] = gate.contiguous(), up.contiguous()
            continue
        if name.endswith("experts.down_proj"):
            for expert, down in enumerate(x):
                made[name.replace("mlp.experts.down_proj", f"experts.{expert}.w2.weight")] = down.contiguous()
            continue
        for old, new in names.items():
            if old + "." in name:
                name = name.replace(old + ".", new + ".")
                break
        made[name] = x
    params = {"dim": config["hidden_size"], "n_layers": config["num_hidden_layers"],
              "n_heads": config["num_attention_heads"], "n_kv_heads": config["num_attention_heads"],
              "head_dim": config["v_head_dim"], "hidden_dim": config["intermediate_size"], "norm_eps": 1e-6,
              "vocab_size": config["vocab_size"], "rope_theta": rope["rope_theta"], "tied_embeddings": False,
              "max_position_embeddings": config["max_position_embeddings"],
              **{key: config[key] for key in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
                                              "v_head_dim")},
              "yarn": {"original_max_position_embeddings": rope["original_max_position_embeddings"],
                       "factor": rope["factor"], "apply_scale": False, "beta": rope["beta_fast"],
                       "alpha": rope["beta_slow"]},
              "llama_4_scaling": {"original_max_position_embeddings": rope["original_max_position_embeddings"],
                                  "beta": rope["llama_4_scaling_beta"]},
              "moe": {"num_experts": config["n_routed_experts"], "num_experts_per_tok": config["num_experts_per_tok"],
                      "num_shared_experts": config["n_shared_experts"], "num_expert_groups": 1,
                      "num_expert_groups_per_tok": 1, "expert_hidden_dim": config["moe_intermediate_size"],
                      "first_k_dense_replace": config["first_k_dense_replace"], "route_every_n": 1, "routed_scale": 1.0}}
    return params, made


def plm():
    """PLM, which transformers does not have: queries without a latent, a feed-forward part without a gate."""
    c = sizes(32, 3, None, 12, 10, 6, 14, intermediate_size=24)
    c.update(architectures=["PLMForCausalLM"], model_type="plm", hidden_act="relu2", tie_word_embeddings=True,
             rms_norm_eps=1e-6, rope_theta=500.0)
    heads, nope, rope, rank, value = (c[key] for key in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim",
                                                         "kv_lora_rank", "v_head_dim"))
    shapes = {"model.embed_tokens.weight": [32, 32], "model.norm.weight": [32]}
    for block in range(c["num_hidden_layers"]):
        for name, shape in {"input_layernorm": [32], "post_attention_layernorm": [32],
                            "self_attn.q_proj": [heads * (nope + rope), 32], "self_attn.kv_a_proj_with_mqa": [rank + rope, 32],
                            "self_attn.kv_a_layernorm": [rank], "self_attn.kv_b_proj": [heads * (nope + value), rank],
                            "self_attn.o_proj": [32, heads * value], "mlp.up_proj": [24, 32],
                            "mlp.down_proj": [32, 24]}.items():
            shapes[f"model.layers.{block}.{name}.weight"] = shape
    return c, {name: random(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}


def save(folder, config, tensors, names=("config.json", "model.safetensors")):
    os.makedirs(folder, exist_ok=True)
    json.dump(config, open(os.path.join(folder, names[0]), "w"), indent=1, sort_keys=True)
    save_file(tensors, os.path.join(folder, names[1]), {"format": "pt"})


def make(out, name):
    if name == "plm_gguf":
        return save(os.path.join(out, name), *plm())
    source = "mistral4_gguf" if name == "mistral_large_3_gguf" else name
    family, config, predicting = CASES[source]
    make_mla_cases.CASES[source] = (family, config)
    folder = os.path.join(out, name)
    model = make_mla_cases.build(source)
    reference = make_mla_cases.run(model)
    model.bfloat16().save_pretrained(folder)
    config, tensors = json.load(open(f"{folder}/config.json")), load_file(f"{folder}/model.safetensors")
    shutil.rmtree(folder)
    if name == "glm5_next_gguf":  # the model alone, as transformers has it
        tensors = {"model." + one: x for one, x in tensors.items()}
    if predicting:
        add_predicting(tensors, config, predicting)
        config["num_nextn_predict_layers"] = predicting
    if name == "mistral4_gguf":
        config, tensors = in_wrapper(config, tensors)
    if name == "kimi_vl_gguf":
        config, tensors = in_kimi_vl(config, tensors)
    if name == "bailing_gguf":
        config, tensors = as_ling(config, tensors)
    if name == "glm5_next_gguf":
        config, tensors = as_glm5_next(config, tensors)
    if name == "kimi_linear_gguf":
        config, tensors = as_kimi_linear(config, tensors)
    if name == "mistral_large_3_gguf":
        save(folder, *as_params_json(config, tensors), ("params.json", "consolidated.safetensors"))
    else:
        save(folder, config, tensors)
    save_file(reference, os.path.join(folder, "reference.safetensors"))


def convert(llama_cpp, source, target):
    """Runs llama.cpp's converter in this process, with no tokenizer in any of its classes."""
    for part in ("gguf-py", ""):
        sys.path.insert(0, os.path.join(llama_cpp, part))
    for file in sorted(os.listdir(os.path.join(llama_cpp, "conversion"))):
        if not file.endswith(".py") or file == "__init__.py":
            continue
        for _, cls in inspect.getmembers(importlib.import_module("conversion." + file[:-3]), inspect.isclass):
            if "set_vocab" in cls.__dict__:
                cls.set_vocab = lambda self: self.gguf_writer.add_tokenizer_model("none")
    if os.path.basename(source) in READ_AS_PUBLISHED:
        import transformers
        transformers.AutoConfig.from_pretrained = lambda *args, **kwargs: (_ for _ in ()).throw(ValueError("unknown"))
    # mistral_common reads Mistral's tokenizers alone.
    for module in ("conversion", "conversion.base"):
        sys.modules[module]._mistral_common_installed = True
    mistral = ["--mistral-format"] if os.path.exists(os.path.join(source, "params.json")) else []
    if mistral:  # it asks for a class of transformers all the same
        source = shutil.copytree(source, target + ".folder")
        json.dump({"architectures": ["MistralLarge3ForCausalLM"]}, open(os.path.join(source, "config.json"), "w"))
    sys.argv = ["convert_hf_to_gguf.py", source, "--outfile", target, "--outtype", "bf16", *mistral]
    runpy.run_path(os.path.join(llama_cpp, "convert_hf_to_gguf.py"), run_name="__main__")
    if mistral:
        shutil.rmtree(source)


def main(out, llama_cpp, names):
    if names[:1] == ["--convert"]:
        return convert(llama_cpp, os.path.join(out, "hf", names[1]), os.path.join(out, "gguf", names[1] + "-bf16.gguf"))
    os.makedirs(os.path.join(out, "gguf"), exist_ok=True)
    for name in names or [*CASES, "mistral_large_3_gguf", "plm_gguf"]:
        make(os.path.join(out, "hf"), name)
        subprocess.run([sys.executable, __file__, out, llama_cpp, "--convert", name], check=True)  # it runs once only
        print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
