"""Workloads behind waypoints, and such as do their own proxying."""

import contextlib
import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import MeshConfigError
from netwarren.mesh.hbone import proxy_protocol
from netwarren.mesh.model import (
    ApplicationTunnel,
    GatewayAddress,
    Identity,
    NamespacedName,
    NetworkAddress,
    Policy,
)
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, talk
from tests.cluster.mesh.hbone_servers import hbone_server

COMPLETE = "connection complete"


def at(pod: Pod) -> GatewayAddress:
    return GatewayAddress(NetworkAddress("", ip_address(pod.ip)))


def behind(pod: Pod) -> dict[str, object]:
    return {"waypoint": pod}


def forward(ready: Callable[[object], None]) -> None:
    """Takes PROXY headers on port 15088, says who it is for, and forwards what comes there."""
    with socket.create_server(("127.0.0.1", 15088)) as listener:
        ready(None)
        while True:
            with listener.accept()[0] as near:
                data = b""
                while (decoded := proxy_protocol.decode(data)) is None:
                    data += near.recv(1000)
                header, length = decoded
                assert data[length:] == b""  # the client waits for the server's first word
                with socket.create_connection(
                    (str(header.destination.address), header.destination.port)
                ) as far:
                    near.sendall(f"{header.source.address} {header.destination} {header.identity}\n".encode())
                    near.sendall(far.recv(1000))
                    far.sendall(near.recv(1000))
                    near.sendall(far.recv(1000))


def test_a_waypoint_gets_what_is_for_its_workload(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    waypoint = cluster.add_pod("waypoint", "node-b", workload={"protocol": "HBONE"})
    server = cluster.add_pod("server", "node-a", workload=behind(waypoint))
    client = cluster.add_pod("client", "node-a")
    with hbone_server(cluster, waypoint) as came:
        assert talk(client, server.ip) == ("via", b"hello")
    (request,) = came
    assert request.authority == f"{server.ip}:8080"
    said = dict(request.headers)
    assert f"for={client.ip}" in said["forwarded"].replace('"', "")
    assert "k8s.deployment.name=client" in said["baggage"] or "client" in said["baggage"]
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert record.fields["dst.addr"] == f"{waypoint.ip}:15008"
    assert record.fields["dst.hbone_addr"] == f"{server.ip}:8080"


def test_who_is_not_the_waypoint_gets_nothing(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    waypoint = cluster.add_pod("waypoint", "node-b", workload={"protocol": "HBONE"})
    server = cluster.add_pod("server", "node-a", workload=behind(waypoint))
    client = cluster.add_pod("client", "node-a")
    before = snapshot(proxy.metrics)
    mallory = Identity("cluster.local", "default", "mallory")
    with (
        hbone_server(cluster, waypoint, mallory) as came,
        client,
        socket.create_connection((server.ip, 8080), timeout=20) as connection,
    ):
        connection.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    assert came == []
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert "peer did not present the expected SAN" in str(record.fields["error"])
    labels = {"reporter": "source", "response_flags": "TLS_FAILURE"}
    expect_sync(before, "istio_tcp_connections_closed_total", labels, 1)


@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_a_captured_pod_is_a_waypoint_by_the_proxy_protocol(cluster: Cluster, node: str) -> None:
    for each in ("node-a", "node-b"):
        cluster.deploy_ztunnel_sync(each)
    tunnel = {"application_tunnel": ApplicationTunnel("PROXY", 15088)}
    waypoint = cluster.add_pod("waypoint", node, workload=tunnel)
    server = cluster.add_pod("server", "node-a", workload=behind(waypoint))
    client = cluster.add_pod("client", "node-a")
    server.start(double())
    waypoint.start(forward)
    identity = cluster.mesh.workload(client).identity
    with (
        client,
        socket.create_connection((server.ip, 8080), timeout=20) as connection,
        connection.makefile("rwb", buffering=0) as lines,
    ):
        assert lines.readline() == f"{client.ip} {server.ip}:8080 {identity}\n".encode()
        assert lines.readline() == f"{waypoint.ip}\n".encode()
        lines.write(b"hello")
        assert lines.read(10) == b"hellohello"


def test_a_waypoint_goes_by_the_name_of_its_service(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    waypoint = cluster.add_pod("waypoint", "node-b", labels={"app": "gate"}, workload={"protocol": "HBONE"})
    cluster.add_service("gate", selector={"app": "gate"}, ports={15008: 15008})
    name = NamespacedName("default", "gate.default.svc.cluster.local")
    server = cluster.add_pod("server", "node-a", workload={"waypoint": GatewayAddress(name)})
    client = cluster.add_pod("client", "node-a")
    with hbone_server(cluster, waypoint):
        assert talk(client, server.ip) == ("via", b"hello")


def test_an_application_tunnel_leads_to_another_port(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod(
        "server", "node-a", workload={"application_tunnel": ApplicationTunnel("NONE", 9090)}
    )
    client = cluster.add_pod("client", "node-a")
    server.start(double(9090))
    assert talk(client, server.ip) == (client.ip, b"hellohello")


def test_without_its_waypoint_a_workload_is_out_of_reach_and_others_come_and_go(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    waypoint = cluster.add_pod("waypoint", "node-b", workload={"protocol": "HBONE"})
    server = cluster.add_pod("server", "node-a", workload=behind(waypoint))
    client = cluster.add_pod("client", "node-a")
    waypoint.remove()
    with (
        client,
        socket.create_connection((server.ip, 8080), timeout=20) as connection,
        contextlib.suppress(ConnectionResetError),
    ):
        assert connection.recv(10) == b""
    expect_record_sync(
        proxy.log, "connection failed", where=lambda each: "unknown waypoint" in str(each.fields["error"])
    )
    other = cluster.add_pod("other", "node-a")
    other.start(double())
    assert talk(client, other.ip) == (client.ip, b"hellohello")
    with pytest.raises(MeshConfigError, match="policy"):
        cluster.add_pod("wrong", workload={"authorization_policies": (NamespacedName("default", "none"),)})


def test_a_policy_taken_back_that_a_workload_still_names_keeps_no_pod_away(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    policy = Policy("policy", "default", "WorkloadSelector", "Deny", rules=(((),),))
    cluster.mesh.add_policy(policy)
    cluster.add_pod("server", "node-a", workload={"authorization_policies": (policy.key,)})
    cluster.mesh.remove_policy("default", "policy")
    cluster.add_pod("other", "node-a")
    assert "other" in cluster.pods


def test_a_workloads_waypoint_changes_while_it_is_up(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    waypoint = cluster.add_pod("waypoint", "node-b", workload={"protocol": "HBONE"})
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    with hbone_server(cluster, waypoint):
        cluster.mesh.update(server, waypoint=at(waypoint))
        assert talk(client, server.ip) == ("via", b"hello")
    cluster.mesh.update(server, waypoint=None)
    assert talk(client, server.ip) == (client.ip, b"hellohello")
