"""The proxy of one pod: its listeners there, and what came in by them.

Rules: sockets are made in the pod, and used on the proxy's loop; all of them are open before the pod counts as
taken up, or none; at its end every task and socket is gone.
Does not belong here: redirecting traffic to the listeners (see `inpod.redirection`).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_address
from typing import TypeAlias

from netwarren.mesh.config import DNS_PORT, INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT
from netwarren.mesh.dns.decision import Naming
from netwarren.mesh.dns.resolver import DnsResolver
from netwarren.mesh.dns.server import DnsServer
from netwarren.mesh.dns.upstream import Upstream
from netwarren.mesh.hbone.pool import Pool
from netwarren.mesh.hbone.transport import ServerTunnel, Tunnel
from netwarren.mesh.inpod.sockets import PodSockets, is_transparent
from netwarren.mesh.inpod.zds import WorkloadInfo
from netwarren.mesh.model import Identity, SocketAddress, Workload
from netwarren.mesh.proxy import inbound, outbound
from netwarren.mesh.proxy.common import Common, Directory
from netwarren.mesh.proxy.counting import DnsCounts
from netwarren.mesh.state.inbound import InboundPlan
from netwarren.mesh.telemetry.connections import Connections
from netwarren.mesh.telemetry.labels import Reporter

Carry = Callable[["PodProxy", socket.socket], Awaitable[None]]
Carrier: TypeAlias = tuple[Carry, Reporter]
"""What takes up a connection, and for whom of its two ends: its source or its destination."""

_AT_ONCE = 64  # accepted from one listener before others have their turn


class PodProxy:
    """Carries the traffic of the pod ``uid`` between `start` and `stop`.

    ``own``: it is the pod that the node proxy itself lives in, which is not redirected: HBONE is taken there, for
    its pages, and nothing else; and these see the proxy's address, not the client's.
    """

    def __init__(
        self, common: Common, uid: str, info: WorkloadInfo, netns: int, *, own: bool = False
    ) -> None:
        config = common.config
        self.common = common
        self.uid = uid
        self.info = info
        self.label = f"{info.namespace}/{info.name}"
        self.connections: Connections[InboundPlan] = Connections()
        self.tunnels: set[ServerTunnel] = set()
        self.inner_tunnels: set[Tunnel] = set()
        """Those within others, to pods of another network."""
        self.preserves_source = config.require_original_source is not False and not own
        self.sockets = PodSockets(
            netns,
            f"pod {self.label}",
            mark=config.packet_mark,
            ipv6=config.ipv6,
            reuse_port=config.port_reuse,
        )
        self.pool = Pool(
            lambda key: outbound.connect(self, key),
            most_streams=config.pool_max_streams,
            idle=config.pool_idle,
        )
        self.upstream = Upstream([SocketAddress(each, 53) for each in common.name_servers], self.sockets)
        self._own = own
        self._told = config.mode == "shared" and not own
        self._listeners: list[socket.socket] = []
        self._dns: DnsServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen in the pod. Raises `KernelError` where that cannot be done, and then nothing is open."""
        config = self.common.config
        ipv6 = self.sockets.ipv6_enabled
        everywhere = ip_address("::" if ipv6 else "0.0.0.0")
        carriers: list[tuple[int, Carrier]] = [(INBOUND_HBONE_PORT, (inbound.carry_hbone, "destination"))]
        if not self._own:
            # All three in a dedicated proxy, too, as in ztunnel, where nothing is redirected to the second one.
            carriers += [
                (INBOUND_PLAINTEXT_PORT, (inbound.carry_plaintext, "destination")),
                (OUTBOUND_PORT, (outbound.carry, "source")),
            ]
        transparent = False if self._own else config.require_original_source
        with ExitStack() as undo:
            undo.callback(self.sockets.close)
            opened: list[tuple[socket.socket, Carrier]] = []
            for port, carrier in carriers:
                listener = self.sockets.listen(SocketAddress(everywhere, port), transparent=transparent)
                undo.callback(listener.close)
                opened.append((listener, carrier))
            if config.dns_proxy and not self._own:
                self._dns = self._name_server(ipv6, undo)
                await self._dns.start()
            undo.pop_all()
        self.preserves_source = self.preserves_source and is_transparent(opened[0][0])
        loop = asyncio.get_running_loop()
        for listener, carrier in opened:
            self._listeners.append(listener)
            loop.add_reader(listener, self._accept, listener, carrier)

    async def stop(self, *, graceful: bool) -> None:
        """Take nothing more, and end what there is: at once, or with time to finish by itself."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        deadline = self.common.config.drain_deadline if graceful else 0.0
        drains = [asyncio.ensure_future(tunnel.drain(deadline)) for tunnel in self.tunnels if graceful]
        await self.connections.drain(deadline)
        for tunnel in list(self.tunnels):
            tunnel.abort()
        await asyncio.gather(*drains, return_exceptions=True)
        await self.pool.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._dns is not None:
            await self._dns.close()
        self.sockets.close()

    def known(self) -> Workload | None:
        """Who the pod is, as far as that is known now."""
        state, info = self.common.state, self.info
        return state.workload(self.uid) or state.workload_of(info.name, info.namespace, info.service_account)

    def identity(self, workload: Workload) -> Identity:
        """Whom its certificate names: who the node agent said it is, in the trust domain of ``workload``, its record.

        Of one that no agent told of, the record says it all.
        """
        if not self._told:
            return workload.identity
        return Identity(workload.trust_domain, self.info.namespace, self.info.service_account)

    async def workload(self) -> Workload | None:
        """Who the pod is, once that is known; None where it is not within `ProxyConfig.workload_wait`."""
        found = self.known()
        if found is not None:
            return found
        try:
            async with asyncio.timeout(self.common.config.workload_wait):
                while (found := self.known()) is None:
                    await self.common.changed()
        except TimeoutError:
            return None
        return found

    # --- inside ---

    def _accept(self, listener: socket.socket, carrier: Carrier) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _peer = listener.accept()
            except OSError:  # there is no more, or no descriptor for it: it waits, with others
                return
            accepted.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._carry(accepted, *carrier))
            self._tasks.add(task)
            task.add_done_callback(partial(self._carried, accepted))

    def _carried(self, accepted: socket.socket, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        accepted.close()  # here, for a task that is cancelled before it begins does nothing at all

    async def _carry(self, accepted: socket.socket, carry: Carry, reporter: Reporter) -> None:
        sockets = self.common.metrics.sockets_open.labels((reporter,))
        sockets.add()
        try:
            await carry(self, accepted)
        except OSError:
            pass  # the client had gone before it was looked at
        except Exception as error:  # a mistake of ours: others go on, and the log tells
            self.common.log.write("error", "proxy", f"{type(error).__name__}: {error}", {})
        finally:
            sockets.add(-1)

    def _name_server(self, ipv6: bool, undo: ExitStack) -> DnsServer:
        config = self.common.config
        datagrams, streams = [], []
        for text, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))[: 2 if ipv6 else 1]:
            address = SocketAddress(ip_address(text), DNS_PORT)
            datagrams.append(self.sockets.datagram(address, family))
            undo.callback(datagrams[-1].close)
            streams.append(self.sockets.listen(address))
            undo.callback(streams[-1].close)
        resolver = DnsResolver(
            workload=self.workload,
            directory=Directory(self.common.state),
            upstream=self.upstream,
            metrics=DnsCounts(self.common.metrics),
            naming=Naming(config.cluster_domain, config.search, config.preferred_namespace, ipv6=config.ipv6),
            rng=self.common.rng,
            workload_wait=config.workload_wait,
        )
        return DnsServer(resolver.answer, datagrams=datagrams, streams=streams)
