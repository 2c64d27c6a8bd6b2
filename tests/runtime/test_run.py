"""``pod.run``: a call in the pod."""

import contextvars
import threading
import traceback

import pytest

from netwarren import ClosedError, Cluster, Pod
from tests.runtime.conftest import in_thread, where

NAME = contextvars.ContextVar("NAME", default="unset")


def test_it_returns_what_the_function_does_in_the_pod(pod: Pod) -> None:
    assert pod.run(where) == pod.inode


def test_the_thread_stands_where_it_stood(pod: Pod) -> None:
    before = where()
    pod.run(where)
    assert where() == before


def test_arguments_are_passed_on(pod: Pod) -> None:
    def gather(*args: int, **options: str) -> tuple[tuple[int, ...], dict[str, str]]:
        return args, options

    assert pod.run(gather, 1, 2, function="f", self="s") == ((1, 2), {"function": "f", "self": "s"})


def test_it_raises_what_the_function_raises_with_its_traceback(pod: Pod) -> None:
    def deep() -> None:
        raise LookupError("from the depth")

    with pytest.raises(LookupError, match="from the depth") as raised:
        pod.run(deep)
    assert "deep" in [frame.name for frame in traceback.extract_tb(raised.tb)]


def test_after_an_exception_the_thread_is_back(pod: Pod) -> None:
    with pytest.raises(ZeroDivisionError):
        pod.run(lambda: 1 // 0)
    assert where() != pod.inode


def test_calls_nest(pod: Pod, other: Pod) -> None:
    assert pod.run(lambda: (other.run(where), where())) == (other.inode, pod.inode)


def test_inside_a_block_it_comes_back_to_the_blocks_pod(pod: Pod, other: Pod) -> None:
    with pod:
        assert other.run(where) == other.inode
        assert where() == pod.inode


def test_context_variables_are_the_callers(pod: Pod) -> None:
    token = NAME.set("mine")
    try:
        assert pod.run(NAME.get) == "mine"
    finally:
        NAME.reset(token)


def test_any_thread_may_call(pod: Pod) -> None:
    seen = []
    in_thread(lambda: seen.append(pod.run(where)))
    assert seen == [pod.inode]


def test_many_threads_call_at_once(cluster: Cluster, pod: Pod, other: Pod) -> None:
    wrong = []

    def call() -> None:
        for _ in range(50):
            if pod.run(where) != pod.inode or other.run(where) != other.inode:
                wrong.append("elsewhere")

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_removed_pod_is_refused(cluster: Cluster, pod: Pod) -> None:
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError, match="was removed"):
        pod.run(where)


def test_a_coroutine_function_is_only_called(pod: Pod) -> None:
    async def inode() -> int:
        return where()

    coroutine = pod.run(inode)
    coroutine.close()
