#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is needed, builds everything, and runs all tests. Warnings are errors in CI only.
#
#   tests/run.sh              an optimised build in build/
#   tests/run.sh --sanitize   address and undefined-behaviour sanitizers, in build-asan/
#   tests/run.sh --threads    thread sanitizer, in build-tsan/: the tests of what shares work
#   tests/run.sh --fuzz SECONDS [TARGET ...]   each fuzz target, or these, for so long, in build-fuzz/
#
# LARQL_PEER_PYTHON: a Python with transformers, torch and safetensors, for the test that reads larql's output with them.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --fuzz ]; then
    shift
    exec bash tests/fuzz/run.sh "$@"
fi
. cmake/setup.sh
larql_packages="$larql_packages parallel libtbb-dev"  # tests run a conversion in parts, and attention on TBB's threads
larql_setup

settings=cmake/dev.cmake build=build tests=()
case "${1:-}" in
    "") ;;
    --sanitize) settings=cmake/asan.cmake build=build-asan ;;
    --threads)
        settings=cmake/tsan.cmake build=build-tsan
        tests=(test_executor test_gqa_attention test_gemm test_mla_absorb test_attention_layer test_conversion)
        export OPENBLAS_NUM_THREADS=1 ;;  # its threads are not instrumented: every join would look like a race
    *) echo "usage: tests/run.sh [--sanitize | --threads | --fuzz SECONDS [TARGET ...]]" >&2; exit 2 ;;
esac
cmake -C "$settings" -S . -B "$build" -G Ninja ${LARQL_PEER_PYTHON:+"-DLARQL_PEER_PYTHON=$LARQL_PEER_PYTHON"} >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
rm -f "$build.log"
cmake --build "$build" --parallel ${tests:+--target "${tests[@]}"}
ctest --test-dir "$build" --output-on-failure --parallel 2 ${tests:+-R "^($(IFS='|'; echo "${tests[*]}"))\$"}
