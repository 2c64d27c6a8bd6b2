"""What a machine's programs see besides its network: their host name, files and shared memory of their own, their /sys.

One mount, one UTS and one IPC namespace for each machine, made by its first program, held by descriptors and nothing
else; the ferry steps into them to start a program there, so that nothing happens between fork and exec.
Rules: on the ferry alone, whose working directory is its own afterwards; the host's files are never written,
what has no place in them gets one in a layer above; what we mount ends with the namespace.
Does not belong here: which files and names (see `netwarren.topology.identity`), what is put into a private
directory (see `contents`).
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping

from netwarren.errors import ConfigurationError, KernelError, SteppingError
from netwarren.kernel import descriptors, mount, netns
from netwarren.kernel.netns import Namespace
from netwarren.kernel.syscall import CLONE_FS, CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWUTS, setns, unshare
from netwarren.runtime import standing
from netwarren.sandbox import names

_KINDS = {"mnt": CLONE_NEWNS, "uts": CLONE_NEWUTS, "ipc": CLONE_NEWIPC}

_NEVER_PRIVATE = frozenset({"/", "/proc", "/sys", "/dev"})


class View:
    """How the machine of ``namespace`` looks from inside: ``hostname``, and ``files``, text by path.

    It is made when it is first entered.
    """

    def __init__(self, namespace: Namespace, hostname: str, files: Mapping[str, str]) -> None:
        self.hostname = hostname
        self.files = files
        self._namespace = namespace
        self._owner = os.getpid()
        self._fds: dict[str, int] = {}
        self._directories: dict[str, int] = {}
        self._layers: list[int] = []

    def __del__(self) -> None:
        self._let_go()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """``with`` on the ferry: it stands in the machine, network and all, until the block ends.

        Raises `KernelError` where the view cannot be made; then there is none.
        """
        netns.enter(self._namespace)
        _loosen()
        with contextlib.ExitStack() as back:
            if not self._fds:
                back.callback(self._publish)  # last of all, where it can be seen from outside
            for kind in _KINDS:
                back.callback(_return, kind, _hold(kind))
            if self._fds:
                self._join()
            else:
                self._make()
            yield

    def directory(self, path: str, mode: int) -> tuple[int, int | None]:
        """Lay an empty directory over ``path``, which need not exist; call it inside `entered`.

        Returns a descriptor of it, which stays the view's, and one of what lies below, the caller's, or None.
        Raises `ConfigurationError` where it cannot be laid there.
        """
        place = os.path.realpath(path)
        self._check(path, place)
        below = None
        if os.path.isdir(place):
            below = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if below is None:
                self._make_room(place)
                os.mkdir(place, mode)
            mount.tmpfs(place, f"{mode:o}")
            fd = descriptors.opened(lambda: os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except BaseException:
            if below is not None:
                os.close(below)
            raise
        self._directories[place] = fd
        return fd, below

    def drop_directory(self, fd: int) -> None:
        """Take `directory` back; inside `entered`."""
        for place, held in list(self._directories.items()):
            if held == fd:
                mount.detach(place)
                del self._directories[place]
                os.close(fd)

    def hidden_by(self, fd: int) -> dict[str, str]:
        """Those of `files`, by their paths in it, that the directory ``fd`` hides from programs."""
        place = next(place for place, held in self._directories.items() if held == fd)
        real = {os.path.realpath(path): text for path, text in self.files.items()}
        return {
            os.path.relpath(path, place): text
            for path, text in real.items()
            if path.startswith(f"{place}/") and not os.path.lexists(path)
        }

    def close(self) -> None:
        """Let go of the namespaces; they end with the last program in them."""
        if self._fds and self._owner == os.getpid():
            names.withdraw_view(self._namespace.inode)
        self._let_go()

    # --- inside ---

    def _let_go(self) -> None:
        fds = [*self._fds.values(), *self._directories.values(), *self._layers]
        self._fds, self._directories, self._layers = {}, {}, []
        for fd in fds:
            os.close(fd)

    def _join(self) -> None:
        for kind, fd in self._fds.items():
            try:
                setns(fd, _KINDS[kind])
            except OSError as error:
                where = self._namespace.label
                raise KernelError(f"step into the {kind} namespace of {where}", error.errno or 0) from None

    def _make(self) -> None:
        where = self._namespace.label
        unshare(sum(_KINDS.values()), f"make the mount, UTS and IPC namespaces of {where}")
        try:
            for kind in _KINDS:
                self._fds[kind] = _hold(kind)
            mount.keep_to_ourselves()
            socket.sethostname(self.hostname)
            self._lay_files()
            self._lay_shared()
            mount.sysfs()
        except OSError as error:
            self._let_go()
            number, what = error.errno or 0, error.filename or "its host name"
            raise KernelError(f"lay {what}", number, where=where, hint=descriptors.hint(number)) from None
        except BaseException:
            self._let_go()
            raise

    def _publish(self) -> None:
        if self._fds:
            names.publish_view(self._namespace.inode, self._fds)

    def _lay_files(self) -> None:
        if not self.files:
            return
        source = names.views()
        mount.tmpfs(source)
        for number, (path, text) in enumerate(self.files.items()):
            place = os.path.realpath(path)
            if os.path.exists(place):
                file = f"{source}/{number}-{os.path.basename(path)}"
                _write(file, text)
                mount.bind(file, place)
            else:
                self._make_room(place)
                _write(place, text)

    def _lay_shared(self) -> None:
        """What programs share by name, and would leave on the host when they are killed; shm_overview(7)."""
        if os.path.isdir("/dev/shm"):
            mount.tmpfs("/dev/shm", "1777")
        if os.path.isdir("/dev/mqueue"):
            mount.mqueue("/dev/mqueue")

    def _make_room(self, place: str) -> None:
        """See to it that the directory of ``place`` is there and ours, so that a name can be made in it."""
        parent = os.path.dirname(place)
        if not os.path.isdir(parent):
            self._make_room(parent)
            os.mkdir(parent, 0o755)
        elif not self._is_ours(parent):
            if parent == "/":
                mount.layer_root(self._fds["mnt"])
            else:
                mount.layer(parent, {os.path.basename(place)}, moving=True)
            self._layers.append(os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def _is_ours(self, directory: str) -> bool:
        """Whether it is in a file system of ours, in which names may be made.

        We hold each, so that the kernel gives its number to no other.
        """
        ours = {os.fstat(fd).st_dev for fd in (*self._directories.values(), *self._layers)}
        return os.stat(directory).st_dev in ours

    def _check(self, path: str, place: str) -> None:
        where = self._namespace.label
        if not os.path.isabs(path) or place in _NEVER_PRIVATE:
            raise ConfigurationError(
                f"{path!r} cannot be private to {where}; give the absolute path of a directory other than "
                + ", ".join(sorted(_NEVER_PRIVATE))
            )
        if os.path.exists(place) and not os.path.isdir(place):
            raise ConfigurationError(f"{path!r} cannot be private to {where}: it is not a directory")
        if place in self._directories:
            raise ConfigurationError(
                f"{path!r} is private to {where} already; use the path that was returned"
            )
        below = [other for other in self._directories if other.startswith(f"{place}/")]
        if below:
            raise ConfigurationError(
                f"{path!r} would hide {below[0]}, which is private to {where}; make {path!r} private first"
            )


class _Ground(threading.local):
    """Whether this thread may go to a view and come back."""

    loose = False


_ground = _Ground()


def _loosen() -> None:
    """Part with what would keep this thread from going to a view, or from coming back; once."""
    if not _ground.loose:
        # Sharing its working directory with others, it could not change its mount namespace (setns(2)); to the
        # host's UTS and IPC namespaces, which no sandboxed process may re-enter, it could not return. Its own ones read
        # alike and are empty.
        unshare(
            CLONE_FS | CLONE_NEWUTS | CLONE_NEWIPC,
            "part with the process's working directory, host name and shared memory",
        )
        _ground.loose = True


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)
        os.write(fd, text.encode(errors="surrogateescape"))
    finally:
        os.close(fd)


def _hold(kind: str) -> int:
    return descriptors.opened(lambda: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))


def _return(kind: str, fd: int) -> None:
    try:
        setns(fd, _KINDS[kind])
    except OSError as error:
        standing.here.lost = f"it could not be brought back from a view ({error.strerror})"
        raise SteppingError(f"the ferry is lost: {standing.here.lost}") from error
    finally:
        os.close(fd)
