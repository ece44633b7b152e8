# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/hf/deepseek_v4_*: attention blocks of DeepSeek-V4 with random weights, and what transformers 5.24
computes with them.

Usage: python make_deepseek_v4_cases.py tests/data/hf

A case holds the tensors of attention alone, under the published names, in bfloat16 and for gates, gains and sinks in
float32. reference.safetensors: `layer{i}.hidden` [seq, hidden], `layer{i}.context` [seq, heads * head_dim] before the
grouped output projection, `layer{i}.out` [seq, hidden].

What the cases show: no dimension equals another, the window is shorter than the sequence and no multiple of a ratio,
the last entries are open, the indexer leaves out entries, eps is no default, gains and sinks are not 1 and 0.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file
from transformers.models.deepseek_v4.configuration_deepseek_v4 import DeepseekV4Config
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4Attention, DeepseekV4RotaryEmbedding

NAMES = {  # in memory -> published
    "q_a_proj.weight": "wq_a.weight", "q_a_norm.weight": "q_norm.weight", "q_b_proj.weight": "wq_b.weight",
    "kv_proj.weight": "wkv.weight", "kv_norm.weight": "kv_norm.weight", "o_a_proj.weight": "wo_a.weight",
    "o_b_proj.weight": "wo_b.weight", "sinks": "attn_sink",
    "compressor.kv_proj.weight": "compressor.wkv.weight", "compressor.gate_proj.weight": "compressor.wgate.weight",
    "compressor.position_bias": "compressor.ape", "compressor.kv_norm.weight": "compressor.norm.weight",
    "compressor.indexer.q_b_proj.weight": "indexer.wq_b.weight",
    "compressor.indexer.scorer.weights_proj.weight": "indexer.weights_proj.weight",
    "compressor.indexer.kv_proj.weight": "indexer.compressor.wkv.weight",
    "compressor.indexer.gate_proj.weight": "indexer.compressor.wgate.weight",
    "compressor.indexer.position_bias": "indexer.compressor.ape",
    "compressor.indexer.kv_norm.weight": "indexer.compressor.norm.weight",
}
COMMON = dict(architectures=["DeepseekV4ForCausalLM"], model_type="deepseek_v4", vocab_size=32, num_key_value_heads=1,
              max_position_embeddings=2048, torch_dtype="bfloat16")
CASES = {
    # Three kinds of layers by name, with ratios of their own, and a flat rope_scaling.
    "deepseek_v4_mixed": (26, dict(
        hidden_size=40, num_hidden_layers=3, num_attention_heads=6, head_dim=24, qk_rope_head_dim=8, q_lora_rank=20,
        o_groups=3, o_lora_rank=5, sliding_window=5, rms_norm_eps=0.01, rope_theta=500.0, compress_rope_theta=70.0,
        rope_scaling=dict(type="yarn", factor=8, beta_fast=4, beta_slow=1, original_max_position_embeddings=32),
        layer_types=["compressed_sparse_attention", "sliding_attention", "heavily_compressed_attention"],
        compress_rates=dict(compressed_sparse_attention=3, heavily_compressed_attention=7),
        index_n_heads=14, index_head_dim=10, index_topk=2)),
    # As the first models are published: ratios by layer, with one for the prediction block.
    "deepseek_v4_ratios": (133, dict(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, head_dim=16, qk_rope_head_dim=4, q_lora_rank=12,
        o_groups=2, o_lora_rank=6, sliding_window=9, rms_norm_eps=0.02, rope_theta=10000.0,
        compress_rope_theta=160000.0, num_nextn_predict_layers=1,
        rope_scaling=dict(type="yarn", factor=16, beta_fast=32, beta_slow=1, original_max_position_embeddings=64),
        compress_ratios=[4, 128, 0], index_n_heads=12, index_head_dim=8, index_topk=11)),
}


def randomise(module, generator):
    def normal(shape, scale):
        return torch.randn(shape, generator=generator) * scale

    for name, p in module.named_parameters():
        if name.endswith("norm.weight"):
            p.data = 1.0 + normal(p.shape, 0.4)
        elif name == "sinks":
            p.data = normal(p.shape, 1.5)
        elif name.endswith("position_bias"):
            p.data = normal(p.shape, 1.0)
        else:
            gain = 2.0 if "gate_proj" in name else 1.0
            p.data = normal(p.shape, gain * p.shape[-1] ** -0.5).to(torch.bfloat16).float()


def run(attention, rotary, hidden, window):
    tokens = hidden.shape[0]
    positions = torch.arange(tokens)[None]
    distance = positions[0][:, None] - positions[0][None]
    mask = torch.where((distance >= 0) & (distance < window), 0.0, float("-inf"))[None, None]
    embeddings = {label: rotary(hidden[None], positions, layer_type=label) for label in ("main", "compress")}
    context = []
    handle = attention.o_a_proj.register_forward_pre_hook(lambda _, inputs: context.append(inputs[0]))
    out = attention(hidden[None], embeddings, positions, mask)[0]
    handle.remove()
    return context[0].reshape(tokens, -1), out[0]


def make(folder, tokens, stated, seed):
    stated = {**COMMON, **stated}
    generator = torch.Generator().manual_seed(seed)
    config = DeepseekV4Config(**json.loads(json.dumps(stated)))
    config._attn_implementation = "eager"
    rotary = DeepseekV4RotaryEmbedding(config)
    weights, reference = {}, {}
    for layer in range(config.num_hidden_layers):
        attention = DeepseekV4Attention(config, layer).eval()
        randomise(attention, generator)
        hidden = torch.randn(tokens, config.hidden_size, generator=generator)
        with torch.no_grad():
            context, out = run(attention, rotary, hidden, config.sliding_window)
        for name, p in attention.named_parameters():
            plain = p.dim() == 1 or name.endswith("position_bias")
            weights[f"layers.{layer}.attn.{NAMES[name]}"] = p.data.to(torch.float32 if plain else torch.bfloat16)
        for name, x in dict(hidden=hidden, context=context, out=out).items():
            reference[f"layer{layer}.{name}"] = x.contiguous().clone()
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(stated, file, indent=2)
        file.write("\n")
    save_file(weights, f"{folder}/model.safetensors")
    save_file(reference, f"{folder}/reference.safetensors")


for number, (case, (count, keys)) in enumerate(CASES.items()):
    make(os.path.join(sys.argv[1], case), count, keys, 40 + number)
