"""Services as data: what one is called, has and selects, and who is behind it; Kubernetes' Service and Endpoints.

Rules: frozen; a service is a spec and its endpoints are derived from the pods, never kept beside them.
Does not belong here: which address a service gets (see `model`), rules that carry its traffic, names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from netwarren.topology.addresses import Address, Family, family_of
from netwarren.topology.specs import PodSpec

Protocol: TypeAlias = Literal["tcp", "udp"]
TrafficPolicy: TypeAlias = Literal["cluster", "local"]


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a service: ``port`` is what clients ask for, ``target`` where the pods listen.

    ``name`` is what SRV records call it, ``""`` where it has none; ``node_port`` is what every node answers
    on, None where it does not.
    """

    port: int
    target: int
    protocol: Protocol = "tcp"
    name: str = ""
    node_port: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service; ``cluster_ips`` is one address a family, in the cluster's order, and empty if it is headless.

    Its pods are those in its namespace that have all labels of ``selector``, or, without one, those that
    ``pods`` names. ``affinity`` is for how many seconds a client's address stays with one endpoint, 0 for no
    such thing. With the traffic policy ``local``, a node sends only to endpoints on itself:
    ``internal_policy`` for the cluster IPs, ``external_policy`` for node ports.
    """

    name: str
    namespace: str
    ports: tuple[ServicePort, ...]
    cluster_ips: tuple[Address, ...] = ()
    selector: Mapping[str, str] | None = field(default=None, hash=False)
    pods: tuple[str, ...] = ()
    affinity: int = 0
    internal_policy: TrafficPolicy = "cluster"
    external_policy: TrafficPolicy = "cluster"

    @property
    def headless(self) -> bool:
        return not self.cluster_ips

    def cluster_ip(self, family: Family) -> Address | None:
        """Its address in ``family``, if it has one."""
        return next((each for each in self.cluster_ips if family_of(each) == family), None)

    def selects(self, pod: PodSpec) -> bool:
        """Whether ``pod`` is one of its pods."""
        if self.selector is None:
            return pod.name in self.pods
        return pod.namespace == self.namespace and self.selector.items() <= pod.labels.items()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod behind a service; only those that are ``ready`` get new connections."""

    pod: str
    node: str
    addresses: tuple[Address, ...]
    ready: bool = True

    def address_in(self, family: Family) -> Address | None:
        """Its address in ``family``, if it has one."""
        return next((each for each in self.addresses if family_of(each) == family), None)


def endpoints_of(
    service: ServiceSpec, pods: Iterable[PodSpec], unready: Iterable[str] = ()
) -> tuple[Endpoint, ...]:
    """The endpoints of ``service`` among ``pods``, in their order; ``unready`` names pods that are not ready."""
    waiting = frozenset(unready)
    return tuple(
        Endpoint(
            pod.name, pod.node, tuple(interface.ip for interface in pod.interfaces), pod.name not in waiting
        )
        for pod in pods
        if service.selects(pod)
    )
