"""Revoked certificates: who has one is cut off by node proxies that follow the list, and gets in no more."""

import contextlib
import os
import queue
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import ended
from tests.cluster.mesh_peers.conftest import echo, talk

COMPLETE = "connection complete"
REJECTIONS = "istio_crl_policy_rejections_total"
REVOKED = "connection closed: peer certificate revoked by CRL"


NODES = {"server": "node-a", "client": "node-b"}


class Revoking:
    """``server`` and ``client`` on two nodes; the proxy of one of them follows the list in ``path``."""

    def __init__(self, cluster: Cluster, path: Path, follower: str) -> None:
        self.cluster = cluster
        self.path = path
        self.proxies: dict[str, NodeProxy] = {}
        for name, node in NODES.items():
            options: dict[str, Any] = {"crl_path": path, "crl_debounce": 0.0} if name == follower else {}
            self.proxies[name] = cluster.deploy_ztunnel_sync(node, **options)
        self.server = cluster.add_pod("server", "node-a")
        self.client = cluster.add_pod("client", "node-b")
        self.server.start(echo)

    def revoke(self, pod: Pod) -> None:
        """Put all certificates of the pod's identity on the list."""
        authority = self.cluster.mesh.authority
        data = authority.revoke(self.cluster.mesh.workload(pod).identity)
        new = self.path.with_suffix(".new")
        new.write_bytes(data)
        os.replace(new, self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[socket.socket]:
        """A connection that has carried something."""
        with (
            self.client,
            socket.create_connection((self.server.ip, 8080), timeout=20) as connection,
        ):
            connection.sendall(b"hello")
            assert connection.recv(100) == b"hello"
            yield connection


def dead(connection: socket.socket) -> bool:
    """Whether it ends without another word."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("follower", "revoked", "reporter", "direction"),
    [("server", "client", "destination", "inbound"), ("client", "server", "source", "outbound")],
)
def test_a_tunnel_whose_peer_is_revoked_meanwhile_is_cut(
    cluster: Cluster, tmp_path: Path, follower: str, revoked: str, reporter: str, direction: str
) -> None:
    mesh = Revoking(cluster, tmp_path / "crl.pem", follower)
    proxy = mesh.proxies[follower]
    before = snapshot(proxy.metrics)
    with mesh.open() as one, mesh.open() as other:
        mesh.revoke(cluster.pod(revoked))
        assert dead(one)
        assert dead(other)
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": direction, "error": REVOKED})
    assert record.level == "error"
    assert record.fields["bytes_recv" if direction == "outbound" else "bytes_sent"] == 5
    expect_sync(before, REJECTIONS, {"reporter": reporter}, 1)  # both were in one tunnel
    labels = {"reporter": reporter, "response_flags": "CERT_REVOKED"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 2)


def test_a_revoked_client_gets_no_new_tunnel(cluster: Cluster, tmp_path: Path) -> None:
    mesh = Revoking(cluster, tmp_path / "crl.pem", "server")
    proxy = mesh.proxies["server"]
    with mesh.open() as connection:
        mesh.revoke(mesh.client)
        assert dead(connection)
    before, since = snapshot(proxy.metrics), proxy.log.count
    assert ended(mesh.client, mesh.server.ip, 8080)
    expect_record_sync(
        proxy.log, "connection failed", {"direction": "inbound", "error": REVOKED}, since=since
    )
    assert before.delta(REJECTIONS, {"reporter": "destination"}) == 1  # it has not tried again
    friend = cluster.add_pod("friend", "node-b")
    assert talk(friend, mesh.server.ip, b"hello") == b"hello"


def test_a_revoked_server_is_not_spoken_to(cluster: Cluster, tmp_path: Path) -> None:
    mesh = Revoking(cluster, tmp_path / "crl.pem", "client")
    proxy = mesh.proxies["client"]
    with mesh.open() as connection:
        mesh.revoke(mesh.server)
        assert dead(connection)
        expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound", "error": REVOKED})
    before, since = snapshot(proxy.metrics), proxy.log.count
    assert ended(mesh.client, mesh.server.ip, 8080)
    expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound", "error": REVOKED}, since=since)
    expect_sync(before, REJECTIONS, {"reporter": "source"}, 1)
    labels = {"reporter": "source", "response_flags": "CERT_REVOKED"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)


def test_an_idle_tunnel_is_cut_too(cluster: Cluster, tmp_path: Path) -> None:
    mesh = Revoking(cluster, tmp_path / "crl.pem", "server")
    proxy = mesh.proxies["server"]
    before = snapshot(proxy.metrics)
    talk(mesh.client, mesh.server.ip, b"hello")
    expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    mesh.revoke(mesh.client)
    expect_sync(before, REJECTIONS, {"reporter": "destination"}, 1)


@pytest.mark.parametrize(("follower", "revoked"), [("server", "client"), ("client", "server")])
def test_who_reads_nothing_is_cut_as_well(
    cluster: Cluster, tmp_path: Path, follower: str, revoked: str
) -> None:
    mesh = Revoking(cluster, tmp_path / "crl.pem", follower)
    proxy = mesh.proxies[follower]
    came: queue.Queue[socket.socket] = queue.Queue()

    def serve(ready: Callable[[object], None]) -> None:
        with socket.create_server(("", 9000)) as listener:
            ready(None)
            came.put(listener.accept()[0])

    mesh.server.start(serve)
    with (
        mesh.client,
        socket.create_connection((mesh.server.ip, 9000), timeout=20) as connection,
        came.get(timeout=20) as application,
    ):
        said, deaf = (connection, application) if follower == "server" else (application, connection)
        said.settimeout(0.2)
        with contextlib.suppress(TimeoutError):  # until nobody takes any more
            while True:
                said.sendall(bytes(1 << 20))
        mesh.revoke(cluster.pod(revoked))
        expect_record_sync(proxy.log, COMPLETE, {"error": REVOKED})
        with pytest.raises(ConnectionResetError):
            while deaf.recv(1 << 20):
                pass


def test_a_revoked_client_that_waits_for_the_application_is_cut_for_that_reason(
    cluster: Cluster, tmp_path: Path
) -> None:
    mesh = Revoking(cluster, tmp_path / "crl.pem", "server")
    proxy = mesh.proxies["server"]
    full = mesh.server.socket()
    with full:
        full.bind((mesh.server.ip, 9000))
        full.listen(0)
        with mesh.server:
            filling = [socket.socket() for _ in range(3)]
            for each in filling:
                each.setblocking(False)
                each.connect_ex((mesh.server.ip, 9000))
        with mesh.client, socket.create_connection((mesh.server.ip, 9000), timeout=20) as connection:
            assert proxy.metrics.changes.wait(lambda: _asked(proxy) or None, 20)
            mesh.revoke(mesh.client)
            assert dead(connection)
        expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound", "error": REVOKED})
        for each in filling:
            each.close()


def _asked(proxy: NodeProxy) -> bool:
    return any(len(pod.connections) for pod in proxy._proxy.pods.values())


def test_whom_the_list_does_not_name_stays_connected(cluster: Cluster, tmp_path: Path) -> None:
    mesh = Revoking(cluster, tmp_path / "crl.pem", "server")
    proxy = mesh.proxies["server"]
    other = cluster.add_pod("other", "node-b")
    before = snapshot(proxy.metrics)
    talk(other, mesh.server.ip, b"hello")
    server = cluster.add_pod("second", "node-a")
    server.start(echo)
    with mesh.client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        mesh.revoke(other)
        expect_sync(before, REJECTIONS, {"reporter": "destination"}, 1)
        connection.sendall(b"on")
        assert connection.recv(100) == b"on"


@pytest.mark.parametrize("data", [b"", b"nonsense"], ids=["empty", "nonsense"])
def test_a_list_that_says_nothing_keeps_nobody_away(cluster: Cluster, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(data)
    mesh = Revoking(cluster, path, "server")
    assert talk(mesh.client, mesh.server.ip, b"hello") == b"hello"


def test_a_list_that_is_there_from_the_start_holds_from_the_start(cluster: Cluster, tmp_path: Path) -> None:
    mesh = Revoking(cluster, tmp_path / "crl.pem", "neither")
    talk(mesh.client, mesh.server.ip, b"hello")
    mesh.revoke(mesh.client)
    late = cluster.deploy_ztunnel_sync(cluster.add_node("node-c"), crl_path=mesh.path)
    server = cluster.add_pod("late", "node-c")
    assert ended(mesh.client, server.ip, 8080)
    expect_record_sync(late.log, "connection failed", {"direction": "inbound", "error": REVOKED})
