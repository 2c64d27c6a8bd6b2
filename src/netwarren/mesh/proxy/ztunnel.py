"""A node proxy that runs: one thread with one loop, the node agent's client, the pods it carries, its pages.

Rules: nothing of a test's own loop is used, so that code that blocks that one is served all the same; state is
changed on the proxy's loop, and who changes it waits until that is done.
Does not belong here: which pods and services there are (see `netwarren.cluster.mesh`).
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from netwarren.errors import ClosedError, MeshError
from netwarren.mesh.config import ADMIN_PORT, METRICS_PORT, READINESS_PORT, ProxyConfig
from netwarren.mesh.identity.crl import Revocations
from netwarren.mesh.identity.failure import IdentityError
from netwarren.mesh.identity.secrets import Fetch, SecretManager
from netwarren.mesh.identity.watch import LOOK_INTERVAL, RevocationFile
from netwarren.mesh.inpod.sockets import PodSockets, settle
from netwarren.mesh.inpod.zds import WorkloadInfo
from netwarren.mesh.inpod.zds_proxy import ZdsClient
from netwarren.mesh.model import SocketAddress
from netwarren.mesh.proxy.common import Common
from netwarren.mesh.proxy.pod import PodProxy
from netwarren.mesh.proxy.revocation import cut_revoked
from netwarren.mesh.state.dump import plain_of
from netwarren.mesh.state.inbound import InboundPlan
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.store import State
from netwarren.mesh.telemetry.admin import Admin, ConfigDump
from netwarren.mesh.telemetry.http import HttpServer, Request, Response, empty
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics
from netwarren.mesh.telemetry.metrics_page import metrics_page
from netwarren.mesh.telemetry.readiness import Readiness, readiness_page
from netwarren.runtime import standing
from netwarren.topology.addresses import Address

if TYPE_CHECKING:
    from netwarren.mesh.control.discovery_client import Source

T = TypeVar("T")

WORKLOADS = "workload proxy manager"
"""What is pending until the node agent's snapshot has come and all its pods are carried."""

STATE = "state manager"
"""What is pending until the control plane has told of the mesh."""


class Ztunnel:
    """The proxy of one node or one pod, from `start` to `close`; its own pages are in the namespace behind ``netns``.

    ``fetch`` is where certificates come from. ``own`` is the uid of the pod that it lives in, and who that is.
    With ``config.mode="shared"``, ``agent`` is the path of the node agent's socket, by which it is told of the pods
    that it carries; in its own it takes HBONE, for its pages (without ``own``: it does not). With ``"dedicated"`` it
    carries its own pod, from the start, and there is no agent. ``follows`` is for ``/config_dump`` to tell: whether
    what it knows follows a file (``config.followsLocalXds``). With ``source`` it follows a control plane.
    """

    def __init__(
        self,
        config: ProxyConfig,
        *,
        agent: str = "",
        netns: int,
        fetch: Fetch,
        mesh: Config | None = None,
        name_servers: tuple[Address, ...] = (),
        own: tuple[str, WorkloadInfo] | None = None,
        log: Log | None = None,
        follows: bool = False,
        source: "Source | None" = None,
    ) -> None:
        self.config = config
        self.metrics = Metrics()
        self.log = log or Log(line_format=config.log_format)
        self.readiness = Readiness(
            *([] if config.mode == "dedicated" else [WORKLOADS]), *([] if source is None else [STATE])
        )
        self.state = State(mesh, node=config.node if config.mode == "shared" else "")
        self.pods: dict[str, PodProxy] = {}
        self.failure: BaseException | None = None
        """Why it ended by itself, if it did."""
        self.static = (mesh if follows else None) or Config()
        """What a file says that it follows."""
        self._agent = agent
        self._netns = netns
        self._fetch = fetch
        self._name_servers = name_servers
        self._own = own
        self._follows = follows
        self._source = source
        self._own_proxy: PodProxy | None = None
        self._client: ZdsClient | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._ending: asyncio.Event
        self._graceful = True
        self._ended: Future[None] = Future()

    def start(self) -> None:
        """Start its thread, and return when its pages are there. Raises `NetwarrenError`."""
        standing.home()  # its failure belongs to the caller
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name=f"netwarren-ztunnel-{self.config.node}", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            raise

    def end(self, *, graceful: bool = False) -> None:
        """Have it end: with time for connections to end by themselves (``graceful``), or at once. Returns before."""
        if self._thread is None:
            return
        self._graceful = graceful
        if self.running:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)

    def close(self, *, graceful: bool = False) -> None:
        """`end` it, and return when that is so. Again is fine."""
        self.end(graceful=graceful)
        if self._thread is not None:
            self._thread.join()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended, by whatever cause; False after ``seconds``."""
        return bool(wait((self._ended,), seconds).done)

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._thread is not None and not self._ended.done()

    @property
    def ready(self) -> bool:
        """Whether it carries all pods that it was told of."""
        return self.readiness.ready

    def change(self, change: Callable[[State], None]) -> None:
        """Change what it knows of the mesh; returns when that is so. Connections that policies forbid now end, and
        certificates of those who have left the node are dropped.
        """

        async def apply() -> None:
            self._apply(change)

        self.call(apply)

    def reload(self, config: Config) -> None:
        """Know ``config`` instead, as a file says it now; returns when that is so.

        As with ztunnel's local configuration, what is open stays so, and no certificate is dropped.
        """

        async def apply() -> None:
            self.state.replace(config)
            self._follow_residents(forgets=False)
            self._common.announce()
            self.static = config

        self.call(apply)

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Await ``function()`` on the proxy's loop, from another thread. Raises `ClosedError` if it has ended."""

        async def run() -> T:
            return await function()

        ended = ClosedError(f"the node proxy of {self.config.node!r}", "has ended", "deploy it anew")
        if not self.running or threading.current_thread() is self._thread:
            raise ended
        asked = run()
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop was closed just now
            asked.close()
            raise ended from None
        either: tuple[Future[Any], ...] = (answer, self._ended)
        wait(either, return_when=FIRST_COMPLETED)  # a loop that ends may not look at it at all
        if answer.cancelled() or not answer.done():
            self._ended.result()
            asked.close()
            raise ended
        return answer.result()

    def __repr__(self) -> str:
        state = f"{len(self.pods)} pods" if self.running else "ended"
        return f"<Ztunnel of {self.config.node}: {state}>"

    def _follow_residents(self, *, forgets: bool) -> None:
        """Have the certificates of the node's workloads before they are asked for, and no longer than these are there."""
        moved, secrets = self.state.residents.movement(), self._common.secrets
        with suppress(IdentityError):  # it ends
            for identity in moved.here:
                secrets.prefetch(identity)
        for identity in moved.gone if forgets else ():
            secrets.forget(identity)

    # --- for the node agent ---

    async def start_pod(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        pod = PodProxy(self._common, uid, info, netns)
        await pod.start()
        self.pods[uid] = pod
        workload = pod.known()
        if workload is not None and (workload.protocol == "HBONE" or workload.native_tunnel):
            self._common.secrets.prefetch(pod.identity(workload))

    async def stop_pod(self, uid: str, *, graceful: bool) -> None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            await pod.stop(graceful=graceful)

    # --- on its thread ---

    def _apply(self, change: Callable[[State], None]) -> None:
        """`change`, on the proxy's own thread."""

        def allowed(plan: InboundPlan) -> bool:
            verdict = self.state.authorize(plan.workload, plan.facts)
            self._common.warn_of_unknown(verdict)
            return verdict.allowed

        change(self.state)
        self._follow_residents(forgets=True)
        self._common.announce()
        for pod in self._all_pods():
            pod.connections.reevaluate(allowed)

    def _run(self, started: "Future[None]") -> None:
        try:
            transparent = self.config.require_original_source is True
            settle(mark=self.config.packet_mark, transparent=transparent)
            with asyncio.Runner() as runner:
                runner.run(self._main(started))
        except BaseException as error:
            self.failure = error
            if not started.done():
                started.set_exception(error)
        finally:
            self._ended.set_result(None)

    async def _main(self, started: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        secrets = SecretManager(self._fetch)
        lists = self._revocation_file()
        self._common = Common(
            self.config, self.state, secrets, self.metrics, self.log, lists, name_servers=self._name_servers
        )
        sockets = PodSockets(
            self._netns, f"the node proxy of {self.config.node}", mark=None, ipv6=self.config.ipv6
        )
        servers: list[HttpServer] = []
        discovering: asyncio.Task[None] | None = None
        try:
            self._follow_residents(forgets=False)
            if lists is not None:
                lists.start()
            for server in self._pages(sockets):
                servers.append(server)
                await server.start()
            if self._source is not None:
                discovering = asyncio.ensure_future(self._discover(self._source))
            if self.config.mode == "dedicated":
                await self._carry_own(started)
            else:
                await self._carry_the_agents(started)
        finally:
            if discovering is not None:
                discovering.cancel()
                await asyncio.wait((discovering,))
            for server in servers:
                await server.close(grace=0.2)
            await secrets.close()
            if lists is not None:
                lists.close()
            sockets.close()

    async def _discover(self, source: "Source") -> None:
        """Follow the control plane. What goes wrong beyond that ends the proxy."""
        from netwarren.mesh.control.discovery_client import DiscoveryClient

        client = DiscoveryClient(
            source, self._apply, self.metrics, self.log, lambda: self.readiness.done(STATE)
        )
        try:
            await client.run()
        except Exception as error:
            self.failure = error
            self._graceful = False
            self._ending.set()

    async def _carry_own(self, started: "Future[None]") -> None:
        """Carry the pod that it lives in, until it is to end."""
        assert self._own is not None  # a dedicated proxy is told whose it is
        uid, info = self._own
        await self.start_pod(uid, info, self._netns)
        try:
            started.set_result(None)
            await self._ending.wait()
        finally:
            await self.stop_pod(uid, graceful=self._graceful)

    async def _carry_the_agents(self, started: "Future[None]") -> None:
        """Carry the pods that the node's agent tells of, until it is to end."""
        self._client = client = ZdsClient(
            self._agent, _Pods(self), on_ready=self._on_ready, on_change=self._count
        )
        following: asyncio.Task[None] | None = None
        try:
            if self._own is not None:
                own = PodProxy(self._common, *self._own, self._netns, own=True)
                await own.start()
                self._own_proxy = own
            following = asyncio.ensure_future(client.run())
            started.set_result(None)
            ending = asyncio.ensure_future(self._ending.wait())
            await asyncio.wait((following, ending), return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if (
                following.done()
                and not following.cancelled()
                and (error := following.exception()) is not None
            ):
                self.failure = error
                self._graceful = False
        finally:
            if following is not None:
                following.cancel()
                await asyncio.wait((following,))
            stops = [client.stop_all(graceful=self._graceful)]
            if self._own_proxy is not None:
                stops.append(self._own_proxy.stop(graceful=self._graceful))
            await asyncio.gather(*stops)

    def _revocation_file(self) -> RevocationFile | None:
        path, debounce = self.config.crl_path, self.config.crl_debounce
        if path is None:
            return None

        def changed(_: Revocations) -> None:
            for pod in self._all_pods():
                cut_revoked(pod)

        interval = min(LOOK_INTERVAL, max(0.02, debounce / 4))
        return RevocationFile(path, changed, debounce=debounce, interval=interval)

    def _all_pods(self) -> tuple[PodProxy, ...]:
        own = () if self._own_proxy is None else (self._own_proxy,)
        return (*self.pods.values(), *own)

    def _on_ready(self, ready: bool) -> None:
        if ready:
            self.readiness.done(WORKLOADS)
        else:
            self.readiness.begin(WORKLOADS)

    def _count(self) -> None:
        pending = self._client.states.pending if self._client is not None else ()
        self.metrics.proxies_active.labels().set(len(self.pods))
        self.metrics.proxies_pending.labels().set(len(pending))

    def _pages(self, sockets: PodSockets) -> Iterator[HttpServer]:
        """One by one, so that each is somebody's when the next cannot be made."""
        ipv6 = sockets.ipv6_enabled
        everywhere = ip_address("::" if ipv6 else "0.0.0.0")
        admin = Admin(self.log, self._shut_down, self._dump())

        def metrics(request: Request) -> Response:
            if request.method not in ("GET", "HEAD"):
                return empty(HTTPStatus.METHOD_NOT_ALLOWED)
            return metrics_page(self.metrics, request)

        for localhost in ("127.0.0.1", "::1")[: 2 if ipv6 else 1]:
            yield HttpServer(sockets.listen(SocketAddress(ip_address(localhost), ADMIN_PORT)), admin.page)
        yield HttpServer(sockets.listen(SocketAddress(everywhere, METRICS_PORT)), metrics)
        yield HttpServer(
            sockets.listen(SocketAddress(everywhere, READINESS_PORT)),
            lambda request: readiness_page(self.readiness, request),
        )

    def _shut_down(self) -> None:
        self._graceful = True
        self._ending.set()

    def _dump(self) -> ConfigDump:
        def certificates() -> list[object]:
            return [each.described() for each in self._common.secrets.states()]

        def workloads() -> dict[str, object]:
            pending = self._client.states.pending if self._client is not None else {}
            return {
                **{
                    uid: _described("Up", pod.info, pod.connections.listing())
                    for uid, pod in self.pods.items()
                },
                **{
                    uid: _described("Pending", pod.info, {"inbound": [], "outbound": []})
                    for uid, pod in pending.items()
                },
            }

        return ConfigDump(
            state=self.state.dump,
            static_config=lambda: plain_of(self.static),
            config=lambda: {
                "proxyMode": self.config.mode,
                "localNode": self.config.node,
                "followsLocalXds": self._follows,
            },
            certificates=certificates,
            workload_state=workloads,
        )


def _described(state: str, info: WorkloadInfo, connections: object) -> dict[str, object]:
    named = {"name": info.name, "namespace": info.namespace, "serviceAccount": info.service_account}
    return {"state": state, "connections": connections, "info": named}


class _Pods:
    """A proxy as the node agent's client takes it (`inpod.zds_proxy.Pods`)."""

    def __init__(self, proxy: Ztunnel) -> None:
        self._proxy = proxy

    async def start(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        try:
            await self._proxy.start_pod(uid, info, netns)
        except MeshError as error:
            raise MeshError(f"failed to start proxy : {error}") from error
        self._proxy.metrics.proxies_started.labels().add()

    async def stop(self, uid: str, *, graceful: bool) -> None:
        if uid in self._proxy.pods:
            await self._proxy.stop_pod(uid, graceful=graceful)
            self._proxy.metrics.proxies_stopped.labels().add()
