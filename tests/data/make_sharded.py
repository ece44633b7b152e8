# SPDX-License-Identifier: Apache-2.0
"""Splits hf/<case>/model.safetensors into three shards with an index: python make_sharded.py

The tensors are dealt out in the order of their data, so that the shards hold about the same number of bytes.
"""
import json
import pathlib
import shutil

import numpy as np

SHARDS = 3


def read(path):
    raw = np.fromfile(path, dtype=np.uint8)
    length = int(raw[:8].view("<u8")[0])
    header = json.loads(raw[8 : 8 + length].tobytes())
    metadata = header.pop("__metadata__", {})
    return header, metadata, raw[8 + length :]


def write(path, tensors, metadata, data):
    header, position, parts = {"__metadata__": metadata}, 0, []
    for name, entry in tensors:
        begin, end = entry["data_offsets"]
        header[name] = {**entry, "data_offsets": [position, position + end - begin]}
        position += end - begin
        parts.append(data[begin:end])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(np.array([len(text)], dtype="<u8").tobytes())
        out.write(text)
        for part in parts:
            out.write(part.tobytes())


def split(source, target):
    header, metadata, data = read(source / "model.safetensors")
    ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    groups = [[] for _ in range(SHARDS)]
    for name, entry in ordered:
        groups[entry["data_offsets"][0] * SHARDS // data.size].append((name, entry))
    target.mkdir(exist_ok=True)
    weight_map = {}
    for i, group in enumerate(groups, start=1):
        name = f"model-{i:05}-of-{SHARDS:05}.safetensors"
        write(target / name, group, metadata, data)
        weight_map.update({tensor: name for tensor, _ in group})
    index = {"metadata": {"total_size": int(data.size)}, "weight_map": dict(sorted(weight_map.items()))}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    shutil.copyfile(source / "config.json", target / "config.json")


here = pathlib.Path(__file__).parent / "hf"
for case in ("deepseek_v3", "llama3"):
    split(here / case, here / f"{case}_sharded")
