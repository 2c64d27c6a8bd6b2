"""Our proxy as a program follows a revocation list as the one in this process does."""

import sys
from pathlib import Path

from netwarren import Cluster
from tests.cluster.mesh.conftest import ended
from tests.cluster.mesh_peers.conftest import echo, talk


def test_a_program_keeps_out_whom_its_list_names(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    cluster.deploy_ztunnel_sync("node-b")
    client = cluster.add_pod("client", "node-b")
    cluster.add_pod("first", "node-b").start(echo)
    assert talk(client, cluster.resolve("first"), b"hello") == b"hello"  # now it has its certificate
    path.write_bytes(cluster.mesh.authority.revoke(cluster.mesh.workload(client).identity))
    command = [sys.executable, "-m", "netwarren.mesh"]
    proxy = cluster.deploy_ztunnel_sync("node-a", binary=command, ready_timeout=60, crl_path=path)
    server = cluster.add_pod("server", "node-a")
    server.start(echo)
    assert ended(client, server.ip, 8080)
    assert proxy.program is not None
    proxy.program.wait_for_output("peer certificate revoked by CRL")
    friend = cluster.add_pod("friend", "node-b")
    assert talk(friend, server.ip, b"hello") == b"hello"
