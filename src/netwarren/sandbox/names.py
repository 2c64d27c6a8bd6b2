"""The sandbox's own /run/netns, where ``ip netns`` finds our namespaces by name; ip-netns(8).

Rules: a name is a symbolic link to the descriptor that holds the namespace (10 us; a bind mount costs
65), so it ends with the process at the latest; the host's /run is seen through, never written.
Does not belong here: which names there are (see `netwarren.cluster`).
"""

import functools
import os

from netwarren.errors import KernelError
from netwarren.kernel import mount

# Ours alone: iproute2 keeps names in the one, iptables-legacy its lock in the other.
PRIVATE = frozenset({"netns", "xtables.lock"})


@functools.cache
def directory() -> str:
    """Where iproute2 looks for names on this machine: /run/netns, by way of /var/run."""
    return os.path.join(os.path.realpath("/var/run"), "netns")


def make_private() -> None:
    """Lay an empty directory over /run and let everything but `PRIVATE` show through it.

    /run/netns may not exist, and only root could make it; in a directory of our own we can.
    """
    run = os.path.realpath("/var/run")
    try:
        below = os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # no /run at all: then nothing looks for names in it either
    try:
        mount.tmpfs(run)
        try:
            entries = os.listdir(f"/proc/self/fd/{below}")
        except PermissionError:
            entries = []
        for entry in entries:
            if entry not in PRIVATE:
                _show(f"/proc/self/fd/{below}/{entry}", os.path.join(run, entry))
        os.mkdir(os.path.join(run, "netns"), 0o755)
    finally:
        os.close(below)


def _show(source: str, target: str) -> None:
    try:
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
            return
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o644))
        mount.bind(source, target)
    except (OSError, KernelError):
        # An entry that vanished meanwhile, or that we may not see: nobody in the sandbox could use it.
        return


def publish(name: str, fd: int) -> bool:
    """Give the namespace behind ``fd`` a name; False where somebody has that name."""
    path = f"{directory()}/{name}"
    target = f"/proc/{os.getpid()}/fd/{fd}"
    try:
        try:
            os.symlink(target, path)
        except FileExistsError:
            if os.path.exists(path):
                return False
            os.unlink(path)  # its process was killed before it could take the name back
            os.symlink(target, path)
    except FileExistsError:
        return False
    except OSError:
        pass  # no directory for names here; `make_private` has said why
    return True


def withdraw(name: str) -> None:
    """Take a name back; nothing happens where it is gone."""
    try:
        os.unlink(f"{directory()}/{name}")
    except OSError:
        return


def published(pid: int) -> dict[str, str]:
    """The names in the sandbox of process ``pid`` and what they point at, seen from outside.

    Raises OSError where that process is gone or not ours.
    """
    root = f"/proc/{pid}/root"
    place = root + directory()
    return {entry: root + os.readlink(f"{place}/{entry}") for entry in sorted(os.listdir(place))}
