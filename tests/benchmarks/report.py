# SPDX-License-Identifier: Apache-2.0
"""Runs larql-bench beside the peers that are installed, and writes report.md, one SVG chart per group and report.json.

Needs the standard library only; peers.py imports the peers, in a process of its own for each. larql and the peers take
turns, group by group and round by round, so that a machine that slows down hurts all of them. `--from report.json`
writes the report again without measuring.
"""
import argparse
import datetime
import fnmatch
import json
import math
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
from collections import namedtuple

import cases
import charts

# What larql promises: in these cases it is at least so many times as fast as the other. `against` is a peer, "sgemm"
# (the BLAS, by GFLOP/s) or "read bandwidth" (of reading as many bytes, by GB/s). `mean` bounds the geometric mean.
Goal = namedtuple("Goal", "case storage against at_least mean", defaults=(False,))
GOALS = (
    Goal("absorb_dense/v3_32heads", "f32", "sgemm", 0.95),
    Goal("absorb_dense/v3_32heads", "f32", "torch", 1.0),
    Goal("prefill/h32kv8_qk128_v128_s1024", "f32", "torch", 1.2),
    Goal("prefill/h32kv8_qk128_v128_s1024", "f32", "ggml", 2.5),
    Goal("prefill/h16kv16_qk192_v128_s1024", "f32", "torch", 4.0),
    Goal("prefill/h16kv16_qk192_v128_s1024", "f32", "ggml", 2.5),
    Goal("prefill/h16kv16_qk192_v128_s4096", "f32", "torch", 4.0),
    Goal("prefill/h16kv16_qk192_v128_s4096", "f32", "ggml", 2.5),
    Goal("decode/h128kv1_qk576_v512_kv4096", "f32", "ggml", 8.0),
    Goal("decode/h128kv1_qk576_v512_kv4096", "f16", "ggml", 4.0),
    Goal("decode/h32kv8_qk128_v128_kv4096", "f16", "ggml", 1.2),
    Goal("decode/h32kv8_qk128_v128_kv4096", "f16", "read bandwidth", 0.9),
    Goal("decode/h128kv128_qk192_v128_kv1024", "f16", "ggml", 1.2),
    Goal("decode/h128kv128_qk192_v128_kv1024", "f16", "read bandwidth", 0.9),
    Goal("dequant/*", "f32", "ggml", 2.5, True),
    Goal("dequant/*", "f32", "ggml", 1.0),
    Goal("open/14shards", "f32", "ggml", 10.0),
    Goal("open/14shards", "f32", "gguf-py", 100.0),
)

# `measure` is what the chart shows: index into cases.work(), or None for runs per second.
Group = namedtuple("Group", "key title names measure note")
GROUPS = (
    Group("matrices", "Matrix products and absorption", ("sgemm", "absorb*"), 0,
          "Float32 results; float32 inputs unless a suffix says otherwise. "
          "sgemm is the BLAS, with its best kernels. larql may use the matrix unit (AMX) where the system has it."),
    Group("memory", "Memory", ("copy", "read"), 1, "A copy counts bytes read and bytes written. "
          "What reading can reach is measured in turns with decoding."),
    Group("prefill", "Attention over a prompt", ("prefill",), 0,
          "Causal; the operations are those that the mask keeps. The suffix is the storage of keys and values; torch "
          "takes part in float32 only, where all sides compute the same."),
    Group("decode", "Attention of one new token", ("decode",), 0,
          "GB/s are the keys and values that a step has to read. The suffix is their storage; torch takes part in "
          "float32 only. With one key/value head larql reads the values out of the keys; the peers are given them as "
          "tensors of their own."),
    Group("batch", "Batches and pages", ("batch", "paged"), None,
          "One new token of each of eight sequences of unequal lengths, in one call and in eight; one token against "
          "keys and values in pages of 64 tokens and in one piece."),
    Group("block", "A whole attention block", ("block",), 1,
          "DeepSeek-V3 in latent form, hidden states to output. GB/s are the stored weights and the cached keys, which "
          "a call has to read once."),
    Group("dequant", "Decoding of ggml's block formats", ("dequant",), 1,
          "One thread, 16 Mi numbers to float32; GB/s of output."),
    Group("open", "Opening a model", ("open",), None, "14 shards, 1,200 tensors, an array of 160,000 strings."),
    Group("other", "Other cases", ("*",), None, ""),
)
# The first two are as large as what decoding reads in f16, and may lie in a cache; the last is memory's.
READ_CASES = ("read/16MiB", "read/80MiB", "read/256MiB")
RATES = ("sgemm", "read bandwidth", "memory")  # what is compared by rate, not by time
UNITS = ("GFLOP/s", "GB/s")
YARDSTICKS = {"sgemm": "BLAS", "copy": "memcpy"}  # larql-bench's cases that time something other than larql
TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
HIDDEN_VARIABLES = ("OPENBLAS", "OMP", "GOMP", "KMP", "MKL", "GOTO", "BLIS", "LARQL", "GGML", "TORCH", "ATEN",
                    "BENCHMARK")


def bench_side(name):
    """Who does the work in a case of larql-bench."""
    return YARDSTICKS.get(name.split("/")[0], "larql")


def group_of(case):
    return next(g for g in GROUPS if any(fnmatch.fnmatch(case.group, n) for n in g.names))


def clean_environment():
    """Without the variables that change how many threads or which kernels a library uses."""
    return {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN_VARIABLES)}


# ---- measuring ----


class Results:
    """Seconds of each repetition by case and by who did it, and what went wrong."""

    def __init__(self, seconds=None, failures=None, peers=None, facts=None):
        self.seconds = seconds or {}
        self.failures = failures or {}
        self.peers = peers or {}  # what each peer is
        self.absent = {}  # why a peer is left out
        self.labels = {}  # what larql-bench says about a case
        self.facts = facts or []

    def add(self, case, who, seconds):
        self.seconds.setdefault(case, {}).setdefault(who, []).extend(seconds)

    def fail(self, case, who, reason):
        self.failures.setdefault(case, {})[who] = reason

    def median(self, case, who):
        values = self.seconds.get(case, {}).get(who)
        return statistics.median(values) if values else None


def list_cases(bench, pattern):
    """Names as Google Benchmark prints them, with the case that each stands for."""
    done = subprocess.run([bench, "--benchmark_list_tests=true"], capture_output=True, text=True, check=True,
                          env=clean_environment())
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return {name: cases.parse(name) for name in names if re.search(pattern, name)}


def run_larql(options, names, results):
    escaped = "|".join(re.sub(r"([.^$*+?()\[\]{}|\\])", r"\\\1", name) for name in names)
    command = [options.bench, f"--benchmark_filter=^({escaped})$", "--benchmark_format=json",
               f"--benchmark_repetitions={options.repetitions}"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    try:
        report = json.loads(done.stdout)
    except ValueError:
        reason = f"larql-bench ended with {done.returncode}: {done.stderr.strip()[-200:]}"
        for name in names:
            results.fail(names[name].name, "larql", reason)
        return {}
    for entry in report["benchmarks"]:
        name = cases.parse(entry.get("run_name", entry["name"])).name
        if entry.get("error_occurred") or entry.get("skipped"):
            results.fail(name, "larql", entry.get("error_message") or entry.get("skip_message") or "no reason given")
        elif entry.get("run_type", "iteration") == "iteration":
            results.add(name, bench_side(name), [entry["real_time"] * TIME_UNITS[entry["time_unit"]]])
            if entry.get("label"):
                results.labels[name] = entry["label"]
    return report["context"]


def run_peer(options, peer, names, results):
    """Times `names` by the peer. A case that ends its process is noted, and the others go on in a new one."""
    names = list(names)
    while names:
        command = [sys.executable, str(pathlib.Path(__file__).with_name("peers.py")), peer,
                   f"--threads={options.threads}", f"--repetitions={options.repetitions}"]
        try:
            done = subprocess.run(command + names, capture_output=True, text=True, env=clean_environment(),
                                  timeout=600 + 60 * len(names))
            output, reason = done.stdout, f"the process ended with {done.returncode}: {done.stderr.strip()[-200:]}"
        except subprocess.TimeoutExpired as late:
            output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
            reason = "took too long"
        running = None
        for line in output.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a library's own output
            kind, case = event.get("event"), event.get("case")
            if kind == "absent":
                results.absent[peer] = event["reason"]
                return
            if kind == "peer":
                results.peers[peer] = event["details"]
            elif kind == "begin":
                running = case
            else:
                running = None
                names.remove(case)
                if kind == "result":
                    results.add(case, peer, event["seconds"])
                else:
                    results.fail(case, peer, event["error"])
        if running is None:
            for name in names:
                results.fail(name, peer, reason)
            return
        results.fail(running, peer, reason)
        names.remove(running)


def measure(options):
    results = Results()
    listed = list_cases(options.bench, options.filter)
    context = {}
    for group in GROUPS:
        names = {raw: case for raw, case in listed.items() if group_of(case) is group}
        if not names:
            continue
        wanted = {case.name: case for case in names.values()}
        if group.key == "decode":  # judged by the speed of reading, which is measured in turns with it
            wanted.update((n, cases.parse(n)) for n in READ_CASES)
        for number in range(options.rounds):
            print(f"{group.title}: round {number + 1} of {options.rounds}", flush=True)
            context.update(run_larql(options, names, results))
            for peer in options.peers:
                theirs = [n for n, case in wanted.items()
                          if peer in cases.peers_of(case) and peer not in results.failures.get(n, {})]
                if theirs and peer not in results.absent:
                    run_peer(options, peer, theirs, results)
        results.facts = facts(options, context)
        save(results, options)  # a run that is interrupted keeps what it has
    return results


# ---- what was measured on ----


def _read(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment())
        return done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def processor():
    info = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    name = model[1] if model else _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    numbers = [re.search(rf"^{k}\s*:\s*(\d+)$", info, re.M) for k in ("cpu family", "model", "stepping")]
    return name + (" (family {}, model {}, stepping {})".format(*(n[1] for n in numbers)) if all(numbers) else "")


def memory():
    total = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.M)
    size = int(total[1]) * 1024 if total else int(_output("sysctl", "-n", "hw.memsize") or 0)
    return f"{size / 2**30:.1f} GiB" if size else "unknown"


def processor_ticks():
    """(taken by the host, all) since the machine started, if the system says so. A busy host distorts every time."""
    ticks = [int(x) for x in _read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def stolen_share(before):
    now = processor_ticks()
    return f"{100 * (now[0] - before[0]) / max(now[1] - before[1], 1):.1f} %" if before and now else "unknown"


def simd_level():
    """The level that larql's dispatch chooses on this processor (detail/cpu.hpp)."""
    flags = set((re.search(r"^flags\s*:(.*)$", _read("/proc/cpuinfo"), re.M) or ["", ""])[1].split())
    if {"avx2", "fma", "bmi1", "bmi2"} <= flags:
        amx = ", amx_bf16 present" if "amx_bf16" in flags else ""
        return ("avx512" if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags else "avx2") + amx
    return "portable"


def blas(options):
    """The library that larql-bench loads, in a process of its own: what it calls itself and the kernels it chose."""
    linked = re.findall(r"=> (\S*(?:blas|mkl|blis|armpl|nvpl)\S*)", _output("ldd", options.bench))
    libraries = linked or [p for p in options.blas.split(";") if os.path.exists(p)]
    if not libraries:
        return "not identified"
    ask = ("import ctypes,sys\nlib=ctypes.CDLL(sys.argv[1])\nout=[]\n"
           "for f in ('openblas_get_config','openblas_get_corename','bli_info_get_version_str'):\n"
           "    try: g=getattr(lib,f)\n    except AttributeError: continue\n"
            "    g.restype=ctypes.c_char_p; said=g().decode().strip()\n"
            "    out.append('kernels it chooses by itself: '+said if 'core' in f else said)\n"
           "print('; '.join(out))")
    said = _output(sys.executable, "-c", ask, libraries[0])
    return os.path.basename(libraries[0]) + (f": {said}" if said else "")


def facts(options, context):
    now = datetime.datetime.now(datetime.timezone.utc)
    load = ", ".join(f"{x:.2f}" for x in options.load) if options.load else "unknown"
    known = {"date", "host_name", "executable", "num_cpus", "mhz_per_cpu", "cpu_scaling_enabled", "caches", "load_avg",
             "library_build_type", "aslr_enabled", "library_version", "json_schema_version"}
    out = [("Date", f"{now:%Y-%m-%d %H:%M} UTC"), ("larql", options.version), ("Processor", processor()),
           ("Cores", str(os.cpu_count())), ("Memory", memory()),
           ("System", f"{platform.system()} {platform.release()}"),
           ("Vector level", simd_level()), ("Compiler", options.compiler),
           ("Build", f"{options.build_type} ({options.flags.strip() or 'no flags'})"), ("BLAS", blas(options)),
           ("Threads", f"{options.threads}, unless a name says otherwise; 1 for decoding of formats and opening"),
           ("Load before the run", load), ("Processor time taken by the host", stolen_share(options.ticks)),
           ("Runs", f"{options.rounds} rounds of {options.repetitions} repetitions each")]
    return out + [(k, str(v)) for k, v in context.items() if k not in known]


# ---- comparing ----


def rate(results, name, who, measure_):
    median, amount = results.median(name, who), cases.work(cases.parse(name))[measure_]
    return amount / median / 1e9 if median and amount else None


def reference_rate(results, case, against):
    """GFLOP/s of the fastest product by the BLAS, or GB/s of reading about as many bytes as the case does, from whatever
    cache they fit, or of reading memory."""
    parsed = [cases.parse(n) for n in results.seconds]
    if against == "sgemm":
        rates = [rate(results, c.name, bench_side(c.name), 0) for c in parsed if c.group == "sgemm"]
        return max((r for r in rates if r), default=None)
    bytes_read = {c.name: cases.work(c)[1] for c in parsed if c.group == "read"}
    wanted = max(bytes_read.values(), default=0) if against == "memory" else cases.work(case)[1]
    distance = {name: abs(math.log(size / wanted)) for name, size in bytes_read.items()}
    near = [n for n, d in distance.items() if d <= min(distance.values()) + 0.1]
    return max((r for n in near for who in results.seconds[n] if (r := rate(results, n, who, 1))), default=None)


def ratio(results, case, against):
    """How many times as fast as the other larql is, or None."""
    ours = results.median(case.name, "larql")
    if ours is None:
        return None
    if against in RATES:
        other = reference_rate(results, case, against)
        return rate(results, case.name, "larql", 0 if against == "sgemm" else 1) / other if other else None
    theirs = results.median(case.name, against)
    return theirs / ours if theirs else None


def goals_of(case):
    if case.extra or case.threads:
        return []
    name, storage = f"{case.group}/{case.label}", case.storage or "f32"
    others = (*cases.peers_of(case), "sgemm", "read bandwidth")
    return [g for g in GOALS if fnmatch.fnmatch(name, g.case) and g.storage == storage and g.against in others]


def verdict(value, goal):
    return "not measured" if value is None else "met" if value >= goal.at_least else "**missed**"


def geometric_mean(results, goal):
    held = [case for case in map(cases.parse, results.seconds) if goal in goals_of(case)]
    ratios = [ratio(results, case, goal.against) for case in held]
    ratios = [r for r in ratios if r]
    return (math.exp(statistics.fmean(map(math.log, ratios))), len(ratios)) if ratios else (None, 0)


# ---- writing ----


def show_time(seconds):
    unit = next((u for u, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6)) if seconds >= size), "ns")
    return f"{charts.number(seconds / TIME_UNITS[unit])} {unit}"


def table(head, rows):
    """A Markdown table. Columns after the first are aligned to the right, unless they have no heads."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + ("---:|" if any(head) else "---|") * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def case_row(results, case, measures, peers):
    side = bench_side(case.name)
    values = results.seconds.get(case.name, {}).get(side, [])
    row = [f"`{case.name}`" + (f" ({side})" if side != "larql" else "")]
    if values:
        middle = statistics.median(values)
        row += [show_time(middle), f"{100 * (max(values) - min(values)) / middle:.0f} %"]
    else:
        row += ["failed" if "larql" in results.failures.get(case.name, {}) else "-", "-"]
    for m in measures:
        sides = (side, *peers) if case.group == "read" else (side,)  # usually a peer's alone
        value = next((r for who in sides if (r := rate(results, case.name, who, m))), None)
        row.append(charts.number(value) if value else "-")
    for peer in peers:
        theirs, times = results.median(case.name, peer), ratio(results, case, peer)
        missing = "failed" if peer in results.failures.get(case.name, {}) else "-"
        row += [show_time(theirs) if theirs else missing, charts.number(times) if times else "-"]
    goals = []
    for goal in goals_of(case):
        if not goal.mean:
            value = ratio(results, case, goal.against)
            figure = f" ({value:.2f})" if value and goal.against in RATES else ""
            goals.append(f"{goal.at_least:g}x {goal.against}{figure}: {verdict(value, goal)}")
            if goal.against == "read bandwidth" and (of_memory := ratio(results, case, "memory")):
                goals.append(f"{of_memory:.2f}x reading memory")
    return row + ["; ".join(goals)]


def write_chart(results, group, members, peers, out):
    names = ["larql", *YARDSTICKS.values(), *peers]
    rows = []
    for case in members:
        if group.measure is None:
            values = {who: 1 / t for who in names if (t := results.median(case.name, who))}
        else:
            values = {who: r for who in names if (r := rate(results, case.name, who, group.measure))}
        label = case.name.partition("/")[2] if len(group.names) == 1 and group.names != ("*",) else case.name
        if values:
            rows.append((label, values))
    if not rows:
        return None
    unit = "runs per second, longer is better" if group.measure is None else UNITS[group.measure] + ", longer is better"
    subtitle = {k: v for k, v in results.facts}.get("Processor", "")
    used = [n for n in names if any(n in values for _, values in rows)]
    file = f"{group.key}.svg"
    (out / file).write_text(charts.bars(group.title, subtitle, unit, used, rows), encoding="utf-8")
    return file


def group_section(results, group, members, out):
    seen = {who for c in members for table_ in (results.seconds, results.failures) for who in table_.get(c.name, {})}
    peers = [p for p in results.peers if p in seen]
    measures = [m for m in (0, 1) if any(cases.work(c)[m] for c in members)]
    head = ["case", "larql", "spread", *(UNITS[m] for m in measures)]
    for peer in peers:
        head += [peer, "ratio"]
    rows = [case_row(results, case, measures, peers) for case in members]
    if not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    else:
        head.append("goal")
    lines = [f"## {group.title}", "", *([group.note, ""] if group.note else []), *table(head, rows)]
    for goal in GOALS:
        value, count = geometric_mean(results, goal) if goal.mean else (None, 0)
        if count and any(goal in goals_of(c) for c in members):
            lines += [f"Geometric mean over {count} types: {value:.2f}x {goal.against}, goal {goal.at_least:g}x: "
                      f"{verdict(value, goal)}.", ""]
    chart = write_chart(results, group, members, peers, out)
    if chart:
        lines += [f"![{group.title}]({chart})", ""]
    for case in members:
        if case.name in results.labels:
            lines.append(f"- `{case.name}`: {results.labels[case.name]}")
        for who, reason in results.failures.get(case.name, {}).items():
            lines.append(f"- `{case.name}`: {who} failed: {' '.join(reason.split())}")
    return lines + ([""] if lines[-1] else [])


# ---- growth ----


def growth_series(names):
    """Cases that differ in length only, shortest first, for each kind that has more than one length."""
    series = {}
    for case in map(cases.parse, names):
        if "length" in case.shape and not case.extra:
            kind = re.sub(r"_(s|kv)\d+$", "", f"{case.group}/{case.label}")
            series.setdefault((kind, case.storage or "f32", case.threads), []).append(case)
    return {k: sorted(v, key=lambda c: c.shape["length"]) for k, v in series.items() if len(v) > 1}


def growth_rows(results, series, who):
    for (kind, storage, threads), members in series.items():
        points = [(c.shape["length"], t) for c in members if (t := results.median(c.name, who))]
        if len(points) > 1:
            label = f"{kind}/{storage}" + (f"/t{threads}" if threads else "")
            yield label, points


def growth_section(results, out):
    series = growth_series(results.seconds)
    whos = ["larql", *results.peers]
    rows = []
    found = [(label, who, points) for who in whos for label, points in growth_rows(results, series, who)]
    for label, who, points in sorted(found, key=lambda f: (f[0], whos.index(f[1]))):
        (n1, t1), (n2, t2) = points[0], points[-1]
        power = math.log(t2 / t1) / math.log(n2 / n1)
        rows.append([f"`{label}`", who, f"{n1:,} to {n2:,}", f"{show_time(t1)} to {show_time(t2)}", f"{power:.2f}"])
    if not rows:
        return []
    lines = ["## Growth with length", "",
             "The power is that of the length by which time grows, from the shortest to the longest: 2 is quadratic, "
             "which exact attention over a prompt is, and 1 is linear, which one new token is.",
             "", *table(["case", "by", "length", "time", "power"], rows)]
    for group, unit in (("prefill", "tokens of the prompt"), ("decode", "tokens in the cache")):
        drawn = [(label.split("/", 1)[1], who, p) for label, who, p in found
                 if label.startswith(group + "/") and len(p) > 2]
        if drawn:
            used = [w for w in whos if any(w == d[1] for d in drawn)]
            drawn = [(label, who, [(x, 1e3 * y) for x, y in points]) for label, who, points in drawn]
            title = f"Growth of {group} with length"
            chart = charts.lines(title, "both axes are logarithmic", unit, "milliseconds", used, drawn)
            (out / f"growth_{group}.svg").write_text(chart, encoding="utf-8")
            lines += [f"![{title}](growth_{group}.svg)", ""]
    return lines


def threads_section(results, default):
    """Cases of the same shape whose names differ in the number of threads; no number means the usual one."""
    kinds = {}
    for case in map(cases.parse, results.seconds):
        if not case.extra:
            kind = kinds.setdefault((case.group, case.label, case.storage or "f32"), {})
            kind[cases.default_threads(case, default)] = case
    rows = []
    for (group, label, storage), by_threads in sorted(kinds.items()):
        for who in ["larql", *results.peers]:
            times = {n: t for n, case in sorted(by_threads.items()) if (t := results.median(case.name, who))}
            if len(times) > 1:
                (few, t1), (many, t2) = list(times.items())[0], list(times.items())[-1]
                rows.append([f"`{group}/{label}/{storage}`", who, f"{few} to {many}",
                             f"{show_time(t1)} to {show_time(t2)}", f"{t1 / t2:.2f}"])
    return ["## Threads", "", *table(["case", "by", "threads", "time", "speed-up"], rows)] if rows else []


def summary(results):
    judged = []
    for case in map(cases.parse, results.seconds):
        judged += [(f"`{case.name}`", g, ratio(results, case, g.against)) for g in goals_of(case) if not g.mean]
    judged += [(f"`{g.case}`, geometric mean", g, geometric_mean(results, g)[0]) for g in GOALS
               if g.mean and geometric_mean(results, g)[1]]
    measured = [j for j in judged if j[2] is not None]
    missed = [j for j in measured if j[2] < j[1].at_least]
    if not measured:
        return []
    lines = [f"{len(measured) - len(missed)} of the {len(measured)} goals that could be measured are met."]
    lines += [f"- missed: {name}: {value:.2f}x {goal.against}, goal {goal.at_least:g}x" for name, goal, value in missed]
    return lines + [""]


def write_report(results, options):
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    names = {**results.seconds, **results.failures}
    lines = ["# Benchmark report", "", *table(["", ""], [[k, v] for k, v in results.facts]),
             "A repetition is the least of several calls; times are medians over all repetitions; spread is the longest "
             "less the shortest, in percent of the median. A ratio is the peer's time divided by larql's: above 1, "
             "larql is faster. GB are 10^9 bytes. No "
             "environment variable that sets threads or kernels reached larql or a peer.", "", "Peers:", ""]
    lines += [f"- {details}" for details in results.peers.values()]
    lines += [f"- {peer} is left out: {reason}" for peer, reason in results.absent.items()]
    lines += ["", *summary(results)]
    for group in GROUPS:
        members = [c for c in map(cases.parse, names) if group_of(c) is group]
        if members:
            lines += group_section(results, group, members, out)
    lines += growth_section(results, out) + threads_section(results, options.threads)
    (out / "report.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def save(results, options):
    data = {"facts": results.facts, "peers": results.peers, "absent": results.absent, "labels": results.labels,
            "seconds": results.seconds, "failures": results.failures}
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def load(path):
    data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    results = Results(data["seconds"], data["failures"], data["peers"], [tuple(f) for f in data["facts"]])
    results.absent, results.labels = data["absent"], data["labels"]
    return results


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", help="the program larql-bench")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--from", dest="source", help="report.json of an earlier run, instead of measuring")
    parser.add_argument("--filter", default="", help="regular expression; only the cases that it finds")
    parser.add_argument("--peers", default="torch,ggml,gguf-py", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=3, help="in each round")
    parser.add_argument("--threads", type=int, default=2, help="of the peers; as many as larql-bench uses")
    for name in ("compiler", "build-type", "flags", "blas", "version"):
        parser.add_argument("--" + name, default="", help="for the report")
    options = parser.parse_args()
    if not options.source and not options.bench:
        parser.error("--bench or --from is needed")
    options.peers = [p for p in options.peers.split(",") if p]
    options.ticks = processor_ticks()
    options.load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return options


def main():
    options = parse_arguments()
    results = load(options.source) if options.source else measure(options)
    write_report(results, options)
    print(f"wrote {pathlib.Path(options.out) / 'report.md'}")
    ours = [name for name, by in results.failures.items() if "larql" in by]
    for name in ours:
        print(f"larql failed: {name}: {results.failures[name]['larql']}", file=sys.stderr)
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
