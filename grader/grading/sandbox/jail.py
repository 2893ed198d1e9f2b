"""The grader's side of the jail: start the warm process, open a child, talk to it, and see it end."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grader.errors import GraderError
from grader.grading.sandbox.frames import MAX_HEADER, FrameEnd, FrameError, FrameTimeout, Message, receive, send, unpack
from grader.grading.sandbox.launch import WarmProcess, launch, lesson_view
from grader.grading.sandbox.limits import MB, Limits

JailKind = Literal["namespaces", "none"]

START_SECONDS = 120
START_TRIES = 3  # where the warm process is killed from outside before it is there
FORK_SECONDS = 20

HOW_TO = (
    "Grading needs Linux with user namespaces and libseccomp (sudo apt install libseccomp2; pip install"
    " '.[grading]'). docs/grading.md has a container recipe for other systems. To run submitted code here with"
    " nothing around it: --unsafe."
)


class JailError(GraderError):
    """The jail can't be had, or does not hold."""


class ZygoteLost(Exception):
    """The warm process is gone; what it was doing can be done again."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: by which signal or with which code (0 where it was stopped from outside), and what it used."""

    signal: int
    code: int
    cpu: float
    memory_mb: int


class Jail:
    """A warm process, and one child at a time.

    lesson_files: a folder whose content submissions may read. kind: "none" runs them with limits alone. cells: the
    lesson's own. early: a warm process that was started for just this.
    """

    def __init__(
        self,
        lesson_files: Path,
        limits: Limits | None = None,
        kind: JailKind = "namespaces",
        cells: Sequence[str] = (),
        early: WarmProcess | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.kind: JailKind = kind
        self._lesson_files = lesson_files
        self._cells = cells
        self._early = early
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._mount_point: Path | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the warm process. Raises JailError where there can't be one."""
        if self._process is not None:
            return
        if self._stopped:
            raise JailError("The run was stopped.")
        if not sys.platform.startswith("linux") and self.kind == "namespaces":
            raise JailError(f"There is no jail for submitted code on {sys.platform}. {HOW_TO}")
        for tries in range(1, START_TRIES + 1):
            warm = self._early or launch(self._lesson_files, self._cells, self.limits, self.kind == "namespaces")
            self._early = None
            self._process, self._control, self._mount_point = warm.process, warm.control, warm.mount_point
            try:
                answer = self._hear(START_SECONDS)
                break
            except ZygoteLost:
                killed = self._was_killed()
                said = self._last_words()
                self.close()
                if self._stopped:
                    raise JailError("The run was stopped.") from None
                if not killed or tries == START_TRIES:
                    raise JailError(f"The jail's process did not start: {said}. {HOW_TO}") from None
        if "error" in answer:
            self.close()
            raise JailError(f"The jail can't be had here: {answer['error']}. {HOW_TO}")

    def stop(self) -> None:
        """Kill the warm process and its child, from any thread; there will be no other."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the warm process and its child."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            self._process.kill()
            self._process.wait()
            if self._process.stderr:
                self._process.stderr.close()
        if self._mount_point is not None:
            with contextlib.suppress(OSError):
                self._mount_point.rmdir()
        self._process = self._control = self._mount_point = None

    @property
    def pid(self) -> int | None:
        """The warm process."""
        return self._process.pid if self._process else None

    @contextlib.contextmanager
    def child(self) -> Iterator["Child"]:
        """A new child, killed at the end. Raises JailError, and ZygoteLost where the warm process was killed."""
        self.start()
        assert self._control is not None
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            with theirs:
                try:
                    socket.send_fds(self._control, [b'{"do": "fork"}'], [theirs.fileno()])
                except OSError:
                    raise self._lost() from None
            answer = self._hear(FORK_SECONDS)
            if "error" in answer:
                raise JailError(f"The jail can't be had here: {answer['error']}. {HOW_TO}")
            child = Child(self, ours, answer["pid"])
            try:
                self._greet(child)
                yield child
            finally:
                child.finish()

    def _greet(self, child: "Child") -> None:
        """Wait until the child has locked itself in. No submitted code has run in it yet."""
        try:
            hello = child.hear(time.monotonic() + FORK_SECONDS)
        except FrameError:
            raise self._lost() from None
        if "error" in hello.body:
            raise JailError(f"The jail can't be had here: {hello.body['error']}. {HOW_TO}")

    def finish(self, gone: bool) -> Ended:
        """Kill the child. gone: its channel has closed; how it ended is waited for. Raises ZygoteLost."""
        assert self._control is not None
        try:
            self._control.send(json.dumps({"do": "finish", "gone": gone}).encode())
        except OSError:
            raise self._lost() from None
        return Ended(**self._hear(FORK_SECONDS))

    def _hear(self, seconds: float) -> dict[str, Any]:
        assert self._control is not None
        self._control.settimeout(seconds)
        try:
            answer: dict[str, Any] = json.loads(self._control.recv(1 << 12))
        except (OSError, ValueError):
            raise self._lost() from None
        return answer

    def _lost(self) -> ZygoteLost:
        return ZygoteLost("the warm process is gone")

    def _was_killed(self) -> bool:
        """Whether the warm process, whose socket has ended, was killed."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(2) == -signal.SIGKILL
        return False

    def _last_words(self) -> str:
        assert self._process is not None and self._process.stderr is not None
        self._process.kill()
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class Child:
    """One jailed child. What it says is not to be trusted."""

    def __init__(self, jail: Jail, channel: socket.socket, pid: int) -> None:
        self.pid = pid
        self.ended: Ended | None = None
        self._jail = jail
        self._channel = channel
        self._gone = False

    def ask(self, command: bytes, deadline: float, most_bytes: int = 0) -> Message:
        """Its answer to a command. Raises FrameTimeout, FrameEnd where it is gone, FrameError for nonsense.

        most_bytes: that its tensors may have.
        """
        try:
            send(self._channel.fileno(), command, deadline)
            return self.hear(deadline, most_bytes)
        except FrameEnd:
            self._gone = True
            raise

    def hear(self, deadline: float, most_bytes: int = 0) -> Message:
        """The next message from it."""
        most = min(MAX_HEADER + 4 + most_bytes, self._jail.limits.answer_mb * MB)
        return unpack(receive(self._channel.fileno(), most, deadline))

    def finish(self) -> Ended:
        """Kill it, with all that it started; how it ended, where it had ended by itself."""
        if self.ended is None:
            self.ended = self._jail.finish(self._gone)
        return self.ended


__all__ = ["Child", "Ended", "FrameEnd", "FrameTimeout", "Jail", "JailError", "ZygoteLost", "lesson_view"]
