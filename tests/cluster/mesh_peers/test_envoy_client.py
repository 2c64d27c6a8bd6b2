"""Envoy as the client of HBONE: what it asks our node proxy for, with whose certificate, and what it gets."""

import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.model import Match, Policy, StringMatch
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh_peers import envoys
from tests.cluster.mesh_peers.conftest import Mesh, identity, talk

COMPLETE = "connection complete"
FAILED = "connection failed"
US = "spiffe://cluster.local/ns/default/sa/{}"


def through(mesh: Mesh, data: bytes) -> bytes:
    """What comes back of ``data`` by way of Envoy, beside which the client is; ``b""`` where it is refused."""
    return talk(mesh.stranger, "127.0.0.1", data, envoys.LOCAL)


def test_envoy_is_served_and_known_by_its_certificate(mesh: Mesh) -> None:
    authority = f"{mesh.server.ip}:8080"
    envoys.start_client(
        mesh.stranger, str(mesh.server.ip), authority, mesh.certificate("gateway"), identity("server")
    )
    assert through(mesh, b"hello") == b"hello"
    record = expect_record_sync(mesh.proxy.log, COMPLETE, {"direction": "inbound"})
    assert record.fields["src.identity"] == US.format("gateway")
    assert record.fields["dst.identity"] == US.format("server")
    assert record.fields["dst.hbone_addr"] == authority
    assert "error" not in record.fields

    data = hashlib.shake_128(b"much").digest(8 << 20)
    with ThreadPoolExecutor(1) as pool:  # beside others, on the same connection of Envoy's
        much = pool.submit(_both_ways, mesh, data)
        for number in range(50):
            assert through(mesh, f"{number}".encode()) == f"{number}".encode()
        assert much.result(60) == data
    mesh.assert_it_lives()


def _both_ways(mesh: Mesh, data: bytes) -> bytes:
    with mesh.stranger, socket.create_connection(("127.0.0.1", envoys.LOCAL), timeout=60) as connection:
        answer = bytearray()
        for start in range(0, len(data), 1 << 16):
            piece = data[start : start + (1 << 16)]
            connection.sendall(piece)
            wanted = len(answer) + len(piece)
            while len(answer) < wanted:
                answer += connection.recv(1 << 20)
        return bytes(answer)


def test_policies_see_envoys_identity(mesh: Mesh) -> None:
    match = Match(principals=(StringMatch("Exact", "cluster.local/ns/default/sa/gateway"),))
    mesh.cluster.mesh.add_policy(Policy("gateway", "default", "Namespace", "Allow", rules=(((match,),),)))
    other = mesh.cluster.add_pod("other", "node-b", captured=False)
    authority = f"{mesh.server.ip}:8080"
    for pod, account, answer in ((mesh.stranger, "gateway", b"hello"), (other, "other", b"")):
        envoys.start_client(
            pod, str(mesh.server.ip), authority, mesh.certificate(account), identity("server")
        )
        with pod:
            assert through(Mesh(mesh.cluster, mesh.proxy, mesh.server, pod), b"hello") == answer
    denied = expect_record_sync(mesh.proxy.log, COMPLETE, {"src.identity": US.format("other")})
    assert "none allowed" in str(denied.fields["error"])


def test_envoy_refuses_a_server_that_is_another_than_it_expects(mesh: Mesh) -> None:
    envoys.start_client(
        mesh.stranger,
        str(mesh.server.ip),
        f"{mesh.server.ip}:8080",
        mesh.certificate(),
        identity("somebody-else"),
    )
    assert through(mesh, b"hello") == b""
    failed = expect_record_sync(mesh.proxy.log, FAILED, {"direction": "inbound"})
    assert "alert" in str(failed.fields["error"])
    mesh.assert_it_lives()


@pytest.mark.parametrize("trusts_us", [True, False], ids=["its certificate is wrong", "ours is to it"])
def test_roots_that_differ_refuse_each_other(mesh: Mesh, trusts_us: bool) -> None:
    foreign = Authority().issue(identity("stranger"))
    certificate, roots = (
        (foreign, mesh.authority.roots_pem) if trusts_us else (mesh.certificate(), foreign.roots_pem)
    )
    envoys.start_client(
        mesh.stranger,
        str(mesh.server.ip),
        f"{mesh.server.ip}:8080",
        certificate,
        identity("server"),
        roots,
    )
    assert through(mesh, b"hello") == b""
    failed = expect_record_sync(mesh.proxy.log, FAILED, {"direction": "inbound"})
    assert ("unable to get local issuer certificate" if trusts_us else "alert") in str(failed.fields["error"])
    assert all(record.message != COMPLETE for record in mesh.proxy.log.records())
    mesh.assert_it_lives()
