"""``with pod:`` and threads: each stands for itself."""

import threading

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import SteppingError
from tests.runtime.conftest import in_thread, where


def test_a_block_holds_for_its_thread_only(pod: Pod) -> None:
    entered, looked = threading.Event(), threading.Event()

    def stay() -> None:
        with pod:
            entered.set()
            assert looked.wait(30)

    thread = threading.Thread(target=stay)
    thread.start()
    assert entered.wait(30)
    assert where() != pod.inode
    looked.set()
    thread.join()


def test_many_threads_hop_at_once_and_never_meet(cluster: Cluster) -> None:
    pods = [cluster.add_pod(f"p{number}") for number in range(6)]
    start = threading.Barrier(len(pods))
    wrong: list[str] = []

    def hop(number: int) -> None:
        start.wait(30)
        home: int | None = None
        for turn in range(100):
            pod = pods[(number + turn) % len(pods)]
            with pod:
                if where() != pod.inode:
                    wrong.append(f"not in {pod.name}")
            home = home or where()
            if where() != home:
                wrong.append("not back")

    threads = [threading.Thread(target=hop, args=(number,)) for number in range(len(pods))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_thread_born_in_a_pod_stays_there(pod: Pod) -> None:
    seen: list[int] = []
    with pod:
        thread = threading.Thread(target=lambda: seen.append(where()))
        thread.start()
    thread.join()
    assert seen == [pod.inode]


def test_a_thread_born_in_a_pod_comes_back_to_it(pod: Pod, other: Pod) -> None:
    seen: list[int] = []

    def visit() -> None:
        with other:
            seen.append(where())
        seen.append(where())

    with pod:
        in_thread(visit)
    assert seen == [other.inode, pod.inode]


def test_a_block_left_on_another_thread_says_so(pod: Pod) -> None:
    with pod:
        with pytest.raises(SteppingError, match="left on another thread"):
            in_thread(lambda: pod.__exit__(None, None, None))
        assert where() == pod.inode
