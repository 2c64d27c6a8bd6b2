"""Entering: in this process where it has one thread, else in a fork of it that goes on in its place.

Rules: idempotent; children (pytest-xdist's workers, programs) know by an environment variable that they
are inside already; a refusal is diagnosed before it is raised.
Does not belong here: what the refusals mean (see `diagnosis`), how the fork is minded (see `fork`).
"""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from netwarren.errors import KernelError, SandboxError
from netwarren.kernel import capability, mount, process, userns
from netwarren.kernel.syscall import CLONE_NEWNS
from netwarren.sandbox import fork, names

# Holds the inode of the user namespace that was entered, so that a copy of the environment carried out
# of the sandbox (ssh, sudo, a terminal started elsewhere) does not lie.
MARKER = "NETWARREN_SANDBOX"


def inside() -> bool:
    """Whether this process is in a sandbox already, entered by itself or by a process before it."""
    return os.environ.get(MARKER, "") == _identity()


def _identity() -> str:
    return str(os.stat("/proc/self/ns/user").st_ino)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How to enter: by default every file and process keeps its owner (identity map).

    ``map_root`` makes an ordinary caller appear as uid 0 inside, which some tools insist on.
    ``subids`` also maps the caller's ranges of /etc/subuid and /etc/subgid by newuidmap(1), so that
    programs inside can change to other users.
    """

    map_root: bool = False
    subids: bool = False

    def enter(self, meanwhile: Callable[[], object] | None = None) -> None:
        """Enter, once; further calls do nothing.

        A child tries first, which takes some 10 ms. Beside it, ``meanwhile`` is called: something that has to be
        done anyway, starts no thread and does not need the sandbox, such as importing.

        Where this process has other threads already, the rest of it goes on in a forked child, and this
        one waits for the child and ends as it ends; threads other than the caller's do not go along.
        Raises `SandboxError`, with cause and remedy, where the machine does not let us in.
        """
        if inside():
            return
        if process.threads() == 1:
            fork.rehearse(self.enter_here, meanwhile)
            self.enter_here()
        elif threading.current_thread() is threading.main_thread():
            fork.go_on_inside(self.enter_here)
        else:
            raise SandboxError(
                "enter the sandbox",
                "this process has several threads and this is not the main one",
                "enter before threads start, on the main thread: `import netwarren.sandbox.auto` first of all",
                errno.EINVAL,
            )

    def enter_here(self) -> None:
        """Enter in this process, which must have one thread."""
        step = "create a user namespace"
        try:
            userns.enter(CLONE_NEWNS, self.id_map())
            step = "make capabilities ambient"
            capability.make_ambient()
            step = "mount in the new mount namespace"
            mount.keep_to_ourselves()
            names.make_private()
        except KernelError as error:
            from netwarren.sandbox import diagnosis

            raise diagnosis.explain(step, error, diagnosis.facts()) from error
        os.environ[MARKER] = _identity()

    def id_map(self) -> userns.IdMap:
        """The uid and gid maps this sandbox would get on this machine."""
        if not self.subids:
            return userns.own_map(map_root=self.map_root)
        own = userns.own_map(map_root=self.map_root)
        if own.by == "parent":
            return own
        mapped = userns.subordinate_map(map_root=self.map_root)
        if mapped is None:
            raise SandboxError(
                "map a range of subordinate ids",
                "newuidmap, newgidmap or a range for this user in /etc/subuid and /etc/subgid is missing",
                "install the package uidmap (shadow-utils on Fedora) and let root run "
                "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`, or do without subids",
            )
        return mapped
