"""Addresses and ranges that cannot be: the error says which and why, and the cluster is as it was."""

from collections.abc import Callable

import pytest

from netwarren import (
    AddressError,
    AddressTaken,
    Cluster,
    DuplicateName,
    InvalidName,
    NetwarrenError,
    RangeExhausted,
    UnknownName,
)
from tests.cluster.readback import state
from tests.cluster.traffic import reaches


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            AddressTaken,
            lambda c: c.add_pod("b", "node-a", address="10.0.1.2"),
            r"pod address 10\.0\.1\.2 is taken by pod a;",
        ),
        (
            AddressError,
            lambda c: c.add_pod("b", "node-a", address="10.0.2.2"),
            r"10\.0\.2\.2 is outside 10\.0\.1\.0/24, the pod range of node-a; ask for one from 10\.0\.1\.2",
        ),
        (
            AddressError,
            lambda c: c.add_pod("b", "node-a", address="10.0.1.1"),
            r"10\.0\.1\.1 is the gateway of the pods in",
        ),
        (
            AddressError,
            lambda c: c.add_pod("b", "node-a", address="10.0.1.255"),
            r"10\.0\.1\.255 is the broadcast address in",
        ),
        (
            AddressError,
            lambda c: c.add_pod("b", "node-a", address="10.0.1.0"),
            r"10\.0\.1\.0 is the address of the network itself in",
        ),
        (
            AddressError,
            lambda c: c.add_pod("b", "node-a", address="fd00::2"),
            r"fd00::2 is IPv6, which this cluster does not have",
        ),
        (
            AddressError,
            lambda c: c.add_pod("b", "node-a", address="10.0.1"),
            r"'10\.0\.1' is not an address; write it like",
        ),
        (
            AddressTaken,
            lambda c: c.add_node("c", address="172.18.0.2"),
            r"node address 172\.18\.0\.2 is taken by node node-a;",
        ),
        (
            AddressError,
            lambda c: c.add_node("c", address="172.18.0.1"),
            r"172\.18\.0\.1 is the address of the root in",
        ),
        (
            AddressError,
            lambda c: c.add_node("c", address="10.0.1.9"),
            r"10\.0\.1\.9 is outside 172\.18\.0\.0/16, the node range",
        ),
        (
            AddressTaken,
            lambda c: c.add_node("c", pod_range="10.0.1.0/24"),
            r"pod range 10\.0\.1\.0/24 is taken by node node-a;",
        ),
        (
            AddressError,
            lambda c: c.add_node("c", pod_range="10.0.8.0/22"),
            r"10\.0\.8\.0/22 is a /22, and this cluster gives each node a /24",
        ),
        (
            AddressError,
            lambda c: c.add_node("c", pod_range="192.168.1.0/24"),
            r"192\.168\.1\.0/24 is outside 10\.0\.0\.0/14, the pod range of the cluster",
        ),
        (
            AddressError,
            lambda c: c.add_node("c", pod_range="10.0.9.1/24"),
            r"10\.0\.9\.1/24 is inside a range, not one; the range is 10\.0\.9\.0/24",
        ),
        (
            DuplicateName,
            lambda c: c.add_pod("a", "node-b"),
            r"pod 'a' exists already \(10\.0\.1\.2 on node-a\)",
        ),
        (DuplicateName, lambda c: c.add_pod("node-a"), r"node 'node-a' exists already"),
        (DuplicateName, lambda c: c.add_node("a"), r"pod 'a' exists already"),
        (DuplicateName, lambda c: c.add_node("node-a"), r"node 'node-a' exists already"),
        (InvalidName, lambda c: c.add_pod("Web"), r"pod name 'Web' contains the capital letter 'W'"),
        (InvalidName, lambda c: c.add_node("web_1"), r"node name 'web_1' contains '_'"),
        (UnknownName, lambda c: c.add_pod("b", "node-z"), r"'node-z'; there are: node-a, node-b"),
        (UnknownName, lambda c: c.remove_pod("z"), r"no pod is called 'z'; there are: a"),
        (UnknownName, lambda c: c.remove_node("z"), r"no node is called 'z'; there are: node-a, node-b"),
    ],
)
def test_a_refusal_names_the_thing_and_changes_nothing(
    cluster: Cluster, kind: type[NetwarrenError], change: Callable[[Cluster], object], message: str
) -> None:
    a, b = cluster.add_pod("a", "node-a"), cluster.node("node-b")
    before = state(cluster)
    with pytest.raises(kind, match=message):
        change(cluster)
    assert state(cluster) == before
    assert reaches(cluster.add_pod("later", b), a, a.ip)


def test_a_dual_stack_pod_refused_in_one_family_keeps_no_address_in_the_other() -> None:
    with Cluster(families="dual") as cluster:
        cluster.add_pod("a", address="fd00:10:0:1::9")
        before = state(cluster)
        with pytest.raises(AddressTaken, match="fd00:10:0:1::9 is taken by pod a"):
            cluster.add_pod("b", address=("10.0.1.7", "fd00:10:0:1::9"))
        assert state(cluster) == before
        assert cluster.add_pod("c", address="10.0.1.7").ips[0] == "10.0.1.7"


def test_a_full_pod_range_says_how_many_there_are_and_takes_one_more_after_a_removal() -> None:
    with Cluster(pod_range="10.0.0.0/16", pod_prefix=29) as cluster:
        for number in range(5):
            cluster.add_pod(f"pod-{number}", "node-a")
        before = state(cluster)
        with pytest.raises(
            RangeExhausted, match=r"no pod address is left in 10\.0\.0\.8/29: all 5 are taken"
        ):
            cluster.add_pod("one-more", "node-a")
        assert state(cluster) == before
        cluster.remove_pod("pod-3")
        assert cluster.add_pod("one-more", "node-a").ip == "10.0.0.13"


def test_no_more_nodes_than_the_pod_range_has_parts() -> None:
    with Cluster(nodes=(), pod_range="10.0.0.0/22", pod_prefix=24) as cluster:
        for number in range(3):
            cluster.add_node(f"node-{number}")
        before = state(cluster)
        with pytest.raises(RangeExhausted, match=r"no per-node pod range is left in 10\.0\.0\.0/22: all 3"):
            cluster.add_node("one-more")
        assert state(cluster) == before
        cluster.remove_node("node-1")
        assert str(cluster.add_node("one-more").spec.families[0].pod_range) == "10.0.2.0/24"


def test_no_more_nodes_than_the_node_range_has_addresses() -> None:
    with Cluster(nodes=(), node_range="172.18.0.0/29") as cluster:
        for number in range(5):
            cluster.add_node(f"node-{number}")
        with pytest.raises(RangeExhausted, match=r"no node address is left in 172\.18\.0\.0/29: all 5"):
            cluster.add_node("one-more")
        assert sorted(cluster.built_nodes) == [f"node-{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("pods", "nodes", "message"),
    [
        ("10.0.0.0/8", "10.9.0.0/24", "overlap"),
        ("127.0.0.0/8", "172.18.0.0/16", "loopback addresses"),
        ("224.0.0.0/8", "172.18.0.0/16", "multicast addresses"),
        ("10.0.0.0/30", "172.18.0.0/16", "would do"),
        ("10.0.0.0/14", "172.18.0.0/31", "no room for a node"),
        ("10.0.0.0/14", "here", "'here' is not a range"),
        ("fd00::/48", "172.18.0.0/16", "IPv6, which this cluster does not have"),
    ],
)
def test_ranges_that_cannot_work_make_no_cluster(pods: str, nodes: str, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        Cluster(pod_range=pods, node_range=nodes)
