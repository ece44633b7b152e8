#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints of families with latent attention, and what transformers computes on them.

    make_mla_cases.py OUT [CASE...]      needs torch, transformers 5.24, safetensors

OUT/<case>/ gets config.json and model.safetensors as save_pretrained writes them, and reference.safetensors: for each
attention block i in float32 `layer{i}.hidden` [seq, E] (its input after the input norm), `layer{i}.context` [seq, H*V]
(the output projection's input) and `layer{i}.out` [seq, E]. Every case has sizes of its own, an rms_norm_eps that shows
(the latents' norms mostly do not use it), gains that are not 1, and more tokens than its windows and contexts.
Feed-forward parts are as small as they can be: nothing looks at them.
"""
import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file

TOKENS = 45
FEED_FORWARD = dict(intermediate_size=8, moe_intermediate_size=8, n_routed_experts=2, num_experts_per_tok=1,
                    n_shared_experts=1, n_group=1, topk_group=1)


def sizes(hidden, heads, q_rank, kv_rank, nope, rope, value, layers=2, **more):
    return dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=heads, q_lora_rank=q_rank,
                kv_lora_rank=kv_rank, qk_nope_head_dim=nope, qk_rope_head_dim=rope, v_head_dim=value,
                num_hidden_layers=layers, rms_norm_eps=1e-2, vocab_size=32, max_position_embeddings=256,
                pad_token_id=0, bos_token_id=1, eos_token_id=2, **more)


def yarn(theta=1000.0, factor=6.0, original=16, **more):
    return dict(rope_type="yarn", rope_theta=theta, factor=factor, original_max_position_embeddings=original,
                beta_fast=8.0, beta_slow=1.0, **more)


# case: (model class, configuration)
CASES = {
    "glm4_moe_lite_b": ("Glm4MoeLite", sizes(40, 3, 20, 12, 10, 6, 14, **FEED_FORWARD, attention_bias=True,
                        rope_parameters=dict(rope_type="default", rope_theta=500.0))),
    "youtu_b": ("Youtu", sizes(32, 4, None, 20, 6, 8, 10, intermediate_size=8, rope_interleave=False,
                rope_parameters=yarn(mscale=1.0, mscale_all_dim=0.7))),
    "axk1_b": ("AXK1", sizes(36, 2, 16, 20, 12, 4, 6, **FEED_FORWARD, rope_parameters=yarn(mscale_all_dim=1.0))),
    "mistral4_b": ("Mistral4", sizes(32, 3, 18, 14, 8, 8, 12, **FEED_FORWARD,
                   rope_parameters=yarn(mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3, original=8))),
    "minicpm3_b": ("MiniCPM3", sizes(36, 3, 14, 16, 10, 6, 12, intermediate_size=8, rope_parameters=dict(
                   rope_type="longrope", rope_theta=300.0, original_max_position_embeddings=32,
                   short_factor=[1.0, 1.5, 2.0], long_factor=[1.0, 3.0, 9.0]))),
    "longcat_flash_b": ("LongcatFlash", {**sizes(40, 3, 18, 14, 8, 6, 10), "num_hidden_layers": 4, "num_layers": 2,
                        "head_dim": 6, "ffn_hidden_size": 8, "expert_ffn_hidden_size": 8, "n_routed_experts": 3, "moe_topk": 2,
                        "zero_expert_num": 1, "rope_parameters": dict(rope_type="default", rope_theta=700.0)}),
    "kimi_linear_b": ("KimiLinear", sizes(32, 3, 16, 12, 6, 4, 8, layers=5, **FEED_FORWARD, num_experts=2,
                      linear_head_dim=8, linear_num_heads=2, linear_conv_kernel_dim=2, attention_bias=True,
                      layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention",
                                   "full_attention"])),
    "bailing_hybrid_b": ("BailingHybrid", sizes(32, 3, 12, 16, 8, 6, 10, layers=4, **FEED_FORWARD, num_experts=2,
                         head_dim=8, layer_group_size=2, first_k_dense_replace=4, short_conv_kernel_size=2,
                         rope_parameters=dict(rope_type="default", rope_theta=900.0))),
    # With few heads of an indexer many scores would be exactly 0, and which of them torch.topk takes is open.
    "dots3_indexed_b": ("Dots3NoteText", sizes(36, 3, 14, 12, 8, 6, 10, **FEED_FORWARD, index_topk=8,
                        index_head_dim=10, index_n_heads=8, head_dim=14, shared_experts_intermediate_size=8,
                        layer_types=["indexed_attention", "indexed_attention"], rope_theta=800.0)),
    "axk2_b": ("AXK2", sizes(36, 3, 14, 12, 8, 6, 10, **FEED_FORWARD, index_topk=8, index_head_dim=10, index_n_heads=8,
               first_k_dense_replace=2, attention_bias=True, gated_norm_rank=2,
               rope_parameters=yarn(mscale=1.0, mscale_all_dim=0.7))),
    # dots3-note by the keys of its published configuration: layers 2 to 4 have a window and sizes of their own.
    "dots3_note_b": ("Dots3NoteText", sizes(36, 3, 14, 12, 8, 6, 10, layers=6, **FEED_FORWARD, index_topk=8,
                     index_head_dim=10, index_n_heads=8, head_dim=20, shared_experts_intermediate_size=8,
                     first_k_dense_replace=6, attention_bias=True, rope_theta=800.0, swa_rope_theta=30.0,
                     sliding_window_size=9, swa_num_attention_heads=2, swa_num_key_value_heads=2, swa_q_lora_rank=10,
                     swa_kv_lora_rank=16, swa_head_dim=16, swa_qk_nope_head_dim=12, swa_v_head_dim=6)),
}


def build(name):
    family, config = CASES[name]
    torch.manual_seed(sum(name.encode()))
    cls = getattr(transformers, family + "Config")
    head = getattr(transformers, family + "ForCausalLM", None) or getattr(transformers, family + "Model")
    model = head(cls(**config)).eval().float()
    with torch.no_grad():
        for key, value in model.named_parameters():
            scale = 0.3 if value.dim() > 1 else 0.5
            base = 1.0 if value.dim() == 1 and "norm" in key and "bias" not in key else 0.0
            value.copy_((base + scale * torch.randn_like(value)).bfloat16().float())
    return model


def attention_modules(model):
    return [module for name, module in model.named_modules() if hasattr(module, "o_proj") and hasattr(module, "kv_b_proj")]


def run(model):
    taken = {}
    for i, module in enumerate(attention_modules(model)):
        def before(_, args, kwargs, i=i):
            taken[f"layer{i}.hidden"] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        def after(_, args, output, i=i):
            taken[f"layer{i}.out"] = output[0] if isinstance(output, tuple) else output
        def projected(_, args, i=i):
            taken[f"layer{i}.context"] = args[0]
        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after)
        module.o_proj.register_forward_pre_hook(projected)
    with torch.no_grad():
        model(torch.randint(0, 32, (1, TOKENS)), use_cache=False)
    return {key: value[0].float().contiguous().clone() for key, value in taken.items()}


def as_params_json(source, folder):
    """Mistral's own files of a Mistral4 case: its latents' norms have the configuration's eps, so that is 1e-6 here."""
    from safetensors.torch import load_file
    config = json.load(open(os.path.join(source, "config.json")))
    rope = config["rope_parameters"]
    names = {"self_attn.q_a_proj": "attention.wq_a", "self_attn.q_a_layernorm": "attention.q_a_norm",
             "self_attn.q_b_proj": "attention.wq_b", "self_attn.kv_a_proj_with_mqa": "attention.wkv_a_with_mqa",
             "self_attn.kv_a_layernorm": "attention.kv_a_norm", "self_attn.kv_b_proj": "attention.wkv_b",
             "self_attn.o_proj": "attention.wo", "input_layernorm": "attention_norm",
             "post_attention_layernorm": "ffn_norm"}
    tensors = {}
    for name, value in load_file(os.path.join(source, "model.safetensors")).items():
        for old, new in names.items():
            if old + "." in name:
                tensors[name.removeprefix("model.").replace(old + ".", new + ".")] = value
    params = {"dim": config["hidden_size"], "n_layers": config["num_hidden_layers"],
              "n_heads": config["num_attention_heads"], "n_kv_heads": config["num_attention_heads"],
              "head_dim": config["v_head_dim"], "hidden_dim": 8, "vocab_size": 32, "norm_eps": 1e-6,
              "rope_theta": rope["rope_theta"], "tied_embeddings": False, "max_position_embeddings": 256,
              **{key: config[key] for key in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
                                              "v_head_dim")},
              "yarn": {"original_max_position_embeddings": rope["original_max_position_embeddings"],
                       "factor": rope["factor"], "apply_scale": False, "beta": rope["beta_fast"],
                       "alpha": rope["beta_slow"]},
              "llama_4_scaling": {"original_max_position_embeddings": rope["original_max_position_embeddings"],
                                  "beta": rope["llama_4_scaling_beta"]},
              "moe": {"num_experts": 2, "routed_scale": 1.0, "renorm_strategy": "WEIGHTS"}}
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, "consolidated.safetensors"))
    json.dump(params, open(os.path.join(folder, "params.json"), "w"), indent=1)
    reference = load_file(os.path.join(source, "reference.safetensors"))
    save_file(reference, os.path.join(folder, "reference.safetensors"))


def as_gguf(source, path):
    """Attention of a Kimi-Linear case in the names, shapes and metadata of llama.cpp's conversion/kimi_linear.py."""
    import gguf
    from safetensors.torch import load_file
    c = json.load(open(os.path.join(source, "config.json")))
    full = [kind == "full_attention" for kind in c["layer_types"]]
    writer = gguf.GGUFWriter(path, "kimi-linear")
    for key, value in {"block_count": len(full), "context_length": c["model_max_length"], "vocab_size": c["vocab_size"],
                       "embedding_length": c["hidden_size"], "feed_forward_length": c["intermediate_size"],
                       "attention.head_count": c["num_attention_heads"], "ssm.conv_kernel": 2, "kda.head_dim": 8,
                       "attention.key_length": c["kv_lora_rank"] + c["qk_rope_head_dim"],
                       "attention.value_length": c["head_dim"], "attention.q_lora_rank": c["q_lora_rank"],
                       "attention.kv_lora_rank": c["kv_lora_rank"], "attention.value_length_mla": c["v_head_dim"],
                       "attention.key_length_mla": c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
                       "rope.dimension_count": c["qk_rope_head_dim"]}.items():
        writer.add_uint32(f"kimi-linear.{key}", value)
    writer.add_array("kimi-linear.attention.head_count_kv", [int(one) for one in full])
    writer.add_float32("kimi-linear.attention.layer_norm_rms_epsilon", c["rms_norm_eps"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.KIMI_LINEAR, len(full))
    kept = {}
    for name, x in load_file(os.path.join(source, "model.safetensors")).items():
        if "kv_b_proj" in name:
            heads = x.view(c["num_attention_heads"], -1, x.shape[1])
            kept[name.replace("kv_b_proj", "k_b_proj")] = heads[:, :c["qk_nope_head_dim"]].transpose(1, 2)
            kept[name.replace("kv_b_proj", "v_b_proj")] = heads[:, c["qk_nope_head_dim"]:]
        elif "_attn" in name:
            kept[name] = x
    for name, x in kept.items():
        stem, suffix = name.rsplit(".", 1)
        stored = names.get_name(stem)
        if stored is not None and ".attn_" in stored:  # those of linear layers, too
            kind = gguf.GGMLQuantizationType.F32 if x.dim() == 1 else gguf.GGMLQuantizationType.BF16
            writer.add_tensor(f"{stored}.{suffix}", gguf.quants.quantize(x.float().contiguous().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(out, names):
    for name in names or CASES:
        folder = os.path.join(out, name)
        model = build(name)
        reference = run(model)
        model.bfloat16().save_pretrained(folder)
        for extra in ("generation_config.json",):
            if os.path.exists(os.path.join(folder, extra)):
                os.remove(os.path.join(folder, extra))
        save_file(reference, os.path.join(folder, "reference.safetensors"))
        blocks = len([key for key in reference if key.endswith(".out")])
        size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
        print(f"{name}: {blocks} blocks, {size} bytes", flush=True)
        if name == "kimi_linear_b":
            as_gguf(folder, os.path.join(out, "kimi_linear_b-bf16.gguf"))
        if name == "mistral4_b":
            as_params_json(folder, os.path.join(out, "mistral_large_3_b"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
