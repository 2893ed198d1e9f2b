"""Run learner's code and say what happened. Nothing in this room knows an answer: a jail's child imports it."""

from grader.checks.probe.cases import probe, probe_each, probe_further

__all__ = ["probe", "probe_each", "probe_further"]
