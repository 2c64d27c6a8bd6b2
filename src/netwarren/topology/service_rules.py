"""What a service is on a node: nftables rules as data, laid out as kube-proxy's nftables mode lays them.

Rules: from a spec, its endpoints and a node alone; `str` of a rule is what nft(8) would call it. Names say the
service, protocol and port, so that what stays the same has the same name before and after a change.
Does not belong here: the tables around it and how to get from one state to another (see
`netwarren.cluster.service_wiring`), which endpoints there are (see `services`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from netwarren.topology.addresses import Address, Family, Network, host_network
from netwarren.topology.services import Endpoint, Protocol, ServicePort, ServiceSpec
from netwarren.topology.specs import NodeSpec

MASQUERADE_MARK = 0x4000
"""The bit of a packet's mark that has its source address replaced when it leaves the node; kube-proxy's."""

DROP = ""
"""In place of a chain: lose the packet."""

Destination: TypeAlias = tuple[Address, Protocol, int]
Point: TypeAlias = tuple[Address, int]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: conditions, then actions, in the order of the fields; those left out are not there.

    ``source`` and ``remembered_in``: the packet comes from there, or from an address in that set. ``one_in``:
    one packet in so many. ``masquerade``: the source address is to be replaced. ``remember_in``: a set, and
    for how many seconds. Then ``dnat`` or ``goto`` (`DROP`: not at all).
    """

    family: Family
    source: Network | None = None
    remembered_in: str = ""
    one_in: int = 1
    masquerade: bool = False
    remember_in: tuple[str, int] | None = None
    dnat: Point | None = None
    goto: str | None = None

    def __str__(self) -> str:
        saddr = "ip saddr" if self.family == 4 else "ip6 saddr"
        words = []
        if self.source is not None:
            words.append(f"{saddr} {self.source}")
        if self.remembered_in:
            words.append(f"{saddr} @{self.remembered_in}")
        if self.one_in > 1:
            words.append(f"numgen random mod {self.one_in} 0")
        if self.masquerade:
            words.append(f"meta mark set meta mark or {MASQUERADE_MARK:#x}")
        if self.remember_in is not None:
            name, seconds = self.remember_in
            words.append(f"update @{name} {{ {saddr} timeout {seconds}s }}")
        if self.dnat is not None:
            address, port = self.dnat
            words.append(f"dnat to {address}:{port}" if self.family == 4 else f"dnat to [{address}]:{port}")
        if self.goto is not None:
            words.append(f"goto {self.goto}" if self.goto else "drop")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """A service on a node in one family.

    ``sets`` remember clients for so many seconds. ``verdicts`` is where packets to a destination go: a chain,
    or `DROP`. ``answering`` is who may answer datagrams to a destination, so that others can be forgotten.
    """

    family: Family
    sets: Mapping[str, int] = field(default_factory=dict)
    chains: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    verdicts: Mapping[Destination, str] = field(default_factory=dict)
    answering: Mapping[Destination, frozenset[Point]] = field(default_factory=dict)


def service_rules(
    service: ServiceSpec, endpoints: Sequence[Endpoint], node: NodeSpec
) -> tuple[ServiceRules, ...]:
    """What ``service`` is on ``node``, in each of its families; a headless one is nothing."""
    return tuple(
        _in_family(service, endpoints, node, 4 if address.version == 4 else 6, address)
        for address in service.cluster_ips
    )


def stale_answers(
    before: Sequence[ServiceRules], after: Sequence[ServiceRules]
) -> dict[Destination, frozenset[Point]]:
    """The destinations that have lost somebody who answered datagrams, and who may answer now."""
    old = {key: points for rules in before for key, points in rules.answering.items()}
    new = {key: points for rules in after for key, points in rules.answering.items()}
    stale = {}
    for key in {**old, **new}:
        had, has = old.get(key, frozenset()), new.get(key, frozenset())
        if had - has:
            stale[key] = has
    return stale


def _in_family(
    service: ServiceSpec, endpoints: Sequence[Endpoint], node: NodeSpec, family: Family, cluster_ip: Address
) -> ServiceRules:
    rules = _Rules(family, node, service.affinity)
    ready = [
        (address, endpoint.node)
        for endpoint in endpoints
        if endpoint.ready and (address := endpoint.address_in(family)) is not None
    ]
    for port in service.ports:
        _port(rules, service, port, ready, cluster_ip)
    return ServiceRules(family, rules.sets, rules.chains, rules.verdicts, rules.answering)


class _Rules:
    """`ServiceRules` in the making."""

    def __init__(self, family: Family, node: NodeSpec, affinity: int) -> None:
        self.family = family
        self.node = node
        self.affinity = affinity
        self.sets: dict[str, int] = {}
        self.chains: dict[str, tuple[Rule, ...]] = {}
        self.verdicts: dict[Destination, str] = {}
        self.answering: dict[Destination, frozenset[Point]] = {}


def _port(
    rules: _Rules,
    service: ServiceSpec,
    port: ServicePort,
    ready: Sequence[tuple[Address, str]],
    cluster_ip: Address,
) -> None:
    """One port of a service.

    Where nobody is ready, no verdict is given: what is sent to a cluster IP and has no verdict is refused by
    the table around, and what is sent to a node by the node. Where somebody is, but not on this node, and
    the policy is Local, the packet is lost, as in Kubernetes.
    """
    name = f"{service.namespace}/{service.name}/{port.protocol}/{port.port}"
    here = [address for address, node in ready if node == rules.node.name]
    internal: Destination = (cluster_ip, port.protocol, port.port)
    destinations = [internal]
    if ready:
        everywhere, local = f"service-{name}", f"local-{name}" if here else DROP
        _choice(rules, everywhere, name, port.target, [address for address, _ in ready])
        if here and "local" in (service.internal_policy, service.external_policy):
            _choice(rules, local, name, port.target, here)
        rules.verdicts[internal] = everywhere if service.internal_policy == "cluster" else local
        for address, _ in ready:
            _endpoint(rules, name, (address, port.target), address in here)
    node_address = rules.node.address_in(rules.family)
    if port.node_port is not None and node_address is not None:
        external: Destination = (node_address, port.protocol, port.node_port)
        destinations.append(external)
        if ready:
            chain = rules.verdicts[external] = f"external-{name}"
            rules.chains[chain] = _external(rules, service, everywhere, local, node_address)
    if port.protocol == "udp":
        answering = frozenset((address, port.target) for address, _ in ready)
        for address, protocol, number in destinations:
            # Where nobody is ready, the node itself refuses what comes to a node port, and goes on doing so
            # in a flow of datagrams; what comes to a cluster IP is refused before it is tracked.
            itself = frozenset() if address == cluster_ip else frozenset({(address, number)})
            rules.answering[address, protocol, number] = answering or itself


def _external(
    rules: _Rules, service: ServiceSpec, everywhere: str, local: str, node_address: Address
) -> tuple[Rule, ...]:
    """What comes to a node port.

    With the policy Cluster, the answer has to come back through this node, so the source is replaced. With
    the policy Local it is kept; this node and its own pods are not bound to it, as in Kubernetes.
    """
    family = rules.family
    if service.external_policy == "cluster":
        return (Rule(family, masquerade=True, goto=everywhere),)
    pod_range = next(each.pod_range for each in rules.node.families if each.family == family)
    return (
        Rule(family, source=pod_range, goto=everywhere),
        Rule(family, source=host_network(node_address), masquerade=True, goto=everywhere),
        Rule(family, goto=local),
    )


def _choice(rules: _Rules, chain: str, name: str, target: int, addresses: Sequence[Address]) -> None:
    """One of ``addresses``: the one that knows the client, or any, each as likely as the others."""
    chosen = []
    if rules.affinity:
        chosen = [
            Rule(
                rules.family,
                remembered_in=_set_name(name, (each, target)),
                goto=_chain_name(name, (each, target)),
            )
            for each in addresses
        ]
    for position, each in enumerate(addresses):
        left = len(addresses) - position
        chosen.append(Rule(rules.family, one_in=left, goto=_chain_name(name, (each, target))))
    rules.chains[chain] = tuple(chosen)


def _endpoint(rules: _Rules, name: str, point: Point, here: bool) -> None:
    """The way to one endpoint; a pod that gets to itself would answer itself, so it must not know."""
    family, chain = rules.family, _chain_name(name, point)
    to_itself = (Rule(family, source=host_network(point[0]), masquerade=True),) if here else ()
    if not rules.affinity:
        rules.chains[chain] = (*to_itself, Rule(family, dnat=point))
        return
    known = _set_name(name, point)
    rules.sets[known] = rules.affinity
    remember = Rule(family, remember_in=(known, rules.affinity), dnat=point)
    rules.chains[chain] = (*to_itself, remember)


def _chain_name(name: str, point: Point) -> str:
    return f"endpoint-{name}__{_point_name(point)}"


def _set_name(name: str, point: Point) -> str:
    return f"affinity-{name}__{_point_name(point)}"


def _point_name(point: Point) -> str:
    address, port = point
    return f"{address}/{port}".replace(":", ".")  # nft(8) takes no colon in a name
