# SPDX-License-Identifier: Apache-2.0
"""Writes tests/unit/rope_golden.inc: rope frequencies as transformers 5.23 computes them (float32).

Usage: python make_rope_golden.py > tests/unit/rope_golden.inc
"""
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

print("// SPDX-License-Identifier: Apache-2.0")
print("// Made by tests/data/make_rope_golden.py with transformers 5.23.")
half = 8
cases = [
    ("linear", dict(factor=4.0), "", 0),
    ("dynamic", dict(factor=2.0), "", 0),
    ("dynamic", dict(factor=2.0), "", 5000),
    ("yarn", dict(factor=40.0, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=1.0), "", 0),
    ("yarn", dict(factor=32.0, original_max_position_embeddings=4096, beta_fast=1.0, beta_slow=1.0), "", 0),
    ("yarn", dict(factor=8.0, original_max_position_embeddings=256, mscale=0.7, mscale_all_dim=1.0, truncate=False), "", 0),
    ("yarn", dict(factor=8.0, original_max_position_embeddings=256, attention_factor=1.5), "", 0),
    ("longrope", dict(factor=4.0, original_max_position_embeddings=512, short_factor=[1.0 + 0.1 * i for i in range(half)],
                      long_factor=[2.0 + i for i in range(half)]), "", 100),
    ("longrope", dict(factor=4.0, original_max_position_embeddings=512, short_factor=[1.0 + 0.1 * i for i in range(half)],
                      long_factor=[2.0 + i for i in range(half)]), "", 1000),
    ("llama3", dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256), "", 0),
    ("proportional", dict(partial_rotary_factor=0.5, factor=2.0), "", 0),
]
members = dict(factor="factor", original_max_position_embeddings="original_max_position", attention_factor="attention_factor",
               beta_fast="beta_fast", beta_slow="beta_slow", mscale="mscale", mscale_all_dim="mscale_all_dim", truncate="truncate",
               low_freq_factor="low_freq_factor", high_freq_factor="high_freq_factor", short_factor="short_factor",
               long_factor="long_factor", partial_rotary_factor="partial_rotary_factor")
order = ["factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
         "truncate", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor", "partial_rotary_factor"]


def text(v):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, list):
        return "{" + ", ".join(repr(float(x)) for x in v) + "}"
    return repr(float(v))


for kind, parameters, _, length in cases:
    config = LlamaConfig(hidden_size=2 * half, num_attention_heads=1, head_dim=2 * half, max_position_embeddings=2048,
                         rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **parameters))
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length or None)
    fields = [f".kind = rope_kind::{kind}", f".rotary_dim = {2 * half}"]
    for key in order:
        if key == "original_max_position_embeddings" and kind == "dynamic":
            continue
        if key in parameters:
            if key == "original_max_position_embeddings":
                fields.append(".max_position = 2048.0")
            fields.append(f".{members[key]} = {text(parameters[key])}")
            if key == "factor" and "original_max_position_embeddings" not in parameters:
                fields.append(".max_position = 2048.0")
    print(f"check_frequencies({{{', '.join(fields)}}},")
    print(f"    {{{', '.join(repr(float(f)) for f in frequencies)}}}, {float(factor)!r}, {length});")
