"""User namespaces and their id maps; user_namespaces(7), newuidmap(1).

Rules: maps are data (`IdMap`), decided before the namespace is made, because afterwards the caller has
lost the privileges that some maps need.
Does not belong here: whether to enter (see `netwarren.sandbox`), capabilities (see `capability`).
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from netwarren.errors import KernelError
from netwarren.kernel import capability
from netwarren.kernel.syscall import CLONE_NEWUSER, unshare


@dataclass(frozen=True, slots=True)
class Extent:
    """``count`` ids from ``inside`` on, which the parent namespace knows from ``outside`` on."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        return f"{self.inside} {self.outside} {self.count}"


@dataclass(frozen=True, slots=True)
class IdMap:
    """The two maps of a user namespace, and who has to write them.

    ``by`` is ``self`` (one id, setgroups denied), ``parent`` (a process with CAP_SETUID outside) or
    ``newuidmap`` (the set-uid helper programs, for ranges of /etc/subuid).
    """

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]
    by: str


def own_map(*, map_root: bool = False) -> IdMap:
    """The map the caller may make by itself.

    A caller with CAP_SETUID and CAP_SETGID keeps every id it knows (so programs may still change
    theirs); anybody else keeps its own, as itself or, with ``map_root``, as 0.
    """
    if capability.has(capability.CAP_SETUID, capability.CAP_SETGID) and (not map_root or os.geteuid() == 0):
        return IdMap(_known("uid"), _known("gid"), "parent")
    uid, gid = os.geteuid(), os.getegid()
    return IdMap((Extent(0 if map_root else uid, uid, 1),), (Extent(0 if map_root else gid, gid, 1),), "self")


def subordinate_map(*, map_root: bool = False) -> IdMap | None:
    """The map through newuidmap(1) and newgidmap(1), or None where they or the ranges are missing."""
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    uids = _subordinate("/etc/subuid", os.geteuid(), map_root)
    gids = _subordinate("/etc/subgid", os.getegid(), map_root)
    return IdMap(uids, gids, "newuidmap") if uids and gids else None


def around(own: int, start: int, count: int, *, map_root: bool) -> tuple[Extent, ...]:
    """The extents that keep ``own`` (as itself or as 0) and spend a subordinate range on the others.

    >>> [str(extent) for extent in around(1000, 100000, 65536, map_root=False)]
    ['1000 1000 1', '0 100000 1000', '1001 101000 64536']
    """
    if map_root:
        return (Extent(0, own, 1), Extent(1, start, count))
    below = min(own, count)
    extents = [Extent(own, own, 1)]
    if below:
        extents.append(Extent(0, start, below))
    if count > below:
        extents.append(Extent(own + 1, start + below, count - below))
    return tuple(extents)


def enter(flags: int, id_map: IdMap) -> None:
    """Leave for a new user namespace (and those named by ``flags``) and write its maps.

    Needs a process of one thread (EINVAL otherwise). The helper process of the ``parent`` and
    ``newuidmap`` ways is forked before, because only the outside may write such maps.
    """
    with _writer(id_map) as write:
        unshare(CLONE_NEWUSER | flags, "create a user namespace")
        write()


def _known(kind: str) -> tuple[Extent, ...]:
    with open(f"/proc/self/{kind}_map") as lines:
        extents = [tuple(map(int, line.split())) for line in lines]
    return tuple(Extent(inside, inside, count) for inside, _outside, count in extents)


def _subordinate(path: str, own: int, map_root: bool) -> tuple[Extent, ...]:
    import pwd

    with contextlib.suppress(KeyError):
        names = {pwd.getpwuid(os.geteuid()).pw_name, str(os.geteuid())}
        with contextlib.suppress(OSError), open(path) as lines:
            for line in lines:
                owner, _, rest = line.strip().partition(":")
                start, _, count = rest.partition(":")
                if owner in names and start.isdigit() and count.isdigit():
                    return around(own, int(start), int(count), map_root=map_root)
    return ()


def _write_file(path: str, text: str, operation: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())  # in one write(2): the kernel takes a map only whole
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(operation, error.errno or 0) from None


def _text(extents: tuple[Extent, ...]) -> str:
    return "".join(f"{extent}\n" for extent in extents)


@contextlib.contextmanager
def _writer(id_map: IdMap) -> Iterator[Callable[[], None]]:
    if id_map.by == "self":
        yield lambda: _write_own(id_map)
        return
    ask_r, ask_w = os.pipe()
    answer_r, answer_w = os.pipe()
    pid = os.getpid()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(ask_w)
            os.close(answer_r)
            if os.read(ask_r, 1):
                os.write(answer_w, _write_for(pid, id_map).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(ask_r)
    os.close(answer_w)

    def write() -> None:
        os.write(ask_w, b".")
        answer = b""
        while chunk := os.read(answer_r, 4096):
            answer += chunk
        number, _, text = answer.decode(errors="replace").partition(" ")
        if number != "0":
            raise KernelError("write the id maps", int(number or 5), detail=text)

    try:
        yield write
    finally:
        os.close(ask_w)
        os.close(answer_r)
        os.waitpid(child, 0)


def _write_own(id_map: IdMap) -> None:
    # Without CAP_SETGID outside, the kernel takes a gid map only after setgroups(2) is given up.
    _write_file("/proc/self/setgroups", "deny", "give up setgroups")
    _write_file("/proc/self/uid_map", _text(id_map.uids), "write the uid map")
    _write_file("/proc/self/gid_map", _text(id_map.gids), "write the gid map")


def _write_for(pid: int, id_map: IdMap) -> str:
    """Runs in the helper outside; the answer is "0" or "errno text"."""
    try:
        if id_map.by == "parent":
            _write_file(f"/proc/{pid}/uid_map", _text(id_map.uids), "write the uid map")
            _write_file(f"/proc/{pid}/gid_map", _text(id_map.gids), "write the gid map")
            return "0"
        for program, extents in (("newuidmap", id_map.uids), ("newgidmap", id_map.gids)):
            numbers = [str(n) for e in extents for n in (e.inside, e.outside, e.count)]
            result = subprocess.run([program, str(pid), *numbers], capture_output=True, text=True)
            if result.returncode:
                return f"1 {program}: {result.stderr.strip()}"
        return "0"
    except KernelError as error:
        return f"{error.errno} {error.operation}"
    except OSError as error:
        return f"{error.errno} {error}"
