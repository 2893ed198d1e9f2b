#!/bin/sh
# Everything that must hold: style, types, tests, and every lesson's stored outputs. Arguments go to pytest.
# LESSON=NN-name in the environment: only what a change of that lesson needs.
set -u

export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1  # the workers keep two cores busy; more threads only get in each other's way
export OMP_WAIT_POLICY=passive  # where a test asks for two threads, one that waits leaves its core to the other workers
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=268435456  # memory of a big tensor is kept for the next
unset PYTHONDONTWRITEBYTECODE  # hundreds of processes import the same files
export GRADER_CLOCK_REPEATS=0  # nobody reads the times that a lesson's cells get here
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

# mypy keeps one core busy: it runs beside what comes next, and its words come where its step is.
mypy_starts() {
    sh scripts/types.sh "$@" >test-output/mypy.log 2>&1 &
    mypy=$!
}

mypy_ends() {
    wait "$mypy"
    code=$?
    cat test-output/mypy.log
    return "$code"
}

# Two processes, each with half of the lessons.
builds() {
    set -- solutions/*/reference.safetensors
    for each in "$@"; do basename "$(dirname "$each")"; done | xargs -P 2 -n $((($# + 1) / 2)) grader build --check
}

# Three workers keep two cores busy while one of them waits for a browser or a server.
tests() {
    step pytest python -m pytest "$@" --numprocesses 3 --dist loadscope --no-loadscope-reorder \
        --override-ini console_output_style=times --durations 15 \
        --nbval --nbval-current-env --nbval-sanitize-with tests/nbval-sanitize.cfg
}

# By nbval each cell of a lesson is run again, in the same run as the tests, and its output compared. A file is one
# worker's; conftest.py has the longest come first.
if [ -n "${LESSON-}" ]; then
    step ruff ruff check "solutions/$LESSON"
    step format sh scripts/format.sh --check
    mypy_starts "$LESSON"
    step build grader build --check "$LESSON"
    step mypy mypy_ends
    tests tests/lessons "solutions/$LESSON" --lesson "$LESSON" "$@"
else
    step ruff ruff check .
    step format sh scripts/format.sh --check
    mypy_starts
    step build builds
    step mypy mypy_ends
    tests tests solutions --sample "$@"
fi

seconds=$(($(date +%s) - started))
echo "$seconds" >test-output/make-test-seconds
if [ -n "$failed" ]; then
    printf '\nFailed after %d s:%s\n' "$seconds" "$failed"
    exit 1
fi
printf '\nAll of it passed in %d s.\n' "$seconds"
