"""A trace in a file of its own, for comparing a model with one that is not at hand."""

from pathlib import Path
from typing import Any

from grader.errors import GraderError, RecordingError
from grader.recordings.codec import Encoder
from grader.recordings.format import FORMAT, versions
from grader.recordings.recording import Recording
from grader.recordings.traces import Trace

KIND = "trace"


def write_trace(trace: Trace, path: Path, model: str = "") -> None:
    """Write a trace. model: the reference's class. Raises GraderError where the file can't be written."""
    encoder = Encoder()
    header: dict[str, Any] = {"format": FORMAT, "kind": KIND, "model": model, "versions": versions()}
    header |= {"lesson": path.stem, "exercises": {}, "trace": encoder.encode(trace)}
    try:
        Recording(header, encoder.tensors).write(path)
    except Exception as error:  # safetensors has errors of its own
        raise GraderError(f"{path} can't be written: {error}") from None


def read_trace(path: str | Path) -> Trace:
    """The trace in a file, which may be a lesson's recording. Raises RecordingError where there is none."""
    path = Path(path)
    if not path.is_file():
        raise RecordingError(
            f"{path} {'is no file' if path.exists() else 'does not exist'}. `grader trace` makes such a file."
        )
    try:
        trace = Recording.read(path).trace
    except RecordingError:
        raise RecordingError(f"{path} is no trace, or is damaged. `grader trace` makes such a file.") from None
    if trace is None:
        raise RecordingError(f"{path} holds no trace of a whole model, so there is nothing to compare with.")
    return trace
