"""A mesh as a control plane's resources: Istio's ``istio.workload.Address`` and ``istio.security.Authorization``.

Rules: pure; the schema is that of istio/ztunnel (``proto/workload.proto``, ``proto/authorization.proto``), of which names,
aliases and numbers are kept; what it has no words for here is named in `resources_of`.
Does not belong here: who asks for them and when they are sent (see `discovery`).
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from netwarren.mesh.control.schema import classes, encoded
from netwarren.mesh.model import (
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

ADDRESS = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION = "type.googleapis.com/istio.security.Authorization"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource; ``aliases`` are other names of it, ``NETWORK/IP``."""

    message: bytes
    aliases: tuple[str, ...] = ()


Resources = Mapping[str, Mapping[str, Resource]]
"""By type, and by name: a workload's uid, ``NAMESPACE/HOSTNAME``, ``NAMESPACE/NAME`` of a policy."""


def resources_of(config: Config) -> Resources:
    """All of a mesh. Without: ranges of virtual addresses, waypoints' weights, services' visibility, and policies that
    are only tried, whose numbers are those of a younger schema. Nor is there a word for an endpoint that a service holds for
    unhealthy: it is no endpoint there, unless the service takes all, to which its health is nothing.
    """
    unusable = {(uid, each.key) for each in config.services if not each.takes_all for uid in each.unhealthy}
    addresses = {each.uid: _workload(_usable(each, unusable)) for each in config.workloads}
    addresses |= {str(each.key): _service(each) for each in config.services}
    return {
        ADDRESS: addresses,
        AUTHORIZATION: {str(each.key): _policy(each) for each in config.policies if not each.dry_run},
    }


_ADDRESS = classes(
    "istio.workload",
    {
        "Address": "workload 1 Workload, service 2 Service",
        "Service": "name 1 string, namespace 2 string, hostname 3 string, addresses 4 *NetworkAddress, ports 5 *Port, "
        "subject_alt_names 6 *string, waypoint 7 GatewayAddress, load_balancing 8 LoadBalancing, "
        "ip_families 9 int32, canonical 11 bool",
        "LoadBalancing": "routing_preference 1 *int32, mode 2 int32, health_policy 3 int32",
        "Workload": "uid 20 string, name 1 string, namespace 2 string, addresses 3 *bytes, hostname 21 string, "
        "network 4 string, tunnel_protocol 5 int32, trust_domain 6 string, service_account 7 string, "
        "waypoint 8 GatewayAddress, network_gateway 19 GatewayAddress, node 9 string, canonical_name 10 string, "
        "canonical_revision 11 string, workload_type 12 int32, workload_name 13 string, native_tunnel 14 bool, "
        "application_tunnel 23 ApplicationTunnel, services 22 *ServicesEntry, authorization_policies 16 *string, "
        "status 17 int32, cluster_id 18 string, locality 24 Locality, network_mode 25 int32, capacity 27 UInt32Value",
        "ServicesEntry": "key 1 string, value 2 PortList",
        "UInt32Value": "value 1 uint32",
        "Locality": "region 1 string, zone 2 string, subzone 3 string",
        "PortList": "ports 1 *Port",
        "Port": "service_port 1 uint32, target_port 2 uint32",
        "ApplicationTunnel": "protocol 1 int32, port 2 uint32",
        "GatewayAddress": "hostname 1 NamespacedHostname, address 2 NetworkAddress, hbone_mtls_port 3 uint32",
        "NetworkAddress": "network 1 string, address 2 bytes",
        "NamespacedHostname": "namespace 1 string, hostname 2 string",
    },
)
_AUTHORIZATION = classes(
    "istio.security",
    {
        "Authorization": "name 1 string, namespace 2 string, scope 3 int32, action 4 int32, rules 5 *Rule",
        "Rule": "clauses 1 *Clause",
        "Clause": "matches 2 *Match",
        "Match": "namespaces 1 *StringMatch, not_namespaces 2 *StringMatch, principals 3 *StringMatch, "
        "not_principals 4 *StringMatch, source_ips 5 *Address, not_source_ips 6 *Address, destination_ips 7 *Address, "
        "not_destination_ips 8 *Address, destination_ports 9 *uint32, not_destination_ports 10 *uint32, "
        "service_accounts 11 *ServiceAccountMatch, not_service_accounts 12 *ServiceAccountMatch",
        "Address": "address 1 bytes, length 2 uint32",
        "StringMatch": "exact 1 string, prefix 2 string, suffix 3 string, presence 4 Empty",
        "ServiceAccountMatch": "namespace 1 string, service_account 2 string",
        "Empty": "",
    },
)

# The numbers of enums; the first is 0.
_WORKLOAD_TYPES = ("deployment", "cronjob", "pod", "job")
_PREFERENCES = ("", "Region", "Zone", "Subzone", "Node", "Cluster", "Network")
_MODES = ("Standard", "Strict", "Failover", "Passthrough")
_FAMILIES = (None, "IPv4", "IPv6", "Dual")
_SCOPES = ("Global", "Namespace", "WorkloadSelector")


# --- workloads and services -------------------------------------------------------------------------


def _usable(workload: Workload, unusable: Set[tuple[str, NamespacedName]]) -> Workload:
    """``workload`` as an endpoint of those services only that may use it."""
    left = {key: ports for key, ports in workload.services.items() if (workload.uid, key) not in unusable}
    return workload if len(left) == len(workload.services) else replace(workload, services=left)


def _workload(workload: Workload) -> Resource:
    message = _ADDRESS["Workload"](
        uid=workload.uid,
        name=workload.name,
        namespace=workload.namespace,
        addresses=[each.packed for each in workload.addresses],
        hostname=workload.hostname,
        network=workload.network,
        tunnel_protocol=int(workload.protocol == "HBONE"),
        trust_domain=workload.trust_domain,
        service_account=workload.service_account,
        waypoint=_gateway(workload.waypoint),
        network_gateway=_gateway(workload.network_gateway),
        node=workload.node,
        canonical_name=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        workload_type=_WORKLOAD_TYPES.index(workload.workload_type),
        workload_name=workload.workload_name,
        native_tunnel=workload.native_tunnel,
        services=[
            _ADDRESS["ServicesEntry"](key=str(key), value=_ADDRESS["PortList"](ports=_ports(ports)))
            for key, ports in sorted(workload.services.items())
        ],
        authorization_policies=[str(each) for each in workload.authorization_policies],
        status=int(workload.status == "Unhealthy"),
        cluster_id=workload.cluster_id,
        network_mode=int(workload.network_mode == "HostNetwork"),
        capacity=_ADDRESS["UInt32Value"](value=workload.capacity),
    )
    where = workload.locality
    if where.region or where.zone or where.subzone:
        message.locality.region, message.locality.zone = where.region, where.zone
        message.locality.subzone = where.subzone
    if (tunnel := workload.application_tunnel) is not None:
        message.application_tunnel.protocol = int(tunnel.protocol == "PROXY")
        message.application_tunnel.port = tunnel.port or 0
    shared = workload.network_mode == "HostNetwork"
    aliases = () if shared else tuple(f"{workload.network}/{each}" for each in workload.addresses)
    return Resource(encoded(_ADDRESS["Address"](workload=message)), aliases)


def _service(service: Service) -> Resource:
    message = _ADDRESS["Service"](
        name=service.name,
        namespace=service.namespace,
        hostname=service.hostname,
        addresses=[_network_address(each) for each in service.vips],
        ports=_ports(service.ports),
        subject_alt_names=service.subject_alt_names,
        waypoint=_gateway(service.waypoint),
        ip_families=_FAMILIES.index(service.ip_families),
        canonical=service.canonical,
    )
    if (balancer := service.load_balancer) is not None:
        message.load_balancing.routing_preference.extend(
            _PREFERENCES.index(each) for each in balancer.routing_preferences
        )
        message.load_balancing.mode = _MODES.index(balancer.mode)
        message.load_balancing.health_policy = int(balancer.health_policy == "AllowAll")
    return Resource(encoded(_ADDRESS["Address"](service=message)), tuple(map(str, service.vips)))


def _ports(ports: Mapping[int, int]) -> list[Any]:
    return [_ADDRESS["Port"](service_port=port, target_port=target) for port, target in sorted(ports.items())]


def _network_address(address: NetworkAddress) -> Any:
    return _ADDRESS["NetworkAddress"](network=address.network, address=address.address.packed)


def _gateway(gateway: GatewayAddress | None) -> Any:
    if gateway is None:
        return None
    message = _ADDRESS["GatewayAddress"](hbone_mtls_port=gateway.hbone_port)
    match gateway.destination:
        case NetworkAddress():
            message.address.CopyFrom(_network_address(gateway.destination))
        case NamespacedName(namespace, hostname):
            message.hostname.namespace, message.hostname.hostname = namespace, hostname
    return message


# --- policies ---------------------------------------------------------------------------------------


def _policy(policy: Policy) -> Resource:
    rules = [
        _AUTHORIZATION["Rule"](
            clauses=[_AUTHORIZATION["Clause"](matches=[_match(each) for each in clause]) for clause in rule]
        )
        for rule in policy.rules
    ]
    message = _AUTHORIZATION["Authorization"](
        name=policy.name,
        namespace=policy.namespace,
        scope=_SCOPES.index(policy.scope),
        action=int(policy.action == "Deny"),
        rules=rules,
    )
    return Resource(encoded(message))


def _match(match: Match) -> Any:
    given: dict[str, Any] = {}
    for name in _AUTHORIZATION["Match"].DESCRIPTOR.fields_by_name:
        values: Iterable[Any] = getattr(match, name)
        if name.endswith(("namespaces", "principals")):
            given[name] = [_string(each) for each in values]
        elif name.endswith("ips"):
            given[name] = [_network(each) for each in values]
        elif name.endswith("service_accounts"):
            given[name] = [
                _AUTHORIZATION["ServiceAccountMatch"](
                    namespace=each.namespace, service_account=each.service_account
                )
                for each in values
            ]
        else:
            given[name] = values
    return _AUTHORIZATION["Match"](**given)


def _string(match: StringMatch) -> Any:
    if match.kind == "Presence":
        return _AUTHORIZATION["StringMatch"](presence=_AUTHORIZATION["Empty"]())
    return _AUTHORIZATION["StringMatch"](**{match.kind.lower(): match.value})


def _network(network: Network) -> Any:
    return _AUTHORIZATION["Address"](address=network.network_address.packed, length=network.prefixlen)
