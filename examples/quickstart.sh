#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is needed, builds larql's programs, absorbs a shipped DeepSeek-V3 checkpoint into the dense and the
# latent form, and proves the results against what transformers computed on it.
set -euo pipefail
cd "$(dirname "$0")/.."
. cmake/setup.sh
larql_setup

build=build-quickstart
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLARQL_BUILD_TESTS=OFF -DLARQL_BUILD_BENCHMARKS=OFF \
    >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
rm -f "$build.log"
cmake --build "$build" --parallel

programs="$build/examples"
model=tests/data/hf/deepseek_v3
converted="$build/converted"
rm -rf "$converted"
mkdir -p "$converted"

echo
"$programs/larql-inspect" "$model"
for form in dense latent; do
    echo
    "$programs/larql-absorb" "$model" "$converted/$form" --form "$form" --to safetensors --dtype f32
done
echo
"$programs/quickstart" "$model/reference.safetensors" "$model" tests/data/gguf/deepseek_v3-bf16.gguf \
    tests/data/gguf/sharded/deepseek_v3-bf16-00002-of-00003.gguf "$converted/dense" "$converted/latent"
