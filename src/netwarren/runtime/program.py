"""A real program running in a namespace: started there, its output kept, its end certain.

Rules: started on the ferry (see there why); the kernel kills it when this process dies; the end of the
pod ends whatever stands in the pod, so a child that forked away is found, too.
Does not belong here: readiness and restarts, names the program resolves.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from netwarren.errors import KernelError, ProgramError
from netwarren.kernel import netns, process
from netwarren.kernel.netns import Namespace
from netwarren.runtime import ferry, warden
from netwarren.runtime.output import Output
from netwarren.runtime.view import View

Command = Sequence[str | os.PathLike[str]]


class Program:
    """A started program; made by ``pod.popen``.

    ``command`` is its argument list, ``pid`` its process id, ``returncode`` None while it runs, else as
    in `subprocess`. What it writes is in `output`, unless ``stdout`` or ``stderr`` were given to
    ``popen``; those that were given as `subprocess.PIPE` are the streams `stdin`, `stdout`, `stderr`.
    """

    def __init__(
        self,
        namespace: Namespace,
        command: Command,
        where: str,
        *,
        limit: int | None,
        env: Mapping[str, str] | None,
        options: dict[str, Any],
        view: View | None,
    ) -> None:
        self.command = tuple(os.fspath(word) for word in command)
        self.where = where
        self._output: Output | None = None
        self._errors: Output | None = None
        if not self.command:
            raise ProgramError(where, ["(nothing)"], "cannot be started: the command is empty")
        with contextlib.ExitStack() as pipes:
            stdout, stderr = options.pop("stdout", None), options.pop("stderr", None)
            options.setdefault("stdin", subprocess.DEVNULL)
            if stdout is None:
                read, stdout = self._pipe(pipes)
                self._output = Output(read, limit)
                if stderr is None:
                    stderr = subprocess.STDOUT
            elif stderr is None:
                read, stderr = self._pipe(pipes)
                self._output = Output(read, limit)
            if stderr is SPLIT:
                read, stderr = self._pipe(pipes)
                self._errors = Output(read, limit)
            options.update(stdout=stdout, stderr=stderr, env=env)
            options.setdefault("start_new_session", True)
            here = _as_here(options)
            try:
                self.process: subprocess.Popen[Any] = ferry.call(
                    lambda: _start(namespace, self.command, options, view, here)
                )
            except KernelError as error:
                self.close()
                raise ProgramError(
                    where, self.command, f"cannot be started: {_not_seen(error, view)}"
                ) from error
            except OSError as error:
                self.close()
                raise ProgramError(
                    where, self.command, f"cannot be started: {_why(error, self.command)}"
                ) from None
            except BaseException:
                self.close()
                raise

    @staticmethod
    def _pipe(pipes: contextlib.ExitStack) -> tuple[int, int]:
        read, write = os.pipe()
        pipes.callback(os.close, write)  # ours, once the program has its own
        return read, write

    def __repr__(self) -> str:
        return f"<Program {self.command[0]} pid {self.pid} in {self.where}: {self.state}>"

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, the negative signal number, or None while it runs."""
        return self.process.poll()

    @property
    def state(self) -> str:
        """``running``, ``exited 0``, or ``killed by SIGTERM``."""
        code = self.returncode
        if code is None:
            return "running"
        if code >= 0:
            return f"exited {code}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"

    @property
    def stdin(self) -> IO[Any] | None:
        """The stream to its standard input, where ``stdin=PIPE`` was given."""
        return self.process.stdin

    @property
    def stdout(self) -> IO[Any] | None:
        """The stream from its standard output, where ``stdout=PIPE`` was given."""
        return self.process.stdout

    @property
    def stderr(self) -> IO[Any] | None:
        """The stream from its standard error, where ``stderr=PIPE`` was given."""
        return self.process.stderr

    @property
    def output(self) -> str:
        """What it has written so far, standard output and error as they came (the last 4 MiB)."""
        return self._output.text() if self._output is not None else ""

    @property
    def errors(self) -> str:
        """What it wrote to standard error, where that is kept apart (``check_output``)."""
        return self._errors.text() if self._errors is not None else ""

    def describe(self) -> str:
        """One line for a report."""
        return f"{shlex.join(self.command)} (pid {self.pid}): {self.state}"

    def poll(self) -> int | None:
        """`returncode`, as `subprocess.Popen.poll`."""
        return self.process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises `ProgramError` where it still runs after ``timeout`` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProgramError(
                self.where, self.command, f"still runs after {timeout:g} s", output=self.output
            ) from None

    def send_signal(self, number: int) -> None:
        """Send a signal to the program (not to its children)."""
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the program and those it started that are still in its process group."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()  # where it leads no group (start_new_session=False)
            self.process.wait()

    def stop(self, grace: float = 5.0) -> int:
        """SIGTERM, then SIGKILL after ``grace`` seconds; returns the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def close(self) -> None:
        """Let go of pipes; the program itself is ended by its pod."""
        for output in (self._output, self._errors):
            if output is not None:
                output.close()
        if hasattr(self, "process"):
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


SPLIT = object()
"""For ``stderr``: keep it apart in `Program.errors`."""


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
    namespace: Namespace, command: tuple[str, ...], options: dict[str, Any], view: View | None, here: str
) -> "subprocess.Popen[Any]":
    warden.watch(namespace)  # before stepping in: the warden must not stand where it kills
    if view is not None:
        with view.entered():
            return _fork(command, options, here)
    netns.enter(namespace)
    return _fork(command, options, here)


def _fork(command: tuple[str, ...], options: dict[str, Any], here: str) -> "subprocess.Popen[Any]":
    if options.get("cwd") is None:
        # A private directory may hide it, and a process that has changed its user may stand where it could not go.
        options["cwd"] = here if os.access(here, os.X_OK) else "/"
    parent = os.getpid()

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


def _why(error: OSError, command: tuple[str, ...]) -> str:
    program = command[0]
    if error.filename is not None and os.fspath(error.filename) != program:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError) or _in_no_directory(program):
        place = "does not exist" if "/" in program else f"is not in PATH ({os.environ.get('PATH', '')})"
        return f"{program} {place}"
    if isinstance(error, PermissionError):
        return f"{program} is not executable for this user"
    return f"{error.strerror} ({program})"


def _in_no_directory(program: str) -> bool:
    """Whether PATH has no file of that name: a directory in it that is closed to us gives EACCES, too."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    return "/" not in program and not any(os.path.exists(os.path.join(each, program)) for each in folders)


def check_output(
    begin: Callable[..., Program],
    command: Command,
    *,
    input: str | None,
    timeout: float | None,
    **options: Any,
) -> str:
    """Run a program to its end; see ``pod.check_output``."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    program = begin(command, stderr=SPLIT, limit=None, **options)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        if input is not None:
            data = input if program.process.text_mode else input.encode()  # type: ignore[attr-defined]
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.process.communicate(data, timeout)
        code = program.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except BaseException:
        program.kill()
        program.process.wait()
        raise
    if code:
        raise ProgramError(
            program.where,
            program.command,
            f"{'has' if code > 0 else 'was'} {program.state}",
            returncode=code,
            output=program.errors + program.output,
        )
    return program.output
