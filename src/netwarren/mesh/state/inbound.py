"""What becomes of a connection that arrives for a pod: a CONNECT on the HBONE port, or plain text.

Rules: one plan a connection, from frozen data; what is refused says with which status. The plan's policies are
checked in a step of their own (`admit`), because connections are logged in full from there on.
Does not belong here: the tunnel, TLS, writing the PROXY header (see `mesh.hbone`), watching policies (`mesh.proxy`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from netwarren.errors import MeshError
from netwarren.mesh.config import ProxyConfig
from netwarren.mesh.model import (
    GatewayAddress,
    Identity,
    NetworkAddress,
    Service,
    SocketAddress,
    Workload,
)
from netwarren.mesh.state import headers
from netwarren.mesh.state.headers import Authority, Baggage, Forwarded, HostPort, TraceParent
from netwarren.mesh.state.rbac import ConnectionFacts, Verdict
from netwarren.mesh.state.refusals import (
    ConnectAddress,
    IpMismatch,
    NoHostname,
    NoIpForService,
    NonConnectMethod,
    NoPortForServices,
    PolicyRejection,
    SelfCall,
    UnknownSourceWorkload,
)
from netwarren.mesh.state.store import State
from netwarren.topology.addresses import Address


@dataclass(frozen=True, slots=True)
class ConnectFacts:
    """A request on the HBONE port: what it says, and whose connection it is on.

    ``source`` and ``destination`` are the two ends of the TCP connection, IPv4 as IPv4; ``identity`` is the peer's.
    """

    method: str
    authority: str
    headers: headers.Headers
    source: SocketAddress
    destination: SocketAddress
    identity: Identity | None


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a PROXY protocol v2 header says: both ends, and who is at the first (TLV 0xD0)."""

    source: SocketAddress
    destination: SocketAddress
    identity: Identity | None


@dataclass(frozen=True, slots=True)
class InboundPlan:
    """What becomes of a connection.

    ``address`` is what to connect to, from ``bind`` (None: from wherever); ``proxy_header`` is written first.
    ``facts`` is what policies are asked. ``source_workload`` is None where the client is not known by its address,
    and always if it is in another network: ``source_baggage`` and the identity in ``facts`` then tell of it.
    ``response_baggage`` is what a 200 says, None for nothing.
    """

    workload: Workload
    address: SocketAddress
    bind: Address | None
    facts: ConnectionFacts
    authority: Authority | None = None
    proxy_header: ProxyHeader | None = None
    source_workload: Workload | None = None
    source_baggage: Baggage = field(default_factory=Baggage)
    service: Service | None = None
    trace: TraceParent | None = None
    response_baggage: str | None = None


def plan(
    state: State,
    config: ProxyConfig,
    workload: Workload | None,
    request: ConnectFacts,
    *,
    preserve_source: bool = True,
    who: str = "unknown",
) -> InboundPlan:
    """What becomes of a CONNECT to the pod of ``workload``, which is None if it did not become known in time.

    ``preserve_source``: whether the application is to see the client's address. Raises a `refusals.Refusal` whose
    ``status`` is what to answer.
    """
    if request.method != "CONNECT":
        raise NonConnectMethod(request.method)
    try:
        authority = headers.parse_authority(request.authority)
    except MeshError:
        raise ConnectAddress(request.authority) from None
    if workload is None:
        raise UnknownSourceWorkload(who)
    _validate(state, config, workload, request.destination.address, authority)
    services, port = _target(state, workload, authority)
    if port in config.illegal_ports:
        raise SelfCall
    tunnel = workload.application_tunnel
    proxy_header = None
    if tunnel is not None:
        port = tunnel.port or port
        told = _told(config, services, authority)
        if tunnel.protocol == "PROXY":
            proxy_header = ProxyHeader(request.source, told, request.identity)
    address = SocketAddress(request.destination.address, port)
    facts = ConnectionFacts(request.source.address, request.identity, address)
    forwarded = _forwarded(request.headers)
    connect, bind = address, _bind(address, request.source.address, preserve_source)
    if proxy_header is not None and config.localhost_app_tunnel:
        loopback = ip_address("127.0.0.1" if address.address.version == 4 else "::1")
        connect, bind = SocketAddress(loopback, port), loopback
    return InboundPlan(
        workload,
        connect,
        bind,
        facts,
        authority,
        proxy_header,
        _source(state, config, request),
        headers.parse_baggage(headers.values_of(request.headers, headers.BAGGAGE)),
        _service_label(state, services, forwarded.host, port, workload),
        _trace(request.headers),
        headers.format_baggage(Baggage.of(workload), workload.workload_type)
        if config.response_baggage
        else None,
    )


def plan_plaintext(
    state: State,
    config: ProxyConfig,
    workload: Workload | None,
    source: SocketAddress,
    destination: SocketAddress,
    *,
    preserve_source: bool = True,
    who: str = "unknown",
) -> InboundPlan:
    """What becomes of a connection in plain text from ``source`` to ``destination``, where it was going.

    Raises a `refusals.Refusal`: the connection is dropped.
    """
    if destination.port in config.illegal_ports:
        raise SelfCall
    if workload is None:
        raise UnknownSourceWorkload(who)
    return InboundPlan(
        workload,
        destination,
        _bind(destination, source.address, preserve_source),
        ConnectionFacts(source.address, None, destination),
        source_workload=state.workload_at(NetworkAddress(config.network, source.address)),
        service=_service_label(state, state.services_of(workload), None, destination.port, workload),
    )


def admit(state: State, plan: InboundPlan) -> Verdict:
    """The verdict of the policies on a plan; raises `PolicyRejection` (401, flag DENY) if it is no.

    What policies that only log had to say is in the verdict, and in the error's ``verdict``.
    """
    verdict = state.authorize(plan.workload, plan.facts)
    if not verdict.allowed:
        raise PolicyRejection(verdict)
    return verdict


# --- parts ----------------------------------------------------------------------------------------


def _validate(
    state: State, config: ProxyConfig, workload: Workload, destination: Address, authority: Authority
) -> None:
    """That what is asked for is the pod, or something that has the pod for its waypoint."""
    if (
        isinstance(authority, HostPort)
        or authority.address == destination
        or workload.application_tunnel is not None
    ):
        return
    # Whoever asks may see what a client in the pod's namespace does not.
    for found in state.all_at(NetworkAddress(config.network, authority.address)):
        if found.waypoint is not None and _leads_to(state, found.waypoint, workload, destination):
            return
    raise IpMismatch(destination, authority.address)


def _leads_to(state: State, waypoint: GatewayAddress, workload: Workload, destination: Address) -> bool:
    """Whether a reference is to the pod, or to a service that it is an endpoint of."""
    for found in state.all_meant(waypoint.destination):
        match found:
            case Service() if state.endpoint(found, workload.uid) is not None:
                return True
            case Workload() if destination in found.addresses:
                return True
    return False


def _target(state: State, workload: Workload, authority: Authority) -> tuple[Sequence[Service], int]:
    """The services that it may be for, and the port of the pod."""
    if isinstance(authority, SocketAddress):
        return state.services_of(workload), authority.port
    service = state.service_asked_for(authority.hostname, workload.namespace)
    if service is None:
        raise NoHostname(authority.hostname)
    endpoint = state.endpoint(service, workload.uid)
    port = endpoint.ports.get(authority.port) if endpoint else None
    port = port or service.ports.get(authority.port)
    if not port:
        raise NoPortForServices(authority.hostname, authority.port)
    return [service], port


def _told(config: ProxyConfig, services: Sequence[Service], authority: Authority) -> SocketAddress:
    """The address that an application behind a tunnel is told: a hostname has its service's."""
    if isinstance(authority, SocketAddress):
        return authority
    vips = services[0].vips
    if not vips:
        raise NoIpForService(authority.hostname)
    best = max(vips, key=lambda each: (each.network == config.network, each.address.version == 4))
    return SocketAddress(best.address, authority.port)


def _bind(address: SocketAddress, client: Address, preserve: bool) -> Address | None:
    return client if preserve and client != address.address else None


def _source(state: State, config: ProxyConfig, request: ConnectFacts) -> Workload | None:
    """The client by its address, which means nothing here if it is of another network."""
    for network in headers.values_of(request.headers, headers.FORWARDED_NETWORK):
        if network.lower() != config.network.lower():
            return None
    return state.workload_at(NetworkAddress(config.network, request.source.address))


def _service_label(
    state: State, services: Sequence[Service], host: str | None, port: int, workload: Workload
) -> Service | None:
    """The service that the connection is counted for: the one that the client named, else one with the port."""
    for service in services:
        if service.hostname == host:
            return service
    for service in services:
        endpoint = state.endpoint(service, workload.uid)
        own = endpoint.ports if endpoint else {}
        if any(target == port or own.get(asked) == port for asked, target in service.ports.items()):
            return service
    return None


def _forwarded(lines: headers.Headers) -> Forwarded:
    values = headers.values_of(lines, headers.FORWARDED)
    return headers.parse_forwarded(values[0]) if values else Forwarded()


def _trace(lines: headers.Headers) -> TraceParent | None:
    for value in headers.values_of(lines, headers.TRACEPARENT):
        try:
            return TraceParent.parse(value)
        except MeshError:
            return None
    return None
