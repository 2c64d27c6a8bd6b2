"""The warden: a small process that outlives ours by a moment, to end what our programs left in pods.

The kernel kills our direct children when we die (PR_SET_PDEATHSIG), but not the workers that a program
like nginx forked. The warden holds the other end of a pipe; when that closes, whoever stands in one of
the namespaces it was given is killed, and it ends.
Rules: started with the first program; given a namespace before the first program starts there.
Does not belong here: the orderly end of a pod (see `machine`).
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading

from netwarren.kernel import process
from netwarren.kernel.netns import Namespace

_INODE = struct.Struct("=Q")
_MAIN = "import sys; sys.path.insert(0, sys.argv[1]); from netwarren.runtime import warden; warden.main(int(sys.argv[2]))"

_told: set[int] = set()
_line: socket.socket | None = None
_process: "subprocess.Popen[bytes] | None" = None
_lock = threading.Lock()


def watch(namespace: Namespace) -> None:
    """From now on, the end of this process is the end of every process in ``namespace``.

    Not that of a child forked from the namespace's owner, whose programs may stand there, too.
    """
    if namespace.owner != os.getpid():
        return
    with _lock:
        if namespace.inode not in _told:
            # With the descriptor, so that the kernel gives the inode to nobody else meanwhile.
            socket.send_fds(_connect(), [_INODE.pack(namespace.inode)], [namespace.fd])
            _told.add(namespace.inode)


def unwatch(namespace: Namespace) -> None:
    """Take `watch` back, so that the namespace can end; nothing happens where it was not watched."""
    with _lock:
        if namespace.inode in _told and _line is not None:
            _line.send(_INODE.pack(namespace.inode))
            _told.discard(namespace.inode)


def pid() -> int:
    """The warden's process id, 0 where there is none yet."""
    return _process.pid if _process is not None else 0


def _connect() -> socket.socket:
    global _line, _process
    if _line is None:
        _line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        with theirs:
            # A session of its own, so that a signal to our process group does not reach it.
            _process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _MAIN, root, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        for kept in (_line, _process):
            # They end with the process and no sooner; finalizing them at exit would only warn of that.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    return _line


def main(fd: int) -> None:
    """The warden's own life: from its first message to the moment nobody holds the other end."""
    held: dict[int, int] = {}
    with socket.socket(fileno=fd) as line:
        while True:
            message, fds, _flags, _address = socket.recv_fds(line, _INODE.size, 1)
            if not message:
                break
            (inode,) = _INODE.unpack(message)
            if fds:
                held[inode] = fds[0]
            else:
                os.close(held.pop(inode))
    process.kill_standing_in(held)


def _forget() -> None:
    global _line, _process, _lock
    if _line is not None:
        _line.close()
    if _process is not None:
        _process.returncode = 0  # the parent's child, not ours to wait for
    _line, _process, _lock = None, None, threading.Lock()
    _told.clear()


os.register_at_fork(after_in_child=_forget)
