# SPDX-License-Identifier: Apache-2.0
"""Shared by the make_*.py recipes: writes NAME.safetensors, NAME.expected.safetensors and NAME.config.json.

Run with Python, torch 2.13 and safetensors 0.8; make_compressed_tensors.py also needs compressed-tensors 0.20.
"""
import json
import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def save(tensors, path):
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    path.chmod(0o644)


def write(name, stored, expected, config):
    """Stores the tensors, what they mean as float32, and the quantization_config (None: the file has none)."""
    save(stored, HERE / f"{name}.safetensors")
    for key, value in expected.items():
        assert value.dtype == torch.float32, key
    save(expected, HERE / f"{name}.expected.safetensors")
    if config is not None:
        (HERE / f"{name}.config.json").write_text(json.dumps({"quantization_config": config}, indent=1) + "\n")


def unpack_nibbles(packed):
    """Bytes to two codes each, low nibble first, along the last dimension."""
    codes = torch.stack([packed & 15, packed >> 4], dim=-1)
    return codes.reshape(*packed.shape[:-1], 2 * packed.shape[-1]).long()


def spread(grid, block, shape):
    """A grid of block scales, repeated to one number per element; the last blocks may be cut off."""
    rows = grid.repeat_interleave(block[0], dim=-2)[..., : shape[-2], :]
    return rows.repeat_interleave(block[1], dim=-1)[..., : shape[-1]]
