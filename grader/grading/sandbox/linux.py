"""The Linux calls that a jail is made of and Python 3.11 has no functions for."""

import ctypes
import os
from pathlib import Path

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20, 0x1000, 0x4000, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442  # on every architecture; glibc 2.36 and newer have a function for it
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CAPABILITY_VERSION = 0x20080522

NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones."""
    _check(_libc.unshare(flags), "unshare")


def map_nobody(proc: int, uid: int, gid: int) -> None:
    """Be nobody in a new user namespace. proc: a descriptor of /proc. uid, gid: who this is outside."""
    _write_at(proc, "self/setgroups", "deny")
    _write_at(proc, "self/uid_map", f"{NOBODY} {uid} 1")
    _write_at(proc, "self/gid_map", f"{NOBODY} {gid} 1")


def _write_at(folder: int, name: str, text: str) -> None:
    fd = os.open(name, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def mount_private() -> None:
    """Let no mount made here be seen outside."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def mount_tmpfs(target: Path | str, options: str) -> None:
    """Mount an empty file system in memory. No devices, no programs with other people's rights."""
    _mount("tmpfs", str(target), "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)


def bind(source: Path, target: Path, *, device: bool = False) -> None:
    """Show a file or folder, with all that is mounted below it, at another place, read-only.

    A device can be written to all the same: what can't be changed are its rights and times.
    """
    _mount(str(source), str(target), None, _MS_BIND | _MS_REC)
    _set_flags(target, _MS_RDONLY | _MS_NOSUID | (_MS_NOEXEC if device else _MS_NODEV))


def make_read_only(target: Path | str) -> None:
    """Make one mount read-only."""
    _mount(None, str(target), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def _set_flags(target: Path, flags: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)  # MOUNT_ATTR_RDONLY to _NOEXEC are 1, 2, 4 and 8 as well
    done = _libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, ctypes.sizeof(attributes)
    )
    _check(done, f"mount_setattr {target}")


def pivot_root(new_root: Path) -> None:
    """Make `new_root` the root, and let go of the old one."""
    os.chdir(new_root)
    _check(_libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    done = _libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), arguments[3])
    _check(done, f"mount {target}")


def become(uid: int, gid: int) -> None:
    """Give up being root for good."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _prctl(_PR_SET_DUMPABLE, 1)  # or /proc/self/uid_map would still be root's


def leave_no_core() -> None:
    """Let no core be dumped: where core_pattern names a program, RLIMIT_CORE does not keep the kernel from it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def address_space(proc: int) -> int:
    """How many bytes of addresses this process has taken. proc: a descriptor of /proc."""
    fd = os.open("self/statm", os.O_RDONLY, dir_fd=proc)
    try:
        return int(os.read(fd, 100).split()[0]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(fd)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Be killed when the parent ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def drop_capabilities() -> None:
    """Give up every privilege, now and for whatever is executed later."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    last = 63
    for capability in range(last + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, nothing), "capset")


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)), "prctl")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
