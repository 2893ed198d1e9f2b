#!/bin/sh
# The quick part of `make test`: style, types, rooms, pages that are generated, and the tests of what changed against
# main (scripts/changed.py; BASE=COMMIT is another base), and a canary of every lesson. Arguments go to pytest.
# SECONDS_FOR_TESTS: what has not begun by then is skipped; the tests of a lesson have 40 seconds at least.
set -u

export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive GRADER_CLOCK_REPEATS=0 HF_HUB_OFFLINE="${HF_HUB_OFFLINE-1}"
limit="${SECONDS_FOR_TESTS:-110}"
started=$(date +%s)
failed=""
mkdir -p test-output

step() {
    name="$1"
    shift
    printf '\n== %s (so far %d s)\n' "$name" $(($(date +%s) - started))
    "$@" || failed="$failed $name"
}

mypy_ends() {
    wait "$mypy"
    code=$?
    cat test-output/mypy.log
    return "$code"
}

tests() {
    left=$((limit - $(date +%s) + started))
    [ "$left" -gt 40 ] || left=40
    python -m pytest "$@" --quiet -m "not slow and not browser" --numprocesses 2 --dist loadscope --seconds "$left"
}

step ruff ruff check .
step format sh scripts/format.sh --check
sh scripts/types.sh >test-output/mypy.log 2>&1 &
mypy=$!
changed=$(python scripts/changed.py) || exit 2
lessons=$(echo "$changed" | sed -n 's/^--lesson //p')
# shellcheck disable=SC2046,SC2086  # one word for each file
step tests tests $(echo "$changed" | grep -v '^--lesson') "$@"
if [ -n "$lessons" ]; then
    # shellcheck disable=SC2086
    step build grader build --check $lessons
    # shellcheck disable=SC2046,SC2086
    step lessons tests tests/lessons/test_every_lesson.py tests/lessons/test_cell_ids.py tests/lessons/test_visible_cells.py \
        $(for each in $lessons; do echo "solutions/$each --lesson $each"; done)
fi
step canary python -m pytest tests/lessons/test_every_lesson.py tests/lessons/test_mistakes.py tests/lessons/test_sly.py \
    --canary --quiet --numprocesses 2
step mypy mypy_ends

printf '\nThe tests of: %s\n' "$(echo $changed)"
echo "Of every lesson a canary: one right program, three mistakes, one sly program for the commit's hash. Left out, and in
\`make test\`: other tests, those marked slow or browser, mutants, nbval, and what was skipped above."
seconds=$(($(date +%s) - started))
if [ -n "$failed" ]; then
    printf 'Failed after %d s:%s\n' "$seconds" "$failed"
    exit 1
fi
printf 'All of it passed in %d s.\n' "$seconds"
