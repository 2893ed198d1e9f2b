#!/bin/sh
# Makes .venv and installs the project with its dependencies, saying plainly what is missing.
#
#   sh scripts/environment.sh lab     what learners need
#   sh scripts/environment.sh test    that, and what authors and CI need
#
# PYTHON=/path/to/python3 chooses the Python.
set -u

case "${1:-}" in
    lab) what=. need_mb=4000 ;;
    test) what=".[test]" need_mb=4000 ;;
    *) echo "usage: environment.sh lab|test" >&2; exit 2 ;;
esac
venv=.venv
log="$venv/install.log"

fail() {
    echo >&2
    printf '%s\n' "$@" >&2
    exit 1
}

find_python() {
    newest_seen="" without_venv=""
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            newest_seen="$version"
        elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            without_venv="$version"
        else
            python="$candidate"
            return
        fi
    done
    if [ -n "$without_venv" ]; then
        fail "Python $without_venv is here, but not its venv module, which this needs." \
            "On Debian or Ubuntu: sudo apt install python$without_venv-venv"
    elif [ -n "$newest_seen" ]; then
        fail "This needs Python 3.11 or newer; the python3 found here is $newest_seen." \
            "Install a newer one, then: make PYTHON=/path/to/python3.12 (or put it first in PATH)"
    fi
    fail "This needs Python 3.11 or newer, and there is no python3 here." \
        "On Debian or Ubuntu: sudo apt install python3 python3-venv"
}

# A .venv from another folder, or one whose Python is gone, can't be repaired: it is made again.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')" != "$(pwd -P)/$venv" ]; then
    find_python
    free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
    if [ "$free_mb" -lt "$need_mb" ]; then
        fail "This folder's disk has $free_mb MB free; installing needs about $need_mb MB" \
            "(with PyTorch's CUDA build, which pip takes on Linux, about 8000 MB). Free some and run this again."
    fi
    echo "Making $venv with Python $version"
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "$python -m venv failed; what it printed above says why."
fi

quiet="--quiet --progress-bar off"
[ -t 1 ] && quiet=""
pip_install() {
    # shellcheck disable=SC2086  # $quiet is several words or none
    "$venv/bin/python" -m pip install $quiet --disable-pip-version-check --log "$log" --constraint constraints.txt "$@"
}

# uv finds out whether there is a GPU and takes PyTorch's build for it; pip on Linux always takes the one for CUDA.
# uv comes into .venv where there is none, with 20 MB; --torch-backend is not a preview since 0.7.14.
find_uv() {
    uv=$(command -v uv) || uv="$venv/bin/uv"
    [ -x "$uv" ] || pip_install "uv>=0.7.14"
}

with_uv() {
    find_uv || return 1
    uv_quiet="--quiet"
    [ -t 1 ] && uv_quiet=""
    # shellcheck disable=SC2086  # $uv_quiet is a word or none
    "$uv" pip install $uv_quiet --python "$venv/bin/python" --torch-backend=auto --constraint constraints.txt \
        --no-build-isolation --editable "$what" && return
    echo "uv could not install PyTorch's build for this machine: it may not reach PyTorch's own index. pip goes on,"
    echo "and on Linux takes the build for CUDA: about 6 GB instead of 1.5."
    return 1
}

echo "Installing what pyproject.toml lists: about 1.5 GB; about 6 GB if this machine has an NVIDIA GPU." \
    "A few minutes, the first time."
rm -f "$log"
build_needs=$("$venv/bin/python" -c \
    'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
# What builds the package comes first and in the open: inside pip's own isolated build its errors would be hidden.
# shellcheck disable=SC2086  # one word for each requirement
if ! { pip_install $build_needs && { with_uv || pip_install --no-build-isolation --editable "$what"; }; }; then
    if grep -q "No space left on device" "$log"; then
        fail "The disk is full. Free some space and run this again; it goes on from here."
    elif grep -qE "NewConnectionError|NameResolutionError|ConnectTimeoutError|Max retries|from versions: none" "$log"; then
        fail "pip could not reach the package index. Installing needs the network, once; then the course works offline." \
            "Behind a proxy, set HTTPS_PROXY. Run this again when it can be reached; it goes on from here."
    fi
    fail "pip could not install the project. Its last words are above; all of them are in $log."
fi

if [ "$1" = test ]; then
    # Tests of real weights are skipped, and say so, where these can't be had.
    for name in smollm2-135m-instruct gemma-3-270m; do
        HF_HUB_OFFLINE=1 "$venv/bin/grader" weights get "$name" || true
    done
fi

touch "$venv/lab.stamp"
[ "$1" = lab ] || touch "$venv/$1.stamp"
