#!/bin/sh
# Prints the path of otter-grader's command, for the benchmark, or nothing where it can't be had.
# It gets an environment of its own, which sees this project's packages too: its requirements are not this project's.
set -u

home=.venv/otter
if [ -n "${OTTER:-}" ]; then
    echo "$OTTER"
    exit 0
fi
if [ ! -x "$home/bin/otter" ]; then
    .venv/bin/python -m venv "$home" >&2 || exit 0
    packages=$("$home/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$packages/project.pth"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check 'otter-grader>=6,<8' >&2 || exit 0
fi
echo "$(pwd -P)/$home/bin/otter"
