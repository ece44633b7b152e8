# SPDX-License-Identifier: Apache-2.0
"""FP4 in the layouts of GPT-OSS (MXFP4) and of NVIDIA's modelopt (NVFP4).

GPT-OSS: the expected floats are transformers' own convert_moe_packed_tensors in float32; the result is transposed.
OpenAI's own file names (`.blocks`, `.scales`) hold the same blocks without the transposition.
modelopt: its NVFP4QTensor.dequantize computes e2m1 * (weight_scale as float32 * weight_scale_2), in float32.
"""
import torch
from fixture import E2M1, unpack_nibbles, write
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

torch.manual_seed(3)


def gpt_oss():
    stored, expected = {}, {}
    for name, shape in (("mlp.experts.gate_up_proj", (2, 10, 3, 16)), ("mlp.experts.down_proj", (3, 7, 2, 16))):
        blocks = torch.randint(0, 256, shape, dtype=torch.uint8)
        scales = torch.randint(115, 135, shape[:-1], dtype=torch.uint8)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales, f"{name}_bias": torch.randn(shape[:2])}
        expected[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        expected[f"{name}_bias"] = stored[f"{name}_bias"]
    name = "block.0.mlp.mlp1_weight"
    stored |= {f"{name}.blocks": blocks.clone(), f"{name}.scales": scales.clone()}
    expected[name] = expected["mlp.experts.down_proj"].transpose(1, 2)
    write("gpt_oss_mxfp4", stored, expected, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})


def modelopt():
    stored, expected = {}, {}
    for name, shape, global_shape in (("a", (7, 80), ()), ("b", (5, 32), (1,)), ("experts", (3, 4, 48), (3,))):
        packed = torch.randint(0, 256, (*shape[:-1], shape[-1] // 2), dtype=torch.uint8)
        scale = (torch.rand(*shape[:-1], shape[-1] // 16) * 200 + 1).to(torch.float8_e4m3fn)
        second = torch.rand(global_shape) * 1e-3
        stored |= {f"{name}.weight": packed, f"{name}.weight_scale": scale, f"{name}.weight_scale_2": second,
                   f"{name}.input_scale": torch.tensor(5.0)}
        block_scale = scale.float() * (second.reshape(3, 1, 1) if shape[0] == 3 else second)
        expected[f"{name}.weight"] = E2M1[unpack_nibbles(packed)] * block_scale.repeat_interleave(16, dim=-1)
    stored["fp8.weight"] = torch.randn(4, 9).to(torch.float8_e4m3fn)
    stored["fp8.weight_scale"] = torch.tensor(0.37)
    expected["fp8.weight"] = stored["fp8.weight"].float() * stored["fp8.weight_scale"]
    write("modelopt_nvfp4", stored, expected,
          {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "ignore": ["lm_head"]})


gpt_oss()
modelopt()
