"""What the engine raises. Each message says what happened, why, and what to do next."""


class GraderError(Exception):
    """Something a person can put right. Notebooks and terminals show its message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints instead of a traceback."""
        return [str(self)]


class CheckFailed(GraderError):
    """A check, comparison or generation did not match; the report above it says where and why."""


class RecordingError(GraderError):
    """A recording is missing, foreign or damaged, or an author's exercise can't be recorded."""


class Unavailable(GraderError):
    """A checkpoint can't be had here and now: no network, no licence accepted, no room, a damaged download."""


class NeedsAdapter(GraderError):
    """A program that is not built from a config.json's fields, or is not called with token ids alone."""


def last_line(error: Exception) -> str:
    """The last line of what an error says, or its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
