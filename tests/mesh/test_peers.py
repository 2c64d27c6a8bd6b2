"""Servers and the client that stand at the ends of a tested proxy, without a proxy between them."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from netwarren import Cluster, Pod
from netwarren.mesh import peers
from netwarren.mesh.hbone import proxy_protocol
from netwarren.mesh.hbone.stream import SocketStream
from netwarren.mesh.hbone.transport import OpenedStream, Tunnel
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.tls import client_context
from netwarren.mesh.model import Identity, SocketAddress
from netwarren.mesh.state.headers import Baggage, parse_baggage, values_of
from tests.runtime.conftest import eventually

AUTHORITY = Authority()


def certificate(account: str) -> Certificate:
    return AUTHORITY.issue(Identity("cluster.local", "default", account))


@pytest.fixture(params=["ipv4", "ipv6"])
def ends(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[tuple[Pod, Pod]]:
    if request.param == "ipv4":
        yield cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-b")
        return
    with Cluster(families="ipv6") as other:
        yield other.add_pod("server", "node-a"), other.add_pod("client", "node-b")


def test_echo_says_everything_twice(ends: tuple[Pod, Pod]) -> None:
    server, client = ends
    server.start(peers.echo)
    assert client.run(peers.talk, server.ip, said=b"hello") == b"hellohello"


def test_echo_greets_and_says_it_as_often_as_is_asked(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client")
    server.start(peers.echo, 9000, times=1, greeting=b"hi ")
    assert client.run(peers.talk, "server", 9000, b"you") == b"hi you"


def test_forward_joins_with_a_server_by_name(cluster: Cluster) -> None:
    server, between, client = (cluster.add_pod(name) for name in ("server", "between", "client"))
    server.start(peers.echo)
    between.start(peers.forward, ("server", 8080), greeting=b"> ")
    assert client.run(peers.talk, between.ip) == b"> hellohello"


def test_forward_hangs_up_where_nobody_listens(cluster: Cluster) -> None:
    between, client = cluster.add_pod("between"), cluster.add_pod("client")
    between.start(peers.forward, ("client", 9))
    assert client.run(peers.talk, between.ip, said=b"") == b""


def test_a_proxy_header_says_where_to(cluster: Cluster) -> None:
    server, between, client = (cluster.add_pod(name) for name in ("server", "between", "client"))
    server.start(peers.echo)
    background = between.start(peers.forward_by_proxy_header)
    header = proxy_protocol.ProxyHeader(
        SocketAddress(ip_address("10.9.9.9"), 1234), SocketAddress(ip_address(server.ip), 8080), "spiffe://x"
    )
    said = proxy_protocol.encode(header) + b"hello"
    assert client.run(peers.talk, between.ip, 15088, said) == b"hellohello"
    assert background.value == [header]


def test_what_is_no_proxy_header_is_cut_off_and_the_next_one_served(cluster: Cluster) -> None:
    server, between, client = (cluster.add_pod(name) for name in ("server", "between", "client"))
    server.start(peers.echo)
    between.start(peers.forward_by_proxy_header)
    with client, socket.create_connection((between.ip, 15088), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        try:
            assert connection.recv(10) == b""
        except ConnectionResetError:
            pass  # as it lets go of what it has not read
    destination = SocketAddress(ip_address(server.ip), 8080)
    said = proxy_protocol.encode(proxy_protocol.ProxyHeader(destination, destination)) + b"x"
    assert client.run(peers.talk, between.ip, 15088, said) == b"xx"


async def asked(server: Pod, client: Pod, authority: str) -> tuple[OpenedStream, Tunnel]:
    async with client:
        connection = socket.create_connection((server.ip, 15008), timeout=20)
    tunnel = await Tunnel.connect(SocketStream(connection), client_context(certificate("client")))
    return await tunnel.open_stream(authority), tunnel


async def test_hbone_greets_tells_who_it_is_and_echoes(ends: tuple[Pod, Pod]) -> None:
    server, client = ends
    told = Baggage("Kubernetes", "default", "way", "way", "v1", "r1", "z1")
    background = server.start(peers.hbone, certificate("way"), baggage=told)
    (_status, response, stream), tunnel = await asked(server, client, "10.1.2.3:80")
    await stream.write(b"hello")
    await stream.write_eof()
    answer = b""
    while data := await stream.read(1000):
        answer += data
    assert answer == b"waypoint\nhello"
    assert parse_baggage(values_of(response, "baggage")) == told
    (request,) = background.value
    assert request.authority == "10.1.2.3:80"
    await tunnel.close()


async def test_hbone_forwards_where_it_is_told_to(cluster: Cluster) -> None:
    server, gateway, client = (cluster.add_pod(name) for name in ("server", "gateway", "client"))
    server.start(peers.echo)
    gateway.start(peers.hbone, certificate("gateway"), to=("server", 8080), greeting=b"")
    (_status, _response, stream), tunnel = await asked(gateway, client, "anywhere:1")
    await stream.write(b"hello")
    assert await asyncio.wait_for(stream.read(1000), 20) == b"hellohello"
    await tunnel.close()


def test_a_server_ends_with_its_pod_and_leaves_no_thread(cluster: Cluster) -> None:
    before = threading.active_count()
    for number in range(3):
        server, client = cluster.add_pod("server"), cluster.add_pod(f"client-{number}")
        server.start(peers.echo)
        with client:
            connection = socket.create_connection((server.ip, 8080), timeout=20)
        connection.sendall(b"x")
        assert connection.recv(10) == b"xx"
        server.remove()
        connection.close()
    eventually(lambda: threading.active_count() <= before + 1)  # the ferry
