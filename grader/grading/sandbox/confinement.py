"""Escapes that are tried at the start of a run: a jail that lets one succeed is not used.

`prove` runs outside: it sets up what is to be reached, has a child try, and looks for itself. `attempts` runs
inside; it is this project's code, in the same jail in which submitted code will run.
"""

import contextlib
import ctypes
import importlib
import mmap
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grader.grading.sandbox import view
from grader.grading.sandbox.frames import FrameEnd, FrameError, pack

SECONDS = 20
TRIES = 3  # where the child that tries is killed from outside


def prove(jail: Any) -> list[str]:
    """Let a child of the jail try to escape; returns what succeeded, and is empty where the jail holds."""
    with tempfile.TemporaryDirectory(prefix="grader-canary-") as folder, contextlib.ExitStack() as stack:
        canary = Path(folder, "secret.txt")
        canary.write_text(secret := secrets.token_hex(16))
        Path(folder).chmod(0o777)
        canary.chmod(0o666)
        network = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract = f"\0grader-{secrets.token_hex(8)}" if sys.platform.startswith("linux") else f"{folder}/socket"
        local.bind(abstract)
        local.listen()
        seen = view.of_this_python()
        body = {
            "do": "escape",
            "canary": str(canary),
            "port": network.getsockname()[1],
            "abstract": abstract,
            "pid": os.getpid(),
            "memory_mb": jail.limits.memory_mb,
            "shown": [str(folder) for folder in (*seen.shown, seen.package)],
        }
        for _ in range(TRIES):
            with jail.child() as child:
                try:
                    succeeded = child.ask(pack(body), time.monotonic() + SECONDS).body
                    break
                except FrameError as error:
                    succeeded = [f"the trial itself did not end ({error})"]
                    if not isinstance(error, FrameEnd):  # one that is gone may have been killed from outside
                        break
        if canary.read_text() != secret:
            succeeded.append("write the canary file")
        if [path.name for path in Path(folder).iterdir() if path.name not in ("secret.txt", "socket")]:
            succeeded.append("write beside the canary file")
    return [str(name) for name in succeeded]


def attempts(body: dict[str, Any]) -> list[str]:
    """Try everything; the names of what succeeded."""
    too_much = (2 * body["memory_mb"] + 1024) << 20
    shown = [Path(folder) for folder in body["shown"]]
    tries: dict[str, Callable[[], Any]] = {
        "read a file of the host": lambda: Path(body["canary"]).read_text(),
        "write a file of the host": lambda: Path(body["canary"]).write_text("written"),
        "list the grader's folder": lambda: os.listdir(Path(body["canary"]).parent),
        "see other processes": lambda: os.listdir("/proc/1"),
        "read /etc": lambda: os.listdir("/etc"),
        "read a home folder": lambda: any(_holds_more(Path(home), shown) for home in ("/home", "/root")),
        "write Python's packages": lambda: _write(Path(sys.modules["torch"].__file__ or "").parent / "escaped"),
        "write the lesson": lambda: _write(Path.cwd() / "escaped"),
        "write the root": lambda: _write(Path("/escaped")),
        "change a device's times": lambda: os.utime("/dev/null"),
        "lock a file of the host": lambda: _lock(sys.modules["torch"].__file__ or ""),
        "open a socket": lambda: socket.socket().close(),
        "reach the network": lambda: socket.create_connection(("127.0.0.1", body["port"]), 1).close(),
        "reach a local socket": lambda: _connect(body["abstract"]),
        "start a process": _fork,
        "execute a program": lambda: os.execv("/bin/sh", ["sh", "-c", "exit"]),
        "signal the grader": lambda: _signal(body["pid"], 0),
        "signal the process that forked this one": lambda: _signal(os.getppid() or body["pid"], signal.SIGUSR1),
        "become root": lambda: os.setuid(0),
        "get a namespace": lambda: _system_call("unshare", 0x10000000),
        "mount": lambda: _system_call("mount", b"tmpfs", b"/scratch", b"tmpfs", 0, None),
        "leave the root": lambda: os.chroot("/scratch"),
        "trace": lambda: _system_call("ptrace", 0, 0, 0, 0),
        "keep a descriptor": _descriptors,
        "use shared memory": lambda: mmap.mmap(-1, 1 << 20).close(),
        "raise a limit": _raise_limit,
        "use twice its memory": lambda: len(bytearray(too_much)),
        "use twice its memory, where no limit on data counts": lambda: _hoard(too_much),
        "fill the disk": lambda: Path("/scratch/full").write_bytes(bytes(64 << 20)),
        "start 100 threads": _threads,
        "import transformers": lambda: importlib.import_module("transformers"),
        "import transformers once more": _import_transformers,
        "keep an environment variable": lambda: os.environ["PATH"],
    }
    return [name for name, attempt in tries.items() if _succeeds(attempt)]


def _succeeds(attempt: Callable[[], Any]) -> bool:
    try:
        return attempt() is not False
    except (OSError, MemoryError, ImportError, KeyError, RuntimeError, AttributeError, ValueError):
        return False


def _holds_more(folder: Path, shown: list[Path]) -> bool:
    """Whether a folder holds anything but the way to what is shown: Python itself is often in somebody's home."""
    if not folder.exists() or folder in shown:
        return False
    if not any(folder in path.parents for path in shown):
        return True
    return any(_holds_more(entry, shown) for entry in folder.iterdir())


def _write(path: Path) -> None:
    path.write_text("escaped")


def _connect(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(address)


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _signal(pid: int, number: int) -> bool:
    """Whether another process takes a signal. In a container the grader can be number 1, as this one is here inside."""
    if pid == os.getpid():
        return False
    os.kill(pid, number)
    return True


def _system_call(name: str, *arguments: Any) -> bool:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    return bool(function(*arguments) == 0)


def _descriptors() -> bool:
    """Whether there is a descriptor besides /dev/null and the channel."""
    for fd in range(4, 4096):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            return True
    return False


def _raise_limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _hoard(amount: int) -> None:
    """Memory that was written to and is read-only now; a limit on addresses does not need it to be written to."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size, kept = 256 << 20, []
    try:
        for _ in range(amount // size):
            kept.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
            place = ctypes.addressof(ctypes.c_char.from_buffer(kept[-1]))
            libc.mprotect(place, size, mmap.PROT_READ)
    finally:
        for memory in kept:
            memory.close()


def _lock(path: str) -> None:
    import fcntl

    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _threads() -> bool:
    stop = threading.Event()
    started = []
    try:
        for _ in range(100):
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            started.append(thread)
    finally:
        stop.set()
        for thread in started:
            thread.join()
    return True


def _import_transformers() -> bool:
    """Past the block in sys.modules, to the files themselves."""
    blocked = sys.modules.pop("transformers", None)
    try:
        return hasattr(importlib.import_module("transformers"), "GPT2Model")
    finally:
        sys.modules["transformers"] = blocked  # type: ignore[assignment]
