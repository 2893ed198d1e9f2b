"""`python -m grader.cli` is the `grader` command."""

from grader.cli import main

main()
