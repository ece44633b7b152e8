# SPDX-License-Identifier: Apache-2.0
"""FP8, INT8 and FP4 weights with scales that multiply: DeepSeek's blocks, per tensor, per channel, Mistral's names.

The expected floats are code * scale, both widened to float32 first, one float32 rounding: what DeepSeek's
inference/kernel.py (weight_dequant) and transformers' Fp8Dequantize compute before they narrow the result.
Scale grids are ceil-divided and element (r, c) uses scale (r // block_rows, c // block_cols).
"""
import json

import torch
from fixture import E2M1, HERE, save, spread, unpack_nibbles, write

torch.manual_seed(1)


def ceil_div(a, b):
    return -(-a // b)


def codes(shape, dtype):
    """Random finite codes of an 8-bit float, all magnitudes alike, and NaN once."""
    raw = torch.randint(0, 256, shape, dtype=torch.uint8)
    finite = raw.view(dtype).float().isfinite()
    raw[~finite] = 0x38
    raw.view(-1)[3] = 0x7F
    return raw.view(dtype)


def power_of_two(shape):
    return torch.exp2(torch.randint(-12, 3, shape).float())


def block_pair(shape, block, dtype=torch.float8_e4m3fn, scale=None):
    weight = codes(shape, dtype)
    grid = (*shape[:-2], ceil_div(shape[-2], block[0]), ceil_div(shape[-1], block[1]))
    if scale is None:
        scale = torch.rand(grid) * 1e-2 + 1e-4
    else:
        scale = scale(grid)
    return weight, scale, weight.float() * spread(scale.float(), block, shape)


def fp4_pair(shape, i8):
    packed = torch.randint(0, 256, (*shape[:-1], shape[-1] // 2), dtype=torch.uint8)
    scale = torch.randint(120, 132, (*shape[:-1], ceil_div(shape[-1], 32)), dtype=torch.uint8)
    value = torch.exp2(scale.float() - 127)
    expected = E2M1[unpack_nibbles(packed)] * spread(value, (1, 32), shape)
    return packed.view(torch.int8 if i8 else torch.float4_e2m1fn_x2), scale.view(torch.float8_e8m0fnu), expected


def deepseek():
    block = (16, 48)  # not square and not 128: nothing may be assumed
    stored, expected = {}, {}

    def add(name, triple, suffix="_scale_inv"):
        stored[name], scale, expected[name] = triple
        stored[name + suffix if suffix[0] == "_" else name.removesuffix("weight") + suffix] = scale

    add("f32_scales.weight", block_pair((37, 144), block))
    add("bf16_scales.weight", block_pair((33, 50), block, scale=lambda g: (torch.rand(g) * 1e-2).bfloat16()))
    add("power_scales.weight", block_pair((16, 49), block, scale=power_of_two))
    add("e8m0_scales.weight", block_pair((17, 96), block, scale=lambda g: power_of_two(g).to(torch.float8_e8m0fnu)))
    add("e5m2.weight", block_pair((20, 60), block, torch.float8_e5m2))
    add("v4.weight", block_pair((31, 97), block, scale=lambda g: power_of_two(g).to(torch.float8_e8m0fnu)), "scale")
    add("experts.gate_up_proj", block_pair((3, 20, 50), block))
    add("f4_expert.weight", fp4_pair((6, 96), False), "scale")
    add("i8_expert.weight", fp4_pair((5, 80), True), "scale")
    stored["ignored.weight"] = torch.randn(3, 5).bfloat16()
    expected["ignored.weight"] = stored["ignored.weight"].float()
    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(block)}
    write("deepseek_fp8", stored, expected, config)

    # The same weights and their scales in different shards; the index leaves the scales out.
    folder = HERE / "deepseek_fp8_sharded"
    folder.mkdir(exist_ok=True)
    weights = {k: v for k, v in stored.items() if k in ("f32_scales.weight", "v4.weight")}
    scales = {k: stored[k] for k in ("f32_scales.weight_scale_inv", "v4.scale")}
    scales["last.weight"] = torch.ones(1)
    save(weights, folder / "model-00001-of-00002.safetensors")
    save(scales, folder / "model-00002-of-00002.safetensors")
    index = {k: "model-00001-of-00002.safetensors" for k in weights} | {"last.weight": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}, indent=1))


def simple_scales():
    stored, expected = {}, {}

    def add(name, shape, scale, suffix="weight_scale", dtype=torch.float8_e4m3fn):
        weight = codes(shape, dtype) if dtype.is_floating_point else torch.randint(-128, 128, shape, dtype=dtype)
        stored[name + ".weight"], stored[name + "." + suffix] = weight, scale
        per_row = scale.float()
        if per_row.numel() > 1:
            per_row = per_row.reshape(*shape[: per_row.squeeze(-1).dim()], *[1] * (len(shape) - per_row.squeeze(-1).dim()))
        expected[name + ".weight"] = weight.float() * per_row

    add("scalar", (9, 33), torch.tensor(0.0123))
    add("one", (9, 33), torch.tensor([0.0321]).bfloat16())
    stored["one.input_scale"] = torch.tensor([77.0])
    stored["one.activation_scale"] = torch.tensor([78.0])
    add("rows", (9, 33), torch.rand(9))
    add("rows_1", (9, 33), torch.rand(9, 1).half())
    add("int8_rows", (9, 33), torch.rand(9, 1), dtype=torch.int8)
    add("int8_scalar", (4, 7), torch.tensor(0.5), dtype=torch.int8)
    add("mistral", (6, 31), torch.tensor(0.011).bfloat16(), "qscale_weight")
    stored["mistral.qscale_act"] = torch.tensor(99.0).bfloat16()
    add("experts", (3, 4, 17), torch.rand(3))
    add("expert_rows", (3, 4, 17), torch.rand(3, 4, 1))
    add("scale_inv_scalar", (5, 9), torch.tensor(0.25), "weight_scale_inv")
    write("simple_scales", stored, expected, {"quant_method": "fp8", "weight_block_size": None})


deepseek()
simple_scales()
