#!/bin/sh
# Runs every test of each lesson that is not on record as it is, and writes tests/proved.toml. Arguments go to pytest.
set -u

export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive GRADER_CLOCK_REPEATS=0 HF_HUB_OFFLINE="${HF_HUB_OFFLINE-1}"
python -m pytest tests/lessons solutions --prove "$@" --numprocesses 3 --dist loadscope --no-loadscope-reorder \
    --override-ini console_output_style=times --durations 15 \
    --nbval --nbval-current-env --nbval-sanitize-with tests/nbval-sanitize.cfg
