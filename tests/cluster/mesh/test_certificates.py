"""Certificates of pods: issued for them, renewed while they live, and what happens where there is none."""

import asyncio
import contextlib
import socket
import threading
from dataclasses import replace
from typing import Any

import pytest

from netwarren import Cluster
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.errors import MeshError
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.secrets import Fetch
from netwarren.mesh.inpod.agent import NodeAgent
from netwarren.mesh.model import Identity, Workload
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from tests.cluster.mesh.conftest import double, ended, talk
from tests.cluster.mesh_peers.conftest import echo

COMPLETE, FAILED = "connection complete", "connection failed"
CLOSED = "istio_tcp_connections_closed_total"


def account(name: str) -> Identity:
    return Identity("cluster.local", "default", name)


def test_a_client_for_whom_there_is_no_certificate_is_cut_for_that_reason(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    cluster.mesh.authority.refuse(account("client"), "it is on holiday")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    before = snapshot(proxy.metrics)
    assert ended(client, server.ip, 8080)
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert "it is on holiday" in str(record.fields["error"])
    labels = {"reporter": "source", "response_flags": "IDENTITY_ERROR"}
    expect_sync(before, CLOSED, labels, 1)
    other = cluster.add_pod("other", "node-a")
    assert talk(other, server.ip) == (other.ip, b"hellohello")


def test_a_server_for_which_there_is_no_certificate_takes_no_tunnel_but_plain_text(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    cluster.mesh.authority.refuse(account("server"))
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    plain = cluster.add_pod("plain", "node-b", captured=False)
    server.start(double())
    assert ended(client, server.ip, 8080)
    failed = expect_record_sync(proxy.log, FAILED, {"direction": "inbound"})
    assert f"no certificate for {account('server')}" in str(failed.fields["error"])
    assert talk(plain, server.ip) == (plain.ip, b"hellohello")


def test_a_certificate_is_renewed_under_a_connection_that_goes_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = {account(name): threading.Semaphore(0) for name in ("server", "client")}
    issue = Authority.issue

    def counted(authority: Authority, identity: Identity, **options: Any) -> Certificate:
        made = issue(authority, identity, **options)
        if identity in renewed:
            renewed[identity].release()
        return made

    monkeypatch.setattr(Authority, "issue", counted)
    cluster.deploy_ztunnel_sync("node-a", certificate_lifetime=1.0)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(echo)
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        connection.sendall(b"one")
        assert connection.recv(10) == b"one"
        for each in renewed.values():
            for _ in range(2):
                assert each.acquire(timeout=20)
        connection.sendall(b"two")
        assert connection.recv(10) == b"two"
        with socket.create_connection((server.ip, 8080), timeout=20) as another:
            another.sendall(b"three")
            assert another.recv(10) == b"three"


def test_a_pod_is_who_its_service_account_and_trust_domain_say(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    fields = {"service_account": "robot", "trust_domain": "example.org"}
    server = cluster.add_pod("server", "node-a", namespace="shop", workload=fields)
    client = cluster.add_pod("client", "node-a", workload=fields)
    server.start(double())
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    assert record.fields["src.identity"] == "spiffe://example.org/ns/default/sa/robot"
    assert record.fields["dst.identity"] == "spiffe://example.org/ns/shop/sa/robot"


def kept(proxy: NodeProxy) -> set[str]:
    """The service accounts whose certificates the proxy has or fetches."""

    async def accounts() -> set[str]:
        return {each.identity.service_account for each in proxy._proxy._common.secrets.states()}

    return proxy._proxy.call(accounts)


def test_certificates_are_kept_for_the_pods_of_the_node_that_take_hbone(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-b")
    early = {"protocol": "HBONE", "service_account": "robot"}
    native = {"native_tunnel": True}
    first = cluster.add_pod("first", "node-a", workload=early)
    proxy = cluster.deploy_ztunnel_sync("node-a")
    assert kept(proxy) == {"robot", "ztunnel-node-a"}
    second = cluster.add_pod("second", "node-a", workload={"service_account": "robot"})
    cluster.add_pod("native", "node-a", captured=False, workload=native)
    cluster.add_pod("plain", "node-a", captured=False)
    cluster.add_pod("far", "node-b")
    assert kept(proxy) == {"robot", "native", "ztunnel-node-a"}
    first.remove()
    assert kept(proxy) == {"robot", "native", "ztunnel-node-a"}
    second.remove()
    assert kept(proxy) == {"native", "ztunnel-node-a"}


def test_a_pod_that_becomes_somebody_else_has_that_certificate_and_not_the_other(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = (cluster.add_pod(name, "node-a") for name in ("server", "client"))
    server.start(double())
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    cluster.mesh.update(client, service_account="robot")
    assert kept(proxy) == {"server", "robot", "ztunnel-node-a"}
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    record = expect_record_sync(
        proxy.log, COMPLETE, {"direction": "inbound"}, where=lambda each: "robot" in str(each.fields)
    )
    assert record.fields["src.identity"] == str(account("robot"))


def test_certificates_that_are_on_their_way_do_not_outlive_the_proxy(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Semaphore(0)

    def never(authority: Authority, **options: Any) -> Fetch:
        async def fetch(identity: Identity) -> Certificate:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.release()
            raise AssertionError

        return fetch

    monkeypatch.setattr(Authority, "fetcher", never)
    proxy = cluster.deploy_ztunnel_sync("node-a")
    for name in ("a", "b", "c"):
        cluster.add_pod(name, "node-a")
    cluster.pod("a").remove()
    assert ended.acquire(timeout=20)
    proxy.shut_down(graceful=False)
    for _ in ("b", "c", "ztunnel-node-a"):
        assert ended.acquire(blocking=False)


def test_a_dedicated_proxy_keeps_the_certificate_of_its_pod_alone(cluster: Cluster) -> None:
    pod = cluster.add_pod("pod", "node-a")
    own = cluster.deploy_ztunnel_sync(pod, mode="dedicated")
    cluster.add_pod("other", "node-a", workload={"protocol": "HBONE"})
    assert kept(own) <= {"pod"}


def test_pods_of_which_no_trust_domain_and_account_is_told_speak_hbone(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    fields = {"service_account": "", "trust_domain": ""}
    server, client = (cluster.add_pod(name, "node-a", workload=fields) for name in ("server", "client"))
    server.start(double())
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    assert record.fields["src.identity"] == "spiffe:///ns/default/sa/"


def test_a_pod_is_who_the_node_agent_says_in_the_trust_domain_of_its_record(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    for pod in (server, client):
        record = replace(cluster.mesh.workload(pod), trust_domain="example.org", service_account="other")
        known_as(proxy, record)
    assert ended(client, server.ip, 8080)
    failed = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    assert failed.fields["src.identity"] == "spiffe://example.org/ns/default/sa/client"
    assert "got spiffe://example.org/ns/default/sa/server" in str(failed.fields["error"])
    known_as(proxy, replace(cluster.mesh.workload(server), trust_domain="example.org"))
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    let_in = expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"})
    assert let_in.fields["src.identity"] == "spiffe://example.org/ns/default/sa/client"


def known_as(proxy: NodeProxy, record: Workload) -> None:
    """Have the proxy alone know a pod as ``record``, and not the node agent."""
    proxy._tell(lambda state: state.add_workload(record), Config)


def test_a_pod_whose_service_account_changes_is_told_of_anew(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    for pod in (server, client):
        cluster.mesh.update(pod, service_account="robot")
    since = proxy.log.count
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "inbound"}, since=since)
    assert record.fields["src.identity"] == record.fields["dst.identity"] == str(account("robot"))
    assert cluster.mesh.carried(client)


def test_a_pod_that_cannot_be_told_of_anew_is_not_carried(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    pod = cluster.add_pod("pod", "node-a")

    def refused(*_: object, **__: object) -> None:
        raise MeshError("the proxy refuses")

    with monkeypatch.context() as patched:
        patched.setattr(NodeAgent, "add", refused)
        with pytest.raises(MeshError, match="the proxy refuses"):
            cluster.mesh.update(pod, service_account="robot")
    assert not cluster.mesh.carried(pod)
    pod.remove()
    assert cluster.mesh.carried(cluster.add_pod("pod", "node-a"))


def test_a_pod_with_a_proxy_of_its_own_is_who_its_record_says(cluster: Cluster) -> None:
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    proxies = {pod: cluster.deploy_ztunnel_sync(pod, mode="dedicated") for pod in (server, client)}
    server.start(double())
    for pod in proxies:
        cluster.mesh.update(pod, service_account="robot")
    talk(client, server.ip)
    record = expect_record_sync(proxies[client].log, COMPLETE, {"direction": "outbound"})
    assert record.fields["src.identity"] == record.fields["dst.identity"] == str(account("robot"))


def test_who_is_of_another_trust_domain_is_not_let_in(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    client = cluster.add_pod("client", "node-a", workload={"trust_domain": "example.org"})
    server.start(double())
    assert ended(client, server.ip, 8080)
    failed = expect_record_sync(proxy.log, FAILED, {"direction": "inbound"})
    assert "did not present the expected trustdomain (cluster.local)" in str(failed.fields["error"])


def test_who_does_not_answer_at_its_port_of_hbone_may_be_behind_a_policy(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a", connect_timeout=0.2)
    server = cluster.add_pod("server", "node-b", captured=False, workload={"protocol": "HBONE"})
    client = cluster.add_pod("client", "node-a")
    before = snapshot(proxy.metrics)
    with contextlib.ExitStack() as full:  # a queue that is full drops what comes
        listener = full.enter_context(server.socket())
        listener.bind((server.ip, 15008))
        listener.listen(0)
        for _ in range(3):
            waiting = full.enter_context(server.socket())
            waiting.setblocking(False)
            waiting.connect_ex((server.ip, 15008))
        assert ended(client, server.ip, 8080)
    record = expect_record_sync(proxy.log, COMPLETE, {"direction": "outbound"})
    text = "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008"
    assert text in str(record.fields["error"])
    expect_sync(before, CLOSED, {"reporter": "source", "response_flags": "NETWORK_POLICY"}, 1)
