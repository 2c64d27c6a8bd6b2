"""The system calls Python has no function for, or has only from 3.12 on; each raises `KernelError`.

Rules: one thin function per call, constants from the kernel's uapi headers, no policy.
Does not belong here: sequences of calls (see `userns`, `netns`, `mount`).
"""

import ctypes
import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from netwarren.errors import KernelError

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_FS = 0x00000200
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2

# linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library of this process, with errno kept per call."""
    return ctypes.CDLL(None, use_errno=True)


def _call(operation: str, function: str, *arguments: Any) -> int:
    result: int = getattr(libc(), function)(*arguments)
    if result < 0:
        raise KernelError(operation, ctypes.get_errno())
    return result


if sys.version_info >= (3, 12):

    def unshare(flags: int, operation: str = "unshare") -> None:
        """Leave the namespaces named by ``flags`` for new ones; unshare(2)."""
        try:
            os.unshare(flags)
        except OSError as error:
            raise KernelError(operation, error.errno or 0) from None

    def setns(fd: int, flags: int, /) -> None:
        """Move the calling thread into the namespace behind ``fd``; setns(2). Raises OSError."""
        try:
            os.setns(fd, flags)
        except ValueError:  # Python's own answer to a descriptor that was closed and set to -1
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
else:

    def unshare(flags: int, operation: str = "unshare") -> None:
        """Leave the namespaces named by ``flags`` for new ones; unshare(2)."""
        _call(operation, "unshare", flags)

    @functools.cache
    def _setns() -> Callable[[int, int], int]:
        function: Callable[[int, int], int] = libc().setns
        return function

    def setns(fd: int, flags: int, /) -> None:
        """Move the calling thread into the namespace behind ``fd``; setns(2). Raises OSError."""
        if _setns()(fd, flags) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def mount(
    source: str | None, target: str, filesystem: str | None, flags: int, data: str | None = None
) -> None:
    """mount(2); ``flags`` are the MS_* of `netwarren.kernel.mount`."""
    _call(
        f"mount {source or filesystem or 'flags'} on {target}",
        "mount",
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None if filesystem is None else os.fsencode(filesystem),
        ctypes.c_ulong(flags),
        None if data is None else os.fsencode(data),
    )


def umount(target: str, flags: int) -> None:
    """umount2(2); ``flags`` are the MNT_* of `netwarren.kernel.mount`."""
    _call(f"unmount {target}", "umount2", os.fsencode(target), ctypes.c_int(flags))


def prctl(operation: str, option: int, *arguments: int) -> int:
    """prctl(2); missing arguments are 0, as some options insist."""
    values = (*arguments, 0, 0, 0, 0)[:4]
    return _call(operation, "prctl", option, *(ctypes.c_ulong(value) for value in values))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilityData(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def capget() -> tuple[int, int, int]:
    """The calling thread's capability sets as bit masks: effective, permitted, inheritable; capget(2)."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)()
    _call("read the capabilities", "capget", ctypes.byref(header), data)
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capability sets from bit masks; capset(2)."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)(
        _CapabilityData(effective & 0xFFFFFFFF, permitted & 0xFFFFFFFF, inheritable & 0xFFFFFFFF),
        _CapabilityData(effective >> 32, permitted >> 32, inheritable >> 32),
    )
    _call("set the capabilities", "capset", ctypes.byref(header), data)
