"""The services of one cluster: decided, wired in every node, and kept after the pods as these come and go.

Rules: made with a cluster's first service, so that others pay nothing; each method is called under the
cluster's lock; the model decides first and is put back if the kernel refuses.
Does not belong here: decisions (see `netwarren.topology`), requests to the kernel (see `service_wiring`).
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from netwarren.cluster.members import Node, Pod
from netwarren.cluster.service import Service
from netwarren.cluster.service_wiring import ServiceWiring, Wanted
from netwarren.errors import AddressError
from netwarren.runtime import ferry
from netwarren.sandbox import resolver
from netwarren.topology.addresses import Address, Family, FamilyArgument, NetworksArgument, parse_family
from netwarren.topology.ranges import Ranges
from netwarren.topology.service_model import ServiceKey, ServiceModel
from netwarren.topology.services import Endpoint, ServiceSpec, endpoints_of
from netwarren.topology.specs import DEFAULT_NAMESPACE, PodSpec

if TYPE_CHECKING:
    from netwarren.cluster.cluster import Cluster


class Services:
    """The services of ``cluster``, whose ranges are ``ranges`` and ``service_range``."""

    def __init__(
        self, cluster: "Cluster", ranges: Sequence[Ranges], service_range: NetworksArgument = None
    ) -> None:
        self.cluster = cluster
        # In a container of Kubernetes it is a service's there, and in our default range: 10.96.0.10.
        name_servers = resolver.host_servers()
        others = dict.fromkeys(name_servers, "the address of the host's name server")
        self._model = ServiceModel(ranges, service_range, others)
        self._wiring = ServiceWiring(self._model.ranges, name_servers)
        self._handles: dict[ServiceKey, Service] = {}

    @property
    def handles(self) -> dict[str, Service]:
        """The services by what `resolve` takes for them, oldest first."""
        return {_title(*key): service for key, service in self._handles.items()}

    def get(self, name: str, namespace: str) -> Service:
        """The service called so; raises `UnknownName`, which lists those there are."""
        spec = self._model.service(name, namespace)
        return self._handles[spec.namespace, spec.name]

    def add(self, name: str, **options: Any) -> Service:
        """`Cluster.add_service`, with names for pods."""
        spec = self._model.add(name, **options)
        key = (spec.namespace, spec.name)
        try:
            self._follow([spec], self.cluster.built_nodes.values())
            service = self._handles[key] = Service(self, spec)
        except BaseException:
            self._model.remove(spec.name, spec.namespace)
            raise
        return service

    def remove(self, service: Service) -> None:
        """`Cluster.remove_service`, of one that is there."""
        key = (service.namespace, service.name)
        if not service.spec.headless:
            nodes = list(self.cluster.built_nodes.values())
            ferry.roam(partial(self._wiring.update, nodes, {key: None}))
        del self._handles[key]
        self._model.remove(service.name, service.namespace)
        service._gone = "was removed"

    def endpoints(self, spec: ServiceSpec) -> tuple[Endpoint, ...]:
        """The endpoints of a service at this moment; a pod that is being removed is none."""
        return _endpoints(spec, self.cluster.pods.values())

    def snapshot(self, pods: Sequence[Pod]) -> tuple[tuple[ServiceSpec, tuple[Endpoint, ...]], ...]:
        """All services and their endpoints among ``pods``; needs no lock."""
        return tuple((spec, _endpoints(spec, pods)) for spec in tuple(self._model.services.values()))

    def follow(self, pods: Iterable[PodSpec]) -> None:
        """Something about ``pods`` has changed: bring the services that select them up to date."""
        changed = list(pods)
        affected = [
            spec for spec in self._model.services.values() if any(spec.selects(pod) for pod in changed)
        ]
        if affected:
            self._follow(affected, self.cluster.built_nodes.values())

    def welcome(self, nodes: Iterable[Node]) -> None:
        """New nodes carry the services there are."""
        if self._handles:
            self._follow(self._model.services.values(), nodes)

    def forget(self, node: str) -> None:
        """A node is gone."""
        self._wiring.discard(node)

    def close(self) -> None:
        """The cluster is closed."""
        self._wiring.close()

    def resolve(self, name: str, family: FamilyArgument | None) -> Address | None:
        """The address of the service ``name``, or ``name.namespace``; None where there is none.

        Raises `AddressError` where it has no address in ``family``, or is headless and nobody is ready.
        """
        label, _, namespace = name.partition(".")
        spec = self._model.services.get((namespace or DEFAULT_NAMESPACE, label))
        if spec is None:
            return None
        wanted: Family | None = None if family is None else parse_family(family)
        addresses = spec.cluster_ips
        if spec.headless:
            ready = next((each for each in self.endpoints(spec) if each.ready), None)
            if ready is None:
                raise AddressError(
                    f"service {label!r} is headless and has no ready endpoint, so it has no address; "
                    "add a pod that it selects"
                )
            addresses = ready.addresses
        for address in addresses:
            if wanted is None or address.version == wanted:
                return address
        raise AddressError(
            f"service {label!r} has no IPv{wanted} address, it has {addresses[0]}; "
            f"make the cluster with families that include 'ipv{wanted}'"
        )

    def _follow(self, specs: Iterable[ServiceSpec], nodes: Iterable[Node]) -> None:
        # A headless service is a name, and no packet is sent to it.
        wanted: dict[ServiceKey, Wanted | None] = {
            (spec.namespace, spec.name): (spec, self.endpoints(spec)) for spec in specs if not spec.headless
        }
        if wanted:
            ferry.roam(partial(self._wiring.update, list(nodes), wanted))


def _endpoints(spec: ServiceSpec, pods: Iterable[Pod]) -> tuple[Endpoint, ...]:
    there = [pod for pod in pods if not pod.gone]
    return endpoints_of(spec, (pod.spec for pod in there), (pod.name for pod in there if not pod.ready))


def _title(namespace: str, name: str) -> str:
    return name if namespace == DEFAULT_NAMESPACE else f"{name}.{namespace}"
