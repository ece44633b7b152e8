# SPDX-License-Identifier: Apache-2.0
"""Times other programs at the work of larql-bench's cases: peers.py PEER [options] CASE...

PEER is torch, ggml (the libraries inside the package llama-cpp-python, called through ctypes) or gguf-py. Prints one
JSON object per line: what the peer is, then for each case that it starts, and for the outcome. A peer that is not
installed says so and exits 3. Each repetition is the least of as many calls as fill --seconds, as in larql-bench.
"""
import argparse
import ctypes
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import struct
import sys
import tempfile
import time

import cases

NAMES = ("torch", "ggml", "gguf-py")


class Absent(Exception):
    """The peer is not installed, or not in a form that can be called."""


def tell(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)


def measure(call, seconds, repetitions):
    start = time.perf_counter()
    call()  # warms caches and thread pools, and says how long a call takes
    once = time.perf_counter() - start
    calls = max(1 if once > 2 else 5, math.ceil(seconds / max(once, 1e-7)))
    if once > 8 * seconds:
        return [once]  # so long that warming is no part of it
    out = []
    for _ in range(1 if once > 4 * seconds else repetitions):
        least = math.inf
        for _ in range(calls):
            start = time.perf_counter()
            call()
            least = min(least, time.perf_counter() - start)
        out.append(least)
    return out


# ---- torch ----


class Torch:
    def __init__(self):
        try:
            import torch
        except ImportError as error:
            raise Absent(f"torch is not installed ({error})") from error
        self.torch = torch
        torch.manual_seed(0)
        torch.inference_mode().__enter__()

    def details(self):
        torch = self.torch
        blas = "MKL" if torch.backends.mkl.is_available() else "no MKL"
        level = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "unknown")()
        return f"torch {torch.__version__} ({blas}, {level})"

    def prepare(self, case, threads):
        self.torch.set_num_threads(threads)
        return getattr(self, case.group)(case)

    def sgemm(self, case):
        s = case.shape
        a, b = self.torch.randn(s["m"], s["k"]), self.torch.randn(s["k"], s["n"])
        out = self.torch.empty(s["m"], s["n"])
        return lambda: self.torch.mm(a, b, out=out)

    def copy(self, case):
        a = self.torch.randn(case.shape["mib"] << 18)
        b = self.torch.empty_like(a)
        return lambda: b.copy_(a)

    def read(self, case):
        # A product of a matrix and a vector reads faster than a sum does.
        a, b = self.torch.randn(case.shape["mib"] << 8, 1024), self.torch.randn(1024)
        return lambda: a @ b

    def absorb_dense(self, case):
        """Q, K and V, rows of a head in stored order: gains folded in, one rope part for all heads."""
        torch, heads = self.torch, case.shape["heads"]
        hidden, q_lora, kv_lora, nope, rope, value = cases.FAMILIES[case.shape["family"]]
        q_a, q_gains = torch.randn(q_lora, hidden), torch.randn(q_lora)
        q_b = torch.randn(heads * (nope + rope), q_lora)
        kv_a, kv_b = torch.randn(kv_lora + rope, hidden), torch.randn(heads, nope + value, kv_lora)
        kv_gains = torch.randn(kv_lora)

        def absorb():
            q = (q_b * q_gains) @ q_a
            weights = kv_b * kv_gains  # split before the products, which are far larger
            k = torch.empty(heads, nope + rope, hidden)
            k[:, :nope] = (weights[:, :nope].reshape(-1, kv_lora) @ kv_a[:kv_lora]).view(heads, nope, hidden)
            k[:, nope:] = kv_a[kv_lora:]
            return q, k, weights[:, nope:].reshape(-1, kv_lora) @ kv_a[:kv_lora]

        return absorb

    def attention(self, case, tokens, causal):
        s, torch = case.shape, self.torch
        q = torch.randn(1, s["heads"], tokens, s["qk"])
        k = torch.randn(1, s["kv_heads"], s["length"], s["qk"])
        v = torch.randn(1, s["kv_heads"], s["length"], s["v"])
        shared = s["heads"] != s["kv_heads"]
        attend = torch.nn.functional.scaled_dot_product_attention
        return lambda: attend(q, k, v, is_causal=causal, enable_gqa=shared)

    def prefill(self, case):
        return self.attention(case, case.shape["length"], True)

    def decode(self, case):
        return self.attention(case, 1, False)


# ---- ggml, through ctypes ----


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class TypeTraits(ctypes.Structure):
    _fields_ = [("type_name", ctypes.c_char_p), ("blck_size", ctypes.c_int64), ("blck_size_interleave", ctypes.c_int64),
                ("type_size", ctypes.c_size_t), ("is_quantized", ctypes.c_bool), ("to_float", ctypes.c_void_p),
                ("from_float_ref", ctypes.c_void_p)]


class Plan(ctypes.Structure):
    # Only the first two fields are used; the tail leaves room for those that versions append.
    _fields_ = [("work_size", ctypes.c_size_t), ("work_data", ctypes.c_void_p), ("tail", ctypes.c_uint8 * 240)]


class GgufParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p))]


_P, _I, _L, _Z, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t, ctypes.c_float
# library, result, arguments
_FUNCTIONS = {
    "ggml_init": ("base", _P, [InitParams]),
    "ggml_free": ("base", None, [_P]),
    "ggml_new_tensor_4d": ("base", _P, [_P, _I, _L, _L, _L, _L]),
    "ggml_get_data": ("base", _P, [_P]),
    "ggml_flash_attn_ext": ("base", _P, [_P, _P, _P, _P, _P, _F, _F, _F]),
    "ggml_flash_attn_ext_set_prec": ("base", None, [_P, _I]),
    "ggml_new_graph": ("base", _P, [_P]),
    "ggml_build_forward_expand": ("base", None, [_P, _P]),
    "ggml_get_type_traits": ("base", ctypes.POINTER(TypeTraits), [_I]),
    "ggml_quantize_init": ("base", None, [_I]),
    "ggml_quantize_chunk": ("base", _Z, [_I, _P, _P, _L, _L, _L, _P]),
    "ggml_version": ("base", ctypes.c_char_p, []),
    "gguf_init_from_file": ("base", _P, [ctypes.c_char_p, GgufParams]),
    "gguf_free": ("base", None, [_P]),
    "gguf_get_n_tensors": ("base", _L, [_P]),
    "ggml_cpu_init": ("cpu", None, []),
    "ggml_graph_plan": ("cpu", Plan, [_P, _I, _P]),
    "ggml_graph_compute": ("cpu", _I, [_P, ctypes.POINTER(Plan)]),
}
_GGML_PREC_F32 = 10


class Ggml:
    def __init__(self):
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.origin is None:
            raise Absent("llama-cpp-python, whose package brings ggml's libraries, is not installed")
        try:
            import numpy
        except ImportError as error:
            raise Absent(f"numpy, which makes ggml's inputs, is not installed ({error})") from error
        self.numpy = numpy
        folder = pathlib.Path(spec.origin).parent / "lib"
        self.libraries = {name: self._load(folder, name) for name in ("base", "cpu")}
        for name, (library, result, arguments) in _FUNCTIONS.items():
            function = getattr(self.libraries[library], name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.ggml_cpu_init()

    @staticmethod
    def _load(folder, name):
        for file in (f"libggml-{name}.so", f"libggml-{name}.dylib", f"ggml-{name}.dll", f"libggml-{name}.dll"):
            if (folder / file).exists():
                return ctypes.CDLL(str(folder / file), mode=ctypes.RTLD_GLOBAL)
        raise Absent(f"llama-cpp-python is installed, but has no library ggml-{name} beside it")

    def details(self):
        has = [n for n in ("avx2", "avx512", "avx512_bf16", "amx_int8", "neon", "sve")
               if getattr(self.libraries["cpu"], "ggml_cpu_has_" + n, lambda: 0)()]
        return (f"ggml {self.ggml_version().decode()} in llama-cpp-python "
                f"{importlib.metadata.version('llama-cpp-python')} (compiled for {', '.join(has) or 'no vectors'})")

    def prepare(self, case, threads):
        if case.group == "dequant":
            return self.dequant(case)
        if case.group == "open":
            return self.open(case)
        return self.attention(case, case.shape["length"] if case.group == "prefill" else 1, threads)

    def dequant(self, case):
        """to_float of the type, on one thread. A 128th of the values is quantised, which is slow, and repeated."""
        numpy, count = self.numpy, cases.DEQUANT_ELEMENTS
        name = case.shape["type"].lower()
        number = cases.GGML_TYPES[name]
        traits = self.ggml_get_type_traits(number).contents
        if traits.type_name is None or traits.type_name.decode().lower() != name:
            raise LookupError("this ggml has no such type")
        if not traits.to_float:
            raise LookupError("ggml has no conversion of this type to float")
        part = count // 128
        values = numpy.random.default_rng(1).standard_normal(part, dtype=numpy.float32)
        stored = numpy.empty(part // traits.blck_size * traits.type_size, numpy.uint8)
        if name == "bf16":
            stored[:] = (values.view(numpy.uint32) >> 16).astype(numpy.uint16).view(numpy.uint8)
        elif name == "f16":
            stored[:] = values.astype(numpy.float16).view(numpy.uint8)
        else:
            importance = numpy.ones(4096, numpy.float32)
            self.ggml_quantize_init(number)
            self.ggml_quantize_chunk(number, values.ctypes.data, stored.ctypes.data, 0, part // 4096, 4096,
                                     importance.ctypes.data)
        stored, out = numpy.tile(stored, 128), numpy.empty(count, numpy.float32)
        to_float = ctypes.CFUNCTYPE(None, _P, _P, _L)(traits.to_float)
        to_float(stored.ctypes.data, out.ctypes.data, count)
        if not numpy.corrcoef(out[:part], values)[0, 1] > 0.7:  # types of one or two bits keep little more
            raise ArithmeticError("the values that come back are not those that were quantised")
        return lambda: to_float(stored.ctypes.data, out.ctypes.data, count)

    def _tensor(self, context, kind, shape, values):
        """A tensor of ggml's shape (innermost first) that holds `values`, which is repeated to fill it."""
        numpy = self.numpy
        tensor = self.ggml_new_tensor_4d(context, cases.GGML_TYPES[kind], *shape)
        count = math.prod(shape)
        if kind == "q8_0":
            floats = numpy.resize(values, count)
            self.ggml_quantize_chunk(cases.GGML_TYPES[kind], floats.ctypes.data, self.ggml_get_data(tensor), 0,
                                     count // shape[0], shape[0], None)
            return tensor, floats
        kinds = {"f32": numpy.float32, "f16": numpy.float16, "bf16": numpy.uint16}
        size = count * cases.STORAGE_BYTES[kind]
        memory = numpy.frombuffer((ctypes.c_uint8 * size).from_address(self.ggml_get_data(tensor)), kinds[kind])
        if kind == "bf16":
            values = values.astype(numpy.float32).view(numpy.uint32) >> 16
        memory[:] = numpy.resize(values.astype(kinds[kind]), count)
        return tensor, memory

    def attention(self, case, tokens, threads):
        numpy, s = self.numpy, case.shape
        kind, keys, rows = case.storage or "f32", s["length"], -(-tokens // 64) * 64
        numbers = tokens * s["heads"] * (s["qk"] + s["v"]) + keys * s["kv_heads"] * (s["qk"] + s["v"])
        context = self.ggml_init(InitParams(4 * numbers + 2 * keys * rows + (64 << 20), None, False))
        random = numpy.random.default_rng(1).standard_normal(4093, dtype=numpy.float32)  # a prime: rows differ
        q, _ = self._tensor(context, "f32", (s["qk"], tokens, s["heads"], 1), random)
        k, _ = self._tensor(context, kind, (s["qk"], keys, s["kv_heads"], 1), random)
        v, _ = self._tensor(context, kind, (s["v"], keys, s["kv_heads"], 1), random)
        mask = numpy.full((rows, keys), -numpy.inf, numpy.float32)
        mask[:tokens] = numpy.triu(mask[:tokens], keys - tokens + 1) if tokens > 1 else 0
        mask, _ = self._tensor(context, "f16", (keys, rows, 1, 1), mask.ravel())
        out = self.ggml_flash_attn_ext(context, q, k, v, mask, 1 / math.sqrt(s["qk"]), 0.0, 0.0)
        self.ggml_flash_attn_ext_set_prec(out, _GGML_PREC_F32)
        graph = self.ggml_new_graph(context)
        self.ggml_build_forward_expand(graph, out)
        plan = self.ggml_graph_plan(graph, threads, None)
        scratch = ctypes.create_string_buffer(plan.work_size + 64)
        plan.work_data = ctypes.addressof(scratch)

        def compute(_keep=scratch):
            if self.ggml_graph_compute(graph, ctypes.byref(plan)) != 0:
                raise ArithmeticError("ggml_graph_compute failed")

        compute()
        self._check(case, tokens, random, out)
        compute.finish = lambda: self.ggml_free(context)
        return compute

    def _check(self, case, tokens, random, out):
        """The last token's first head against plain arithmetic."""
        numpy, s = self.numpy, case.shape
        repeated = lambda begin, count: random[(begin + numpy.arange(count)) % random.size].astype(numpy.float64)
        q = repeated((tokens - 1) * s["qk"], s["qk"])
        scores = repeated(0, s["length"] * s["qk"]).reshape(s["length"], s["qk"]) @ q / math.sqrt(s["qk"])
        weights = numpy.exp(scores - scores.max())
        want = weights @ repeated(0, s["length"] * s["v"]).reshape(s["length"], s["v"]) / weights.sum()
        begin = 4 * (tokens - 1) * s["heads"] * s["v"]  # rows of the result are tokens, then heads
        got = numpy.frombuffer((ctypes.c_float * s["v"]).from_address(self.ggml_get_data(out) + begin), numpy.float32)
        worst = float(numpy.abs(got - want).max())
        if not worst < 0.05:  # bf16 keys and values are the coarsest
            raise ArithmeticError(f"the result differs from plain arithmetic by {worst:.3g}")

    def open(self, case):
        files = shards(case.shape["shards"])

        def read(file):
            context = ctypes.c_void_p()
            gguf = self.gguf_init_from_file(file, GgufParams(True, ctypes.pointer(context)))
            if not gguf:
                raise OSError("gguf_init_from_file refused the file")
            count = self.gguf_get_n_tensors(gguf)
            self.gguf_free(gguf)
            self.ggml_free(context)
            return count

        return lambda: expect_tensors(sum(read(os.fsencode(f)) for f in files))


# ---- gguf-py ----


class GgufPy:
    def __init__(self):
        try:
            import gguf
        except ImportError as error:
            raise Absent(f"gguf-py is not installed ({error})") from error
        self.gguf = gguf

    def details(self):
        return f"gguf-py {importlib.metadata.version('gguf')}"

    def prepare(self, case, _threads):
        files = shards(case.shape["shards"])
        return lambda: expect_tensors(sum(len(self.gguf.GGUFReader(f).tensors) for f in files))


# ---- the model that is opened ----

_OPEN_TENSORS, _OPEN_STRINGS = 1200, 160_000
_temporary = []


def expect_tensors(count):
    if count != _OPEN_TENSORS:
        raise ValueError(f"expected {_OPEN_TENSORS} tensors, got {count}")


def _text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _shard(number, count):
    """One shard as gguf-split writes it, with what bench_open.cpp writes: the vocabulary stands in the first alone."""
    U16, I32, STRING, ARRAY = 2, 5, 8, 9
    entries = []
    if number == 0:
        tokens = b"".join(_text(f"tok{i * 7919}") for i in range(_OPEN_STRINGS))
        types = struct.pack("<i", 1) * _OPEN_STRINGS
        entries = [_text("general.architecture") + struct.pack("<I", STRING) + _text("deepseek2"),
                   _text("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, STRING, _OPEN_STRINGS) + tokens,
                   _text("tokenizer.ggml.token_type") + struct.pack("<IIQ", ARRAY, I32, _OPEN_STRINGS) + types]
    entries += [_text("split.no") + struct.pack("<IH", U16, number),
                _text("split.count") + struct.pack("<IH", U16, count),
                _text("split.tensors.count") + struct.pack("<Ii", I32, _OPEN_TENSORS)]
    columns, rows, float32, size = 64, 2, 0, 512
    infos = [_text(f"blk.{t}.attn_kv_a_mqa.weight") + struct.pack("<I2QIQ", 2, columns, rows, float32, i * size)
             for i, t in enumerate(range(number, _OPEN_TENSORS, count))]
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(entries)) + b"".join(entries) + b"".join(infos)
    return header + b"\0" * (-len(header) % 32 + len(infos) * size)


def shards(count):
    """Writes a model of `count` shards and returns their paths."""
    folder = tempfile.TemporaryDirectory(prefix="larql-report-")
    _temporary.append(folder)
    files = []
    for number in range(count):
        files.append(os.path.join(folder.name, f"model-{number + 1:05d}-of-{count:05d}.gguf"))
        pathlib.Path(files[-1]).write_bytes(_shard(number, count))
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=NAMES)
    parser.add_argument("--threads", type=int, default=2, help="for cases whose name does not say")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("cases", nargs="*")
    options = parser.parse_intermixed_args()
    try:
        peer = {"torch": Torch, "ggml": Ggml, "gguf-py": GgufPy}[options.peer]()
    except (Absent, AttributeError, OSError) as error:
        tell("absent", reason=str(error))
        return 3
    tell("peer", details=peer.details())
    for name in options.cases:
        tell("begin", case=name)  # the last one without an outcome is the one that ended the process
        try:
            case = cases.parse(name)
            call = peer.prepare(case, cases.default_threads(case, options.threads))
            tell("result", case=name, seconds=measure(call, options.seconds, options.repetitions))
            getattr(call, "finish", lambda: None)()
        except Exception as error:  # whatever a peer raises is its outcome
            tell("failed", case=name, error=f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
