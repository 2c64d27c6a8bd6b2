"""A real program running in a namespace: started there, its output kept, its end certain.

Rules: started on the ferry (see there why); the kernel kills it when this process dies; the end of the
pod ends whatever stands in the pod, so a child that forked away is found, too.
Does not belong here: when it is ready (see `ready`), names the program resolves.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from netwarren.errors import ConfigurationError, ProgramError
from netwarren.kernel import process_tree
from netwarren.runtime import launch
from netwarren.runtime.output import News, Output

if TYPE_CHECKING:
    import asyncio

    from netwarren.runtime.machine import Machine
    from netwarren.runtime.pid_namespace import PidNamespace
    from netwarren.runtime.ready import NotYet, Ready

Command = Sequence[str | os.PathLike[str]]

# After one of these, a program is as it was before.
_HARMLESS = frozenset({0, signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH, signal.SIGURG})


class Program:
    """A started program; made by ``pod.popen``.

    ``command`` is its argument list, ``pid`` its process id, ``returncode`` None while it runs, else as
    in `subprocess`. What it writes is in `output`, unless ``stdout`` or ``stderr`` were given to
    ``popen``; those that were given as `subprocess.PIPE` are the streams `stdin`, `stdout`, `stderr`.
    ``restarts`` says how often `restart` was called.

    An end that nobody expected is told when the test, the pod or the cluster ends: any end of a program that
    was waited for to be ready, and a status other than 0 of any other. Expected is the end of a program that
    was sent a signal, killed or stopped, or whose end somebody has seen (`wait`, `poll`, `returncode`,
    `state`).
    """

    def __init__(
        self,
        machine: "Machine",
        command: Command,
        *,
        limit: int | None,
        env: Mapping[str, str] | None,
        options: dict[str, Any],
        view: bool,
        may_exit: bool,
        ready: "Ready | None",
        ready_timeout: float,
    ) -> None:
        self.command = launch.words(command, shell=bool(options.get("shell")))
        self.where = machine.label
        self.restarts = 0
        self._machine = machine
        self._options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options, "env": env}
        self._limit = limit
        self._has_view = view
        self._may_exit = may_exit
        self._ready = ready
        self._ready_timeout = ready_timeout
        self._serves = self._frozen = False
        self._expected = may_exit
        self._news = News()
        self._output: Output | None = None
        self._errors: Output | None = None
        if not self.command:
            raise ProgramError(self.where, ["(nothing)"], "cannot be started: the command is empty")
        self._launch("")

    def _launch(self, mark: str) -> None:
        namespace, options = self._machine._namespace, dict(self._options)
        view = self._machine._own_view() if self._has_view else None
        with contextlib.ExitStack() as pipes:
            stdout, stderr = options.pop("stdout", None), options.pop("stderr", None)
            if stdout is None:
                stdout, self._output = self._keep(pipes, self._output, mark)
                if stderr is None:
                    stderr = subprocess.STDOUT
            elif stderr is None:
                stderr, self._output = self._keep(pipes, self._output, mark)
            if stderr is SPLIT:
                stderr, self._errors = self._keep(pipes, self._errors, mark)
            options.update(stdout=stdout, stderr=stderr)
            try:
                self._process: subprocess.Popen[Any] = launch.start(
                    namespace, self.command, self.where, options, view, self._processes
                )
            except BaseException:
                self.close()
                raise
        self._tree = process_tree.Tree(self._process.pid, namespace.inode)

    def _keep(self, pipes: contextlib.ExitStack, output: Output | None, mark: str) -> tuple[int, Output]:
        read, write = os.pipe()
        pipes.callback(os.close, write)  # ours, once the program has its own
        if output is None:
            output = Output(read, self._limit, self._news.tell)
        else:
            output.follow(read, mark)
        return write, output

    def __repr__(self) -> str:
        return f"<Program {self.command[0]} pid {self.pid} in {self.where}: {self._condition()}>"

    @property
    def _processes(self) -> "PidNamespace | None":
        """The PID namespace it is in, where that is not ours."""
        return self._machine._processes if self._has_view else None

    # --- what it is ---

    @property
    def process(self) -> "subprocess.Popen[Any]":
        """The `subprocess.Popen` below; who takes it minds the program's end, which is expected from then on."""
        self._expected = True
        return self._process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The process ids that live: the program's first, then those of all it has started.

        A process that took a session of its own and lost its parent before anybody looked (a daemon) is
        missing.
        """
        return [member.pid for member in self._tree.members()]

    @property
    def returncode(self) -> int | None:
        """The exit status, the negative signal number, or None while it runs."""
        code = self._process.poll()
        self._expected = self._expected or code is not None
        return code

    @property
    def state(self) -> str:
        """``running``, ``frozen``, ``exited 0``, or ``killed by SIGTERM``."""
        _ = self.returncode
        return self._condition()

    @property
    def stdin(self) -> IO[Any] | None:
        """The stream to its standard input, where ``stdin=PIPE`` was given."""
        return self._process.stdin

    @property
    def stdout(self) -> IO[Any] | None:
        """The stream from its standard output, where ``stdout=PIPE`` was given."""
        return self._process.stdout

    @property
    def stderr(self) -> IO[Any] | None:
        """The stream from its standard error, where ``stderr=PIPE`` was given."""
        return self._process.stderr

    @property
    def output(self) -> str:
        """What it has written so far, standard output and error as they came (the last 4 MiB; see `whole_output`)."""
        return self._output.text() if self._output is not None else ""

    def whole_output(self) -> Iterator[str]:
        """All that it has written so far, a line at a time: what is not in `output` any more is in a temporary file.

        Lines end as they were written, and are in pieces where they are longer than 64 KiB. Until the end of its pod,
        with which the file goes; where the disk was full, a line says how many bytes are missing.
        """
        return self._output.lines() if self._output is not None else iter(())

    @property
    def errors(self) -> str:
        """What it wrote to standard error, where that is kept apart (``check_output``)."""
        return self._errors.text() if self._errors is not None else ""

    def describe(self) -> str:
        """One line for a report: command, pid, state, whether it was found ready, restarts."""
        words = [self._condition()]
        if self._serves and self._process.returncode is None:
            words.append("ready")
        if self.restarts:
            words.append(f"restarted {self.restarts} time{'s' if self.restarts > 1 else ''}")
        return f"{shlex.join(self.command)} (pid {self.pid}): {', '.join(words)}"

    # --- waiting ---

    def poll(self) -> int | None:
        """`returncode`, as `subprocess.Popen.poll`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises `ProgramError` where it still runs after ``timeout`` seconds."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"still runs after {timeout:g} s") from None
        self._expected = True
        return code

    def wait_ready(self, ready: "Ready", timeout: float = 10.0) -> None:
        """Wait until ``ready`` holds, for ``timeout`` seconds: a probe, or a function as for ``popen``.

        From then on the program is a server, whose end has to be expected. Raises `ProgramError` where it is not
        ready in time, which says what was seen last, and where it ends before.
        """
        self._wait_ready(ready, timeout, _never)

    async def wait_ready_async(self, ready: "Ready", timeout: float = 10.0) -> None:
        """`wait_ready` for a task of asyncio or trio, whose loop goes on meanwhile; a function runs on a thread."""
        from netwarren.runtime import loop

        await loop.on_thread(lambda given_up: self._wait_ready(ready, timeout, given_up))

    def wait_for_output(self, pattern: "str | re.Pattern[str]", timeout: float = 10.0) -> "re.Match[str]":
        """Wait for output that matches a regular expression, and return the match.

        Looks at what it has written since its start, too; ``^`` and ``$`` are those of each line. Raises
        `ProgramError` where there is none after ``timeout`` seconds, and where the program ends before, unless it
        may (``may_exit``) and what it left in the background can still write; `ConfigurationError` where that is no
        regular expression.
        """
        return self._wait_for_output(pattern, timeout, _never)

    async def wait_for_output_async(
        self, pattern: "str | re.Pattern[str]", timeout: float = 10.0
    ) -> "re.Match[str]":
        """`wait_for_output` for a task of asyncio or trio, whose loop goes on meanwhile."""
        from netwarren.runtime import loop

        return await loop.on_thread(lambda given_up: self._wait_for_output(pattern, timeout, given_up))

    def streams(
        self,
    ) -> "contextlib.AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]":
        """Its standard output and input as asyncio's streams: ``async with program.streams() as (reader, writer)``.

        For a program started with ``stdin=PIPE, stdout=PIPE``. Both pipes are closed at the end of the block,
        after what was written has been sent. Raises `ConfigurationError` where there are no pipes, or no
        asyncio.
        """
        from netwarren.runtime import streams

        return streams.open_streams(repr(self), self.stdin, self.stdout)

    # --- doing something to it ---

    def send_signal(self, number: int) -> None:
        """Send a signal to the program (not to its children)."""
        if number not in _HARMLESS:
            self._expected = True
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the program and all it has started (`pids`), and wait for their end."""
        self._expected = True
        self._tree.kill()
        self._process.kill()  # where /proc does not show it
        self._process.wait()

    def stop(self, grace: float = 5.0) -> int:
        """SIGTERM, then SIGKILL after ``grace`` seconds; returns the exit status.

        What the program has started and not ended by itself is killed after it.
        """
        self._tree.members()  # who loses its parent now is known
        self.terminate()
        if self._frozen:
            self.thaw()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self.kill()
        return self._process.wait()

    def restart(self, grace: float = 5.0) -> None:
        """`stop` where it still runs, and start it anew with the same command and options, until it is ready again.

        `output` goes on after a line that says so; `pid`, `stdin`, `stdout` and `stderr` are new. Raises as
        ``popen`` does.
        """
        self._machine.check()
        self.stop(grace)
        for stream in self._streams():
            stream.close()
        self.restarts += 1
        self._expected, self._serves, self._frozen = self._may_exit, False, False
        self._launch(f"[restart {self.restarts}: before it was {self._condition()}]")
        self._begin()

    def freeze(self) -> "contextlib.AbstractContextManager[object]":
        """Stop the program and all it has started (SIGSTOP), like a machine that hangs; undone by `thaw`.

        Its sockets stay: the kernel goes on to accept connections and acknowledge data for it. As a ``with``
        block, until its end. Raises `ProgramError` where it has ended.
        """
        if self._process.poll() is not None:
            raise self._error(f"cannot be frozen: it {self._past()}")
        self._tree.stop()
        self._frozen = True
        undo = contextlib.ExitStack()
        undo.callback(self.thaw)
        return undo

    def thaw(self) -> None:
        """Let the program and all it has started go on (SIGCONT); again is fine."""
        self._tree.resume()
        self._frozen = False

    def close(self) -> None:
        """Let go of pipes; the program itself is ended by its pod."""
        for output in self._outputs():
            output.close()
        if hasattr(self, "_process"):
            for stream in self._streams():
                with contextlib.suppress(OSError):
                    stream.close()

    # --- inside ---

    def _begin(self) -> None:
        """Wait for the readiness that ``popen`` was asked for; a program that misses it is killed."""
        if self._ready is not None:
            try:
                self.wait_ready(self._ready, self._ready_timeout)
            except BaseException:
                self.kill()
                raise

    def _end(self) -> None:
        """For the end of its pod, in which all that stand there have been killed already."""
        if self._process.poll() is None:
            self.kill()  # those, too, that have left for another namespace
        self.close()
        for output in self._outputs():
            output.release()

    def _untold(self) -> ProgramError | None:
        """An end that nobody expected or has been told about; once."""
        code = self._process.poll()
        if code is None or self._expected or (code == 0 and not self._serves):
            return None
        if code == -signal.SIGPIPE and self.stdout is not None:
            return None  # nobody reads it any more, and that was the test's choice
        return self._error(
            f"{self._past()} and nobody expected that; where it is meant to, wait for it, stop it, or start it "
            "with may_exit=True"
        )

    def _wait_ready(self, ready: "Ready", timeout: float, given_up: Callable[[], bool]) -> None:
        from netwarren.runtime import ready as readiness

        readiness.wait(self, ready, timeout, given_up)
        self._serves = True

    def _wait_for_output(
        self, pattern: "str | re.Pattern[str]", timeout: float, given_up: Callable[[], bool]
    ) -> "re.Match[str]":
        from netwarren.runtime import ready as readiness

        expression = readiness.compiled(pattern)

        def look() -> "re.Match[str] | NotYet":
            return self._search(expression) or readiness.NotYet("no such output")

        return readiness.until(
            self,
            look,
            time.monotonic() + timeout,
            f"has not written that within {timeout:g} s",
            f"output that matches {expression.pattern!r}",
            by_output=True,
            given_up=given_up,
        )

    def _search(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        kept = self._outputs()
        if not kept:
            raise ConfigurationError(f"the output of {self!r} is not kept: stdout and stderr were given")
        return next((found for output in kept if (found := output.search(pattern)) is not None), None)

    def _outputs(self) -> list[Output]:
        return [output for output in (self._output, self._errors) if output is not None]

    def _has_failed(self) -> bool:
        """Whether it has ended, not counting one that goes to the background with permission."""
        code = self._process.poll()
        return code is not None and not (code == 0 and self._may_exit)

    def _is_silent(self) -> bool:
        """Whether it has ended, and left nobody who could go on to write for it."""
        return self._process.poll() is not None and not any(output.drain() for output in self._outputs())

    def _condition(self) -> str:
        code = self._process.poll()
        if code is None:
            return "frozen" if self._frozen else "running"
        if code >= 0:
            return f"exited {code}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"

    def _past(self) -> str:
        """``has exited 0``, ``was killed by SIGTERM``."""
        condition = self._condition()
        return f"{'has' if condition.startswith('exited') else 'was'} {condition}"

    def _streams(self) -> list[IO[Any]]:
        ours = (self._process.stdin, self._process.stdout, self._process.stderr)
        return [stream for stream in ours if stream is not None]

    def _error(self, why: str) -> ProgramError:
        """What to raise about it; with that, its end has been told."""
        code = self._process.poll()
        self._expected = self._expected or code is not None
        return ProgramError(self.where, self.command, why, returncode=code, output=self.errors + self.output)


def _never() -> bool:
    return False


SPLIT = object()
"""For ``stderr``: keep it apart in `Program.errors`."""


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
    running = program.process
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        if input is not None:
            data = input if running.text_mode else input.encode()  # type: ignore[attr-defined]
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.communicate(data, timeout)
        code = program.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except BaseException:
        program.kill()
        raise
    if code:
        raise program._error(program._past())
    return program.output
