"""``pod.start``: a thread in the pod, with a handshake."""

import contextvars
import socket
import threading
from collections.abc import Callable

import pytest

from netwarren import ClosedError, Cluster, Pod
from netwarren.errors import BackgroundError
from tests.runtime.conftest import where

NAME = contextvars.ContextVar("NAME", default="unset")


def test_it_runs_in_the_pod_on_a_thread_of_its_own(pod: Pod) -> None:
    background = pod.start(lambda: (where(), threading.get_ident()))
    inode, ident = background.result(30)
    assert inode == pod.inode
    assert ident != threading.get_ident()


def test_it_returns_once_the_function_is_ready(pod: Pod, other: Pod) -> None:
    def serve(ready: Callable[[int], None]) -> bytes:
        with socket.create_server(("", 0)) as server:
            ready(server.getsockname()[1])
            connection, _ = server.accept()
            with connection:
                return connection.recv(10)

    background = pod.start(serve)
    with other, socket.create_connection((pod.ip, background.value), timeout=10) as client:
        client.sendall(b"hello")
    assert background.result(30) == b"hello"


def test_ready_may_be_called_without_a_value(pod: Pod) -> None:
    def serve(ready: Callable[[], None]) -> str:
        ready()
        return "done"

    background = pod.start(serve)
    assert background.value is None
    assert background.result(30) == "done"


def test_arguments_are_passed_on_beside_ready_and_stop(pod: Pod) -> None:
    def serve(
        a: int, ready: Callable[[object], None], *, b: int, stop: threading.Event
    ) -> tuple[int, int, bool]:
        ready(a)
        return a, b, stop.is_set()

    background = pod.start(serve, 1, b=2)
    assert (background.value, background.result(30)) == (1, (1, 2, False))


def test_a_ready_of_the_callers_own_is_left_alone(pod: Pod) -> None:
    def serve(ready: str) -> str:
        return ready

    assert pod.start(serve, ready="mine").result(30) == "mine"


def test_without_a_handshake_there_is_no_value(pod: Pod) -> None:
    background = pod.start(lambda: 5)
    assert background.result(30) == 5
    assert background.value is None


def test_a_failure_before_ready_is_raised_by_start(cluster: Cluster, pod: Pod) -> None:
    def serve(ready: Callable[[], None]) -> None:
        raise ValueError("no port for me")

    with pytest.raises(ValueError, match="no port for me"):
        pod.start(serve)
    assert pod.backgrounds == []
    cluster.close()  # told already


def test_returning_before_ready_is_an_error(pod: Pod) -> None:
    def serve(ready: Callable[[], None]) -> int:
        return 1

    with pytest.raises(BackgroundError, match=r"serve in pod 'first' returned before it called ready\(\)"):
        pod.start(serve)


def test_silence_names_the_line_it_stands_at(pod: Pod) -> None:
    block = threading.Event()

    def serve(ready: Callable[[], None], stop: threading.Event) -> None:
        wait_in_a_function_with_a_telling_name()

    def wait_in_a_function_with_a_telling_name() -> None:
        block.wait(30)

    with pytest.raises(BackgroundError, match=r"within 0\.05 s") as raised:
        threading.Timer(0.3, block.set).start()
        pod.start(serve, ready_timeout=0.05)
    assert "wait_in_a_function_with_a_telling_name" in str(raised.value)


def test_a_later_failure_is_raised_by_result(cluster: Cluster, pod: Pod) -> None:
    def fail() -> None:
        raise ValueError("later")

    background = pod.start(fail)
    with pytest.raises(ValueError, match="later"):
        background.result(30)
    cluster.close()  # seen already


def test_a_failure_nobody_has_seen_is_raised_at_close(cluster: Cluster, pod: Pod) -> None:
    ended = threading.Event()

    def fail() -> None:
        try:
            raise ValueError("unseen")
        finally:
            ended.set()

    background = pod.start(fail)
    assert ended.wait(30)
    while background.state == "running":
        threading.Event().wait(0.001)
    with pytest.raises(BackgroundError, match="unseen") as raised:
        cluster.close()
    assert isinstance(raised.value.__cause__, ValueError)
    assert cluster.closed


def test_a_failure_nobody_has_seen_is_raised_at_removal(cluster: Cluster, pod: Pod) -> None:
    background = pod.start(lambda: 1 // 0)
    while background.state == "running":
        threading.Event().wait(0.001)
    with pytest.raises(BackgroundError, match="ZeroDivisionError"):
        cluster.remove_pod(pod)
    assert "first" not in cluster.pods


def test_system_exit_in_a_thread_is_a_failure_too(cluster: Cluster, pod: Pod) -> None:
    def leave() -> None:
        raise SystemExit(3)

    background = pod.start(leave)
    with pytest.raises(SystemExit):
        background.result(30)


def test_result_may_be_asked_for_again(pod: Pod) -> None:
    background = pod.start(lambda: 5)
    assert [background.result(30), background.result(30)] == [5, 5]


def test_result_with_a_timeout_does_not_wait_longer(pod: Pod) -> None:
    def wait(stop: threading.Event) -> None:
        stop.wait()

    background = pod.start(wait)
    with pytest.raises(TimeoutError, match=r"wait in pod 'first' still runs after 0\.01 s"):
        background.result(0.01)


def test_repr_and_state_follow_its_life(pod: Pod) -> None:
    go = threading.Event()

    def work() -> None:
        go.wait(30)

    background = pod.start(work)
    assert (background.state, repr(background)) == ("running", "<Background work in pod 'first': running>")
    go.set()
    background.result(30)
    assert background.state == "finished"
    failed = pod.start(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(30)
    assert failed.state.startswith("failed: ZeroDivisionError")


def test_context_variables_are_the_callers_at_the_start(pod: Pod) -> None:
    token = NAME.set("mine")
    try:
        assert pod.start(NAME.get).result(30) == "mine"
    finally:
        NAME.reset(token)


def test_a_thread_started_by_the_function_is_in_the_pod_as_well(pod: Pod) -> None:
    def parent() -> int:
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(where()))
        thread.start()
        thread.join()
        return seen[0]

    assert pod.start(parent).result(30) == pod.inode


def test_functions_without_a_signature_can_be_started(pod: Pod) -> None:
    assert pod.start(max, 1, 2).result(30) == 2


def test_a_removed_pod_is_refused(cluster: Cluster, pod: Pod) -> None:
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError):
        pod.start(where)
