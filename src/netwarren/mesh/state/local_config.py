"""A mesh's configuration as its author writes it: workloads, policies and services, in YAML, JSON or plain dicts.

Rules: the schema, the names and the defaults of Istio's ztunnel (``LOCAL_XDS_PATH``), unknown fields refused; what
names something that is not there is read all the same (see `references`).
Does not belong here: reading files, writing configurations out (see `dump`), finding things in them (see `store`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from netwarren.mesh.model import (
    ApplicationTunnel,
    CidrAddress,
    GatewayAddress,
    Health,
    LoadBalancer,
    Locality,
    Match,
    NamespacedName,
    Policy,
    Service,
    ServiceAccountMatch,
    StringMatch,
    WeightedWaypoint,
    Workload,
)
from netwarren.mesh.state.fields import (
    Fields,
    Reader,
    address,
    choice,
    destination,
    each,
    namespaced_name,
    near,
    network,
    network_address,
    number,
    port,
    refuse,
    table,
    target_port,
    text,
    truth,
    uint32,
)


@dataclass(frozen=True, slots=True)
class Config:
    """All that a mesh is made of."""

    workloads: tuple[Workload, ...] = ()
    policies: tuple[Policy, ...] = ()
    services: tuple[Service, ...] = ()


def config_of(plain: object) -> Config:
    """The configuration that plain dicts and lists spell, as JSON and YAML give them.

    Raises `MeshConfigError` that names the place, as in ``workloads[2].waypoint.destination``, and what would do.
    """
    if plain is None:
        return Config()
    fields = Fields(plain, "", ("workloads", "policies", "services"))
    workloads = fields.listed("workloads", _workload)
    policies = fields.listed("policies", _policy)
    listed = fields.listed("services", _service)
    services = tuple([service for service, _ in listed])
    endpoints = {service.key: members for service, members in listed if members}
    if endpoints:
        workloads = tuple([_with_endpoints(workload, endpoints) for workload in workloads])
    return Config(workloads, policies, services)


# --- workloads ------------------------------------------------------------------------------------

_WORKLOAD = (
    "uid",
    "name",
    "namespace",
    "workloadIps",
    "serviceAccount",
    "trustDomain",
    "network",
    "node",
    "protocol",
    "networkMode",
    "nativeTunnel",
    "hostname",
    "workloadName",
    "workloadType",
    "canonicalName",
    "canonicalRevision",
    "clusterId",
    "locality",
    "status",
    "capacity",
    "waypoint",
    "networkGateway",
    "applicationTunnel",
    "authorizationPolicies",
    "services",
)
_port_map = table(port, target_port)


def _workload(value: object, path: str) -> Workload:
    fields = Fields(value, path, _WORKLOAD)
    return Workload(
        uid=fields.optional("uid", text, ""),
        name=fields.optional("name", text, ""),
        namespace=fields.required("namespace", text),
        addresses=fields.required("workloadIps", each(address)),
        service_account=fields.optional("serviceAccount", text, ""),
        trust_domain=fields.optional("trustDomain", text, ""),
        network=fields.optional("network", text, ""),
        node=fields.optional("node", text, ""),
        protocol=fields.optional("protocol", choice("TCP", "HBONE"), "TCP"),
        network_mode=fields.optional("networkMode", choice("Standard", "HostNetwork"), "Standard"),
        native_tunnel=fields.optional("nativeTunnel", truth, False),
        hostname=fields.optional("hostname", text, ""),
        workload_name=fields.optional("workloadName", text, ""),
        workload_type=fields.optional("workloadType", choice("deployment", "cronjob", "pod", "job"), "pod"),
        canonical_name=fields.optional("canonicalName", text, ""),
        canonical_revision=fields.optional("canonicalRevision", text, ""),
        cluster_id=fields.optional("clusterId", text, ""),
        locality=fields.optional("locality", _locality, Locality()),
        status=fields.optional("status", choice("Healthy", "Unhealthy"), "Healthy"),
        capacity=fields.optional("capacity", uint32, 1),
        waypoint=fields.maybe("waypoint", _gateway),
        network_gateway=fields.maybe("networkGateway", _gateway),
        application_tunnel=fields.maybe("applicationTunnel", _application_tunnel),
        authorization_policies=fields.listed("authorizationPolicies", namespaced_name),
        services=fields.required("services", table(namespaced_name, _port_map)),
    )


def _locality(value: object, path: str) -> Locality:
    fields = Fields(value, path, ("region", "zone", "subzone"))
    return Locality(*(fields.optional(name, text, "") for name in ("region", "zone", "subzone")))


def _gateway(value: object, path: str) -> GatewayAddress:
    fields = Fields(value, path, ("destination", "hboneMtlsPort"))
    return GatewayAddress(
        fields.required("destination", destination), fields.optional("hboneMtlsPort", port, 15008)
    )


def _application_tunnel(value: object, path: str) -> ApplicationTunnel:
    fields = Fields(value, path, ("protocol", "port"))
    return ApplicationTunnel(
        fields.optional("protocol", choice("NONE", "PROXY"), "NONE"), fields.maybe("port", port)
    )


# --- services -------------------------------------------------------------------------------------

_SERVICE = (
    "name",
    "namespace",
    "hostname",
    "vips",
    "cidrVips",
    "ports",
    "endpoints",
    "subjectAltNames",
    "waypoint",
    "weightedWaypoints",
    "loadBalancer",
    "ipFamilies",
    "canonical",
    "visibility",
)
_Endpoints = Mapping[str, Mapping[int, int]]


def _service(value: object, path: str) -> tuple[Service, _Endpoints]:
    fields = Fields(value, path, _SERVICE)
    endpoints = fields.maybe("endpoints", table(text, _endpoint)) or {}
    service = Service(
        name=fields.required("name", text),
        namespace=fields.required("namespace", text),
        hostname=fields.required("hostname", text),
        vips=fields.listed("vips", network_address),
        cidr_vips=fields.listed("cidrVips", _cidr),
        ports=fields.optional("ports", _port_map, {}),
        subject_alt_names=fields.listed("subjectAltNames", text),
        waypoint=fields.maybe("waypoint", _gateway),
        weighted_waypoints=fields.listed("weightedWaypoints", _weighted),
        load_balancer=fields.maybe("loadBalancer", _load_balancer),
        ip_families=fields.maybe("ipFamilies", choice("Dual", "IPv4", "IPv6")),
        canonical=fields.optional("canonical", truth, False),
        visibility=fields.optional("visibility", choice("Public", "Namespace"), "Public"),
        unhealthy=frozenset(uid for uid, (_, status) in endpoints.items() if status == "Unhealthy"),
    )
    return service, {uid: ports for uid, (ports, _) in endpoints.items()}


def _cidr(value: object, path: str) -> CidrAddress:
    fields = Fields(value, path, ("network", "cidr"))
    return CidrAddress(fields.optional("network", text, ""), fields.required("cidr", network))


def _weighted(value: object, path: str) -> WeightedWaypoint:
    fields = Fields(value, path, ("destination", "weight"))
    return WeightedWaypoint(fields.required("destination", _gateway), fields.optional("weight", uint32, 1))


def _load_balancer(value: object, path: str) -> LoadBalancer:
    fields = Fields(value, path, ("routingPreferences", "mode", "healthPolicy"))
    return LoadBalancer(
        fields.listed(
            "routingPreferences", choice("Region", "Zone", "Subzone", "Node", "Cluster", "Network")
        ),
        fields.optional("mode", choice("Standard", "Strict", "Failover", "Passthrough"), "Standard"),
        fields.optional("healthPolicy", choice("OnlyHealthy", "AllowAll"), "OnlyHealthy"),
    )


def _endpoint(value: object, path: str) -> tuple[Mapping[int, int], Health]:
    fields = Fields(value, path, ("workloadUid", "port", "status"))
    fields.maybe("workloadUid", text)  # its key says the same, and decides
    status: Health = fields.optional("status", choice("Healthy", "Unhealthy"), "Healthy")
    return fields.optional("port", _port_map, {}), status


def _with_endpoints(workload: Workload, endpoints: Mapping[NamespacedName, _Endpoints]) -> Workload:
    """``workload`` with the services that name it as an endpoint, besides those that it names itself."""
    more = {
        key: members[workload.uid]
        for key, members in endpoints.items()
        if workload.uid in members and key not in workload.services
    }
    return replace(workload, services={**workload.services, **more}) if more else workload


# --- policies -------------------------------------------------------------------------------------


def _string_match(value: object, path: str) -> StringMatch:
    kinds = ("Exact", "Prefix", "Suffix", "Presence")
    if value == "Presence":
        return StringMatch("Presence")
    if not isinstance(value, Mapping) or len(value) != 1:
        refuse(path, 'must be one of {"Exact": "x"}, {"Prefix": "x"}, {"Suffix": "x"} and {"Presence": []}')
    key: Any
    [(key, pattern)] = value.items()
    if key not in kinds:
        refuse(path, f"has no match {key!r:.80}; {near(str(key), kinds)}")
    if key == "Presence":
        return StringMatch("Presence")
    return StringMatch(key, text(pattern, f"{path}.{key}"))


def _service_account(value: object, path: str) -> ServiceAccountMatch:
    fields = Fields(value, path, ("namespace", "serviceAccount"))
    return ServiceAccountMatch(
        fields.optional("namespace", text, ""), fields.required("serviceAccount", text)
    )


# A match's fields: what each is called in the model, and what it lists. Each has a twin with "not" before it.
MATCH_FIELDS: Mapping[str, tuple[str, Reader[Any]]] = {
    "namespaces": ("namespaces", _string_match),
    "serviceAccounts": ("service_accounts", _service_account),
    "principals": ("principals", _string_match),
    "sourceIps": ("source_ips", network),
    "destinationIps": ("destination_ips", network),
    "destinationPorts": ("destination_ports", number(0, 65535)),
}
_MATCH: Mapping[str, tuple[str, Reader[Any]]] = {
    **MATCH_FIELDS,
    **{
        f"not{name[0].upper()}{name[1:]}": (f"not_{field}", read)
        for name, (field, read) in MATCH_FIELDS.items()
    },
}


def _match(value: object, path: str) -> Match:
    fields = Fields(value, path, tuple(_MATCH))
    given: dict[str, Any] = {}
    for name, (field, read) in _MATCH.items():
        given[field] = fields.listed(name, read)
    return Match(**given)


def _policy(value: object, path: str) -> Policy:
    fields = Fields(value, path, ("name", "namespace", "scope", "action", "rules", "dryRun"))
    return Policy(
        name=fields.required("name", text),
        namespace=fields.required("namespace", text),
        scope=fields.required("scope", choice("Global", "Namespace", "WorkloadSelector")),
        action=fields.required("action", choice("Allow", "Deny")),
        rules=fields.listed("rules", each(each(_match))),
        dry_run=fields.optional("dryRun", truth, False),
    )
