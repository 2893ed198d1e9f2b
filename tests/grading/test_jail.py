"""What docs/grading.md says the jail is: seen from outside, in what Linux says of a child; and tried from inside."""

import json
import os
import re
import signal
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from grader.grading.sandbox import zygote
from grader.grading.sandbox.confinement import attempts, prove
from grader.grading.sandbox.frames import FrameEnd, pack
from grader.grading.sandbox.jail import Child, Jail
from grader.grading.sandbox.limits import MB, Limits
from grader.grading.sandbox.seccomp import ALLOWED
from grader.grading.sandbox.zygote import EXTRA_ADDRESSES_MB

pytest.importorskip("pyseccomp")
LIMITS = Limits(memory_mb=1280)  # a PyTorch that can use a GPU takes 740 of them before anything runs
UPROBES = [335, 336]  # Linux lets these past every filter, and answers them from its own trampoline alone


@pytest.fixture(scope="module")
def lesson() -> Iterator[Path]:
    """What submissions may read; not below pytest's own folder, which is its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        lesson = Path(folder)
        lesson.chmod(0o755)
        (lesson / "config.json").write_text("{}")
        yield lesson


@pytest.fixture(scope="module")
def jail(lesson: Path) -> Iterator[Jail]:
    jail = Jail(lesson, LIMITS)
    jail.start()
    yield jail
    jail.close()


@pytest.fixture
def child(jail: Jail) -> Iterator[Child]:
    with jail.child() as child:
        yield child


def run(child: Child, source: str) -> Any:
    """Run a cell in a child; the words that it raises SystemExit with, or the problem."""
    body = {"do": "cell", "title": "test", "source": textwrap.dedent(source), "exercise": "test", "free": []}
    body["solution"] = ""
    problem = child.ask(pack(body), time.monotonic() + 300).body
    said = problem["detail"][-1] if problem and problem["detail"] else str(problem)
    return said.removeprefix("SystemExit: ")


def proc(child: Child, name: str) -> str:
    return Path(f"/proc/{child.pid}/{name}").read_text()


def status(child: Child) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in proc(child, "status").splitlines() if ":\t" in line)


# --- seen from outside ---


@pytest.mark.parametrize("kind", ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"])
def test_a_child_has_namespaces_of_its_own(child: Child, kind: str) -> None:
    assert os.readlink(f"/proc/{child.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_a_child_is_nobody_without_rights(child: Child) -> None:
    said = status(child)
    assert {name: int(said[name], 16) for name in said if name.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert said["NoNewPrivs"] == "1" and said["Seccomp"] == "2" and not said["Groups"].strip()
    assert os.getuid() or set(said["Uid"].split()) == {"65534"}
    assert run(child, "import os; raise SystemExit(f'{os.getuid()} {os.getgid()} {os.getpid()}')") == "65534 65534 1"


def test_a_child_has_its_channel_and_no_other_descriptor(child: Child) -> None:
    folder = f"/proc/{child.pid}/fd"
    held = {name: os.readlink(f"{folder}/{name}").split(":")[0] for name in os.listdir(folder)}
    assert held == {"0": "/dev/null", "1": "/dev/null", "2": "/dev/null", "3": "socket"}


def test_a_child_can_write_to_its_scratch_space_alone(child: Child) -> None:
    mounts = [line.split() for line in proc(child, "mountinfo").splitlines()]
    assert [m[4] for m in mounts if "ro" not in m[5].split(",")] == ["/scratch"]
    assert all("nosuid" in m[5] and ("nodev" in m[5]) != m[4].startswith("/dev/") for m in mounts)
    scratch = next(m for m in mounts if m[4] == "/scratch")
    assert f"size={LIMITS.file_mb * 1024}k,nr_inodes={LIMITS.files}" in scratch[-1]
    top = {m[4].split("/")[1] for m in mounts}
    assert not top & {"proc", "sys", "etc", "home", "run", "var"}


def test_a_link_in_the_scratch_space_leads_nowhere_new(child: Child) -> None:
    """An exercise on paths has links. What they lead to is looked up in the child's own root, and nowhere else."""
    source = """
        import os
        found = []
        for to in ("/scratch/note", "/etc/passwd", "/proc/1/root", "/scratch/../home"):
            os.symlink(to, "/scratch/link")
            found.append(os.path.exists("/scratch/link"))
            os.remove("/scratch/link")
        open("/scratch/note", "w").close()
        os.symlink("note", "/scratch/link")
        raise SystemExit(str([found, os.path.realpath("/scratch/link")]))
    """
    assert run(child, textwrap.dedent(source)) == "[[False, False, False, False], '/scratch/note']"


def test_a_child_sees_no_file_that_no_solution_reads(child: Child) -> None:
    """Each would carry a bit in whether the system has it in memory."""
    source = """
        import os, sysconfig, torch
        packages = os.path.dirname(os.path.dirname(torch.__file__))
        places = [f"{packages}/{name}" for name in ("torch/include", "torch/share", "pip")]
        places += ["/usr/share", "/usr/include"]
        places += [sysconfig.get_path("stdlib") + "/" + name for name in ("test", "idlelib", "ensurepip")]
        raise SystemExit(str([place for place in places if any(names for _, _, names in os.walk(place))]))
    """
    assert run(child, source) == "[]"


def test_a_child_has_limits(child: Child) -> None:
    rows = re.findall(r"^(.+?)  +(\d+)  +(\d+)", proc(child, "limits"), re.MULTILINE)
    limits = {name: int(hard) for name, soft, hard in rows if soft == hard}
    assert limits["Max cpu time"] == LIMITS.cpu_seconds
    assert limits["Max data size"] == LIMITS.memory_mb * MB
    assert limits["Max file size"] == LIMITS.file_mb * MB
    assert limits["Max open files"] == LIMITS.descriptors
    assert limits["Max processes"] == LIMITS.threads
    assert limits["Max core file size"] == 0
    used = int(proc(child, "statm").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    assert 0 <= limits["Max address space"] - used - LIMITS.memory_mb * MB <= EXTRA_ADDRESSES_MB * MB


def test_a_crash_leaves_no_core_wherever_the_host_has_them_sent(child: Child) -> None:
    """RLIMIT_CORE counts for files alone: a core_pattern that names a program gets what may be dumped."""
    assert os.stat(f"/proc/{child.pid}/environ").st_uid == 0  # root's, as for every process that may not be


def test_children_leave_nothing_to_each_other(jail: Jail) -> None:
    """/tmp leads to /scratch; where Python or the grader lie below it, it shows the way to them, and nothing else."""
    look = "import os, torch; found = [os.listdir('/scratch'), sorted(os.listdir('/tmp')), hasattr(torch, 'note')]"
    with jail.child() as first:
        before = run(first, f"{look}; raise SystemExit(str(found))")
        run(first, "open('/scratch/note', 'w').write('x'); import torch; torch.note = 1")
        assert run(first, "raise SystemExit(str([os.listdir('/scratch'), torch.note]))") == "[['note'], 1]"
    with jail.child() as second:
        said = run(second, f"{look}; raise SystemExit(str(found))")
    assert said == before and said.startswith("[[], ") and said.endswith(", False]")


# --- tried from inside ---


def test_no_escape_succeeds(jail: Jail) -> None:
    assert prove(jail) == []


def test_no_escape_succeeds_with_more_memory_than_a_laptop_needs(lesson: Path) -> None:
    """`grader autograde --memory 6000`: what is tried goes with the limit."""
    big = Jail(lesson, Limits(memory_mb=6000))
    try:
        assert prove(big) == []
    finally:
        big.close()


def test_the_escapes_are_as_many_as_the_docs_say(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr("grader.grading.sandbox.confinement._succeeds", lambda attempt: bool(tried.append(attempt)))  # type: ignore[func-returns-value]
    attempts({"canary": "/x", "port": 0, "abstract": "", "pid": 0, "memory_mb": 512, "shown": []})
    assert f"a child tries {len(tried)} escapes" in (project / "docs" / "grading.md").read_text()


def test_no_other_system_call_is_answered(child: Child) -> None:
    """Every number up to 511 but those on the list, and those that are allowed with some arguments only."""
    import pyseccomp

    names = [*ALLOWED.split(), "mmap", "clone", "fcntl", "prctl", "prlimit64"]
    allowed = sorted(n for name in names if (n := pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)) >= 0)
    source = f"""
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        answered = []
        for number in set(range(512)) - set({allowed + UPROBES}):
            ctypes.set_errno(0)
            result = libc.syscall(number, 0, 0, 0, 0, 0, 0)
            if result != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
                answered.append((number, result, ctypes.get_errno()))
        raise SystemExit(str(answered))
    """
    assert run(child, source) == "[]"


@pytest.mark.parametrize(
    "attempt",
    [
        "libc.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
        "libc.fcntl(folder, fcntl.F_NOTIFY, fcntl.DN_ACCESS)",
        "libc.fcntl(pipe, 1031, 1 << 20)",  # F_SETPIPE_SZ
        "fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "libc.prctl(4, 1, 0, 0, 0)",  # PR_SET_DUMPABLE
        "libc.prctl(1, 0, 0, 0, 0)",  # PR_SET_PDEATHSIG
        "libc.syscall(56, 17, 0, 0, 0, 0)",  # clone, of a process
        "libc.syscall(9, 0, 4096, 3, 0x21, -1, 0)",  # mmap, shared
        "libc.syscall(9, 0, 4096, 3, 0x122, -1, 0)",  # mmap, growing downwards
        "resource.prlimit(0, resource.RLIMIT_CPU, (1, 1))",
        "os.utime('/dev/null')",
        "os.chmod('/dev/null', 0o666)",
        "os.utime(covered)",
        "os.chmod(covered, 0o755)",
        "os.listdir(covered)",
        "os.utime('/lesson/config.json')",
        "os.utime(torch.__file__)",
        "os.mkdir('/made')",
        "os.kill(1, signal.SIGSTOP) or time.sleep(0.01) or libc.fcntl(0, 1024, 0)",
    ],
)
def test_what_is_refused(child: Child, attempt: str) -> None:
    source = f"""
        import ctypes, fcntl, os, resource, signal, time, torch
        from pathlib import Path
        libc = ctypes.CDLL(None, use_errno=True)
        file = open(torch.__file__)
        folder = os.open(os.path.dirname(torch.__file__), os.O_RDONLY)
        pipe = os.pipe()[1]
        covered = Path(torch.__file__).parent.parent / "transformers"
        ctypes.set_errno(0)
        try:
            raise SystemExit("refused" if ({attempt}) == -1 and ctypes.get_errno() == 1 else "allowed")
        except OSError as error:
            raise SystemExit("refused" if error.errno in (1, 13, 30) else str(error))
    """
    assert run(child, source) == "refused"


HOG = """
    import ctypes
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mprotect.argtypes = libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    taken = 0
    for _ in range(40):
        place = libc.mmap(None, 64 << 20, {protection}, {flags}, -1, 0)
        if place == 2**64 - 1 or {before}:
            break
        ctypes.memset(place, 1, 64 << 20)
        taken += 64
        {after}
    raise SystemExit(str(taken))
"""


@pytest.mark.parametrize(
    ("flags", "protection", "before", "after"),
    [
        (0x22, 3, "False", "pass"),
        (0x122, 3, "False", "pass"),  # what grows downwards counts as stack
        (0x22, 3, "False", "libc.mprotect(place, 64 << 20, 1)"),  # what is read-only does not count as data
        (0x22, 3, "False", "libc.mprotect(place, 64 << 20, 5)"),
        (0x4022, 0, "libc.mprotect(place, 64 << 20, 3)", "libc.mprotect(place, 64 << 20, 0)"),
    ],
)
def test_there_is_no_way_around_the_limit_on_memory(
    child: Child, flags: int, protection: int, before: str, after: str
) -> None:
    taken = int(run(child, HOG.format(flags=flags, protection=protection, before=before, after=after)))
    assert taken <= LIMITS.memory_mb + EXTRA_ADDRESSES_MB


def test_threads_find_room_within_the_limits(child: Child) -> None:
    source = """
        import threading, time, torch
        done = []
        work = lambda: (time.sleep(0.2), done.append(torch.ones(1000).sum()))
        threads = [threading.Thread(target=work) for _ in range(10)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        raise SystemExit(str(len(done)))
    """
    assert run(child, source) == "10"


def test_a_child_that_is_killed_while_it_waits_for_its_go_is_one_to_start_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(_: zygote.Zygote, channel: int, tell: int, go: int) -> None:
        os.close(go)  # before it is killed, so that nobody depends on the order in which a process ends
        os.write(tell, json.dumps({"pid": os.getpid()}).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(zygote, "_in_child", killed)
    own, before = zygote.Zygote(Limits(), jailed=False), psutil.Process().children()
    assert zygote._fork_once(own, 0) == {} and own.child == 0
    assert psutil.Process().children() == before  # it is not left behind as a zombie either


def test_how_a_child_ends_is_known_though_its_channel_closes_first(child: Child) -> None:
    """As the system closes it for one that is killed, and longer before on a busy machine."""
    with pytest.raises(FrameEnd):
        run(child, "import os, time\nos.close(3)\ntime.sleep(0.2)\nos._exit(7)")
    ended = child.finish()
    assert (ended.signal, ended.code) == (0, 7)
