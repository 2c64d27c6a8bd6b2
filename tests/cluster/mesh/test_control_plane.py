"""A control plane of the test's own, in a pod, where ztunnel looks for istiod; our proxy as a program follows it."""

import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netwarren import Cluster
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.mesh.control.server import ControlPlane
from netwarren.mesh.model import Match, Policy
from netwarren.mesh.state.local_config import Config
from tests.cluster.mesh.conftest import double, ended, talk
from tests.cluster.mesh.test_pages import get

NAME = "istiod.istio-system.svc"


@pytest.fixture
def plane(cluster: Cluster) -> Iterator[ControlPlane]:
    pod = cluster.add_pod("istiod", "node-b", namespace="istio-system")
    cluster.add_service("istiod", pods=[pod], ports={15012: 15012}, namespace="istio-system")
    served = ControlPlane(cluster.mesh.authority, pod.run(lambda: socket.create_server(("", 15012))))
    served.start()
    yield served
    served.close()


@pytest.fixture
def proxy(cluster: Cluster, plane: ControlPlane, tmp_path: Path) -> NodeProxy:
    """It asks by name, for what it knows and for certificates; of the test's cluster it is told the pods to carry only."""
    roots = tmp_path / "roots.pem"
    roots.write_bytes(cluster.mesh.authority.roots_pem)
    address = f"https://{NAME}:15012"
    said = {
        "XDS_ADDRESS": address,
        "CA_ADDRESS": address,
        "XDS_ROOT_CA": str(roots),
        "CA_ROOT_CA": str(roots),
    }
    words = [f"{name}={value}" for name, value in said.items()]
    binary = ["env", *words, sys.executable, "-m", "netwarren.mesh"]
    return cluster.deploy_ztunnel_sync("node-a", binary=binary, ready_timeout=60.0)


def test_it_knows_what_that_one_tells_and_nothing_else(
    cluster: Cluster, plane: ControlPlane, proxy: NodeProxy
) -> None:
    def known() -> list[str]:
        _, _, body = get("http://127.0.0.1:15000/config_dump")
        return [each["name"] for each in json.loads(body)["workloads"]]

    web = cluster.add_pod("web", "node-a")
    assert proxy.pod.run(known) == []
    plane.change(Config((cluster.mesh.workload(web),)), 20.0)
    assert proxy.pod.run(known) == ["web"]


def test_its_pods_are_carried_as_that_one_says(
    cluster: Cluster, plane: ControlPlane, proxy: NodeProxy
) -> None:
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    for port in (8080, 8081):  # each serves one connection at a time
        server.start(double(port))
    workloads = (cluster.mesh.workload(server), cluster.mesh.workload(client))
    plane.change(Config(workloads), 20.0)
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    assert proxy.program is not None
    proxy.program.wait_for_output(
        r'complete.*dst.identity="spiffe://cluster.local/ns/default/sa/server"', 20.0
    )
    rules = (((Match(destination_ports=(8080, 8081)),),),)
    closed = Policy("closed", "default", "Namespace", "Deny", rules=rules)
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        plane.change(Config(workloads, (replace(closed, dry_run=True),)), 20.0)
        connection.sendall(b"x")
        assert connection.recv(2, socket.MSG_WAITALL) == b"xx"
        assert talk(client, server.ip, 8081) == (client.ip, b"hellohello")
        proxy.program.wait_for_output("dry-run: deny policy match.*default/closed", 20.0)
        plane.change(Config(workloads, (closed,)), 20.0)
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass
    assert ended(client, server.ip, 8081)
