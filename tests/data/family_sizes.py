"""Sizes and rope dictionaries that the cases of make_family_cases.py and newer_family_cases.py have in common."""
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
MIMO = {"n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "attention_chunk_size": 8}
MSCALES = {"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [1.25, 3.0], "short_mscale": 1.3,
           "long_mscale": 1.7, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64, "rope_theta": 10000.0}


def sizes(width, heads, groups, dim, layers=2, **more):
    """What most configuration classes call their sizes; dim 0 leaves head_dim to the class."""
    stated = {"hidden_size": width, "intermediate_size": 16, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": groups, "vocab_size": 32, "max_position_embeddings": 64, "rms_norm_eps": 1e-2,
              "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if dim:
        stated["head_dim"] = dim
    if groups is None:
        del stated["num_key_value_heads"]
    return {**stated, **more}


def experts(**more):
    return {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8, **more}
