"""All that is needed to grade submissions of one lesson, in a form that another process or machine can be sent."""

import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from grader.digest import digest
from grader.errors import GraderError
from grader.grading.running.plan import Plan, read_plan
from grader.grading.running.solutions import builds_on, read_solutions
from grader.grading.running.student_report import Shown
from grader.grading.sandbox.jail import JailKind, lesson_view
from grader.grading.sandbox.launch import lessons_own_cells
from grader.grading.sandbox.limits import Limits
from grader.recordings.format import RECORDING
from grader.recordings.recording import Recording

HIDDEN = "hidden"


@dataclass(frozen=True)
class Bundle:
    """A lesson to be graded.

    public: the released recording, whose answers students have. hidden: the one that scores, where there is one.
    files: what submissions may read, as a tar archive. jail: "none" for no jail at all. solutions: the lesson's own, by
    exercise; a child gets one in place of the student's where theirs is wrong, for the exercises that build on it.
    shown: how much of an error in hidden cases the student sees.
    """

    plan: Plan
    public: bytes
    hidden: bytes | None
    files: bytes
    limits: Limits = field(default_factory=Limits)
    jail: JailKind = "namespaces"
    solutions: Mapping[str, str] = field(default_factory=dict)
    shown: Shown = Shown.MISTAKE

    @cached_property
    def builds_on(self) -> Mapping[str, frozenset[str]]:
        """For each exercise, those whose solutions its own uses, directly or not."""
        return builds_on(self.plan, self.solutions, self.hidden_recording or self.public_recording)

    @cached_property
    def public_recording(self) -> Recording:
        """The released recording."""
        return _recording(self.public)

    @cached_property
    def hidden_recording(self) -> Recording | None:
        """The recording that scores, where it is not the released one."""
        return None if self.hidden is None else _recording(self.hidden)

    @cached_property
    def lessons_own_cells(self) -> tuple[str, ...]:
        """The lesson's own cells, which a jail's warm process reads."""
        return lessons_own_cells(json.loads(self.plan.notebook))

    @cached_property
    def recording_digest(self) -> str:
        """What scored."""
        return self.digest_with(self.hidden or b"")

    def digest_with(self, hidden: bytes) -> str:
        """What scores with this hidden recording."""
        return digest(b"\0".join((self.public, hidden, json.dumps(dict(self.solutions), sort_keys=True).encode())))

    def unpack_files(self, into: Path) -> Path:
        """Write what submissions may read to a folder."""
        into.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(self.files)) as archive:
            archive.extractall(into, filter="data")
        into.chmod(0o755)
        return into


def pack_bundle(
    released: Path,
    hidden: Path | None,
    limits: Limits | None = None,
    jail: JailKind = "namespaces",
    solved: Path | None = None,
) -> Bundle:
    """The bundle of a released lesson. solved: the folder of the lesson with its solutions, if there is one.

    Raises GraderError where notebook or recording can't be used."""
    plan = read_plan(released)
    public = released / RECORDING
    made_from = Recording.read(public).header["made_from"]  # an unreadable one is refused with its own words
    if hidden is not None:
        require_current(hidden, made_from)
    with tempfile.TemporaryDirectory() as folder:
        view = lesson_view(released, Path(folder) / "lesson")
        files = io.BytesIO()
        with tarfile.open(fileobj=files, mode="w") as archive:
            archive.add(view, ".")
    return Bundle(
        plan,
        public.read_bytes(),
        hidden.read_bytes() if hidden else None,
        files.getvalue(),
        limits or Limits(),
        jail,
        read_solutions(solved, plan) if solved else {},
    )


def require_current(hidden: Path, made_from: object) -> None:
    """Raise GraderError unless a hidden recording was made from the same sources as the released one."""
    if Recording.read(hidden).header["made_from"] != made_from:
        raise GraderError(
            f"{hidden} was recorded before the lesson's solutions or exercises changed: make it again with"
            " `grader hidden-cases --secret FILE LESSON`, and the same secret."
        )


def _recording(content: bytes) -> Recording:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / RECORDING
        path.write_bytes(content)
        return Recording.read(path)
