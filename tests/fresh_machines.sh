#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the two commands of the README as on fresh machines: for each suite an empty Debian in a folder, and in it a clone
# of this repository as it is committed. Packages come from where this machine's apt has them. Takes root, some 4 GiB of
# disk and 20 minutes a suite.
#
#   tests/fresh_machines.sh [--in FOLDER] [--keep] [SUITE...]
#
#   --in FOLDER  where machines and their logs go (a new folder in /tmp)
#   --keep       leave the machines there; logs stay in any case
#   SUITE        bookworm trixie, if none is named
#
# Exit code 0: everything passed; 1: something failed; 2: bad usage; 77: nothing could run here, and the last line says
# why.
set -euo pipefail

usage() { sed -n '/^#   tests/,/^$/s/^# *//p' "$0" >&2; exit 2; }
folder="" keep=""
while [ $# -gt 0 ]; do
    case "$1" in
        --in) [ $# -ge 2 ] || usage; folder="$2"; shift 2 ;;
        --keep) keep=1; shift ;;
        -*) usage ;;
        *) break ;;
    esac
done
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
repository="$(cd "$(dirname "$0")/.." && pwd)"

skip() { echo "skipped: $*"; exit 77; }
[ "$(id -u)" -eq 0 ] || skip "making a machine takes root"
for tool in debootstrap apt-get git unshare; do
    command -v "$tool" >/dev/null 2>&1 || skip "$tool is not installed"
done
# In a mount namespace of its own, what this script mounts is gone when it ends, however it ends.
if [ -z "${LARQL_OWN_MOUNTS:-}" ]; then
    unshare --mount true 2>/dev/null || skip "no permission to mount"
    options=(--in "${folder:-$(mktemp -d /tmp/larql-machines.XXXXXX)}")
    [ -z "$keep" ] || options+=(--keep)
    LARQL_OWN_MOUNTS=1 exec unshare --mount --propagation private "$repository/tests/fresh_machines.sh" \
        "${options[@]}" "${suites[@]}"
fi
unset LARQL_OWN_MOUNTS
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"

# How this machine's apt gets to its packages, as settings and as the variables that debootstrap reads.
apt_settings() { apt-config dump | grep -E '^Acquire::((https?|ftp)::|Check-Valid-Until|Check-Date|Retries)' || true; }
for protocol in http https; do
    proxy=""
    eval "$(apt-config shell proxy "Acquire::$protocol::Proxy")"
    case "$proxy" in "" | DIRECT) ;; *) export "${protocol}_proxy=$proxy" ;; esac
done

# The first archive of this machine's apt that has the suite.
find_archive() {
    local archive
    while read -r archive; do
        if /usr/lib/apt/apt-helper download-file "$archive/dists/$1/InRelease" "$folder/$1.InRelease" >/dev/null 2>&1
        then
            rm -f "$folder/$1.InRelease"
            echo "$archive"
            return 0
        fi
    done < <(apt-get update --print-uris 2>/dev/null | sed -n "s|^'\(.*\)/dists/[^/]*/InRelease'.*|\1|p" | awk '!seen[$0]++')
    return 1
}

unmount() {
    local place
    for place in dev/shm dev/pts dev proc; do
        if mountpoint -q "$1/$place"; then umount -l "$1/$place"; fi
    done
}
machine=""
leave() {
    [ -n "$machine" ] || return 0
    unmount "$machine"
    [ -n "$keep" ] || rm -rf --one-file-system "$machine"
    machine=""
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# An empty Debian with a clone of the repository in /larql.
make_machine() {  # suite archive
    debootstrap --variant=minbase --include=ca-certificates "$1" "$machine" "$2" || return 1
    unmount "$machine"
    cp /etc/resolv.conf "$machine/etc/resolv.conf"
    apt_settings >"$machine/etc/apt/apt.conf.d/99host"
    mount -t proc proc "$machine/proc" || return 1
    mount --bind /dev "$machine/dev" || return 1
    mount -t devpts devpts "$machine/dev/pts" || return 1  # apt writes its log through a terminal
    mount -t tmpfs tmpfs "$machine/dev/shm" || return 1
    git -c safe.directory='*' clone --quiet --no-hardlinks "$repository" "$machine/larql"
}

# A command of the README, as root of the machine.
run_inside() {
    chroot "$machine" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        nice sh -c "cd /larql && $1" </dev/null
}

passed=0 failed=0 skipped=0
step() {  # suite, name, command...: prints how it went, and the log's end when it went wrong
    local suite="$1" name="$2" log="$folder/$1.log" begin=$SECONDS result=passed
    shift 2
    echo "== $name" >>"$log"
    "$@" >>"$log" 2>&1 || result=FAILED
    printf '%-10s %-24s %s (%d s)%s\n' "$suite" "$name" "$result" $((SECONDS - begin)) \
        "$(sed -n '/^== /h; /tests passed/{H;g;s/.*\n/  /p}' "$log" | tail -n 1 | grep -s . || true)"
    [ "$result" = passed ] && return 0
    tail -n 40 "$log" | sed 's/^/    /'
    return 1
}

for suite in "${suites[@]}"; do
    : >"$folder/$suite.log"
    if ! archive="$(find_archive "$suite")"; then
        printf '%-10s skipped: no archive of this machine'\''s apt has it, or there is no network\n' "$suite"
        skipped=$((skipped + 1))
        continue
    fi
    machine="$folder/$suite"
    if [ -e "$machine" ]; then
        echo "$machine is there already: name another folder, or remove it" >&2
        machine=""
        exit 2
    fi
    if step "$suite" "an empty machine" make_machine "$suite" "$archive" &&
        step "$suite" examples/quickstart.sh run_inside examples/quickstart.sh &&
        step "$suite" tests/run.sh run_inside tests/run.sh; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
    leave
done
echo "machines: $passed passed, $failed failed, $skipped skipped; logs: $folder"
[ "$failed" -eq 0 ] || exit 1
[ "$passed" -gt 0 ] || skip "no suite could be tried"
