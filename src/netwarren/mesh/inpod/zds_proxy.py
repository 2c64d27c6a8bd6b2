"""The proxy's side of ZDS: a connection to the node's agent, and each pod started and stopped as it says.

Rules: one request at a time, answered before the next is read; a connection that ends is made anew while pods go
on; every descriptor that came is closed, at the latest when the pod is not pending any more.
Does not belong here: what requests come to (see `pod_states`), what it is to carry a pod's traffic.
"""

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

from netwarren.errors import MeshError
from netwarren.mesh.backoff import Backoff
from netwarren.mesh.inpod import zds
from netwarren.mesh.inpod.packets import Packet, PacketSocket
from netwarren.mesh.inpod.pod_states import (
    RETRY_SECONDS,
    Action,
    Answer,
    Exit,
    NetnsIdentity,
    PodStates,
    Start,
    Stop,
)
from netwarren.mesh.inpod.stepping import lost
from netwarren.mesh.inpod.zds import WorkloadInfo

_log = logging.getLogger(__name__)

_CONNECT = (0.010, 15.0)
_HELLO = (0.005, 15.0)


class Pods(Protocol):
    """Whoever carries the pods' traffic, on the loop that `ZdsClient.run` is run on."""

    async def start(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        """Begin with a pod. ``netns`` is good during the call; hold a copy (`PodSockets` does).

        What is raised is told to the agent, and the start tried again later.
        """

    async def stop(self, uid: str, *, graceful: bool) -> None:
        """Cease with a pod: cut its connections at once, or (``graceful``) give them time to end."""


class ZdsClient:
    """Follows the agent that listens at ``path``, for as long as `run` runs, and tells ``pods``.

    ``on_ready`` is called on the loop whenever `ready` changes, ``on_change`` whenever `states` may have. ``retry_seconds`` is between two attempts to start
    what could not be started.
    """

    def __init__(
        self,
        path: str,
        pods: Pods,
        *,
        on_ready: Callable[[bool], None] | None = None,
        on_change: Callable[[], None] | None = None,
        retry_seconds: float = RETRY_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        self.path = path
        self.states = PodStates()
        """Which pods are carried and which are pending, and how many were; to be read."""
        self._pods = pods
        self._on_ready = on_ready
        self._on_change = on_change
        self._retry_seconds = retry_seconds
        self._connecting = Backoff(*_CONNECT)
        self._greeting = Backoff(*_HELLO, jitter=0.2, rng=rng)
        self._held: dict[str, int] = {}
        self._told_ready = False

    @property
    def ready(self) -> bool:
        """Whether the agent's snapshot has come on this connection, and all it tells of is carried."""
        return self._told_ready

    async def run(self) -> None:
        """Follow the agent until this is cancelled; pods go on then, see `stop_all`.

        Raises `MeshError` where the agent does not keep to the protocol, and `SteppingError` where this thread cannot
        be brought home from a pod: then the proxy's process is to end, with status 1.
        """
        try:
            while True:
                connection = await self._connected()
                try:
                    heard = await self._follow(connection)
                finally:
                    connection.close()
                    self.states.connected()
                    self._tell()
                if heard:
                    self._greeting.reset()
                else:
                    await asyncio.sleep(self._greeting.wait())
        finally:
            self._let_go(self._held)

    async def stop_all(self, *, graceful: bool = True) -> None:
        """Stop all pods, at the same time; after `run`."""
        stops = self.states.stop_all()
        self._tell()
        await asyncio.gather(*(self._stop(each.uid, graceful) for each in stops))
        self._tell()

    # --- the connection ---

    async def _connected(self) -> PacketSocket:
        while True:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                made.setblocking(False)
                made.connect(self.path)  # at once, or not at all (EAGAIN: too many wait already)
            except OSError as error:
                made.close()
                seconds = self._connecting.wait()
                _log.debug("no agent at %s (%s); again in %.3f s", self.path, error.strerror, seconds)
                await asyncio.sleep(seconds)
            except BaseException:
                made.close()
                raise
            else:
                self._connecting.reset()
                return PacketSocket(made, zds.MOST_BYTES)

    async def _follow(self, connection: PacketSocket) -> bool:
        """Serve one connection to its end; whether anything was heard on it."""
        self.states.connected()
        loop = asyncio.get_running_loop()
        heard = False
        retry_at: float | None = None
        try:
            await connection.send(zds.encode_hello())
            while True:
                if not self.states.pending:
                    retry_at = None
                elif retry_at is None:
                    retry_at = loop.time() + self._retry_seconds
                patience = None if retry_at is None else max(0.0, retry_at - loop.time())
                if patience == 0.0:
                    retry_at = None
                    await self._retry()
                elif await connection.readable(patience):
                    if not await self._handle(connection):
                        return heard
                    heard = True
        except OSError as error:
            _log.info("the agent at %s is gone: %s", self.path, error.strerror)
            return heard

    async def _handle(self, connection: PacketSocket) -> bool:
        """Read one packet and do as it says; False where the connection is over."""
        try:
            packet = connection.receive_now()
            if packet is None:
                return True
            if not packet.data:
                packet.close()
                return False
            request, netns = self._read(packet)
        except MeshError as error:
            _log.warning("the agent at %s: %s", self.path, error)
            await connection.send(zds.encode_ack(zds.Ack(str(error))))
            return False
        try:
            await self._carry_out(self.states.receive(request, netns), connection)
        finally:
            self._settle()
        return True

    def _read(self, packet: Packet) -> tuple[zds.Request, NetnsIdentity | None]:
        """The request in a packet; its descriptor is held by the pod's uid. Raises `MeshError`."""
        try:
            request = zds.decode_request(packet.data)
            wanted = 1 if isinstance(request, zds.Add) else 0
            if len(packet.descriptors) != wanted:
                raise MeshError(f"{request} came with {len(packet.descriptors)} descriptors, not {wanted}")
            if not isinstance(request, zds.Add):
                return request, None
            (netns,) = packet.descriptors
            found = os.fstat(netns)
        except BaseException:
            packet.close()
            raise
        self._let_go([request.uid])
        self._held[request.uid] = netns
        return request, NetnsIdentity(found.st_dev, found.st_ino)

    def _let_go(self, uids: Iterable[str]) -> None:
        for uid in list(uids):
            held = self._held.pop(uid, None)
            if held is not None:
                os.close(held)

    # --- the pods ---

    async def _carry_out(self, actions: list[Action], connection: PacketSocket) -> None:
        for action in actions:
            match action:
                case Start():
                    await self._carry_out(await self._start(action), connection)
                case Stop(uid):
                    await self._stop(uid, graceful=False)
                case Answer(ack):
                    self._settle()  # first: who is answered may look
                    await connection.send(zds.encode_ack(ack))
                case Exit(reason):
                    raise MeshError(f"the agent at {self.path} does not keep to ZDS: {reason}")

    async def _start(self, start: Start) -> list[Action]:
        try:
            await self._pods.start(start.uid, start.info, self._held[start.uid])
        except Exception as error:
            if lost():
                raise  # whoever stands somewhere unknown carries nobody any more
            _log.warning("pod %s cannot be carried: %s", start.uid, error)
            return self.states.started(start, str(error) or repr(error))
        return self.states.started(start)

    async def _stop(self, uid: str, graceful: bool) -> None:
        try:
            await self._pods.stop(uid, graceful=graceful)
        except Exception:
            if lost():
                raise
            _log.exception("pod %s did not stop as it should", uid)

    async def _retry(self) -> None:
        try:
            for start in self.states.retry():
                await self._start(start)
        finally:
            self._settle()

    def _settle(self) -> None:
        self._let_go(uid for uid in list(self._held) if uid not in self.states.pending)
        self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()
        ready = self.states.ready
        if ready != self._told_ready:
            self._told_ready = ready
            if self._on_ready is not None:
                self._on_ready(ready)
