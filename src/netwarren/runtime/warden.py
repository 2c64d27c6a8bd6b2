"""The warden: a small process that outlives ours by a moment, to end what our programs left in pods.

The kernel kills our direct children when we die (PR_SET_PDEATHSIG), but not the workers that a program
like nginx forked. The warden holds the other end of a pipe; when that closes, whoever stands in one of
the namespaces it was given is killed, and it ends.
Rules: started with the first program; given a namespace before the first program starts there; one that has ended
is followed by another with the next program.
Does not belong here: the orderly end of a pod (see `machine`).
"""

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
import weakref

from netwarren.errors import KernelError
from netwarren.kernel import descriptors, process
from netwarren.kernel.netns import Namespace

_INODE = struct.Struct("=Q")
_MAIN = "import sys; sys.path.insert(0, sys.argv[1]); from netwarren.runtime import warden; warden.main(int(sys.argv[2]))"

_GONE = (BrokenPipeError, ConnectionResetError)
"""What a message to a warden that has ended fails with."""

_watched: dict[int, "weakref.ref[Namespace]"] = {}
_line: socket.socket | None = None
_process: "subprocess.Popen[bytes] | None" = None
_lock = threading.Lock()


def watch(namespace: Namespace) -> None:
    """From now on, the end of this process is the end of every process in ``namespace``.

    Not that of a child forked from the namespace's owner, whose programs may stand there, too. Where the warden has
    ended (it was killed, perhaps), a new one is told of all that is watched. Raises `KernelError` where there can be
    none.
    """
    if namespace.owner != os.getpid():
        return
    with _lock:
        if _process is not None and _process.poll() is not None:
            _bury()
        if _line is not None and namespace.inode in _watched:
            return
        try:
            _tell(namespace)
        except _GONE:  # between these two lines
            _bury()
            _tell(namespace)


def unwatch(namespace: Namespace) -> None:
    """Take `watch` back, so that the namespace can end; nothing happens where it was not watched."""
    with _lock:
        if _watched.pop(namespace.inode, None) is not None and _line is not None:
            with contextlib.suppress(*_GONE):  # it holds nothing any more
                _line.send(_INODE.pack(namespace.inode))


def pid() -> int:
    """The warden's process id, 0 where there is none yet."""
    return _process.pid if _process is not None else 0


def _tell(namespace: Namespace) -> None:
    """Have the warden hold ``namespace``, and one that knows nothing yet, all that are watched."""
    global _line, _process
    new = [namespace]
    if _line is None:
        try:
            _line, _process = descriptors.opened(_begin)
        except OSError as error:
            raise _not_started(error) from None
        watched = [each for known in _watched.values() if (each := known()) is not None and each.fd >= 0]
        new = [*(each for each in watched if each.inode != namespace.inode), namespace]
    for each in new:
        # With the descriptor, so that the kernel gives the inode to nobody else meanwhile.
        socket.send_fds(_line, [_INODE.pack(each.inode)], [each.fd])
    _watched[namespace.inode] = weakref.ref(namespace)


def _begin() -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    """Start a warden; returns our end of its line, and itself."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            # A session of its own, so that a signal to our process group does not reach it.
            started = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _MAIN, root, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except BaseException:
            ours.close()
            raise
    for kept in (ours, started):
        # They end with the process and no sooner; finalizing them at exit would only warn of that.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    return ours, started


def _not_started(error: OSError) -> KernelError:
    number = error.errno or 0
    hint = descriptors.hint(number) or (
        f"It runs {sys.executable}: see that this can be started, and one more process be had (`ulimit -u`)"
    )
    return KernelError(
        "start the warden, a process that ends programs in pods if this one is killed", number, hint=hint
    )


def _bury() -> None:
    """Forget a warden that has ended."""
    global _line, _process
    if _line is not None:
        _line.close()
    if _process is not None:
        _process.wait()
    _line = _process = None


def main(fd: int) -> None:
    """The warden's own life: from its first message to the moment nobody holds the other end."""
    held: dict[int, int] = {}
    with socket.socket(fileno=fd) as line:
        while True:
            message, fds, _flags, _address = socket.recv_fds(line, _INODE.size, 1)
            if not message:
                break
            (inode,) = _INODE.unpack(message)
            if (before := held.pop(inode, None)) is not None:
                os.close(before)
            if fds:
                held[inode] = fds[0]
    process.kill_standing_in(held)


def _forget() -> None:
    global _line, _process, _lock
    if _line is not None:
        _line.close()
    if _process is not None:
        _process.returncode = 0  # the parent's child, not ours to wait for
    _line, _process, _lock = None, None, threading.Lock()
    _watched.clear()


os.register_at_fork(after_in_child=_forget)
