"""Clusters beside and after one another know nothing of each other, even with the same addresses."""

import socket

import pytest

from netwarren import Cluster
from tests.cluster.readback import inside, state
from tests.cluster.traffic import Tap, datagram, listener, mark, new_socket, reaches, refusal


def test_two_clusters_at_once_use_the_same_addresses(cluster: Cluster) -> None:
    with Cluster() as other:
        pods = [each.add_pod(name, node) for each in (cluster, other) for name, node in TWO]
        assert [pod.ip for pod in pods] == ["10.0.1.2", "10.0.2.2"] * 2
        assert reaches(pods[0], pods[1], pods[1].ip)
        assert reaches(pods[2], pods[3], pods[3].ip)


TWO = (("a", "node-a"), ("b", "node-b"))


def test_what_is_said_in_one_cluster_is_not_heard_in_the_other(cluster: Cluster) -> None:
    with Cluster() as other:
        mine = [cluster.add_pod(name, node) for name, node in TWO]
        theirs = [other.add_pod(name, node) for name, node in TWO]
        word = mark()
        taps = [Tap(other.root, "veth1001"), Tap(other.node("node-b"), "eth0"), Tap(theirs[1], "eth0")]
        try:
            assert datagram(mine[0], mine[1], mine[1].ip, word).data == word
            assert [tap.frames(word) for tap in taps] == [[], [], []]
        finally:
            for tap in taps:
                tap.__exit__(None, None, None)


def test_a_pod_of_one_cluster_cannot_reach_into_another(cluster: Cluster) -> None:
    with Cluster(pod_range="10.200.0.0/16", node_range="172.30.0.0/16") as other:
        mine, theirs = cluster.add_pod("a"), other.add_pod("a")
        # Two, because that is how many such answers a router gives one asker in a row.
        for address in (theirs.ip, theirs.node.ip):
            assert refusal(mine, address) == "ENETUNREACH"


def test_changes_in_one_cluster_leave_the_other_alone(cluster: Cluster) -> None:
    cluster.add_pod("a", "node-a")
    before = state(cluster)
    with Cluster() as other:
        other.add_pod("a", "node-a")
        other.remove_node("node-a")
    assert state(cluster) == before


@pytest.mark.parametrize("families", ["ipv4", "dual"])
def test_a_cluster_after_another_is_as_new_as_the_first(families: str) -> None:
    kernels = []
    for _ in range(4):
        with Cluster("again", families=families) as cluster:
            empty = inside(cluster.root)
            assert {link.name for link in empty.links} == {"lo", "br0"}
            a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
            assert all(reaches(a, b, address) for address in b.ips)
            kernels.append(state(cluster).kernel)
    assert all(kernel == kernels[0] for kernel in kernels)


def test_what_was_done_in_the_root_of_one_cluster_is_not_there_in_the_next() -> None:
    left: list[socket.socket] = []
    try:
        for _ in range(3):
            with Cluster() as cluster:
                cluster.add_pod("a")
                made = listener(cluster.root, "172.18.0.1", 7777)  # would be in use, in the same root
                left.append(made)
    finally:
        for made in left:
            made.close()


def test_a_cluster_inside_the_time_of_another_may_be_closed_first_or_last() -> None:
    one, two, three = Cluster(), Cluster(), Cluster()
    pods = [each.add_pod("a") for each in (one, two, three)]
    two.close()
    one.close()
    assert pods[2].ip == three.resolve("a")
    with new_socket(pods[2], pods[2].ip, socket.SOCK_DGRAM) as made:
        made.bind((pods[2].ip, 0))
    three.close()
