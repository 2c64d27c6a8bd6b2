"""What a cluster does with node proxies: deploying them, and telling them of its pods and services.

Rules: what is asked goes to the cluster's `Mesh`, which is made, and its modules imported, with the first proxy: a
cluster without one pays nothing.
Does not belong here: what the mesh knows and does (see `mesh`).
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from netwarren.cluster.members import Node, Pod
from netwarren.errors import ConfigurationError, MeshError
from netwarren.runtime.background import READY_SECONDS
from netwarren.runtime.machine import Machine
from netwarren.runtime.program import Command

if TYPE_CHECKING:
    from netwarren.cluster.cluster import Cluster
    from netwarren.cluster.mesh import Mesh
    from netwarren.cluster.node_proxy import NodeProxy
    from netwarren.mesh.config import ProxyConfig

MODES = ("shared", "dedicated")

_INSTALL = "install them with `python -m pip install 'netwarren[mesh]'`"


class Meshing:
    """The part of `Cluster` that has to do with node proxies."""

    _lock: threading.RLock
    _mesh: "Mesh | None"
    _nodes: dict[str, Node]
    _pods: dict[str, Pod]
    _declared: tuple[str, ...]

    if TYPE_CHECKING:

        def node(self, name: str) -> Node: ...
        def pod(self, name: str) -> Pod: ...
        def _check_open(self) -> None: ...
        def _own(self, machine: Machine, members: Mapping[str, Machine]) -> None: ...

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

    async def deploy_ztunnel(
        self,
        node: str | Node | Pod,
        *,
        binary: Command | str | os.PathLike[str] | None = None,
        ready_timeout: float = READY_SECONDS,
        **config: Any,
    ) -> "NodeProxy":
        """Deploy a node proxy on ``node``: it carries the traffic of the pods added there from here on.

        ``config`` are fields of `netwarren.mesh.config.ProxyConfig`. It lives in a pod of its own,
        ``ztunnel-NODE``, on a thread of its own. Returns when it is ready.

        With ``mode="dedicated"`` a pod is given in place of the node, and the proxy carries that one alone, from
        inside: what the pod opens to others goes by way of it, and HBONE is taken for the application, which sees
        the pod's own address then; what comes in plain text reaches the application directly. A pod can have
        one whatever its node has, as long as the node's proxy does not carry it (``captured=False``).

        ``binary`` is another ztunnel, as the command that starts it: it runs in that pod as a program
        (`NodeProxy.program`), with the variables that configure Istio's (`netwarren.mesh.environment`), our node
        agent (``INPOD_UDS``), the mesh as a file and by xDS (``LOCAL_XDS_PATH``, ``XDS_ADDRESS``) and our authority
        (``CA_ADDRESS``), and has ``ready_timeout`` seconds until port 15021 says that it is ready.
        ``python -m netwarren.mesh`` is one.

        Raises `DuplicateName` where there is one, `UnknownName`, `ConfigurationError` for an option that there is
        not or that means nothing in this mode, `KernelError` where a port is taken, and `MeshError`, with what it
        wrote for a program that does not start, ends or is not ready in time; nothing has changed then. The loop goes
        on meanwhile; cancelled, it takes the proxy back when that is there.
        """
        from netwarren.runtime import loop

        def deploy(given_up: Callable[[], bool]) -> "NodeProxy":
            proxy = self.deploy_ztunnel_sync(node, binary=binary, ready_timeout=ready_timeout, **config)
            if given_up():
                proxy._give_up()
            return proxy

        return await loop.on_thread(deploy)

    def deploy_ztunnel_sync(
        self,
        node: str | Node | Pod,
        *,
        binary: Command | str | os.PathLike[str] | None = None,
        ready_timeout: float = READY_SECONDS,
        **config: Any,
    ) -> "NodeProxy":
        """`deploy_ztunnel` for code that is not async."""
        mesh = self.mesh
        from netwarren.cluster.mesh import Binary

        proxy = _proxy_config(config)
        program = None
        if binary is not None:
            command = [binary] if isinstance(binary, str | os.PathLike) else list(binary)
            program = Binary(command, ready_timeout)
        with self._lock:
            self._check_open()
            if proxy.mode == "dedicated":
                return mesh.deploy_dedicated(self._pod_for_a_proxy(node), proxy, program)
            if isinstance(node, Pod):
                raise ConfigurationError(
                    f"{node.label} is no node, and a shared proxy is for all pods of one; "
                    "say mode='dedicated' for a proxy of this pod alone"
                )
            on = node if isinstance(node, Node) else self.node(node)
            self._own(on, self._nodes)
            return mesh.deploy(on.name, proxy, program)

    # --- inside ---

    def _pod_for_a_proxy(self, pod: str | Node | Pod) -> Pod:
        name = pod if isinstance(pod, str) else pod.name
        if isinstance(pod, Node) or (name not in self._pods and name in {*self._nodes, *self._declared}):
            raise ConfigurationError(
                f"{name!r} is a node, and a dedicated proxy is for one pod, in which it is deployed; "
                "give that pod in place of the node"
            )
        found = self.pod(name) if isinstance(pod, str) else pod
        self._own(found, self._pods)
        return found

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


def _proxy_config(options: Mapping[str, Any]) -> "ProxyConfig":
    """The options of one proxy; raises `ConfigurationError` for those that mean nothing."""
    from netwarren.mesh.config import MARK_MASK, PACKET_MARK, REPLY_MARK, ProxyConfig

    fields = set(ProxyConfig.__dataclass_fields__) - {"node"}
    unknown = set(options) - fields
    if unknown:
        raise ConfigurationError(
            f"a node proxy has no option {', '.join(sorted(unknown))}; it has {', '.join(sorted(fields))}"
        )
    mode = options.get("mode", "shared")
    if mode not in MODES:
        raise ConfigurationError(
            f"mode={mode!r} is none; it is 'shared' (a proxy for all pods of a node) or 'dedicated' (for one pod)"
        )
    mark = options.get("packet_mark", PACKET_MARK)
    if mark is None or mark == REPLY_MARK or not 0 < mark <= MARK_MASK:
        raise ConfigurationError(
            f"packet_mark={mark!r} does not tell the proxy's packets from others; "
            f"use one of 1 to {MARK_MASK:#x}, but not {REPLY_MARK:#x}"
        )
    if mode == "shared":
        return ProxyConfig(**options)
    # Replies to a client's address would leave the pod: nothing leads them to a proxy in the same namespace.
    if options.get("require_original_source", False) is not False:
        raise ConfigurationError(
            "a dedicated proxy speaks to its application from the pod's own address; leave require_original_source out"
        )
    return ProxyConfig(**{**options, "require_original_source": False})
