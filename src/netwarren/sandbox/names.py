"""The sandbox's own /run/netns, where ``ip netns`` finds our namespaces by name; ip-netns(8).

Rules: a name is a symbolic link to the descriptor that holds the namespace (10 us; a bind mount costs
65), so it ends with the process at the latest; the host's /run is seen through, never written.
Does not belong here: which names there are (see `netwarren.cluster`).
"""

import functools
import os
from collections.abc import Collection, Mapping

from netwarren.kernel import mount

# Ours alone: iproute2 keeps names in the first, iptables-legacy its lock in the second, the third is `views`.
PRIVATE = frozenset({"netns", "xtables.lock", "netwarren"})

VIEW = ("mnt", "uts", "ipc", "pid")
"""The kinds of namespaces that may go with a network namespace, as in /proc/PID/ns."""


@functools.cache
def directory() -> str:
    """Where iproute2 looks for names on this machine: /run/netns, by way of /var/run."""
    return os.path.join(os.path.realpath("/var/run"), "netns")


def views() -> str:
    """Where `publish_view` puts the names of namespaces that go with one: /run/netwarren, by way of /var/run."""
    return os.path.join(os.path.dirname(directory()), "netwarren")


def make_private() -> None:
    """Lay an empty directory over /run and let everything but `PRIVATE` show through it.

    /run/netns may not exist, and only root could make it; in a directory of our own we can.
    """
    run = os.path.dirname(directory())
    try:
        mount.layer(run, PRIVATE)
    except OSError:
        return  # no /run at all: then nothing looks for names in it either
    for made in (directory(), views()):
        os.mkdir(made, 0o755)


def publish(name: str, fd: int) -> bool:
    """Give the namespace behind ``fd`` a name; False where somebody has that name."""
    path = f"{directory()}/{name}"
    for _ in range(2):
        try:
            os.symlink(f"/proc/{os.getpid()}/fd/{fd}", path)
            return True
        except FileExistsError:
            if os.path.exists(path):
                return False
            _sweep()
        except OSError:
            return True  # no directory for names here; `make_private` has said why
    return False


def _sweep() -> None:
    """Take away the names whose processes were killed before they could: one has others, as a cluster its pods'."""
    with os.scandir(directory()) as entries:
        stale = [entry.name for entry in entries if entry.is_symlink() and not os.path.exists(entry.path)]
    for name in stale:
        withdraw(name)


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


def publish_view(network: int, fds: Mapping[str, int]) -> None:
    """Tell `view_of` of namespaces (``{"mnt": fd, "uts": fd}``) that go with a network namespace.

    ``network`` is the inode of that.
    """
    withdraw_view(network, fds)  # left by a process that was killed
    for kind, fd in fds.items():
        try:
            os.symlink(f"/proc/{os.getpid()}/fd/{fd}", f"{views()}/{network}.{kind}")
        except OSError:
            return  # no directory for names here; `make_private` has said why


def withdraw_view(network: int, kinds: Collection[str] = VIEW) -> None:
    """Take back what `publish_view` told; nothing happens where it is gone."""
    for kind in kinds:
        try:
            os.unlink(f"{views()}/{network}.{kind}")
        except OSError:
            continue


def view_of(pid: int, network: int) -> dict[str, str]:
    """The paths, from outside, of the namespaces that go with ``network`` in the sandbox of ``pid``, if any."""
    root = f"/proc/{pid}/root"
    links = {kind: f"{root}{views()}/{network}.{kind}" for kind in VIEW}
    found = {kind: root + os.readlink(link) for kind, link in links.items() if os.path.islink(link)}
    return found if all(map(os.path.exists, found.values())) else {}
