"""The plans of whole clusters, in the words of `ip`; and what a plan of any cluster keeps to."""

import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from textwrap import dedent

import pytest

from netwarren.topology.addresses import Address
from netwarren.topology.links import BRIDGE_INDEX
from netwarren.topology.model import ClusterModel
from netwarren.topology.operations import (
    ROOT,
    AddAddress,
    AddBridge,
    AddNeighbour,
    AddRoute,
    AddVeth,
    DeleteNeighbour,
    DeleteRoute,
    Operation,
    Plan,
    SetDown,
    SettleAddress,
    SettleLink,
    SetUp,
    Step,
    Sysctl,
)
from netwarren.topology.plan import (
    plan_cluster,
    plan_node,
    plan_node_removal,
    plan_nodes,
    plan_pod,
    plan_pod_removal,
    sysctls,
)
from netwarren.topology.specs import NodeSpec
from netwarren.topology.wellknown import NAME_SERVER


def cluster(families: Sequence[int] = (4,)) -> ClusterModel:
    """web and db on node-a, client on node-b."""
    model = ClusterModel(tuple(families))
    for node in ("node-a", "node-b"):
        model.add_node(node)
    for pod, node in (("web", "node-a"), ("db", "node-a"), ("client", "node-b")):
        model.add_pod(pod, node)
    return model


def in_words(plan: Plan) -> str:
    """A plan as `ip` commands without ``ip`` itself, links by index; every field of an operation shows."""
    lines = []
    for step in plan:
        lines.append(f"[{step.namespace or 'root'}]")
        lines += [_command(operation) for operation in step.operations]
    return "\n".join(lines) + "\n"


def _command(operation: Operation) -> str:
    match operation:
        case AddBridge(name, index, mac):
            return f"link add {name} index {index} address {mac} type bridge"
        case AddVeth(name, index, mac, peer, peer_index, peer_mac, peer_namespace, master):
            return (
                f"link add {name} index {index} address {mac}"
                + ("" if master is None else f" master {master}")
                + f" type veth peer {peer} index {peer_index} address {peer_mac} netns {peer_namespace}"
            )
        case SetUp(index):
            return f"link set {index} up"
        case SetDown(index):
            return f"link set {index} down"
        case SettleLink(index):
            return f"settle {index}"
        case SettleAddress(index, address):
            return f"settle {address} dev {index}"
        case AddAddress(index, interface, prefix_route):
            return f"addr add {interface} dev {index}" + ("" if prefix_route else " noprefixroute")
        case AddNeighbour(index, address, mac):
            return f"neigh replace {address} lladdr {mac} dev {index}"
        case DeleteNeighbour(index, address):
            return f"neigh del {address} dev {index}"
        case AddRoute(destination, via, index, source, kind):
            return _route("add", destination, via, index, source, kind)
        case DeleteRoute(destination, via, index, kind):
            return _route("del", destination, via, index, None, kind)
    raise AssertionError(operation)


def _route(verb: str, destination: object, via: object, index: object, source: object, kind: str) -> str:
    words = ["route", verb] + ([] if kind == "unicast" else [kind]) + [str(destination)]
    for word, value in (("via", via), ("dev", index), ("src", source)):
        if value is not None:
            words += [word, str(value)]
    return " ".join(words)


# --- IPv4 -----------------------------------------------------------------------------------------


def test_the_plan_of_an_ipv4_cluster_with_two_nodes_and_three_pods() -> None:
    model = cluster()
    nodes = list(model.nodes.values())
    assert in_words(plan_cluster(model.ranges)) == dedent("""\
        [root]
        link set 1 up
        addr add 169.254.20.10/32 dev 1
        addr add 169.254.20.11/32 dev 1
        link add br0 index 1000 address 0a:58:ac:12:00:01 type bridge
        link set 1000 up
        addr add 172.18.0.1/16 dev 1000
        """)
    assert in_words(plan_node(nodes[0], [])) == dedent("""\
        [root]
        link add veth1001 index 1001 address 0a:59:00:00:03:e9 master 1000 type veth \
peer eth0 index 1000 address 0a:58:ac:12:00:02 netns node-a
        link set 1001 up
        neigh replace 172.18.0.2 lladdr 0a:58:ac:12:00:02 dev 1000
        route add 10.0.1.0/24 via 172.18.0.2 dev 1000
        [node-a]
        link set 1 up
        link set 1000 up
        addr add 172.18.0.2/16 dev 1000
        neigh replace 172.18.0.1 lladdr 0a:58:ac:12:00:01 dev 1000
        route add 0.0.0.0/0 via 172.18.0.1 dev 1000
        route add unreachable 10.0.1.0/24
        [root]
        settle 1001
        settle 1000
        """)
    assert in_words(plan_node(nodes[1], nodes[:1])) == dedent("""\
        [root]
        link add veth1002 index 1002 address 0a:59:00:00:03:ea master 1000 type veth \
peer eth0 index 1000 address 0a:58:ac:12:00:03 netns node-b
        link set 1002 up
        neigh replace 172.18.0.3 lladdr 0a:58:ac:12:00:03 dev 1000
        route add 10.0.2.0/24 via 172.18.0.3 dev 1000
        [node-b]
        link set 1 up
        link set 1000 up
        addr add 172.18.0.3/16 dev 1000
        neigh replace 172.18.0.1 lladdr 0a:58:ac:12:00:01 dev 1000
        route add 0.0.0.0/0 via 172.18.0.1 dev 1000
        route add unreachable 10.0.2.0/24
        neigh replace 172.18.0.2 lladdr 0a:58:ac:12:00:02 dev 1000
        route add 10.0.1.0/24 via 172.18.0.2 dev 1000
        [node-a]
        neigh replace 172.18.0.3 lladdr 0a:58:ac:12:00:03 dev 1000
        route add 10.0.2.0/24 via 172.18.0.3 dev 1000
        [root]
        settle 1002
        settle 1000
        """)
    assert in_words(plan_pod(model.pod("web"), nodes[0])) == dedent("""\
        [node-a]
        link add veth1001 index 1001 address 0a:59:00:00:03:e9 type veth \
peer eth0 index 1000 address 0a:58:0a:00:01:02 netns web
        link set 1001 up
        addr add 10.0.1.1/32 dev 1001
        neigh replace 10.0.1.2 lladdr 0a:58:0a:00:01:02 dev 1001
        route add 10.0.1.2/32 dev 1001
        [web]
        link set 1 up
        link set 1000 up
        addr add 10.0.1.2/24 dev 1000 noprefixroute
        neigh replace 10.0.1.1 lladdr 0a:59:00:00:03:e9 dev 1000
        route add 10.0.1.1/32 dev 1000 src 10.0.1.2
        route add 10.0.1.0/24 via 10.0.1.1 dev 1000 src 10.0.1.2
        route add 0.0.0.0/0 via 10.0.1.1 dev 1000
        [node-a]
        settle 1001
        """)
    assert in_words(plan_pod(model.pod("db"), nodes[0])) == dedent("""\
        [node-a]
        link add veth1002 index 1002 address 0a:59:00:00:03:ea type veth \
peer eth0 index 1000 address 0a:58:0a:00:01:03 netns db
        link set 1002 up
        addr add 10.0.1.1/32 dev 1002
        neigh replace 10.0.1.3 lladdr 0a:58:0a:00:01:03 dev 1002
        route add 10.0.1.3/32 dev 1002
        [db]
        link set 1 up
        link set 1000 up
        addr add 10.0.1.3/24 dev 1000 noprefixroute
        neigh replace 10.0.1.1 lladdr 0a:59:00:00:03:ea dev 1000
        route add 10.0.1.1/32 dev 1000 src 10.0.1.3
        route add 10.0.1.0/24 via 10.0.1.1 dev 1000 src 10.0.1.3
        route add 0.0.0.0/0 via 10.0.1.1 dev 1000
        [node-a]
        settle 1002
        """)
    assert in_words(plan_pod(model.pod("client"), nodes[1])) == dedent("""\
        [node-b]
        link add veth1001 index 1001 address 0a:59:00:00:03:e9 type veth \
peer eth0 index 1000 address 0a:58:0a:00:02:02 netns client
        link set 1001 up
        addr add 10.0.2.1/32 dev 1001
        neigh replace 10.0.2.2 lladdr 0a:58:0a:00:02:02 dev 1001
        route add 10.0.2.2/32 dev 1001
        [client]
        link set 1 up
        link set 1000 up
        addr add 10.0.2.2/24 dev 1000 noprefixroute
        neigh replace 10.0.2.1 lladdr 0a:59:00:00:03:e9 dev 1000
        route add 10.0.2.1/32 dev 1000 src 10.0.2.2
        route add 10.0.2.0/24 via 10.0.2.1 dev 1000 src 10.0.2.2
        route add 0.0.0.0/0 via 10.0.2.1 dev 1000
        [node-b]
        settle 1001
        """)


def test_the_plan_of_removals_in_an_ipv4_cluster() -> None:
    model = cluster()
    assert in_words(plan_pod_removal(model.pod("db"))) == dedent("""\
        [node-a]
        route del 10.0.1.3/32 dev 1002
        link set 1002 down
        """)
    assert in_words(plan_node_removal(model.node("node-b"), [model.node("node-a")])) == dedent("""\
        [node-a]
        route del 10.0.2.0/24 via 172.18.0.3 dev 1000
        neigh del 172.18.0.3 dev 1000
        [root]
        route del 10.0.2.0/24 via 172.18.0.3 dev 1000
        neigh del 172.18.0.3 dev 1000
        link set 1002 down
        """)


# --- dual stack -----------------------------------------------------------------------------------


def test_the_plan_of_a_dual_stack_cluster_with_two_nodes_and_three_pods() -> None:
    model = cluster((4, 6))
    nodes = list(model.nodes.values())
    assert in_words(plan_cluster(model.ranges)) == dedent("""\
        [root]
        link set 1 up
        addr add 169.254.20.10/32 dev 1
        addr add 169.254.20.11/32 dev 1
        addr add fd00:169:254:20::10/128 dev 1
        settle fd00:169:254:20::10 dev 1
        addr add fd00:169:254:20::11/128 dev 1
        settle fd00:169:254:20::11 dev 1
        link add br0 index 1000 address 0a:58:ac:12:00:01 type bridge
        link set 1000 up
        addr add 172.18.0.1/16 dev 1000
        addr add fd00:172:18::1/64 dev 1000
        settle fd00:172:18::1 dev 1000
        addr add fe80::1/64 dev 1000
        """)
    assert in_words(plan_nodes(nodes, [])) == dedent("""\
        [root]
        link add veth1001 index 1001 address 0a:59:00:00:03:e9 master 1000 type veth \
peer eth0 index 1000 address 0a:58:ac:12:00:02 netns node-a
        link set 1001 up
        neigh replace 172.18.0.2 lladdr 0a:58:ac:12:00:02 dev 1000
        route add 10.0.1.0/24 via 172.18.0.2 dev 1000
        neigh replace fd00:172:18::2 lladdr 0a:58:ac:12:00:02 dev 1000
        route add fd00:10:0:1::/64 via fd00:172:18::2 dev 1000
        link add veth1002 index 1002 address 0a:59:00:00:03:ea master 1000 type veth \
peer eth0 index 1000 address 0a:58:ac:12:00:03 netns node-b
        link set 1002 up
        neigh replace 172.18.0.3 lladdr 0a:58:ac:12:00:03 dev 1000
        route add 10.0.2.0/24 via 172.18.0.3 dev 1000
        neigh replace fd00:172:18::3 lladdr 0a:58:ac:12:00:03 dev 1000
        route add fd00:10:0:2::/64 via fd00:172:18::3 dev 1000
        [node-a]
        link set 1 up
        link set 1000 up
        addr add fe80::858:acff:fe12:2/64 dev 1000
        addr add 172.18.0.2/16 dev 1000
        neigh replace 172.18.0.1 lladdr 0a:58:ac:12:00:01 dev 1000
        route add 0.0.0.0/0 via 172.18.0.1 dev 1000
        route add unreachable 10.0.1.0/24
        addr add fd00:172:18::2/64 dev 1000
        settle fd00:172:18::2 dev 1000
        neigh replace fd00:172:18::1 lladdr 0a:58:ac:12:00:01 dev 1000
        route add ::/0 via fd00:172:18::1 dev 1000
        route add unreachable fd00:10:0:1::/64
        neigh replace 172.18.0.3 lladdr 0a:58:ac:12:00:03 dev 1000
        route add 10.0.2.0/24 via 172.18.0.3 dev 1000
        neigh replace fd00:172:18::3 lladdr 0a:58:ac:12:00:03 dev 1000
        route add fd00:10:0:2::/64 via fd00:172:18::3 dev 1000
        [node-b]
        link set 1 up
        link set 1000 up
        addr add fe80::858:acff:fe12:3/64 dev 1000
        addr add 172.18.0.3/16 dev 1000
        neigh replace 172.18.0.1 lladdr 0a:58:ac:12:00:01 dev 1000
        route add 0.0.0.0/0 via 172.18.0.1 dev 1000
        route add unreachable 10.0.2.0/24
        addr add fd00:172:18::3/64 dev 1000
        settle fd00:172:18::3 dev 1000
        neigh replace fd00:172:18::1 lladdr 0a:58:ac:12:00:01 dev 1000
        route add ::/0 via fd00:172:18::1 dev 1000
        route add unreachable fd00:10:0:2::/64
        neigh replace 172.18.0.2 lladdr 0a:58:ac:12:00:02 dev 1000
        route add 10.0.1.0/24 via 172.18.0.2 dev 1000
        neigh replace fd00:172:18::2 lladdr 0a:58:ac:12:00:02 dev 1000
        route add fd00:10:0:1::/64 via fd00:172:18::2 dev 1000
        [root]
        settle 1001
        settle 1002
        settle 1000
        """)
    assert in_words(plan_pod(model.pod("web"), nodes[0])) == dedent("""\
        [node-a]
        link add veth1001 index 1001 address 0a:59:00:00:03:e9 type veth \
peer eth0 index 1000 address 0a:58:0a:00:01:02 netns web
        link set 1001 up
        addr add fe80::1/64 dev 1001
        addr add 10.0.1.1/32 dev 1001
        neigh replace 10.0.1.2 lladdr 0a:58:0a:00:01:02 dev 1001
        route add 10.0.1.2/32 dev 1001
        addr add fd00:10:0:1::1/128 dev 1001
        settle fd00:10:0:1::1 dev 1001
        neigh replace fd00:10:0:1::2 lladdr 0a:58:0a:00:01:02 dev 1001
        route add fd00:10:0:1::2/128 dev 1001
        [web]
        link set 1 up
        link set 1000 up
        addr add fe80::858:aff:fe00:102/64 dev 1000
        addr add 10.0.1.2/24 dev 1000 noprefixroute
        neigh replace 10.0.1.1 lladdr 0a:59:00:00:03:e9 dev 1000
        route add 10.0.1.1/32 dev 1000 src 10.0.1.2
        route add 10.0.1.0/24 via 10.0.1.1 dev 1000 src 10.0.1.2
        route add 0.0.0.0/0 via 10.0.1.1 dev 1000
        addr add fd00:10:0:1::2/64 dev 1000 noprefixroute
        settle fd00:10:0:1::2 dev 1000
        neigh replace fd00:10:0:1::1 lladdr 0a:59:00:00:03:e9 dev 1000
        route add fd00:10:0:1::1/128 dev 1000 src fd00:10:0:1::2
        route add fd00:10:0:1::/64 via fd00:10:0:1::1 dev 1000 src fd00:10:0:1::2
        route add ::/0 via fd00:10:0:1::1 dev 1000
        [node-a]
        settle 1001
        """)
    # The other two differ in numbers alone.
    web = in_words(plan_pod(model.pod("web"), nodes[0]))
    assert in_words(plan_pod(model.pod("db"), nodes[0])) == _renumbered(
        web,
        ("10.0.1.2/", "10.0.1.3/"),
        ("10.0.1.2 ", "10.0.1.3 "),
        ("10.0.1.2\n", "10.0.1.3\n"),
        ("0:1::2", "0:1::3"),
        ("0a:58:0a:00:01:02", "0a:58:0a:00:01:03"),
        ("fe00:102/", "fe00:103/"),
        ("1001", "1002"),
        ("03:e9", "03:ea"),
        ("web", "db"),
    )
    assert in_words(plan_pod(model.pod("client"), nodes[1])) == _renumbered(
        web,
        ("10.0.1.", "10.0.2."),
        ("fd00:10:0:1:", "fd00:10:0:2:"),
        ("0a:58:0a:00:01:02", "0a:58:0a:00:02:02"),
        ("fe00:102/", "fe00:202/"),
        ("node-a", "node-b"),
        ("web", "client"),
    )


def _renumbered(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def test_the_plan_of_removals_in_a_dual_stack_cluster() -> None:
    model = cluster((4, 6))
    assert in_words(plan_pod_removal(model.pod("client"))) == dedent("""\
        [node-b]
        route del 10.0.2.2/32 dev 1001
        route del fd00:10:0:2::2/128 dev 1001
        link set 1001 down
        """)
    assert in_words(plan_node_removal(model.node("node-a"), [model.node("node-b")])) == dedent("""\
        [node-b]
        route del 10.0.1.0/24 via 172.18.0.2 dev 1000
        neigh del 172.18.0.2 dev 1000
        route del fd00:10:0:1::/64 via fd00:172:18::2 dev 1000
        neigh del fd00:172:18::2 dev 1000
        [root]
        route del 10.0.1.0/24 via 172.18.0.2 dev 1000
        neigh del 172.18.0.2 dev 1000
        route del fd00:10:0:1::/64 via fd00:172:18::2 dev 1000
        neigh del fd00:172:18::2 dev 1000
        link set 1001 down
        """)


# --- any cluster ----------------------------------------------------------------------------------


def operations(plan: Iterable[Step]) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = {}
    for step in plan:
        found.setdefault(step.namespace, []).extend(step.operations)
    return found


def undone(plan: Iterable[Step]) -> set[tuple[str, object]]:
    """What a plan of removals takes away: routes and neighbours by namespace."""
    return {
        (step.namespace, operation)
        for step in plan
        for operation in step.operations
        if isinstance(operation, (DeleteRoute, DeleteNeighbour))
    }


@pytest.mark.parametrize("families", [(4,), (6,), (4, 6), (6, 4)])
def test_nodes_come_to_the_same_together_and_one_by_one(families: tuple[int, ...]) -> None:
    model = ClusterModel(families)
    nodes = [model.add_node(f"node-{i}") for i in range(5)]
    one_by_one: list[Step] = []
    for i, node in enumerate(nodes):
        one_by_one += plan_node(node, nodes[:i])
    for split in range(len(nodes)):
        together = [*plan_nodes(nodes[:split], []), *plan_nodes(nodes[split:], nodes[:split])]
        expected, found = operations(one_by_one), operations(together)
        assert expected.keys() == found.keys()
        for namespace, wanted in expected.items():
            assert set(found[namespace]) == set(wanted)
            bridge = SettleLink(BRIDGE_INDEX)  # once each time
            assert len(found[namespace]) - found[namespace].count(bridge) == len(wanted) - wanted.count(
                bridge
            )


@pytest.mark.parametrize("families", [(4,), (6,), (4, 6)])
def test_a_node_is_removed_from_wherever_it_was_made_known(families: tuple[int, ...]) -> None:
    model = ClusterModel(families)
    nodes = [model.add_node(f"node-{i}") for i in range(3)]
    made = {
        (
            step.namespace,
            DeleteNeighbour(each.link, each.address) if isinstance(each, AddNeighbour) else each.undo,
        )
        for step in plan_node(nodes[2], nodes[:2])
        if step.namespace != "node-2"
        for each in step.operations
        if isinstance(each, (AddRoute, AddNeighbour))
    }
    assert undone(plan_node_removal(nodes[2], nodes[:2])) == made


@pytest.mark.parametrize("families", [(4,), (6,), (4, 6)])
def test_a_pod_is_removed_from_its_node_as_it_was_made_known(families: tuple[int, ...]) -> None:
    model = cluster(families)
    pod = model.pod("db")
    outside = plan_pod(pod, model.node("node-a"))[0].operations
    made = {("node-a", each.undo) for each in outside if isinstance(each, AddRoute)}
    removal = plan_pod_removal(pod)
    assert undone(removal) == made
    assert removal[-1].operations[-1] == SetDown(pod.index)


@pytest.mark.parametrize("families", [(4,), (6,), (4, 6)])
def test_a_link_is_made_and_up_before_it_is_used(families: tuple[int, ...]) -> None:
    model = cluster(families)
    nodes = list(model.nodes.values())
    plan = [*plan_cluster(model.ranges), *plan_nodes(nodes, [])]
    for pod in model.pods.values():
        plan += plan_pod(pod, model.node(pod.node))
    links = {(namespace, 1) for namespace in ("", *model.nodes, *model.pods)}
    up: set[tuple[str, int]] = set()
    ends: dict[tuple[str, int], tuple[str, int]] = {}
    settled: set[tuple[str, int]] = set()
    added: dict[tuple[str, int], list[Address]] = {}
    for step in plan:
        for operation in step.operations:
            match operation:
                case AddBridge(link=index):
                    links.add((step.namespace, index))
                case AddVeth(link=index, peer_link=peer_index, peer_namespace=peer_namespace, master=master):
                    new = {(step.namespace, index), (peer_namespace, peer_index)}
                    assert not new & links
                    links |= new
                    ends[step.namespace, index] = (peer_namespace, peer_index)
                    assert master is None or (step.namespace, master) in links
                case SetUp(index):
                    assert (step.namespace, index) in links
                    up.add((step.namespace, index))
                case AddRoute(kind="unreachable", link=None, via=None):
                    pass
                case AddAddress(index, interface):
                    assert (step.namespace, index) in up
                    added.setdefault((step.namespace, index), []).append(interface.ip)
                case AddNeighbour(link=int(index)) | AddRoute(link=int(index)):
                    assert (step.namespace, index) in up
                case SettleAddress(index, address):
                    assert address in added[step.namespace, index]
                case SettleLink(index):
                    end = (step.namespace, index)
                    assert {end, ends.get(end, end)} <= up
                    settled.add(end)
                case _:
                    pytest.fail(f"unexpected: {operation}")
    assert up == links
    assert settled == {*ends, (ROOT, BRIDGE_INDEX)}


def test_a_namespace_is_one_step_but_for_the_root_which_waits_at_last() -> None:
    model = ClusterModel("dual")
    nodes = [model.add_node(f"node-{i}") for i in range(10)]
    namespaces = [step.namespace for step in plan_nodes(nodes[4:], nodes[:4])]
    assert namespaces[0] == namespaces[-1] == ROOT
    assert len(set(namespaces)) == len(namespaces) - 1 == 11


def test_two_hundred_nodes_are_planned_in_no_time() -> None:
    model = ClusterModel("dual")
    nodes: list[NodeSpec] = [model.add_node(f"node-{i}") for i in range(200)]
    started = time.process_time()
    plan = plan_nodes(nodes, [])
    alone, way = 200 * (2 + 3 + 9 + 1) + 1, 200 * 4  # one for the bridge
    assert sum(len(step.operations) for step in plan) == alone + 200 * way
    # Every node goes the same way to a third, so it is made twice: once for the root, once for all nodes.
    assert len({id(each) for step in plan for each in step.operations}) == alone + 2 * way
    assert time.process_time() - started < 2  # 0.05 s here


# --- sysctls --------------------------------------------------------------------------------------


def settings(kind: str, families: Sequence[int]) -> list[str]:
    chosen: tuple[Sysctl, ...] = sysctls(kind, families)  # type: ignore[arg-type]
    return [f"{each.name}={each.value}" + ("" if each.required else " if there") for each in chosen]


FORWARDING_IPV4 = [
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
]


@pytest.mark.parametrize("kind", ["root", "node"])
def test_the_root_and_nodes_forward_what_the_cluster_speaks(kind: str) -> None:
    quiet, forwarding = "net.ipv6.conf.default.addr_gen_mode=1", "net.ipv6.conf.all.forwarding=1"
    assert settings(kind, (4,)) == [f"{quiet} if there", *FORWARDING_IPV4]
    assert settings(kind, (6,)) == [quiet, forwarding]
    assert settings(kind, (6, 4)) == settings(kind, (4, 6)) == [quiet, forwarding, *FORWARDING_IPV4]


def test_pods_neither_forward_nor_chatter() -> None:
    quiet, no_router = "net.ipv6.conf.default.addr_gen_mode=1", "net.ipv6.conf.default.accept_ra=0"
    assert settings("pod", (4,)) == [f"{quiet} if there"]
    assert settings("pod", (6,)) == settings("pod", (4, 6)) == [quiet, no_router]


def test_a_root_has_the_addresses_where_names_are_asked_for_and_the_hosts_that_are_nobodys() -> None:
    ranges = ClusterModel((4, 6)).ranges
    hosts = [
        ip_address(text) for text in ("192.0.2.53", "10.0.0.2", "10.0.1.2", "172.18.0.9", "2001:db8::53")
    ]
    (step,) = plan_cluster(ranges, hosts)
    on_lo = [
        str(each.interface) for each in step.operations if isinstance(each, AddAddress) and each.link == 1
    ]
    assert on_lo == [
        "169.254.20.10/32",
        "169.254.20.11/32",
        "fd00:169:254:20::10/128",
        "fd00:169:254:20::11/128",
        "192.0.2.53/32",
        "10.0.0.2/32",
        "2001:db8::53/128",
    ]


def test_a_host_whose_name_server_has_the_address_of_ours_is_no_trouble() -> None:
    # NodeLocal DNSCache of Kubernetes has it; and in a pod of ours, somebody may make clusters again.
    ranges = ClusterModel((4, 6)).ranges
    assert plan_cluster(ranges, [NAME_SERVER[4], NAME_SERVER[6]]) == plan_cluster(ranges)
