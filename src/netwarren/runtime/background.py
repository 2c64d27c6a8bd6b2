"""Code in the background of a pod: a thread that lives there, with a handshake and no silent death.

Rules: a failure is kept until somebody has seen it, and told at the end otherwise; a thread that will
not end is named with where it stands, not waited for without end.
Does not belong here: programs (see `program`), tasks (see `tasks`), coroutines (see `loop`).
"""

import contextvars
import ctypes
import inspect
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from netwarren.errors import BackgroundError
from netwarren.kernel.netns import Namespace
from netwarren.runtime import standing, tasks

P = ParamSpec("P")
T = TypeVar("T")

READY_SECONDS = 10.0
END_SECONDS = 2.0
_PATIENCE = 0.05  # how long a thread may take to end when its sockets are closed
_STOP_PATIENCE = 1.0  # and one that takes `stop`, and so ends in its own time, be the machine ever so busy


class Stopped(BaseException):
    """Raised inside a background function when its pod ends and it does not by itself."""


class Background(Generic[T]):
    """A function running on a thread of its own inside a pod; made by ``pod.start``.

    ``value`` is what the function passed to ``ready``. The function may take two keyword arguments by
    name: ``ready``, a callable that it calls once it can be used (``start`` waits for that), and
    ``stop``, a `threading.Event` that is set when the pod ends.
    """

    def __init__(self, namespace: Namespace, function: Callable[..., T], where: str) -> None:
        self.name = getattr(function, "__name__", repr(function))
        self.where = where
        self.value: Any = None
        self._namespace = namespace
        self._function = function
        self._result: T | None = None
        self._failure: BaseException | None = None
        self._seen = False
        self._takes_stop = False
        self._called_ready = False
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._stop = threading.Event()
        self._leaving = threading.Lock()
        self._left = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Background {self.name} in {self.where}: {self.state}>"

    @property
    def state(self) -> str:
        """``running``, ``finished``, or ``failed: ...``."""
        if not self._ended.is_set():
            return "running"
        return f"failed: {self._failure!r}" if self._failure is not None else "finished"

    def _begin(self, arguments: tuple[Any, ...], options: dict[str, Any], seconds: float) -> None:
        """Start the thread and wait for its handshake. Raises what the function raised before it, and
        `BackgroundError` where it returned or was silent for ``seconds`` without having called ready."""
        names = _keywords(self._function)
        handshake = "ready" in names and "ready" not in options
        if handshake:
            options["ready"] = self._call_ready
        if "stop" in names and "stop" not in options:
            options["stop"] = self._stop
            self._takes_stop = True
        entered = self._launch(arguments, options)
        if not handshake:
            entered.wait()
            return
        if not self._ready.wait(seconds):
            raise BackgroundError(
                f"{self.name} in {self.where} has not called ready() within {seconds:g} s; it stands at:\n"
                f"{self._stands_at()}"
            )
        if not self._called_ready:
            self.result()
            raise BackgroundError(f"{self.name} in {self.where} returned before it called ready()")

    def _run_once(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Start the thread with exactly these arguments, for a caller that waits for the `result`."""
        self._launch(arguments, options)

    def _launch(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> threading.Event:
        entered = threading.Event()
        context = contextvars.copy_context()
        context.run(tasks.entered.set, ())  # the caller's task may live in a pod; this thread does not
        self._thread = threading.Thread(
            target=context.run,
            args=(self._run, entered, arguments, options),
            name=f"{self.where}:{self.name}",
            daemon=True,
        )
        self._thread.start()
        return entered

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end; return what the function returned or raise what it raised.

        Raises TimeoutError where it does not end within ``timeout`` seconds.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.name} in {self.where} still runs after {timeout:g} s")
        self._seen = True
        if self._failure is not None:
            raise self._failure
        return self._result  # type: ignore[return-value]

    def _ask_to_stop(self) -> None:
        """Set the function's ``stop`` event; what it raises from now on is not told any more."""
        self._stop.set()
        with self._leaving:
            if not self._left and self._thread is not None:
                _raise_in(
                    self._thread.ident, None
                )  # of an `end` before, so that it may tidy up when it wakes

    def _end(self) -> BaseException | None:
        """Bring the thread to its end; returns what nobody has been told about yet, or None."""
        untold = self._failure if self._ended.is_set() and not self._seen else None
        self._stop.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return untold
        if not self._ended.wait(_STOP_PATIENCE if self._takes_stop else _PATIENCE):
            with self._leaving:
                if not self._left:
                    # Once, so that what it does in its `finally` is not interrupted, too. Wakes nothing
                    # that sleeps in the kernel, which the end of the pod's sockets does.
                    _raise_in(thread.ident, Stopped)
            self._ended.wait(END_SECONDS)
        if not self._ended.is_set() and untold is None:
            return BackgroundError(
                f"{self.name} in {self.where} does not end; let it take `stop` (a threading.Event) and look at "
                f"it, or give its waits a timeout. It stands at:\n{self._stands_at()}"
            )
        return untold

    def _run(self, entered: threading.Event, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        try:
            try:
                standing.live_in(self._namespace)
                entered.set()
                self._result = self._function(*arguments, **options)
            except BaseException as failure:
                if not self._stop.is_set():
                    self._failure = failure
        except Stopped:
            pass  # it came between the function's end and here
        while not self._ended.is_set():
            try:
                self._leave(entered)
            except Stopped:
                continue

    def _leave(self, entered: threading.Event) -> None:
        with self._leaving:
            self._left = True
            _raise_in(threading.get_ident(), None)
        entered.set()
        self._ready.set()
        self._ended.set()

    def _call_ready(self, value: Any = None) -> None:
        self.value = value
        self._called_ready = True
        self._ready.set()

    def _stands_at(self) -> str:
        return stands_at(self._thread)


def stands_at(thread: threading.Thread | None) -> str:
    """The innermost lines of what ``thread`` is doing, for a message."""
    ident = thread.ident if thread is not None else None
    frame = sys._current_frames().get(ident or 0)
    return "".join(traceback.format_stack(frame)[-4:]) if frame is not None else "(it has just ended)"


def _raise_in(ident: int | None, kind: type[BaseException] | None) -> None:
    """Have ``kind`` raised in a thread, at its next line of Python; None takes that back."""
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    exception = ctypes.py_object(kind) if kind is not None else None
    settle, here = ctypes.py_object(_Settled), ctypes.c_ulong(threading.get_ident())
    try:
        set_exception(ctypes.c_ulong(ident or 0), exception)
        if exception is None and sys.version_info < (3, 12):
            # Python 3.11 remembers "there is an exception to raise" until it has raised one, and where
            # there is none, every function call under a tracer (coverage, a debugger) waits for ever.
            set_exception(here, settle)
            for _ in range(1000):
                pass
    except _Settled:
        pass


class _Settled(BaseException):
    pass


def _keywords(function: Callable[..., Any]) -> set[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name for parameter in parameters if parameter.kind in by_name}
