"""What a private directory starts with: a copy of the host's, and files given as text or bytes.

Rules: written from outside through a path of the directory's descriptor; what cannot be read is left out of
a copy, and so is what is neither file, directory nor symbolic link.
Does not belong here: the directory itself (see `view`).
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from netwarren.errors import ConfigurationError
from netwarren.kernel import process

Files = Mapping[str, str | bytes]


def outside_path(fd: int) -> Path:
    """The directory behind ``fd`` as every process of this user can reach it while we hold it."""
    return Path(f"/proc/{os.getpid()}/fd/{fd}")


def check(files: Files) -> None:
    """Raise `ConfigurationError` for a name that would not be in the directory."""
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ConfigurationError(
                f"files has the name {name!r}; names are relative to the directory, without '..'"
            )


def copy(source: int, target: int) -> None:
    """Copy what is readable in the directory ``source`` to ``target``, with modes and times."""
    import shutil

    try:
        shutil.copytree(
            f"/proc/self/fd/{source}",
            f"/proc/self/fd/{target}",
            symlinks=True,
            ignore=_not_for_copies,
            dirs_exist_ok=True,
        )
    except shutil.Error as error:
        # Some went away or were closed to us meanwhile; only a full disk is worth telling.
        for _source, _target, why in error.args[0]:
            if os.strerror(28) in str(why):
                raise OSError(28, os.strerror(28)) from None


def write(target: int, files: Files) -> None:
    """Write ``files`` below the directory ``target``, with the directories they are in.

    No symbolic link is followed: here it would lead to the host's files. Raises `ConfigurationError` for one on
    the way; one that is in a file's place goes.
    """
    root = Path(f"/proc/self/fd/{target}")
    for name, content in files.items():
        path = root
        for part in PurePosixPath(name).parent.parts:
            path /= part
            if path.is_symlink():
                raise ConfigurationError(
                    f"files has the name {name!r}, but {part!r} is a symbolic link there"
                )
            path.mkdir(exist_ok=True)
        path /= PurePosixPath(name).name
        _put(path, content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def _put(path: Path, content: bytes) -> None:
    """Have a file there at once and whole: programs may run already. It keeps the mode of the one it replaces."""
    import tempfile

    fd, name = tempfile.mkstemp(
        dir=path.parent
    )  # of a name that nobody has, where no link can lead elsewhere
    beside = Path(name)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        replaced = path.is_file() and not path.is_symlink()
        beside.chmod(stat.S_IMODE(path.stat().st_mode) if replaced else 0o666 & ~process.umask())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _not_for_copies(folder: str, entries: list[str]) -> set[str]:
    return {entry for entry in entries if not _can_be_copied(os.path.join(folder, entry))}


def _can_be_copied(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    if stat.S_ISLNK(mode):
        return True
    if stat.S_ISDIR(mode):
        return os.access(path, os.R_OK | os.X_OK)
    return stat.S_ISREG(mode) and os.access(path, os.R_OK)
