# SPDX-License-Identifier: Apache-2.0
"""compressed-tensors checkpoints, packed by the compressed-tensors package itself.

The package dequantises in the type of the scale (bfloat16 for most releases). The expected floats come from the same
package with the scales widened to float32 first, so that only the last product rounds; the recipe asserts that
rounding them to the scale's type gives what the package gives.
"""
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from fixture import E2M1, unpack_nibbles, write

torch.manual_seed(2)


def scheme_of(**weights):
    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))


def config(fmt, *schemes):
    groups = {
        f"group_{i}": {"targets": ["Linear"], "weights": s.weights.model_dump(mode="json"), "input_activations": None}
        for i, s in enumerate(schemes)
    }
    return {
        "quant_method": "compressed-tensors",
        "format": fmt,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ["lm_head", "re:.*self_attn.*"],
    }


def scale_shape(shape, args):
    if args.strategy == "group":
        return (shape[0], shape[1] // args.group_size)
    if args.strategy == "channel":
        return (shape[0], 1)
    if args.strategy == "block":
        return tuple(-(-n // b) for n, b in zip(shape, args.block_structure))
    return (1,)


def compress(fmt, name, shape, scheme, scale_dtype, stored, expected):
    """One module through the package's compress and decompress."""
    args = scheme.weights
    bits = args.num_bits
    grid = scale_shape(shape, args)
    scale = (torch.rand(grid) * 0.02 + 0.001).to(scale_dtype)
    weight = torch.randn(shape) * scale.float().mean() * (1 << (bits - 2))
    state = {"weight": weight.to(scale_dtype), "weight_scale": scale}
    if not args.symmetric:
        state["weight_zero_point"] = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), grid).to(torch.int8)
    else:
        state["weight_zero_point"] = torch.zeros(grid, dtype=torch.int8)
    compressor = BaseCompressor.get_value_from_registry(fmt)
    packed = compressor.compress(state, scheme)
    exact = compressor.decompress({**packed, "weight_scale": scale.float()}, scheme)["weight"]
    assert torch.equal(exact.to(scale_dtype), compressor.decompress(packed, scheme)["weight"])
    for key, value in packed.items():
        stored[f"{name}.{key}"] = value
    expected[f"{name}.weight"] = exact.float()


def integers():
    for bits in (2, 4, 8):
        for symmetric in (True, False):
            group = scheme_of(num_bits=bits, symmetric=symmetric, strategy="group", group_size=32)
            channel = scheme_of(num_bits=bits, symmetric=symmetric, strategy="channel")
            whole = scheme_of(num_bits=bits, symmetric=symmetric, strategy="tensor")
            tensors = {}, {}
            compress("pack-quantized", "group_bf16", (11, 96), group, torch.bfloat16, *tensors)
            compress("pack-quantized", "group_f16", (16, 64), group, torch.float16, *tensors)
            compress("pack-quantized", "group_f32", (13, 64), group, torch.float32, *tensors)
            compress("pack-quantized", "channel_bf16", (9, 45), channel, torch.bfloat16, *tensors)
            compress("pack-quantized", "tensor_bf16", (5, 40), whole, torch.bfloat16, *tensors)
            name = f"pack_int{bits}" + ("" if symmetric else "_zero_points")
            write(name, *tensors, config("pack-quantized", group, channel, whole))


def experts():
    """Two experts in one tensor: every expert's zero points are packed on their own."""
    codes = torch.randint(-8, 8, (2, 10, 64)).to(torch.int8)
    zeros = torch.randint(-8, 8, (2, 10, 2)).to(torch.int8)
    scale = (torch.rand(2, 10, 2) * 0.02).bfloat16()
    stored = {
        "experts.weight_packed": pack_to_int32(codes, 4),
        "experts.weight_zero_point": pack_to_int32(zeros, 4, packed_dim=0),
        "experts.weight_scale": scale,
        "experts.weight_shape": torch.tensor([2, 10, 64]),
    }
    wide = [t.float().repeat_interleave(32, dim=-1) for t in (zeros, scale)]
    scheme = scheme_of(num_bits=4, symmetric=False, strategy="group", group_size=32)
    write("pack_int4_experts", stored, {"experts.weight": (codes.float() - wide[0]) * wide[1]},
          config("pack-quantized", scheme))


def act_order():
    """weight_g_idx names the group of each column (written by releases of the package before 0.15)."""
    scheme = scheme_of(num_bits=4, symmetric=True, strategy="group", group_size=32)
    codes = torch.randint(-8, 8, (7, 96)).to(torch.int8)
    scale = (torch.rand(7, 3) * 0.02).bfloat16()
    g_idx = (torch.randperm(96) // 32).int()
    plain = torch.arange(96) // 32
    stored, expected = {}, {}
    for name, index in (("ordered", g_idx), ("unset", torch.full((96,), -1, dtype=torch.int32))):
        stored |= {
            f"{name}.weight_packed": pack_to_int32(codes, 4),
            f"{name}.weight_scale": scale.clone(),
            f"{name}.weight_shape": torch.tensor([7, 96]),
            f"{name}.weight_g_idx": index,
        }
        expected[f"{name}.weight"] = codes.float() * scale.float()[:, index if name == "ordered" else plain]
    write("pack_int4_act_order", stored, expected, config("pack-quantized", scheme))


def floats():
    fp8_block = scheme_of(num_bits=8, type="float", strategy="block", block_structure=[16, 24])
    fp8_channel = scheme_of(num_bits=8, type="float", strategy="channel")
    fp8_tensor = scheme_of(num_bits=8, type="float", strategy="tensor")
    int8_channel = scheme_of(num_bits=8, symmetric=True, strategy="channel")
    int8_zeros = scheme_of(num_bits=8, symmetric=False, strategy="channel")
    int8_group = scheme_of(num_bits=8, symmetric=True, strategy="group", group_size=16)
    tensors = {}, {}
    compress("float-quantized", "block", (37, 56), fp8_block, torch.bfloat16, *tensors)
    compress("float-quantized", "channel", (9, 33), fp8_channel, torch.bfloat16, *tensors)
    compress("float-quantized", "tensor", (9, 33), fp8_tensor, torch.float32, *tensors)
    write("float_quantized", *tensors, config("float-quantized", fp8_block, fp8_channel, fp8_tensor))
    tensors = {}, {}
    compress("int-quantized", "channel", (9, 33), int8_channel, torch.bfloat16, *tensors)
    compress("int-quantized", "zeros", (9, 33), int8_zeros, torch.float16, *tensors)
    write("int_quantized", *tensors, config("int-quantized", int8_channel, int8_zeros))
    tensors = {}, {}
    compress("naive-quantized", "group", (5, 48), int8_group, torch.bfloat16, *tensors)
    write("naive_quantized", *tensors, config("naive-quantized", int8_group))
    mx8 = scheme_of(num_bits=8, type="float", strategy="group", group_size=32, scale_dtype=torch.uint8)
    weight = torch.randn(5, 64)
    scale = torch.exp2(torch.randint(-6, 2, (5, 2)).float())
    packed = BaseCompressor.get_value_from_registry("mxfp8-quantized").compress(
        {"weight": weight, "weight_scale": scale}, mx8)
    unpacked = packed["weight"].float() * scale.repeat_interleave(32, dim=1)
    write("mxfp8_quantized", {f"a.{k}": v for k, v in packed.items()}, {"a.weight": unpacked},
          config("mxfp8-quantized", mx8))


def fp4():
    mx = scheme_of(num_bits=4, type="float", strategy="group", group_size=32)
    nv = scheme_of(num_bits=4, type="float", strategy="tensor_group", group_size=16)
    for fmt, scheme in (("mxfp4-pack-quantized", mx), ("nvfp4-pack-quantized", nv)):
        size = scheme.weights.group_size
        weight = torch.randn(7, 96)
        state = {"weight": weight}
        if size == 32:
            state["weight_scale"] = torch.exp2(torch.randint(-5, 3, (7, 3)).float())
            real = state["weight_scale"]
        else:
            state["weight_global_scale"] = torch.tensor([37.123])
            state["weight_scale"] = (torch.rand(7, 6) * 40 + 1).to(torch.float8_e4m3fn).float()
            real = state["weight_scale"] / state["weight_global_scale"]
        scheme.weights.scale_dtype = torch.uint8 if size == 32 else torch.float8_e4m3fn
        packed = BaseCompressor.get_value_from_registry(fmt).compress(state, scheme)
        codes = E2M1[unpack_nibbles(packed["weight_packed"])]
        exact = dequantize(codes, state["weight_scale"], args=scheme.weights, dtype=torch.float32,
                           global_scale=state.get("weight_global_scale"))
        assert torch.equal(exact, codes * real.repeat_interleave(size, dim=1))
        package = BaseCompressor.get_value_from_registry(fmt).decompress(packed, scheme)["weight"]
        assert torch.equal(exact.to(package.dtype), package)
        write(fmt.replace("-", "_"), {f"a.{k}": v for k, v in packed.items()}, {"a.weight": exact},
              config(fmt, scheme))


integers()
experts()
act_order()
floats()
fp4()
