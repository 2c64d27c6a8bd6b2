"""What one node proxy is configured with: ports, marks, windows, limits, deadlines; Istio's defaults.

Rules: frozen data, times in seconds, sizes in bytes; every default is that of Istio's ztunnel (`src/config.rs`).
Does not belong here: the mesh's workloads, services and policies (see `model`).
"""

import os
from dataclasses import dataclass, field
from typing import Literal

OUTBOUND_PORT = 15001
INBOUND_PLAINTEXT_PORT = 15006
INBOUND_HBONE_PORT = 15008
DNS_PORT = 15053
ADMIN_PORT = 15000
METRICS_PORT = 15020
READINESS_PORT = 15021

PACKET_MARK = 0x539
"""On every socket of the proxy in a pod: its own traffic is not redirected again."""
REPLY_MARK = 0x111
"""On connections that the proxy opened to the application: their replies go back to it."""
MARK_MASK = 0xFFF


@dataclass(frozen=True, slots=True)
class Http2Settings:
    """HTTP/2 (RFC 9113) as HBONE peers agree on it.

    A connection's window is four times a stream's: with equal ones an application that stops reading one
    stream stops all others of its connection.
    """

    stream_window: int = 4 << 20
    connection_window: int = 16 << 20
    frame_size: int = 1 << 20
    client_header_list: int = 16 << 10
    server_header_list: int = 64 << 10
    server_max_streams: int = 200
    ping_interval: float = 10.0
    ping_timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """One node proxy. ``mode`` is ``shared`` (one for all pods of its node) or ``dedicated`` (one for one pod).

    ``require_original_source``: whether connections to the application must come from the client's address:
    True refuses to start without, None tries, False does not try.

    ``crl_path``: a file of revocation lists (RFC 5280, section 5; ztunnel's CRL_PATH), PEM or DER, which is followed:
    whose certificate is on one gets no tunnel, and loses those that there are, ``crl_debounce`` seconds after the
    file has last changed. None: nothing is revoked.

    ``tls12``: peers may also speak TLS 1.2 (TLS12_ENABLED). ``port_reuse``: another proxy may listen on the same ports,
    as in a hot upgrade (SO_REUSEPORT; INPOD_PORT_REUSE). ``search`` is the search list by which the DNS proxy stretches
    names, None for the one that Kubernetes gives the pod; ``preferred_namespace``: whose services it takes where a
    hostname is of several (PREFERED_SERVICE_NAMESPACE).
    """

    node: str = ""
    cluster_id: str = "Kubernetes"
    cluster_domain: str = "cluster.local"
    trust_domain: str = "cluster.local"
    network: str = ""
    mode: Literal["shared", "dedicated"] = "shared"
    packet_mark: int | None = PACKET_MARK
    require_original_source: bool | None = True
    dns_proxy: bool = True
    localhost_app_tunnel: bool = True
    response_baggage: bool = True
    ipv6: bool = True
    http2: Http2Settings = field(default_factory=Http2Settings)
    pool_max_streams: int = 100
    pool_idle: float = 300.0
    drain_deadline: float = 5.0
    connect_timeout: float = 10.0
    workload_wait: float = 5.0
    certificate_lifetime: float = 86400.0
    crl_path: str | os.PathLike[str] | None = None
    crl_debounce: float = 2.0
    tls12: bool = False
    port_reuse: bool = True
    search: tuple[str, ...] | None = None
    preferred_namespace: str = ""
    log_format: Literal["plain", "json"] = "plain"

    @property
    def illegal_ports(self) -> frozenset[int]:
        """Ports of the proxy's own in each pod: a connection to them by way of the proxy is a call to itself."""
        return frozenset({OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, INBOUND_HBONE_PORT})
