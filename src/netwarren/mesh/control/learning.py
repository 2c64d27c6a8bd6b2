"""What resources of Istio's say of a mesh: workloads, services and policies, as a ztunnel understands them.

Rules: pure; the other way of `resources`, with ztunnel's defaults (`src/state/workload.rs`, `service.rs`, `rbac.rs`); what
makes no sense is one `MeshError`, and nobody's but its resource's.
Does not belong here: the messages' schema (see `messages`), who sends them and what becomes of it (see `subscription`).
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

from netwarren.errors import MeshError
from netwarren.mesh.config import INBOUND_HBONE_PORT
from netwarren.mesh.control.messages import (
    ACTIONS,
    FAMILIES,
    HEALTH,
    HEALTH_POLICIES,
    MODES,
    NETWORK_MODES,
    PREFERENCES,
    PROTOCOLS,
    SCOPES,
    SECURITY_API,
    TUNNELS,
    VISIBILITIES,
    WORKLOAD_API,
    WORKLOAD_TYPES,
)
from netwarren.mesh.control.schema import decoded
from netwarren.mesh.model import (
    ApplicationTunnel,
    CidrAddress,
    GatewayAddress,
    LoadBalancer,
    Locality,
    Match,
    NamespacedName,
    NetworkAddress,
    Policy,
    Service,
    ServiceAccountMatch,
    StringMatch,
    WeightedWaypoint,
    Workload,
)
from netwarren.topology.addresses import Address, Network

T = TypeVar("T")


def address_of(data: bytes) -> Workload | Service:
    """The workload or service that an ``istio.workload.Address`` is. Raises `MeshError`."""
    message = decoded(WORKLOAD_API["Address"], data)
    if message.HasField("workload"):
        return _workload(message.workload)
    if message.HasField("service"):
        return _service(message.service)
    raise MeshError("the address is neither a workload nor a service")


def policy_of(data: bytes) -> Policy:
    """The policy that an ``istio.security.Authorization`` is. Raises `MeshError`."""
    message = decoded(SECURITY_API["Authorization"], data)
    return Policy(
        name=message.name,
        namespace=message.namespace,
        scope=_named(SCOPES, message.scope, "scope"),
        action=_named(ACTIONS, message.action, "action"),
        rules=tuple(
            tuple(tuple(map(_match, clause.matches)) for clause in rule.clauses) for rule in message.rules
        ),
        dry_run=message.dry_run,
    )


# --- workloads and services -------------------------------------------------------------------------


def _workload(message: Any) -> Workload:
    where = message.locality
    tunnel = message.application_tunnel if message.HasField("application_tunnel") else None
    return Workload(
        uid=message.uid,
        name=message.name,
        namespace=message.namespace,
        addresses=tuple(map(_address, message.addresses)),
        service_account=message.service_account or "default",
        trust_domain=message.trust_domain or "cluster.local",
        network=message.network,
        node=message.node,
        protocol=_named(PROTOCOLS, message.tunnel_protocol, "tunnel protocol"),
        network_mode=_named(NETWORK_MODES, message.network_mode, "network mode"),
        native_tunnel=message.native_tunnel,
        hostname=message.hostname,
        workload_name=message.workload_name,
        workload_type=_named(WORKLOAD_TYPES, message.workload_type, "workload type"),
        canonical_name=message.canonical_name,
        canonical_revision=message.canonical_revision,
        cluster_id=message.cluster_id or "Kubernetes",
        locality=Locality(where.region, where.zone, where.subzone),
        status=_named(HEALTH, message.status, "status"),
        capacity=message.capacity.value if message.HasField("capacity") else 1,
        waypoint=_gateway(message, "waypoint"),
        network_gateway=_gateway(message, "network_gateway"),
        application_tunnel=None
        if tunnel is None
        else ApplicationTunnel(_named(TUNNELS, tunnel.protocol, "tunnel"), _port(tunnel.port) or None),
        authorization_policies=tuple(_name(each, "policy") for each in message.authorization_policies),
        services={_name(each.key, "service"): _ports(each.value.ports) for each in message.services},
    )


def _service(message: Any) -> Service:
    balancer = message.load_balancing if message.HasField("load_balancing") else None
    return Service(
        name=message.name,
        namespace=message.namespace,
        hostname=message.hostname,
        vips=tuple(_network_address(each) for each in message.addresses if not _is_range(each)),
        cidr_vips=tuple(
            CidrAddress(each.network, _range(each.address, each.length))
            for each in message.addresses
            if _is_range(each)
        ),
        ports=_ports(message.ports),
        subject_alt_names=tuple(message.subject_alt_names),
        waypoint=_gateway(message, "waypoint"),
        weighted_waypoints=tuple(
            WeightedWaypoint(_required(_gateway(each, "destination"), "a waypoint"), each.weight)
            for each in message.weighted_waypoints
        ),
        load_balancer=None if balancer is None else _load_balancer(balancer),
        ip_families=_named(FAMILIES, message.ip_families, "IP families"),
        canonical=message.canonical,
        visibility=_named(VISIBILITIES, message.visibility, "visibility"),
    )


def _load_balancer(message: Any) -> LoadBalancer:
    preferences = [_named(PREFERENCES, each, "preference") for each in message.routing_preference]
    return LoadBalancer(
        tuple(_required(each, "a routing preference") for each in preferences),
        _named(MODES, message.mode, "mode"),
        _named(HEALTH_POLICIES, message.health_policy, "health policy"),
    )


def _gateway(message: Any, field: str) -> GatewayAddress | None:
    if not message.HasField(field):
        return None
    gateway = getattr(message, field)
    port = _port(gateway.hbone_mtls_port) or INBOUND_HBONE_PORT
    if gateway.HasField("address"):
        return GatewayAddress(_network_address(gateway.address), port)
    if gateway.HasField("hostname"):
        name = gateway.hostname
        return GatewayAddress(NamespacedName(name.namespace, name.hostname), port)
    raise MeshError(f"the {field.replace('_', ' ')} has neither an address nor a hostname")


def _network_address(message: Any) -> NetworkAddress:
    return NetworkAddress(message.network, _address(message.address))


def _is_range(message: Any) -> bool:
    """Whether a virtual address is more than one: of 32 or 128 bits it is one, as without a length."""
    return bool(message.HasField("length") and message.length != len(message.address) * 8)


def _ports(messages: Iterable[Any]) -> Mapping[int, int]:
    return {_port(each.service_port): _port(each.target_port) for each in messages}


# --- policies ---------------------------------------------------------------------------------------


def _match(message: Any) -> Match:
    given: dict[str, tuple[Any, ...]] = {}
    for name in SECURITY_API["Match"].DESCRIPTOR.fields_by_name:
        values = getattr(message, name)
        if name.endswith(("namespaces", "principals")):
            given[name] = tuple(map(_string, values))
        elif name.endswith("ips"):
            given[name] = tuple(_range(each.address, each.length) for each in values)
        elif name.endswith("service_accounts"):
            given[name] = tuple(ServiceAccountMatch(each.namespace, each.service_account) for each in values)
        else:
            given[name] = tuple(map(_port, values))
    return Match(**given)


def _string(message: Any) -> StringMatch:
    if message.HasField("exact"):
        return StringMatch("Exact", message.exact)
    if message.HasField("prefix"):
        return StringMatch("Prefix", message.prefix)
    if message.HasField("suffix"):
        return StringMatch("Suffix", message.suffix)
    if message.HasField("presence"):
        return StringMatch("Presence")
    raise MeshError("a string is matched by nothing: exact, prefix, suffix and presence are all absent")


# --- values -----------------------------------------------------------------------------------------


def _named(names: Sequence[T], number: int, what: str) -> T:
    if 0 <= number < len(names):
        return names[number]
    raise MeshError(f"{number} is no {what} that is known")


def _required(value: T | None, what: str) -> T:
    if value is None:
        raise MeshError(f"{what} is listed and left out")
    return value


def _name(text: str, what: str) -> NamespacedName:
    namespace, slash, name = text.partition("/")
    if not slash:
        raise MeshError(f"a {what} is called {text!r:.80}, and must be called NAMESPACE/NAME")
    return NamespacedName(namespace, name)


def _address(packed: bytes) -> Address:
    if len(packed) not in (4, 16):
        raise MeshError(f"an address has {len(packed)} bytes, and must have 4 or 16")
    return ip_address(packed)


def _range(packed: bytes, length: int) -> Network:
    try:
        return ip_network((_address(packed), length), strict=False)
    except ValueError:
        raise MeshError(f"a range of {_address(packed)} has {length} bits") from None


def _port(number: int) -> int:
    if number > 65535:
        raise MeshError(f"{number} is no port")
    return number
