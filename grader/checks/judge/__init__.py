"""Compare what a probe observed with what is right, and say so. Nothing in this room runs learner's code."""

from grader.checks.judge.judging import judge

__all__ = ["judge"]
