"""Where this thread stands: stepping into a namespace and back, on the thread itself.

Rules: every step in is a frame on the thread's own stack, and stepping out restores what is below it; a
thread that cannot be brought back is never used again; a thread in the host's namespace, which no
sandboxed process may re-enter, comes back to the sandbox's home namespace instead.
Does not belong here: other threads (see `ferry`), tasks (see `tasks`).
"""

import contextlib
import errno
import sys
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from netwarren.errors import SteppingError
from netwarren.kernel import link, netns
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.netns import Namespace
from netwarren.kernel.syscall import CLONE_NEWNET, setns
from netwarren.runtime import host

LOOPBACK = 1  # the ifindex of lo, in every namespace


class _Guard(Protocol):
    def cancel(self) -> None: ...


class _StepEnd:
    """The guard where the end of each step is one."""

    def cancel(self) -> None:
        pass


class Frame:
    """One step in: a ``with`` block, or one step of a task (``is_step``)."""

    __slots__ = ("guard", "is_step", "namespace")

    def __init__(self, namespace: Namespace, is_step: bool) -> None:
        self.namespace = namespace
        self.is_step = is_step
        self.guard: _Guard | None = None


class Here(threading.local):
    """The calling thread's own view: where it returns to, and its open frames."""

    def __init__(self) -> None:
        self.base: Namespace | None = None
        # The inode of a namespace that was found to be none of ours, so that it is not tried each time.
        self.no_return = 0
        self.frames: list[Frame] = []
        self.lives_in: Namespace | None = None
        self.lost = ""


here = Here()


# --- home -----------------------------------------------------------------------------------------

_home: Namespace | None = None
_home_lock = threading.Lock()


def home() -> Namespace:
    """The sandbox's home namespace: nothing in it but lo, made when it is first needed."""
    global _home
    if _home is None:
        with _home_lock:
            if _home is None:
                _home = _make_home()
    return _home


def _make_home() -> Namespace:
    made: list[Namespace] = []
    failed: list[BaseException] = []

    def make() -> None:  # on a thread of its own, which stays where it lands and ends
        try:
            namespace = netns.create("home")
            with Netlink("home") as netlink:
                netlink.commit([link.set_link(LOOPBACK, up=True)])
            made.append(namespace)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=make, name="netwarren-home")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


# --- where a thread returns to --------------------------------------------------------------------


def can_return() -> bool:
    """Whether this thread can step out of a pod to where it stands now."""
    return here.base is not None or _learn()


def left_the_host() -> bool:
    """Whether this thread has gone through the one-way door: its base is the sandbox's home namespace."""
    return here.base is not None and here.base is _home


def live_in(namespace: Namespace) -> None:
    """Move this thread to ``namespace`` for good: from now on that is where it returns to."""
    host.stay()
    _set(namespace)
    here.base = namespace
    here.lives_in = namespace if namespace is not _home else None
    here.frames.clear()


def in_pod() -> Namespace | None:
    """The namespace this thread stands or lives in, where that is a pod's; None at home and elsewhere."""
    found = here.frames[-1].namespace if here.frames else here.lives_in
    return found if found is not None and found.fd >= 0 else None


def _learn() -> bool:
    """Find out whether the present namespace is one of ours, and make it the base if so."""
    inode = netns.inode_of()
    if inode == here.no_return:
        return False
    if _home is not None and inode == _home.inode:
        here.base = _home
        return True
    present = netns.here("where the thread started")
    try:
        setns(present.fd, CLONE_NEWNET)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        here.no_return = inode
        present.close()
        return False
    host.stay()
    here.base = present
    return True


def _base() -> Namespace:
    if here.base is None and not _learn():
        # The one-way door: from the host's namespace, which belongs to the user namespace we left.
        host.stay()
        here.base = home()
    assert here.base is not None
    return here.base


# --- stepping -------------------------------------------------------------------------------------


def _set(namespace: Namespace) -> None:
    try:
        setns(namespace.fd, CLONE_NEWNET)
    except OSError as error:
        raise SteppingError(
            f"cannot step into {namespace.label}: {error.strerror} (errno {error.errno})"
        ) from None


def restore() -> None:
    """Stand where the open frames say: in the top one's namespace, or at the base."""
    target = here.frames[-1].namespace if here.frames else _base()
    try:
        setns(target.fd, CLONE_NEWNET)
    except OSError as error:
        here.lost = f"it could not be brought back to {target.label} ({error.strerror})"
        raise SteppingError(
            f"thread {threading.current_thread().name!r} is lost: {here.lost}; it is not used again"
        ) from error


def _refuse_lost() -> None:
    if here.lost:
        raise SteppingError(
            f"thread {threading.current_thread().name!r} stands in an unknown namespace, because {here.lost}; "
            "use another thread"
        )


def step_in(namespace: Namespace) -> None:
    """Begin a ``with`` block: this thread stands in ``namespace`` until `step_out`."""
    if here.lost:
        _refuse_lost()
    if here.base is None:
        _base()
    _set(namespace)
    frame = Frame(namespace, False)
    frames = here.frames
    if not frames or not any(below.is_step for below in frames):
        frame.guard = _guard_loop(frame)
    frames.append(frame)


def step_out(namespace: Namespace) -> None:
    """End a ``with`` block; raises `SteppingError` where it is not this thread's innermost one."""
    frames = here.frames
    if frames:
        frame = frames[-1]
        if frame.namespace is namespace and not frame.is_step:
            frames.pop()
            if frame.guard is not None:
                frame.guard.cancel()
            restore()
            return
    for position in range(len(frames) - 1, -1, -1):
        frame = frames[position]
        if frame.namespace is namespace and not frame.is_step:
            del frames[position]
            if frame.guard is not None:
                frame.guard.cancel()
            restore()
            raise SteppingError(
                f"`with {namespace.label}` was left before the blocks inside it; leave the innermost one first"
            )
    raise SteppingError(
        f"`with {namespace.label}` was suspended (an await or yield inside it) or is left on another thread; "
        f"the thread went back meanwhile. In coroutines write `async with {namespace.label}`"
    )


def begin_step(namespace: Namespace) -> int:
    """Begin one step of a task that lives in ``namespace``; give the result to `end_step`."""
    if here.lost:
        _refuse_lost()
    frames = here.frames
    depth = len(frames)
    if namespace.fd >= 0:  # else the pod is gone, and its task goes on at the base, where there is nothing
        if here.base is None:
            _base()
        _set(namespace)
        frames.append(Frame(namespace, True))
    return depth


def end_step(depth: int) -> None:
    """End the step begun at ``depth``; ``with`` blocks left open in it are cut, and say so later."""
    frames = here.frames
    if len(frames) > depth:
        del frames[depth:]
        restore()


def in_step() -> bool:
    """Whether the running code is a step of a task that lives in some namespace."""
    return bool(here.frames) and any(frame.is_step for frame in here.frames)


def check_nesting(namespace: Namespace) -> None:
    """Raise `SteppingError` where a task is about to live in ``namespace`` from inside a ``with`` block."""
    top = here.frames[-1] if here.frames else None
    if top is not None and not top.is_step and (top.guard is not None or in_step()):
        raise SteppingError(
            f"`async with {namespace.label}` inside `with {top.namespace.label}` does not nest; write "
            "`async with` for both"
        )


@contextlib.contextmanager
def at_rest() -> Iterator[None]:
    """For a moment, stand where this thread stands between steps; what is born meanwhile is born there."""
    frames = here.frames
    lowest = next((depth for depth, frame in enumerate(frames) if frame.is_step), len(frames))
    _set(frames[lowest - 1].namespace if lowest else _base())
    try:
        yield
    finally:
        restore()


def switch_step(namespace: Namespace | None) -> None:
    """Move the running step to ``namespace``, or to where the thread stands between steps."""
    frame = here.frames[-1]
    if not frame.is_step:
        raise SteppingError(
            f"`async with` inside `with {frame.namespace.label}` does not nest; write `async with` for both"
        )
    if namespace is None or namespace.fd < 0:
        below = here.frames[-2].namespace if len(here.frames) > 1 else _base()
        frame.namespace = below
    else:
        frame.namespace = namespace
    _set(frame.namespace)


# --- a `with` block must not span an await --------------------------------------------------------


def in_trio() -> bool:
    """Whether the running code is a task of trio's."""
    trio: Any = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run()) and bool(trio.lowlevel.in_trio_task())


def _guard_loop(frame: Frame) -> _Guard | None:
    """Where a loop runs on this thread, have it bring the thread back if the block gets suspended."""
    if in_trio():
        from netwarren.runtime import trio_tasks

        trio_tasks.install()  # whose every step ends by cutting the blocks that were begun in it
        return _StepEnd()
    events: Any = sys.modules.get("asyncio.events")
    loop = events._get_running_loop() if events is not None else None
    if loop is None:
        return None
    handle: _Guard = loop.call_soon(_trip, frame)
    ready = getattr(loop, "_ready", None)
    if ready is not None and ready and ready[-1] is handle:
        # To the front, so that no other callback of this turn runs in the pod before the guard does.
        ready.pop()
        ready.appendleft(handle)
    return handle


def _trip(frame: Frame) -> None:
    if frame in here.frames:
        del here.frames[here.frames.index(frame) :]
        restore()
