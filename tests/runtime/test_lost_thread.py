"""A thread that cannot be brought back is never used again."""

import errno
import threading
from collections.abc import Callable

import pytest

from netwarren import Pod
from netwarren.errors import SteppingError
from netwarren.kernel import syscall
from netwarren.runtime import ferry, standing
from tests.runtime.conftest import in_thread, where


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, the calling thread cannot change its namespace."""

    def begin() -> None:
        stuck = threading.get_ident()

        def setns(fd: int, flags: int, /) -> None:
            if threading.get_ident() == stuck:
                raise OSError(errno.EPERM, "Operation not permitted")
            syscall.setns(fd, flags)

        monkeypatch.setattr(standing, "setns", setns)

    return begin


def test_leaving_says_that_the_thread_is_lost(pod: Pod, failing: Callable[[], None]) -> None:
    def lose() -> None:
        with pod:
            failing()

    with pytest.raises(SteppingError, match=r"is lost: it could not be brought back to .*not used again"):
        in_thread(lose)


def test_a_lost_thread_is_refused_from_then_on(
    pod: Pod, other: Pod, failing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = []

    def lose() -> None:
        with pytest.raises(SteppingError), pod:
            failing()
        monkeypatch.undo()  # it could go anywhere again, but nobody knows where it stands
        for step in (other.__enter__, lambda: other.run(where), lambda: other.socket()):
            with pytest.raises(SteppingError) as refusal:
                step()
            refusals.append(str(refusal.value))

    in_thread(lose)
    assert len(refusals) == 3
    assert all("stands in an unknown namespace" in refusal for refusal in refusals)


def test_other_threads_go_on(pod: Pod, failing: Callable[[], None]) -> None:
    def lose() -> None:
        with pytest.raises(SteppingError), pod:
            failing()

    in_thread(lose)
    with pod:
        assert where() == pod.inode


def test_a_pod_that_cannot_be_entered_is_told_and_loses_nothing(
    pod: Pod, failing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def try_it() -> None:
        with pod:
            pass
        failing()
        with pytest.raises(SteppingError, match="cannot step into pod 'first'"), pod:
            pass
        monkeypatch.undo()
        with pod:
            assert where() == pod.inode
        assert where() != pod.inode

    in_thread(try_it)


def test_a_lost_ferry_is_replaced(
    pod: Pod, failing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = ferry.call(threading.get_ident)
    ferry.call(failing)
    monkeypatch.undo()
    found = ferry.call(lambda: (threading.get_ident(), where()))
    assert found == (found[0], standing.home().inode)
    assert found[0] != lost
    assert pod.popen(["true"]).wait() == 0
