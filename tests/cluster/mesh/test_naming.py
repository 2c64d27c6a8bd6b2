"""What names mean to captured pods."""

import socket
import sys

import pytest

from netwarren import Cluster
from netwarren.mesh.telemetry.expect import expect_sync, snapshot

ASK = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"


@pytest.mark.parametrize("name", ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"])
def test_a_service_goes_by_each_of_its_names(cluster: Cluster, name: str) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    assert client.run(socket.gethostbyname, name) == service.ip
    assert client.check_output([sys.executable, "-c", ASK, name]).strip() == service.ip


def test_a_pod_goes_by_its_name(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a")
    client, server = cluster.add_pod("client", "node-a"), cluster.add_pod("server", "node-b")
    assert client.run(socket.gethostbyname, "server") == server.ip
    assert client.check_output([sys.executable, "-c", ASK, "server"]).strip() == server.ip


def test_questions_of_programs_are_counted(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    before = snapshot(proxy.metrics)
    client.check_output([sys.executable, "-c", ASK, "web.default.svc.cluster.local."])
    labels = {"source_canonical_service": "client", "request_protocol": "udp"}
    expect_sync(before, "istio_dns_requests_total", labels, 1)
    assert before.delta("istio_dns_upstream_requests_total", labels) == 0


def test_a_name_of_nobody_is_asked_for_upstream_and_is_nobody(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    before = snapshot(proxy.metrics)
    code = "import socket, sys\ntry: socket.gethostbyname(sys.argv[1])\nexcept socket.gaierror as e: print(e.errno)"
    said = client.check_output([sys.executable, "-c", code, "nobody.default.svc.cluster.local."])
    assert said.strip() == str(socket.EAI_NONAME)
    expect_sync(before, "istio_dns_upstream_requests_total", {"source_canonical_service": "client"}, 1)


def test_without_a_dns_proxy_names_are_the_clusters(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a", dns_proxy=False)
    client = cluster.add_pod("client", "node-a")
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    before = snapshot(proxy.metrics)
    assert client.check_output([sys.executable, "-c", ASK, "web"]).strip() == service.ip
    assert before.delta("istio_dns_requests_total", {}) == 0
