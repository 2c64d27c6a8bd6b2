"""A deployed proxy as users hold it: of a node or of one pod, ours or another program.

Rules: a handle says what it is and where; what it does is its `Ztunnel`'s or its `ZtunnelProgram`'s.
Does not belong here: deploying (see `mesh`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from netwarren.cluster.ztunnel_program import ZtunnelProgram
from netwarren.errors import ClosedError, MeshError
from netwarren.mesh.config import METRICS_PORT
from netwarren.mesh.inpod import redirection
from netwarren.mesh.inpod.agent import NodeAgent
from netwarren.mesh.proxy.ztunnel import Ztunnel
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.store import State
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from netwarren.cluster.members import Pod
    from netwarren.runtime.program import Program


class NodeProxy:
    """A node proxy, or one that is dedicated to a pod, as `Cluster.deploy_ztunnel` gives it.

    ``pod`` is the pod it lives in, whose ports 15020 (metrics) and 15021 (readiness) serve HTTP; 15000
    (administration) does on its loopback. ``agent`` tells it of its node's pods; a dedicated one has none.
    """

    def __init__(self, pod: "Pod", agent: NodeAgent | None, proxy: Ztunnel | ZtunnelProgram) -> None:
        self.pod = pod
        self.agent = agent
        self._any = proxy

    @property
    def ready(self) -> bool:
        """Whether it carries all pods that it was told of; what port 15021 says."""
        return self._any.running and self._any.ready

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._any.running

    @property
    def program(self) -> "Program | None":
        """The process, where it is another program (``binary``)."""
        return self._any.program if isinstance(self._any, ZtunnelProgram) else None

    @property
    def metrics(self) -> Metrics:
        """Its metrics as an object, for `netwarren.mesh.telemetry.expect`. Raises `MeshError` for another program."""
        return self._proxy.metrics

    @property
    def log(self) -> Log:
        """Its log as an object, for `netwarren.mesh.telemetry.expect`. Raises `MeshError` for another program."""
        return self._proxy.log

    def shut_down(self, *, graceful: bool = True) -> None:
        """End it as SIGTERM does: connections get 5 s to end by themselves, or (``graceful=False``) none.

        Its pods stay redirected, and reach nobody then.
        """
        self._any.close(graceful=graceful)

    @property
    def _proxy(self) -> Ztunnel:
        """The one in this process."""
        if isinstance(self._any, ZtunnelProgram):
            raise MeshError(
                f"{self!r} is a program of its own: its metrics are at http://{self.pod.ip}:{METRICS_PORT}/metrics, its "
                "log is in `program.output`"
            )
        return self._any

    def _give_up(self) -> None:
        """Who deployed it does not want it any more."""
        if self.agent is not None:
            self.pod.remove()  # its own
        else:
            self._end()

    def _redirect(self, pod: "Pod") -> None:
        config = self._any.config
        assert config.packet_mark is not None  # `Cluster.deploy_ztunnel` has seen to that
        redirection.apply(
            pod.namespace_fd, pod.label, mode=config.mode, mark=config.packet_mark, dns=config.dns_proxy
        )

    def _tell(self, change: Callable[[State], None], mesh: Callable[[], Config]) -> None:
        """The mesh has changed, by ``change``, to ``mesh()``; returns when it knows. One that has ended need not."""
        try:
            if not self.running:
                return
            if isinstance(self._any, ZtunnelProgram):
                self._any.tell(mesh())
            else:
                self._proxy.change(change)
        except ClosedError:
            if self.running:
                raise  # else it has just ended, and needs to know nothing

    def _end(self) -> None:
        """With its pod: at once, and its agent, too."""
        self.shut_down(graceful=False)
        if self.agent is not None:
            self.agent.close()

    def __repr__(self) -> str:
        state = "ready" if self.ready else "running" if self.running else "ended"
        where = f"on {self.pod.spec.node}" if self.agent is not None else f"in {self.pod.label}"
        return f"<NodeProxy {where}: {state}>"
