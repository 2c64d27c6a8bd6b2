"""What a node proxy does to traffic, as applications and a test's author see it."""

import contextlib
import json
import socket
import ssl
import struct
import sys
import urllib.request
from ipaddress import ip_address

import pytest

from netwarren import Cluster
from netwarren.errors import ConfigurationError, DuplicateName, MeshConfigError
from netwarren.mesh.identity.tls import client_context
from netwarren.mesh.model import GatewayAddress, Identity, Match, NetworkAddress, Policy
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, talk
from tests.kept import let_go

IDENTITY = "spiffe://cluster.local/ns/default/sa/{}"
COMPLETE = "connection complete"


def closed(action: str = "Deny", **match: object) -> Policy:
    """A policy of the default namespace with one match."""
    return Policy("closed", "default", "Namespace", action, rules=(((Match(**match),),),))  # type: ignore[arg-type]


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
@pytest.mark.parametrize("client_node", ["node-a", "node-b"])
def test_bytes_come_doubled_through_two_proxies_and_the_server_sees_its_client(
    families: str, client_node: str
) -> None:
    with Cluster(families=families) as cluster:
        proxies = [cluster.deploy_ztunnel_sync(node) for node in ("node-a", "node-b")]
        server = cluster.add_pod("server", "node-a")
        client = cluster.add_pod("client", client_node)
        server.start(double(family=socket.AF_INET6 if families == "ipv6" else socket.AF_INET))
        assert talk(client, server.ip) == (client.ip, b"hellohello")
        inbound = expect_record_sync(proxies[0].log, COMPLETE, {"direction": "inbound"})
        assert inbound.fields["src.identity"] == IDENTITY.format("client")
        assert inbound.fields["dst.identity"] == IDENTITY.format("server")
        outbound = expect_record_sync(
            proxies[client_node == "node-b"].log, COMPLETE, {"direction": "outbound"}
        )
        assert str(outbound.fields["dst.addr"]).endswith(":15008")
        assert outbound.fields["bytes_sent"] == 5


def test_metrics_count_both_ends(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    before = snapshot(proxy.metrics)
    seen, answer = talk(client, server.ip)
    for reporter in ("source", "destination"):
        labels = {
            "reporter": reporter,
            "source_principal": IDENTITY.format("client"),
            "destination_principal": IDENTITY.format("server"),
            "connection_security_policy": "mutual_tls",
        }
        expect_sync(before, "istio_tcp_connections_opened_total", labels, 1)
        expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)
        expect_sync(before, "istio_tcp_received_bytes_total", labels, 5)
        expect_sync(before, "istio_tcp_sent_bytes_total", labels, len(seen) + 1 + len(answer))


def test_a_pod_that_is_not_captured_speaks_plain_text_both_ways(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    captured = cluster.add_pod("captured", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    for pod in (captured, plain):
        pod.start(double())
    assert talk(plain, captured.ip) == (plain.ip, b"hellohello")
    inbound = expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    assert "src.identity" not in inbound.fields
    assert talk(captured, plain.ip) == (captured.ip, b"hellohello")
    outbound = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert outbound.fields["dst.addr"] == f"{plain.ip}:8080"
    assert (cluster.mesh.carried(captured), cluster.mesh.carried(plain)) == (True, False)


def test_pods_from_before_the_proxy_are_left_alone(cluster: Cluster) -> None:
    before = cluster.add_pod("before", "node-a")
    cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    before.start(double())
    assert talk(client, before.ip) == (client.ip, b"hellohello")
    assert not cluster.mesh.carried(before)


def test_much_comes_through_whole(cluster: Cluster) -> None:
    for node in ("node-a", "node-b"):
        cluster.deploy_ztunnel_sync(node)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-b")

    def swallow(ready: object) -> None:
        with socket.create_server(("", 8080)) as listener:
            ready()  # type: ignore[operator]
            connection, _ = listener.accept()
            size = 0
            with connection:
                while data := connection.recv(1 << 20):
                    size += len(data)
                connection.sendall(str(size).encode())

    server.start(swallow)
    with client, socket.create_connection((server.ip, 8080), timeout=60) as connection:
        for _ in range(40):
            connection.sendall(bytes(1 << 20))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == str(40 << 20).encode()


def test_a_service_is_balanced_over_pods_of_two_nodes_and_found_by_name(cluster: Cluster) -> None:
    for node in ("node-a", "node-b"):
        cluster.deploy_ztunnel_sync(node)
    for name, node in (("one", "node-a"), ("two", "node-b")):
        cluster.add_pod(name, node, labels={"app": "web"}).start(_name(name))
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    client = cluster.add_pod("client", "node-a")
    with client:
        answers = {_answer(service.ip) for _ in range(40)}
    assert answers == {b"one", b"two"}
    code = "import socket; print(socket.create_connection(('web.default.svc.cluster.local', 80)).recv(10).decode())"
    assert client.check_output([sys.executable, "-W", "ignore", "-c", code]).strip() in ("one", "two")
    cluster.pod("one").ready = False
    with client:
        answers = {_answer("web") for _ in range(10)}
    assert answers == {b"two"}
    counted = cluster.mesh.proxies["node-a"].metrics.encode()
    assert "istio_dns_requests_total{" in counted


def _answer(host: str) -> bytes:
    with socket.create_connection((host, 80), timeout=20) as connection:
        return connection.recv(10)


def _name(name: str):  # type: ignore[no-untyped-def]
    def serve(ready: object) -> None:
        with socket.create_server(("", 8080)) as listener:
            ready()  # type: ignore[operator]
            while True:
                with listener.accept()[0] as connection:
                    connection.sendall(name.encode())

    return serve


def test_sockets_are_counted_while_they_are_open(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    before = snapshot(proxy.metrics)
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        expect_sync(before, "istio_tcp_sockets_open", {"reporter": "source"}, 1)
        expect_sync(before, "istio_tcp_sockets_open", {"reporter": "destination"}, 1)
    expect_sync(before, "istio_tcp_sockets_open", {"reporter": "source"}, 0)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_client_of_tls_1_2_is_served_where_that_is_allowed(cluster: Cluster, allowed: bool) -> None:
    cluster.deploy_ztunnel_sync("node-a", tls12=allowed)
    server = cluster.add_pod("server", "node-a")
    client = cluster.add_pod("client", "node-b")
    server.start(double())
    context = client_context(
        cluster.mesh.authority.issue(Identity("cluster.local", "default", "client")), tls12=True
    )
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with client, socket.create_connection((server.ip, 15008), timeout=20) as connection:
        if allowed:
            with context.wrap_socket(connection) as secured:
                assert secured.version() == "TLSv1.2"
        else:
            with pytest.raises(OSError, match=r"(?i)protocol.version|reset|closed|EOF"):
                context.wrap_socket(connection)


def test_a_client_that_said_something_is_reset_where_nobody_listens(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        connection.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    refused = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert "503" in str(refused.fields["error"])


@pytest.mark.parametrize("captured", [True, False])
def test_a_policy_keeps_clients_out_until_it_is_taken_back(cluster: Cluster, captured: bool) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    client = cluster.add_pod("client", "node-a", captured=captured)
    server.start(double())
    cluster.mesh.add_policy(closed(destination_ports=(8080,)))
    before = snapshot(proxy.metrics)
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(10) == b""
    denied = expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    assert denied.fields["error"] == (
        "connection closed due to policy rejection: explicitly denied by: default/closed"
    )
    labels = {"reporter": "destination", "response_flags": "DENY"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)
    cluster.mesh.remove_policy("default", "closed")
    assert talk(client, server.ip) == (client.ip, b"hellohello")


def test_a_new_policy_cuts_a_connection_that_it_forbids(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        cluster.mesh.add_policy(closed(destination_ports=(8080,)))
        with contextlib.suppress(ConnectionResetError):  # an end is as good
            assert connection.recv(100) == b""
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    assert record.fields["error"] == "connection closed due to policy change"


def test_a_pod_goes_under_traffic_and_the_proxy_lives_on(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        server.remove()
        try:
            assert connection.recv(100) == b""
        except ConnectionResetError:
            pass
    other = cluster.add_pod("other", "node-a")
    other.start(double())
    assert talk(client, other.ip) == (client.ip, b"hellohello")
    assert proxy.ready


def test_shutting_down_lets_a_connection_end_by_itself(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a", drain_deadline=30.0)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())

    def late(ready: object) -> bytes:
        with socket.create_connection((server.ip, 8080), timeout=20) as connection:
            said = connection.recv(100)
            ready()  # type: ignore[operator]
            connection.sendall(b"x")
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(100):
                said += data
            return said

    talking = client.start(late)
    proxy.shut_down()
    assert not proxy.running
    assert talking.result(20) == f"{client.ip}\nxx".encode()


def test_calls_to_the_proxys_own_ports_are_refused_and_it_lives_on(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    server.start(double())
    for caller in (client, plain):
        for port in (15001, 15006, 15008):
            for host in (server.ip, client.ip, "127.0.0.1"):
                with caller:
                    try:
                        with socket.create_connection((host, port), timeout=20) as connection:
                            connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)))
                            connection.shutdown(socket.SHUT_WR)
                            assert connection.recv(100)[:1] in (b"", b"\x15")  # at most a TLS alert
                    except OSError:
                        pass
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    assert proxy.ready
    assert any("recursive call" in line for line in proxy.log.lines())


def test_its_pages_are_at_the_ports_of_ztunnel(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    cluster.add_pod("web", "node-a")

    def get(url: str) -> str:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as answer:
            text: str = answer.read().decode()
            return text

    assert cluster.root.run(get, f"http://{proxy.pod.ip}:15021/healthz/ready") == "ready\n"
    assert "istio_build{" in cluster.root.run(get, f"http://{proxy.pod.ip}:15020/metrics")
    dump = json.loads(proxy.pod.run(get, "http://127.0.0.1:15000/config_dump"))
    assert {each["name"] for each in dump["workloads"]} == {"web", "ztunnel-node-a"}
    assert [each["info"]["name"] for each in dump["workloadState"].values()] == ["web"]


def test_a_waypoint_that_is_nobody_is_refused_and_the_pod_is_not_there(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    nowhere = GatewayAddress(NetworkAddress("", ip_address("10.9.9.9")))
    with pytest.raises(MeshConfigError, match=r"10\.9\.9\.9"):
        cluster.add_pod("web", "node-a", workload={"waypoint": nowhere})
    assert "web" not in cluster.pods
    with pytest.raises(ConfigurationError, match="no field colour"):
        cluster.add_pod("web", "node-a", workload={"colour": "red"})
    web = cluster.add_pod("web", "node-a")
    with pytest.raises(MeshConfigError, match=r"10\.9\.9\.9"):
        cluster.mesh.update(web, waypoint=nowhere)


def test_there_is_one_proxy_a_node_with_options_that_exist(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    with pytest.raises(DuplicateName, match="ztunnel-node-a"):
        cluster.deploy_ztunnel_sync("node-a")
    with pytest.raises(ConfigurationError, match="no option colour"):
        cluster.deploy_ztunnel_sync("node-b", colour="red")
    with Cluster() as other, pytest.raises(ConfigurationError, match="no node proxy"):
        other.add_pod("web", workload={"service_account": "web"})


def test_a_client_that_resets_is_no_error(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert "error" not in record.fields


@pytest.mark.usefixtures("nothing_kept")
def test_nothing_is_left_of_proxies_in_a_closed_cluster() -> None:
    import os
    import threading

    def life() -> None:
        with Cluster() as cluster:
            cluster.deploy_ztunnel_sync("node-a")
            server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
            server.start(double())
            assert talk(client, server.ip) == (client.ip, b"hellohello")

    def held() -> tuple[int, int]:
        let_go()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    life()
    before = held()
    for _ in range(3):
        life()
    after = held()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1]
