"""The members of a cluster as users hold them: its root, its nodes, its pods.

Rules: a handle knows what it is and where; everything that can be done in it comes from `Machine`;
``repr`` shows the state.
Does not belong here: making and removing members (see `cluster`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netwarren.kernel.netns import Namespace
from netwarren.runtime.machine import Machine
from netwarren.topology.addresses import AddressesArgument
from netwarren.topology.identity import node_identity, pod_identity, root_identity
from netwarren.topology.specs import DEFAULT_NAMESPACE, NodeSpec, PodSpec

if TYPE_CHECKING:
    from netwarren.cluster.cluster import Cluster


class Root(Machine):
    """The cluster's root: the namespace with the bridge that all nodes hang on."""

    def __init__(self, cluster: "Cluster", namespace: Namespace) -> None:
        super().__init__("root", "the root", namespace)
        self._cluster = cluster

    def __repr__(self) -> str:
        return f"<Root of {self._cluster.name}{_gone(self)}>"

    def _identity(self) -> tuple[str, Mapping[str, str]]:
        mine = root_identity(self.name, self._cluster.bridge_addresses, _host_nsswitch())
        return mine.hostname, mine.files

    def _own_addresses(self) -> Sequence[str]:
        return [str(interface.ip) for interface in self._cluster.bridge_addresses]


class _Addressed(Machine):
    """A member that has addresses in the cluster."""

    ips: tuple[str, ...]
    """The addresses, one a family, in the cluster's order of preference."""

    @property
    def ip(self) -> str:
        """The address, in the cluster's first family."""
        return self.ips[0]

    def _own_addresses(self) -> Sequence[str]:
        return self.ips


class Node(_Addressed):
    """A node: a namespace with ``eth0`` on the cluster's bridge, through which its pods reach everything."""

    def __init__(self, cluster: "Cluster", spec: NodeSpec, namespace: Namespace) -> None:
        super().__init__(spec.name, f"node {spec.name!r}", namespace)
        self.ips = tuple(str(family.address) for family in spec.families)
        self.spec = spec
        self._cluster = cluster

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.ip}, {len(self.pods)} pods{_gone(self)}>"

    @property
    def pods(self) -> dict[str, "Pod"]:
        """The pods on this node, by name."""
        return {name: pod for name, pod in self._cluster.pods.items() if pod.spec.node == self.name}

    def add_pod(
        self,
        name: str,
        *,
        address: AddressesArgument = None,
        namespace: str = DEFAULT_NAMESPACE,
        labels: Mapping[str, str] | None = None,
        pid_namespace: bool = False,
        captured: bool = True,
        workload: Mapping[str, Any] | None = None,
    ) -> "Pod":
        """`Cluster.add_pod` on this node."""
        self.check()
        return self._cluster.add_pod(
            name,
            self,
            address=address,
            namespace=namespace,
            labels=labels,
            pid_namespace=pid_namespace,
            captured=captured,
            workload=workload,
        )

    def remove(self) -> None:
        """`Cluster.remove_node`."""
        self._cluster.remove_node(self)

    def _identity(self) -> tuple[str, Mapping[str, str]]:
        mine = node_identity(self.spec, _host_nsswitch())
        return mine.hostname, mine.files


class Pod(_Addressed):
    """A pod: a namespace with one ``eth0``, whose other end is in its node."""

    def __init__(self, cluster: "Cluster", spec: PodSpec, namespace: Namespace) -> None:
        super().__init__(spec.name, f"pod {spec.name!r}", namespace)
        self.ips = tuple(str(interface.ip) for interface in spec.interfaces)
        self.spec = spec
        self._cluster = cluster
        self._ready = True

    def __repr__(self) -> str:
        state = _gone(self) or ("" if self._ready else ", not ready")
        return f"<Pod {self.name} {self.ip} on {self.spec.node}{state}>"

    @property
    def ready(self) -> bool:
        """Whether services send new connections here; set it, as a readiness probe would. True at first."""
        return self._ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._cluster._set_ready(self, bool(ready))

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace it is in; not to be confused with the network namespace that it is."""
        return self.spec.namespace

    @property
    def labels(self) -> dict[str, str]:
        """What services may select it by."""
        return dict(self.spec.labels)

    @property
    def node(self) -> Node:
        """The node this pod is on."""
        return self._cluster.node(self.spec.node)

    def remove(self) -> None:
        """`Cluster.remove_pod`."""
        self._cluster.remove_pod(self)

    def _identity(self) -> tuple[str, Mapping[str, str]]:
        mine = pod_identity(self.spec, _host_nsswitch())
        return mine.hostname, mine.files


def _gone(machine: Machine) -> str:
    return f", {machine.gone}" if machine.gone else ""


def _host_nsswitch() -> str | None:
    try:
        with open("/etc/nsswitch.conf", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None
