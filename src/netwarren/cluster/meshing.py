"""What a cluster does with node proxies: deploying them, and telling them of its pods and services.

Rules: what is asked goes to the cluster's `Mesh`, which is made, and its modules imported, with the first proxy: a
cluster without one pays nothing.
Does not belong here: what the mesh knows and does (see `mesh`).
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from netwarren.cluster.members import Node, Pod
from netwarren.errors import ConfigurationError, MeshError

if TYPE_CHECKING:
    from netwarren.cluster.cluster import Cluster
    from netwarren.cluster.mesh import Mesh, NodeProxy

_INSTALL = "install them with `python -m pip install 'netwarren[mesh]'`"


class Meshing:
    """The part of `Cluster` that has to do with node proxies."""

    _lock: threading.RLock
    _mesh: "Mesh | None"

    if TYPE_CHECKING:

        def node(self, name: str) -> Node: ...
        def _check_open(self) -> None: ...

    @property
    def mesh(self) -> "Mesh":
        """The mesh of the cluster's node proxies: its certificates, workloads and policies.

        Raises `MeshError` where the libraries that it needs are not installed.
        """
        with self._lock:
            self._check_open()
            if self._mesh is None:
                try:
                    from netwarren.cluster.mesh import Mesh
                except ImportError as error:
                    raise MeshError(
                        f"the node proxy needs libraries that are missing ({error}); {_INSTALL}"
                    ) from None
                self._mesh = Mesh(cast("Cluster", self))
            return self._mesh

    async def deploy_ztunnel(self, node: str | Node, **config: Any) -> "NodeProxy":
        """Deploy a node proxy on ``node``: it carries the traffic of the pods added there from here on.

        ``config`` are fields of `netwarren.mesh.config.ProxyConfig`. It lives in a pod of its own,
        ``ztunnel-NODE``, on a thread of its own. Returns when it is ready. Raises `DuplicateName` where there is
        one, `ConfigurationError` for a field that there is not, and `MeshError`.
        """
        from netwarren.runtime import loop

        def deploy(given_up: Callable[[], bool]) -> "NodeProxy":
            proxy = self.deploy_ztunnel_sync(node, **config)
            if given_up():
                proxy.pod.remove()
            return proxy

        return await loop.on_thread(deploy)

    def deploy_ztunnel_sync(self, node: str | Node, **config: Any) -> "NodeProxy":
        """`deploy_ztunnel` for code that is not async."""
        mesh = self.mesh
        from netwarren.mesh.config import MARK_MASK, PACKET_MARK, REPLY_MARK, ProxyConfig

        fields = set(ProxyConfig.__dataclass_fields__) - {"node"}
        unknown = set(config) - fields
        if unknown:
            raise ConfigurationError(
                f"a node proxy has no option {', '.join(sorted(unknown))}; it has {', '.join(sorted(fields))}"
            )
        if config.get("mode", "shared") != "shared":
            raise ConfigurationError("only mode='shared' is deployed: one proxy for all pods of a node")
        mark = config.get("packet_mark", PACKET_MARK)
        if mark is None or mark == REPLY_MARK or not 0 < mark <= MARK_MASK:
            raise ConfigurationError(
                f"packet_mark={mark!r} does not tell the proxy's packets from others; "
                f"use one of 1 to {MARK_MASK:#x}, but not {REPLY_MARK:#x}"
            )
        with self._lock:
            self._check_open()
            on = node if isinstance(node, Node) else self.node(node)
            return mesh.deploy(on.name, ProxyConfig(**config))

    # --- inside ---

    def _carry(self, pod: Pod, captured: bool, workload: Mapping[str, Any] | None) -> None:
        """A pod has been added."""
        if self._mesh is not None:
            self._mesh.pod_added(pod, captured, workload or {})
        elif workload:
            raise ConfigurationError(
                f"pod {pod.name!r} has options of a workload, and the cluster has no node proxy; "
                "deploy one first (`Cluster.deploy_ztunnel`)"
            )

    def _follow_in_mesh(self) -> None:
        """Services, or who is behind them, may have changed."""
        if self._mesh is not None:
            self._mesh.follow_services()

    def _carry_no_more(self, pods: Iterable[Pod]) -> None:
        """Pods are about to go; before that cuts off the sockets of a proxy there.

        Waits for the proxies without the lock, and raises `MeshError` where one does not let go of them.
        """
        if self._mesh is None:
            return
        with ExitStack() as waiting, self._lock:
            for pod in pods:
                waiting.callback(self._mesh.pod_removed(pod))
