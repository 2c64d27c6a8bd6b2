"""Who reaches whom by way of node proxies, and how connections end."""

import socket
import struct
import sys
from collections.abc import Callable

import pytest

from netwarren import Cluster
from netwarren.errors import ConfigurationError
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, ended, talk

COMPLETE = "connection complete"

HALF_CLOSE = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as connection:
    connection.sendall(b"hello")
    connection.shutdown(socket.SHUT_WR)
    print(b"".join(iter(lambda: connection.recv(100), b"")).decode().split()[-1])
"""


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("captured", [True, False])
def test_in_a_dual_cluster_each_family_keeps_its_clients_address(family: int, captured: bool) -> None:
    with Cluster(families="dual") as cluster:
        for node in ("node-a", "node-b"):
            cluster.deploy_ztunnel_sync(node)
        server = cluster.add_pod("server", "node-a")
        client = cluster.add_pod("client", "node-b", captured=captured)
        server.start(double(family=socket.AF_INET if family == 4 else socket.AF_INET6))
        there, here = (next(ip for ip in pod.ips if (":" in ip) == (family == 6)) for pod in (server, client))
        assert talk(client, there) == (here, b"hellohello")


@pytest.mark.parametrize("captured", [True, False])
def test_a_plain_program_speaks_by_way_of_the_proxy(cluster: Cluster, captured: bool) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a", captured=captured)
    client = cluster.add_pod("client", "node-a")
    server.start(double())
    said = client.check_output([sys.executable, "-c", HALF_CLOSE, server.ip, "8080"])
    assert said.strip() == "hellohello"
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert (record.fields["bytes_sent"], record.fields["bytes_recv"]) == (5, len(client.ip) + 1 + 10)


def test_a_pod_reaches_itself_by_its_own_address(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    pod = cluster.add_pod("pod", "node-a")
    pod.start(double())
    assert talk(pod, pod.ip) == (pod.ip, b"hellohello")
    assert talk(pod, "127.0.0.1") == ("127.0.0.1", b"hellohello")


def test_a_pod_reaches_itself_by_its_service(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    pod = cluster.add_pod("pod", "node-a", labels={"app": "web"})
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    pod.start(double())
    assert talk(pod, service.ip, 80) == (pod.ip, b"hellohello")


def test_a_captured_pod_reaches_what_the_mesh_does_not_know(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    node = cluster.node("node-b")
    node.start(double(9000))
    before = snapshot(proxy.metrics)
    assert talk(client, node.ip, 9000)[1] == b"hellohello"
    labels = {"reporter": "source", "destination_workload": "unknown", "source_workload": "client"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)


def test_who_is_no_pod_reaches_a_captured_one_in_plain_text(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    server.start(double())

    def ask() -> bytes:
        with socket.create_connection((server.ip, 8080), timeout=20) as connection:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(100), b"")).split()[-1]

    assert cluster.root.run(ask) == b"hellohello"
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    assert "src.workload" not in record.fields


def _ending_first(ready: Callable[[object], None]) -> bytes:
    """A server that ends its own half at once, and gives all that the client still says."""
    with socket.create_server(("", 8080)) as listener:
        ready(None)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"bye")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("captured", [True, False])
def test_a_server_that_ends_its_half_first_still_hears_its_client(cluster: Cluster, captured: bool) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a", captured=captured)
    client = cluster.add_pod("client", "node-a")
    serving = server.start(_ending_first)
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert b"".join(iter(lambda: connection.recv(10), b"")) == b"bye"
        connection.sendall(bytes(300_000))
        connection.shutdown(socket.SHUT_WR)
    assert len(serving.result(20)) == 300_000


@pytest.mark.parametrize("captured", [True, False])
def test_a_server_that_resets_is_at_its_end_and_that_is_no_error(cluster: Cluster, captured: bool) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a", captured=captured)
    client = cluster.add_pod("client", "node-a")

    def serve(ready: Callable[[object], None]) -> None:
        with socket.create_server(("", 8080)) as listener:
            ready(None)
            connection, _ = listener.accept()
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    server.start(serve)
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        connection.sendall(b"x")
        assert connection.recv(10) == b""
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert "error" not in record.fields


def test_connections_of_one_client_go_through_one_tunnel(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    for _ in range(5):
        talk(client, server.ip)
    for _ in range(5):
        expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    ends = {
        record.fields["src.addr"]
        for record in proxy.log.records()
        if record.message == COMPLETE and record.fields["direction"] == "inbound"
    }
    assert len(ends) == 1


def test_a_service_without_endpoints_ends_who_speaks_to_it(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    assert ended(client, service.ip, 80)
    expect_record_sync(
        proxy.log, "connection failed", where=lambda each: "no healthy upstream" in str(each.fields["error"])
    )


def test_a_proxy_may_have_a_mark_of_its_own(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a", packet_mark=0x42)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    assert talk(client, server.ip) == (client.ip, b"hellohello")


@pytest.mark.parametrize("mark", [None, 0, 0x111, 0x1539])
def test_a_mark_that_cannot_tell_the_proxys_packets_from_others_is_refused(
    cluster: Cluster, mark: int | None
) -> None:
    with pytest.raises(ConfigurationError, match="packet_mark"):
        cluster.deploy_ztunnel_sync("node-a", packet_mark=mark)
    assert "ztunnel-node-a" not in cluster.pods
