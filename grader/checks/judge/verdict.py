"""What the judge found: for an exercise, for a case, and why a case is not right."""

from dataclasses import dataclass, field

from grader.checks.judge.difference import Difference

UNKNOWN = "it matches no known mistake"


@dataclass(frozen=True)
class Finding:
    """Why a case is not right: what is wrong in a sentence, what to look at, and lines of detail.

    mistake: the name of the known mistake it is, which explains every wrong case. shipped: where that was published.
    waits_for: the exercises that a composite waits for, whose own code is right. notes: what else may help, in
    sentences. unwritten: whether the code is still a stub. stopped: whether nothing came out that could be compared.
    measured: what is measured of a result whose error has no name, in sentences.
    """

    what: str
    hint: str = ""
    detail: tuple[str, ...] = ()
    mistake: str = ""
    waits_for: tuple[str, ...] = ()
    shipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unwritten: bool = False
    stopped: bool = False
    measured: tuple[str, ...] = field(default=(), compare=False)  # other numbers make it no other finding

    @property
    def carried(self) -> bool:
        """Whether only a part is wrong."""
        return bool(self.waits_for)


@dataclass(frozen=True)
class CaseVerdict:
    """A case: right or not, to the last bit or not, how far off, and why.

    insensitive: whether it is right, and would be with the error that another case shows: its tolerance is wider than
    that.
    """

    name: str
    right: bool
    exact: bool = False
    difference: Difference | None = None
    finding: Finding | None = None
    remarks: tuple[str, ...] = ()
    insensitive: bool = False

    @property
    def earned(self) -> bool:
        """Whether the case's points are given: for a right answer, and for one spoilt by a part alone."""
        return (self.right and not self.insensitive) or (self.finding is not None and self.finding.carried)


@dataclass(frozen=True)
class Verdict:
    """What the judge found for an exercise. notes: what the wrong cases have in common, in sentences."""

    exercise: str
    cases: tuple[CaseVerdict, ...]
    max_points: int
    notes: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether every case is right."""
        return all(case.right for case in self.cases)

    @property
    def exact(self) -> bool:
        """Whether every case equals the reference bit for bit."""
        return all(case.exact for case in self.cases)

    @property
    def unwritten(self) -> bool:
        """Whether nothing is written yet: every case meets a stub."""
        return all(case.finding is not None and case.finding.unwritten for case in self.cases)

    @property
    def points(self) -> float:
        """Points earned, split evenly between the cases."""
        return self.max_points * sum(case.earned for case in self.cases) / len(self.cases)

    @property
    def carried(self) -> bool:
        """Whether no points are lost, although it need not be right: what is wrong are its parts alone."""
        return all(case.earned for case in self.cases)

    @property
    def most_telling(self) -> CaseVerdict | None:
        """The wrong case to show in full, if any: the first that gave nothing to compare, else the first."""
        wrong = [case for case in self.cases if not case.right]
        return next((case for case in wrong if case.difference is None), wrong[0] if wrong else None)
