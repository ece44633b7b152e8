# SPDX-License-Identifier: Apache-2.0
# Sourced by tests/run.sh and examples/quickstart.sh: installs what larql builds with, on Debian 12, Ubuntu 24.04 and
# later. Safe to run again; does nothing when everything is there.

larql_packages="g++ cmake ninja-build libxtensor-dev libxtensor-blas-dev libopenblas-dev nlohmann-json3-dev \
doctest-dev libcli11-dev libbenchmark-dev"

larql_setup() {
    missing=""
    for package in $larql_packages; do
        # A compiler or cmake from elsewhere is as good as the distribution's.
        case "$package" in
            g++ | cmake) command -v "$package" >/dev/null 2>&1 && continue ;;
            ninja-build) command -v ninja >/dev/null 2>&1 && continue ;;
        esac
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "larql needs these packages (Debian's names), and apt-get is not here to install them:$missing" >&2
        return 1
    fi
    if [ "$(id -u)" -eq 0 ]; then
        as_root=""
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo"
    else
        echo "larql needs these packages; install them as root, then run this again:" >&2
        echo "    apt-get install$missing" >&2
        return 1
    fi
    echo "installing:$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
