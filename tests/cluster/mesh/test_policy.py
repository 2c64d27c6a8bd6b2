"""What authorization policies do to connections by way of node proxies."""

import socket
from ipaddress import ip_network

import pytest

from netwarren import Cluster, Pod
from netwarren.errors import UnknownName
from netwarren.mesh.model import Match, NamespacedName, Policy, StringMatch
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh.conftest import double, talk

COMPLETE = "connection complete"
CLIENT = StringMatch("Exact", "cluster.local/ns/default/sa/client")


def policy(action: str, scope: str = "Namespace", dry_run: bool = False, **match: object) -> Policy:
    """One match of the default namespace."""
    rules = (((Match(**match),),),)  # type: ignore[arg-type]
    return Policy("policy", "default", scope, action, rules=rules, dry_run=dry_run)  # type: ignore[arg-type]


def kept_out(client: Pod, host: str, port: int = 8080) -> bool:
    """Whether a connection ends before the server, which would speak first, has said a word."""
    with client, socket.create_connection((host, port), timeout=20) as connection:
        try:
            return connection.recv(100) == b""
        except ConnectionResetError:
            return True


def test_who_is_allowed_by_identity_gets_in_and_nobody_else(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    other = cluster.add_pod("other", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    server.start(double())
    cluster.mesh.add_policy(policy("Allow", principals=(CLIENT,)))
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    for pod in (other, plain):
        assert kept_out(pod, server.ip)
        expect_record_sync(
            proxy.log,
            COMPLETE,
            {"direction": "inbound", "src.workload": pod.name},
            where=lambda each: "allow policies exist, but none allowed" in str(each.fields["error"]),
        )


def test_a_policy_by_address_holds_for_both_kinds_of_clients(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    plain = cluster.add_pod("plain", "node-a", captured=False)
    server.start(double())
    for denied, allowed in ((client, plain), (plain, client)):
        cluster.mesh.add_policy(policy("Deny", source_ips=(ip_network(denied.ip),)))
        assert kept_out(denied, server.ip)
        assert talk(allowed, server.ip) == (allowed.ip, b"hellohello")


def test_a_policy_for_one_workload_leaves_others_alone(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    cluster.mesh.add_policy(policy("Deny", "WorkloadSelector", destination_ports=(8080,)))
    selected = (NamespacedName("default", "policy"),)
    closed = cluster.add_pod("closed", "node-a", workload={"authorization_policies": selected})
    opened, client = cluster.add_pod("opened", "node-a"), cluster.add_pod("client", "node-a")
    for server in (closed, opened):
        server.start(double())
    assert kept_out(client, closed.ip)
    assert talk(client, opened.ip) == (client.ip, b"hellohello")
    cluster.mesh.update(closed, authorization_policies=())
    assert talk(client, closed.ip) == (client.ip, b"hellohello")


def test_a_policy_that_is_only_tried_is_told_of_and_keeps_nobody_out(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    cluster.mesh.add_policy(policy("Deny", dry_run=True, destination_ports=(8080,)))
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    assert any(
        each.target == "rbac" and each.fields.get("policy") == "default/policy"
        for each in proxy.log.records()
    )


@pytest.mark.parametrize("captured", [True, False])
def test_a_policy_that_is_named_and_not_there_is_skipped_with_a_warning(
    cluster: Cluster, captured: bool
) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    cluster.mesh.add_policy(policy("Deny", "WorkloadSelector", destination_ports=(8080,)))
    selected = {"authorization_policies": (NamespacedName("default", "policy"),)}
    server = cluster.add_pod("server", "node-a", workload=selected)
    client = cluster.add_pod("client", "node-a", captured=captured)
    server.start(double())
    assert kept_out(client, server.ip)
    cluster.mesh.remove_policy("default", "policy")

    def warnings() -> list[tuple[str, str, str]]:
        return [
            (each.level, each.target, each.message)
            for each in proxy.log.records()
            if "unknown policy" in each.message
        ]

    assert not warnings()
    warning = ("warn", "state", "skipping unknown policy default/policy")
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        assert warnings() == [warning]
        cluster.mesh.add_policy(policy("Deny", destination_ports=(9090,)))
        assert warnings() == [warning]
        cluster.mesh.remove_policy("default", "policy")
        assert warnings() == [warning] * 2


@pytest.mark.parametrize("captured", [True, False])
def test_a_policy_for_others_leaves_open_connections_open(cluster: Cluster, captured: bool) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    client = cluster.add_pod("client", "node-a", captured=captured)
    server.start(double())
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        cluster.mesh.add_policy(policy("Deny", destination_ports=(9090,)))
        connection.sendall(b"x")
        assert connection.recv(100) == b"xx"
        cluster.mesh.add_policy(policy("Deny", destination_ports=(8080,)))
        try:
            assert connection.recv(100) == b""
        except ConnectionResetError:
            pass


def test_policies_hold_for_proxies_that_come_after_them(cluster: Cluster) -> None:
    cluster.mesh.add_policy(policy("Deny", destination_ports=(8080,)))
    cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    assert kept_out(client, server.ip)


def test_a_policy_that_is_not_there_cannot_be_removed(cluster: Cluster) -> None:
    with pytest.raises(UnknownName, match="default/policy"):
        cluster.mesh.remove_policy("default", "policy")
