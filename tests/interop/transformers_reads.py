# SPDX-License-Identifier: Apache-2.0
"""Whether transformers computes what it should from the folders that larql-absorb writes.

    transformers_reads.py LARQL_ABSORB TEST_DATA

Factored conversions must load and give the logits that transformers gave for the original model; dense and latent ones,
and parts of a model, must be refused by name instead of loaded with tensors made at random. Exit 77: transformers,
torch or safetensors is not there.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

SKIPPED = 77

try:
    import torch
    import transformers
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM
except ImportError as problem:
    print(f"skipped: {sys.executable} has no transformers with torch and safetensors ({problem})")
    sys.exit(SKIPPED)

# Some hundred float32 products and sums in another order, on logits that agree exactly in exact arithmetic.
TOLERANCE = 2e-5

READ = [  # source, case under hf/ with the reference, options
    ("gguf/llama3-bf16.gguf", "llama3", []),
    ("gguf/deepseek_v2-bf16.gguf", "deepseek_v2", []),
    ("gguf/deepseek_v3-bf16.gguf", "deepseek_v3", []),
    ("gguf/deepseek_v3-bf16.gguf", "deepseek_v3", ["--shard-size", "60K"]),
    ("gguf/kimi_k2-bf16.gguf", "kimi_k2", []),
    ("hf/deepseek_v3_fp8", "deepseek_v3_fp8", ["--dtype", "f32"]),
    ("hf/deepseek_v3_bias", "deepseek_v3_bias", []),
]
REFUSED = [
    ("hf/deepseek_v3", ["--form", "dense"]),
    ("hf/deepseek_v3", ["--form", "latent"]),
    ("gguf/llama3-bf16.gguf", ["--form", "factored", "--layers", "0:1"]),
]


def check_read(folder, reference):
    """The largest error of the logits, as a part of the largest logit."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, local_files_only=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise AssertionError(f"{kind}: {sorted(map(str, report[kind]))[:5]}")
    with safe_open(reference, "pt") as file:
        ids, want = file.get_tensor("input_ids").long(), file.get_tensor("logits")
    with torch.no_grad():
        got = model(ids[None]).logits[0].float()
    error = ((got - want).abs().max() / want.abs().max()).item()
    if not error <= TOLERANCE:
        raise AssertionError(f"logits differ by {error:.2e} of the largest, allowed {TOLERANCE:.0e}")
    return f"error {error:.1e}"


def check_refused(folder):
    for load in (AutoConfig, AutoModelForCausalLM):
        try:
            load.from_pretrained(folder, local_files_only=True)
        except ValueError as refusal:
            if "larql-" not in str(refusal):
                raise AssertionError(f"the refusal does not name the model type: {refusal}") from refusal
            continue
        raise AssertionError(f"{load.__name__} took the folder for a published model")
    return "refused: " + json.loads((folder / "config.json").read_text())["model_type"]


def main():
    absorb, data = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    cases = [(s, ["--form", "factored", *o], lambda f, c=c: check_read(f, data / "hf" / c / "reference.safetensors"))
             for s, c, o in READ] + [(s, o, check_refused) for s, o in REFUSED]
    failures = 0
    with tempfile.TemporaryDirectory() as work:
        for number, (source, options, check) in enumerate(cases):
            folder = pathlib.Path(work) / str(number)
            try:
                subprocess.run([absorb, data / source, folder, *options, "--quiet"], check=True)
                outcome = "ok      " + check(folder)
            except Exception as problem:  # every case is reported
                failures += 1
                outcome = f"FAILED  {type(problem).__name__}: {problem}"
            print(f"{' '.join([source, *options]):60} {outcome}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
