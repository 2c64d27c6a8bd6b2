"""Which way packets go, told by what every router on it does to them: TTL, MAC addresses, source address."""

from dataclasses import dataclass

import pytest

from netwarren import Cluster, Node, Pod
from netwarren.runtime.machine import Machine
from tests.cluster.readback import inside, way
from tests.cluster.traffic import Tap, connect, datagram, mark

FAMILIES = pytest.mark.parametrize("families", ["ipv4", "ipv6"])


@dataclass
class World:
    """Two pods on node-a, one on node-b, and where each of them is to be found."""

    cluster: Cluster
    a: Pod
    beside: Pod
    b: Pod
    node_a: Node
    node_b: Node

    def machine(self, name: str) -> tuple[Machine, str]:
        if name == "root":
            return self.cluster.root, str(self.cluster.bridge_addresses[0].ip)
        machine: Pod | Node = getattr(self, name)
        return machine, machine.ip


def world(cluster: Cluster) -> World:
    return World(
        cluster,
        cluster.add_pod("a", "node-a"),
        cluster.add_pod("beside", "node-a"),
        cluster.add_pod("b", "node-b"),
        cluster.node("node-a"),
        cluster.node("node-b"),
    )


# How many routers are between two machines, each of which takes one off a TTL of 64.
ROUTERS = [
    ("a", "beside", 1),  # their node
    ("a", "b", 2),  # both nodes; a third would be the root
    ("b", "a", 2),
    ("a", "node_a", 0),
    ("node_a", "a", 0),
    ("a", "node_b", 1),
    ("node_b", "a", 1),
    ("node_a", "node_b", 0),
    ("a", "root", 1),
    ("root", "a", 1),
    ("root", "node_a", 0),
    ("node_a", "root", 0),
]


@FAMILIES
@pytest.mark.parametrize(("near", "far", "routers"), ROUTERS)
def test_a_packet_passes_the_nodes_between_and_nobody_else(
    families: str, near: str, far: str, routers: int
) -> None:
    with Cluster(families=families) as cluster:
        there = world(cluster)
        (sender, _), (receiver, address) = there.machine(near), there.machine(far)
        assert datagram(sender, receiver, address).ttl == 64 - routers


@FAMILIES
@pytest.mark.parametrize(
    ("near", "far"), [(near, far) for near, far, _ in ROUTERS if near not in ("node_a", "node_b")]
)
def test_who_is_called_sees_the_callers_own_address(families: str, near: str, far: str) -> None:
    with Cluster(families=families) as cluster:
        there = world(cluster)
        (client, own), (server, address) = there.machine(near), there.machine(far)
        with connect(client, server, address) as made:
            assert made.seen_from == own
        assert datagram(client, server, address).source == own


@FAMILIES
def test_a_node_calls_other_nodes_pods_by_its_own_address(families: str) -> None:
    with Cluster(families=families) as cluster:
        there = world(cluster)
        with connect(there.node_b, there.a, there.a.ip) as made:
            assert made.seen_from == there.node_b.ip


@FAMILIES
def test_a_node_calls_its_own_pods_by_the_address_they_know_it_by(families: str) -> None:
    with Cluster(families=families) as cluster:
        there = world(cluster)
        with connect(there.node_a, there.a, there.a.ip) as made:
            assert made.seen_from == str(there.node_a.spec.families[0].gateway)


@FAMILIES
def test_between_pods_of_one_node_every_packet_passes_both_their_links_in_the_node(families: str) -> None:
    with Cluster(families=families) as cluster:
        there = world(cluster)
        word = mark()
        first, second = inside(there.a).link("eth0"), inside(there.beside).link("eth0")
        node = {link.index: link for link in inside(there.node_a).links}
        ends = [node[link.peer_index or 0] for link in (first, second)]
        with Tap(there.node_a, ends[0].name) as entry, Tap(there.node_a, ends[1].name) as exit:
            datagram(there.a, there.beside, there.beside.ip, word)
            assert [(frame.source_mac, frame.destination_mac) for frame in entry.frames(word)] == [
                (first.mac, ends[0].mac)
            ]
            assert [(frame.source_mac, frame.destination_mac) for frame in exit.frames(word)] == [
                (ends[1].mac, second.mac)
            ]


@FAMILIES
def test_between_nodes_packets_cross_the_bridge_from_node_to_node(families: str) -> None:
    with Cluster(families=families) as cluster:
        there = world(cluster)
        word = mark()
        near, far = inside(there.node_a).link("eth0"), inside(there.node_b).link("eth0")
        ports = {link.index: link.name for link in inside(cluster.root).links}
        with Tap(cluster.root, ports[near.peer_index or 0]) as port:
            datagram(there.a, there.b, there.b.ip, word)
            assert [(frame.source_mac, frame.destination_mac) for frame in port.frames(word)] == [
                (near.mac, far.mac)
            ]


@FAMILIES
def test_between_nodes_packets_do_not_enter_the_root(families: str) -> None:
    with Cluster(families=families) as cluster:
        there = world(cluster)
        with Tap(cluster.root, "br0") as bridge:
            passing, entering = mark(), mark()
            datagram(there.a, there.b, there.b.ip, passing)
            assert bridge.frames(passing) == []
            datagram(there.a, cluster.root, str(cluster.bridge_addresses[0].ip), entering)
            assert len(bridge.frames(entering)) == 1


@FAMILIES
def test_a_third_node_sees_nothing_of_what_two_others_say_once_they_have_spoken(families: str) -> None:
    with Cluster(families=families, nodes=("node-a", "node-b", "node-c")) as cluster:
        there = world(cluster)
        datagram(there.a, there.b, there.b.ip)
        datagram(there.b, there.a, there.a.ip)
        word = mark()
        with Tap(cluster.node("node-c"), "eth0") as elsewhere:
            datagram(there.a, there.b, there.b.ip, word)
            datagram(there.b, there.a, there.a.ip, word)
            assert elsewhere.frames(word) == []


@FAMILIES
def test_the_first_packet_of_every_pair_arrives(families: str) -> None:
    with Cluster(families=families) as cluster:
        there = world(cluster)
        lost = {}
        for near, far, _ in ROUTERS:
            (client, _), (server, address) = there.machine(near), there.machine(far)
            with connect(client, server, address) as made:
                lost[near, far] = made.sent_again
        assert set(lost.values()) == {0}, lost


def test_no_router_tells_a_pod_of_a_better_way(cluster: Cluster) -> None:
    there = world(cluster)
    for receiver in (there.beside, there.b):
        for _ in range(3):
            datagram(there.a, receiver, receiver.ip)
        route = way(there.a, receiver.ip)
        assert not isinstance(route, str)
        assert str(route.via) == "10.0.1.1"
