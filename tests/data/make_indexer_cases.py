# SPDX-License-Identifier: Apache-2.0
"""Writes OUT/hf/<case>/ for sparse indexers: tiny random models and what transformers 5.24 computes on them;
and tests/data/gguf/<case>-bf16.gguf: the same in the names, shapes and metadata that llama.cpp's converter gives such models.

Usage: python make_indexer_cases.py OUT [CASE ...]

Beside what tests/data/README.md says, reference.safetensors has `layer{i}.selection` [seq, top_k], int32: the positions that
each token sees, ascending, filled up with -1. Weights are such that every rule shows: gains and biases are random, the
indexer's keys are so small that the eps of their norm matters. Where a token's last selected and first left out key
differ by less than a rounding error, another seed is tried: torch.topk does not say which of equals it takes. The feed-forward
parts are left out of model.safetensors, and q, k, v and logits out of reference.safetensors.
"""
import json, pathlib, sys
import gguf, torch, transformers
from safetensors.torch import load_file, save_file

TOKENS = 43
BASE = dict(vocab_size=16, hidden_size=24, intermediate_size=16, moe_intermediate_size=8, num_attention_heads=2,
            num_key_value_heads=2, n_routed_experts=2, n_shared_experts=1, num_experts_per_tok=1, n_group=1, topk_group=1,
            first_k_dense_replace=99, q_lora_rank=12, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=6,
            max_position_embeddings=128, rms_norm_eps=1e-3, index_n_heads=5, index_head_dim=20, index_topk=6,
            pad_token_id=0, bos_token_id=1, eos_token_id=2)
LARGE4 = dict(num_attention_heads=3, num_key_value_heads=3, q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=6, v_head_dim=10,
              index_head_dim=12, index_topk=7)
UNSTATED = {"mistral_large4__unstated": ("rope_parameters", "no_rope_layers", "kv_source_layers", "indexer_types", "q_lora_rank")}
# Cases whose files are those of the multimodal model: by transformers' names, or the published ones for what is beside layers.
WRAPPED = {"mistral_large4__unstated": "MistralLarge4ForConditionalGeneration"}
PUBLISHED = {"mistral_large4": {"rotary_emb.alpha": "lerope.alpha", ".o_proj.": ".wo."}}
# A layer whose input is as small as the eps of the norms that read it, so that these show.
SMALL = {"mistral_large4": 8}
CASES = {
    "deepseek_v32_yarn": ("DeepseekV32", dict(num_hidden_layers=3, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0,
        mscale=1.0, mscale_all_dim=1.0))),
    "deepseek_v32_bias": ("DeepseekV32", dict(num_hidden_layers=1, attention_bias=True, index_head_dim=8, index_n_heads=3, index_topk=1,
                                              rope_parameters=dict(rope_type="default", rope_theta=100.0))),
    "glm_moe_dsa": ("GlmMoeDsa", dict(num_hidden_layers=4, indexer_types=["full", "full", "shared", "shared"], index_topk=9,
                                      qk_nope_head_dim=6, v_head_dim=10, rope_parameters=dict(rope_type="default", rope_theta=10000.0))),
    "hy_v4": ("HYV4", dict(num_hidden_layers=3, indexer_types=["full", "full", "shared"], hc_mult=2, index_n_heads=3,
                           rope_parameters=dict(rope_type="default", rope_theta=300.0))),
    "hy_v4_vl": ("HYV4VLText", dict(num_hidden_layers=2, indexer_types=["full", "shared"], hc_mult=2, index_n_heads=2, index_head_dim=14,
                                    rope_parameters=dict(rope_type="default", rope_theta=300.0, mrope_section=[2, 1, 1]))),
    "glm5_next": ("Glm5NextText", dict(num_hidden_layers=4, layer_types=["indexed_attention", "linear_attention", "indexed_attention", "indexed_attention"],
                                       indexer_types=["full", "full", "full", "shared"], index_topk=8, index_kpool=4, qk_rope_head_dim=0, head_dim=0,
                                       linear_head_dim=4, linear_num_heads=2, hc_mult=2)),
    # Latents: layers 0, 1 and 5 are read by others, layers 3 and 4 have an indexer and take another's latents, 7 and 8 share nothing.
    "mistral_large4": ("MistralLarge4Text", dict(num_hidden_layers=9, kv_source_layers=[0, 1, 0, 1, 0, 5, 5, 7, 8],
                       no_rope_layers=[1, 0, 1, 0, 1, 1, 1, 0, 1],
                       indexer_types=["full", "full", "shared", "full", "full", "shared", "shared", "full", "full"], **LARGE4,
                       rope_parameters=dict(rope_type="yarn", rope_theta=1000.0, factor=8.0, original_max_position_embeddings=16,
                                            beta_fast=8.0, beta_slow=1.0, attention_factor=1.25, mscale_all_dim=0.7))),
    # What its configuration class says where nothing is stated: every fourth layer does not rotate, the others by YaRN.
    "mistral_large4__unstated": ("MistralLarge4Text", dict(num_hidden_layers=4, attention_bias=True, **LARGE4)),
}


def randomise(model, seed, small=None):
    generator = torch.Generator().manual_seed(seed)
    normal = lambda p, std, mean=0.0: p.copy_(torch.randn(p.shape, generator=generator) * std + mean)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("indexer.wk.weight"):
                normal(p, 2e-4)  # variances about 1e-6
            elif name.endswith("norm.weight"):
                normal(p, 0.4, 1.0)
            elif name.endswith("bias") or name.endswith("sinks"):
                normal(p, 0.5)
            elif name.endswith("compress_gate") or name.endswith("softmax_scaling.scale"):
                normal(p, 0.3)
            else:
                normal(p, 1.5 / p.shape[-1] ** 0.5)
            if f"layers.{small}." in name:
                if "input_layernorm" in name:
                    p.mul_(1e-3)
                elif any(word in name for word in ("q_proj", "kv_a_proj", "indexer.wk", "weights_proj")):
                    p.mul_(1e3)
            p.copy_(p.to(torch.bfloat16).float())


def record(model, ids):
    """Runs the model; what its attention blocks saw and made, and the smallest relative gap around a selection."""
    out, gap, selected = {}, [float("inf")], {}
    def before(m, args, kwargs):
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        out[f"layer{number[m.layer_idx]}.hidden"] = x[0].clone()

    def after(m, args, result):
        out[f"layer{number[m.layer_idx]}.out"] = result[0][0].clone()
        pool = getattr(m.config, "index_kpool", 1)
        top_k, seq = m.config.index_topk + pool - 1, ids.shape[1]
        if m.indexer is not None:
            selected["last"] = selected[m.layer_idx]
        chosen = selected["last"]
        table = torch.full((seq, top_k), -1, dtype=torch.int32)
        for t in range(seq):
            mine = sorted(int(j) for j in chosen[t] if 0 <= j <= t)
            table[t, : len(mine)] = torch.tensor(mine, dtype=torch.int32)
        out[f"layer{number[m.layer_idx]}.selection"] = table

    def indexed(m, args, result):
        selected[m.layer_idx] = result[0]

    topk = torch.Tensor.topk

    def measured(scores, k, dim=-1, **more):
        pool = getattr(model.config, "index_kpool", 1)
        if scores.dim() == 3 and scores.shape[-1] == ids.shape[1] // pool:
            for t in range(ids.shape[1]):
                s = scores[0, t, : (t + 1) // pool].sort(descending=True).values
                if len(s) > k:
                    gap[0] = min(gap[0], float((s[k - 1] - s[k]) / s.abs().max()))
        return topk(scores, k, dim=dim, **more)

    torch.Tensor.topk = measured
    hooks, number = [], {}
    text = getattr(model, "model", model)
    for layer in (l for l in text.layers if getattr(l.self_attn, "kv_b_proj", None) is not None):
        hooks += [layer.self_attn.register_forward_pre_hook(before, with_kwargs=True), layer.self_attn.register_forward_hook(after)]
        number[layer.self_attn.layer_idx] = i = len(number)
        hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(
            lambda m, args, i=i: out.__setitem__(f"layer{i}.context", args[0][0].clone())))
        if layer.self_attn.indexer is not None:
            hooks.append(layer.self_attn.indexer.register_forward_hook(indexed))
            layer.self_attn.indexer.layer_idx = layer.self_attn.layer_idx
    try:
        with torch.no_grad():
            model(ids, use_cache=False)
    finally:
        torch.Tensor.topk = topk
        for hook in hooks:
            hook.remove()
    return out, gap[0]


def write_gguf(weights, c, architecture, path):
    """@source llama.cpp conversion/deepseek.py DeepseekV32Model, conversion/glm.py GlmMoeDsaModel"""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {"block_count": c.num_hidden_layers, "context_length": c.max_position_embeddings, "embedding_length": c.hidden_size,
                       "feed_forward_length": c.intermediate_size, "attention.head_count": c.num_attention_heads,
                       "attention.head_count_kv": 1, "attention.key_length": c.kv_lora_rank + c.qk_rope_head_dim,
                       "attention.value_length": c.kv_lora_rank, "attention.q_lora_rank": c.q_lora_rank,
                       "attention.kv_lora_rank": c.kv_lora_rank, "attention.value_length_mla": c.v_head_dim,
                       "attention.key_length_mla": c.qk_nope_head_dim + c.qk_rope_head_dim,
                       "rope.dimension_count": c.qk_rope_head_dim, "attention.indexer.head_count": c.index_n_heads,
                       "attention.indexer.key_length": c.index_head_dim, "attention.indexer.top_k": c.index_topk,
                       "vocab_size": c.vocab_size}.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", c.rms_norm_eps)
    rope = c.rope_parameters
    writer.add_float32(f"{architecture}.rope.freq_base", rope["rope_theta"])
    if rope["rope_type"] == "yarn":
        writer.add_string(f"{architecture}.rope.scaling.type", "yarn")
        writer.add_float32(f"{architecture}.rope.scaling.factor", rope["factor"])
        writer.add_uint32(f"{architecture}.rope.scaling.original_context_length", rope["original_max_position_embeddings"])
        writer.add_float32(f"{architecture}.rope.scaling.yarn_log_multiplier", 0.1 * rope["mscale_all_dim"])
    if getattr(c, "indexer_types", None):
        writer.add_array(f"{architecture}.attention.indexer.types", [t == "full" for t in c.indexer_types])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GLM_DSA, c.num_hidden_layers)

    def add(name, x):
        stem, suffix = name.rsplit(".", 1)
        stored = names.get_name(stem)
        single = x.dim() == 1 or "weights_proj" in name
        kind = gguf.GGMLQuantizationType.F32 if single else gguf.GGMLQuantizationType.BF16
        writer.add_tensor(f"{stored}.{suffix}", gguf.quants.quantize(x.float().contiguous().numpy(), kind), raw_dtype=kind)

    for name, x in weights.items():
        if "kv_b_proj" in name:
            heads = x.view(c.num_attention_heads, c.qk_nope_head_dim + c.v_head_dim, -1)
            add(name.replace("kv_b_proj", "k_b_proj"), heads[:, : c.qk_nope_head_dim].transpose(1, 2))
            add(name.replace("kv_b_proj", "v_b_proj"), heads[:, c.qk_nope_head_dim :])
        else:
            add(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name, out):
    folder = out / "hf" / name
    family, own = CASES[name]
    config = getattr(transformers, family + "Config")(**{**BASE, **own})
    config._attn_implementation = "eager"
    for seed in range(1000):
        torch.manual_seed(seed)
        head = getattr(transformers, family + "ForCausalLM", None) or getattr(transformers, family + "Model")
        model = head(config).float().eval()
        randomise(model, seed, SMALL.get(name))
        ids = torch.randint(3, config.vocab_size, (1, TOKENS), generator=torch.Generator().manual_seed(seed))
        reference, gap = record(model, ids)
        if gap > 2e-5:
            break
    else:
        raise SystemExit(f"{name}: every seed has near ties")
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)  # renames tensors to what published files call them
    names = [n for n in ("generation_config.json",) if (folder / n).exists()]
    for other in names:
        (folder / other).unlink()
    kept = ("self_attn", "attention", "input_layernorm", "embed_tokens", "alpha")
    stored = load_file(folder / "model.safetensors")
    if name in WRAPPED:  # as transformers calls them
        stored = {"model.language_model." + k: v for k, v in model.state_dict().items()}
    weights = {k: v.contiguous() for k, v in stored.items() if any(word in k for word in kept) and "post_attention" not in k}
    for old, new in PUBLISHED.get(name, {}).items():
        weights = {k.replace(old, new): v for k, v in weights.items()}
    save_file(weights, folder / "model.safetensors")
    save_file({k: v.contiguous() for k, v in reference.items()} | {"input_ids": ids[0]}, folder / "reference.safetensors")
    config.architectures = [type(model).__name__]
    text = json.loads(config.to_json_string(use_diff=False))
    keep = {k: v for k, v in text.items() if k not in UNSTATED.get(name, ()) and (k in BASE or k in own or k in
            ("architectures", "model_type", "layer_types", "mlp_layer_types", "indexer_types", "attention_bias", "rope_parameters", "head_dim",
             "qk_head_dim", "no_rope_layers", "kv_source_layers", "final_logit_softcapping", "hc_eps", "learnable_sink_init", "index_kpool_always_select_tail", "transformers_version"))}
    if name in WRAPPED:
        keep = {"architectures": [WRAPPED[name]], "model_type": keep["model_type"].removesuffix("_text"), "text_config": keep}
    (folder / "config.json").write_text(json.dumps(keep, indent=1, sort_keys=True) + "\n")
    (out / "gguf").mkdir(exist_ok=True)
    if family in ("DeepseekV32", "GlmMoeDsa"):
        write_gguf(weights, config, "glm-dsa" if family == "GlmMoeDsa" else "deepseek32",
                   out / "gguf" / f"{name}-bf16.gguf")
    print(f"{name}: seed {seed}, gap {gap:.1e}, {sum(f.stat().st_size for f in folder.iterdir())} bytes")


if __name__ == "__main__":
    for case in sys.argv[2:] or CASES:
        make(case, pathlib.Path(sys.argv[1]))
