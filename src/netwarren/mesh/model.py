"""What the node proxy knows of a mesh, as data: identities, workloads, services, gateways, policies.

Rules: frozen; the words and defaults are those of Istio's ambient API (``workload.proto`` and
``authorization.proto`` of istio/istio); nothing here looks anything up.
Does not belong here: reading these from a file (`state.local_config`), finding and deciding (`state`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self, TypeAlias

from netwarren.errors import MeshError
from netwarren.topology.addresses import Address, Network

WorkloadProtocol: TypeAlias = Literal["TCP", "HBONE"]
NetworkMode: TypeAlias = Literal["Standard", "HostNetwork"]
WorkloadType: TypeAlias = Literal["deployment", "cronjob", "pod", "job"]
Health: TypeAlias = Literal["Healthy", "Unhealthy"]
RoutingPreference: TypeAlias = Literal["Region", "Zone", "Subzone", "Node", "Cluster", "Network"]
BalancerMode: TypeAlias = Literal["Standard", "Strict", "Failover", "Passthrough"]
HealthPolicy: TypeAlias = Literal["OnlyHealthy", "AllowAll"]
IpFamilies: TypeAlias = Literal["Dual", "IPv4", "IPv6"]
Visibility: TypeAlias = Literal["Public", "Namespace"]
PolicyScope: TypeAlias = Literal["Global", "Namespace", "WorkloadSelector"]
PolicyAction: TypeAlias = Literal["Allow", "Deny"]


class SocketAddress(NamedTuple):
    """An IP address and a port; ``str()`` gives ``10.0.2.3:80`` or ``[fd00::3]:80``, as authorities write it."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class NetworkAddress(NamedTuple):
    """An IP address in a network of the mesh; ``str()`` gives ``network/10.0.2.3`` as Istio's keys are written."""

    network: str
    address: Address

    def __str__(self) -> str:
        return f"{self.network}/{self.address}"


class NamespacedName(NamedTuple):
    """A name in a namespace: of a service (its hostname), of a policy; ``str()`` gives ``namespace/name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """A SPIFFE identity, ``spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}`` (SPIFFE-ID, section 2).

    A part is ``""`` where a local configuration does not say it; defaults are discovery's.
    """

    trust_domain: str
    namespace: str
    service_account: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """The identity that ``uri`` spells; raises `MeshError` if it has other than these five segments."""
        scheme, _, rest = uri.partition("://")
        match rest.split("/"):
            case [domain, "ns", namespace, "sa", account] if scheme == "spiffe":
                return cls(domain, namespace, account)
        raise MeshError(
            f"{uri!r} is no identity; one is written spiffe://trust.domain/ns/NAMESPACE/sa/ACCOUNT"
        )

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


@dataclass(frozen=True, slots=True)
class Locality:
    """Where a workload runs; ``""`` where that is not known."""

    region: str = ""
    zone: str = ""
    subzone: str = ""


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where a waypoint or a network gateway is: an address, or a service's or workload's hostname in a namespace."""

    destination: NetworkAddress | NamespacedName
    hbone_port: int = 15008


@dataclass(frozen=True, slots=True)
class WeightedWaypoint:
    """A waypoint that gets ``weight`` parts of a service's connections."""

    waypoint: GatewayAddress
    weight: int


@dataclass(frozen=True, slots=True)
class ApplicationTunnel:
    """How the proxy hands an inbound connection to a workload that does its own proxying.

    ``PROXY`` writes a PROXY protocol v2 header first; ``port`` replaces the port asked for, None keeps it.
    """

    protocol: Literal["NONE", "PROXY"] = "NONE"
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod (or another addressable thing) of the mesh.

    ``services`` maps the services it is an endpoint of to ``{service port: target port}``.
    ``authorization_policies`` names policies of scope WorkloadSelector that select it.
    """

    uid: str
    name: str
    namespace: str
    addresses: tuple[Address, ...] = ()
    service_account: str = "default"
    trust_domain: str = "cluster.local"
    network: str = ""
    node: str = ""
    protocol: WorkloadProtocol = "TCP"
    network_mode: NetworkMode = "Standard"
    native_tunnel: bool = False
    hostname: str = ""
    workload_name: str = ""
    workload_type: WorkloadType = "pod"
    canonical_name: str = ""
    canonical_revision: str = ""
    cluster_id: str = "Kubernetes"
    locality: Locality = Locality()
    status: Health = "Healthy"
    capacity: int = 1
    waypoint: GatewayAddress | None = None
    network_gateway: GatewayAddress | None = None
    application_tunnel: ApplicationTunnel | None = None
    authorization_policies: tuple[NamespacedName, ...] = ()
    services: Mapping[NamespacedName, Mapping[int, int]] = field(default_factory=dict, hash=False)

    @property
    def identity(self) -> Identity:
        return Identity(self.trust_domain, self.namespace, self.service_account)


@dataclass(frozen=True, slots=True)
class CidrAddress:
    """A range of virtual addresses in a network of the mesh."""

    network: str
    cidr: Network


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """Which endpoints of a service are preferred, and which may be used at all."""

    routing_preferences: tuple[RoutingPreference, ...] = ()
    mode: BalancerMode = "Standard"
    health_policy: HealthPolicy = "OnlyHealthy"


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the mesh; ``ports`` is ``{service port: target port}``, a target of 0 is a named port.

    Which workloads are its endpoints is told by their ``services``; ``unhealthy`` are the uids of those that it holds for
    unhealthy, whatever their workloads say.
    """

    name: str
    namespace: str
    hostname: str
    vips: tuple[NetworkAddress, ...] = ()
    cidr_vips: tuple[CidrAddress, ...] = ()
    ports: Mapping[int, int] = field(default_factory=dict, hash=False)
    subject_alt_names: tuple[str, ...] = ()
    waypoint: GatewayAddress | None = None
    weighted_waypoints: tuple[WeightedWaypoint, ...] = ()
    load_balancer: LoadBalancer | None = None
    ip_families: IpFamilies | None = None
    canonical: bool = False
    visibility: Visibility = "Public"
    unhealthy: frozenset[str] = frozenset()

    @property
    def key(self) -> NamespacedName:
        return NamespacedName(self.namespace, self.hostname)

    @property
    def takes_all(self) -> bool:
        """Whether endpoints may be used that are not healthy."""
        return self.load_balancer is not None and self.load_balancer.health_policy == "AllowAll"

    def health_of(self, endpoint: Workload) -> Health:
        """An endpoint is healthy if both the service and its workload hold it for that."""
        return "Unhealthy" if endpoint.uid in self.unhealthy else endpoint.status


@dataclass(frozen=True, slots=True)
class StringMatch:
    """One pattern for a string; ``value`` is ``""`` for Presence, which matches whatever is not empty."""

    kind: Literal["Exact", "Prefix", "Suffix", "Presence"]
    value: str = ""


@dataclass(frozen=True, slots=True)
class ServiceAccountMatch:
    """A service account in a namespace; both are compared to the letter, and ``""`` is no wildcard."""

    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Match:
    """What a connection must be like: fields are and-ed, a field's values or-ed, ``not_`` fields must not match."""

    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()
    not_principals: tuple[StringMatch, ...] = ()
    source_ips: tuple[Network, ...] = ()
    not_source_ips: tuple[Network, ...] = ()
    destination_ips: tuple[Network, ...] = ()
    not_destination_ips: tuple[Network, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """An authorization policy: rules are or-ed, a rule's clauses and-ed, a clause's matches or-ed."""

    name: str
    namespace: str
    scope: PolicyScope
    action: PolicyAction
    rules: tuple[tuple[tuple[Match, ...], ...], ...] = ()
    dry_run: bool = False

    @property
    def key(self) -> NamespacedName:
        return NamespacedName(self.namespace, self.name)
