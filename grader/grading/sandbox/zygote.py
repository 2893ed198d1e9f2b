"""The warm process: it has imported torch, holds nothing secret, can see nothing of the course, and forks.

Run as ``python -m grader.grading.sandbox.zygote FD SETTINGS``, where FD is a SOCK_SEQPACKET socket on which JSON
comes and goes: ``{"do": "fork"}`` with one descriptor, the child's channel, is answered by ``{"pid": ...}``;
``{"do": "finish", "gone": ...}`` kills the child and is answered by how it ended and what it used. At the socket's end
the process ends, and its child with it. It is started by `grader.grading.sandbox.jail`.
"""

import contextlib
import gc
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.grading.sandbox.limits import MB, Limits

EXTRA_ADDRESSES_MB = 512  # beyond those of the memory
KEPT = ("CheckFailed", "Config", "GraderError")  # of the package's public names, as they are
TRIES = 3  # of starting a child that is killed from outside before it begins
GONE_SECONDS = 1.0  # within which a child whose channel has closed has ended
CHANNEL = 3  # the child's only descriptor besides 0, 1 and 2, which are /dev/null


@dataclass
class Zygote:
    """The state of the warm process.

    proc: a descriptor of /proc, which children do not get. addresses: the bytes of addresses that a child starts with.
    """

    limits: Limits
    jailed: bool
    proc: int = -1
    addresses: int = 0
    filter: Any = None
    child: int = 0


def main() -> None:
    """Warm up, go where nothing can be seen, and serve until the socket ends."""
    gc.disable()  # what is imported stays: looking through it again and again takes a seventh of the time
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    zygote = Zygote(Limits(**settings["limits"]), settings["jailed"])
    try:
        _prepare(zygote, Path(settings["lesson"]), Path(settings["mount_point"]), _lessons_own_cells())
    except Exception as error:
        _say(control, error=f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None
    _say(control, ready=os.getpid())
    _serve(zygote, control)


def _lessons_own_cells() -> list[str]:
    """The lesson's own cells, which come as JSON on standard input; from then on that is /dev/null."""
    text = sys.stdin.read()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    cells: list[str] = json.loads(text) if text else []
    return cells


def _prepare(zygote: Zygote, files: Path, mount_point: Path, cells: list[str]) -> None:
    if zygote.jailed:
        _isolate(zygote, files, mount_point, cells)
    else:
        _warm_up(cells)
        os.chdir(files)
    gc.collect()
    gc.freeze()


def _isolate(zygote: Zygote, files: Path, mount_point: Path, cells: list[str]) -> None:
    """Leave the host: other namespaces, another root, nobody's rights. What needs the host is done before."""
    from grader.grading.sandbox import linux, seccomp, view

    uid, gid = view.current_ids()
    shown = view.of_this_python()
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWNET
    zygote.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    if uid != 0:  # before torch is imported: a process with threads can't do it
        linux.unshare(flags | linux.CLONE_NEWUSER)
        linux.map_nobody(zygote.proc, uid, gid)
    _warm_up(cells)
    zygote.filter = seccomp.make_filter()
    if uid == 0:
        linux.unshare(flags)
    view.enter(shown, files, mount_point)
    if uid == 0:
        linux.become(linux.NOBODY, linux.NOBODY)
    os.chdir(view.LESSON)
    linux.adopt_orphans()
    zygote.addresses = linux.address_space(zygote.proc)


def _warm_up(cells: list[str]) -> None:
    """Import what a child needs, and use it once, on one thread: threads do not survive a fork."""
    import torch

    import grader
    from grader.grading.sandbox import child, dependencies

    torch.set_num_threads(1)
    child.warm_up()
    dependencies.warm_up(cells)
    for name in grader.__all__:  # their modules go out of reach, and a learner's own checks judge nothing here
        setattr(grader, name, getattr(grader, name) if name in KEPT else _nothing)


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _serve(zygote: Zygote, control: socket.socket) -> None:
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 12, 1)
        if not message:
            break
        try:
            command = json.loads(message)
            answer = _fork(zygote, *fds) if command["do"] == "fork" else _finish(zygote, command["gone"])
        except OSError as error:
            answer = {"error": str(error)}
        for fd in fds:
            os.close(fd)
        _say(control, **answer)
    _finish(zygote, gone=False)


def _say(control: socket.socket, **words: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        control.send(json.dumps(words).encode())


def _fork(zygote: Zygote, channel: int) -> dict[str, Any]:
    """Start a child on a channel; once more where it is killed from outside before it begins."""
    for _ in range(TRIES):
        if answer := _fork_once(zygote, channel):
            return answer
    return {"error": "the child was killed before it began, again and again; is the machine out of memory?"}


def _fork_once(zygote: Zygote, channel: int) -> dict[str, Any]:
    """What is said of a new child; nothing where it was killed. In a jail another process makes its namespaces."""
    told, tell = os.pipe()
    go, let_go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(let_go)  # or a child whose zygote is killed now would wait for ever
        _in_child(zygote, channel, tell, go)
    os.close(tell)
    os.close(go)
    with os.fdopen(told, "rb") as reader:
        answer: dict[str, Any] = json.loads(reader.read(1 << 12) or b"{}")
    if zygote.jailed or "pid" not in answer:
        _, status = os.waitpid(pid, 0)
        if not answer and os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            answer = {"error": "the child ended before it began"}
    if "pid" in answer:
        try:
            os.write(let_go, b".")
            zygote.child = answer["pid"]
        except BrokenPipeError:  # it was killed while it waited
            os.waitpid(answer["pid"], 0)
            answer = {}
    os.close(let_go)
    return answer


def _in_child(zygote: Zygote, channel: int, tell: int, go: int) -> None:
    """Never returns."""
    try:
        pid = _into_namespaces(zygote) if zygote.jailed else os.getpid()
        if pid:
            os.write(tell, json.dumps({"pid": pid}).encode())
        if pid and zygote.jailed:
            os._exit(0)
        os.close(tell)
        if os.read(go, 1) != b".":  # only now is the process between gone, and the zygote this one's parent
            os._exit(1)
        from grader.grading.sandbox import child

        channel = _keep_only(channel)
        try:
            _lock_in(zygote)
        except Exception as error:
            child.fail_to_start(channel, error)
        else:
            child.serve(channel)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(tell, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
    finally:
        os._exit(1)


def _into_namespaces(zygote: Zygote) -> int:
    """Make namespaces, and fork their first process; returns as fork does."""
    from grader.grading.sandbox import linux

    uid, gid = os.geteuid(), os.getegid()
    kinds = linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET
    linux.unshare(kinds | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP)
    linux.map_nobody(zygote.proc, uid, gid)
    return os.fork()


def _keep_only(channel: int) -> int:
    """Close every descriptor but the channel, which gets the number CHANNEL; 0, 1 and 2 become /dev/null."""
    null = os.open("/dev/null", os.O_RDWR)
    held = os.dup2(channel, 512)  # out of the way of the numbers that are given out below
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(held, CHANNEL, inheritable=False)
    os.closerange(CHANNEL + 1, 4096)
    return CHANNEL


def _lock_in(zygote: Zygote) -> None:
    """Give up all rights. In this order: each step takes away what the ones before it needed."""
    limits = zygote.limits
    if zygote.jailed:
        from grader.grading.sandbox import linux, view

        linux.mount_private()
        linux.mount_tmpfs(view.SCRATCH, f"size={limits.file_mb}m,nr_inodes={limits.files},mode=700")
        linux.die_with_parent()
    home = "/scratch" if zygote.jailed else tempfile.gettempdir()
    os.setsid()
    os.environ.clear()
    os.environ.update(HOME=home, TMPDIR=home, LANG="C.UTF-8", OMP_NUM_THREADS="1", MPLBACKEND="agg")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for what, value in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_DATA, limits.memory_mb * MB),
        (resource.RLIMIT_FSIZE, limits.file_mb * MB),
        (resource.RLIMIT_NOFILE, limits.descriptors),
        (resource.RLIMIT_CORE, 0),
        *(_jailed_limits(zygote) if zygote.jailed else ()),
    ):
        resource.setrlimit(what, (value, value))
    if zygote.jailed:
        linux.leave_no_core()
        linux.drop_capabilities()
        zygote.filter.load()


def _jailed_limits(zygote: Zygote) -> list[tuple[int, int]]:
    """Limits that only a jailed child can have.

    RLIMIT_DATA counts what can be written to now, and not what was written to and then made read-only; so there is
    a limit on addresses too, with more for libraries that are not loaded yet.
    """
    addresses = zygote.addresses + (zygote.limits.memory_mb + EXTRA_ADDRESSES_MB) * MB
    return [(resource.RLIMIT_NPROC, zygote.limits.threads), (resource.RLIMIT_AS, addresses)]


def _finish(zygote: Zygote, gone: bool) -> dict[str, Any]:
    """Kill the child, with all that it has started, and say how it ended.

    gone: its channel has closed, so it is about to end, or to be ended: how is worth waiting for. A process closes
    its channel before it can be waited for, and longer before on a busy machine; one that goes on is killed.
    """
    if not zygote.child:
        return {"signal": 0, "code": 0, "cpu": 0.0, "memory_mb": 0}
    patience = time.monotonic() + GONE_SECONDS
    while (alive := _is_alive(zygote.child)) and gone and time.monotonic() < patience:
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        (os.kill if zygote.jailed else os.killpg)(zygote.child, signal.SIGKILL)
    _, status, used = os.wait4(zygote.child, 0)
    zygote.child = 0
    ended = 0 if alive else status
    return {
        "signal": os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else 0,
        "code": os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else 0,
        "cpu": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss // 1024,
    }


def _is_alive(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


if __name__ == "__main__":
    main()
