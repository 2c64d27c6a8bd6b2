"""All metrics of the node proxy: names, labels and meanings as Istio's ztunnel has them.

Rules: whatever is not promised to stay has "unstable" in its HELP; nothing is counted here.
Does not belong here: the labels' values (see `labels`), text (see `registry`).
"""

import os
import resource

from netwarren import __version__
from netwarren.mesh.telemetry.labels import DNS_LABELS, ON_DEMAND_DNS_LABELS, TCP_LABELS
from netwarren.mesh.telemetry.registry import Registry

DNS_BUCKETS = (0.0005, 0.001, 0.01, 0.1, 1.0, 5.0)
"""Seconds."""


class Metrics:
    """The metrics of one proxy; each attribute is a `registry.Family`.

    There is no ``tokio_*``, which ztunnel has: those count what its Rust runtime does.
    """

    def __init__(self) -> None:
        self.registry = registry = Registry()
        self.changes = registry.changes
        build = registry.gauge("istio_build", "The version of this component", ("component", "tag"))
        build.labels(("ztunnel", __version__)).set(1)

        self.connections_opened = registry.counter(
            "istio_tcp_connections_opened", "TCP connections opened", TCP_LABELS
        )
        self.connections_closed = registry.counter(
            "istio_tcp_connections_closed", "TCP connections closed", TCP_LABELS
        )
        self.received_bytes = registry.counter(
            "istio_tcp_received_bytes", "Bytes from client to server", TCP_LABELS
        )
        self.sent_bytes = registry.counter("istio_tcp_sent_bytes", "Bytes from server to client", TCP_LABELS)
        registry.measured("process_open_fds", "File descriptors that this process has open", _open_fds)
        registry.measured("process_max_fds", "File descriptors that this process may have open", _max_fds)

        self.connections_failed = registry.counter(
            "istio_tcp_connections_failed", "TCP connections that failed (unstable)", TCP_LABELS
        )
        self.sockets_open = registry.gauge(
            "istio_tcp_sockets_open", "Sockets of connections open now (unstable)", ("reporter",)
        )
        self.on_demand_dns = registry.counter(
            "istio_on_demand_dns",
            "Connections for which a workload's hostname was resolved (unstable)",
            ON_DEMAND_DNS_LABELS,
        )
        self.crl_policy_rejections = registry.counter(
            "istio_crl_policy_rejections",
            "Connections rejected or ended for a revoked certificate (unstable)",
            ("reporter",),
        )
        self.crl_untracked_connections = registry.counter(
            "istio_crl_untracked_connections",
            "Connections that a later revocation could not end (unstable)",
        )
        self.dns_requests = registry.counter("istio_dns_requests", "DNS requests (unstable)", DNS_LABELS)
        self.dns_upstream_requests = registry.counter(
            "istio_dns_upstream_requests", "DNS requests passed on (unstable)", DNS_LABELS
        )
        self.dns_upstream_failures = registry.counter(
            "istio_dns_upstream_failures", "DNS requests that could not be passed on (unstable)", DNS_LABELS
        )
        self.dns_upstream_seconds = registry.histogram(
            "istio_dns_upstream_request_duration_seconds",
            "Seconds until DNS requests passed on were answered (unstable)",
            DNS_BUCKETS,
            DNS_LABELS,
            unit="seconds",
        )
        self.xds_terminations = registry.counter(
            "istio_xds_connection_terminations", "xDS connections that ended (unstable)", ("reason",)
        )
        self.xds_messages = registry.counter(
            "istio_xds_message", "xDS messages received (unstable)", ("url",)
        )
        self.xds_message_bytes = registry.counter(
            "istio_xds_message_bytes", "Bytes of xDS messages received (unstable)", ("url",)
        )
        self.proxies_active = registry.gauge(
            "workload_manager_active_proxy_count", "Pods carried now (unstable)"
        )
        self.proxies_pending = registry.gauge(
            "workload_manager_pending_proxy_count", "Pods that could not be carried yet (unstable)"
        )
        self.proxies_started = registry.counter(
            "workload_manager_proxies_started", "Pods taken up (unstable)"
        )
        self.proxies_stopped = registry.counter("workload_manager_proxies_stopped", "Pods let go (unstable)")

    def encode(self) -> str:
        """The text of ``/metrics``."""
        return self.registry.encode()


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # without that of the listing


def _max_fds() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
