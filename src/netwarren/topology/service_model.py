"""The model of a cluster's services: which there are, and which addresses and node ports each has.

Rules: every decision is made here and nowhere else; a refusal leaves the model exactly as it was. Not
thread-safe, as `model`.
Does not belong here: which pods are behind a service (see `services`), what that means for packets (see
`service_rules`).
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import TypeAlias, cast

from netwarren.errors import ConfigurationError, DuplicateName, UnknownName
from netwarren.topology.addresses import (
    Address,
    AddressesArgument,
    Family,
    Network,
    NetworksArgument,
    addresses_by_family,
    networks_by_family,
)
from netwarren.topology.naming import check_labels, check_name, check_service_name
from netwarren.topology.pools import AddressPool, NodePortPool
from netwarren.topology.ranges import Ranges
from netwarren.topology.service_ports import (
    NodePortsArgument,
    PortsArgument,
    parse_ports,
    with_node_ports,
)
from netwarren.topology.service_range import DEFAULT_SERVICES, check_service_range
from netwarren.topology.services import ServiceSpec, TrafficPolicy
from netwarren.topology.specs import DEFAULT_NAMESPACE

ServiceKey: TypeAlias = tuple[str, str]
"""Namespace and name."""

DEFAULT_AFFINITY = 10800
"""Seconds for which Kubernetes keeps a client with its endpoint, where no time is given."""
_LONGEST_AFFINITY = 86400

_POLICIES = ("cluster", "local")


class ServiceModel:
    """The services of one cluster, whose other ranges are ``ranges``.

    ``service_range`` is what cluster IPs are taken from, one a family; by default 10.96.0.0/12 and
    fd00:10:96::/112. No service gets one of ``others``, which somebody has. Raises `AddressError` where the range
    overlaps with the others.
    """

    def __init__(
        self,
        ranges: Sequence[Ranges],
        service_range: NetworksArgument = None,
        others: Mapping[Address, str] | None = None,
    ) -> None:
        self.families: tuple[Family, ...] = tuple(each.family for each in ranges)
        given = networks_by_family(service_range, self.families)
        self.ranges: dict[Family, Network] = {}
        for each in ranges:
            chosen = given.get(each.family) or ip_network(DEFAULT_SERVICES[each.family])
            check_service_range(chosen, each)
            self.ranges[each.family] = chosen
        self._pools = {family: _pool(network, others or {}) for family, network in self.ranges.items()}
        self._node_ports = {protocol: NodePortPool(protocol) for protocol in ("tcp", "udp")}
        self._services: dict[ServiceKey, ServiceSpec] = {}

    def __repr__(self) -> str:
        return f"<ServiceModel {', '.join(map(str, self.ranges.values()))}: {len(self._services)} services>"

    @property
    def services(self) -> Mapping[ServiceKey, ServiceSpec]:
        """The services by namespace and name, oldest first; a live view."""
        return MappingProxyType(self._services)

    def service(self, name: str, namespace: str = DEFAULT_NAMESPACE) -> ServiceSpec:
        """The service called ``name`` in ``namespace``; raises `UnknownName`."""
        try:
            return self._services[namespace, name]
        except KeyError:
            known = [f"{each.name}.{each.namespace}" for each in self._services.values()]
            raise UnknownName("service", f"{name}.{namespace}", known) from None

    def add(
        self,
        name: str,
        *,
        ports: PortsArgument = (),
        selector: Mapping[str, str] | None = None,
        pods: Sequence[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        cluster_ip: AddressesArgument = None,
        headless: bool = False,
        node_ports: NodePortsArgument = False,
        session_affinity: bool | int = False,
        internal_traffic_policy: str = "cluster",
        external_traffic_policy: str = "cluster",
    ) -> ServiceSpec:
        """Decide on a new service; the arguments are those of `Cluster.add_service`.

        Raises `InvalidName`, `DuplicateName`, `ConfigurationError`, or an `AddressError`.
        """
        check_service_name(name)
        check_name("namespace", namespace)
        if (namespace, name) in self._services:
            at = " ".join(map(str, self._services[namespace, name].cluster_ips)) or "headless"
            raise DuplicateName("service", f"{name}.{namespace}", at)
        parsed = parse_ports(ports)
        exposed = with_node_ports(parsed, node_ports)
        _check_kind(name, bool(parsed), headless, cluster_ip, bool(exposed) or node_ports is True)
        spec = ServiceSpec(
            name,
            namespace,
            parsed,
            selector=_check_selection(name, selector, pods),
            pods=tuple(dict.fromkeys(pods or ())),
            affinity=_affinity(session_affinity),
            internal_policy=_policy("internal_traffic_policy", internal_traffic_policy),
            external_policy=_policy("external_traffic_policy", external_traffic_policy),
        )
        wanted = addresses_by_family(cluster_ip, self.families)
        owner = f"service {name}.{namespace}"
        with ExitStack() as undo:
            addresses: list[Address] = []
            for family, pool in () if headless else self._pools.items():
                address = pool.take(wanted.get(family), owner=owner)
                undo.callback(pool.give_back, address)
                addresses.append(address)
            taken = {}
            # Those that were asked for first, so that none of them is given to another port.
            for port, number in sorted(exposed.items(), key=lambda each: each[1] is None):
                taken[port] = self._node_ports[port.protocol].take(number, owner=owner)
                undo.callback(self._node_ports[port.protocol].give_back, taken[port])
            undo.pop_all()
        spec = replace(
            spec,
            cluster_ips=tuple(addresses),
            ports=tuple(replace(port, node_port=taken.get(port)) for port in parsed),
        )
        self._services[namespace, name] = spec
        return spec

    def remove(self, name: str, namespace: str = DEFAULT_NAMESPACE) -> ServiceSpec:
        """Forget a service, and give back what it had."""
        spec = self.service(name, namespace)
        del self._services[namespace, name]
        for pool, address in zip(self._pools.values(), spec.cluster_ips, strict=False):  # none, if headless
            pool.give_back(address)
        for port in spec.ports:
            if port.node_port is not None:
                self._node_ports[port.protocol].give_back(port.node_port)
        return spec


def _pool(network: Network, others: Mapping[Address, str]) -> AddressPool:
    reserved = {address: whose for address, whose in others.items() if address in network}
    reserved[network.network_address] = "the address of the network itself"
    if network.version == 4:
        reserved[network.broadcast_address] = "the broadcast address"
    return AddressPool(
        network,
        reserved,
        what="cluster IP",
        where="the service range of the cluster",
        remedy="remove a service, or make the cluster with a wider service_range",
    )


def _check_kind(
    name: str, has_ports: bool, headless: bool, cluster_ip: AddressesArgument, node_ports: bool
) -> None:
    if headless and cluster_ip is not None:
        raise ConfigurationError(
            f"service {name!r} is headless and asks for {cluster_ip}; leave out one of both"
        )
    if headless and node_ports:
        raise ConfigurationError(
            f"service {name!r} is headless and asks for node ports, which need a cluster IP; leave out one of both"
        )
    if not headless and not has_ports:
        raise ConfigurationError(
            f"service {name!r} has no ports; give it some, such as ports={{80: 8080}}, or make it headless"
        )


def _check_selection(
    name: str, selector: Mapping[str, str] | None, pods: Sequence[str] | None
) -> dict[str, str] | None:
    if (selector is None) == (pods is None):
        both = "has both a selector and a list of pods" if pods is not None else "says nothing of its pods"
        raise ConfigurationError(
            f"service {name!r} {both}; give it selector={{'app': 'web'}} or pods=['web-1'], one of both"
        )
    if selector is None:
        return None
    if not selector:
        raise ConfigurationError(
            f"the selector of service {name!r} is empty; name a label, or for a service of no pods, pods=()"
        )
    return check_labels(selector)


def _affinity(value: object) -> int:
    if value is True:
        return DEFAULT_AFFINITY
    if value is False:
        return 0
    if not isinstance(value, int) or not 1 <= value <= _LONGEST_AFFINITY:
        raise ConfigurationError(
            f"session_affinity={value!r} is none; it is True, or for how many seconds, 1 to {_LONGEST_AFFINITY}"
        )
    return value


def _policy(option: str, value: object) -> TrafficPolicy:
    word = value.lower() if isinstance(value, str) else ""
    if word not in _POLICIES:
        raise ConfigurationError(f"{option}={value!r} is none; it is 'Cluster' or 'Local'")
    return cast(TrafficPolicy, word)
