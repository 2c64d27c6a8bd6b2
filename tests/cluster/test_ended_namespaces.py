"""Namespaces of closed clusters: they end several at a time, and all end."""

import os
import warnings
from collections.abc import Iterator

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster import ended

pytestmark = pytest.mark.usefixtures("_netwarren_sandbox")


@pytest.fixture(autouse=True)
def _none_held() -> Iterator[None]:
    ended.empty()
    yield
    ended.empty()


def held_by(pod: Pod) -> bool:
    return any(each.inode == pod.inode for each in ended._held)


def test_a_closed_clusters_pod_is_held_until_there_are_enough() -> None:
    with Cluster() as cluster:
        pod = cluster.add_pod("pod")
    assert held_by(pod)
    for _ in range(ended.ENOUGH):
        assert len(ended._held) < ended.ENOUGH
        with Cluster() as cluster:
            cluster.add_pod("pod")
    assert not held_by(pod)


def test_a_removed_pod_ends_at_once(cluster: Cluster) -> None:
    pod = cluster.add_pod("pod")
    pod.remove()
    assert not held_by(pod)


def test_a_cluster_of_many_pods_leaves_none_held() -> None:
    with Cluster() as cluster:
        for number in range(ended.ENOUGH):
            cluster.add_pod(f"pod-{number}")
    assert not ended._held


def test_a_forked_child_holds_none() -> None:
    with Cluster() as cluster:
        cluster.add_pod("pod")
    before = [each.inode for each in ended._held]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if not ended._held else 1)
    _pid, status = os.waitpid(child, 0)
    assert status == 0
    assert before
    assert [os.fstat(each.fd).st_ino for each in ended._held] == before  # here they stay
