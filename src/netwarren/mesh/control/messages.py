"""The messages of discovery: delta xDS, and Istio's ``istio.workload.Address`` and ``istio.security.Authorization``.

Rules: the schemas are those of Envoy (``service/discovery/v3/discovery.proto``) and istio/istio (``pkg/workloadapi/workload.proto``,
``security/authorization.proto``, 2026-08), which istio/ztunnel has too, as far as their numbers mean something to a ztunnel.
Does not belong here: what a mesh says in them (see `resources`), what they say of one (see `learning`).
"""

from typing import Literal

from netwarren.mesh.control.schema import STRUCT, classes
from netwarren.mesh.model import (
    BalancerMode,
    Health,
    HealthPolicy,
    IpFamilies,
    NetworkMode,
    PolicyAction,
    PolicyScope,
    RoutingPreference,
    Visibility,
    WorkloadProtocol,
    WorkloadType,
)

ADDRESS = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION = "type.googleapis.com/istio.security.Authorization"

DISCOVERY_PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
DISCOVERY_API = classes(
    "envoy.service.discovery.v3",
    {
        "DeltaDiscoveryRequest": "node 1 Node, type_url 2 string, resource_names_subscribe 3 *string, "
        "resource_names_unsubscribe 4 *string, initial_resource_versions 5 *VersionsEntry, response_nonce 6 string, "
        "error_detail 7 Status",
        "Node": "id 1 string, metadata 3 Struct",
        "VersionsEntry": "key 1 string, value 2 string",
        "Status": "code 1 int32, message 2 string",
        "DeltaDiscoveryResponse": "resources 2 *Resource, type_url 4 string, nonce 5 string, removed_resources 6 *string",
        "Resource": "version 1 string, resource 2 Any, name 3 string, aliases 4 *string",
        "Any": "type_url 1 string, value 2 bytes",
        **STRUCT,
    },
)

WORKLOAD_API = classes(
    "istio.workload",
    {
        "Address": "workload 1 Workload, service 2 Service",
        "Service": "name 1 string, namespace 2 string, hostname 3 string, addresses 4 *NetworkAddress, ports 5 *Port, "
        "subject_alt_names 6 *string, waypoint 7 GatewayAddress, load_balancing 8 LoadBalancing, "
        "ip_families 9 int32, canonical 11 bool, weighted_waypoints 13 *WeightedWaypoint, visibility 14 int32",
        "WeightedWaypoint": "destination 1 GatewayAddress, weight 2 uint32",
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
        "NetworkAddress": "network 1 string, address 2 bytes, length 3 ?uint32",
        "NamespacedHostname": "namespace 1 string, hostname 2 string",
    },
)
SECURITY_API = classes(
    "istio.security",
    {
        "Authorization": "name 1 string, namespace 2 string, scope 3 int32, action 4 int32, rules 5 *Rule, dry_run 6 bool",
        "Rule": "clauses 1 *Clause",
        "Clause": "matches 2 *Match",
        "Match": "namespaces 1 *StringMatch, not_namespaces 2 *StringMatch, principals 3 *StringMatch, "
        "not_principals 4 *StringMatch, source_ips 5 *Address, not_source_ips 6 *Address, destination_ips 7 *Address, "
        "not_destination_ips 8 *Address, destination_ports 9 *uint32, not_destination_ports 10 *uint32, "
        "service_accounts 11 *ServiceAccountMatch, not_service_accounts 12 *ServiceAccountMatch",
        "Address": "address 1 bytes, length 2 uint32",
        "StringMatch": "exact 1 ?string, prefix 2 ?string, suffix 3 ?string, presence 4 Empty",
        "ServiceAccountMatch": "namespace 1 string, service_account 2 string",
        "Empty": "",
    },
)

# What the numbers of enums mean to a mesh's model, in their order from 0 on.
PROTOCOLS: tuple[WorkloadProtocol, ...] = ("TCP", "HBONE")
NETWORK_MODES: tuple[NetworkMode, ...] = ("Standard", "HostNetwork")
HEALTH: tuple[Health, ...] = ("Healthy", "Unhealthy")
WORKLOAD_TYPES: tuple[WorkloadType, ...] = ("deployment", "cronjob", "pod", "job")
TUNNELS: tuple[Literal["NONE", "PROXY"], ...] = ("NONE", "PROXY")
PREFERENCES: tuple[RoutingPreference | None, ...] = (
    None,
    "Region",
    "Zone",
    "Subzone",
    "Node",
    "Cluster",
    "Network",
)
MODES: tuple[BalancerMode, ...] = ("Standard", "Strict", "Failover", "Passthrough")
HEALTH_POLICIES: tuple[HealthPolicy, ...] = ("OnlyHealthy", "AllowAll")
FAMILIES: tuple[IpFamilies | None, ...] = (None, "IPv4", "IPv6", "Dual")
VISIBILITIES: tuple[Visibility, ...] = ("Public", "Namespace")
SCOPES: tuple[PolicyScope, ...] = ("Global", "Namespace", "WorkloadSelector")
ACTIONS: tuple[PolicyAction, ...] = ("Allow", "Deny")
