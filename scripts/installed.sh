#!/bin/sh
# Runs a command with what `make .venv/test.stamp` installs; where that has not run yet, says so and succeeds.
set -u

if [ ! -e .venv/test.stamp ]; then
    echo "Not run, for it needs the project's environment: make .venv/test.stamp"
    exit 0
fi
export PATH="$PWD/.venv/bin:$PATH"
exec "$@"
