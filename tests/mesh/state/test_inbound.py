"""What becomes of a connection that arrives for a pod."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.mesh.config import ProxyConfig
from netwarren.mesh.model import (
    ApplicationTunnel,
    CidrAddress,
    Identity,
    Locality,
    Match,
    NamespacedName,
    Policy,
    Service,
    StringMatch,
    Workload,
)
from netwarren.mesh.state.headers import Baggage, HostPort, TraceParent
from netwarren.mesh.state.inbound import (
    ConnectFacts,
    InboundPlan,
    ProxyHeader,
    admit,
    plan,
    plan_plaintext,
)
from netwarren.mesh.state.rbac import ConnectionFacts, DryRun
from netwarren.mesh.state.refusals import (
    ConnectAddress,
    IpMismatch,
    NoHostname,
    NoIpForService,
    NonConnectMethod,
    NoPortForServices,
    PolicyRejection,
    Refusal,
    SelfCall,
    UnknownSourceWorkload,
)
from tests.mesh.state.builders import gateway, hostname, identity, key, mesh, pod, service, to
from tests.mesh.state.drawn import examples

SERVER = pod("server", "10.0.0.2", "fd00::2", services={"web": {}})
CLIENT = pod("client", "10.0.0.1")
WEB = service("web", "10.1.0.1")
TUNNEL = ApplicationTunnel("PROXY", 15088)


def asked(
    authority: str = "10.0.0.2:8080", *headers: tuple[str, str], method: str = "CONNECT", **more: Any
) -> ConnectFacts:
    given: dict[str, Any] = {
        "source": to("10.0.0.1:4711"),
        "destination": to("10.0.0.2:15008"),
        "identity": identity("client"),
        **more,
    }
    return ConnectFacts(method, authority, headers, **given)


def planned(
    request: ConnectFacts,
    *things: Workload | Service,
    workload: Workload | None = SERVER,
    preserve: bool = True,
    **config: Any,
) -> InboundPlan:
    known = (workload,) if workload else ()
    return plan(mesh(*known, *things), ProxyConfig(**config), workload, request, preserve_source=preserve)


def refused(
    error: type[Refusal], status: int, request: ConnectFacts, *things: Workload | Service, **more: Any
) -> str:
    with pytest.raises(error) as caught:
        planned(request, *things, **more)
    assert (caught.value.status, caught.value.flag, caught.value.early) == (status, "CONNECT", True)
    return str(caught.value)


# --- statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "connect", ""])
def test_400_a_request_that_is_no_connect(method: str) -> None:
    text = refused(NonConnectMethod, 400, asked(method=method))
    assert text == f"expected method CONNECT, got {method}"


@pytest.mark.parametrize("authority", ["", "10.0.0.2", "10.0.0.2:0", "web:http", "[fd00::2]", "a b:80"])
def test_400_an_authority_that_is_none(authority: str) -> None:
    assert refused(ConnectAddress, 400, asked(authority)) == f"invalid CONNECT address {authority}"


def test_503_a_pod_that_is_not_known() -> None:
    assert "failed to fetch information about local workload" in refused(
        UnknownSourceWorkload, 503, asked(), workload=None
    )


def test_400_an_address_that_is_not_the_pods() -> None:
    assert refused(IpMismatch, 400, asked("10.0.0.3:80")) == "ip mismatch: 10.0.0.2 != 10.0.0.3"


def test_503_a_hostname_that_no_service_has() -> None:
    refused(NoHostname, 503, asked("nothing.example.com:80"), WEB)


def test_503_a_port_that_the_service_does_not_have_or_that_is_named_and_not_mapped() -> None:
    refused(NoPortForServices, 503, asked(f"{hostname('web')}:81"), WEB)
    named = replace(WEB, ports={80: 0})
    refused(NoPortForServices, 503, asked(f"{hostname('web')}:80"), named)


def test_503_a_service_without_an_address_for_an_application_that_must_be_told_one() -> None:
    tunnelled = replace(SERVER, application_tunnel=TUNNEL)
    refused(NoIpForService, 503, asked(f"{hostname('web')}:80"), replace(WEB, vips=()), workload=tunnelled)


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_503_a_call_to_the_proxys_own_port(port: int) -> None:
    assert refused(SelfCall, 503, asked(f"10.0.0.2:{port}")) == "attempted recursive call to ourselves"
    by_name = replace(WEB, ports={80: port})
    refused(SelfCall, 503, asked(f"{hostname('web')}:80"), by_name)


def test_the_method_is_looked_at_before_the_authority_before_the_pod_before_the_address() -> None:
    refused(NonConnectMethod, 400, asked("", method="GET"), workload=None)
    refused(ConnectAddress, 400, asked("x"), workload=None)
    refused(UnknownSourceWorkload, 503, asked("10.0.0.3:15008"), workload=None)
    refused(IpMismatch, 400, asked("10.0.0.3:15008"))


# --- destination validation -----------------------------------------------------------------------


def test_an_application_tunnel_may_be_asked_for_any_address() -> None:
    tunnelled = replace(SERVER, application_tunnel=ApplicationTunnel("NONE"))
    assert str(planned(asked("10.0.0.3:80"), workload=tunnelled).address) == "10.0.0.2:80"


@pytest.mark.parametrize("waypoint", ["10.0.0.2", "fd00::2", "10.1.0.1", key("web")])
@pytest.mark.parametrize("target", ["10.0.0.3", "10.1.0.3"])
def test_a_waypoint_may_be_asked_for_what_has_it_as_waypoint(
    waypoint: str | NamespacedName, target: str
) -> None:
    behind = pod("behind", "10.0.0.3", waypoint=gateway(waypoint))
    behind_service = service("behind", "10.1.0.3", waypoint=gateway(waypoint))
    assert str(planned(asked(f"{target}:80"), WEB, behind, behind_service).address) == "10.0.0.2:80"


@pytest.mark.parametrize("waypoint", ["10.0.0.9", "10.1.0.9", "10.9.9.9", key("other"), key("nothing"), None])
def test_anybody_else_may_not(waypoint: str | NamespacedName | None) -> None:
    behind = pod("behind", "10.0.0.3", waypoint=gateway(waypoint) if waypoint else None)
    others = (pod("other", "10.0.0.9", services={"other": {}}), service("other", "10.1.0.9"))
    refused(IpMismatch, 400, asked("10.0.0.3:80"), behind, *others)


INFRA = replace(SERVER, namespace="infra", services={})


@pytest.mark.parametrize("ranges", [(), (CidrAddress("", ip_network("10.1.0.0/24")),)])
def test_a_waypoint_of_another_namespace_may_be_asked_for_a_service_that_only_its_own_clients_see(
    ranges: tuple[CidrAddress, ...],
) -> None:
    vips = () if ranges else ("10.1.0.3",)
    hidden = service("hidden", *vips, cidr_vips=ranges, visibility="Namespace", waypoint=gateway("10.0.0.2"))
    assert str(planned(asked("10.1.0.3:80"), hidden, workload=INFRA).address) == "10.0.0.2:80"


@pytest.mark.parametrize("namespace", ["infra", "first"])
def test_a_waypoint_may_be_asked_for_an_address_that_any_of_its_services_shares(namespace: str) -> None:
    other = service("other", "10.1.0.3", namespace=namespace, canonical=True, waypoint=gateway("10.0.0.9"))
    bare = service("bare", "10.1.0.3", namespace="bare")
    ours = service("ours", "10.1.0.3", waypoint=gateway("10.0.0.2"))
    far = pod("far", "10.0.0.9")
    assert planned(asked("10.1.0.3:80"), far, other, bare, ours, workload=INFRA).address.port == 80
    refused(IpMismatch, 400, asked("10.1.0.3:80"), far, other, bare, workload=INFRA)


def test_a_waypoint_may_be_meant_by_an_address_that_its_service_shares_and_hides() -> None:
    other = service("other", "10.1.0.1", namespace="infra")
    hidden = service("web", "10.1.0.1", visibility="Namespace")
    behind = pod("behind", "10.0.0.3", waypoint=gateway("10.1.0.1"))
    endpoint = replace(INFRA, services={hidden.key: {}})
    assert planned(asked("10.0.0.3:80"), other, hidden, behind, workload=endpoint).address.port == 80


def test_what_services_share_with_a_workload_is_the_workloads() -> None:
    ours = service("ours", "10.1.0.3", waypoint=gateway("10.0.0.2"))
    refused(IpMismatch, 400, asked("10.1.0.3:80"), ours, pod("thief", "10.1.0.3"))


# --- next hop -------------------------------------------------------------------------------------


def test_a_connect_goes_to_the_pods_own_address_at_the_port_asked_for() -> None:
    found = planned(asked())
    assert (str(found.address), found.proxy_header) == ("10.0.0.2:8080", None)
    assert found.authority == to("10.0.0.2:8080")


def test_a_hostname_goes_to_the_target_port_of_the_pod_else_of_the_service() -> None:
    found = planned(asked(f"{hostname('web')}:80"), WEB)
    assert str(found.address) == "10.0.0.2:8080"
    assert found.authority == HostPort(hostname("web"), 80)
    own = replace(SERVER, services={WEB.key: {80: 9090}})
    assert str(planned(asked(f"{hostname('web')}:80"), WEB, workload=own).address) == "10.0.0.2:9090"
    named = replace(WEB, ports={80: 0})
    assert str(planned(asked(f"{hostname('web')}:80"), named, workload=own).address) == "10.0.0.2:9090"


def test_of_services_of_one_hostname_that_of_the_pods_namespace_is_meant() -> None:
    other = replace(WEB, namespace="other", ports={80: 1})
    assert str(planned(asked(f"{hostname('web')}:80"), other, WEB).address) == "10.0.0.2:8080"


def test_a_hostname_may_be_that_of_a_service_that_only_clients_of_another_namespace_see() -> None:
    hidden = replace(WEB, visibility="Namespace", ports={80: 8081})
    assert planned(asked(f"{hostname('web')}:80"), hidden, workload=INFRA).address.port == 8081
    canonical = replace(hidden, namespace="other", canonical=True, ports={80: 8082})
    assert planned(asked(f"{hostname('web')}:80"), hidden, canonical, workload=INFRA).address.port == 8082
    own = replace(WEB, namespace="infra", ports={80: 8083})
    found = planned(asked(f"{hostname('web')}:80"), hidden, canonical, own, workload=INFRA)
    assert found.address.port == 8083


@pytest.mark.parametrize(("preserve", "bind"), [(True, "10.0.0.1"), (False, "None")])
def test_the_application_sees_the_clients_address_where_it_is_to_be_preserved(
    preserve: bool, bind: str
) -> None:
    assert str(planned(asked(), preserve=preserve).bind) == bind


def test_a_pod_that_calls_itself_is_connected_to_from_wherever() -> None:
    assert planned(asked(source=to("10.0.0.2:4711"))).bind is None


# --- application tunnels --------------------------------------------------------------------------

TUNNELLED = replace(SERVER, application_tunnel=TUNNEL)


def test_a_proxy_tunnel_is_reached_on_loopback_and_told_who_wants_what() -> None:
    found = planned(asked("10.0.0.3:80"), workload=TUNNELLED)
    assert (str(found.address), str(found.bind)) == ("127.0.0.1:15088", "127.0.0.1")
    assert found.proxy_header == ProxyHeader(to("10.0.0.1:4711"), to("10.0.0.3:80"), identity("client"))


def test_a_proxy_tunnel_in_ipv6_is_reached_on_its_loopback() -> None:
    request = asked("[fd00::3]:80", source=to("[fd00::1]:1"), destination=to("[fd00::2]:15008"))
    found = planned(request, workload=TUNNELLED)
    assert (str(found.address), str(found.bind)) == ("[::1]:15088", "::1")


def test_a_proxy_tunnel_is_reached_at_the_pods_address_where_it_is_configured_so() -> None:
    found = planned(asked("10.0.0.3:80"), workload=TUNNELLED, localhost_app_tunnel=False)
    assert (str(found.address), str(found.bind)) == ("10.0.0.2:15088", "10.0.0.1")


def test_a_proxy_tunnel_without_a_port_keeps_the_port_asked_for() -> None:
    keeping = replace(SERVER, application_tunnel=ApplicationTunnel("PROXY"))
    assert str(planned(asked("10.0.0.3:80"), workload=keeping).address) == "127.0.0.1:80"


@pytest.mark.parametrize(
    ("vips", "told"),
    [
        (("fd01::1", "10.1.0.1"), "10.1.0.1:80"),
        (("far/10.1.0.1", "fd01::1"), "[fd01::1]:80"),
        (("far/fd01::1", "far/10.1.0.1"), "10.1.0.1:80"),
    ],
)
def test_a_proxy_tunnel_is_told_a_services_address_of_this_network_then_of_ipv4(
    vips: tuple[str, ...], told: str
) -> None:
    found = planned(asked(f"{hostname('web')}:80"), service("web", *vips), workload=TUNNELLED)
    assert found.proxy_header is not None
    assert found.proxy_header.destination == to(told)


def test_a_proxy_tunnel_is_told_the_address_of_a_service_that_only_its_own_clients_see() -> None:
    hidden = replace(WEB, visibility="Namespace")
    found = planned(
        asked(f"{hostname('web')}:80"), hidden, workload=replace(INFRA, application_tunnel=TUNNEL)
    )
    assert found.proxy_header is not None
    assert found.proxy_header.destination == to("10.1.0.1:80")


def test_a_tunnel_without_protocol_only_changes_the_port() -> None:
    plain = replace(SERVER, application_tunnel=ApplicationTunnel("NONE", 15088))
    found = planned(asked(), workload=plain)
    assert (str(found.address), str(found.bind), found.proxy_header) == ("10.0.0.2:15088", "10.0.0.1", None)


# --- who is there ---------------------------------------------------------------------------------


def test_the_source_is_known_by_its_address() -> None:
    assert planned(asked(), CLIENT).source_workload == CLIENT
    assert planned(asked()).source_workload is None


def test_a_source_in_another_network_is_known_only_by_what_it_says() -> None:
    line = ("x-forwarded-network", "far")
    said = ("baggage", "k8s.cluster.name=K,k8s.namespace.name=ns,service.name=s")
    found = planned(asked("10.0.0.2:80", line, said), CLIENT)
    assert found.source_workload is None
    assert found.source_baggage == Baggage(cluster="K", namespace="ns", service="s")
    assert found.facts.source_identity == identity("client")


def test_this_network_is_the_same_in_whatever_case() -> None:
    near, server = replace(CLIENT, network="near"), replace(SERVER, network="near")
    request = asked("10.0.0.2:80", ("x-forwarded-network", "NEAR"))
    assert planned(request, near, workload=server, network="near").source_workload == near


def labelled(port: int, *things: Service, forwarded: str = "", workload: Workload = SERVER) -> str | None:
    headers = [("forwarded", forwarded)] if forwarded else []
    found = planned(asked(f"10.0.0.2:{port}", *headers), *things, workload=workload).service
    return found.name if found else None


BOTH = replace(SERVER, services={key("first"): {}, WEB.key: {}})
FIRST = service("first", "10.1.0.2")


def test_a_connection_counts_for_the_service_that_the_client_named_if_the_pod_is_in_it() -> None:
    named = f'for="10.0.0.1:1";host={hostname("web")}'
    assert labelled(8080, FIRST, WEB, forwarded=named, workload=BOTH) == "web"
    stranger = service("stranger", "10.1.0.3")
    spoofed = f"host={hostname('stranger')}"
    assert labelled(8080, FIRST, WEB, stranger, forwarded=spoofed, workload=BOTH) == "first"


def test_else_it_counts_for_the_first_service_with_the_port() -> None:
    assert labelled(8080, WEB, FIRST, workload=BOTH) == "first"
    assert labelled(9999, FIRST, WEB, workload=BOTH) is None
    own = replace(SERVER, services={key("first"): {}, WEB.key: {80: 9090}})
    assert labelled(9090, FIRST, WEB, workload=own) == "web"


def test_a_trace_is_read_where_there_is_one() -> None:
    trace = TraceParent(1, 2)
    assert planned(asked("10.0.0.2:80", ("traceparent", str(trace)))).trace == trace
    assert planned(asked("10.0.0.2:80", ("traceparent", "garbage"))).trace is None
    assert planned(asked()).trace is None


def test_a_200_says_who_answers_unless_it_is_not_to() -> None:
    told = replace(
        SERVER, workload_name="server", workload_type="pod", canonical_name="s", locality=Locality("r", "z")
    )
    assert planned(asked(), workload=told).response_baggage == (
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.pod.name=server,service.name=s,"
        "cloud.region=r,cloud.availability_zone=z"
    )
    assert planned(asked(), workload=told, response_baggage=False).response_baggage is None


# --- policies -------------------------------------------------------------------------------------


def deny(port: int, **more: Any) -> Policy:
    return Policy("no", "default", "Namespace", "Deny", (((Match(destination_ports=(port,)),),),), **more)


def test_401_policies_are_asked_about_the_applications_port() -> None:
    state = mesh(SERVER, deny(8080))
    found = plan(state, ProxyConfig(), SERVER, asked())
    assert found.facts == ConnectionFacts(ip_address("10.0.0.1"), identity("client"), to("10.0.0.2:8080"))
    with pytest.raises(PolicyRejection) as caught:
        admit(state, found)
    error = caught.value
    assert str(error) == "connection closed due to policy rejection: explicitly denied by: default/no"
    assert (error.status, error.flag, error.early) == (401, "DENY", False)
    assert admit(mesh(SERVER, deny(15008)), found).allowed


def test_401_policies_are_asked_about_the_pods_address_where_a_tunnel_is_on_loopback() -> None:
    found = planned(asked("10.0.0.3:80"), workload=TUNNELLED)
    assert found.facts.destination == to("10.0.0.2:15088")


def test_401_where_others_are_allowed() -> None:
    only = StringMatch("Exact", "cluster.local/ns/default/sa/other")
    allow = Policy("some", "default", "Namespace", "Allow", (((Match(principals=(only,)),),),))
    state = mesh(SERVER, allow)
    with pytest.raises(PolicyRejection, match="allow policies exist, but none allowed"):
        admit(state, plan(state, ProxyConfig(), SERVER, asked()))
    other = plan(state, ProxyConfig(), SERVER, asked(identity=identity("other")))
    assert admit(state, other).allowed


def test_what_policies_that_only_log_say_comes_with_the_verdict() -> None:
    state = mesh(SERVER, deny(8080, dry_run=True))
    verdict = admit(state, plan(state, ProxyConfig(), SERVER, asked()))
    assert verdict.dry_run == (DryRun("dry-run: deny policy match", NamespacedName("default", "no")),)


# --- plain text -----------------------------------------------------------------------------------


def plain(destination: str, *things: Workload | Service | Policy, **more: Any) -> InboundPlan:
    return plan_plaintext(
        mesh(SERVER, *things), ProxyConfig(), SERVER, to("10.0.0.1:4711"), to(destination), **more
    )


def test_plain_text_goes_where_it_was_going_from_the_clients_address() -> None:
    found = plain("10.0.0.2:8080", CLIENT, WEB)
    assert (str(found.address), str(found.bind)) == ("10.0.0.2:8080", "10.0.0.1")
    assert found.facts == ConnectionFacts(ip_address("10.0.0.1"), None, to("10.0.0.2:8080"))
    assert (found.source_workload, found.service) == (CLIENT, WEB)
    assert found.authority is None
    assert plain("10.0.0.2:8080", preserve_source=False).bind is None


@pytest.mark.parametrize("port", [15001, 15006, 15008])
@pytest.mark.parametrize("host", ["10.0.0.2", "127.0.0.1", "[fd00::2]"])
def test_plain_text_to_the_proxys_own_ports_is_refused_at_any_address(host: str, port: int) -> None:
    with pytest.raises(SelfCall):
        plain(f"{host}:{port}")


def test_plain_text_for_a_pod_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnknownSourceWorkload):
        plan_plaintext(mesh(), ProxyConfig(), None, to("10.0.0.1:1"), to("10.0.0.2:80"))


def test_plain_text_has_no_identity_for_the_policies() -> None:
    anybody = StringMatch("Presence")
    allow = Policy("mutual", "default", "Namespace", "Allow", (((Match(principals=(anybody,)),),),))
    state = mesh(SERVER, allow)
    found = plan_plaintext(state, ProxyConfig(), SERVER, to("10.0.0.1:1"), to("10.0.0.2:80"))
    with pytest.raises(PolicyRejection):
        admit(state, found)


# --- garbage --------------------------------------------------------------------------------------

lines = st.tuples(
    st.sampled_from(["forwarded", "baggage", "traceparent", "x-forwarded-network", "x"]), st.text(max_size=20)
)


@examples()
@given(
    st.text(max_size=8), st.text(max_size=20), st.lists(lines, max_size=3), st.none() | st.just(identity("x"))
)
def test_whatever_a_client_says_is_planned_or_refused_with_a_status(
    method: str, authority: str, headers: list[tuple[str, str]], who: Identity | None
) -> None:
    for said in ((method, authority), ("CONNECT", authority), ("CONNECT", "10.0.0.2:80")):
        try:
            planned(asked(said[1], *headers, method=said[0], identity=who), WEB)
        except Refusal as error:
            refusal: Refusal | None = error
        else:
            refusal = None
        assert refusal is None or refusal.status in (400, 503)
