# SPDX-License-Identifier: Apache-2.0
"""make_random.py LIBGGML_BASE OUT.safetensors: what ggml's own code makes of random bytes and random numbers.

Blocks are random; in the first ones the scales are infinite, NaN, the smallest subnormal, negative zero and the largest
number. `<NAME>.blocks` holds the bytes, `<NAME>.values` the floats, for every format that ggml can decode.
`quantize.input` are floats of many magnitudes, `quantize.<NAME>` what ggml's reference makes of them; `normal.input` and
`normal.<NAME>` likewise for numbers of mean 0 and variance 1. Written with libggml-base 0.25.3.
"""
import ctypes
import sys

import numpy as np
from safetensors.numpy import save_file

ELEMENTS = 1280  # five blocks of the largest kind
SPECIAL = (0x7C00, 0x7E01, 0x0001, 0x8000, 0x7BFF)
# name: elements and bytes of a block, offsets of its f16 scales
FORMATS = {
    "Q4_0": (32, 18, [0]), "Q4_1": (32, 20, [0, 2]), "Q5_0": (32, 22, [0]), "Q5_1": (32, 24, [0, 2]),
    "Q8_0": (32, 34, [0]), "Q2_K": (256, 84, [80, 82]), "Q3_K": (256, 110, [108]), "Q4_K": (256, 144, [0, 2]),
    "Q5_K": (256, 176, [0, 2]), "Q6_K": (256, 210, [208]), "Q8_K": (256, 292, []), "IQ1_S": (256, 50, [0]),
    "IQ1_M": (256, 56, []), "IQ2_XXS": (256, 66, [0]), "IQ2_XS": (256, 74, [0]), "IQ2_S": (256, 82, [0]),
    "IQ3_XXS": (256, 98, [0]), "IQ3_S": (256, 110, [0]), "IQ4_NL": (32, 18, [0]), "IQ4_XS": (256, 136, [0]),
    "TQ1_0": (256, 54, [52]), "TQ2_0": (256, 66, [64]), "MXFP4": (32, 17, []), "NVFP4": (64, 36, []),
    "Q1_0": (128, 18, [0]), "Q2_0": (64, 18, [0]), "F16": (1, 2, [0]), "BF16": (1, 2, []),
}
FUNCTIONS = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}

library = ctypes.CDLL(sys.argv[1])
random = np.random.default_rng(20)
tensors = {}
for name, (elements, size, scales) in FORMATS.items():
    blocks = random.integers(0, 256, (ELEMENTS // elements, size), dtype=np.uint8)
    for block, bits in zip(blocks, SPECIAL):
        for offset in scales:
            block[offset], block[offset + 1] = bits & 0xFF, bits >> 8
    if name == "MXFP4":  # the ends of the exponent's range
        blocks[:6, 0] = 0, 1, 2, 3, 254, 255
    if name == "NVFP4":  # zero, subnormals, the code that means zero, the ignored sign
        blocks[:3, :4] = (0x00, 0x7F, 0x80, 0xFF), (0x01, 0x07, 0x08, 0x7E), (0x81, 0x87, 0x88, 0xFE)
    values = np.empty(ELEMENTS, dtype=np.float32)
    lower = "_".join(p if p == "K" else p.lower() for p in name.split("_"))
    function = getattr(library, FUNCTIONS.get(name, f"dequantize_row_{lower}"))
    function.restype = None
    function(blocks.ctypes.data_as(ctypes.c_void_p), values.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(ELEMENTS))
    tensors[f"{name}.blocks"], tensors[f"{name}.values"] = blocks.reshape(-1), values


def quantize(function, numbers, size):
    out = np.empty(size, dtype=np.uint8)
    getattr(library, function).restype = None
    getattr(library, function)(numbers.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
                               ctypes.c_int64(numbers.size))
    return out


rows = [np.zeros(32), np.arange(-16, 16) * 0.5, np.arange(-127, 1) * 0.5, -np.arange(128) / 16]
for exponent in (-149, -140, -130, -126, -60, -24, -10, 0, 5, 20, 60, 120, 127):
    rows += [np.ldexp(random.uniform(-1, 1, 128), exponent)]
mixed = np.concatenate(rows).astype(np.float32)
normal = random.standard_normal(8192).astype(np.float32)
tensors["quantize.input"], tensors["normal.input"] = mixed, normal
tensors["quantize.Q8_0"] = quantize("quantize_row_q8_0_ref", mixed, mixed.size // 32 * 34)
tensors["quantize.Q4_0"] = quantize("quantize_row_q4_0_ref", mixed, mixed.size // 32 * 18)
tensors["normal.Q4_K"] = quantize("quantize_row_q4_K_ref", normal, normal.size // 256 * 144)
tensors["normal.Q6_K"] = quantize("quantize_row_q6_K_ref", normal, normal.size // 256 * 210)
save_file(tensors, sys.argv[2])
