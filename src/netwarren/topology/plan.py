"""Plans: the links, neighbours, addresses and routes by which a change to the model becomes a network.

Rules: a plan is data, from specs alone; one step per namespace, and its order is the order to apply.
Every namespace a plan speaks of exists and has its `sysctls`, set before its first link is made.
Does not belong here: deciding addresses (see `model`), applying a plan, or undoing half of one.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Interface
from typing import Literal

from netwarren.topology.addresses import (
    Address,
    Family,
    Interface,
    default_network,
    host_network,
    interface_of,
)
from netwarren.topology.links import (
    BRIDGE,
    BRIDGE_INDEX,
    ETH0,
    ETH0_INDEX,
    LOOPBACK_INDEX,
    ROUTER_LINK_LOCAL,
    eth0_mac,
    link_local,
    veth_mac,
    veth_name,
)
from netwarren.topology.operations import (
    ROOT,
    AddAddress,
    AddBridge,
    AddNeighbour,
    AddRoute,
    AddVeth,
    DeleteNeighbour,
    Operation,
    Plan,
    SetDown,
    SettleAddress,
    SettleLink,
    SetUp,
    Step,
    Sysctl,
)
from netwarren.topology.ranges import Ranges
from netwarren.topology.specs import NodeSpec, PodSpec
from netwarren.topology.wellknown import NAME_SERVER, NAME_SERVER_IN_PROCESS

# Why permanent neighbours: every namespace of the machine shares one table of 1,024 learned ones
# (net.ipv4.neigh.default.gc_thresh3, out of reach without root). More than that within five seconds,
# and the kernel drops packets ("neighbor table overflow"); permanent entries do not count. They also
# save the first packet of every pair a round trip, and captures the chatter.


def sysctls(kind: Literal["root", "node", "pod"], families: Sequence[Family]) -> tuple[Sysctl, ...]:
    """What a namespace of a ``kind`` needs set right after it is made, before its first link.

    Order matters: ``all.forwarding`` of IPv6 also sets the default of the links to come.
    """
    # No link-local addresses but those that plans give: the kernel's own wait for duplicate detection,
    # and every link would chatter, even in an IPv4-only cluster.
    chosen = [Sysctl("net.ipv6.conf.default.addr_gen_mode", "1", required=6 in families)]
    if 6 in families:
        if kind == "pod":
            # Nobody advertises routes here; asking for them is three packets of noise per pod.
            chosen.append(Sysctl("net.ipv6.conf.default.accept_ra", "0"))
        else:
            chosen.append(Sysctl("net.ipv6.conf.all.forwarding", "1"))
    if 4 in families and kind != "pod":
        # A new namespace may have those of the machine, where a distribution sets them to 1 or 2.
        chosen += [
            Sysctl("net.ipv4.ip_forward", "1"),
            Sysctl("net.ipv4.conf.all.rp_filter", "0"),
            Sysctl("net.ipv4.conf.default.rp_filter", "0"),
        ]
    return tuple(chosen)


def plan_cluster(ranges: Sequence[Ranges], host_servers: Iterable[Address] = ()) -> Plan:
    """The bridge, and where names are asked for, in the root::

    ip link set lo up
    ip addr add 169.254.20.10/32 dev lo            # and 169.254.20.11/32
    ip addr add fd00:169:254:20::10/128 dev lo     # and fd00:169:254:20::11/128; both with IPv6 only
    ip addr add 192.0.2.53/32 dev lo               # those of ``host_servers`` that are nobody's here
    ip link add br0 index 1000 address 0a:58:ac:12:00:01 type bridge
    ip link set br0 up
    ip addr add 172.18.0.1/16 dev br0
    ip addr add fd00:172:18::1/64 dev br0 nodad    # and fe80::1/64; both with IPv6 only
    """
    root = [each.root for each in ranges]
    servers = [
        by_family[each.family] for each in ranges for by_family in (NAME_SERVER, NAME_SERVER_IN_PROCESS)
    ]
    # A pod that asks the host's name server is answered by ours. Refusing it would not do: the kernel says
    # "unreachable" to an IPv4 address once a second (ip_error()), and resolvers wait 5 s for an answer.
    # One that has the same address as ours is here already: NodeLocal DNSCache has it in Kubernetes, and so has a pod of ours.
    servers += [
        server
        for server in dict.fromkeys(host_servers)
        if server not in servers and any(each.spares(server) for each in ranges)
    ]
    operations: list[Operation] = [
        SetUp(LOOPBACK_INDEX),
        *(
            each
            for server in servers
            for each in _address(LOOPBACK_INDEX, interface_of(server, server.max_prefixlen))
        ),
        AddBridge(BRIDGE, BRIDGE_INDEX, eth0_mac(root, BRIDGE_INDEX)),
        SetUp(BRIDGE_INDEX),
    ]
    operations += [each for interface in root for each in _address(BRIDGE_INDEX, interface)]
    if any(interface.version == 6 for interface in root):
        operations.append(AddAddress(BRIDGE_INDEX, ROUTER_LINK_LOCAL))
    return (Step(ROOT, tuple(operations)),)


def plan_node(node: NodeSpec, others: Sequence[NodeSpec]) -> Plan:
    """One new node beside ``others``; see `plan_nodes`."""
    return plan_nodes((node,), others)


def plan_nodes(new: Sequence[NodeSpec], existing: Sequence[NodeSpec]) -> Plan:
    """New nodes: their ports and routes in the root, their insides, and the way to them for the existing.

    In the root, for node-b::

        ip link add veth1002 index 1002 master br0 type veth peer name eth0 index 1000 netns node-b
        ip link set veth1002 up
        ip neigh replace 172.18.0.3 lladdr 0a:58:ac:12:00:03 dev br0 nud permanent
        ip route add 10.0.2.0/24 via 172.18.0.3 dev br0

    In node-b, where the last two come once for each other node::

        ip link set lo up
        ip link set eth0 up
        ip addr add 172.18.0.3/16 dev eth0             # with IPv6 also a link-local one, as in a pod
        ip neigh replace 172.18.0.1 lladdr 0a:58:ac:12:00:01 dev eth0 nud permanent
        ip route add default via 172.18.0.1 dev eth0
        ip route add unreachable 10.0.2.0/24           # what no pod has: refused, not sent in circles
        ip neigh replace 172.18.0.2 lladdr 0a:58:ac:12:00:02 dev eth0 nud permanent
        ip route add 10.0.1.0/24 via 172.18.0.2 dev eth0

    In each existing node, the last two once for each new one. At last the root's end of each link, which
    was up first, is waited for, and the bridge.
    """
    root: list[Operation] = []
    for node in new:
        root += [
            AddVeth(
                veth_name(node.index),
                node.index,
                veth_mac(node.index),
                peer=ETH0,
                peer_link=ETH0_INDEX,
                peer_mac=node.mac,
                peer_namespace=node.name,
                master=BRIDGE_INDEX,
            ),
            SetUp(node.index),
            *_way_to(node, BRIDGE_INDEX),
        ]
    # Between 200 nodes there are 39,800 ways, and 200 different ones: every node goes the same way to a
    # third, so the operations are made once and shared.
    ways_to_new = {node.name: _way_to(node, ETH0_INDEX) for node in new}
    ways_to_existing = [way for node in existing for way in _way_to(node, ETH0_INDEX)]
    steps = [Step(ROOT, tuple(root))]
    for node in new:
        inside = _inside_node(node)
        inside += ways_to_existing
        for name, ways in ways_to_new.items():
            if name != node.name:
                inside += ways
        steps.append(Step(node.name, tuple(inside)))
    all_ways_to_new = tuple(way for ways in ways_to_new.values() for way in ways)
    steps += [Step(node.name, all_ways_to_new) for node in existing]
    # A bridge has its carrier from its ports, and without one drops what the root itself sends.
    settled = (*(node.index for node in new), BRIDGE_INDEX)
    steps.append(Step(ROOT, tuple(SettleLink(index) for index in settled)))
    return tuple(steps)


def plan_node_removal(node: NodeSpec, others: Sequence[NodeSpec]) -> Plan:
    """Nobody knows the way to a node any more, and its port is dead; the node dies with its namespace.

    In each other node, and in the root with ``dev br0``::

        ip route del 10.0.2.0/24 via 172.18.0.3 dev eth0
        ip neigh del 172.18.0.3 dev eth0

    In the root also ``ip link set veth1002 down``. The others come first: from then on the root tells
    their pods that the network is unreachable, where a packet sent to the dead port would just be lost.
    """
    no_way = tuple(_no_way_to(node, ETH0_INDEX))
    root = (*_no_way_to(node, BRIDGE_INDEX), SetDown(node.index))
    return (*(Step(other.name, no_way) for other in others), Step(ROOT, root))


def plan_pod(pod: PodSpec, node: NodeSpec) -> Plan:
    """A new pod, point to point: all it sends goes through its node, also to pods beside it.

    In its node::

        ip link add veth1001 index 1001 type veth peer name eth0 index 1000 netns client
        ip link set veth1001 up
        ip addr add fe80::1/64 dev veth1001 nodad      # with IPv6 only
        ip addr add 10.0.1.1/32 dev veth1001
        ip neigh replace 10.0.1.2 lladdr 0a:58:0a:00:01:02 dev veth1001 nud permanent
        ip route add 10.0.1.2/32 dev veth1001

    In the pod::

        ip link set lo up
        ip link set eth0 up
        ip addr add fe80::858:aff:fe00:102/64 dev eth0 nodad    # with IPv6 only
        ip addr add 10.0.1.2/24 dev eth0 noprefixroute
        ip neigh replace 10.0.1.1 lladdr 0a:59:00:00:03:e9 dev eth0 nud permanent
        ip route add 10.0.1.1/32 dev eth0 src 10.0.1.2
        ip route add 10.0.1.0/24 via 10.0.1.1 dev eth0 src 10.0.1.2
        ip route add default via 10.0.1.1 dev eth0

    At last the node's end, which was up first, is waited for. Each IPv6 address is followed by its local
    route (`SettleAddress`).
    """
    mac = veth_mac(pod.index)
    outside: list[Operation] = [
        AddVeth(
            veth_name(pod.index),
            pod.index,
            mac,
            peer=ETH0,
            peer_link=ETH0_INDEX,
            peer_mac=pod.mac,
            peer_namespace=pod.name,
        ),
        SetUp(pod.index),
    ]
    inside: list[Operation] = [SetUp(LOOPBACK_INDEX), SetUp(ETH0_INDEX)]
    if any(each.family == 6 for each in node.families):
        # Neighbour discovery for forwarded packets asks from a link-local address.
        outside.append(AddAddress(pod.index, ROUTER_LINK_LOCAL))
        inside.append(AddAddress(ETH0_INDEX, link_local(pod.mac)))
    for each, interface in zip(node.families, pod.interfaces, strict=True):
        address, gateway = interface.ip, each.gateway
        outside += [
            *_address(pod.index, interface_of(gateway, gateway.max_prefixlen)),
            AddNeighbour(pod.index, address, pod.mac),
            AddRoute(host_network(address), link=pod.index),
        ]
        inside += [
            *_address(ETH0_INDEX, interface, prefix_route=False),
            AddNeighbour(ETH0_INDEX, gateway, mac),
            AddRoute(host_network(gateway), link=ETH0_INDEX, source=address),
            AddRoute(each.pod_range, via=gateway, link=ETH0_INDEX, source=address),
            AddRoute(default_network(each.family), via=gateway, link=ETH0_INDEX),
        ]
    return (
        Step(pod.node, tuple(outside)),
        Step(pod.name, tuple(inside)),
        Step(pod.node, (SettleLink(pod.index),)),
    )


def plan_pod_removal(pod: PodSpec) -> Plan:
    """The node does not know the pod any more; links, addresses and neighbours die with the namespace.

    In its node::

        ip route del 10.0.1.2/32 dev veth1001
        ip link set veth1001 down

    From then on the node's unreachable route answers for the address.
    """
    routes = [AddRoute(host_network(each.ip), link=pod.index).undo for each in pod.interfaces]
    return (Step(pod.node, (*routes, SetDown(pod.index))),)


def _way_to(node: NodeSpec, index: int) -> list[Operation]:
    """The way to a node and its pods over the bridge, for whoever is on it with the link ``index``."""
    way: list[Operation] = []
    for each in node.families:
        way += [
            AddNeighbour(index, each.address, node.mac),
            AddRoute(each.pod_range, via=each.address, link=index),
        ]
    return way


def _no_way_to(node: NodeSpec, index: int) -> list[Operation]:
    """The undo of `_way_to`."""
    gone: list[Operation] = []
    for each in node.families:
        gone += [
            AddRoute(each.pod_range, via=each.address, link=index).undo,
            DeleteNeighbour(index, each.address),
        ]
    return gone


def _address(index: int, interface: Interface, prefix_route: bool = True) -> list[Operation]:
    """An address that receives as soon as the batch is through."""
    added: list[Operation] = [AddAddress(index, interface, prefix_route)]
    if isinstance(interface, IPv6Interface):
        added.append(SettleAddress(index, interface.ip))
    return added


def _inside_node(node: NodeSpec) -> list[Operation]:
    """What a node has inside when it is the only one."""
    inside: list[Operation] = [SetUp(LOOPBACK_INDEX), SetUp(ETH0_INDEX)]
    if any(each.family == 6 for each in node.families):
        inside.append(AddAddress(ETH0_INDEX, link_local(node.mac)))
    for each in node.families:
        inside += [
            *_address(ETH0_INDEX, each.interface),
            AddNeighbour(ETH0_INDEX, each.root, node.root_mac),
            AddRoute(default_network(each.family), via=each.root, link=ETH0_INDEX),
            AddRoute(each.pod_range, kind="unreachable"),
        ]
    return inside
