"""What a node proxy answers to a client of HBONE that is not one of ours."""

import pytest
from h2.events import StreamReset

from netwarren.mesh.model import Match, NamespacedName, Policy, ServiceAccountMatch
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh_peers.conftest import Mesh

FAILED = "connection failed"
COMPLETE = "connection complete"
WEB = "web.default.svc.cluster.local"


def told(mesh: Mesh, text: str) -> None:
    """The log says so of a connection that was not even looked at by policies."""
    expect_record_sync(mesh.proxy.log, FAILED, where=lambda record: text in str(record.fields["error"]))


def test_a_client_is_served_and_told_of_the_server(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        stream = peer.ask(f"{mesh.server.ip}:8080")
        answer = peer.answer(stream)
        assert answer[":status"] == "200"
        assert answer["baggage"].split(",") == [
            "k8s.cluster.name=Kubernetes",
            "k8s.namespace.name=default",
            "k8s.pod.name=server",
            "service.name=server",
        ]
        peer.say(stream, b"hello")
        assert peer.heard(stream, 5) == b"hello"
        peer.say(stream, b"", end=True)
        record = expect_record_sync(mesh.proxy.log, COMPLETE, {"direction": "inbound"})
    assert record.fields["src.identity"] == "spiffe://cluster.local/ns/default/sa/stranger"
    assert record.fields["dst.addr"] == f"{mesh.server.ip}:15008"
    assert record.fields["dst.hbone_addr"] == f"{mesh.server.ip}:8080"
    assert (record.fields["bytes_recv"], record.fields["bytes_sent"]) == (5, 5)
    assert "error" not in record.fields


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "connect"])
def test_what_is_no_connect_is_answered_400(mesh: Mesh, method: str) -> None:
    with mesh.peer() as peer:
        assert peer.status(f"{mesh.server.ip}:8080", method=method) == "400"
        assert peer.echoed(f"{mesh.server.ip}:8080", b"next") == b"next"
    told(mesh, f"expected method CONNECT, got {method}")


@pytest.mark.parametrize(
    "authority",
    [
        "",
        "nonsense",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "web:http",
        "fd00::1:80",
        "[::1:80",
    ],
)
def test_an_authority_that_is_none_is_answered_400(mesh: Mesh, authority: str) -> None:
    with mesh.peer() as peer:
        assert peer.status(authority) == "400"
        assert peer.echoed(f"{mesh.server.ip}:8080", b"next") == b"next"
    told(mesh, f"invalid CONNECT address {authority}")


def test_the_address_of_another_is_answered_400(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        for other in (str(mesh.stranger.ip), "10.9.9.9", "127.0.0.1"):
            assert peer.status(f"{other}:8080") == "400"
            told(mesh, f"ip mismatch: {mesh.server.ip} != {other}")


def test_whom_policies_deny_is_answered_401_and_counted(mesh: Mesh) -> None:
    before = snapshot(mesh.proxy.metrics)
    match = Match(service_accounts=(ServiceAccountMatch("default", "stranger"),))
    mesh.cluster.mesh.add_policy(Policy("no", "default", "Namespace", "Deny", rules=(((match,),),)))
    with mesh.peer() as peer:
        assert peer.status(f"{mesh.server.ip}:8080") == "401"
    with mesh.peer(mesh.certificate("friend")) as friend:
        assert friend.echoed(f"{mesh.server.ip}:8080", b"me, too?") == b"me, too?"
    denied = expect_record_sync(
        mesh.proxy.log,
        COMPLETE,
        where=lambda record: "denied by: default/no" in str(record.fields.get("error")),
    )
    assert denied.fields["src.identity"] == "spiffe://cluster.local/ns/default/sa/stranger"
    labels = {"reporter": "destination", "response_flags": "DENY"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)


def test_an_application_that_does_not_listen_is_answered_503(mesh: Mesh) -> None:
    before = snapshot(mesh.proxy.metrics)
    with mesh.peer() as peer:
        assert peer.status(f"{mesh.server.ip}:81") == "503"
        assert peer.echoed(f"{mesh.server.ip}:8080", b"next") == b"next"
    labels = {"reporter": "destination", "response_flags": "CONNECT"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_the_ports_of_the_proxy_are_answered_503(mesh: Mesh, port: int) -> None:
    with mesh.peer() as peer:
        assert peer.status(f"{mesh.server.ip}:{port}") == "503"
    told(mesh, "attempted recursive call to ourselves")


def test_a_hostname_leads_to_the_port_that_its_service_has_in_this_pod(mesh: Mesh) -> None:
    mesh.cluster.add_service("web", selector={"app": "web"}, ports={80: 8080, 81: 9999})
    key = NamespacedName("default", WEB)
    with mesh.peer() as peer:
        assert peer.echoed(f"{WEB}:80", b"service's own") == b"service's own"
        assert peer.status(f"{WEB}:81") == "503"
        mesh.cluster.mesh.update(mesh.server, services={key: {81: 8080}})  # as a named port leads here
        assert peer.echoed(f"{WEB}:81", b"pod's own") == b"pod's own"
        assert peer.status(f"{WEB}:82") == "503"
        assert peer.status("nobody.default.svc.cluster.local:80") == "503"
    told(mesh, f"{WEB}:82")
    told(mesh, "nobody.default.svc.cluster.local")


def test_headers_of_any_kind_do_no_harm(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        for lines in (
            [("baggage", "%%%=,=,,k8s.cluster.name=")],
            [("forwarded", 'for="')],
            [("forwarded", "by=x;host=web;for=unknown")],
            [("traceparent", "00-zz")],
            [("x-forwarded-network", "elsewhere"), ("baggage", "k8s.pod.name=far")],
            [(f"x-{number}", "y" * 1000) for number in range(40)],  # 40 of the 64 KiB that there may be
        ):
            assert peer.status(f"{mesh.server.ip}:8080", *lines) == "200"


def test_a_client_that_ends_with_its_request_hears_the_servers_end(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        stream = peer.ask(f"{mesh.server.ip}:8080", end=True)  # says at once that nothing follows
        assert peer.answer(stream)[":status"] == "200"
        assert peer.heard(stream, 1) == b""
        assert not peer.seen(StreamReset, stream)
