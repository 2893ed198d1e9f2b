"""Start the warm processes of a run's jails before anything else is imported: they import torch meanwhile.

Imports little itself. A jail that was started for other files, limits or cells than it turns out to need is ended.
"""

import atexit
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.digest import digest
from grader.grading.sandbox.limits import Limits
from grader.package import package_folder

LEFT_OUT = ("*.ipynb", "*.safetensors", ".*", "*.py", "__pycache__")


@dataclass
class WarmProcess:
    """A process that is warming up, or has. control: where commands go. mount_point: becomes its root.

    place: a folder of its own, with what submissions may read in ``lesson/``; removed with it, if it is its own.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    mount_point: Path
    place: Path | None = None

    def end(self) -> None:
        """End it, at once."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()
        shutil.rmtree(self.mount_point, ignore_errors=True)
        if self.place is not None:
            shutil.rmtree(self.place, ignore_errors=True)


_started: list[tuple[str, WarmProcess]] = []


def lessons_own_cells(notebook: dict[str, Any]) -> tuple[str, ...]:
    """The sources of a released lesson's own code cells, which a warm process reads: nbgrader knows no id of them."""
    own = [c["source"] for c in notebook["cells"] if c["cell_type"] == "code" and not c["metadata"].get("nbgrader")]
    return tuple(source if isinstance(source, str) else "".join(source) for source in own)


def launch(files: Path, cells: Sequence[str], limits: Limits, jailed: bool) -> WarmProcess:
    """Start a warm process. files: the folder that submissions may read. cells: the lesson's own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mount_point = Path(tempfile.mkdtemp(prefix="grader-jail-"))
    settings = {
        "limits": dataclasses.asdict(limits),
        "jailed": jailed,
        "lesson": str(files.resolve()),
        "mount_point": str(mount_point.resolve()),
    }
    with theirs, tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        json.dump(cells, file)
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "grader.grading.sandbox.zygote", str(theirs.fileno()), json.dumps(settings)],
            pass_fds=[theirs.fileno()],
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(),
        )
    return WarmProcess(process, ours, mount_point)


def launch_early(root: Path, lesson: str, limits: Limits, workers: int, *, force: bool = False) -> None:
    """Start what a run in `root` will probably need; nothing where nothing is new, or it can't be told what."""
    atexit.register(end_early)
    released = next((root / name / lesson for name in ("course", "release") if (root / name / lesson).is_dir()), None)
    if released is None or not sys.platform.startswith("linux") or not (force or _is_something_new(root, lesson)):
        return
    try:
        (notebook,) = released.glob("*.ipynb")
        content = json.loads(notebook.read_text(encoding="utf-8"))
        cells = lessons_own_cells(content)
        for _ in range(workers):
            place = Path(tempfile.mkdtemp(prefix="grader-lesson-"))
            place.chmod(0o755)
            warm = launch(lesson_view(released, place / "lesson"), cells, limits, jailed=True)
            warm.place = place
            _started.append((_what(place / "lesson", cells, limits), warm))
    except (OSError, ValueError, LookupError):  # whatever is wrong is said by what needs it
        end_early()


def take_early(files: Path, cells: Sequence[str], limits: Limits) -> WarmProcess | None:
    """A process that was started early for just this; None where there is none."""
    wanted = _what(files, cells, limits)
    for at, (what, _) in enumerate(_started):
        if what == wanted:
            return _started.pop(at)[1]
    return None


def end_early() -> None:
    """End what was started early and not taken."""
    while _started:
        _started.pop()[1].end()


def lesson_view(lesson_folder: Path, into: Path, left_out: tuple[str, ...] = LEFT_OUT) -> Path:
    """A copy of the files that a lesson's cells may read: everything released but notebooks and recordings."""
    shutil.copytree(lesson_folder, into, ignore=shutil.ignore_patterns(*left_out))
    into.chmod(0o755)
    return into


def _is_something_new(root: Path, lesson: str) -> bool:
    """Whether a submission is newer than the journal's last word."""
    journal = root / "journal" / f"{lesson}.jsonl"
    last = journal.stat().st_mtime if journal.exists() else 0.0
    return any(path.lstat().st_mtime > last for path in (root / "submitted").glob(f"*/{lesson}/*.ipynb"))


def _what(files: Path, cells: Sequence[str], limits: Limits) -> str:
    """A hash of all that a warm process depends on."""
    paths = [path for path in sorted(files.rglob("*")) if path.is_file()]
    named = [(path.relative_to(files).as_posix(), digest(path.read_bytes())) for path in paths]
    return digest(json.dumps([named, cells, dataclasses.asdict(limits)]))


def _environment() -> dict[str, str]:
    """The warm process gets nothing of the grader's environment but what Python needs to start."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    paths = [str(package_folder().parent), *(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)]
    return kept | {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",  # or each thread would reserve 64 MB of addresses
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
