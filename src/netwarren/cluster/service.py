"""A service as users hold it: what it is called, where it is reached, and who is behind it now.

Rules: a handle decides and changes nothing by itself; what is said of endpoints is true at the moment of
asking; ``repr`` shows the state.
Does not belong here: adding and removing services (see `services`).
"""

from typing import TYPE_CHECKING

from netwarren.errors import ClosedError
from netwarren.topology.service_ports import describe_port
from netwarren.topology.services import Endpoint, ServicePort, ServiceSpec

if TYPE_CHECKING:
    from netwarren.cluster.services import Services


class Service:
    """A service: an address for a changing set of pods; made by `Cluster.add_service`."""

    def __init__(self, services: "Services", spec: ServiceSpec) -> None:
        self.spec = spec
        self._services = services
        self._gone = ""

    def __repr__(self) -> str:
        words = [f"{self.name}.{self.namespace}", self.ip or "headless", *map(describe_port, self.ports)]
        endpoints = self.endpoints
        ready = sum(endpoint.ready for endpoint in endpoints)
        state = self.gone or f"{ready} of {len(endpoints)} endpoints ready"
        return f"<Service {' '.join(words)}, {state}>"

    @property
    def name(self) -> str:
        """Its name, unique in its namespace."""
        return self.spec.name

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace it is in."""
        return self.spec.namespace

    @property
    def ips(self) -> tuple[str, ...]:
        """Its addresses, one a family, in the cluster's order of preference; none if it is headless."""
        return tuple(map(str, self.spec.cluster_ips))

    @property
    def ip(self) -> str:
        """Its address in the cluster's first family; empty if it is headless."""
        return self.ips[0] if self.spec.cluster_ips else ""

    @property
    def ports(self) -> tuple[ServicePort, ...]:
        """Its ports, with the node ports they were given."""
        return self.spec.ports

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The pods behind it at this moment, ready or not; none once it is gone."""
        return () if self.gone else self._services.endpoints(self.spec)

    @property
    def gone(self) -> str:
        """Why this service is not there any more (``was removed``), or nothing."""
        return self._gone or ("is in a closed cluster" if self._services.cluster.closed else "")

    def check(self) -> None:
        """Raise `ClosedError` where this service is gone."""
        if self.gone:
            label = f"service {self.name + '.' + self.namespace!r}"
            raise ClosedError(label, self.gone, "add it anew to go on using the name")

    def remove(self) -> None:
        """`Cluster.remove_service`."""
        self._services.cluster.remove_service(self)
