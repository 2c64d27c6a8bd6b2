"""What a pod, a node and the root look like to whoever is inside and asks the kernel."""

from ipaddress import ip_network

import pytest

from netwarren import Cluster
from tests.cluster.readback import inside, way

V6 = pytest.mark.cluster(families="ipv6")
DUAL = pytest.mark.cluster(families="dual")


def test_a_pod_has_lo_and_eth0_and_nothing_else(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    links = inside(pod).links
    assert [(link.name, link.running) for link in links] == [("lo", True), ("eth0", True)]


def test_a_pods_eth0_is_a_veth_whose_other_end_is_in_its_node(cluster: Cluster) -> None:
    pod = cluster.add_pod("client", node="node-b")
    eth0 = inside(pod).link("eth0")
    (outside,) = [link for link in inside(pod.node).links if link.index == eth0.peer_index]
    assert (outside.kind, outside.peer_index, outside.running) == ("veth", eth0.index, True)


def test_a_pod_has_its_address_with_the_length_of_its_nodes_range(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    assert inside(pod).addresses_on("eth0") == [f"{pod.ip}/24"] == ["10.0.1.2/24"]


def test_a_pod_has_one_default_route_and_it_goes_through_its_node(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    default = [route for route in inside(pod).routes if route.destination == ip_network("0.0.0.0/0")]
    assert [str(route) for route in default] == [f"default via 10.0.1.1 dev {inside(pod).link('eth0').index}"]
    assert "10.0.1.1/32" in [str(each.interface) for each in inside(pod.node).addresses]


def test_even_a_pod_beside_it_is_behind_the_node(cluster: Cluster) -> None:
    pod, beside = cluster.add_pod("client"), cluster.add_pod("server")
    route = way(pod, beside.ip)
    assert not isinstance(route, str)
    assert str(route.via) == "10.0.1.1"


def test_a_pod_knows_no_neighbour_but_its_node(cluster: Cluster) -> None:
    pod, beside = cluster.add_pod("client"), cluster.add_pod("server")
    outside = inside(pod.node).link("veth1001")
    assert [(str(each.address), each.mac) for each in inside(pod).neighbours] == [("10.0.1.1", outside.mac)]
    assert inside(pod).link("eth0").mac != inside(beside).link("eth0").mac


@V6
def test_a_pod_of_an_ipv6_cluster_has_one_default_route_and_a_link_local_address(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    eth0 = inside(pod).link("eth0")
    default = [route for route in inside(pod).routes if route.destination == ip_network("::/0")]
    assert [str(route.via) for route in default] == ["fd00:10:0:1::1"]
    addresses = inside(pod).addresses_on("eth0")
    assert f"{pod.ip}/64" in addresses
    assert sorted(address.startswith("fe80:") for address in addresses) == [False, True]
    assert eth0.running


@DUAL
def test_a_pod_of_a_dual_stack_cluster_has_a_default_route_in_each_family(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    default = [str(route.via) for route in inside(pod).routes if route.destination.prefixlen == 0]
    assert default == ["10.0.1.1", "fd00:10:0:1::1"]


@pytest.mark.parametrize("families", ["ipv4", "ipv6", "dual"])
def test_every_route_the_kernel_would_take_is_the_one_the_tables_show(families: str) -> None:
    with Cluster(families=families) as cluster:
        a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
        for number, address in enumerate(b.ips):
            gateway = str(a.node.spec.families[number].gateway)
            found = [way(machine, address) for machine in (a, a.node, b.node, cluster.root)]
            assert not any(isinstance(route, str) for route in found), found
            vias = [str(route.via) for route in found if not isinstance(route, str)]
            assert vias == [gateway, b.node.ips[number], "None", b.node.ips[number]]


def test_a_node_knows_the_pod_range_of_every_other_node(cluster: Cluster) -> None:
    a, b, c = cluster.node("node-a"), cluster.node("node-b"), cluster.add_node("node-c")
    for node in (a, b, c):
        routes = {str(route.destination): str(route.via) for route in inside(node).routes if route.via}
        others = {str(other.spec.families[0].pod_range): other.ip for other in (a, b, c) if other is not node}
        assert routes == {"0.0.0.0/0": "172.18.0.1", **others}


def test_every_node_hangs_on_the_bridge_of_the_root(cluster: Cluster) -> None:
    nodes = cluster.nodes.values()
    root = inside(cluster.root)
    bridge = root.link("br0")
    ports = {link.index for link in root.links if link.master == bridge.index}
    assert ports == {inside(node).link("eth0").peer_index for node in nodes}
    assert (bridge.kind, bridge.stp, bridge.forward_delay) == ("bridge", False, 0.0)
    assert root.addresses_on("br0") == [str(each) for each in cluster.bridge_addresses] == ["172.18.0.1/16"]


@DUAL
def test_no_address_is_tentative_once_a_pod_is_there(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    held = [address for machine in (pod, pod.node, cluster.root) for address in inside(machine).addresses]
    assert [str(address) for address in held if address.tentative or address.duplicate] == []


def test_an_ipv4_cluster_has_no_ipv6_address_but_that_of_lo(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    for machine in (pod, pod.node, cluster.root):
        held = [str(each.interface) for each in inside(machine).addresses if each.interface.version == 6]
        assert held == ["::1/128"]


@V6
def test_an_ipv6_cluster_has_no_ipv4_address_but_that_of_lo(cluster: Cluster) -> None:
    pod = cluster.add_pod("client")
    for machine in (pod, pod.node, cluster.root):
        held = [str(each.interface) for each in inside(machine).addresses if each.interface.version == 4]
        assert held == ["127.0.0.1/8"]
