"""PID namespaces: make one for one's children, go back to one; pid_namespaces(7).

Rules: a thread's own PID never changes, only where its children are born does; a thread that has left the host's
PID namespace cannot return, and starts no thread any more (clone(2), EINVAL with CLONE_THREAD).
Does not belong here: the first process in one, its /proc (see `mount`), threads to use.
"""

import errno
import os

from netwarren.errors import KernelError
from netwarren.kernel import descriptors
from netwarren.kernel.syscall import CLONE_NEWPID, setns, unshare

_HINTS = {
    errno.EPERM: "In a container, use a seccomp profile that allows unshare",
    errno.ENOSPC: "Let root run `sysctl -w user.max_pid_namespaces=15000`; more than 32 are never nested",
    errno.EINVAL: "Use a kernel with CONFIG_PID_NS=y",
}

COVERED = (
    "In a container, whose /proc is covered in part, start it with systempaths=unconfined (Docker), unmask=ALL "
    "(Podman) or procMount: Unmasked (Kubernetes)"
)
"""What to do where a /proc of its own is refused with EPERM."""


def create(label: str) -> None:
    """From now on, the calling thread's children are born in a new PID namespace, the first as its PID 1."""
    doing = f"make the PID namespace of {label}"
    try:
        unshare(CLONE_NEWPID, doing)
    except KernelError as error:
        raise KernelError(doing, error.errno, hint=_HINTS.get(error.errno, "")) from None


def hold_for_children(label: str) -> int:
    """A descriptor of the PID namespace in which the calling thread's children are born; there is one already."""
    try:
        path = "/proc/thread-self/ns/pid_for_children"
        return descriptors.opened(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        number = error.errno or 0
        raise KernelError(
            f"hold the PID namespace of {label}", number, hint=descriptors.hint(number)
        ) from None


def enter(fd: int, label: str) -> None:
    """From now on, the calling thread's children are born in the PID namespace behind ``fd``; setns(2)."""
    try:
        setns(fd, CLONE_NEWPID)
    except OSError as error:
        raise KernelError(f"step into the PID namespace of {label}", error.errno or 0) from None
