"""A mesh's configuration written out: as plain dicts in Istio's camelCase, as JSON and YAML text; and text read.

Rules: what is written reads back the same; YAML writes string matches as tags (``!Exact x``), which is what
serde_yaml wants, and reads them as tags and as mappings; a key given twice is refused.
Does not belong here: the schema (see `local_config`), the rest of ``/config_dump`` (see `mesh.telemetry`).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from netwarren.errors import MeshConfigError
from netwarren.mesh.model import GatewayAddress, Health, Match, Policy, Service, StringMatch, Workload
from netwarren.mesh.state.local_config import MATCH_FIELDS, Config, config_of

Plain = dict[str, Any]


# --- to plain dicts -------------------------------------------------------------------------------


def plain_of(config: Config) -> Plain:
    """``config`` as dicts and lists that JSON can say; `local_config.config_of` gives the same back."""
    return {
        "workloads": [plain_workload(each) for each in config.workloads],
        "policies": [plain_policy(each) for each in config.policies],
        "services": [
            _with_unhealthy(plain_service(each), each, config.workloads) for each in config.services
        ],
    }


def _with_unhealthy(plain: Plain, service: Service, workloads: Iterable[Workload]) -> Plain:
    """``plain`` with the endpoints that the service holds for unhealthy, which no workload can say."""
    key = service.key
    if service.unhealthy:
        _add_known(
            plain,
            endpoints={
                each.uid: plain_endpoint(each, each.services[key], "Unhealthy")
                for each in workloads
                if each.uid in service.unhealthy and key in each.services
            },
        )
    return plain


def plain_workload(workload: Workload) -> Plain:
    """``workload`` in the words of the local configuration and of ``/config_dump``."""
    plain: Plain = {
        "uid": workload.uid,
        "name": workload.name,
        "namespace": workload.namespace,
        "workloadIps": [str(each) for each in workload.addresses],
        "protocol": workload.protocol,
        "networkMode": workload.network_mode,
        "workloadType": workload.workload_type,
        "status": workload.status,
        "capacity": workload.capacity,
        "services": {
            str(key): {str(port): target for port, target in ports.items()}
            for key, ports in workload.services.items()
        },
    }
    locality = workload.locality
    where = {"region": locality.region, "zone": locality.zone, "subzone": locality.subzone}
    tunnel = workload.application_tunnel
    _add_known(
        plain,
        serviceAccount=workload.service_account,
        trustDomain=workload.trust_domain,
        network=workload.network,
        node=workload.node,
        nativeTunnel=workload.native_tunnel,
        hostname=workload.hostname,
        workloadName=workload.workload_name,
        canonicalName=workload.canonical_name,
        canonicalRevision=workload.canonical_revision,
        clusterId=workload.cluster_id,
        locality={name: value for name, value in where.items() if value},
        waypoint=_gateway(workload.waypoint),
        networkGateway=_gateway(workload.network_gateway),
        authorizationPolicies=[str(each) for each in workload.authorization_policies],
    )
    if tunnel is not None:
        plain["applicationTunnel"] = {"protocol": tunnel.protocol}
        _add_known(plain["applicationTunnel"], port=tunnel.port)
    return plain


def plain_service(service: Service) -> Plain:
    """``service`` in the words of the local configuration, without its endpoints: workloads name their services."""
    plain: Plain = {
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "vips": [str(each) for each in service.vips],
        "ports": {str(port): target for port, target in service.ports.items()},
    }
    balancer = service.load_balancer
    _add_known(
        plain,
        cidrVips=[{"network": each.network, "cidr": str(each.cidr)} for each in service.cidr_vips],
        subjectAltNames=list(service.subject_alt_names),
        waypoint=_gateway(service.waypoint),
        weightedWaypoints=[
            {"destination": _gateway(each.waypoint), "weight": each.weight}
            for each in service.weighted_waypoints
        ],
        ipFamilies=service.ip_families,
        canonical=service.canonical,
        visibility=None if service.visibility == "Public" else service.visibility,
        loadBalancer=balancer
        and {
            "routingPreferences": list(balancer.routing_preferences),
            "mode": balancer.mode,
            "healthPolicy": balancer.health_policy,
        },
    )
    return plain


def plain_endpoint(workload: Workload, ports: Mapping[int, int], status: Health) -> Plain:
    """A workload as an endpoint of a service, in the words of the local configuration and of ``/config_dump``."""
    return {
        "workloadUid": workload.uid,
        "port": {str(port): target for port, target in ports.items()},
        "status": status,
    }


def plain_policy(policy: Policy) -> Plain:
    """``policy`` in the words of the local configuration and of ``/config_dump``."""
    return {
        "name": policy.name,
        "namespace": policy.namespace,
        "scope": policy.scope,
        "action": policy.action,
        "rules": [[[_match(each) for each in clause] for clause in rule] for rule in policy.rules],
        "dryRun": policy.dry_run,
    }


def _add_known(plain: Plain, **fields: object) -> None:
    plain.update({name: value for name, value in fields.items() if value})


def _gateway(gateway: GatewayAddress | None) -> Plain | None:
    if gateway is None:
        return None
    return {"destination": str(gateway.destination), "hboneMtlsPort": gateway.hbone_port}


def _match(match: Match) -> Plain:
    plain: Plain = {}
    for name, (field, _) in MATCH_FIELDS.items():
        for key, values in (
            (name, getattr(match, field)),
            (f"not{name[0].upper()}{name[1:]}", getattr(match, f"not_{field}")),
        ):
            if values:
                plain[key] = [_value(each) for each in values]
    return plain


def _value(value: Any) -> object:
    match value:
        case StringMatch():
            return _Tagged({value.kind: [] if value.kind == "Presence" else value.value})
        case int():
            return value
        case _ if hasattr(value, "service_account"):
            return {"namespace": value.namespace, "serviceAccount": value.service_account}
    return str(value)


# --- to and from text -----------------------------------------------------------------------------


class _Tagged(dict[str, Any]):
    """A mapping of one, which YAML writes as a tag."""


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_tagged(self, data: _Tagged) -> yaml.Node:
        [(kind, value)] = data.items()
        node: yaml.Node = self.represent_data(value)
        node.tag = f"!{kind}"
        if isinstance(node, yaml.ScalarNode):
            node.style = '"'
        return node


_Dumper.add_representer(_Tagged, _Dumper.represent_tagged)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_tagged(self, kind: str, node: Any) -> Any:
        match node:
            case yaml.SequenceNode():
                return {kind: self.construct_sequence(node)}
            case yaml.ScalarNode():
                return {kind: self.construct_scalar(node)}
        return {kind: self.construct_mapping(node)}


_Loader.add_multi_constructor("!", _Loader.construct_tagged)


def dump_json(config: Config) -> str:
    """``config`` as JSON text."""
    return json.dumps(plain_of(config), indent=2)


def dump_yaml(config: Config) -> str:
    """``config`` as YAML text."""
    plain = plain_of(config)
    for workload in plain["workloads"]:
        workload["services"] = {key: _int_keys(ports) for key, ports in workload["services"].items()}
    for service in plain["services"]:
        service["ports"] = _int_keys(service["ports"])
        for endpoint in service.get("endpoints", {}).values():
            endpoint["port"] = _int_keys(endpoint["port"])
    # What is not ASCII is escaped: PyYAML writes line breaks of Unicode as they are and folds them when it reads.
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False)


def _int_keys(ports: Mapping[str, int]) -> dict[int, int]:
    return {int(port): target for port, target in ports.items()}


def load_json(text: str | bytes) -> Config:
    """The configuration that JSON text spells; raises `MeshConfigError`."""
    try:
        plain = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise MeshConfigError(f"the configuration is no JSON: {error}") from None
    return config_of(plain)


def _once(pairs: list[tuple[str, Any]]) -> Plain:
    plain = dict(pairs)
    if len(plain) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is given twice in one object")
    return plain


def load_yaml(text: str | bytes) -> Config:
    """The configuration that YAML text (or JSON, which is YAML) spells; raises `MeshConfigError`."""
    try:
        plain = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise MeshConfigError(f"the configuration is no YAML: {' '.join(str(error).split())}") from None
    return config_of(plain)
