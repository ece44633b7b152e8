#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# larql-absorb as many machines and small ones run it: in parts by GNU parallel, by Slurm's array variables and by those
# of an indexed Kubernetes job, with few descriptors, interrupted, and with the results held against one run's.
#
#   parts.sh LARQL_ABSORB LARQL_VERIFY MODEL     exit code 77: GNU parallel is not installed
set -euo pipefail
absorb="$1" verify="$2" model="$3"
command -v parallel >/dev/null 2>&1 || { echo "skipped: GNU parallel is not installed"; exit 77; }
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
options=(--form latent --shard-size 20K --quiet)
same() { diff -r "$work/one" "$work/$1" || { echo "$1 differs from one run"; exit 1; }; }

"$absorb" "$model" "$work/one" "${options[@]}"

seq 8 | parallel --will-cite -j 2 "$absorb" "$model" "$work/parallel" "${options[@]}" --part {}/8
"$absorb" "$model" "$work/parallel" "${options[@]}" --join
same parallel

export SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_COUNT=3
for SLURM_ARRAY_TASK_ID in 2 3 1 2; do
    "$absorb" "$model" "$work/slurm" "${options[@]}" --resume --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
done
"$absorb" "$model" "$work/slurm" "${options[@]}" --join
same slurm

for JOB_COMPLETION_INDEX in 1 0; do
    "$absorb" "$model" "$work/kubernetes" "${options[@]}" --part "$((JOB_COMPLETION_INDEX + 1))/2"
done
"$absorb" "$model" "$work/kubernetes" "${options[@]}" --join
same kubernetes

# More shards than descriptors, written and read.
(
    ulimit -n 32
    "$absorb" "$model" "$work/few" --form dense --shard-size 1 --quiet
    "$verify" "$work/few" "$model" --tolerance 1e-5 >"$work/verified" || { cat "$work/verified"; exit 1; }
)
[ "$(find "$work/few" -name '*.safetensors' | wc -l)" -gt 32 ] || { echo "few shards"; exit 1; }

# A file system that is full: one line, nothing left, the source as it was.
if mkdir "$work/small" && mount -t tmpfs -o size=300K tmpfs "$work/small" 2>/dev/null; then
    before="$(cd "$model" && cat -- *.safetensors config.json | cksum)"
    if "$absorb" "$model" "$work/small/out" --form dense --quiet 2>"$work/message"; then
        echo "a full disk went unnoticed"; umount "$work/small"; exit 1
    fi
    lines="$(wc -l <"$work/message")" left="$(find "$work/small" -type f)"
    umount "$work/small"
    [ "$lines" = 1 ] && [ -z "$left" ] || { cat "$work/message"; echo "left: $left"; exit 1; }
    [ "$before" = "$(cd "$model" && cat -- *.safetensors config.json | cksum)" ]
fi
