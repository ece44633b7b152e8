#!/usr/bin/env python3
"""Writes tests/data/hf/<case> for the families of plain attention: tiny random models of transformers 5.24, and what
their attention modules computed in float32.

Usage: make_family_cases.py FOLDER [case ...]     (needs: torch, transformers==5.24, safetensors, numpy)

Every case: config.json, model.safetensors with the tensors of attention alone (bf16; gains, biases and sinks are random,
too), and reference.safetensors with, for each attention block i, layer{i}.hidden (the input of the attention module),
.context (the input of its output projection) and .out (its output), 41 tokens. Sizes differ from family to family; the
eps of norms is 1e-2, windows and chunks are shorter than the sequence, and every kind of layer occurs.
"""
import copy
import json
import math
import os
import re
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, MllamaForCausalLM, set_seed
from transformers.models.emu3.modeling_emu3 import Emu3TextModel
from transformers.models.granite4_vision.modeling_granite4_vision import Granite4VisionTextModel
from transformers.models.paddleocr_vl.modeling_paddleocr_vl import PaddleOCRTextModel
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerTextModel
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeTextConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeThinkerTextModel
from transformers.models.step3p7.modeling_step3p7 import Step3p7TextModel

from family_sizes import LLAMA3, MIMO, MSCALES, YARN, experts, sizes
from newer_family_cases import NEWER_CASES

TOKENS = 41
ATTENTION = re.compile(r"\.(self_attn|attention|self_attention|attn|mixer|temporal_block|multi_head_attention)$")
OUTPUT = ("o_proj", "dense", "c_proj", "wo", "out_proj", "Wo")
# The name of a case is the model type, with what is special about it after two underscores.
CASES = {
    "ministral": sizes(16, 4, 2, 6, 3, sliding_window=9,
                       layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "ministral3": sizes(16, 4, 2, 4, rope_parameters={**YARN, "llama_4_scaling_beta": 0.3, "beta_fast": 4.0,
                                                      "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}),
    "mixtral": sizes(20, 4, 1, 4, sliding_window=11, **experts()),
    "qwen2_moe": sizes(16, 4, 2, 0, 4, use_sliding_window=True, sliding_window=7, max_window_layers=3,
                       shared_expert_intermediate_size=8, **experts()),
    "qwen3_moe": sizes(16, 6, 2, 4, attention_bias=True, use_sliding_window=True, sliding_window=10, **experts()),
    "gemma": sizes(20, 2, 1, 12),
    "gemma2": sizes(16, 4, 2, 6, 3, query_pre_attn_scalar=5, sliding_window=7, attn_logit_softcapping=0.5),
    "gemma3_text": sizes(12, 2, 1, 8, 4, query_pre_attn_scalar=5, sliding_window=7, sliding_window_pattern=3,
                         rope_scaling={"rope_type": "linear", "factor": 4.0}, rope_theta=500.0, rope_local_base_freq=20.0),
    "gpt_oss": sizes(16, 4, 2, 6, 2, sliding_window=7, rope_parameters={**YARN, "truncate": False}, **experts()),
    "phi3": sizes(24, 3, 1, 0, sliding_window=9, partial_rotary_factor=0.5, original_max_position_embeddings=16,
                  rope_scaling={"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [1.25, 3.0]}),
    "phi": sizes(16, 2, 1, 0, layer_norm_eps=1e-2, qk_layernorm=True, partial_rotary_factor=0.5),
    "phimoe": sizes(16, 4, 2, 0, attention_bias=True, sliding_window=12, **experts()),
    "granite": sizes(24, 4, 2, 6, attention_multiplier=0.3, embedding_multiplier=2.0, attention_bias=True),
    "granitemoe": sizes(24, 3, 1, 0, attention_multiplier=0.4, **experts()),
    "granitemoeshared": sizes(20, 5, 5, 0, attention_multiplier=0.6, shared_intermediate_size=8, **experts()),
    "glm": sizes(12, 4, 2, 8),
    "glm4": sizes(16, 4, 2, 8, partial_rotary_factor=0.5),
    "glm4_moe": sizes(16, 4, 2, 4, use_qk_norm=True, attention_bias=True, first_k_dense_replace=2, n_routed_experts=2,
                      **experts()),
    "cohere": sizes(24, 4, 2, 0, layer_norm_eps=1e-2, use_qk_norm=True),
    "cohere2": sizes(16, 4, 2, 0, 4, layer_norm_eps=1e-2, sliding_window=7, sliding_window_pattern=2),
    "starcoder2": sizes(24, 4, 2, 0, sliding_window=8, norm_epsilon=1e-2),
    "stablelm": sizes(16, 2, 1, 0, use_qkv_bias=True, layer_norm_eps=1e-2, partial_rotary_factor=0.25),
    "olmo": sizes(24, 4, 2, 0, clip_qkv=0.6),
    "olmo2": sizes(24, 4, 2, 0),
    "olmo3": sizes(12, 2, 1, 0, 4, sliding_window=9, rope_scaling=YARN),
    "olmoe": sizes(16, 4, 2, 0, clip_qkv=0.6, **experts()),
    "smollm3": sizes(16, 4, 2, 0, 4, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=9),
    "llama4_text": sizes(12, 4, 2, 4, 4, no_rope_layers=[1, 1, 0, 1], attention_chunk_size=12, floor_scale=10,
                         attn_scale=0.3, use_qk_norm=True, attention_bias=True, intermediate_size_mlp=8,
                         **experts()),
    "seed_oss": sizes(16, 4, 2, 4, attention_out_bias=True),
    "exaone4": sizes(12, 4, 2, 4, 4, sliding_window=9, sliding_window_pattern=4),
    "exaone4__full": sizes(16, 4, 2, 4, 2, sliding_window=None, sliding_window_pattern=None,
                           layer_types=["full_attention", "full_attention"]),
    "nemotron": sizes(16, 4, 2, 4, partial_rotary_factor=0.5, attention_bias=True, norm_eps=1e-2),
    "ernie4_5": sizes(16, 4, 2, 4, use_bias=True),
    "ernie4_5_moe": sizes(24, 4, 2, 0, moe_num_experts=2, moe_k=1, **experts()),
    "hunyuan_v1_dense": sizes(16, 4, 2, 4, rope_scaling={"type": "dynamic", "alpha": 50.0, "factor": 1.0}),
    "hunyuan_v1_moe": sizes(16, 2, 2, 8, attention_bias=True, moe_topk=1, **experts()),
    "arcee": sizes(16, 4, 2, 4, attention_bias=True),
    "apertus": sizes(24, 4, 2, 0, rope_parameters=LLAMA3),
    "dots1": sizes(12, 4, 2, 4, 3, sliding_window=9, max_window_layers=1, first_k_dense_replace=3, n_routed_experts=2,
                   **experts()),
    "minimax_m2": sizes(16, 4, 2, 4, rotary_dim=2, **experts()),
    "gpt2": {"n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 64, "vocab_size": 32, "n_inner": 16,
             "layer_norm_epsilon": 1e-2},
    "gpt_neox": sizes(24, 3, None, 0, rotary_pct=0.5, rotary_emb_base=500, layer_norm_eps=1e-2),
    "persimmon": sizes(16, 2, None, 0, layer_norm_eps=1e-2),
    "falcon__group": {"hidden_size": 16, "num_attention_heads": 4, "num_kv_heads": 2, "num_hidden_layers": 2,
                      "vocab_size": 32, "new_decoder_architecture": True, "bias": True},
    "falcon__single": {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "vocab_size": 32,
                       "multi_query": True},
    "falcon__heads": {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 32,
                      "multi_query": False, "bias": True},
    "internlm2": sizes(24, 6, 2, 6, attention_bias=True),  # transformers' llama, its projections fused
    "gemma4_text": sizes(16, 4, 2, 4, 3, attention_k_eq_v=True, global_head_dim=8, num_global_key_value_heads=1,
                         sliding_window=7, num_kv_shared_layers=0, hidden_size_per_layer_input=0,
                         layer_types=["sliding_attention", "full_attention", "full_attention"],
                         rope_parameters={"full_attention": {"rope_type": "proportional", "rope_theta": 500.0,
                                                             "partial_rotary_factor": 0.5},
                                          "sliding_attention": {"rope_type": "default", "rope_theta": 20.0}}),
    "qwen3_next": sizes(16, 4, 2, 8, 3, attention_bias=True, full_attention_interval=3, linear_num_value_heads=2,
                        linear_num_key_heads=2, linear_key_head_dim=4, linear_value_head_dim=4,
                        shared_expert_intermediate_size=8, **experts()),
    "qwen3_5_text": sizes(12, 4, 2, 8, 2, layer_types=["linear_attention", "full_attention"], linear_num_value_heads=2,
                          linear_num_key_heads=2, linear_key_head_dim=4, linear_value_head_dim=4,
                          rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5,
                                           "mrope_section": [1, 1, 0], "mrope_interleaved": True}),
    "qwen3_5_moe_text": sizes(16, 2, 1, 8, 2, layer_types=["full_attention", "linear_attention"],
                              linear_num_value_heads=2, linear_num_key_heads=2, linear_key_head_dim=4,
                              linear_value_head_dim=4, shared_expert_intermediate_size=8, **experts()),
    "vaultgemma": sizes(12, 2, 1, 4, query_pre_attn_scalar=3, sliding_window=7, attn_logit_softcapping=0.5),
    "qwen3_vl_text": sizes(12, 4, 2, 4, attention_bias=True,
                           rope_scaling={"rope_type": "default", "mrope_section": [1, 1, 0], "mrope_interleaved": True}),
    "qwen3_vl_moe_text": sizes(16, 4, 2, 0, **experts()),
    "gpt_bigcode": {"n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 64, "vocab_size": 32, "n_inner": 16},
    "helium": sizes(16, 4, 2, 4, attention_bias=True),
    "qwen2_vl_text": sizes(16, 4, 2, 0, 3, rope_scaling={"type": "mrope", "mrope_section": [1, 1, 0]}, use_sliding_window=True, sliding_window=9, max_window_layers=2),
    "qwen2_5_vl_text": sizes(24, 4, 1, 0, rope_scaling={"type": "mrope", "mrope_section": [1, 1, 1]}),
    "internlm3": sizes(16, 4, 2, 6, qkv_bias=True, bias=True),
    "exaone": {key.replace("num_hidden_layers", "num_layers").replace("rms_norm_eps", "layer_norm_epsilon"): value
               for key, value in sizes(24, 4, 2, 0, rope_scaling=LLAMA3, attention_bias=True).items()},
    "sarvam_moe": sizes(16, 4, 2, 6, use_qkv_bias=True, first_k_dense_replace=2, n_routed_experts=2, **experts()),
    "sarvam_moe__unnormed": sizes(16, 2, 1, 4, use_qk_norm=False, first_k_dense_replace=2, n_routed_experts=2,
                                  **experts()),
    "hy_v3": sizes(16, 4, 2, 6, attention_bias=True, first_k_dense_replace=2, **experts()),
    "lfm2": sizes(16, 4, 2, 0, 3, norm_eps=1e-2, layer_types=["full_attention", "conv", "full_attention"]),
    "lfm2_moe": sizes(24, 4, 1, 0, 2, norm_eps=1e-2, layer_types=["conv", "full_attention"], num_dense_layers=2, **experts()),
    "falcon_h1": sizes(16, 4, 2, 6, attention_bias=True, key_multiplier=0.4, attention_in_multiplier=1.5,
                       attention_out_multiplier=0.7, mamba_d_ssm=8, mamba_n_heads=2, mamba_d_head=4, mamba_n_groups=1,
                       mamba_d_state=4, mamba_d_conv=2),
    "nemotron_h": sizes(16, 4, 2, 6, 4, hybrid_override_pattern="M*-*", mamba_num_heads=2, mamba_head_dim=4, n_groups=1,
                        ssm_state_size=4, conv_kernel=2),
    "internlm": sizes(16, 4, None, 0, attention_bias=True),  # transformers' llama
    "minicpm": sizes(24, 4, 2, 0, rope_scaling={"type": "dynamic", "factor": 4.0}, max_position_embeddings=16),
    "chatglm": sizes(16, 4, 2, 8, attention_bias=True),  # transformers' glm, its projections fused
    "phi3_v": sizes(16, 2, 2, 0, sliding_window=9),  # transformers' phi3
    "gptj": {"n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 64, "vocab_size": 32, "n_inner": 16, "rotary_dim": 4,
             "layer_norm_epsilon": 1e-2},
    "codegen": {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 32, "n_inner": 16,
                "rotary_dim": 6},
    "gpt_neo": {"hidden_size": 16, "num_heads": 4, "num_layers": 3, "max_position_embeddings": 64, "vocab_size": 32,
                "intermediate_size": 16, "attention_types": [[["global", "local"], 1], [["local"], 1]], "window_size": 7},
    "bloom": {"hidden_size": 24, "n_head": 6, "n_layer": 2, "vocab_size": 32, "layer_norm_epsilon": 1e-2},
    "mpt": {"d_model": 16, "n_heads": 4, "n_layers": 2, "vocab_size": 32, "max_seq_len": 64, "expansion_ratio": 1,
            "attn_config": {"alibi": True, "alibi_bias_max": 8, "clip_qkv": 0.6}},
    # transformers' mpt by other names, as configurations of models with ALiBi have no word for a number of positions
    "baichuan__alibi": {"d_model": 24, "n_heads": 3, "n_layers": 2, "vocab_size": 32, "max_seq_len": 64},
    "opt": {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "ffn_dim": 16, "vocab_size": 32,
            "max_position_embeddings": 64, "word_embed_proj_dim": 16},
    "opt__unbiased": {"hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 1, "ffn_dim": 16,
                      "vocab_size": 32, "max_position_embeddings": 64, "word_embed_proj_dim": 12, "enable_bias": False},
    "jamba": sizes(16, 4, 2, 0, 4, attn_layer_period=3, attn_layer_offset=1, mamba_d_state=4, mamba_d_conv=2,
                   mamba_expand=1, use_mamba_kernels=False, **experts()),
    "bamba": sizes(16, 2, 1, 0, 2, attn_layer_indices=[1], attention_bias=True, mamba_n_heads=2, mamba_d_head=16,
                   mamba_d_state=4, mamba_d_conv=2, mamba_n_groups=1),
    "granitemoehybrid": sizes(16, 4, 2, 0, 2, layer_types=["linear_attention", "full_attention"],
                              attention_multiplier=0.3, position_embedding_type="nope", mamba_n_heads=2, mamba_d_head=16,
                              mamba_d_state=4, mamba_d_conv=2, mamba_n_groups=1, shared_intermediate_size=8, **experts()),
    "granitemoehybrid__rope": sizes(24, 4, 2, 0, 1, layer_types=["full_attention"], attention_multiplier=0.4,
                                    position_embedding_type="rope", attention_bias=True, shared_intermediate_size=8,
                                    num_local_experts=0, num_experts_per_tok=0, mamba_n_heads=2, mamba_d_head=24),
    "nemotron-nas": sizes(16, 4, 2, 0, 2),  # transformers' llama, whose second layer has one group
    "orion": sizes(16, 4, 4, 0, 1), "xverse": sizes(24, 4, 4, 0, 1), "aquila": sizes(12, 2, 1, 0, 1),
    "Yi": sizes(24, 6, 2, 0, 1), "deepseek": sizes(16, 2, 2, 0, 1),  # transformers' llama
    "mimo": sizes(16, 4, 2, 6, 1, num_nextn_predict_layers=1),  # transformers' qwen2
    "qwen2_5_omni_text": sizes(16, 4, 2, 0, 2, rope_scaling={"type": "default", "mrope_section": [1, 1, 0]},
                               use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen3_omni_moe_text": sizes(16, 4, 2, 6, 1, attention_bias=True,
                                 rope_scaling={"type": "default", "mrope_section": [1, 1, 1], "mrope_interleaved": True},
                                 **experts()),
    "stablelm_epoch": sizes(16, 2, 1, 0, 1, use_qkv_bias=True, layer_norm_eps=1e-2, partial_rotary_factor=0.25),
    "phi4mm": sizes(24, 3, 1, 0, 1, sliding_window=9, partial_rotary_factor=0.75, original_max_position_embeddings=16,
                    rope_scaling={"type": "longrope", "short_factor": [1.0, 1.5, 2.0], "long_factor": [1.25, 3.0, 4.0]}),
    "mimo_v2_flash": sizes(16, 4, 1, 8, 3, v_head_dim=6, attention_bias=True, sliding_window_size=7, **MIMO),
    "mimo_v2_flash__ropes": sizes(12, 4, 2, 6, 2, v_head_dim=4, attention_value_scale=None, sliding_window=9,
                                  layer_types=["sliding_attention", "full_attention"], rope_parameters={
                                      "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0,
                                                         "partial_rotary_factor": 0.7},
                                      "sliding_attention": {"rope_type": "default", "rope_theta": 20.0,
                                                            "partial_rotary_factor": 1.0}}, **MIMO),
    "mllama_text_model": sizes(16, 4, 2, 0, 3, cross_attention_layers=[1], rope_scaling=LLAMA3),
    "phimoe__long": sizes(16, 4, 2, 0, original_max_position_embeddings=16, rope_scaling={**MSCALES}, **experts()),
    "phimoe__short": sizes(16, 2, 1, 0, rope_scaling={**MSCALES, "short_factor": [1.0, 1.5, 2.0, 2.5],
                                                      "long_factor": [1.25, 3.0, 4.0, 5.0],
                                                      "original_max_position_embeddings": 64}, **experts()),
    "llama__eagle3": sizes(16, 4, 2, 6, 1),  # transformers' LlamaAttention, its projections twice as wide
    "phi-msft": sizes(32, 4, None, 0, layer_norm_eps=1e-2, partial_rotary_factor=0.5),  # transformers' phi, fused
    "qwen": sizes(24, 4, 4, 6),   # transformers' qwen2, fused, see as_qwen
    "qwen__within": sizes(16, 2, 2, 8),
    "molmo": sizes(24, 4, 2, 0),    # transformers' qwen2, fused
    "molmo__normed": sizes(16, 4, 2, 0),  # transformers' olmo2, fused
    "deepseek_v2__mha": sizes(16, 4, 4, 0),  # transformers' llama
    "minicpmv": sizes(16, 4, 2, 6, rope_scaling={"rope_type": "longrope", "factor": 1.0, "original_max_position_embeddings": 16,
                                                 "short_factor": [1.0, 1.5, 2.0], "long_factor": [1.25, 3.0, 4.0]}),
    "minicpmv__qwen2": sizes(16, 4, 2, 0),
    "minicpmv__qwen3": sizes(16, 4, 2, 6),
    "minicpmo": sizes(24, 4, 2, 0),
    "baichuan": sizes(24, 4, None, 0),  # transformers' llama, fused
    "chatglm__ratio": sizes(24, 4, 2, 6, rope_theta=10000.0 * 50, partial_rotary_factor=2 / 3),
    # transformers' llama with the magnitude of MiniCPM's own code
    "minicpm__long": sizes(16, 4, 2, 0, rope_scaling={"rope_type": "longrope", "original_max_position_embeddings": 16,
                                                      "short_factor": [1.0, 1.5], "long_factor": [1.25, 3.0],
                                                      "factor": 1.0,
                                                      "attention_factor": (1 + math.log(64 / 16) / math.log(16)) ** 0.5}),
    # transformers' ministral3 in Mistral's own files
    "mistral_params": sizes(16, 4, 2, 6, sliding_window=13,
                            rope_parameters={**YARN, "llama_4_scaling_beta": 0.3, "beta_fast": 4.0, "beta_slow": 1.0,
                                             "mscale": 1.0, "mscale_all_dim": 1.0}),
}

CASES.update(NEWER_CASES)


def randomise(model):
    """Every parameter random, with gains around 1, biases around 0, and all of them bf16."""
    for name, parameter in model.named_parameters():
        spread = 0.25 if parameter.dim() == 2 and "norm" not in name else 0.5
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        value = torch.randn(parameter.shape) * spread + centre
        parameter.data = value.to(torch.bfloat16).to(torch.float32)


def record(model):
    """Hooks that fill a dictionary with what the attention modules read and give."""
    seen = {}

    def keep(block, name, value):
        seen[f"layer{block}.{name}"] = value.detach()[0].reshape(value.shape[1], -1).contiguous().clone()

    def read(block):
        def hook(module, args, kwargs):
            keep(block, "hidden", kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])
        return hook

    def given(block, name):
        def hook(module, args, output):
            keep(block, name, (output[0] if isinstance(output, (tuple, list)) else output) if name == "out" else args[0])
        return hook

    modules = [(name, module) for name, module in model.named_modules()
               if ATTENTION.search("." + name) and any(hasattr(module, n) for n in OUTPUT)
               and "embed_tokens_extend" not in name  # towers of Phi-4-multimodal
               and (not name.endswith("mixer") or hasattr(module, "q_proj")) and not hasattr(module, "slope_rate")]
    for block, (name, module) in enumerate(modules):
        module.register_forward_pre_hook(read(block), with_kwargs=True)
        output = next(getattr(module, n) for n in OUTPUT if hasattr(module, n))
        adds_residual = type(module).__name__ == "BloomAttention"
        (output if adds_residual else module).register_forward_hook(given(block, "out"))
        output.register_forward_hook(given(block, "context"))
    return seen, [name for name, _ in modules]


def as_internlm2(tensors, stated):
    """A llama's projections as InternLM2 has them: for each key/value head its query heads, its key, its value."""
    fused = {}
    dim, groups = stated["head_dim"], stated["num_key_value_heads"]
    for name, value in tensors.items():
        block, projection, kind = re.search(r"layers\.(\d+)\.self_attn\.(\w)_proj\.(\w+)", name).groups()
        if projection == "o":
            fused[f"model.layers.{block}.attention.wo.{kind}"] = value
        if projection == "q":
            parts = [tensors[name.replace("q_proj", part + "_proj")] for part in "qkv"]
            shares = [part.reshape(groups, -1, dim, *part.shape[1:]) for part in parts]
            whole = torch.cat(shares, dim=1).reshape(-1, *value.shape[1:])
            fused[f"model.layers.{block}.attention.wqkv.{kind}"] = whole.contiguous()
    stated["bias"] = stated.pop("attention_bias")
    stated["architectures"] = ["InternLM2ForCausalLM"]
    return fused


def fused(tensors, names):
    """Projections q, k and v as one, in turn, and the others by other names."""
    out = {}
    for name, value in tensors.items():
        block, module, kind = re.search(r"layers\.(\d+)\.self_attn\.(\w+)\.(\w+)", name).groups()
        if module == "q_proj":
            out[names["qkv"].format(block, kind)] = torch.cat(
                [tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
        elif module in names:
            out[names[module].format(block, kind)] = value
    return out


def as_mistral_params(tensors, stated):
    """Mistral's own names, words, and order of rows: rotated pairs are neighbours."""
    rope = stated["rope_parameters"]
    original = rope["original_max_position_embeddings"]
    params = {"dim": stated["hidden_size"], "n_layers": stated["num_hidden_layers"], "head_dim": stated["head_dim"],
              "hidden_dim": stated["intermediate_size"], "n_heads": stated["num_attention_heads"],
              "n_kv_heads": stated["num_key_value_heads"], "norm_eps": stated["rms_norm_eps"],
              "vocab_size": stated["vocab_size"], "rope_theta": rope["rope_theta"],
              "sliding_window": stated["sliding_window"], "model_type": "transformer",
              "max_position_embeddings": stated["max_position_embeddings"],
              "yarn": {"original_max_position_embeddings": original, "factor": rope["factor"], "apply_scale": False,
                       "beta": rope["beta_fast"], "alpha": rope["beta_slow"]},
              "llama_4_scaling": {"original_max_position_embeddings": original, "beta": rope["llama_4_scaling_beta"]},
              "moe": {"num_experts": 2, "num_experts_per_tok": 1}}
    out = {}
    for name, value in tensors.items():
        block, part = re.search(r"layers\.(\d+)\.self_attn\.(\w)_proj\.weight", name).groups()
        if part in "qk":
            pairs = value.reshape(-1, 2, stated["head_dim"] // 2, value.shape[1])
            value = pairs.transpose(1, 2).reshape(value.shape)
        out[f"layers.{block}.attention.w{part}.weight"] = value
    stated.clear()
    stated.update(params)
    return out


def as_step(case, tensors, stated):
    """In published words, with the attention of a block that predicts; or as the text part of a wrapper."""
    tensors = {"model." + name: value for name, value in tensors.items()}
    if case == "step3p5__saved":
        inner = {**stated, "architectures": ["Step3p7TextModel"]}
        stated.clear()
        stated.update(architectures=["Step3p7ForConditionalGeneration"], model_type="step3p7", image_token_id=31,
                      projector_bias=False, text_config=inner,
                      vision_config={"model_type": "step3p5_vision", "width": 8, "layers": 1, "heads": 2})
        return tensors
    stated["architectures"] = ["Step3p5ForCausalLM"]
    predicting = {name.replace("layers.1.", "layers.4."): torch.randn(value.shape).to(value.dtype)
                  for name, value in tensors.items() if ".layers.1." in name}
    predicting["model.layers.4.eh_proj.weight"] = torch.randn(16, 32).to(torch.bfloat16)
    return {**tensors, **predicting}


def renamed(stated, pairs):
    for name, key in pairs:
        stated[name] = stated.pop(key)


QWEN_LENGTH = {"qwen": 12, "qwen__within": 64}  # seq_length; a sequence has 41 tokens


def as_qwen(case, tensors, stated):
    renamed(stated, (("kv_channels", "head_dim"), ("layer_norm_epsilon", "rms_norm_eps")))
    del stated["num_key_value_heads"]
    stated.update(architectures=["QWenLMHeadModel"], seq_length=QWEN_LENGTH[case], rotary_emb_base=10000, rotary_pct=1.0,
                  no_bias=True, scale_attn_weights=True, use_dynamic_ntk=True, use_logn_attn=True)
    at = "transformer.h.{}.attn."
    return fused(tensors, {"qkv": at + "c_attn.{}", "o_proj": at + "c_proj.{}"})


def like_qwen(case, model):
    """What modeling_qwen.py adds to transformers' qwen2 beyond seq_length: a larger base, and longer queries."""
    length, dim = QWEN_LENGTH[case], model.config.head_dim
    alpha = max(2 ** math.ceil(math.log(TOKENS / length, 2) + 1) - 1, 1)
    theta = 10000.0 * alpha ** (dim / (dim - 2))
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.inv_freq.copy_(theta ** (-torch.arange(0, dim, 2).double() / dim))
        if hasattr(module, "q_proj"):
            factor = torch.tensor([max(math.log(p, length), 1.0) for p in range(1, TOKENS + 1)])
            module.q_proj.register_forward_hook(lambda m, args, out, f=factor: out * f[None, :, None])


def one_group(model):
    """The second layer's keys and values are of one head."""
    attention, dim = model.model.layers[1].self_attn, model.model.layers[1].self_attn.head_dim
    attention.num_key_value_groups = model.config.num_attention_heads
    for name in ("k_proj", "v_proj"):
        setattr(attention, name, torch.nn.Linear(model.config.hidden_size, dim, bias=False))
    randomise(model)


def as_nemotron_nas(tensors, stated):
    """Four layers, of which the second has no attention and the third a linear map in its place."""
    own = {"no_op": False, "replace_with_linear": False, "sparsify": None, "window_length": None}
    stated.update(architectures=["DeciLMForCausalLM"], num_key_value_heads=None, num_hidden_layers=4, block_configs=[
        {"attention": {**own, "n_heads_in_group": 2}}, {"attention": {**own, "n_heads_in_group": None, "no_op": True}},
        {"attention": {**own, "n_heads_in_group": None, "replace_with_linear": True}},
        {"attention": {**own, "n_heads_in_group": 4}}])
    return {name.replace("layers.1.", "layers.3."): value for name, value in tensors.items()}


def eagle3(model, seen):
    """The attention of an EAGLE-3 head, which reads [embedding | hidden state], by itself."""
    attention, width = model.model.layers[0].self_attn, model.config.hidden_size
    for name in ("q_proj", "k_proj", "v_proj"):
        old = getattr(attention, name)
        setattr(attention, name, torch.nn.Linear(2 * width, old.out_features, bias=False))
    randomise(model)
    x = torch.randn(1, TOKENS, 2 * width)
    mask = torch.full((TOKENS, TOKENS), float("-inf")).triu(1)[None, None]
    ropes = model.model.rotary_emb(x, torch.arange(TOKENS)[None])
    attention(hidden_states=x, position_embeddings=ropes, attention_mask=mask)


def as_published(case, tensors, stated):
    """The tensors under the names of the published files, and the configuration in their words."""
    model_type = case.split("__")[0]
    if model_type == "gemma3n_text":  # published files have keys and values of layers that share others, too
        first = stated["num_hidden_layers"] - stated["num_kv_shared_layers"]
        unread = {re.sub(r"layers\.0\.", f"layers.{layer}.", name): torch.randn(value.shape).to(value.dtype)
                  for name, value in tensors.items() if re.search(r"layers\.0\.self_attn\.[kv]_", name)
                  for layer in range(first, stated["num_hidden_layers"])}
        return {**tensors, **unread}
    if model_type == "qwen":
        return as_qwen(case, tensors, stated)
    if case == "llama__eagle3":
        stated.update(architectures=["LlamaForCausalLMEagle3"], draft_vocab_size=16)
        return {name.replace("model.layers.0.", "midlayer."): value for name, value in tensors.items()}
    if model_type == "phi-msft":
        heads, width = stated["num_attention_heads"], stated["hidden_size"]
        stated.update(architectures=["PhiForCausalLM"], rotary_dim=int(stated.pop("partial_rotary_factor") * width / heads))
        renamed(stated, (("n_embd", "hidden_size"), ("n_head", "num_attention_heads"), ("n_layer", "num_hidden_layers"),
                         ("n_positions", "max_position_embeddings"), ("layer_norm_epsilon", "layer_norm_eps")))
        del stated["rms_norm_eps"]
        at = "transformer.h.{}.mixer."
        return fused(tensors, {"qkv": at + "Wqkv.{}", "dense": at + "out_proj.{}"})
    if model_type == "molmo":
        stated.update(architectures=["MolmoForCausalLM"], qkv_bias=case == "molmo", layer_norm_type="rms",
                      attention_layer_norm=case != "molmo", rope_theta=10000.0, norm_after=False, clip_qkv=None)
        stated["layer_norm_eps"] = stated.pop("rms_norm_eps")
        at = "model.transformer.blocks.{}."
        return fused(tensors, {"qkv": at + "att_proj.{}", "o_proj": at + "attn_out.{}", "q_norm": at + "q_norm.{}",
                               "k_norm": at + "k_norm.{}"})
    if case == "deepseek_v2__mha":
        stated.update(architectures=["DeepseekV2ForCausalLM"], use_mla=False, kv_lora_rank=None, q_lora_rank=None,
                      qk_nope_head_dim=0, qk_rope_head_dim=0, v_head_dim=0)
    if model_type in ("minicpmv", "minicpmo"):
        stated.update(architectures=["MiniCPMV" if model_type == "minicpmv" else "MiniCPMO"], query_num=64,
                      version={"minicpmv": 4.0, "minicpmv__qwen3": 4.5}.get(case, 2.6))
        return {"llm." + name: value for name, value in tensors.items()}
    if case == "baichuan__alibi":
        renamed(stated, (("hidden_size", "d_model"), ("num_attention_heads", "n_heads"),
                         ("num_hidden_layers", "n_layers"), ("model_max_length", "max_seq_len")))
        stated.update(architectures=["BaichuanForCausalLM"], rms_norm_eps=1e-6)
        return {name.replace("transformer.blocks", "model.layers").replace(".attn.Wqkv", ".self_attn.W_pack").replace(
            ".attn.out_proj", ".self_attn.o_proj"): value for name, value in tensors.items()}
    if model_type == "baichuan":
        stated["architectures"] = ["BaichuanForCausalLM"]
        at = "model.layers.{}.self_attn."
        return fused(tensors, {"qkv": at + "W_pack.{}", "o_proj": at + "o_proj.{}"})
    if model_type == "nemotron-nas":
        return as_nemotron_nas(tensors, stated)
    if model_type == "mimo_v2_flash":
        return {name.replace("self_attn.sinks", "self_attn.attention_sink_bias"): value
                for name, value in tensors.items()}
    if model_type == "step3p5":
        return as_step(case, tensors, stated)
    if model_type == "mimo":
        stated["architectures"] = ["MiMoForCausalLM"]
    if model_type == "stablelm_epoch":
        stated["architectures"] = ["StableLMEpochForCausalLM"]
        renamed(stated, (("rope_pct", "partial_rotary_factor"), ("norm_eps", "layer_norm_eps")))
        del stated["rms_norm_eps"]
    if model_type == "phi4mm":
        stated.update(architectures=["Phi4MMForCausalLM"], vision_lora={"r": 4}, speech_lora={"r": 4})
        return {name.replace("_proj.", "_proj.base_layer."): value for name, value in tensors.items()}
    if model_type in ("orion", "xverse", "aquila", "Yi", "deepseek"):
        stated["architectures"] = [model_type.capitalize() + "ForCausalLM"]
    if model_type == "xverse":
        stated["rope_theta"] = 10000.0
    if case == "minicpm__long":
        del stated["rope_scaling"]["attention_factor"]
    if model_type == "internlm2":
        return as_internlm2(tensors, stated)
    if model_type == "internlm":
        stated.update(bias=stated.pop("attention_bias"), architectures=["InternLMForCausalLM"])
    if model_type == "minicpm":
        stated.update(architectures=["MiniCPMForCausalLM"], scale_emb=12)
    if model_type == "mistral_params":
        return as_mistral_params(tensors, stated)
    if model_type == "phi3_v":
        stated["architectures"] = ["Phi3VForCausalLM"]
    if model_type == "exaone":
        return {re.sub(r"^model\.layers\.(\d+)\.self_attn\.", r"transformer.h.\1.attn.attention.", name).replace(
            "o_proj", "out_proj"): value for name, value in tensors.items()}
    if model_type == "sarvam_moe":
        at = "model.layers.{}.attention."
        return fused(tensors, {"qkv": at + "query_key_value.{}", "o_proj": at + "dense.{}",
                               "q_norm": at + "query_layernorm.{}", "k_norm": at + "key_layernorm.{}"})
    if model_type == "chatglm":
        renamed(stated, (("num_layers", "num_hidden_layers"), ("multi_query_group_num", "num_key_value_heads"),
                         ("kv_channels", "head_dim"), ("layernorm_epsilon", "rms_norm_eps"),
                         ("seq_length", "max_position_embeddings")))
        stated["add_qkv_bias"] = stated.pop("attention_bias", True)
        if case == "chatglm__ratio":
            stated["rope_ratio"] = int(stated.pop("rope_theta") / 10000.0)
            stated["padded_vocab_size"] = 151552  # GLM-4's, whose code multiplies the base
        stated.update(architectures=["ChatGLMModel"], multi_query_attention=True, rmsnorm=True, original_rope=True,
                      add_bias_linear=False, apply_query_key_layer_scaling=True)
        at = "transformer.encoder.layers.{}.self_attention."
        return fused(tensors, {"qkv": at + "query_key_value.{}", "o_proj": at + "dense.{}"})
    return tensors


# Families whose code transformers does not have, and whose attention is that of another.
SAME_AS = {"internlm2": "llama", "internlm": "llama", "minicpm": "llama", "chatglm": "glm", "phi3_v": "phi3",
           "mistral_params": "ministral3", "phi-msft": "phi", "qwen": "qwen2", "molmo": "qwen2",
           "molmo__normed": "olmo2", "deepseek_v2__mha": "llama", "minicpmv": "llama", "minicpmv__qwen2": "qwen2",
           "minicpmv__qwen3": "qwen3", "minicpmo": "qwen2", "baichuan": "llama", "mimo": "qwen2", "stablelm_epoch": "stablelm", "phi4mm": "phi3",
           "nemotron-nas": "llama", "orion": "llama", "xverse": "llama",
           "aquila": "llama", "Yi": "llama", "deepseek": "llama",
           "baichuan__alibi": "mpt", "gpt-sw3": "gpt2"}


CLASSES = {"mllama_text_model": MllamaForCausalLM, "qwen2_5_omni_text": Qwen2_5OmniThinkerTextModel,
           "qwen3_omni_moe_text": Qwen3OmniMoeThinkerTextModel, "emu3_text_model": Emu3TextModel,
           "granite4_vision_text": Granite4VisionTextModel, "paddleocr_vl_text": PaddleOCRTextModel, "step3p5": Step3p7TextModel}
CONFIGS = {"qwen2_5_omni_text": Qwen2_5OmniTextConfig, "qwen3_omni_moe_text": Qwen3OmniMoeTextConfig}


def make(case, folder):
    set_seed(sum(case.encode()))
    model_type = case.split("__")[0]
    stated = copy.deepcopy(CASES[case])
    config = (CONFIGS[model_type](**stated) if model_type in CONFIGS else
              AutoConfig.for_model(SAME_AS.get(case, SAME_AS.get(model_type, model_type)), **stated))
    config._attn_implementation = "eager"
    kind = AutoModelForCausalLM if type(config) in AutoModelForCausalLM._model_mapping else AutoModel
    own_class = CLASSES.get(model_type)  # of those that no AutoModel knows
    model = (own_class._from_config if own_class else kind.from_config)(config).to(torch.float32).eval()
    randomise(model)
    seen, attention = record(model)
    if model_type == "qwen":
        like_qwen(case, model)
    if model_type == "nemotron-nas":
        one_group(model)
    with torch.no_grad():
        if case == "llama__eagle3":
            eagle3(model, seen)
        else:
            model(input_ids=torch.randint(3, 32, (1, TOKENS)), use_cache=False)
    os.makedirs(folder, exist_ok=True)
    stated = {**copy.deepcopy(CASES[case]), "model_type": model_type, "architectures": [type(model).__name__]}
    kept = {name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()
            if any(name.startswith(module + ".") for module in attention)}
    kept = {name: value.contiguous() for name, value in as_published(case, kept, stated).items()}
    own = model_type == "mistral_params"
    with open(os.path.join(folder, "params.json" if own else "config.json"), "w") as file:
        json.dump(stated, file, indent=1, sort_keys=True)
        file.write("\n")
    save_file(kept, os.path.join(folder, "consolidated.safetensors" if own else "model.safetensors"), metadata={"format": "pt"})
    save_file(seen, os.path.join(folder, "reference.safetensors"))


def main():
    folder, chosen = sys.argv[1], sys.argv[2:] or list(CASES)
    for case in chosen:
        make(case, os.path.join(folder, case))
        print(case, flush=True)


if __name__ == "__main__":
    main()
