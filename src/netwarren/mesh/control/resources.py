"""A mesh as a control plane's resources: Istio's ``istio.workload.Address`` and ``istio.security.Authorization``.

Rules: pure; names and aliases are those that istiod gives; what there is no word for is named in `resources_of`.
Does not belong here: the messages' schema (see `messages`), who asks for them and when they are sent (see `discovery`).
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from netwarren.mesh.control.messages import (
    ACTIONS,
    ADDRESS,
    AUTHORIZATION,
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
from netwarren.mesh.control.schema import encoded
from netwarren.mesh.model import (
    CidrAddress,
    GatewayAddress,
    Match,
    NamespacedName,
    NetworkAddress,
    Policy,
    Service,
    StringMatch,
    Workload,
)
from netwarren.mesh.state.local_config import Config
from netwarren.topology.addresses import Network


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource; ``aliases`` are other names of it, ``NETWORK/IP``."""

    message: bytes
    aliases: tuple[str, ...] = ()


Resources = Mapping[str, Mapping[str, Resource]]
"""By type, and by name: a workload's uid, ``NAMESPACE/HOSTNAME``, ``NAMESPACE/NAME`` of a policy."""


def resources_of(config: Config) -> Resources:
    """All of a mesh. There is no word for an endpoint that a service holds for unhealthy: it is no endpoint there,
    unless the service takes all, to which its health is nothing.
    """
    unusable = {(uid, each.key) for each in config.services if not each.takes_all for uid in each.unhealthy}
    addresses = {each.uid: _workload(_usable(each, unusable)) for each in config.workloads}
    addresses |= {str(each.key): _service(each) for each in config.services}
    return {
        ADDRESS: addresses,
        AUTHORIZATION: {str(each.key): _policy(each) for each in config.policies},
    }


# --- workloads and services -------------------------------------------------------------------------


def _usable(workload: Workload, unusable: Set[tuple[str, NamespacedName]]) -> Workload:
    """``workload`` as an endpoint of those services only that may use it."""
    left = {key: ports for key, ports in workload.services.items() if (workload.uid, key) not in unusable}
    return workload if len(left) == len(workload.services) else replace(workload, services=left)


def _workload(workload: Workload) -> Resource:
    message = WORKLOAD_API["Workload"](
        uid=workload.uid,
        name=workload.name,
        namespace=workload.namespace,
        addresses=[each.packed for each in workload.addresses],
        hostname=workload.hostname,
        network=workload.network,
        tunnel_protocol=PROTOCOLS.index(workload.protocol),
        trust_domain=workload.trust_domain,
        service_account=workload.service_account,
        waypoint=_gateway(workload.waypoint),
        network_gateway=_gateway(workload.network_gateway),
        node=workload.node,
        canonical_name=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        workload_type=WORKLOAD_TYPES.index(workload.workload_type),
        workload_name=workload.workload_name,
        native_tunnel=workload.native_tunnel,
        services=[
            WORKLOAD_API["ServicesEntry"](key=str(key), value=WORKLOAD_API["PortList"](ports=_ports(ports)))
            for key, ports in sorted(workload.services.items())
        ],
        authorization_policies=[str(each) for each in workload.authorization_policies],
        status=HEALTH.index(workload.status),
        cluster_id=workload.cluster_id,
        network_mode=NETWORK_MODES.index(workload.network_mode),
        capacity=WORKLOAD_API["UInt32Value"](value=workload.capacity),
    )
    where = workload.locality
    if where.region or where.zone or where.subzone:
        message.locality.region, message.locality.zone = where.region, where.zone
        message.locality.subzone = where.subzone
    if (tunnel := workload.application_tunnel) is not None:
        message.application_tunnel.protocol = TUNNELS.index(tunnel.protocol)
        message.application_tunnel.port = tunnel.port or 0
    shared = workload.network_mode == "HostNetwork"
    aliases = () if shared else tuple(f"{workload.network}/{each}" for each in workload.addresses)
    return Resource(encoded(WORKLOAD_API["Address"](workload=message)), aliases)


def _service(service: Service) -> Resource:
    message = WORKLOAD_API["Service"](
        name=service.name,
        namespace=service.namespace,
        hostname=service.hostname,
        addresses=[*map(_network_address, service.vips), *map(_range, service.cidr_vips)],
        ports=_ports(service.ports),
        subject_alt_names=service.subject_alt_names,
        waypoint=_gateway(service.waypoint),
        ip_families=FAMILIES.index(service.ip_families),
        canonical=service.canonical,
        weighted_waypoints=[
            WORKLOAD_API["WeightedWaypoint"](destination=_gateway(each.waypoint), weight=each.weight)
            for each in service.weighted_waypoints
        ],
        visibility=VISIBILITIES.index(service.visibility),
    )
    if (balancer := service.load_balancer) is not None:
        message.load_balancing.routing_preference.extend(
            PREFERENCES.index(each) for each in balancer.routing_preferences
        )
        message.load_balancing.mode = MODES.index(balancer.mode)
        message.load_balancing.health_policy = HEALTH_POLICIES.index(balancer.health_policy)
    return Resource(encoded(WORKLOAD_API["Address"](service=message)), tuple(map(str, service.vips)))


def _ports(ports: Mapping[int, int]) -> list[Any]:
    return [
        WORKLOAD_API["Port"](service_port=port, target_port=target) for port, target in sorted(ports.items())
    ]


def _network_address(address: NetworkAddress) -> Any:
    return WORKLOAD_API["NetworkAddress"](network=address.network, address=address.address.packed)


def _range(addresses: CidrAddress) -> Any:
    cidr = addresses.cidr
    return WORKLOAD_API["NetworkAddress"](
        network=addresses.network, address=cidr.network_address.packed, length=cidr.prefixlen
    )


def _gateway(gateway: GatewayAddress | None) -> Any:
    if gateway is None:
        return None
    message = WORKLOAD_API["GatewayAddress"](hbone_mtls_port=gateway.hbone_port)
    match gateway.destination:
        case NetworkAddress():
            message.address.CopyFrom(_network_address(gateway.destination))
        case NamespacedName(namespace, hostname):
            message.hostname.namespace, message.hostname.hostname = namespace, hostname
    return message


# --- policies ---------------------------------------------------------------------------------------


def _policy(policy: Policy) -> Resource:
    rules = [
        SECURITY_API["Rule"](
            clauses=[SECURITY_API["Clause"](matches=[_match(each) for each in clause]) for clause in rule]
        )
        for rule in policy.rules
    ]
    message = SECURITY_API["Authorization"](
        name=policy.name,
        namespace=policy.namespace,
        scope=SCOPES.index(policy.scope),
        action=ACTIONS.index(policy.action),
        rules=rules,
        dry_run=policy.dry_run,
    )
    return Resource(encoded(message))


def _match(match: Match) -> Any:
    given: dict[str, Any] = {}
    for name in SECURITY_API["Match"].DESCRIPTOR.fields_by_name:
        values: Iterable[Any] = getattr(match, name)
        if name.endswith(("namespaces", "principals")):
            given[name] = [_string(each) for each in values]
        elif name.endswith("ips"):
            given[name] = [_network(each) for each in values]
        elif name.endswith("service_accounts"):
            given[name] = [
                SECURITY_API["ServiceAccountMatch"](
                    namespace=each.namespace, service_account=each.service_account
                )
                for each in values
            ]
        else:
            given[name] = values
    return SECURITY_API["Match"](**given)


def _string(match: StringMatch) -> Any:
    if match.kind == "Presence":
        return SECURITY_API["StringMatch"](presence=SECURITY_API["Empty"]())
    return SECURITY_API["StringMatch"](**{match.kind.lower(): match.value})


def _network(network: Network) -> Any:
    return SECURITY_API["Address"](address=network.network_address.packed, length=network.prefixlen)
