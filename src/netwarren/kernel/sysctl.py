"""Kernel settings of the calling thread's network namespace, through /proc/sys.

Rules: names as sysctl(8) writes them, with dots or with slashes; an error says what to do about it.
Does not belong here: which settings a node or a pod gets.
"""

import errno
import os

from netwarren.errors import KernelError
from netwarren.kernel import descriptors

_ROOT = "/proc/sys/"
_SWAP = str.maketrans("./", "/.")

_HINTS = {
    errno.EROFS: (
        "/proc/sys is mounted read-only, as in a container: give it --privileged or "
        "--security-opt systempaths=unconfined, or mount proc anew inside the sandbox"
    ),
    errno.EACCES: "Only settings of a network namespace (net.*) can be changed without root",
    errno.EPERM: "Only settings of a network namespace (net.*) can be changed without root",
    errno.EINVAL: "The kernel does not take this value here",
    errno.ENOENT: (
        "There is no such sysctl in this kernel and network namespace; "
        "a link's settings exist once the link does"
    ),
}


def path(name: str) -> str:
    """The file behind a name; sysctl(8).

    The first separator is the one that counts: in ``net.ipv4.conf.eth0/5.forwarding`` and in
    ``net/ipv4/conf/eth0.5/forwarding`` the link is called ``eth0.5``.
    """
    dot, slash = name.find("."), name.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):
        name = name.translate(_SWAP)
    return _ROOT + name


def _refusal(operation: str, error: OSError, where: str) -> KernelError:
    number = error.errno or 0
    return KernelError(operation, number, where=where, hint=_HINTS.get(number) or descriptors.hint(number))


def read(name: str, *, where: str = "") -> str:
    """The value of a setting; ``sysctl -n NAME``."""
    try:
        fd = descriptors.opened(lambda: os.open(path(name), os.O_RDONLY | os.O_CLOEXEC))
        try:
            parts = []
            while part := os.read(fd, 4096):
                parts.append(part)
        finally:
            os.close(fd)
    except OSError as error:
        raise _refusal(f"read sysctl {name}", error, where) from None
    return b"".join(parts).decode(errors="replace").rstrip()


def write(name: str, value: str | int, *, where: str = "") -> None:
    """Change a setting; ``sysctl -w NAME=VALUE``."""
    try:
        fd = descriptors.opened(lambda: os.open(path(name), os.O_WRONLY | os.O_CLOEXEC))
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise _refusal(f"set sysctl {name} to {value}", error, where) from None
