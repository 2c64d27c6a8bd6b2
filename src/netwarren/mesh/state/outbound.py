"""Where a connection of a pod goes: Istio's decision table for what the proxy catches on its way out.

Rules: one decision a connection, from frozen data and a random number generator; a name that must be resolved is
part of the answer, and what was resolved completes it in a second step. Rows are those of ztunnel's table.
Does not belong here: connecting, resolving, waiting for the source workload to become known (see `mesh.proxy`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, TypeAlias

from netwarren.errors import MeshError
from netwarren.mesh.config import INBOUND_HBONE_PORT, ProxyConfig
from netwarren.mesh.model import (
    GatewayAddress,
    Identity,
    IpFamilies,
    NamespacedName,
    NetworkAddress,
    Service,
    SocketAddress,
    Workload,
)
from netwarren.mesh.state import headers
from netwarren.mesh.state.balancer import Purpose, choose
from netwarren.mesh.state.headers import Authority, Baggage, Forwarded, HostPort, TraceParent
from netwarren.mesh.state.refusals import (
    EmptyResolvedAddresses,
    NoHealthyUpstream,
    NoResolvedAddresses,
    NoValidDestination,
    SelfCall,
    UnknownNetworkGateway,
    UnknownSourceWorkload,
    UnknownWaypoint,
)
from netwarren.mesh.state.store import State
from netwarren.topology.addresses import Address, Family

Protocol: TypeAlias = Literal["TCP", "HBONE", "DOUBLEHBONE"]


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A name that the caller must resolve before it can connect.

    Of the answers one in ``family`` is preferred. ``authority_port`` is set where the authority is to be the
    resolved address too. Each is counted in ``istio_on_demand_dns_total``, for the workload ``uid``.
    """

    hostname: str
    port: int
    family: Family
    uid: str
    authority_port: int | None = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a connection goes.

    ``address`` is what to open TCP to, ``authority`` what to CONNECT to (None in plain TCP), ``sans`` whom the peer
    must be one of; of a double tunnel both tunnels have ``authority``, and ``inner_sans`` is for the inner one.
    ``workload`` is the next hop (a waypoint, a gateway), ``service`` what was meant; None where not known.
    ``row`` is the row of the decision table, 0 to 11.
    """

    row: int
    protocol: Protocol
    source: Workload
    address: SocketAddress | Unresolved
    authority: Authority | None = None
    sans: tuple[Identity, ...] = ()
    inner_sans: tuple[Identity, ...] = ()
    workload: Workload | None = None
    service: Service | None = None

    def headers(self, client: SocketAddress, trace: TraceParent) -> list[tuple[str, str]]:
        """What the CONNECT says besides its authority; of a double tunnel, the outer one."""
        host = self.service.hostname if self.service else None
        baggage = headers.format_baggage(Baggage.of(self.source), self.source.workload_type)
        return [
            (headers.BAGGAGE, baggage),
            (headers.FORWARDED, str(Forwarded(client, host))),
            (headers.TRACEPARENT, str(trace)),
        ]

    def inner_headers(self, client: SocketAddress, trace: TraceParent, network: str) -> list[tuple[str, str]]:
        """What the inner CONNECT of a double tunnel says; ``network`` is the proxy's."""
        return [*self.headers(client, trace), (headers.FORWARDED_NETWORK, network)]


def decide(
    state: State,
    config: ProxyConfig,
    source: Workload | None,
    client: Address,
    target: SocketAddress,
    rng: Random,
    *,
    who: str = "unknown",
) -> Upstream:
    """Where a connection from ``client`` to ``target`` goes, which the proxy of the workload ``source`` caught.

    ``source`` is None if it did not become known in time (``who`` is then said in the error). Raises a
    `refusals.Refusal`, all of them early denies.
    """
    if target.address.is_loopback and target.port in config.illegal_ports:
        raise SelfCall  # row 0
    if source is None:
        raise UnknownSourceWorkload(who)  # row 1
    found = state.find_address(NetworkAddress(source.network, target.address), source.namespace)
    match found:
        case Service():
            return _to_service(state, source, found, target, rng)
        case Workload():
            return _to_workload(state, source, found, client, target, rng)
    return Upstream(11, "TCP", source, target)


def resolved(upstream: Upstream, answers: Sequence[Address] | None, rng: Random) -> Upstream:
    """``upstream`` with one of the ``answers`` in place of the name that it asked for; None: no answer came.

    Raises `NoResolvedAddresses` and `EmptyResolvedAddresses`. One that asked for no name is given back as it is.
    """
    wanted = upstream.address
    if not isinstance(wanted, Unresolved):
        return upstream
    if answers is None:
        raise NoResolvedAddresses(wanted.uid)
    if not answers:
        raise EmptyResolvedAddresses(wanted.uid)
    address = rng.choice([each for each in answers if each.version == wanted.family] or list(answers))
    authority = upstream.authority
    if wanted.authority_port is not None:
        authority = SocketAddress(address, wanted.authority_port)
    return replace(upstream, address=SocketAddress(address, wanted.port), authority=authority)


# --- rows -----------------------------------------------------------------------------------------


def _to_service(
    state: State, source: Workload, service: Service, target: SocketAddress, rng: Random
) -> Upstream:
    waypoint = _waypoint_of(service, rng)
    if waypoint is not None:
        hop = _follow(state, waypoint, source, target, "waypoint", UnknownWaypoint, rng)
        if hop.workload.network != source.network:
            return _through_gateway(3, state, source, hop, service, target, rng)
        return _to_waypoint(2, source, hop, service, target)
    if service.load_balancer is not None and service.load_balancer.mode == "Passthrough":
        return Upstream(4, "TCP", source, target)
    endpoint = _hop_to(state, service, target.port, source, target, "destination", rng)
    if endpoint is None:
        raise NoHealthyUpstream(target)  # row 5
    if endpoint.workload.network != source.network:
        return _through_gateway(6, state, source, endpoint, service, target, rng)
    return _direct(7 if endpoint.workload.protocol == "HBONE" else 8, source, endpoint, service)


def _to_workload(
    state: State, source: Workload, workload: Workload, client: Address, target: SocketAddress, rng: Random
) -> Upstream:
    waypoint = workload.waypoint
    if waypoint is not None and not _is_behind(state, waypoint, source, client):
        hop = _follow(state, waypoint, source, target, "waypoint", UnknownWaypoint, rng)
        return _to_waypoint(9, source, hop, None, target)
    return _direct(10, source, _Hop(workload, target.port, target), None)


def _to_waypoint(
    row: int, source: Workload, hop: "_Hop", service: Service | None, target: SocketAddress
) -> Upstream:
    return Upstream(
        row, "HBONE", source, hop.address(hop.port), target, hop.sans, workload=hop.workload, service=service
    )


def _direct(row: int, source: Workload, hop: "_Hop", service: Service | None) -> Upstream:
    if hop.workload.protocol == "TCP":
        return Upstream(
            row, "TCP", source, hop.address(hop.port), None, hop.sans, workload=hop.workload, service=service
        )
    address = hop.address(INBOUND_HBONE_PORT)
    authority: Authority | None = None
    if isinstance(address, Unresolved):
        address = replace(address, authority_port=hop.port)
    else:
        authority = SocketAddress(address.address, hop.port)
    return Upstream(
        row, "HBONE", source, address, authority, hop.sans, workload=hop.workload, service=service
    )


def _through_gateway(
    row: int,
    state: State,
    source: Workload,
    hop: "_Hop",
    service: Service,
    target: SocketAddress,
    rng: Random,
) -> Upstream:
    """By way of the gateway of the network that the next hop is in, which is asked for the service by its name."""
    if hop.workload.network_gateway is None:
        raise NoValidDestination(hop.workload)
    gateway = _follow(
        state, hop.workload.network_gateway, source, target, "destination", UnknownNetworkGateway, rng
    )
    return Upstream(
        row,
        "DOUBLEHBONE",
        source,
        gateway.address(gateway.port),
        HostPort(service.hostname, target.port),
        gateway.sans,
        hop.service_sans,
        workload=gateway.workload,
        service=service,
    )


# --- hops -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hop:
    """A workload that was chosen, the port to reach it at, and what the choice was made for.

    ``wanted`` is the address asked for, whose address is taken if the workload has it, else one in its family.
    """

    workload: Workload
    port: int
    wanted: SocketAddress
    service: Service | None = None

    @property
    def service_sans(self) -> tuple[Identity, ...]:
        return _identities(self.service.subject_alt_names) if self.service else ()

    @property
    def sans(self) -> tuple[Identity, ...]:
        return (*self.service_sans, self.workload.identity)

    def address(self, port: int) -> SocketAddress | Unresolved:
        workload, wanted = self.workload, self.wanted.address
        if wanted in workload.addresses:
            return SocketAddress(wanted, port)
        families = self.service.ip_families if self.service else None
        allowed = [each for each in workload.addresses if _accepts(families, each)]
        if allowed:
            same = (each for each in allowed if each.version == wanted.version)
            return SocketAddress(next(same, allowed[0]), port)
        if workload.hostname:
            return Unresolved(workload.hostname, port, 4 if wanted.version == 4 else 6, workload.uid)
        raise NoValidDestination(workload)


def _accepts(families: IpFamilies | None, address: Address) -> bool:
    match families:
        case "IPv4":
            return address.version == 4
        case "IPv6":
            return address.version == 6
    return True


def _identities(uris: Sequence[str]) -> tuple[Identity, ...]:
    """Those of ``uris`` that are identities: a peer cannot present another."""
    found = []
    for uri in uris:
        try:
            found.append(Identity.parse(uri))
        except MeshError:
            continue
    return tuple(found)


def _hop_to(
    state: State,
    service: Service,
    port: int,
    source: Workload,
    wanted: SocketAddress,
    purpose: Purpose,
    rng: Random,
) -> _Hop | None:
    choice = choose(state, service, port, source, purpose, rng)
    return None if choice is None else _Hop(choice.workload, choice.port, wanted, service)


def _waypoint_of(service: Service, rng: Random) -> GatewayAddress | None:
    weights = [each.weight for each in service.weighted_waypoints]
    if any(weights):
        return rng.choices(service.weighted_waypoints, weights)[0].waypoint
    return service.waypoint


def _follow(
    state: State,
    gateway: GatewayAddress,
    source: Workload,
    target: SocketAddress,
    purpose: Purpose,
    unknown: type[UnknownWaypoint] | type[UnknownNetworkGateway],
    rng: Random,
) -> _Hop:
    """The workload that a waypoint or gateway reference leads to.

    One by address leads to that address, of whatever family; one by hostname to the family that ``target`` has.
    """
    destination, port = gateway.destination, gateway.hbone_port
    found = state.find(destination, source.namespace)
    wanted = target if isinstance(destination, NamespacedName) else SocketAddress(destination.address, port)
    match found:
        case Workload():
            return _Hop(found, port, wanted)
        case Service() if not _passes_through(found, destination):
            hop = _hop_to(state, found, port, source, wanted, purpose, rng)
            if hop is not None:
                return hop
    raise unknown(destination)


def _passes_through(service: Service, destination: NetworkAddress | NamespacedName) -> bool:
    """Whether a reference by address is to a service that balances nothing, and so leads nowhere."""
    balancer = service.load_balancer
    return isinstance(destination, NetworkAddress) and balancer is not None and balancer.mode == "Passthrough"


def _is_behind(state: State, waypoint: GatewayAddress, source: Workload, client: Address) -> bool:
    """Whether the caller is the waypoint itself: by its identity and by its address."""

    def is_it(workload: Workload) -> bool:
        return workload.identity == source.identity and client in workload.addresses

    found = state.find(waypoint.destination, source.namespace)
    match found:
        case Workload():
            return is_it(found)
        case Service():
            return any(is_it(each.workload) for each in state.endpoints(found))
    return False
