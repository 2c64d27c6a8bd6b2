"""How a program is started in a namespace: on the ferry (see there why), in the pod's view of files.

Rules: between fork and exec nothing happens but that the kernel is told to end the child with this process; what
goes wrong is told in words.
Does not belong here: what a program is afterwards (see `program`), what it sees (see `view`).
"""

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

from netwarren.errors import ConfigurationError, KernelError, ProgramError
from netwarren.kernel import netns, process
from netwarren.kernel.netns import Namespace
from netwarren.runtime import ferry, warden
from netwarren.runtime.pid_namespace import PidNamespace
from netwarren.runtime.view import View

_LONGEST_FIRST_LINE = 256  # BINPRM_BUF_SIZE


def start(
    namespace: Namespace,
    command: tuple[str, ...],
    where: str,
    options: dict[str, Any],
    view: View | None,
    processes: PidNamespace | None,
) -> "subprocess.Popen[Any]":
    """Start ``command`` in ``namespace`` with the options of `subprocess.Popen`; raises `ProgramError`.

    In ``processes``, it has a view, too.
    """
    here = _as_here(options)
    on = ferry.main if processes is None else processes.ferry
    try:
        return on.call(lambda: _start(namespace, command, where, options, view, processes, here))
    except KernelError as error:
        raise ProgramError(where, command, f"cannot be started: {_not_seen(error, view)}") from error
    except ValueError as error:  # a NUL byte, or "=" in a variable's name: no program could be given that
        raise ConfigurationError(f"{list(command)!r} cannot be started: {error}") from None
    except OSError as error:
        if processes is not None and error.errno == errno.ENOMEM:  # pid_namespaces(7)
            why = "cannot be started: PID 1 of its PID namespace was killed. Add the pod anew"
            raise ProgramError(where, command, why) from error
        raise ProgramError(where, command, f"cannot be started: {_why(error, command[0], options)}") from None


def words(command: Any, *, shell: bool) -> tuple[str, ...]:
    """``command`` as a tuple of texts; one text is for the ``shell``. Raises `ConfigurationError`."""
    if isinstance(command, str | bytes) and shell:
        return (os.fsdecode(command),)
    if isinstance(command, str | bytes):
        raise ConfigurationError(
            f"the command {command!r} is one text, not a list of words; write a list, such as "
            f"shlex.split({os.fsdecode(command)!r}), or give shell=True"
        )
    try:
        return tuple(map(os.fsdecode, command))
    except TypeError:
        raise ConfigurationError(
            f"the command {command!r} is no list of words, each a text or a path; write it like ['sleep', '1']"
        ) from None


def _as_here(options: dict[str, Any]) -> str:
    """Prepare for the ferry, which does not share the working directory and umask of this process; returns the
    former."""
    try:
        here = os.getcwd()
    except OSError:
        here = "/"  # it was removed
    if options.get("cwd") is not None:
        options["cwd"] = os.path.join(here, os.fsdecode(options["cwd"]))
    if options.get("umask", -1) < 0:
        options["umask"] = process.umask()
    return here


def _start(
    namespace: Namespace,
    command: tuple[str, ...],
    where: str,
    options: dict[str, Any],
    view: View | None,
    processes: PidNamespace | None,
    here: str,
) -> "subprocess.Popen[Any]":
    try:
        warden.watch(namespace)  # before stepping in: the warden must not stand where it kills
    except KernelError as error:
        raise ProgramError(where, command, f"cannot be started: {error}") from error
    parent = os.getpid()
    if view is not None:
        with view.entered():
            if processes is not None:
                processes.join()
                parent = 0  # it is in none of the PID namespaces that the child sees; its successor is PID 1
            return _fork(command, options, here, parent)
    netns.enter(namespace)
    return _fork(command, options, here, parent)


def _fork(
    command: tuple[str, ...], options: dict[str, Any], here: str, parent: int
) -> "subprocess.Popen[Any]":
    if options.get("cwd") is None:
        # A private directory may hide it, and a process that has changed its user may stand where it could not go.
        options["cwd"] = here if os.access(here, os.X_OK) else "/"

    def before_exec() -> None:
        process.die_with_parent()
        if os.getppid() != parent:
            os._exit(127)  # the parent died before the kernel was told

    chained: Callable[[], None] | None = options.pop("preexec_fn", None)
    hook = before_exec if chained is None else lambda: (before_exec(), chained())  # type: ignore[func-returns-value]
    return subprocess.Popen(command, preexec_fn=hook, **options)


def _not_seen(error: KernelError, view: View | None) -> str:
    if view is None:
        return str(error)
    return f"its view of files is refused: {error}. Start it with view=False to do without"


def _why(error: OSError, program: str, options: dict[str, Any]) -> str:
    if error.filename is not None and os.fspath(error.filename) != program:
        return f"{error.filename}: {error.strerror}"
    file = _file_of(program, options.get("cwd") or "")
    if file is None:
        place = "does not exist" if "/" in program else f"is not in PATH ({os.environ.get('PATH', '')})"
        return f"{program} {place}"
    if isinstance(error, FileNotFoundError):
        return _what_is_missing(file)
    if isinstance(error, PermissionError):
        return f"{program} is not executable for this user"
    return f"{error.strerror} ({program})"


def _file_of(program: str, cwd: str) -> str | None:
    """The file of that name, in PATH or by its path; the kernel's EACCES may be of a directory in PATH, closed to us."""
    if "/" in program:
        found = [os.path.join(cwd, program)]
    else:
        found = [os.path.join(each, program) for each in os.environ.get("PATH", "").split(os.pathsep)]
    return next(filter(os.path.exists, found), None)


def _what_is_missing(file: str) -> str:
    """Of a file that exists and cannot be found by execve(2): what it names itself, or it is hidden in the pod."""
    first = b""
    with contextlib.suppress(OSError), open(file, "rb") as script:
        first = script.readline(_LONGEST_FIRST_LINE)
    if first.startswith(b"#!"):
        needed = os.fsdecode(re.split(rb"[ \t\n]", first[2:].lstrip(b" \t"))[0])
        if not os.path.exists(needed):
            return f"{file} exists, and the interpreter of its first line, {needed!r}, does not"
    return f"{file} exists, and what loads it does not, or a private directory hides one of both"
