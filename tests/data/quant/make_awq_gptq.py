# SPDX-License-Identifier: Apache-2.0
"""AWQ (GEMM layout) and GPTQ weights, packed by the published formulas.

AWQ: AutoAWQ, awq/modules/linear/gemm.py: nibble i of word j holds column 8 j + (0, 2, 4, 6, 1, 3, 5, 7)[i].
GPTQ: AutoGPTQ, nn_modules/qlinear/qlinear_cuda_old.py: word j of a column holds rows j * 32 / bits onwards, low bits
first; zero points are packed along the outputs and, in checkpoint_format "gptq", stored less one (modulo 2^bits).
Both dequantise as (code - zero) * scale in float16; the product of a small integer and a float16 is exact in float32,
so the expected floats round to what the float16 formula gives, and the recipe asserts that.
Logical weights are [out, in], the transpose of what is stored.
"""
import torch
from fixture import write

torch.manual_seed(4)
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def to_words(codes, bits, order=None):
    """[..., n] codes to [..., n * bits / 32] int32, low bits first."""
    count = 32 // bits
    lanes = codes.long().reshape(*codes.shape[:-1], -1, count)
    if order is not None:
        lanes = lanes[..., order]
    words = (lanes << (torch.arange(count) * bits)).sum(dim=-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def draw(rows, columns, groups, bits):
    codes = torch.randint(0, 1 << bits, (rows, columns))
    zeros = torch.randint(0, 1 << bits, (groups, columns))
    return codes, zeros, (torch.rand(groups, columns) * 0.02 + 1e-4).half()


def dequantise(codes, zeros, scales, group_of_row):
    difference = codes - zeros[group_of_row]
    exact = difference.float() * scales[group_of_row].float()
    assert torch.equal(exact.half(), difference.half() * scales[group_of_row])
    return exact.t()


def awq():
    stored, expected = {}, {}
    for name, rows, columns, group in (("a", 96, 40, 32), ("b", 64, 8, 32), ("c", 96, 72, 32)):
        codes, zeros, scales = draw(rows, columns, rows // group, 4)
        stored |= {f"{name}.qweight": to_words(codes, 4, AWQ_ORDER), f"{name}.qzeros": to_words(zeros, 4, AWQ_ORDER),
                   f"{name}.scales": scales}
        expected[f"{name}.weight"] = dequantise(codes, zeros, scales, torch.arange(rows) // group)
    stored["norm.weight"] = torch.ones(5).half()
    expected["norm.weight"] = torch.ones(5)
    write("awq", stored, expected,
          {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"})


def gptq(name, bits, version, group):
    stored, expected = {}, {}
    for layer, rows, columns, ordered in (("a", 96, 48, False), ("b", 64, 32, True), ("c", 96, 80, True),
                                          ("no_g_idx", 64, 16, False)):
        size = rows if group == -1 else group
        codes, zeros, scales = draw(rows, columns, rows // size, bits)
        stored_zeros = zeros if version == 2 else (zeros - 1) % (1 << bits)
        g_idx = torch.arange(rows) // size
        if ordered:
            g_idx = g_idx[torch.randperm(rows)]
        stored |= {f"{layer}.qweight": to_words(codes.t(), bits).t(), f"{layer}.qzeros": to_words(stored_zeros, bits),
                   f"{layer}.scales": scales, f"{layer}.g_idx": g_idx.int()}
        if layer == "no_g_idx":
            del stored[f"{layer}.g_idx"]
        expected[f"{layer}.weight"] = dequantise(codes, zeros, scales, g_idx)
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": True, "sym": False}
    if version == 2:
        config["checkpoint_format"] = "gptq_v2"
    write(name, stored, expected, config)


awq()
gptq("gptq_int4", 4, 1, 32)
gptq("gptq_v2_int4", 4, 2, 32)
gptq("gptq_int8", 8, 1, -1)
gptq("gptq_int2", 2, 1, 32)
