"""More cases of make_family_cases.py: families that came with transformers 5, and elder ones beside them."""
from family_sizes import LLAMA3, YARN, experts, sizes

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
DELTA = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 4, "linear_value_head_dim": 4}
SHARED = {"shared_expert_intermediate_size": 8, **experts()}


def ropes(full, sliding):
    """Rope dictionaries by layer type."""
    return {FULL: full, SLIDING: sliding}


def plain(theta, **more):
    return {"rope_type": "default", "rope_theta": theta, **more}


GEMMA4 = {"attention_k_eq_v": True, "sliding_window": 7, "layer_types": [SLIDING, FULL, FULL],
          "rope_parameters": ropes({"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
                                   plain(20.0))}

# Keys and values of the first layers for the last ones: of each type two layers have their own, and the second is not
# the last layer before the sharing begins for both.
GEMMA3N = {"sliding_window": 7, "layer_types": [SLIDING, FULL, SLIDING, FULL, SLIDING, SLIDING, FULL],
           "num_kv_shared_layers": 3, "rope_parameters": ropes(plain(500.0), plain(20.0)), "hidden_size_per_layer_input": 4,
           "laurel_rank": 4, "altup_num_inputs": 2, "vocab_size_per_layer_input": 32,
           "activation_sparsity_pattern": [0.0] * 7, "intermediate_size": [16] * 7}
SHARED_KEYS = {**GEMMA4, "attention_k_eq_v": False, "num_kv_shared_layers": 2,
               "layer_types": [FULL, SLIDING, FULL, SLIDING, SLIDING, FULL]}

STEP = {"num_attention_groups": 2, "sliding_window": 9, "num_nextn_predict_layers": 1,
        "layer_types": [FULL, SLIDING, SLIDING, FULL, SLIDING], "rope_theta": [500.0, 20.0, 20.0, 500.0, 20.0],
        "partial_rotary_factors": [0.5, 1.0, 1.0, 0.5, 1.0], "yarn_only_types": [FULL], "use_rope_layers": [],
        "rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 16},
        "attention_other_setting": {"attention_type": SLIDING, "num_attention_heads": 6, "num_attention_groups": 2,
                                    "head_dim": 8, "true_head_dim": 8},
        "use_head_wise_attn_gate": True, "use_qk_norm": True, "zero_centered": True, "att_impl_type": "GQA",
        "sink": False, "use_moe": True, "moe_layers_enum": "2,3", "moe_num_experts": 2, "moe_top_k": 1,
        "moe_intermediate_size": 8, "share_expert_dim": 8, "norm_expert_weight": True, "need_fp32_gate": True,
        "use_moe_router_bias": True, "moe_router_activation": "sigmoid", "moe_router_scaling_factor": 3.0,
        "swiglu_limits": [0.0, 0.0, 0.0, 7.0, 0.0], "swiglu_limits_shared": [0.0, 0.0, 0.0, 16.0, 0.0]}

NEWER_CASES = {
    "gemma3n_text": {**sizes(16, 4, 2, 4, 7), **GEMMA3N},
    "gemma3n_text__biased": {**sizes(12, 2, 1, 8, 7), **GEMMA3N, "num_kv_shared_layers": 4, "attention_bias": True,
                             "layer_types": [FULL, SLIDING, SLIDING, FULL, SLIDING, FULL, SLIDING]},
    "gemma4_text__shared": sizes(16, 4, 1, 4, 6, global_head_dim=8, hidden_size_per_layer_input=4,
                                 vocab_size_per_layer_input=32, **SHARED_KEYS),
    "gemma4_unified_text__shared": sizes(12, 4, 2, 4, 6, global_head_dim=8, num_global_key_value_heads=1,
                                         **{**SHARED_KEYS, "attention_k_eq_v": True}),
    # What other families compute, by other names and defaults.
    "apertus1p5_text": sizes(24, 4, 2, 0, rope_parameters=LLAMA3, attention_bias=True),
    "aria_text": sizes(20, 5, 1, 0, attention_bias=True, rope_theta=500.0, moe_num_experts=2, moe_topk=1,
                       moe_num_shared_experts=1),
    "flex_olmo": sizes(24, 4, 2, 0, attention_bias=True, **experts()),
    "iquestcoder": sizes(16, 4, 2, 6, attention_bias=True, rope_theta=500.0),
    "jais2": sizes(16, 4, 2, 6, layer_norm_eps=1e-2),
    "solar_open": sizes(16, 4, 2, 6, attention_bias=True, n_routed_experts=2, **experts()),
    "hyperclovax": sizes(24, 4, 2, 8, attention_multiplier=0.3, attention_bias=True, embedding_multiplier=2.0),
    "hyperclovax__usual": sizes(24, 4, 1, 8, rope_theta=500.0),
    "phi4_multimodal": sizes(24, 4, 2, 0, sliding_window=9, partial_rotary_factor=2 / 3,
                             original_max_position_embeddings=16,
                             rope_scaling={"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [1.25, 3.0]}),
    "gpt-sw3": {"n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 32, "n_inner": 16,
                "layer_norm_epsilon": 1e-2},
    # The language models of models that see, for text.
    "glm4v_text": sizes(24, 4, 1, 0, rope_parameters=plain(500.0, partial_rotary_factor=2 / 3, mrope_section=[1, 1, 0])),
    "glm4v_moe_text": sizes(16, 4, 2, 8, n_routed_experts=2, first_k_dense_replace=2,
                            rope_parameters=plain(500.0, mrope_section=[1, 1, 0]), **experts()),
    "glm_ocr_text": sizes(24, 4, 2, 8, rope_parameters=plain(500.0, mrope_section=[2, 1, 1])),
    "granite_docling_text": sizes(24, 4, 2, 0, attention_bias=True),
    "granite4_vision_text": sizes(16, 4, 2, 0, attention_multiplier=0.3, attention_bias=True),
    "paddleocr_vl_text": sizes(16, 4, 2, 6, use_bias=True, rope_parameters=plain(20.0, mrope_section=[1, 1, 1])),
    "emu3_text_model": sizes(20, 5, 5, 0),
    "hunyuan_vl_text": sizes(16, 4, 2, 4, attention_bias=True, rope_parameters=plain(20.0, mrope_section=[1, 1])),
    "hunyuan_vl_text__alpha": sizes(12, 2, 1, 8, rope_scaling={"type": "dynamic", "alpha": 50.0, "factor": 1.0,
                                                               "mrope_section": [2, 1, 1]}),
    # Windows, and blocks that do not rotate.
    "cwm": sizes(16, 4, 2, 6, 5, sliding_window=9, rope_parameters=LLAMA3),
    "afmoe": sizes(16, 4, 2, 6, 4, sliding_window=9, global_attn_every_n_layers=2, attention_bias=True,
                   num_dense_layers=4, route_scale=2.0, **experts()),
    "exaone_moe": sizes(16, 4, 2, 6, 4, sliding_window=9, sliding_window_pattern=2, first_k_dense_replace=4,
                        **experts()),
    "exaone_moe__full": sizes(12, 2, 1, 6, 2, sliding_window=9, layer_types=[FULL, FULL], first_k_dense_replace=2,
                              **experts()),
    "kolibri1": sizes(16, 4, 2, 6, 5, sliding_window=9, **SHARED),
    "flint": sizes(16, 4, 2, 6, 3, sliding_window=9, layer_types=[FULL, SLIDING, FULL], attention_bias=True,
                   mlp_only_layers=[0, 1, 2], **SHARED),
    "cohere2_moe": sizes(16, 4, 2, 6, 4, layer_norm_eps=1e-2, sliding_window=7, attention_bias=True,
                         layer_types=[FULL, SLIDING, FULL, SLIDING],
                         mlp_layer_types=["dense", "sparse", "sparse", "dense"], prefix_dense_intermediate_size=8,
                         **experts()),
    "cohere2_moe__prefix": sizes(16, 2, 1, 6, 4, layer_norm_eps=1e-2, sliding_window=7, sliding_window_pattern=2,
                                 first_k_dense_replace=1, prefix_dense_intermediate_size=8, **experts()),
    "cohere_compass_text": sizes(24, 4, 2, 0, 3, layer_norm_eps=1e-2, sliding_window=7, attention_bias=True,
                                 layer_types=[FULL, SLIDING, FULL], rope_parameters=ropes(None, plain(20.0))),
    "granite_swa": sizes(24, 4, 2, 0, 5, attention_multiplier=0.3, sliding_window=9, attention_bias=True,
                         residual_multiplier=0.5, rope_theta=1000.0, layer_rope_theta=[500.0, 0, 20.0, 1000.0, 20.0]),
    "granitemoe_swa": sizes(20, 5, 1, 0, 2, attention_multiplier=0.4, sliding_window=9, rope_theta=500.0,
                            layer_types=[SLIDING, FULL], **experts()),
    "mellum": sizes(16, 4, 2, 6, 2, sliding_window=9, layer_types=[FULL, SLIDING], attention_bias=True,
                    rope_parameters=ropes(YARN, plain(20.0)), **experts()),
    "modernbert-decoder": sizes(24, 4, None, 0, 4, local_attention=18, norm_eps=1e-2, attention_bias=True,
                                global_attn_every_n_layers=2, global_rope_theta=500.0, local_rope_theta=20.0,
                                cls_token_id=1, sep_token_id=2),
    "laguna": sizes(16, 4, 2, 6, 2, sliding_window=9, layer_types=[FULL, SLIDING], attention_bias=True,
                    num_attention_heads_per_layer=[4, 6], mlp_layer_types=["dense", "dense"],
                    rope_parameters=ropes({**YARN, "partial_rotary_factor": 2 / 3}, plain(20.0)), **SHARED),
    "laguna__elements": sizes(12, 2, 1, 6, 1, gating="per-element", mlp_layer_types=["dense"], layer_types=[FULL],
                              rope_parameters=ropes(plain(500.0), plain(20.0)), **SHARED),
    # In published words, with a block that predicts; and as transformers saves it, in a wrapper.
    "step3p5": {**sizes(16, 4, None, 8, 4), **STEP},
    "step3p5__saved": sizes(12, 2, 1, 12, 2, sliding_window=9, layer_types=[SLIDING, FULL], attention_bias=True,
                            query_pre_attn_scalar=5, num_sliding_attention_heads=3,
                            per_layer_config={"0": {"num_attention_heads": 3}}, mlp_layer_types=["dense", "dense"],
                            rope_parameters=ropes({**YARN, "partial_rotary_factor": 0.5},
                                                  plain(20.0, partial_rotary_factor=2 / 3))),
    "gemma4_unified_text": sizes(16, 4, 2, 4, 3, global_head_dim=8, num_global_key_value_heads=1, **GEMMA4),
    # As transformers saves it: sizes of single layers.
    "gemma4_unified_text__layers": sizes(12, 4, 2, 4, 3, per_layer_config={b: {"head_dim": 8, "num_key_value_heads": 1} for b in "12"},
                                         **GEMMA4),
    "nanochat": sizes(24, 4, 2, 0, attention_bias=True, rope_theta=500.0),
    # Beside layers of another kind.
    "lara_mini": sizes(16, 4, 2, 6, 3, sliding_window=9, layer_types=[LINEAR, SLIDING, FULL], attention_bias=True,
                       **DELTA, **SHARED),
    "lfm3": sizes(16, 4, 2, 6, 3, norm_eps=1e-2, sliding_window=9, layer_types=[SLIDING, "conv", FULL],
                  attention_bias=True, rope_parameters=ropes({"rope_type": "proportional", "rope_theta": 500.0,
                                                              "partial_rotary_factor": 0.5}, plain(20.0))),
    "lfm3__ungated": sizes(12, 2, 1, 6, 1, norm_eps=1e-2, layer_types=[FULL], use_attention_gate=False,
                           rope_parameters=ropes(plain(500.0), plain(20.0))),
    "minimax": sizes(16, 4, 2, 6, 2, layer_types=[FULL, LINEAR], sliding_window=9, block_size=8, **experts()),
    "olmo_hybrid": sizes(24, 4, 2, 0, 2, layer_types=[LINEAR, FULL], attention_bias=True, **DELTA),
    "olmo_hybrid__nope": sizes(16, 4, 2, 0, 4, rope_parameters=plain(None), **DELTA),
    "recurrent_gemma": sizes(24, 3, 1, 0, 5, attention_window_size=9, attention_bias=True, lru_width=24,
                             block_types=["recurrent", "attention"]),
    # Of the years before Llama.
    "biogpt": sizes(16, 2, None, 0, 2, layer_norm_eps=1e-2),
    "xglm": {"d_model": 24, "attention_heads": 4, "num_layers": 2, "ffn_dim": 16, "vocab_size": 32,
             "max_position_embeddings": 64},
    "ctrl": {"n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 64, "vocab_size": 32, "dff": 16,
             "layer_norm_epsilon": 1e-2},
    "openai-gpt": {"n_embd": 24, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 32,
                   "layer_norm_epsilon": 1e-2},
    "dbrx": {"d_model": 24, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "vocab_size": 32,
             "attn_config": {"clip_qkv": 0.6, "kv_n_heads": 2, "rope_theta": 500.0},
             "ffn_config": {"ffn_hidden_size": 8, "moe_num_experts": 2, "moe_top_k": 1},
             "rope_parameters": plain(500.0)},
}
