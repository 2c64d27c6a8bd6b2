"""What a cluster does with services: adding, removing and finding them, and telling them of its pods.

Rules: what is asked goes to the cluster's `Services`, which are made, and their modules imported, with the first
one: a cluster without services pays nothing.
Does not belong here: what services are and how they work (see `services`), the rest of a cluster.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from netwarren.cluster.members import Pod
from netwarren.errors import ClosedError, ConfigurationError, UnknownName
from netwarren.runtime.machine import Machine
from netwarren.topology.addresses import AddressesArgument, NetworksArgument
from netwarren.topology.model import ClusterModel
from netwarren.topology.specs import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from netwarren.cluster.cluster import Cluster
    from netwarren.cluster.service import Service
    from netwarren.cluster.services import Services
    from netwarren.topology.service_ports import NodePortsArgument, PortsArgument


class Serving:
    """The part of `Cluster` that has to do with services."""

    name: str
    _lock: threading.RLock
    _closed: bool
    _model: ClusterModel
    _pods: dict[str, Pod]
    _services: "Services | None"

    if TYPE_CHECKING:

        def pod(self, name: str) -> Pod: ...
        def _check_open(self) -> None: ...
        def _follow_in_mesh(self) -> None: ...
        def _own(self, machine: Machine, members: Mapping[str, Machine]) -> None: ...

    @property
    def services(self) -> dict[str, "Service"]:
        """All services by name; by ``name.namespace`` where they are not in the default namespace."""
        with self._lock:
            return {} if self._services is None else self._services.handles

    def service(self, name: str, namespace: str = DEFAULT_NAMESPACE) -> "Service":
        """The service called ``name`` in ``namespace``; raises `UnknownName`, which lists those there are."""
        with self._lock:
            self._check_open()
            if self._services is None:
                raise UnknownName("service", f"{name}.{namespace}", ())
            return self._services.get(name, namespace)

    def add_service(
        self,
        name: str,
        *,
        ports: "PortsArgument" = (),
        selector: Mapping[str, str] | None = None,
        pods: Iterable[str | Pod] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        cluster_ip: AddressesArgument = None,
        headless: bool = False,
        node_ports: "NodePortsArgument" = False,
        session_affinity: bool | int = False,
        internal_traffic_policy: str = "Cluster",
        external_traffic_policy: str = "Cluster",
    ) -> "Service":
        """Add a service: an address for the pods that ``selector`` selects, or for ``pods``.

        ``ports`` are like ``{80: 8080}``, ``80``, ``"53/udp"`` or `ServicePort`, or several of them. Without
        ``cluster_ip``, the lowest free address of the service range. ``node_ports`` are for all ports (True)
        or those named: ``{80: 30080}``. ``session_affinity`` keeps a client's address with one endpoint, for
        three hours (True) or so many seconds. The options are those of Kubernetes' Service.

        Raises `InvalidName`, `DuplicateName`, `UnknownName` for a pod, `ConfigurationError`, `AddressError`
        and its kinds, `KernelError`; the cluster stays as it was then.
        """
        with self._lock:
            self._check_open()
            names = None if pods is None else [self._pod_name(pod) for pod in _several(pods)]
            services = self._services or self._make_services(None)
            service = services.add(
                name,
                ports=ports,
                selector=selector,
                pods=names,
                namespace=namespace,
                cluster_ip=cluster_ip,
                headless=headless,
                node_ports=node_ports,
                session_affinity=session_affinity,
                internal_traffic_policy=internal_traffic_policy,
                external_traffic_policy=external_traffic_policy,
            )
            self._follow_in_mesh()
            return service

    def remove_service(self, service: "str | Service", namespace: str = DEFAULT_NAMESPACE) -> None:
        """Remove a service, by its name in ``namespace`` or by its handle; its address may be given out again.

        Its pods stay, and so do connections that were made through it.
        """
        with self._lock:
            self._check_open()
            gone = self.service(service, namespace) if isinstance(service, str) else service
            gone.check()
            if self._services is None or gone not in self._services.handles.values():
                label = f"service {gone.name + '.' + gone.namespace!r}"
                raise ClosedError(label, f"is not of cluster {self.name!r}", "use the cluster it was made by")
            self._services.remove(gone)
            self._follow_in_mesh()

    # --- inside ---

    def _make_services(self, service_range: NetworksArgument) -> "Services":
        from netwarren.cluster.services import Services

        self._services = Services(cast("Cluster", self), self._model.ranges, service_range)
        return self._services

    def _pod_name(self, pod: str | Pod) -> str:
        if isinstance(pod, Pod):
            self._own(pod, self._pods)
            return pod.name
        return self.pod(pod).name

    def _set_ready(self, pod: Pod, ready: bool) -> None:
        with self._lock:
            self._check_open()
            self._own(pod, self._pods)
            before, pod._ready = pod._ready, ready
            try:
                if ready != before:
                    self._follow([pod])
                    self._follow_in_mesh()
            except BaseException:
                pod._ready = before
                raise

    def _follow(self, pods: Iterable[Machine]) -> None:
        """Bring services up to date with a change of ``pods``."""
        if self._services is not None:
            self._services.follow([pod.spec for pod in pods if isinstance(pod, Pod)])


def _several(pods: Iterable[str | Pod]) -> Iterable[str | Pod]:
    if isinstance(pods, (str, Pod)):
        return [pods]
    if not isinstance(pods, Iterable):
        raise ConfigurationError(f"pods={pods!r} are no pods; give pods or their names, in a list")
    return pods
