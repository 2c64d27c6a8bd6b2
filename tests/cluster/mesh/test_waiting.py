"""What node proxies wait for, and for how long: who a pod is, answers to pings, a tunnel that nobody uses."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.mesh.config import Http2Settings
from netwarren.mesh.identity.tls import client_context, server_context
from netwarren.mesh.model import GatewayAddress, NetworkAddress
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from netwarren.topology.addresses import parse_address
from tests.cluster.mesh.conftest import double, ended, talk
from tests.cluster.mesh_peers.conftest import Mesh, echo, identity

COMPLETE, FAILED = "connection complete", "connection failed"
IMPATIENT = Http2Settings(ping_interval=0.05, ping_timeout=0.2)


class Pair:
    """``server`` and ``client``, carried by one proxy with these options."""

    def __init__(self, cluster: Cluster, **options: Any) -> None:
        self.cluster = cluster
        self.proxy: NodeProxy = cluster.deploy_ztunnel_sync("node-a", **options)
        self.server, self.client = (cluster.add_pod(name, "node-a") for name in ("server", "client"))
        self.server.start(double())

    def forget(self, pod: Pod) -> None:
        """The proxy carries the pod and does not know who that is."""
        uid = self.cluster.mesh.workload(pod).uid
        self.proxy._proxy.change(lambda state: state.remove_workload(uid))

    def remember(self, pod: Pod) -> None:
        workload = self.cluster.mesh.workload(pod)
        self.proxy._proxy.change(lambda state: state.add_workload(workload))


# --- who a pod is ---


def test_a_pod_that_does_not_become_known_in_time_sends_nothing(cluster: Cluster) -> None:
    pair = Pair(cluster, workload_wait=0.1)
    pair.forget(pair.client)
    assert ended(pair.client, pair.server.ip, 8080)
    failed = expect_record_sync(pair.proxy.log, FAILED, {"direction": "outbound"})
    assert "failed to fetch information about local workload: default/client" in str(failed.fields["error"])


def test_what_a_pod_sends_waits_until_it_is_known_who_it_is(cluster: Cluster) -> None:
    pair = Pair(cluster, workload_wait=20.0)
    pair.forget(pair.client)

    def ask(ready: Callable[[object], None]) -> bytes:
        with socket.create_connection((pair.server.ip, 8080), timeout=20) as connection:
            ready(None)
            connection.sendall(b"x")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(100), b"")).split()[-1]

    asking = pair.client.start(ask)
    pair.remember(pair.client)
    assert asking.result(20) == b"xx"


def test_a_pod_that_does_not_become_known_in_time_gets_no_plain_text(cluster: Cluster) -> None:
    pair = Pair(cluster, workload_wait=0.1)
    plain = cluster.add_pod("plain", "node-b", captured=False)
    pair.forget(pair.server)
    assert ended(plain, pair.server.ip, 8080)
    failed = expect_record_sync(pair.proxy.log, FAILED, {"direction": "inbound"})
    assert "failed to fetch information about local workload: default/server" in str(failed.fields["error"])


def test_a_pod_that_does_not_become_known_in_time_gets_no_tunnel(cluster: Cluster) -> None:
    pair = Pair(cluster, workload_wait=0.1)
    pair.forget(pair.server)
    stranger = cluster.add_pod("stranger", "node-b", captured=False)
    assert ended(stranger, pair.server.ip, 15008)
    failed = expect_record_sync(pair.proxy.log, FAILED, {"direction": "inbound"})
    assert "failed to fetch information about local workload: default/server" in str(failed.fields["error"])
    assert str(failed.fields["dst.addr"]) == f"{pair.server.ip}:15008"
    assert str(failed.fields["src.addr"]).startswith(f"{stranger.ip}:")


def test_a_tunnel_to_a_pod_that_is_known_no_more_is_answered_503(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a", workload_wait=0.1)
    server = cluster.add_pod("server", "node-a")
    stranger = cluster.add_pod("stranger", "node-b", captured=False)
    server.start(echo)
    mesh = Mesh(cluster, proxy, server, stranger)
    uid = cluster.mesh.workload(server).uid
    with mesh.peer() as peer:
        proxy._proxy.change(lambda state: state.remove_workload(uid))
        assert peer.status(f"{server.ip}:8080") == "503"


# --- pings ---


def test_a_client_that_answers_no_pings_is_let_go(cluster: Cluster) -> None:
    pair = Pair(cluster, http2=IMPATIENT)
    stranger = cluster.add_pod("stranger", "node-b", captured=False)
    context = client_context(cluster.mesh.authority.issue(identity("stranger")))
    with (
        stranger,
        socket.create_connection((pair.server.ip, 15008), timeout=20) as plain,
        context.wrap_socket(plain) as secured,
    ):
        secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while secured.recv(65536):
                pass
    assert talk(pair.client, pair.server.ip) == (pair.client.ip, b"hellohello")


def test_a_server_that_answers_no_pings_is_an_error_and_another_one_is_asked(cluster: Cluster) -> None:
    pair = Pair(cluster, http2=IMPATIENT)
    waypoint = cluster.add_pod("waypoint", "node-b", captured=False)
    gateway = GatewayAddress(NetworkAddress("", parse_address(waypoint.ip)))
    cluster.mesh.update(pair.server, waypoint=gateway)
    context = server_context(cluster.mesh.authority.issue(identity("waypoint")))
    listener = waypoint.socket()
    listener.bind((waypoint.ip, 15008))
    listener.listen()

    def silent() -> None:
        with (
            contextlib.suppress(OSError),
            listener.accept()[0] as connection,
            context.wrap_socket(connection, server_side=True) as secured,
        ):
            secured.sendall(b"\0\0\0\4\0\0\0\0\0")
            while secured.recv(65536):
                pass

    thread = threading.Thread(target=silent)
    thread.start()
    before = snapshot(pair.proxy.metrics)
    with listener:
        assert ended(pair.client, pair.server.ip, 8080)
        thread.join()
    record = expect_record_sync(pair.proxy.log, COMPLETE, {"direction": "outbound"})
    assert "a ping was not answered within 0.2 s" in str(record.fields["error"])
    labels = {"reporter": "source", "response_flags": "H2_HANDSHAKE_FAILURE"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)
    cluster.mesh.update(pair.server, waypoint=None)
    assert talk(pair.client, pair.server.ip) == (pair.client.ip, b"hellohello")


def test_a_quiet_connection_outlives_many_pings(cluster: Cluster) -> None:
    pair = Pair(cluster, http2=Http2Settings(ping_interval=0.01, ping_timeout=20.0))
    with pair.client, socket.create_connection((pair.server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        connection.sendall(b"on")
        assert connection.recv(10) == b"onon"


# --- tunnels that nobody uses ---


def test_a_tunnel_that_nobody_used_for_a_while_ends(cluster: Cluster) -> None:
    pair = Pair(cluster, pool_idle=0.05)
    pods = pair.proxy._proxy.pods
    server, client = (pods[cluster.mesh.workload(pod).uid] for pod in (pair.server, pair.client))
    talk(pair.client, pair.server.ip)

    async def ends() -> None:
        async with asyncio.timeout(20):
            for taken in list(server.tunnels):
                await taken.wait_closed()
            while server.tunnels or len(client.pool):
                await asyncio.sleep(0)

    pair.proxy._proxy.call(ends)
    assert talk(pair.client, pair.server.ip) == (pair.client.ip, b"hellohello")


def test_a_tunnel_in_use_is_not_idle(cluster: Cluster) -> None:
    pair = Pair(cluster, pool_idle=0.05)
    with pair.client, socket.create_connection((pair.server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        connection.sendall(b"on")
        assert connection.recv(10) == b"onon"
