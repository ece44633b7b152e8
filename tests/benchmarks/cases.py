# SPDX-License-Identifier: Apache-2.0
"""What the name of a benchmark case says: shape, storage, threads, and the work done in one run of it.

A name is GROUP/SHAPE[/VARIANT...], for example decode/h32kv8_qk128_v128_kv4096/f16 or, with one thread,
prefill/h8kv8_qk64_v64_s512/f32/t1.
report.py and peers.py read shapes from here, so a new case of a known form needs no change in either.
"""
import re
from dataclasses import dataclass, field

# hidden size, q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim
FAMILIES = {"v3": (7168, 1536, 512, 128, 64, 128)}
DEQUANT_ELEMENTS = 16 << 20
# The numbers that stand for types in files, which never change.
GGML_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_k": 10, "q3_k": 11, "q4_k": 12,
    "q5_k": 13, "q6_k": 14, "iq2_xxs": 16, "iq2_xs": 17, "iq3_xxs": 18, "iq1_s": 19, "iq4_nl": 20, "iq3_s": 21,
    "iq2_s": 22, "iq4_xs": 23, "iq1_m": 29, "bf16": 30, "tq1_0": 34, "tq2_0": 35, "mxfp4": 39, "nvfp4": 40,
    "q1_0": 41, "q2_0": 42,
}
STORAGE_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32}
# Bytes of a number, of the types that a block's weights have.
WEIGHT_BYTES = {"bf16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32, "q4_K": 144 / 256}

_GGML_DECODES = GGML_TYPES.keys() - {"f32"}
_SHAPES = {
    "sgemm": r"(?P<m>\d+)x(?P<n>\d+)x(?P<k>\d+)",
    "copy": r"(?P<mib>\d+)MiB",
    "read": r"(?P<mib>\d+)MiB",
    "absorb_dense": r"(?P<family>[a-z0-9]+)_(?P<heads>\d+)heads",
    "prefill": r"h(?P<heads>\d+)kv(?P<kv_heads>\d+)_qk(?P<qk>\d+)_v(?P<v>\d+)_s(?P<length>\d+)",
    "decode": r"h(?P<heads>\d+)kv(?P<kv_heads>\d+)_qk(?P<qk>\d+)_v(?P<v>\d+)_kv(?P<length>\d+)",
    "block": r"(?P<family>[a-z0-9]+)_h(?P<heads>\d+)_kv(?P<length>\d+)_t(?P<tokens>\d+)",
    "dequant": r"(?P<type>\w+)",
    "open": r"(?P<shards>\d+)shards",
}
# What Google Benchmark appends to a name.
_APPENDED = re.compile(r"(real_time|manual_time|process_time|(iterations|repeats|min_time|min_warmup_time):.*)$")
_THREADS = re.compile(r"(?:t|threads[:=_-]?)(\d+)$|(\d+)threads?$")
_ONE_THREAD = ("dequant", "open")


@dataclass
class Case:
    name: str  # without what Google Benchmark appends
    group: str
    label: str  # the part of the name between group and variants
    shape: dict = field(default_factory=dict)  # empty if the form is unknown
    storage: str = ""  # f32, f16, bf16, q8_0, of a block also q4_0, q4_K; empty if the name does not say
    threads: int = 0  # 0 if the name does not say
    extra: tuple = ()  # variants that mean nothing here; such a case has no peer

    @property
    def latent(self):
        """Values are the first columns of the keys: one shared key/value head with wider keys."""
        return self.shape.get("kv_heads") == 1 and self.shape["v"] < self.shape["qk"]


def parse(name):
    parts = [p for p in name.split("/") if not _APPENDED.match(p)]
    case = Case("/".join(parts), parts[0], parts[1] if len(parts) > 1 else "")
    rest = parts[2:]
    suffix = re.match(r"(.+)_t(\d+)$", case.label)
    if suffix and case.group not in ("dequant", "block"):
        case.label, rest = suffix[1], rest + ["t" + suffix[2]]
    found = re.match(_SHAPES.get(case.group, r"(?!)") + "$", case.label)
    if found:
        case.shape = {k: int(v) if v.isdigit() else v for k, v in found.groupdict().items()}
    for part in rest:
        threads = _THREADS.match(part)
        if part in (WEIGHT_BYTES if case.group == "block" else STORAGE_BYTES):
            case.storage = part
        elif threads:
            case.threads = int(threads[1] or threads[2])
        else:
            case.extra += (part,)
    return case


def default_threads(case, threads):
    return case.threads or (1 if case.group in _ONE_THREAD else threads)


def work(case):
    """(floating-point operations, bytes) of one run; either is 0 if it is not a measure of this case.

    Causal prefill counts the half of the products that the mask keeps. Bytes are those of keys and values that a
    decoding step has to read, of the float32 output of dequantisation, or read plus written by a copy.
    """
    s = case.shape
    if not s:
        return 0, 0
    if case.group == "sgemm":
        return 2 * s["m"] * s["n"] * s["k"], 0
    if case.group == "copy":
        return 0, 2 * s["mib"] << 20
    if case.group == "read":
        return 0, s["mib"] << 20
    if case.group == "absorb_dense" and s["family"] in FAMILIES:
        hidden, q_lora, kv_lora, nope, rope, value = FAMILIES[s["family"]]
        return 2 * hidden * s["heads"] * ((nope + rope) * q_lora + (nope + value) * kv_lora), 0
    if case.group == "prefill":
        return s["heads"] * s["length"] ** 2 * (s["qk"] + s["v"]), 0
    if case.group == "decode":
        row = s["qk"] if case.latent else s["qk"] + s["v"]
        return (2 * s["heads"] * s["length"] * (s["qk"] + s["v"]),
                s["kv_heads"] * s["length"] * row * STORAGE_BYTES[case.storage or "f32"])
    if case.group == "dequant":
        return 0, 4 * DEQUANT_ELEMENTS
    if case.group == "block" and s["family"] in FAMILIES and case.storage:
        hidden, q_lora, kv_lora, nope, rope, value = FAMILIES[s["family"]]
        numbers = (hidden * (q_lora + kv_lora + rope) + q_lora * s["heads"] * (nope + rope) +
                   kv_lora * s["heads"] * (nope + value) + hidden * s["heads"] * value)
        return 0, numbers * WEIGHT_BYTES[case.storage] + s["length"] * (kv_lora + rope) * STORAGE_BYTES["f16"]
    return 0, 0


def peers_of(case):
    """Names of the peers that can do the same work."""
    if not case.shape or case.extra:
        return ()
    if case.group == "block":
        return ()
    floats = case.storage in ("", "f32")
    if case.group in ("sgemm", "copy", "read"):
        return ("torch",) if floats else ()
    if case.group == "absorb_dense":
        return ("torch",) if floats and case.shape["family"] in FAMILIES else ()
    if case.group in ("prefill", "decode"):
        # torch wants queries, keys and values of one type: only float32 is the same computation.
        return ("torch", "ggml") if floats else ("ggml",)
    if case.group == "dequant":
        return ("ggml",) if case.label.lower() in _GGML_DECODES else ()
    return ("ggml", "gguf-py")
