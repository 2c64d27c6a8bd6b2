"""A machine: a namespace that code can be got into, by thread, task, socket or program.

Rules: the verbs are the same for pods, nodes and the root, which are all machines; what was started in
one is ended with it, and a failure nobody has seen is handed over then.
Does not belong here: what connects machines, and names among them (see `netwarren.cluster`).
"""

import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from netwarren.errors import ClosedError
from netwarren.kernel import process
from netwarren.kernel.address import IPAddress
from netwarren.kernel.netns import Namespace
from netwarren.runtime import contents, ferry, spawning, standing, tasks, warden
from netwarren.runtime.background import READY_SECONDS, Background
from netwarren.runtime.contents import Files
from netwarren.runtime.output import KEPT_BYTES
from netwarren.runtime.program import Command, Program, check_output
from netwarren.runtime.view import View

if TYPE_CHECKING:
    from netwarren.runtime.pid_namespace import PidNamespace
    from netwarren.runtime.published import Published
    from netwarren.runtime.ready import Ready

P = ParamSpec("P")
T = TypeVar("T")


class Machine:
    """Somewhere to run code: ``name`` in the cluster, ``label`` in messages ("pod 'client'").

    ``with machine:`` puts this thread there until the block ends; it may be nested, and must not span
    an await or a yield to an event loop (`SteppingError`). ``async with machine:`` puts the current
    asyncio or trio task there, with the child tasks, servers, threads and programs it starts.
    """

    def __init__(self, name: str, label: str, namespace: Namespace) -> None:
        self.name = name
        self.label = label
        self.programs: list[Program] = []
        self.backgrounds: list[Background[Any]] = []
        self.published: list[Published] = []
        self._touched = False
        """Whether code of a user's has ever been let in."""
        self._namespace = namespace
        self._gone = self._remedy = ""
        self._reaped = process.reaped()
        self._loop: Any = None
        self._view: View | None = None
        self._processes: PidNamespace | None = None
        self._lock = threading.Lock()
        spawning.follow()

    # --- threads ---

    def __enter__(self) -> Self:
        if self._gone:
            self._refuse()
        self._touched = True
        standing.step_in(self._namespace)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        standing.step_out(self._namespace)

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` here and return or raise what it did.

        On the calling thread where that can come back; a thread that still stands in the host's
        network namespace, like the main thread of a script before its first ``with``, stays there, and
        a thread made for the call does it instead.
        """
        if self._gone:
            self._refuse()
        self._touched = True
        if not standing.can_return():
            return self._run_elsewhere(function, args, kwargs)
        standing.step_in(self._namespace)
        try:
            return function(*args, **kwargs)
        finally:
            standing.step_out(self._namespace)

    def _run_elsewhere(self, function: Callable[..., T], args: Any, kwargs: Any) -> T:
        call: Background[T] = Background(self._namespace, function, self.label)
        call._run_once(args, kwargs)
        return call.result()

    def start(
        self, function: Callable[..., T], /, *args: Any, ready_timeout: float = READY_SECONDS, **kwargs: Any
    ) -> Background[T]:
        """Run ``function`` in the background, on a thread that lives here; returns its `Background`.

        Where ``function`` has a parameter ``ready`` it gets a callable for it, and ``start`` returns
        once that was called: ``ready(value)`` hands ``value`` over as `Background.value`. A parameter
        ``stop`` gets a `threading.Event` that is set when the pod ends. Raises what ``function``
        raised before it was ready, and `BackgroundError` where it is not ready within
        ``ready_timeout`` seconds; what it raises later is raised by `Background.result`, or when the
        cluster closes.
        """
        self.check()
        self._touched = True
        background: Background[T] = Background(self._namespace, function, self.label)
        with self._lock:
            self.backgrounds.append(background)
        try:
            background._begin(args, kwargs, ready_timeout)
        except BaseException:
            background._end()
            with self._lock:  # one that is still there is for `end_all`, which wakes it
                if background.state != "running" and background in self.backgrounds:
                    self.backgrounds.remove(background)
            raise
        return background

    # --- tasks ---

    async def __aenter__(self) -> Self:
        if self._gone:
            self._refuse()
        self._touched = True
        await tasks.enter(self._namespace)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await tasks.leave(self._namespace)

    async def run_async(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(...)`` on an asyncio loop of this machine's own, on a thread of its own.

        For code that insists on its loop or thread; the loop is started by the first call and used by
        all others. ``async with`` needs neither.
        """
        from netwarren.runtime import loop

        self.check()
        self._touched = True
        with self._lock:
            if self._loop is None:
                self._loop = loop.PodLoop(self._namespace, self.label)
            mine: loop.PodLoop = self._loop
        return await loop.wait_for(mine.submit(function, args, kwargs))

    # --- the host ---

    def publish(self, port: int, host_port: int = 0, address: str = "127.0.0.1") -> "Published":
        """Open TCP port ``port`` of this machine on the host, at ``address``; returns its `Published`.

        ``host_port`` 0 is any free one. Who connects there is connected with 127.0.0.1 in here, or where
        that refuses, with ::1 or the machine's own addresses, as by ``kubectl port-forward``. Another
        ``address`` than the host's loopback may be reached from other machines.
        Raises `AddressTaken` where the host's port is taken, `AddressError` where it cannot be had,
        `ConfigurationError`, and `SteppingError` where this process cannot reach the host's network.
        """
        from netwarren.runtime.published import Published

        self.check()
        self._touched = True
        published = Published(self.label, port, address, host_port, self._own_socket, self._own_addresses())
        with self._lock:
            self.published.append(published)
        if self._gone:  # meanwhile
            published.close()
            self._refuse()
        return published

    def _own_socket(self, family: int) -> socket.socket:
        """For code on the ferry, as long as there is somebody in here to speak with."""
        with self._stepped():
            return socket.socket(family)

    def _own_addresses(self) -> Sequence[str]:
        return ()

    def _has(self, address: IPAddress) -> bool:
        """Whether what is sent to ``address`` in here stays in here."""
        return address.is_loopback or str(address) in self._own_addresses()

    # --- sockets ---

    def socket(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
    ) -> socket.socket:
        """Make a socket that lives here for good and can be used from any thread and loop."""
        if self._gone:
            self._refuse()
        self._touched = True
        if not standing.can_return():
            return ferry.call(lambda: self.run(socket.socket, family, type, proto))
        standing.step_in(self._namespace)
        try:
            return socket.socket(family, type, proto)
        finally:
            standing.step_out(self._namespace)

    # --- programs ---

    def popen(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        extra_env: Mapping[str, str] | None = None,
        limit: int | None = KEPT_BYTES,
        view: bool = True,
        ready: "Ready | None" = None,
        ready_timeout: float = READY_SECONDS,
        may_exit: bool = False,
        **options: Any,
    ) -> Program:
        """Start a program here; ``options`` are those of `subprocess.Popen` (cwd, stdin, stdout, ...).

        It has this machine's own view of host name, /etc/resolv.conf, /etc/hosts and /sys, and of the
        directories of `private_directory`; with ``view=False``, the host's, and outside of its PID namespace.
        ``env`` is its whole environment, by default ours; ``extra_env`` is added to that.
        With ``ready``, returns once that holds: `port`, `log`, `http`, `all_of`, or a function called here,
        without arguments or with the program, until it returns something true. A program that is not ready
        within ``ready_timeout`` seconds, or ends before, is killed and told with its output (`ProgramError`).

        Standard output and error are kept in `Program.output` (the last ``limit`` bytes) and shown when
        a test fails, unless ``stdout`` or ``stderr`` says otherwise. The program and all it starts here
        are killed with the cluster and with this process. Where it ends and nobody expected that
        (see `Program`), the end of the test, pod or cluster tells; ``may_exit`` says that it may, also that it
        may leave a daemon behind. Raises `ProgramError` where it cannot be started, `ConfigurationError` for a
        command that is no list of words, or with ``shell=True`` a text.
        """
        self.check()
        self._touched = True
        program = Program(
            self,
            command,
            limit=limit,
            env=env if extra_env is None else {**(os.environ if env is None else env), **extra_env},
            options=options,
            view=view,
            may_exit=may_exit,
            ready=ready,
            ready_timeout=ready_timeout,
        )
        with self._lock:
            self.programs.append(program)
        program._begin()
        return program

    def check_output(
        self,
        command: Command,
        *,
        input: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> str:
        """Run a program to its end and return its standard output as text.

        ``input`` goes to its standard input. Raises `ProgramError`, which carries what it wrote, where it
        cannot be started, ends with a status other than 0, or still runs after ``timeout`` seconds (it is
        killed then).
        """
        return check_output(self.popen, command, input=input, timeout=timeout, **options)

    # --- files ---

    def private_directory(
        self, path: str, *, files: Files | None = None, copy: bool = False, mode: int = 0o755
    ) -> Path:
        """Lay an empty directory over ``path``, for programs here alone; returns its path from outside.

        ``path`` need not exist on the host. Through the returned path this process reads and writes what
        programs find at ``path``; it is good while the machine is there, and not to be resolved.
        ``files`` are written first, text or bytes by relative name; with ``copy``, it starts as a copy of what
        is readable below. It is in memory, and belongs to the caller with ``mode``.
        Raises `ConfigurationError` where it cannot be there or is private already, `KernelError` where the
        kernel refuses, OSError where it cannot be filled.
        """
        self.check()
        self._touched = True
        contents.check(files or {})
        view = self._own_view()

        def lay() -> tuple[int, int | None, dict[str, str]]:
            with view.entered():
                target, below = view.directory(path, mode)
                return target, below, view.hidden_by(target)

        def take_back() -> None:
            with view.entered():
                view.drop_directory(target)

        target, below, hidden = ferry.call(lay)
        try:
            if copy and below is not None:
                contents.copy(below, target)
            contents.write(target, {**hidden, **(files or {})})
        except BaseException:
            ferry.call(take_back)
            raise
        finally:
            if below is not None:
                os.close(below)
        return contents.outside_path(target)

    def _identity(self) -> tuple[str, Mapping[str, str]]:
        """The host name, and the text of files by path, that programs here see."""
        return self.name, {}

    def _make_view(self) -> None:
        """For people who step in from a shell: have the view that programs see, before the first of them."""
        view = self._own_view()

        def make() -> None:
            with view.entered():
                pass

        ferry.call(make)

    def _own_view(self) -> View:
        with self._lock:
            if self._view is None:
                self._view = View(self._namespace, *self._identity())
            return self._view

    def _separate_processes(self) -> None:
        """Give the programs here a PID namespace of their own; raises `KernelError`, and then there is none."""
        from netwarren.runtime.pid_namespace import PidNamespace

        self._processes = PidNamespace(self._namespace, self._own_view())
        try:
            self._processes.begin()
        except BaseException:
            self._kill_processes()
            self._end_processes()
            self._unwatch()
            raise

    # --- the end ---

    @property
    def namespace_fd(self) -> int:
        """The descriptor of the network namespace, for setns(2) or a netlink library; do not close it."""
        self.check()
        self._touched = True
        return self._namespace.fd

    def check(self) -> None:
        """Raise `ClosedError` where this machine is gone."""
        if self._gone:
            self._refuse()

    @property
    def gone(self) -> str:
        """Why this machine is not there any more (``was removed``), or nothing."""
        return self._gone

    def _refuse(self) -> None:
        raise ClosedError(self.label, self._gone, self._remedy)

    def _retire(self, state: str, remedy: str) -> None:
        """From now on nothing new begins here; ``state`` says why ("was removed")."""
        if not self._gone:
            self._gone, self._remedy = state, remedy

    @property
    def inode(self) -> int:
        """The identity of the network namespace, as in ``readlink /proc/PID/ns/net``."""
        return self._namespace.inode

    @property
    def _had_children(self) -> bool:
        """Whether children of this process have ended since; they may have left children of theirs here."""
        return process.reaped() != self._reaped

    def _give_up_threads(self) -> tuple[list[Background[Any]], Any]:
        """For `end_all`: the background threads and the loop, which are not this machine's any more."""
        with self._lock:
            backgrounds, self.backgrounds = self.backgrounds, []
            loop, self._loop = self._loop, None
        return backgrounds, loop

    def _kill_processes(self) -> None:
        """For `end_all`: where this machine has a PID namespace, kill everybody in it; `_end_processes` waits."""
        if self._processes is not None:
            self._processes.kill()

    def _end_processes(self) -> None:
        if self._processes is not None:
            self._processes.end(
                [program._process for program in self.programs if program._processes is not None]
            )

    def _unwatch(self) -> None:
        """For `end_all`: the warden may let go of the namespace, and so do we of what goes with it."""
        warden.unwatch(self._namespace)
        if self._view is not None:
            self._view.close()

    def _stepped(self) -> contextlib.AbstractContextManager[None]:
        """``with`` for this library's own errands, which may go on in a machine that is retired."""
        return _Stepped(self._namespace)


class _Stepped(contextlib.AbstractContextManager[None]):
    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def __enter__(self) -> None:
        standing.step_in(self._namespace)

    def __exit__(self, *error: object) -> None:
        standing.step_out(self._namespace)
