#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is needed, builds everything with warnings as errors, and runs all tests.
#
#   tests/run.sh              an optimised build in build/
#   tests/run.sh --sanitize   address and undefined-behaviour sanitizers, in build-asan/
set -euo pipefail
cd "$(dirname "$0")/.."
. cmake/setup.sh
larql_setup

settings=cmake/dev.cmake build=build
case "${1:-}" in
    "") ;;
    --sanitize) settings=cmake/asan.cmake build=build-asan ;;
    *) echo "usage: tests/run.sh [--sanitize]" >&2; exit 2 ;;
esac
cmake -C "$settings" -S . -B "$build" -G Ninja >"$build.log" 2>&1 || { cat "$build.log" >&2; exit 1; }
rm -f "$build.log"
cmake --build "$build" --parallel
ctest --test-dir "$build" --output-on-failure --parallel 2
