"""Where connections of a pod go; the numbers are the rows of ztunnel's decision table."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from netwarren.mesh.config import ProxyConfig
from netwarren.mesh.model import (
    ApplicationTunnel,
    LoadBalancer,
    NamespacedName,
    Service,
    SocketAddress,
    WeightedWaypoint,
    Workload,
)
from netwarren.mesh.state.headers import HostPort, TraceParent
from netwarren.mesh.state.outbound import Unresolved, Upstream, decide, resolved
from netwarren.mesh.state.refusals import (
    EmptyResolvedAddresses,
    NoHealthyUpstream,
    NoResolvedAddresses,
    NoValidDestination,
    Refusal,
    SelfCall,
    UnknownNetworkGateway,
    UnknownSourceWorkload,
    UnknownWaypoint,
)
from tests.mesh.state.builders import gateway, hostname, identity, key, mesh, pod, rng, service, to

CLIENT = pod("client", "10.0.0.1", "fd00::1")
SERVER = pod("server", "10.0.0.2", "fd00::2", services={"web": {}})
PLAIN = replace(SERVER, protocol="TCP")
WAYPOINT = pod("waypoint", "10.0.0.9", services={"waypoint": {}})
WAYPOINT_SERVICE = service("waypoint", "10.1.0.9", ports={15008: 15008})
WEB = service("web", "10.1.0.1", "fd01::1")
EAST_WEST = pod("gateway", "10.0.0.8", services={"gateway": {}})
REMOTE = pod("remote", services={"web": {}}, network="far", network_gateway=gateway("10.0.0.8"))


def upstream(
    *things: Workload | Service,
    target: str = "10.1.0.1:80",
    source: Workload = CLIENT,
    seed: int = 1,
    **more: Any,
) -> Upstream:
    return decide(
        mesh(source, *things),
        ProxyConfig(**more),
        source,
        source.addresses[0],
        to(target),
        rng(seed),
    )


def refused(error: type[Refusal], *things: Workload | Service, **more: Any) -> str:
    with pytest.raises(error) as caught:
        upstream(*things, **more)
    assert caught.value.flag == "CONNECT"
    assert caught.value.early
    return str(caught.value)


def shown(found: Upstream) -> tuple[int, str, str, str]:
    return found.row, found.protocol, str(found.address), str(found.authority or "")


# --- rows 0 and 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [15001, 15006, 15008])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]"])
def test_row_0_a_call_to_the_proxys_own_port_on_loopback_is_refused(host: str, port: int) -> None:
    assert refused(SelfCall, target=f"{host}:{port}") == "attempted recursive call to ourselves"


def test_row_0_other_ports_of_loopback_pass_through() -> None:
    assert shown(upstream(target="127.0.0.1:8080")) == (11, "TCP", "127.0.0.1:8080", "")


def test_row_0_own_ports_on_other_addresses_are_left_to_the_other_side() -> None:
    assert upstream(SERVER, target="10.0.0.2:15008").row == 10


def test_row_1_a_source_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnknownSourceWorkload, match=r"local workload: sa\.ns \(pod\)") as caught:
        decide(
            mesh(), ProxyConfig(), None, ip_address("10.0.0.1"), to("10.1.0.1:80"), rng(), who="sa.ns (pod)"
        )
    assert caught.value.early


# --- rows 2 and 3: a service's waypoint -----------------------------------------------------------


def test_row_2_a_service_with_a_waypoint_goes_to_the_waypoint_and_asks_for_the_virtual_address() -> None:
    found = upstream(replace(WEB, waypoint=gateway("10.0.0.9")), SERVER, WAYPOINT)
    assert shown(found) == (2, "HBONE", "10.0.0.9:15008", "10.1.0.1:80")
    assert found.sans == (identity("waypoint"),)
    assert found.workload == WAYPOINT
    assert found.service is not None
    assert found.service.name == "web"


def test_row_2_a_waypoint_by_its_services_hostname_may_have_any_of_the_services_identities() -> None:
    sans = ("spiffe://cluster.local/ns/default/sa/extra", "no identity")
    found = upstream(
        replace(WEB, waypoint=gateway(key("waypoint"))),
        SERVER,
        WAYPOINT,
        replace(WAYPOINT_SERVICE, subject_alt_names=sans),
    )
    assert shown(found) == (2, "HBONE", "10.0.0.9:15008", "10.1.0.1:80")
    assert found.sans == (identity("extra"), identity("waypoint"))


def test_row_2_a_waypoint_by_a_workloads_hostname_is_reached_on_the_port_of_the_reference() -> None:
    named = replace(WAYPOINT, hostname="way.example.com")
    found = upstream(
        replace(WEB, waypoint=gateway(NamespacedName("default", "way.example.com"), 15009)), SERVER, named
    )
    assert shown(found) == (2, "HBONE", "10.0.0.9:15009", "10.1.0.1:80")


def test_row_2_a_waypoint_by_hostname_is_reached_in_the_family_asked_for() -> None:
    dual = pod("waypoint", "10.0.0.9", "fd00::9", services={"waypoint": {}})
    web = replace(WEB, waypoint=gateway(key("waypoint")))
    assert (
        str(upstream(web, SERVER, dual, WAYPOINT_SERVICE, target="[fd01::1]:80").address) == "[fd00::9]:15008"
    )


def test_row_2_a_waypoint_by_address_is_reached_at_that_address_whatever_the_family() -> None:
    dual = pod("waypoint", "10.0.0.9", "fd00::9")
    web = replace(WEB, waypoint=gateway("10.0.0.9"))
    assert str(upstream(web, SERVER, dual, target="[fd01::1]:80").address) == "10.0.0.9:15008"


def test_row_2_applies_to_services_that_balance_nothing() -> None:
    passing = replace(WEB, waypoint=gateway("10.0.0.9"), load_balancer=LoadBalancer(mode="Passthrough"))
    assert upstream(passing, SERVER, WAYPOINT).row == 2


def test_row_2_a_waypoint_service_without_the_port_needs_an_endpoint_with_an_application_tunnel() -> None:
    portless = service("waypoint", "10.1.0.9", ports={80: 80})
    web = replace(WEB, waypoint=gateway(key("waypoint")))
    tunnelling = replace(WAYPOINT, application_tunnel=ApplicationTunnel("PROXY", 15088))
    assert str(upstream(web, SERVER, tunnelling, portless).address) == "10.0.0.9:15008"
    refused(UnknownWaypoint, web, SERVER, WAYPOINT, portless)


def test_row_2_weighted_waypoints_are_drawn_for_each_connection_in_place_of_the_waypoint() -> None:
    other = pod("other", "10.0.0.7")
    web = replace(
        WEB,
        waypoint=gateway("10.0.0.99"),
        weighted_waypoints=(
            WeightedWaypoint(gateway("10.0.0.9"), 3),
            WeightedWaypoint(gateway("10.0.0.7"), 1),
        ),
    )
    drawn = [str(upstream(web, WAYPOINT, other, seed=seed).address) for seed in range(400)]
    assert set(drawn) == {"10.0.0.9:15008", "10.0.0.7:15008"}
    assert 250 < drawn.count("10.0.0.9:15008") < 350


def test_row_2_weighted_waypoints_without_weight_leave_it_to_the_waypoint() -> None:
    web = replace(
        WEB, waypoint=gateway("10.0.0.9"), weighted_waypoints=(WeightedWaypoint(gateway("10.0.0.7"), 0),)
    )
    assert str(upstream(web, WAYPOINT).address) == "10.0.0.9:15008"


@pytest.mark.parametrize("where", ["10.0.0.77", key("nothing")])
def test_row_2_a_waypoint_that_is_not_there_is_refused(where: Any) -> None:
    assert "unknown waypoint: " in refused(UnknownWaypoint, replace(WEB, waypoint=gateway(where)), SERVER)


def test_row_2_the_sources_own_waypoint_is_never_used() -> None:
    source = replace(CLIENT, waypoint=gateway("10.0.0.9"))
    assert upstream(WEB, SERVER, WAYPOINT, source=source).row == 7


def test_row_3_a_waypoint_in_another_network_is_reached_through_that_networks_gateway() -> None:
    far = pod("waypoint", services={"waypoint": {}}, network="far", network_gateway=gateway("10.0.0.8"))
    sans = ("spiffe://cluster.local/ns/default/sa/inner",)
    found = upstream(
        replace(WEB, waypoint=gateway(key("waypoint"))),
        far,
        replace(WAYPOINT_SERVICE, subject_alt_names=sans),
        EAST_WEST,
    )
    assert shown(found) == (3, "DOUBLEHBONE", "10.0.0.8:15008", f"{hostname('web')}:80")
    assert found.sans == (identity("gateway"),)
    assert found.inner_sans == (identity("inner"),)


# --- rows 4 to 8: services without a waypoint -----------------------------------------------------


def test_row_4_a_service_that_balances_nothing_passes_through() -> None:
    found = upstream(replace(WEB, load_balancer=LoadBalancer(mode="Passthrough")), SERVER)
    assert shown(found) == (4, "TCP", "10.1.0.1:80", "")
    assert found.workload is None


def test_row_5_a_service_without_endpoints_is_refused() -> None:
    assert refused(NoHealthyUpstream, WEB) == "no healthy upstream: 10.1.0.1:80"


def test_row_5_a_service_without_healthy_endpoints_is_refused() -> None:
    refused(NoHealthyUpstream, WEB, replace(SERVER, status="Unhealthy"))


def test_row_5_a_port_that_the_service_does_not_have_is_refused() -> None:
    refused(NoHealthyUpstream, WEB, SERVER, target="10.1.0.1:81")


def test_row_5_a_named_port_that_no_endpoint_has_is_refused() -> None:
    refused(NoHealthyUpstream, service("web", "10.1.0.1", ports={80: 0}), SERVER)


def test_row_5_an_endpoint_without_address_or_name_in_the_same_network_is_no_endpoint() -> None:
    refused(NoHealthyUpstream, WEB, pod("server", services={"web": {}}, network_gateway=gateway("10.0.0.8")))


def test_row_6_an_endpoint_in_another_network_is_reached_through_that_networks_gateway() -> None:
    web = replace(WEB, subject_alt_names=("spiffe://cluster.local/ns/default/sa/web",))
    found = upstream(web, REMOTE, EAST_WEST)
    assert shown(found) == (6, "DOUBLEHBONE", "10.0.0.8:15008", f"{hostname('web')}:80")
    assert found.sans == (identity("gateway"),)
    assert found.inner_sans == (identity("web"),)
    assert found.workload == EAST_WEST
    assert found.service == web


def test_row_6_the_inner_identities_are_never_the_endpoints_own() -> None:
    assert upstream(WEB, REMOTE, EAST_WEST).inner_sans == ()


def test_row_6_a_gateway_may_be_named_by_its_service_or_as_a_workload() -> None:
    by_service = replace(REMOTE, network_gateway=gateway(key("gateway"), 15008))
    ports = service("gateway", "10.1.0.8", ports={15008: 15443})
    assert str(upstream(WEB, by_service, EAST_WEST, ports).address) == "10.0.0.8:15443"
    by_workload = replace(REMOTE, network_gateway=gateway(NamespacedName("default", "gw.example.com"), 15443))
    named = replace(EAST_WEST, hostname="gw.example.com")
    assert str(upstream(WEB, by_workload, named).address) == "10.0.0.8:15443"


@pytest.mark.parametrize("where", ["10.0.0.77", key("nothing")])
def test_row_6_a_gateway_that_is_not_there_is_refused(where: Any) -> None:
    refused(UnknownNetworkGateway, WEB, replace(REMOTE, network_gateway=gateway(where)))


def test_row_6_an_endpoint_in_another_network_without_a_gateway_is_refused() -> None:
    far = pod("remote", "10.9.0.2", services={"web": {}}, network="far")
    assert "no valid routing destination" in refused(NoValidDestination, WEB, far)


def test_row_7_an_endpoint_that_takes_hbone_is_asked_for_its_own_address_and_target_port() -> None:
    web = replace(WEB, subject_alt_names=("spiffe://cluster.local/ns/default/sa/web",))
    found = upstream(web, SERVER)
    assert shown(found) == (7, "HBONE", "10.0.0.2:15008", "10.0.0.2:8080")
    assert found.sans == (identity("web"), identity("server"))
    assert (found.workload, found.service) == (SERVER, web)


def test_row_7_a_service_is_reached_in_the_family_asked_for() -> None:
    assert shown(upstream(WEB, SERVER, target="[fd01::1]:80")) == (
        7,
        "HBONE",
        "[fd00::2]:15008",
        "[fd00::2]:8080",
    )


def test_row_7_an_endpoint_of_another_family_only_is_reached_in_that() -> None:
    only = pod("server", "10.0.0.2", services={"web": {}})
    assert str(upstream(WEB, only, target="[fd01::1]:80").address) == "10.0.0.2:15008"


def test_row_7_a_services_families_restrict_the_addresses() -> None:
    found = upstream(replace(WEB, ip_families="IPv4"), SERVER, target="[fd01::1]:80")
    assert str(found.address) == "10.0.0.2:15008"
    only = pod("server", "fd00::2", services={"web": {}})
    refused(NoValidDestination, replace(WEB, ip_families="IPv4"), only)


def test_row_7_the_endpoints_own_port_comes_before_the_services() -> None:
    own = pod("server", "10.0.0.2", services={"web": {80: 9090}})
    assert str(upstream(WEB, own).authority) == "10.0.0.2:9090"
    assert str(upstream(service("web", "10.1.0.1", ports={80: 0}), own).authority) == "10.0.0.2:9090"


def test_row_7_a_service_seen_by_its_namespace_only_is_an_unknown_address_elsewhere() -> None:
    hidden = replace(WEB, visibility="Namespace")
    assert upstream(hidden, SERVER).row == 7
    assert upstream(hidden, SERVER, source=replace(CLIENT, namespace="other")).row == 11


def test_row_8_an_endpoint_that_takes_no_hbone_gets_plain_tcp_at_the_target_port() -> None:
    found = upstream(WEB, PLAIN)
    assert shown(found) == (8, "TCP", "10.0.0.2:8080", "")
    assert found.workload == PLAIN


def test_row_7_and_8_a_service_does_not_send_to_its_endpoints_own_waypoint() -> None:
    assert upstream(WEB, replace(SERVER, waypoint=gateway("10.0.0.9")), WAYPOINT).row == 7


# --- rows 9 to 11: other addresses ----------------------------------------------------------------


BEHIND = replace(SERVER, waypoint=gateway("10.0.0.9"))


def test_row_9_a_workload_with_a_waypoint_is_reached_through_it() -> None:
    found = upstream(BEHIND, WAYPOINT, target="10.0.0.2:8080")
    assert shown(found) == (9, "HBONE", "10.0.0.9:15008", "10.0.0.2:8080")
    assert found.sans == (identity("waypoint"),)
    assert found.workload == WAYPOINT
    assert found.service is None


def test_row_9_a_waypoint_that_is_not_there_is_refused() -> None:
    refused(UnknownWaypoint, BEHIND, target="10.0.0.2:8080")


@pytest.mark.parametrize("where", ["10.0.0.9", key("waypoint")])
def test_row_9_the_waypoint_itself_goes_straight_to_the_workload(where: Any) -> None:
    behind = replace(SERVER, waypoint=gateway(where))
    found = upstream(behind, WAYPOINT_SERVICE, source=WAYPOINT, target="10.0.0.2:8080")
    assert shown(found) == (10, "HBONE", "10.0.0.2:15008", "10.0.0.2:8080")


def test_row_9_the_waypoints_identity_from_another_address_goes_through_the_waypoint() -> None:
    posing = replace(CLIENT, service_account="waypoint")
    assert upstream(BEHIND, WAYPOINT, source=posing, target="10.0.0.2:8080").row == 9


def test_row_10_a_workload_is_reached_at_the_address_and_port_asked_for() -> None:
    assert shown(upstream(SERVER, target="10.0.0.2:81")) == (10, "HBONE", "10.0.0.2:15008", "10.0.0.2:81")
    assert shown(upstream(SERVER, target="[fd00::2]:81")) == (10, "HBONE", "[fd00::2]:15008", "[fd00::2]:81")
    assert shown(upstream(PLAIN, target="10.0.0.2:81")) == (10, "TCP", "10.0.0.2:81", "")


def test_row_10_a_workloads_address_comes_before_the_same_virtual_address() -> None:
    assert upstream(WEB, SERVER, pod("thief", "10.1.0.1")).row == 10


def test_row_11_an_unknown_address_passes_through() -> None:
    found = upstream(WEB, SERVER, target="192.0.2.1:443")
    assert shown(found) == (11, "TCP", "192.0.2.1:443", "")
    assert (found.workload, found.service) == (None, None)


def test_row_11_a_workload_in_its_nodes_network_is_an_unknown_address() -> None:
    assert upstream(replace(SERVER, network_mode="HostNetwork"), target="10.0.0.2:80").row == 11


def test_row_11_an_address_of_another_network_is_an_unknown_address() -> None:
    assert upstream(replace(SERVER, network="far"), target="10.0.0.2:80").row == 11


# --- names to resolve -----------------------------------------------------------------------------


NAMED = pod("server", services={"web": {}}, hostname="server.example.com")


def test_an_endpoint_known_by_hostname_is_to_be_resolved_in_the_family_asked_for() -> None:
    found = upstream(WEB, NAMED, target="[fd01::1]:80")
    assert found.address == Unresolved("server.example.com", 15008, 6, NAMED.uid, 8080)
    assert found.authority is None


def test_one_of_the_answers_is_the_address_and_the_authority() -> None:
    found = resolved(upstream(WEB, NAMED), [ip_address("fd00::7"), ip_address("10.0.0.7")], rng())
    assert shown(found) == (7, "HBONE", "10.0.0.7:15008", "10.0.0.7:8080")


def test_answers_of_the_other_family_will_do() -> None:
    found = resolved(upstream(WEB, NAMED), [ip_address("fd00::7")], rng())
    assert str(found.authority) == "[fd00::7]:8080"


def test_any_of_several_answers_may_be_drawn() -> None:
    answers = [ip_address("10.0.0.7"), ip_address("10.0.0.8")]
    asked = upstream(WEB, NAMED)
    assert {str(resolved(asked, answers, rng(seed)).address) for seed in range(20)} == {
        "10.0.0.7:15008",
        "10.0.0.8:15008",
    }


def test_a_resolved_waypoint_keeps_the_authority_asked_for() -> None:
    way = pod("waypoint", services={"waypoint": {}}, hostname="way.example.com")
    asked = upstream(replace(WEB, waypoint=gateway(key("waypoint"))), way, WAYPOINT_SERVICE)
    found = resolved(asked, [ip_address("10.0.0.7")], rng())
    assert shown(found) == (2, "HBONE", "10.0.0.7:15008", "10.1.0.1:80")


def test_a_plain_endpoint_is_resolved_without_an_authority() -> None:
    found = resolved(upstream(WEB, replace(NAMED, protocol="TCP")), [ip_address("10.0.0.7")], rng())
    assert shown(found) == (8, "TCP", "10.0.0.7:8080", "")


def test_a_name_that_does_not_resolve_is_refused() -> None:
    with pytest.raises(NoResolvedAddresses, match="no ip addresses were resolved"):
        resolved(upstream(WEB, NAMED), None, rng())
    with pytest.raises(EmptyResolvedAddresses, match="had no A/AAAA records"):
        resolved(upstream(WEB, NAMED), [], rng())


def test_what_asked_for_no_name_is_given_back() -> None:
    found = upstream(WEB, SERVER)
    assert resolved(found, None, rng()) is found


# --- headers --------------------------------------------------------------------------------------


def test_a_connect_says_who_asks_for_whom() -> None:
    source = replace(
        CLIENT,
        workload_name="client-abc",
        workload_type="deployment",
        canonical_name="client",
        canonical_revision="v1",
    )
    found = upstream(WEB, SERVER, source=source)
    assert found.headers(to("10.0.0.1:4711"), TraceParent(1, 2)) == [
        (
            "baggage",
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=client-abc,"
            "service.name=client,service.version=v1",
        ),
        ("forwarded", f'for="10.0.0.1:4711";host={hostname("web")}'),
        ("traceparent", f"00-{'0' * 31}1-{'0' * 15}2-00"),
    ]


def test_a_connect_to_no_service_names_none() -> None:
    found = upstream(SERVER, target="10.0.0.2:80")
    assert dict(found.headers(to("[fd00::1]:4711"), TraceParent(1, 2)))["forwarded"] == 'for="[fd00::1]:4711"'


def test_only_the_inner_connect_of_a_double_tunnel_says_the_network() -> None:
    found = upstream(WEB, REMOTE, EAST_WEST)
    client, trace = to("10.0.0.1:4711"), TraceParent(1, 2)
    assert found.authority == HostPort(hostname("web"), 80)
    assert found.inner_headers(client, trace, "near") == [
        *found.headers(client, trace),
        ("x-forwarded-network", "near"),
    ]
    assert "x-forwarded-network" not in dict(found.headers(client, trace))


def test_the_same_random_numbers_give_the_same_decision() -> None:
    servers = [pod(f"server-{n}", f"10.0.1.{n}", services={"web": {}}) for n in range(1, 20)]
    assert upstream(WEB, *servers, seed=7) == upstream(WEB, *servers, seed=7)
    assert len({upstream(WEB, *servers, seed=seed).address for seed in range(50)}) > 5
    assert isinstance(upstream(WEB, *servers).address, SocketAddress)
