"""The system calls that a jailed child may make: computing, its own memory and threads, and files.

Everything else fails with EPERM: sockets, other processes, programs, mounts, namespaces, tracing, keys, memory that
the limits do not count; and what one child could leave for the next to find: locks, leases and notices on files that
all of them see, and what of these files is in memory. The filter is made by libseccomp.
"""

from typing import Any

ALLOWED = """
read write readv writev pread64 pwrite64 close fstat newfstatat stat lstat statx lseek access faccessat faccessat2
open openat openat2 readlink readlinkat getdents64 getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename
renameat renameat2 ftruncate truncate fsync fdatasync fallocate copy_file_range sendfile umask utimensat
symlink symlinkat chmod fchmod fchmodat statfs fstatfs dup dup2 dup3 pipe pipe2 poll ppoll select pselect6
epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2
mprotect munmap mremap brk madvise membarrier
exit exit_group futex set_robust_list get_robust_list set_tid_address rseq gettid getpid getppid getuid geteuid
getgid getegid getresuid getresgid getgroups getpgrp getsid
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending sigaltstack tgkill tkill kill alarm setitimer
getitimer pause
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getrusage getrlimit
sched_yield sched_getaffinity sched_getparam sched_getscheduler getcpu getpriority
uname sysinfo getrandom arch_prctl restart_syscall wait4 waitid
"""

_UNCOUNTED = 0x1 | 0x100 | 0x2000 | 0x40000  # MAP_SHARED, MAP_GROWSDOWN, MAP_LOCKED, MAP_HUGETLB
_CLONE_THREAD = 0x00010000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWTIME to CLONE_NEWNET
_ON_DESCRIPTORS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
_FIONCLEX, _FIOCLEX = 0x5450, 0x5451  # whether a program that is started inherits a descriptor; `tempfile` says no
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA = 15, 16, 0x53564D41
_ENOSYS, _EPERM = 38, 1


def make_filter() -> Any:
    """The filter; its ``load()`` puts it in force. Raises ImportError or OSError where libseccomp is missing."""
    import pyseccomp as seccomp

    f = seccomp.SyscallFilter(seccomp.ERRNO(_EPERM))
    for name in ALLOWED.split():
        _allow(seccomp, f, name)
    # Memory is private: RLIMIT_DATA counts neither what is shared nor what grows downwards, as a stack does.
    _allow(seccomp, f, "mmap", seccomp.Arg(3, seccomp.MASKED_EQ, _UNCOUNTED, 0))
    # Threads, and no processes. clone3 hides its flags from a filter; told that there is none, libc uses clone.
    _allow(seccomp, f, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD | _NEW_NAMESPACES, _CLONE_THREAD))
    f.add_rule(seccomp.ERRNO(_ENOSYS), "clone3")
    for command in _ON_DESCRIPTORS:
        _allow(seccomp, f, "fcntl", seccomp.Arg(1, seccomp.EQ, command))
    for request in (_FIONCLEX, _FIOCLEX):
        _allow(seccomp, f, "ioctl", seccomp.Arg(1, seccomp.EQ, request))
    for option in (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA):
        _allow(seccomp, f, "prctl", seccomp.Arg(0, seccomp.EQ, option))
    # Limits may be asked for, not set.
    _allow(seccomp, f, "prlimit64", seccomp.Arg(2, seccomp.EQ, 0))
    return f


def _allow(seccomp: Any, f: Any, name: str, *conditions: Any) -> None:
    try:
        f.add_rule(seccomp.ALLOW, name, *conditions)
    except (OSError, ValueError):  # a call that this architecture does not have
        if conditions:
            raise
