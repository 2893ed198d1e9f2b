#!/bin/sh
# Says of each lesson that the files given as arguments lie in whether what was built of it is stale.
# The engine's files count for no lesson here: `grader build --check` without a lesson asks all of them.
set -eu

export PATH="$PWD/.venv/bin:$PATH"
lessons=$(for file in "$@"; do
    case "$file" in
        solutions/*/*) file="${file#solutions/}" ;;
        course/*/*) file="${file#course/}" ;;
        *) continue ;;
    esac
    [ ! -d "solutions/${file%%/*}" ] || echo "${file%%/*}"
done | sort -u)
[ -n "$lessons" ] || exit 0
# shellcheck disable=SC2086  # one word for each lesson
exec grader build --check $lessons
