#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Programs killed at every change of a name, on a full file system, and with sources that are cut or replaced before
# any of the calls that read them: one line or a result, never a signal, and of a model all or nothing.
#
#   faults.sh SHIM LARQL_ABSORB LARQL_INSPECT LARQL_VERIFY MODEL GGUF     SHIM: tests/support/fault_shim.cpp
set -euo pipefail
shim="$1" absorb="$2" inspect="$3" verify="$4" model="$5" gguf="$6"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() { echo "$*"; cat "$work/message" 2>/dev/null || true; exit 1; }

# Runs a program with one fault, for files of a folder. Sets `code`; fails if the fault did not come to pass.
with_fault() {  # FAULT FOLDER COMMAND ...
    rm -f "$work/mark"
    code=0
    {
        LD_PRELOAD="$shim" LARQL_FAULT="$1" LARQL_FAULT_FOLDER="$work/$2" LARQL_FAULT_MARK="$work/mark" \
            "${@:3}" >"$work/said" 2>"$work/message"
    } 2>/dev/null || code=$?
    [ -e "$work/mark" ]
}

# --- killed at each rename, fresh and in place of an old model; then the same command again, also resumed ---

new=(--form latent --shard-size 10K --quiet --threads 1)
"$absorb" "$model" want "${new[@]}"
"$absorb" "$model" old --form dense --shard-size 20K --quiet
kills=0
for replace in "" --force; do
    for number in $(seq 100); do
        rm -rf out
        [ -z "$replace" ] || cp -r old out
        if ! with_fault "rename:$number:kill" out "$absorb" "$model" out "${new[@]}" $replace; then
            [ "$code" = 0 ] && diff -r want out || fail "without a fault: exit $code"
            break
        fi
        [ "$code" = 137 ] || fail "killed at rename $number $replace: exit $code"
        kills=$((kills + 1))
        resume=""
        [ $((number % 2)) = 0 ] || resume=--resume
        "$absorb" "$model" out "${new[@]}" $replace $resume 2>message || fail "rerun after rename $number $replace $resume"
        diff -r want out || fail "the rerun after rename $number $replace $resume differs"
    done
done
[ "$kills" -gt 10 ] || fail "only $kills renames"

# --- sources that change before a call that reads them ---

# Every so-many-th call, until there are no more.
change_before_reads() {  # STEP SOURCE FILE COMMAND ...
    local what number
    for what in cut swap; do
        for number in $(seq 1 "$1" 2000); do
            rm -rf source out
            cp -r "$2" source
            head -c "$(wc -c <"source/$3")" /dev/zero >"source/$3.other"
            LARQL_FAULT_FILE="$work/source/$3" with_fault "read:$number:$what" source "${@:4}" || break
            changes=$((changes + 1))
            [ "$code" = 0 ] && continue
            refusals=$((refusals + 1))
            [ "$code" = 1 ] && [ "$(wc -l <message)" = 1 ] || fail "$what of $3 before read $number of ${*:4}: exit $code"
            [ ! -e out ] || fail "$what of $3 before read $number of ${*:4} left $(ls -A out)"
        done
        [ "$code" = 0 ] || fail "without a fault: ${*:4}: exit $code"
    done
}
changes=0 refusals=0
mkdir one hf
cp "$gguf" one/m.gguf
cp "$model"/{config.json,model.safetensors} hf
change_before_reads 1 one m.gguf "$inspect" source/m.gguf --tensors
change_before_reads 7 one m.gguf "$inspect" source/m.gguf --dump dumped.safetensors
change_before_reads 11 one m.gguf "$absorb" source/m.gguf out --quiet --threads 1
change_before_reads 1 hf config.json "$inspect" source --json
change_before_reads 11 hf model.safetensors "$absorb" source out --form latent --quiet --threads 1
change_before_reads 11 hf model.safetensors "$absorb" source out --form latent --to gguf --quiet --threads 1
change_before_reads 13 hf model.safetensors "$verify" source "$model" --threads 1
[ "$refusals" -gt 50 ] || fail "only $refusals of $changes changes were refused"

# --- a full file system ---

full="not tried, as nothing may be mounted"
mkdir small
if mount -t tmpfs -o size=100K tmpfs small 2>/dev/null; then
    cp -r want small/out
    code=0
    "$absorb" "$model" small/out --form dense --force --quiet 2>message || code=$?
    diff -r want small/out >differs || true
    umount small
    [ "$code" = 1 ] && [ "$(wc -l <message)" = 1 ] && [ ! -s differs ] || fail "full: exit $code, $(cat differs)"
    full="the old model stayed"
fi
echo "tried: larql-absorb killed at each rename, afresh and with --force, then run again | $kills kills | none |"
echo "tried: a file is emptied or replaced before a call with which a program reads it | $changes runs | none |"
echo "tried: larql-absorb --force on a full file system | $full | none |"
