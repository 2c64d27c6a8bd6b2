"""The labels of TCP metrics: who talks to whom, by which service, how protected.

Rules: values stand in the order of `TCP_LABELS`; what is missing is ``unknown``; the source's principal is only ever
one that mutual TLS has proved.
Does not belong here: counting (see `connection`), how labels are written (see `registry`).
"""

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from netwarren.mesh.model import Identity, Service, Workload

Reporter: TypeAlias = Literal["source", "destination"]
SecurityPolicy: TypeAlias = Literal["mutual_tls", "unknown"]

UNKNOWN = "unknown"

TCP_LABELS = (
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
)

DNS_LABELS = (
    "request_query_type",
    "request_protocol",
    "source_canonical_service",
    "source_canonical_revision",
)

ON_DEMAND_DNS_LABELS = (*TCP_LABELS[1:9], "hostname")

_FLAG = TCP_LABELS.index("response_flags")

TcpLabels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a connection as metrics and logs name it; ``""`` where something is not known.

    ``workload`` is that of its Deployment or the like, ``pod`` the pod's own name. Of a workload (`of`), or put
    together from what a peer told of itself in ``baggage``, where the workload itself is not known here.
    """

    workload: str = ""
    pod: str = ""
    canonical_service: str = ""
    canonical_revision: str = ""
    namespace: str = ""
    cluster: str = ""
    region: str = ""
    zone: str = ""
    identity: Identity | None = None

    @classmethod
    def of(cls, workload: Workload) -> Self:
        return cls(
            workload.workload_name,
            workload.name,
            workload.canonical_name,
            workload.canonical_revision,
            workload.namespace,
            workload.cluster_id,
            workload.locality.region,
            workload.locality.zone,
            workload.identity,
        )


def tcp_labels(
    reporter: Reporter,
    source: Peer | None,
    destination: Peer | None,
    service: Service | None,
    source_identity: Identity | None,
    security: SecurityPolicy,
) -> TcpLabels:
    """The values of `TCP_LABELS` of a connection that is open.

    ``source_identity`` is the one that mutual TLS proved. The four labels of regions and zones are there once either
    end is known.
    """
    known = UNKNOWN if source is not None or destination is not None else ""
    source, destination = source or Peer(), destination or Peer()
    return (
        reporter,
        *_end(source, source_identity),
        (service.hostname if service else "") or UNKNOWN,
        (service.namespace if service else "") or UNKNOWN,
        (service.name if service else "") or UNKNOWN,
        *_end(destination, destination.identity),
        "tcp",
        "-",
        security,
        source.region or known,
        source.zone or known,
        destination.region or known,
        destination.zone or known,
    )


def with_flag(labels: TcpLabels, flag: str) -> TcpLabels:
    """``labels`` of a connection that has ended with a response flag."""
    return (*labels[:_FLAG], flag, *labels[_FLAG + 1 :])


def on_demand_dns_labels(source: Workload, hostname: str) -> tuple[str, ...]:
    """The values of `ON_DEMAND_DNS_LABELS`: ``source`` had ``hostname``, of a workload without an address, resolved."""
    return (*_end(Peer.of(source), source.identity), hostname or UNKNOWN)


def dns_labels(query_type: str, protocol: Literal["udp", "tcp"], source: Workload | None) -> tuple[str, ...]:
    """The values of `DNS_LABELS`; ``query_type`` as in ``AAAA``."""
    service, revision = (source.canonical_name, source.canonical_revision) if source else ("", "")
    return (query_type.lower(), protocol, service or UNKNOWN, revision or UNKNOWN)


def _end(peer: Peer, identity: Identity | None) -> tuple[str, ...]:
    service, revision = peer.canonical_service or UNKNOWN, peer.canonical_revision or UNKNOWN
    return (
        peer.workload or UNKNOWN,
        service,
        revision,
        peer.namespace or UNKNOWN,
        UNKNOWN if identity is None else str(identity),
        service,
        revision,
        peer.cluster or UNKNOWN,
    )
