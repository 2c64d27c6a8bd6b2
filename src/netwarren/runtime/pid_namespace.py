"""The PID namespace of one machine: its programs see and signal each other, and nobody else.

A thread that has its children born there cannot go back, so it is a ferry of the machine's own. The first process
there, PID 1, is a sleeping Python of ours: the kernel buries orphans for it, and when it ends, kills all others.
Rules: PID 1 is in the machine's view, where it mounts /proc, and in its network namespace, where the warden looks;
it ends with this process, by the kernel's word (PR_SET_PDEATHSIG) and by the end of its input.
Does not belong here: starting programs (see `launch`), what else they see (see `view`).
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

from netwarren.errors import KernelError
from netwarren.kernel import mount, pidns, process
from netwarren.kernel.netns import Namespace
from netwarren.runtime import ferry, warden
from netwarren.runtime.ferry import Ferry
from netwarren.runtime.view import View
from netwarren.sandbox import names

_FIRST = "import os; os.read(0, 1)"

_SETTLE_SECONDS = 5.0


class _Here(threading.local):
    """Whether the calling thread's children are born in its PID namespace already."""

    joined = False


_here = _Here()


class PidNamespace:
    """The PID namespace of ``namespace``'s machine, whose programs see files as ``view`` says."""

    def __init__(self, namespace: Namespace, view: View) -> None:
        self.ferry = Ferry(f"netwarren-ferry of {namespace.label}")
        """The thread that starts programs there."""
        self._namespace = namespace
        self._view = view
        self._fd = -1
        self._first: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def begin(self) -> None:
        """Make it, with its first process; raises `KernelError`, and is to be ended then."""
        ferry.call(lambda: warden.watch(self._namespace))  # it must not be started, and so born, in there
        self.ferry.call(self._begin)
        names.publish_view(self._namespace.inode, {"pid": self._fd})

    def join(self) -> None:
        """On `ferry`: from now on, what is started here is born there."""
        if not _here.joined:
            pidns.enter(self._fd, self._namespace.label)
            _here.joined = True

    def kill(self) -> None:
        """Have the kernel kill everybody there, at once."""
        if self._first is not None:
            self._first.kill()

    def end(self, children: Iterable["subprocess.Popen[Any]"]) -> None:
        """After `kill`: wait until nobody is there, let go of it, and end its ferry; again is fine.

        ``children`` are those of this process that were there.
        """
        if self._first is not None:
            for child in (*children, self._first):  # PID 1 does not end before its others are waited for
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_SETTLE_SECONDS)
        self.ferry.end()
        if self._line is not None:
            self._line.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # --- inside ---

    def _begin(self) -> None:
        label = self._namespace.label
        with self._view.entered():
            pidns.create(label)
            _here.joined = True
            self._first = self._start_first()
        self._fd = pidns.hold_for_children(label)

    def _start_first(self) -> "subprocess.Popen[bytes]":
        self._line, theirs = socket.socketpair()

        def before_exec() -> None:
            process.die_with_parent()
            # Stays so over execve: the children of who ignores SIGCHLD leave no zombies (wait(2)), and Python leaves
            # SIGINT alone.
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            try:
                mount.proc()
            except KernelError as error:
                theirs.send(bytes([error.errno]))
                raise

        doing = f"start the first process in the PID namespace of {self._namespace.label}"
        with theirs:
            try:
                return subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _FIRST],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=before_exec,
                    cwd="/",
                )
            except OSError as error:
                raise KernelError(doing, error.errno or 0) from None
            except subprocess.SubprocessError:
                theirs.close()
                told = self._line.recv(1)
                if not told:
                    raise
                doing = f"mount the /proc of the PID namespace of {self._namespace.label}"
                raise KernelError(doing, told[0], hint=pidns.COVERED) from None
