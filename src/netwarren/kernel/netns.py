"""Network namespaces: make one, know one, stand in one; network_namespaces(7).

Rules: a namespace is held by a descriptor and nothing else, so that it dies with its last holder, a
killed process included; a namespace is recognised by its inode, never by a name.
Does not belong here: what is in a namespace (see `link`, `address`, `route`), names, threads to use.
"""

import os
from typing import Final

from netwarren.errors import KernelError
from netwarren.kernel import descriptors
from netwarren.kernel.syscall import CLONE_NEWNET, setns, unshare

HERE: Final = "/proc/thread-self/ns/net"


class Namespace:
    """One network namespace, held open by ``fd`` until `close`.

    ``inode`` identifies it for as long as anybody holds it; ``label`` is what messages call it; ``owner``
    is the process that opened it, also in a child forked from there.
    """

    __slots__ = ("__weakref__", "fd", "inode", "label", "owner")

    def __init__(self, fd: int, label: str) -> None:
        self.fd = fd
        self.label = label
        self.inode = os.fstat(fd).st_ino
        self.owner = os.getpid()

    def __repr__(self) -> str:
        return f"<Namespace {self.label} net:[{self.inode}]{'' if self.fd >= 0 else ' closed'}>"

    def close(self) -> None:
        """Let go of the namespace; it ends when sockets and processes in it have let go, too."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            self.close()


def create(label: str) -> Namespace:
    """Make a namespace and leave the calling thread in it (``ip netns add`` without the name).

    The caller sees to it that the thread may stay there or can go back.
    """
    unshare(CLONE_NEWNET, f"make the network namespace of {label}")
    namespace = here(label)
    descriptors.leave_room(namespace.fd)
    return namespace


def here(label: str = "here") -> Namespace:
    """The namespace the calling thread stands in."""
    try:
        return Namespace(descriptors.opened(lambda: os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)), label)
    except OSError as error:
        number = error.errno or 0
        hint = descriptors.hint(number)
        raise KernelError(f"hold the network namespace of {label}", number, hint=hint) from None


def enter(namespace: Namespace) -> None:
    """Move the calling thread into ``namespace`` (``ip netns exec``); setns(2)."""
    try:
        setns(namespace.fd, CLONE_NEWNET)
    except OSError as error:
        raise KernelError(f"step into the network namespace of {namespace.label}", error.errno or 0) from None


def inode_of(path: str = HERE) -> int:
    """The identity of the namespace behind a /proc/PID/ns/* path; OSError where there is none."""
    return os.stat(path).st_ino
