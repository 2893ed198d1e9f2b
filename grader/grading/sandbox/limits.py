"""What one submission may use."""

from dataclasses import dataclass

MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one jailed child.

    exercise_seconds: wall-clock time of one exercise: its cells and its probe. submission_seconds: of all of them, in
    every child that the submission is given. cpu_seconds: processor time of one child. memory_mb: private memory
    (RLIMIT_DATA; and RLIMIT_AS, a little above it and what the child starts with). threads: at once. file_mb: one
    file, and all of the private /scratch. files: how many files. descriptors: open at once. answer_mb: one answer
    sent back. children: how often a submission that loses its child gets another.
    """

    exercise_seconds: float = 10.0
    submission_seconds: float = 60.0
    cpu_seconds: int = 60
    memory_mb: int = 2048
    threads: int = 16
    file_mb: int = 16
    files: int = 256
    descriptors: int = 64
    answer_mb: int = 16
    children: int = 40
