"""Ranges and addresses that a user chose: pods and nodes have them, and can be reached there."""

from ipaddress import ip_address, ip_network

import pytest

from netwarren import Cluster, ConfigurationError
from tests.cluster.readback import inside
from tests.cluster.traffic import reaches


@pytest.mark.cluster(pod_range="192.168.0.0/20", node_range="10.9.0.0/24")
def test_pods_and_nodes_get_their_addresses_from_the_ranges_given(cluster: Cluster) -> None:
    a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
    assert (a.ip, b.ip) == ("192.168.1.2", "192.168.2.2")
    assert (a.node.ip, b.node.ip) == ("10.9.0.2", "10.9.0.3")
    assert [str(each) for each in cluster.bridge_addresses] == ["10.9.0.1/24"]
    assert reaches(a, b, b.ip)


def test_a_pod_prefix_cuts_the_pod_range_into_ranges_of_that_length() -> None:
    with Cluster(pod_range="10.64.0.0/16", pod_prefix=28) as cluster:
        nodes = cluster.nodes.values()
        assert [str(node.spec.families[0].pod_range) for node in nodes] == ["10.64.0.16/28", "10.64.0.32/28"]
        a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
        assert inside(a).addresses_on("eth0") == ["10.64.0.18/28"]
        assert reaches(a, b, b.ip)


@pytest.mark.cluster(families="dual", pod_range=("10.64.0.0/16", "fd01::/56"), node_range="fd02::/64")
def test_each_family_has_a_range_of_its_own(cluster: Cluster) -> None:
    a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
    assert a.ips == ("10.64.1.2", "fd01:0:0:1::2")
    assert a.node.ips == ("172.18.0.2", "fd02::2")
    assert all(reaches(a, b, address) for address in b.ips)


def test_a_node_may_ask_for_its_address_and_its_pods_range(cluster: Cluster) -> None:
    node = cluster.add_node("edge", address="172.18.7.7", pod_range="10.2.3.0/24")
    pod, other = cluster.add_pod("server", node), cluster.add_pod("client", "node-a")
    assert (node.ip, pod.ip) == ("172.18.7.7", "10.2.3.2")
    assert reaches(other, pod, pod.ip)
    assert reaches(other, node, node.ip)


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_a_pod_may_ask_for_any_address_of_its_nodes_range(families: str) -> None:
    with Cluster(families=families) as cluster:
        spec = cluster.node("node-a").spec.families[0].pod_range
        client = cluster.add_pod("client", "node-b")
        for wanted in (3, 77, 254):
            address = str(ip_address(int(spec.network_address) + wanted))
            pod = cluster.add_pod(f"pod-{wanted}", "node-a", address=address)
            assert pod.ip == cluster.resolve(pod.name) == address
            assert reaches(client, pod, address)
            assert reaches(pod, client, client.ip)


def test_addresses_that_were_asked_for_are_not_handed_out_to_others(cluster: Cluster) -> None:
    cluster.add_pod("asked", address="10.0.1.3")
    others = [cluster.add_pod(f"other-{number}").ip for number in range(3)]
    assert others == ["10.0.1.2", "10.0.1.4", "10.0.1.5"]


def test_the_smallest_ranges_there_can_be_still_connect_a_pod_on_each_node() -> None:
    with Cluster(pod_range="10.0.0.0/28", pod_prefix=30, node_range="172.18.0.0/29") as cluster:
        a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
        assert (a.ip, b.ip) == ("10.0.0.6", "10.0.0.10")
        assert reaches(a, b, b.ip)
        assert reaches(b, a, a.ip)


def test_public_addresses_are_as_good_as_any_inside(cluster: Cluster) -> None:
    with Cluster(pod_range="8.8.0.0/16", node_range="1.1.1.0/24") as public:
        a, b = public.add_pod("a", "node-a", address="8.8.1.8"), public.add_pod("b", "node-b")
        assert reaches(b, a, "8.8.1.8")


def test_ranges_may_be_given_as_objects_of_ipaddress() -> None:
    with Cluster(pod_range=ip_network("10.128.0.0/12"), node_range=ip_network("10.9.0.0/24")) as cluster:
        pod = cluster.add_pod("a", address=ip_address("10.128.1.9"))
        assert (pod.ip, pod.node.ip) == ("10.128.1.9", "10.9.0.2")


def test_a_prefix_for_two_families_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="pod_prefix=24 cannot fit both"):
        Cluster(families="dual", pod_prefix=24)
