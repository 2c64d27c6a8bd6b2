"""Pods to run code in, and where a thread stands."""

import os
import threading
import time
from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod
from netwarren.kernel import netns


def where() -> int:
    """The namespace that the calling thread stands in."""
    return netns.inode_of()


def in_thread(function: Callable[[], object]) -> None:
    """Call ``function`` on a new thread and raise what it raises."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for what nothing tells of: a descriptor closed or a thread ended by somebody else."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        os.sched_yield()


@pytest.fixture
def pod(cluster: Cluster) -> Pod:
    return cluster.add_pod("first")


@pytest.fixture
def other(cluster: Cluster, pod: Pod) -> Pod:
    """Another pod, on another node than `pod`."""
    return cluster.add_pod("second", node="node-b")
