"""A mesh as Istio's resources, by the numbers of istio/ztunnel's ``workload.proto`` and ``authorization.proto``."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION
from netwarren.mesh.control.resources import Resource, resources_of
from netwarren.mesh.model import (
    ApplicationTunnel,
    CidrAddress,
    GatewayAddress,
    HealthPolicy,
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
from tests.mesh.control.wire import Fields, fields, inner

KEY = NamespacedName("prod", "web.prod.svc.cluster.local")
WORKLOAD = Workload(
    uid="cluster1//v1/Pod/prod/web-0",
    name="web-0",
    namespace="prod",
    addresses=(ip_address("10.0.0.1"), ip_address("fd00::1")),
    service_account="web",
    network="net",
    node="node-a",
    protocol="HBONE",
    services={KEY: {80: 8080}},
    authorization_policies=(NamespacedName("prod", "selected"),),
)
SERVICE = Service(
    "web", "prod", KEY.name, vips=(NetworkAddress("net", ip_address("10.96.0.1")),), ports={80: 8080}
)


def workload(**changes: object) -> tuple[Resource, Fields]:
    changed = replace(WORKLOAD, **changes)  # type: ignore[arg-type]
    resource = resources_of(Config((changed,)))[ADDRESS][WORKLOAD.uid]
    return resource, inner(fields(resource.message), 1)


def test_a_workload_has_ztunnels_numbers() -> None:
    resource, found = workload()
    assert resource.aliases == ("net/10.0.0.1", "net/fd00::1")
    assert found == {
        20: [b"cluster1//v1/Pod/prod/web-0"],
        1: [b"web-0"],
        2: [b"prod"],
        3: [ip_address("10.0.0.1").packed, ip_address("fd00::1").packed],
        4: [b"net"],
        5: [1],
        6: [b"cluster.local"],
        7: [b"web"],
        9: [b"node-a"],
        12: [2],
        16: [b"prod/selected"],
        18: [b"Kubernetes"],
        22: found[22],
        27: found[27],
    }
    entry = inner(found, 22)
    assert entry[1] == [b"prod/web.prod.svc.cluster.local"]
    assert inner(inner(entry, 2), 1) == {1: [80], 2: [8080]}
    assert inner(found, 27) == {1: [1]}


@pytest.mark.parametrize(
    ("unhealthy", "policy", "there"),
    [
        ({WORKLOAD.uid}, "OnlyHealthy", False),
        ({WORKLOAD.uid}, "AllowAll", True),
        ({"another"}, "OnlyHealthy", True),
    ],
)
def test_an_endpoint_that_its_service_holds_for_unhealthy_is_none_unless_all_are_allowed(
    unhealthy: set[str], policy: HealthPolicy, there: bool
) -> None:
    service = replace(
        SERVICE, unhealthy=frozenset(unhealthy), load_balancer=LoadBalancer(health_policy=policy)
    )
    resource = resources_of(Config((WORKLOAD,), (), (service,)))[ADDRESS][WORKLOAD.uid]
    assert (22 in inner(fields(resource.message), 1)) == there


def test_what_a_workload_may_have_besides_has_ztunnels_numbers() -> None:
    resource, found = workload(
        hostname="db.example.org",
        network_mode="HostNetwork",
        status="Unhealthy",
        workload_type="deployment",
        workload_name="web",
        canonical_name="canonical",
        canonical_revision="v1",
        native_tunnel=True,
        capacity=7,
        locality=Locality("r", "z", "s"),
        application_tunnel=ApplicationTunnel("PROXY", 15088),
        waypoint=GatewayAddress(NetworkAddress("net", ip_address("10.0.0.9")), 15008),
        network_gateway=GatewayAddress(NamespacedName("istio-system", "gateway.example.org"), 15009),
    )
    assert resource.aliases == ()
    assert (found[21], found[25], found[17]) == ([b"db.example.org"], [1], [1])
    assert 12 not in found  # 0, which is a deployment
    assert (found[10], found[11], found[13], found[14]) == ([b"canonical"], [b"v1"], [b"web"], [1])
    assert inner(found, 27) == {1: [7]}
    assert inner(found, 24) == {1: [b"r"], 2: [b"z"], 3: [b"s"]}
    assert inner(found, 23) == {1: [1], 2: [15088]}
    waypoint = inner(found, 8)
    assert (waypoint[3], inner(waypoint, 2)) == ([15008], {1: [b"net"], 2: [ip_address("10.0.0.9").packed]})
    gateway = inner(found, 19)
    assert (gateway[3], inner(gateway, 1)) == ([15009], {1: [b"istio-system"], 2: [b"gateway.example.org"]})


def test_a_service_has_ztunnels_numbers() -> None:
    made = replace(
        SERVICE,
        subject_alt_names=("spiffe://a",),
        canonical=True,
        ip_families="IPv6",
        load_balancer=LoadBalancer(("Network", "Region"), "Failover", "AllowAll"),
        waypoint=GatewayAddress(NamespacedName("prod", "waypoint"), 15008),
    )
    resource = resources_of(Config(services=(made,)))[ADDRESS][str(KEY)]
    found = inner(fields(resource.message), 2)
    assert resource.aliases == ("net/10.96.0.1",)
    assert (found[1], found[2], found[3]) == ([b"web"], [b"prod"], [KEY.name.encode()])
    assert inner(found, 4) == {1: [b"net"], 2: [ip_address("10.96.0.1").packed]}
    assert inner(found, 5) == {1: [80], 2: [8080]}
    assert (found[6], found[9], found[11]) == ([b"spiffe://a"], [2], [1])
    assert inner(inner(found, 7), 1) == {1: [b"prod"], 2: [b"waypoint"]}
    assert inner(found, 8) == {1: [bytes([6, 1])], 2: [2], 3: [1]}


def test_a_policy_has_ztunnels_numbers() -> None:
    match = Match(
        namespaces=(StringMatch("Exact", "a"),),
        not_namespaces=(StringMatch("Prefix", "b"),),
        principals=(StringMatch("Suffix", "c"),),
        not_principals=(StringMatch("Presence"),),
        source_ips=(ip_network("10.0.0.0/8"),),
        not_source_ips=(ip_network("fd00::/16"),),
        destination_ips=(ip_network("0.0.0.0/0"),),
        not_destination_ips=(ip_network("10.0.0.1/32"),),
        destination_ports=(80, 443),
        not_destination_ports=(9999,),
        service_accounts=(ServiceAccountMatch("ns", "sa"),),
    )
    policy = Policy("deny", "prod", "WorkloadSelector", "Deny", rules=(((match,),),))
    resource = resources_of(Config(policies=(policy,)))[AUTHORIZATION]["prod/deny"]
    found = fields(resource.message)
    assert (found[1], found[2], found[3], found[4]) == ([b"deny"], [b"prod"], [2], [1])
    said = inner(inner(inner(found, 5), 1), 2)
    assert [inner(said, number) for number in (1, 2, 3, 4)] == [
        {1: [b"a"]},
        {2: [b"b"]},
        {3: [b"c"]},
        {4: [b""]},
    ]
    assert inner(said, 5) == {1: [bytes([10, 0, 0, 0])], 2: [8]}
    assert inner(said, 6) == {1: [ip_address("fd00::").packed], 2: [16]}
    assert inner(said, 7) == {1: [bytes(4)]}
    assert inner(said, 8) == {1: [bytes([10, 0, 0, 1])], 2: [32]}
    assert (said[9], said[10]) == ([b"\x50\xbb\x03"], [b"\x8f\x4e"])
    assert inner(said, 11) == {1: [b"ns"], 2: [b"sa"]}


def test_a_policy_that_is_only_tried_says_so() -> None:
    policy = Policy("tried", "prod", "Namespace", "Deny", dry_run=True)
    resource = resources_of(Config(policies=(policy,)))[AUTHORIZATION]["prod/tried"]
    assert fields(resource.message)[6] == [1]


def test_ranges_weights_and_visibility_of_a_service_have_istios_numbers() -> None:
    made = replace(
        SERVICE,
        cidr_vips=(CidrAddress("net", ip_network("10.97.0.0/16")), CidrAddress("", ip_network("0.0.0.0/0"))),
        weighted_waypoints=(
            WeightedWaypoint(GatewayAddress(NamespacedName("prod", "one")), 3),
            WeightedWaypoint(GatewayAddress(NamespacedName("prod", "two")), 0),
        ),
        visibility="Namespace",
    )
    resource = resources_of(Config(services=(made,)))[ADDRESS][str(KEY)]
    assert resource.aliases == ("net/10.96.0.1",)
    found = inner(fields(resource.message), 2)
    assert [inner(found, 4, which) for which in range(3)] == [
        {1: [b"net"], 2: [ip_address("10.96.0.1").packed]},
        {1: [b"net"], 2: [ip_address("10.97.0.0").packed], 3: [16]},
        {2: [bytes(4)], 3: [0]},
    ]
    assert [inner(found, 13, which).get(2) for which in range(2)] == [[3], None]
    assert inner(inner(inner(found, 13), 1), 1) == {1: [b"prod"], 2: [b"one"]}
    assert found[14] == [1]
