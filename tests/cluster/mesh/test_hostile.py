"""What node proxies make of those who speak nonsense to them, or to whom they should not."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from netwarren import Cluster, Pod
from netwarren.mesh.hbone.failure import ConnectRefused
from netwarren.mesh.hbone.stream import SocketStream
from netwarren.mesh.hbone.transport import Tunnel
from netwarren.mesh.identity import tls
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.model import Identity
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, talk

MALLORY = Identity("cluster.local", "default", "mallory")
JUNK = [
    b"\0",
    b"GET / HTTP/1.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    bytes(range(256)) * 300,
    os.urandom(5000),
]


def tunnel(
    pod: Pod, host: str, authority: Authority, use: Callable[[Tunnel], Coroutine[Any, Any, object]]
) -> object:
    """What ``use`` gives of a tunnel from ``pod`` to ``host``, by somebody with a certificate of ``authority``."""

    async def run() -> object:
        made = pod.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (host, 15008))
        certificate = authority.issue(MALLORY)
        opened = await Tunnel.connect(SocketStream(made), tls.client_context(certificate))
        try:
            return await use(opened)
        finally:
            await opened.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


def status(authority: str) -> Callable[[Tunnel], Coroutine[Any, Any, int]]:
    """The answer to a CONNECT to ``authority``."""

    async def ask(opened: Tunnel) -> int:
        try:
            return (await opened.open_stream(authority)).status
        except ConnectRefused as refused:
            return refused.status

    return ask


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15020, 15021])
def test_nonsense_is_dropped_and_others_are_served_on(cluster: Cluster, port: int) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    server.start(double())
    target = proxy.pod if port in (15020, 15021) else server
    for junk in JUNK:
        with plain, socket.create_connection((target.ip, port), timeout=20) as connection:
            try:
                connection.sendall(junk)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except TimeoutError:
                raise
            except OSError:  # a reset, maybe before the end is said
                pass
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    assert talk(plain, server.ip) == (plain.ip, b"hellohello")
    assert proxy.ready
    assert not [line for line in proxy.log.lines() if "\tproxy\t" in line]


def throw(host: str, port: int, junk: bytes) -> bytes:
    """What comes back of nonsense."""
    answer = b""
    with socket.create_connection((host, port), timeout=20) as connection:
        try:
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                answer += data
        except TimeoutError:
            raise
        except OSError:  # a reset, maybe before the end is said
            pass
    return answer


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
def test_nonsense_from_within_the_pod_is_dropped_and_others_are_served_on(
    cluster: Cluster, port: int
) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    for junk in JUNK:
        for host in ("127.0.0.1", server.ip):
            try:
                server.run(throw, host, port, junk)
            except ConnectionRefusedError:
                assert (host, port) == (server.ip, 15053)  # which is on loopback only
    assert talk(client, "server") == (client.ip, b"hellohello")
    assert talk(server, server.ip) == (server.ip, b"hellohello")
    assert proxy.ready
    assert not [line for line in proxy.log.lines() if "\tproxy\t" in line]


@pytest.mark.parametrize("port", [15000, 15020, 15021])
@pytest.mark.parametrize("junk", [b"nonsense\r\n\r\n", bytes(range(128, 256)) * 10, b"GET\r\n\r\n"])
def test_nonsense_on_the_pages_is_answered_400(cluster: Cluster, port: int, junk: bytes) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    assert proxy.pod.run(throw, "127.0.0.1", port, junk).startswith(b"HTTP/1.1 400 ")
    assert proxy.pod.run(throw, "127.0.0.1", port, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").startswith(
        b"HTTP/1.1 404"
    )


@pytest.mark.parametrize("port", [15000, 15020, 15021])
def test_a_request_without_end_to_the_pages_is_answered_431(cluster: Cluster, port: int) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    endless = b"GET / HTTP/1.1\r\n" + b"X-Much: " + b"x" * (64 << 10)
    assert proxy.pod.run(throw, "127.0.0.1", port, endless).startswith(b"HTTP/1.1 431 ")
    assert proxy.ready


def test_nonsense_instead_of_questions_keeps_no_name_from_being_told(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    service = cluster.add_service("web", ports={80: 8080}, pods=[])
    with client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for junk in (*JUNK, b"", b"\x12\x34" + b"\xff" * 10, b"\0" * 12):
            datagrams.sendto(junk[:9000], ("10.255.255.53", 53))
            with socket.create_connection(("10.255.255.53", 53), timeout=20) as stream:
                stream.sendall(len(junk[:60000]).to_bytes(2, "big") + junk[:60000])
        assert socket.gethostbyname("web") == service.ip


def test_who_has_a_certificate_of_another_authority_gets_no_tunnel(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    server.start(double())
    stranger = Authority().trust(cluster.mesh.authority)
    with pytest.raises(Exception, match=r"(?i)certificate|ended|tls") as caught:
        tunnel(plain, server.ip, stranger, status(f"{server.ip}:8080"))
    assert not isinstance(caught.value, ConnectRefused | TimeoutError)
    expect_record_sync(proxy.log, "connection failed", {"direction": "inbound"})


def test_a_tunnel_leads_to_its_own_pod_only(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, other = cluster.add_pod("server", "node-a"), cluster.add_pod("other", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    for pod in (server, other):
        pod.start(double())
    authority = cluster.mesh.authority
    assert tunnel(plain, server.ip, authority, status(f"{server.ip}:8080")) == 200
    assert tunnel(plain, server.ip, authority, status(f"{other.ip}:8080")) == 400
    expect_record_sync(
        proxy.log,
        "connection failed",
        where=lambda each: "ip mismatch" in str(each.fields["error"]),
    )


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_a_tunnel_does_not_lead_to_the_proxys_own_ports(cluster: Cluster, port: int) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    assert tunnel(plain, server.ip, cluster.mesh.authority, status(f"{server.ip}:{port}")) == 503
    assert proxy.ready


@pytest.mark.parametrize(
    ("authority", "wanted"), [("nonsense", 400), ("nobody.default.svc.cluster.local:80", 503), ("", 400)]
)
def test_a_tunnel_to_nobody_is_refused(cluster: Cluster, authority: str, wanted: int) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    assert tunnel(plain, server.ip, cluster.mesh.authority, status(authority)) == wanted


def test_a_tunnel_to_a_closed_port_is_answered_503(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    before = snapshot(proxy.metrics)
    assert tunnel(plain, server.ip, cluster.mesh.authority, status(f"{server.ip}:9999")) == 503
    labels = {"reporter": "destination", "response_flags": "CONNECT"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)


def test_a_tunnel_that_says_nothing_holds_up_nobody(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    server.start(double())
    with plain:
        silent = [socket.create_connection((server.ip, 15008), timeout=20) for _ in range(20)]
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    server.remove()
    for connection in silent:
        with connection:
            try:
                assert connection.recv(10) == b""
            except ConnectionResetError:
                pass


def test_what_is_no_connect_is_answered_400(cluster: Cluster) -> None:
    import h2.config
    import h2.connection
    import h2.events

    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    context = tls.client_context(cluster.mesh.authority.issue(MALLORY))
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    answered: list[str] = []
    with plain, socket.create_connection((server.ip, 15008), timeout=20) as raw:
        context.check_hostname = False
        with context.wrap_socket(raw) as secured:
            assert isinstance(secured, ssl.SSLSocket)
            http.initiate_connection()
            http.send_headers(
                1, [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/")], True
            )
            secured.sendall(http.data_to_send())
            while not answered:
                data = secured.recv(65536)
                assert data, "the connection ended without an answer"
                for event in http.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        answered = [dict(event.headers)[b":status"].decode()]
                secured.sendall(http.data_to_send())
    assert answered == ["400"]
    expect_record_sync(proxy.log, "connection failed", {"direction": "inbound"})
