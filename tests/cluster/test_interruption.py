"""Ctrl-C at any line of a change: the pod or node is there and works, or it is not there at all."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from netwarren import Cluster, Node, Pod, cluster
from netwarren.cluster import stock, wiring
from netwarren.runtime import ferry
from tests.cluster.readback import inside, state
from tests.cluster.traffic import reaches

_FILES = {cluster.cluster.__file__, wiring.__file__, stock.__file__}

# Lines that undo are not interrupted: Ctrl-C twice within a millisecond is beyond what is promised.
_UNDOING = {"undo", "_forget", "_withdraw", "discard", "give_up"}


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line of the cluster's own code that runs on this thread."""

    def __init__(self, line: int) -> None:
        self.left = line
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> "Interrupt | None":
        if frame.f_code.co_filename not in _FILES or frame.f_code.co_name in _UNDOING:
            return None
        if event == "line" and not self.where:
            self.left -= 1
            if self.left < 0:
                self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self


@contextmanager
def tracing(tracer: Interrupt) -> Iterator[None]:
    previous = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(previous)


CHANGES: dict[str, Callable[[Cluster], Any]] = {
    "pod": lambda made: made.add_pod("late", "node-a", address="10.0.1.77"),
    "node": lambda made: made.add_node("late", address="172.18.0.77", pod_range="10.0.77.0/24"),
}


@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or coverage traces this session")
@pytest.mark.parametrize("change", CHANGES)
def test_an_interrupted_change_is_whole_or_undone(change: str) -> None:
    with Cluster() as made:
        first = made.add_pod("a", "node-a")
        made.node("node-b")
        with made.root:
            pass  # from now on this thread changes the cluster itself, and not by way of the ferry
        assert threading.current_thread().name != "netwarren-ferry"
        before = state(made)
        for line in range(10_000):
            tracer = Interrupt(line)
            try:
                with tracing(tracer):
                    CHANGES[change](made)
            except KeyboardInterrupt:
                pass
            if "late" in {**made.pods, **made.built_nodes}:
                late: Pod | Node = made.pods["late"] if change == "pod" else made.built_nodes["late"]
                assert reaches(first, late, late.ip), tracer.where
                late.remove()
            assert state(made) == before, tracer.where
            if not tracer.where:
                break  # it ran to its end: there is no line left to interrupt
        else:
            pytest.fail("it never ends")
        assert line > 30


@pytest.mark.parametrize("change", CHANGES)
def test_a_real_signal_in_the_middle_is_raised_and_the_cluster_is_whole(change: str) -> None:
    with Cluster() as made:
        first = made.add_pod("a", "node-a")
        done = threading.Event()
        create = wiring.Wiring.create

        def interrupted(self: wiring.Wiring, *arguments: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            done.set()
            return create(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wiring.Wiring, "create", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ferry.call(lambda: None)  # the ferry is there
                CHANGES[change](made)
        if "late" not in {**made.pods, **made.built_nodes}:
            CHANGES[change](made)
        late = {**made.pods, **made.built_nodes}["late"]
        assert reaches(first, late, late.ip)
        assert len(inside(first).links) == 2
