#!/bin/sh
# Formats every Python file but the lessons' twins, whose text is the lesson. With --check it changes nothing, and
# fails where a file is not formatted.
set -eu

export PATH="$PWD/.venv/bin:$PATH"
ruff format "$@" .
find solutions -name '[a-z]*.py' | while read -r file; do
    [ -f "${file%.py}.ipynb" ] || echo "$file"  # a twin has a notebook beside it
done | xargs ruff format "$@"
