#!/bin/sh
# Formats every Python file but the lessons' twins, whose text is the lesson. With --check it changes nothing, and
# fails where a file is not formatted.
set -eu

if [ "${1-}" = --check ]; then
    trap '[ $? = 0 ] || echo "Run \`sh scripts/format.sh\`, which formats what is named above." >&2' EXIT
fi

export PATH="$PWD/.venv/bin:$PATH"
ruff format "$@" .
find solutions -name '[a-z]*.py' | while read -r file; do
    [ -f "${file%.py}.ipynb" ] || echo "$file"  # a twin has a notebook beside it
done | xargs ruff format "$@"
