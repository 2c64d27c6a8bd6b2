"""Two workloads and what passes between them, for the tests here."""

from dataclasses import replace
from ipaddress import ip_address

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from netwarren.mesh.model import Locality, NetworkAddress, Service, SocketAddress, Workload
from netwarren.mesh.telemetry.connection import Opened
from netwarren.mesh.telemetry.labels import Peer


def parsed(text: str) -> dict[str, Metric]:
    """OpenMetrics text as the reference parser reads it: families by name; raises ValueError where it is none."""
    return {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]


CLIENT = Workload(
    "cluster1//v1/Pod/default/client-1",
    "client-1",
    "default",
    service_account="client",
    workload_name="client",
    canonical_name="client",
    canonical_revision="v1",
    locality=Locality("r1", "z1"),
)
SERVER = Workload(
    "cluster1//v1/Pod/shop/server-1",
    "server-1",
    "shop",
    service_account="server",
    workload_name="server",
    canonical_name="server",
    canonical_revision="v2",
)
SERVICE = Service(
    "server",
    "shop",
    "server.shop.svc.cluster.local",
    vips=(NetworkAddress("", ip_address("10.96.0.1")),),
    ports={80: 8080},
)

CLIENT_ADDRESS = SocketAddress(ip_address("10.0.2.3"), 41000)
SERVER_ADDRESS = SocketAddress(ip_address("10.0.3.4"), 15008)

OUTBOUND = Opened(
    "source",
    CLIENT_ADDRESS,
    SERVER_ADDRESS,
    Peer.of(CLIENT),
    Peer.of(SERVER),
    SERVICE,
    CLIENT.identity,
    "mutual_tls",
    "10.0.3.4:8080",
)
INBOUND = replace(OUTBOUND, reporter="destination")
PASSED_THROUGH = Opened("source", CLIENT_ADDRESS, SERVER_ADDRESS, Peer.of(CLIENT))
