#!/bin/sh
# Everything that must hold: style, types, tests. Arguments go to pytest. In the environment:
# LESSON=NN-name: all that is asked of that lesson, and no more.
# PROVE=1: all tests of each lesson that is not on record as it is, and an entry for it in tests/proved.toml.
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

# mypy keeps one core busy: it runs beside the tests, and its words come where its step is.
mypy_ends() {
    wait "$mypy"
    code=$?
    cat test-output/mypy.log
    return "$code"
}

how="--sample"
[ -z "${PROVE-}" ] || how="--prove"
if [ -n "${LESSON-}" ]; then
    set -- tests/lessons "solutions/$LESSON" --lesson "$LESSON" "$@"
    [ -n "${PROVE-}" ] || how=""
else
    set -- tests solutions "$@"
fi
step ruff ruff check .
step format sh scripts/format.sh --check
sh scripts/types.sh ${LESSON:+"$LESSON"} >test-output/mypy.log 2>&1 &
mypy=$!
# Three workers keep two cores busy while one of them waits for a browser or a server. By nbval each cell of a lesson is
# run again, and its output compared.
# shellcheck disable=SC2086
step pytest python -m pytest $how "$@" --numprocesses 3 --dist loadscope --no-loadscope-reorder \
    --override-ini console_output_style=times --durations 15 \
    --nbval --nbval-current-env --nbval-sanitize-with tests/nbval-sanitize.cfg
step mypy mypy_ends

seconds=$(($(date +%s) - started))
echo "$seconds" >test-output/make-test-seconds
if [ -n "$failed" ]; then
    printf '\nFailed after %d s:%s\n' "$seconds" "$failed"
    exit 1
fi
printf '\nAll of it passed in %d s.\n' "$seconds"
