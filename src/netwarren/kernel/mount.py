"""Mounts in a mount namespace of our own; mount(2), mount_namespaces(7).

Rules: only ever called after CLONE_NEWNS; nothing propagates back to the host.
Does not belong here: which directories a sandbox hides (see `netwarren.sandbox`).
"""

from netwarren.kernel.syscall import mount

# linux/mount.h
MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_SLAVE = 1 << 19


def keep_to_ourselves() -> None:
    """``mount --make-rslave /``: the host's changes still arrive, ours do not leave."""
    mount(None, "/", None, MS_REC | MS_SLAVE)


def tmpfs(target: str, mode: str = "755") -> None:
    """``mount -t tmpfs``: an empty directory in memory over ``target``."""
    mount("netwarren", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")


def bind(source: str, target: str) -> None:
    """``mount --rbind``: ``source`` is seen at ``target``, with what is mounted below it.

    Recursive, because a plain bind of a directory with locked mounts below it is refused.
    """
    mount(source, target, None, MS_BIND | MS_REC)
