"""Resources of Istio's read as a mesh: the same that was said, ztunnel's defaults, and what makes no sense."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.control.learning import address_of, policy_of
from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION, SECURITY_API, WORKLOAD_API
from netwarren.mesh.control.resources import resources_of
from netwarren.mesh.control.schema import encoded
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
from netwarren.mesh.state.local_config import Config

KEY = NamespacedName("prod", "web.prod.svc.cluster.local")
GATEWAY = GatewayAddress(NamespacedName("istio-system", "gateway.example.org"), 15009)
WAYPOINT = GatewayAddress(NetworkAddress("net", ip_address("fd00::9")))
WORKLOAD = Workload(
    uid="cluster1//v1/Pod/prod/web-0",
    name="web-0",
    namespace="prod",
    addresses=(ip_address("10.0.0.1"), ip_address("fd00::1")),
    service_account="web",
    trust_domain="example.org",
    network="net",
    node="node-a",
    protocol="HBONE",
    network_mode="HostNetwork",
    native_tunnel=True,
    hostname="db.example.org",
    workload_name="web",
    workload_type="job",
    canonical_name="web",
    canonical_revision="v1",
    cluster_id="two",
    locality=Locality("r", "z", "s"),
    status="Unhealthy",
    capacity=0,
    waypoint=WAYPOINT,
    network_gateway=GATEWAY,
    application_tunnel=ApplicationTunnel("PROXY", 15088),
    authorization_policies=(NamespacedName("prod", "selected"),),
    services={KEY: {80: 8080, 443: 0}},
)
SERVICE = Service(
    "web",
    "prod",
    KEY.name,
    vips=(NetworkAddress("net", ip_address("10.96.0.1")), NetworkAddress("", ip_address("fd00:96::1"))),
    cidr_vips=(CidrAddress("net", ip_network("10.97.0.0/16")), CidrAddress("", ip_network("0.0.0.0/0"))),
    ports={80: 8080},
    subject_alt_names=("spiffe://a",),
    waypoint=WAYPOINT,
    weighted_waypoints=(WeightedWaypoint(WAYPOINT, 3), WeightedWaypoint(GATEWAY, 0)),
    load_balancer=LoadBalancer(("Network", "Region"), "Failover", "AllowAll"),
    ip_families="IPv6",
    canonical=True,
    visibility="Namespace",
)
MATCH = Match(
    namespaces=(StringMatch("Exact", ""), StringMatch("Exact", "a")),
    not_namespaces=(StringMatch("Prefix", "b"),),
    service_accounts=(ServiceAccountMatch("ns", "sa"),),
    not_service_accounts=(ServiceAccountMatch("", "sa"),),
    principals=(StringMatch("Suffix", "c"),),
    not_principals=(StringMatch("Presence"),),
    source_ips=(ip_network("10.0.0.0/8"),),
    not_source_ips=(ip_network("fd00::/16"),),
    destination_ips=(ip_network("0.0.0.0/0"),),
    not_destination_ips=(ip_network("10.0.0.1/32"),),
    destination_ports=(80, 443),
    not_destination_ports=(9999,),
)
POLICY = Policy("deny", "prod", "WorkloadSelector", "Deny", rules=(((MATCH, Match()), ()), ()), dry_run=True)


def message(config: Config, url: str = ADDRESS) -> bytes:
    (resource,) = resources_of(config)[url].values()
    return resource.message


@pytest.mark.parametrize("workload", [WORKLOAD, Workload("uid", "plain", "default")])
def test_a_workload_is_read_as_it_was_said(workload: Workload) -> None:
    assert address_of(message(Config((workload,)))) == workload


@pytest.mark.parametrize("service", [SERVICE, Service("plain", "default", "plain.example.org")])
def test_a_service_is_read_as_it_was_said(service: Service) -> None:
    assert address_of(message(Config(services=(service,)))) == service


@pytest.mark.parametrize("policy", [POLICY, Policy("plain", "", "Global", "Allow")])
def test_a_policy_is_read_as_it_was_said(policy: Policy) -> None:
    assert policy_of(message(Config(policies=(policy,)), AUTHORIZATION)) == policy


def test_what_a_workload_does_not_say_is_what_ztunnel_takes_for_it() -> None:
    said = WORKLOAD_API["Address"](workload=WORKLOAD_API["Workload"](uid="uid", namespace="prod"))
    found = address_of(encoded(said))
    assert found == Workload("uid", "", "prod", workload_type="deployment")
    assert isinstance(found, Workload)
    assert (found.trust_domain, found.service_account, found.cluster_id, found.capacity) == (
        "cluster.local",
        "default",
        "Kubernetes",
        1,
    )


def test_a_gateway_without_a_port_is_at_the_port_of_hbone() -> None:
    said = WORKLOAD_API["Workload"](uid="uid")
    said.waypoint.hostname.namespace = "prod"
    said.waypoint.hostname.hostname = "waypoint"
    found = address_of(encoded(WORKLOAD_API["Address"](workload=said)))
    assert found.waypoint == GatewayAddress(NamespacedName("prod", "waypoint"), 15008)


@pytest.mark.parametrize("length", [32, None])
def test_a_range_of_one_is_an_address(length: int | None) -> None:
    said = WORKLOAD_API["Service"](name="web")
    said.addresses.add(address=bytes([10, 0, 0, 1]))
    if length is not None:
        said.addresses[0].length = length
    found = address_of(encoded(WORKLOAD_API["Address"](service=said)))
    assert isinstance(found, Service)
    assert found.vips == (NetworkAddress("", ip_address("10.0.0.1")),)
    assert found.cidr_vips == ()


def workload(**fields: Any) -> bytes:
    return encoded(WORKLOAD_API["Address"](workload=WORKLOAD_API["Workload"](**fields)))


def service(**fields: Any) -> bytes:
    return encoded(WORKLOAD_API["Address"](service=WORKLOAD_API["Service"](**fields)))


_GATEWAY = WORKLOAD_API["GatewayAddress"]
_ADDRESSES = WORKLOAD_API["NetworkAddress"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "neither a workload nor a service"),
        (b"\xff", "is no Address"),
        (workload(addresses=[b"12345"]), "an address has 5 bytes, and must have 4 or 16"),
        (workload(tunnel_protocol=2), "2 is no tunnel protocol that is known"),
        (workload(status=-1), "-1 is no status that is known"),
        (workload(waypoint=_GATEWAY()), "the waypoint has neither an address nor a hostname"),
        (workload(network_gateway=_GATEWAY(hbone_mtls_port=70000)), "70000 is no port"),
        (workload(authorization_policies=["alone"]), "a policy is called 'alone', .* NAMESPACE/NAME"),
        (workload(services=[WORKLOAD_API["ServicesEntry"](key="web")]), "a service is called 'web'"),
        (service(visibility=7), "7 is no visibility that is known"),
        (service(ports=[WORKLOAD_API["Port"](service_port=65536)]), "65536 is no port"),
        (service(addresses=[_ADDRESSES(address=bytes(4), length=33)]), r"a range of 0\.0\.0\.0 has 33 bits"),
        (
            service(weighted_waypoints=[WORKLOAD_API["WeightedWaypoint"]()]),
            "a waypoint is listed and left out",
        ),
        (
            service(load_balancing=WORKLOAD_API["LoadBalancing"](routing_preference=[0])),
            "a routing preference is listed and left out",
        ),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(MeshError, match=why):
        address_of(data)


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ({"namespaces": [SECURITY_API["StringMatch"]()]}, "a string is matched by nothing"),
        ({"source_ips": [SECURITY_API["Address"](address=bytes(3))]}, "an address has 3 bytes"),
        ({"destination_ips": [SECURITY_API["Address"](address=bytes(16), length=129)]}, "has 129 bits"),
        ({"destination_ports": [65536]}, "65536 is no port"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_the_reason(match: dict[str, Any], why: str) -> None:
    clause = SECURITY_API["Clause"](matches=[SECURITY_API["Match"](**match)])
    said = SECURITY_API["Authorization"](name="p", rules=[SECURITY_API["Rule"](clauses=[clause])])
    with pytest.raises(MeshError, match=why):
        policy_of(encoded(said))


def test_what_others_have_put_into_a_resource_is_passed_over() -> None:
    unknown = bytes([0xD2, 0x03, 3]) + b"abc"  # field 58, of a schema to come
    assert address_of(message(Config((WORKLOAD,))) + unknown) == WORKLOAD
    assert (
        policy_of(message(Config(policies=(replace(POLICY, name="x"),)), AUTHORIZATION) + unknown).name == "x"
    )
