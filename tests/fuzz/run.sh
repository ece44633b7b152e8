#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What tests/run.sh --fuzz runs:
#
#   tests/fuzz/run.sh SECONDS [TARGET ...]
#
# builds the fuzz targets in build-fuzz/ with clang, libFuzzer and the address, undefined-behaviour and float-cast-overflow
# sanitizers, runs each for so many seconds, two at once, and prints a table. Inputs that are findings go to
# build-fuzz/findings/TARGET/; `build-fuzz/tests/fuzz/TARGET FILE` runs one again. What a run learnt stays in
# build-fuzz/corpus/. Exit code 1 if anything was found.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?usage: tests/fuzz/run.sh SECONDS [TARGET ...]}
shift
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "tests/fuzz/run.sh: expected seconds, got $seconds" >&2; exit 2; }

. cmake/setup.sh
command -v clang++-16 >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 ||
    larql_packages="$larql_packages clang"
command -v clang++-16 >/dev/null 2>&1 && larql_packages="$larql_packages libclang-rt-16-dev"
larql_setup

build=$PWD/build-fuzz data=$PWD/tests/data  # whole paths: a target may go to a folder of its own
cmake -C cmake/fuzz.cmake -S . -B $build -G Ninja >$build.log 2>&1 || { cat $build.log >&2; exit 1; }
rm -f $build.log
if [ $# -eq 0 ]; then
    set -- fuzz_gguf fuzz_safetensors fuzz_json fuzz_tree fuzz_shards fuzz_config fuzz_gguf_model fuzz_dtype fuzz_quantised \
        fuzz_checkpoint fuzz_arguments
fi
cmake --build $build --parallel "${LARQL_FUZZ_JOBS:-2}" --target "$@"

# A file of a tree, as fuzz_tree reads it: which name, length, bytes.
tree_file() {
    local length
    length=$(stat -c %s "$2")
    [ "$length" -le 65535 ] || return 0
    printf '%b' "$(printf '\\x%02x\\x%02x\\x%02x' "$1" $((length / 256)) $((length % 256)))"
    cat "$2"
}

# Seeds out of the files that the tests read.
make_seeds() {
    local to=$build/seeds/$1 i=0 f
    rm -rf "$to"
    mkdir -p "$to"
    case $1 in
        fuzz_gguf) find $data/gguf -name '*.gguf' -size -64k -exec cp -t "$to" {} + ;;
        fuzz_safetensors) cp $data/quant/*.safetensors "$to" ;;
        fuzz_json)
            for f in $data/hf/*/*.json $data/quant/*.json; do cp "$f" "$to/$((i++))"; done ;;
        fuzz_config)  # a first byte of 3: the rest is the text
            for f in $data/hf/*/config.json; do { printf '\003'; cat "$f"; } >"$to/$((i++))"; done ;;
        fuzz_tree)
            for f in $data/hf/*/model.safetensors; do
                [ "$(stat -c %s "$f")" -lt 32768 ] || continue
                { tree_file 3 "$(dirname "$f")/config.json"; tree_file 6 "$f"; } >"$to/$((i++))"
            done
            for f in $data/gguf/*.gguf; do tree_file 7 "$f" >"$to/$((i++))"; done
            { tree_file 3 $data/hf/deepseek_v3/config.json; tree_file 0 $data/quant/deepseek_fp8_sharded/*.index.json
              for f in $data/quant/deepseek_fp8_sharded/*-0000[12]-*.safetensors; do tree_file $((1 + i++ % 2)) "$f"; done
            } >"$to/index" ;;
    esac
}

dictionary_of() {
    case $1 in
        fuzz_gguf) echo gguf ;;
        fuzz_safetensors) echo safetensors json ;;
        fuzz_json | fuzz_config) echo json ;;
        fuzz_tree) echo gguf safetensors json ;;
    esac
}

# Files that targets make; in memory where there is such a folder.
TMPDIR=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" larql-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

fuzz() {
    local target=$1 name options=()
    local findings=$build/findings/$target corpus=$build/corpus/$target
    mkdir -p "$findings" "$corpus"
    make_seeds "$target"
    for name in $(dictionary_of "$target"); do cat "tests/fuzz/dictionaries/$name.dict"; done >"$build/seeds/$target.dict"
    [ -s "$build/seeds/$target.dict" ] && options+=("-dict=$build/seeds/$target.dict")
    # Inputs of bytes are files; inputs of decisions need fewer.
    case $target in
        fuzz_gguf | fuzz_safetensors | fuzz_tree) options+=(-max_len=65536) ;;
        fuzz_json | fuzz_config) options+=(-max_len=8192) ;;
        *) options+=(-max_len=1024 -len_control=0) ;;
    esac
    local TIMEFORMAT=%U  # seconds of processor, which on a busy machine are fewer than those of the clock
    {
        time "$build/tests/fuzz/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 \
            -print_final_stats=1 -artifact_prefix="$findings/" "${options[@]}" "$corpus" "$build/seeds/$target" \
            >"$build/$target.log" 2>&1 && echo 0 >"$build/$target.rc" || echo $? >"$build/$target.rc"
    } 2>"$build/$target.time"
}
export OPENBLAS_NUM_THREADS=1
rm -rf $build/findings
running=0
for target in "$@"; do
    fuzz "$target" &
    running=$((running + 1))
    [ $running -lt "${LARQL_FUZZ_JOBS:-2}" ] || { wait -n; running=$((running - 1)); }
done
wait

failed=0
printf '%-18s %10s %8s %10s %9s\n' target runs seconds processor findings
for target in "$@"; do
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$target.log")
    spent=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$build/$target.log")
    found=$(find "$build/findings/$target" -type f ! -name 'slow-unit-*' | wc -l)  # slow ones end as timeouts
    [ "$(cat "$build/$target.rc")" -eq 0 ] || [ "$found" -gt 0 ] || found=1  # a target that did not come to its inputs
    printf '%-18s %10s %8s %10s %9s\n' "$target" "${runs:-0}" "${spent:--}" "$(cut -d. -f1 "$build/$target.time")" "$found"
    [ "$found" -eq 0 ] || failed=1
done
if [ $failed -ne 0 ]; then
    echo "findings are in $build/findings/, what the targets said in $build/TARGET.log" >&2
    exit 1
fi
