"""The end of background threads: asked, woken, interrupted, and named where they stay."""

import socket
import threading
from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import BackgroundError
from netwarren.runtime import background as module

Ready = Callable[[], None]


def test_stop_is_set_when_the_cluster_closes(cluster: Cluster, pod: Pod) -> None:
    stopped = threading.Event()

    def work(stop: threading.Event) -> str:
        stop.wait()
        stopped.set()
        return "in order"

    background = pod.start(work)
    cluster.close()
    assert stopped.is_set()
    assert background.result(0) == "in order"


def test_stop_is_set_when_the_pod_is_removed(cluster: Cluster, pod: Pod) -> None:
    background = pod.start(lambda stop: stop.wait())
    cluster.remove_pod(pod)
    assert background.state == "finished"


def accept(ready: Ready) -> None:
    with socket.create_server(("", 80)) as server:
        ready()
        server.accept()


def receive(ready: Ready) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("", 53))
        ready()
        plain.recv(10)


def receive_from_connection(ready: Ready) -> None:
    with socket.create_server(("", 80)) as server, socket.create_connection(("127.0.0.1", 80)) as client:
        ready()
        client.recv(10)
        server.close()


@pytest.mark.parametrize("function", [accept, receive, receive_from_connection])
def test_a_thread_blocked_in_a_socket_ends_at_close(
    cluster: Cluster, pod: Pod, function: Callable[[Ready], None]
) -> None:
    background = pod.start(function)
    cluster.close()
    assert background.state == "finished"


@pytest.mark.parametrize("function", [accept, receive])
def test_what_a_thread_raises_while_it_is_ended_is_not_told(
    cluster: Cluster, pod: Pod, function: Callable[[Ready], None]
) -> None:
    pod.start(function)
    cluster.close()


def test_a_busy_thread_is_interrupted(cluster: Cluster, pod: Pod) -> None:
    def busy(ready: Ready) -> None:
        ready()
        while True:
            pass

    background = pod.start(busy)
    cluster.close()
    assert background.state == "finished"


def test_what_a_thread_tidies_up_when_interrupted_is_not_interrupted_again(
    cluster: Cluster, pod: Pod
) -> None:
    tidied = []

    def busy(ready: Ready) -> None:
        ready()
        try:
            while True:
                pass
        finally:
            for number in range(6):
                threading.Event().wait(0.03)
                tidied.append(number)

    pod.start(busy)
    cluster.close()
    assert tidied == [0, 1, 2, 3, 4, 5]


def test_a_thread_that_will_not_end_is_named_with_where_it_stands(
    cluster: Cluster, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.2)
    block = threading.Event()

    def stubborn(ready: Ready) -> None:
        ready()
        while not block.is_set():
            try:
                wait_for_good()
            except BaseException:
                continue

    def wait_for_good() -> None:
        block.wait()

    background = pod.start(stubborn)
    with pytest.raises(BackgroundError, match="stubborn in pod 'first' does not end") as raised:
        cluster.close()
    assert "wait_for_good" in str(raised.value)
    assert cluster.closed
    block.set()
    background.result(30)


def test_one_that_was_never_ready_ends_with_the_cluster(cluster: Cluster, pod: Pod) -> None:
    ended = threading.Event()

    def silent(ready: Ready) -> None:
        try:
            with socket.create_server(("", 80)) as server:
                server.accept()
        finally:
            ended.set()

    with pytest.raises(BackgroundError, match="has not called ready"):
        pod.start(silent, ready_timeout=0.01)
    cluster.close()
    assert ended.wait(30)


def test_threads_of_many_pods_end_together(cluster: Cluster) -> None:
    backgrounds = [cluster.add_pod(f"p{number}").start(accept) for number in range(8)]
    cluster.close()
    assert {background.state for background in backgrounds} == {"finished"}


def test_a_thread_may_close_its_own_cluster(cluster: Cluster, pod: Pod) -> None:
    background = pod.start(cluster.close)
    background.result(30)
    assert cluster.closed


def test_no_thread_is_left_after_many(cluster: Cluster, pod: Pod) -> None:
    pod.start(int).result(30)
    before = threading.active_count()
    threads = []
    for _ in range(50):
        background = pod.start(threading.current_thread)
        threads.append(background.result(30))
    for thread in threads:
        thread.join(30)
    assert threading.active_count() <= before
