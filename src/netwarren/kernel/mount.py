"""Mounts in a mount namespace of our own; mount(2), mount_namespaces(7).

Rules: only ever called after CLONE_NEWNS; nothing propagates back to the host.
Does not belong here: which directories a sandbox hides (see `netwarren.sandbox`).
"""

import os
import stat
from collections.abc import Collection

from netwarren.errors import KernelError
from netwarren.kernel.syscall import CLONE_NEWNS, mount, setns, umount

# linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_SLAVE = 1 << 19
MNT_DETACH = 2


def keep_to_ourselves() -> None:
    """``mount --make-rslave /``: the host's changes still arrive, ours do not leave."""
    mount(None, "/", None, MS_REC | MS_SLAVE)


def tmpfs(target: str, mode: str = "755") -> None:
    """``mount -t tmpfs``: an empty directory in memory over ``target``."""
    mount("netwarren", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")


def mqueue(target: str) -> None:
    """``mount -t mqueue``: the message queues of the IPC namespace we stand in; mq_overview(7)."""
    mount("netwarren", target, "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def bind(source: str, target: str) -> None:
    """``mount --rbind``: ``source`` is seen at ``target``, with what is mounted below it.

    Recursive, because a plain bind of a directory with locked mounts below it is refused.
    """
    mount(source, target, None, MS_BIND | MS_REC)


def detach(target: str) -> None:
    """``umount --lazy``: what lies below is seen again at once, and those who are in there stay."""
    umount(target, MNT_DETACH)


def layer(directory: str, without: Collection[str] = (), *, moving: bool = False) -> None:
    """Lay an empty directory over ``directory`` and let its entries show through, but for ``without``.

    In it names can be made, while what lies below is not written to. Raises OSError where there is no such
    directory. Entries that vanish meanwhile, or that we may not see, are left out. With ``moving``, it is done
    without /proc, which may be that of another PID namespace; the thread's working directory becomes ``/``.
    """
    below = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tmpfs(directory, f"{stat.S_IMODE(os.fstat(below).st_mode):o}")
        source = "." if moving else f"/proc/self/fd/{below}"
        try:
            if moving:
                os.fchdir(below)
            entries = os.listdir(source)
        except PermissionError:
            entries = []
        for entry in entries:
            if entry not in without:
                _show(f"{source}/{entry}", os.path.join(directory, entry))
    finally:
        if moving:
            os.chdir("/")
        os.close(below)


def layer_root(namespace: int) -> None:
    """`layer` for ``/``, which the calling thread then has as its root, and all who join the namespace later.

    ``namespace`` is a descriptor of the mount namespace the thread stands in. The thread must share its root with
    no other (CLONE_FS). Its working directory becomes ``/``.
    """
    below = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tmpfs("/", f"{stat.S_IMODE(os.fstat(below).st_mode):o}")
        # What is mounted over / is above everybody's root; joining a namespace takes one to the top of it.
        setns(namespace, CLONE_NEWNS)
        os.fchdir(below)
        for entry in os.listdir(below):
            _show(entry, f"/{entry}")
    finally:
        os.chdir("/")
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
        bind(source, target)
    except (OSError, KernelError):
        return  # nobody in the sandbox could use it


def proc(target: str = "/proc") -> None:
    """``mount -t proc``: the processes of the PID namespace that the calling process is in.

    Refused with EPERM where parts of the /proc that is there are covered (mount_too_revealing(),
    fs/namespace.c).
    """
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    try:
        mount("netwarren", target, "proc", flags)
    except KernelError:
        mount("netwarren", target, "proc", flags | MS_RDONLY)  # as the one that is there


def sysfs(target: str = "/sys") -> bool:
    """``mount -t sysfs``: the links of the network namespace we stand in, with what was mounted below before.

    False, and nothing has changed, where the kernel refuses: it shows nobody more of a file system than he
    sees of it already, and in containers parts of it are covered (mount_too_revealing(), fs/namespace.c).
    """
    below = points_below(target)
    highest = [point for point in below if not any(point.startswith(f"{other}/") for other in below)]
    kept: dict[str, int] = {}
    try:
        for point in highest:
            try:
                kept[point] = os.open(point, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
        if not any(_try_sysfs(target, flags) for flags in (0, MS_RDONLY)):
            return False
        for point, fd in kept.items():
            try:
                bind(f"/proc/self/fd/{fd}", point)
            except KernelError:
                continue  # only a machine's own sysfs has a directory there
    finally:
        for fd in kept.values():
            os.close(fd)
    return True


def _try_sysfs(target: str, flags: int) -> bool:
    try:
        mount("netwarren", target, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | flags)
    except KernelError:
        return False
    return True


def points_below(directory: str) -> list[str]:
    """Where below ``directory`` something is mounted, as this thread sees it; proc_pid_mountinfo(5)."""
    prefix = os.fsencode(directory) + b"/"
    with open("/proc/thread-self/mountinfo", "rb") as lines:
        fields = [line.split(b" ", 5)[4] for line in lines]
    # Space, tab, newline and backslash are told as three octal digits.
    names = [field.decode("unicode_escape").encode("latin-1") for field in fields if field.startswith(prefix)]
    return list(dict.fromkeys(map(os.fsdecode, names)))
