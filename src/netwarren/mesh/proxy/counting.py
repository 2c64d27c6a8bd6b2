"""The DNS proxy's counts, in the proxy's metrics.

Rules: one method an event, as `dns.resolver.DnsMetrics` has them.
Does not belong here: names and labels of metrics (see `telemetry`).
"""

from typing import Literal

from netwarren.mesh.model import Workload
from netwarren.mesh.telemetry.labels import dns_labels
from netwarren.mesh.telemetry.metrics import Metrics

Transport = Literal["udp", "tcp"]


class DnsCounts:
    """Counts what the DNS proxy of a pod does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def on_request(self, query_type: str, protocol: Transport, source: Workload | None) -> None:
        self._metrics.dns_requests.labels(dns_labels(query_type, protocol, source)).add()

    def on_upstream_request(self, query_type: str, protocol: Transport, source: Workload | None) -> None:
        self._metrics.dns_upstream_requests.labels(dns_labels(query_type, protocol, source)).add()

    def on_upstream_failure(self, query_type: str, protocol: Transport, source: Workload | None) -> None:
        self._metrics.dns_upstream_failures.labels(dns_labels(query_type, protocol, source)).add()

    def on_upstream_duration(
        self, query_type: str, protocol: Transport, source: Workload | None, seconds: float
    ) -> None:
        self._metrics.dns_upstream_seconds.labels(dns_labels(query_type, protocol, source)).observe(seconds)
