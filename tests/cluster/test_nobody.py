"""Addresses that nobody has are refused by a router, with an error, and not met with silence."""

from ipaddress import ip_address

import pytest

from netwarren import Cluster
from netwarren.runtime.machine import Machine
from tests.cluster.readback import way
from tests.cluster.traffic import connect_refusal, refusal

FAMILIES = pytest.mark.parametrize("families", ["ipv4", "ipv6"])

# From an unreachable route, or for want of one; which of them IPv6 says is the kernel's business.
UNREACHABLE = {"EHOSTUNREACH", "ENETUNREACH"}


def free_address(cluster: Cluster, node: str, number: int = 99) -> str:
    return str(ip_address(int(cluster.node(node).spec.families[0].pod_range.network_address) + number))


@FAMILIES
@pytest.mark.parametrize("of", ["node-a", "node-b"])
@pytest.mark.parametrize("asker", ["a", "b", "node-a", "root"])
def test_an_address_no_pod_has_is_refused_at_once(families: str, asker: str, of: str) -> None:
    with Cluster(families=families) as cluster:
        askers: dict[str, Machine] = {
            "a": cluster.add_pod("a", "node-a"),
            "b": cluster.add_pod("b", "node-b"),
            "node-a": cluster.node("node-a"),
            "root": cluster.root,
        }
        assert refusal(askers[asker], free_address(cluster, of)) in UNREACHABLE


@FAMILIES
def test_an_address_outside_the_cluster_is_refused_at_once(families: str) -> None:
    with Cluster(families=families) as cluster:
        outside = "192.0.2.1" if families == "ipv4" else "2001:db8::1"
        assert refusal(cluster.add_pod("a"), outside) in UNREACHABLE
        assert refusal(cluster.root, outside) == "ENETUNREACH"


@FAMILIES
def test_the_pod_range_of_a_node_that_is_not_there_is_refused_at_once(families: str) -> None:
    with Cluster(families=families) as cluster:
        pod, gone = cluster.add_pod("a", "node-a"), free_address(cluster, "node-b")
        cluster.remove_node("node-b")
        assert refusal(pod, gone) in UNREACHABLE


@FAMILIES
def test_a_pod_refuses_a_port_nobody_listens_on(families: str) -> None:
    with Cluster(families=families) as cluster:
        a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
        pairs: list[tuple[Machine, str]] = [(a, b.ip), (b, a.ip), (cluster.root, a.ip)]
        refusals = [
            refuse(asker, address) for refuse in (connect_refusal, refusal) for asker, address in pairs
        ]
        assert set(refusals) == {"ECONNREFUSED"}


@FAMILIES
def test_connecting_to_an_address_nobody_has_fails_and_does_not_wait(families: str) -> None:
    with Cluster(families=families) as cluster:
        pod = cluster.add_pod("a", "node-a")
        assert connect_refusal(pod, free_address(cluster, "node-a")) in UNREACHABLE
        assert connect_refusal(pod, free_address(cluster, "node-b")) in UNREACHABLE


def test_the_node_answers_for_its_range_by_a_route(cluster: Cluster) -> None:
    cluster.add_pod("a", "node-a")
    assert way(cluster.node("node-a"), free_address(cluster, "node-a")) == "EHOSTUNREACH"
    assert way(cluster.root, "192.0.2.1") == "ENETUNREACH"


def test_a_cluster_without_ipv6_has_no_way_to_an_ipv6_address(cluster: Cluster) -> None:
    pod = cluster.add_pod("a")
    assert way(pod, "fd00:10:0:1::2") == refusal(pod, "fd00:10:0:1::2") == "ENETUNREACH"
