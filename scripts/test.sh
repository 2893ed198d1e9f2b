#!/bin/sh
# Everything that must hold: style, types, tests, and every lesson's stored outputs. Arguments go to pytest.
set -u

export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1  # two workers on two cores; more threads only get in each other's way
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE-1}"  # nothing is downloaded unless asked for
started=$(date +%s)
failed=""
mkdir -p test-output

step() {
    name="$1"
    shift
    printf '\n== %s (so far %d s)\n' "$name" $(($(date +%s) - started))
    "$@" || failed="$failed $name"
}

step ruff ruff check .
step mypy mypy
step build grader build --check
# One run for the tests and, by nbval, for the lessons: each cell is run again and its output compared. A file is one
# worker's; tests/conftest.py has the longest come first.
step pytest python -m pytest tests solutions --numprocesses 2 --dist loadscope --no-loadscope-reorder \
    --override-ini console_output_style=times --durations 15 \
    --nbval --nbval-current-env --nbval-sanitize-with tests/nbval-sanitize.cfg "$@"

seconds=$(($(date +%s) - started))
echo "$seconds" >test-output/make-test-seconds
if [ -n "$failed" ]; then
    printf '\nFailed after %d s:%s\n' "$seconds" "$failed"
    exit 1
fi
printf '\nAll of it passed in %d s.\n' "$seconds"
