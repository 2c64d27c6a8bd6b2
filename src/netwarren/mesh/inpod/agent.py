"""The node's agent: tells the node's proxy which pods there are, as Istio's CNI agent does (ZDS).

Rules: a request is sent when the one before it is acknowledged; who connects is told everything; additions go to
the proxy that connected last, deletions to all; one thread, on which all state is.
Does not belong here: where it listens (see `listener`), the proxy's side (see `zds_proxy`), the rules in the pods
(see `redirection`).
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from netwarren.errors import ClosedError, MeshError
from netwarren.kernel.netns import Namespace
from netwarren.mesh.inpod import zds
from netwarren.mesh.inpod.listener import Listener
from netwarren.mesh.inpod.packets import PacketSocket, accepted
from netwarren.mesh.inpod.stepping import hold
from netwarren.mesh.inpod.zds import Ack, WorkloadInfo
from netwarren.runtime import standing

T = TypeVar("T")

_log = logging.getLogger(__name__)

ADD_SECONDS = 10.0
"""How long an addition or deletion waits by default for its acknowledgement."""

_ACCEPT_AGAIN_SECONDS = 0.1


class _Pod:
    """A pod that there is: held, so that its namespace is there when a proxy connects."""

    __slots__ = ("acknowledged", "info", "netns", "uid")

    def __init__(self, uid: str, info: WorkloadInfo, netns: Namespace) -> None:
        self.uid = uid
        self.info = info
        self.netns = netns
        self.acknowledged: Future[Ack] = Future()


class _Message(NamedTuple):
    request: zds.Request
    pod: _Pod | None = None
    """Of an addition."""
    acknowledged: "Future[Ack] | None" = None


class _Connection:
    """A proxy that has said hello, and what is to be said to it."""

    def __init__(self, packets: PacketSocket) -> None:
        self.packets = packets
        self.unsaid: deque[_Message] = deque()
        self.told: set[_Pod] = set()
        self.synced = False
        """Whether it has acknowledged the snapshot."""

    def say(self, message: _Message) -> None:
        self.unsaid.append(message)
        if message.pod is not None:
            self.told.add(message.pod)
        self.packets.wake()


class NodeAgent:
    """Listens at ``path`` (by default one of its own) for proxies; INPOD_UDS is what ztunnel calls that path.

    All verbs may be called on any thread but the proxy's own, which answers them. Raises `KernelError` where it
    cannot listen there.
    """

    def __init__(self, path: str | None = None) -> None:
        standing.home()  # its failure belongs to the caller
        self._listener = Listener(path)
        self.path = self._listener.path
        self._closed = False
        self._pods: dict[str, _Pod] = {}
        self._connections: list[_Connection] = []
        self._changed = threading.Condition()
        self._ending: asyncio.Event
        self._serving: set[asyncio.Task[None]] = set()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=self._serve_all, args=(started,), name="netwarren-agent", daemon=True
        )
        self._thread.start()
        try:
            self._loop = started.result()
        except BaseException:
            self._listener.close()
            raise

    def add(
        self,
        uid: str,
        info: WorkloadInfo,
        netns: int,
        *,
        timeout: float = ADD_SECONDS,
        wait: bool = True,
    ) -> None:
        """There is a pod, in the network namespace behind the descriptor ``netns``, of which a copy is kept.

        Returns when the proxy carries it; where it does not, within ``timeout`` seconds, raises `MeshError` with
        its reason, and the pod was not added. ``wait=False`` returns at once: the proxy is told when it can be,
        with the snapshot of the next one to connect perhaps. A uid that is there already is replaced.
        """
        acknowledged = self.begin_addition(uid, info, netns, timeout=timeout)
        if wait:
            acknowledged()

    def begin_addition(
        self, uid: str, info: WorkloadInfo, netns: int, *, timeout: float = ADD_SECONDS
    ) -> Callable[[], None]:
        """As `add`, but returns when the proxy is being told; what waits for it, and raises, is given back."""
        self._check()
        zds.encode_request(zds.Add(uid, info))  # raises for what cannot be said
        pod = _Pod(uid, info, hold(netns, f"pod {info.name!r}"))
        deadline = time.monotonic() + timeout

        def wait() -> None:
            with self._or_forget(pod):
                self._wait(pod.acknowledged, deadline, f"pod {info.name!r} ({uid})", timeout)

        with self._or_forget(pod):
            self._on_loop(lambda: self._add(pod))
        return wait

    @contextlib.contextmanager
    def _or_forget(self, pod: _Pod) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with contextlib.suppress(ClosedError):
                self._on_loop(lambda: self._forget(pod))
            pod.netns.close()
            raise

    def delete(self, uid: str, *, timeout: float = ADD_SECONDS) -> None:
        """A pod is gone; nothing happens where it was not there.

        Returns when no proxy carries it; raises `MeshError` where one has not said so within ``timeout`` seconds,
        or refuses. The pod is forgotten then, too.
        """
        self.begin_deletion(uid, timeout=timeout)()

    def begin_deletion(self, uid: str, *, timeout: float = ADD_SECONDS) -> Callable[[], None]:
        """As `delete`, but returns when the proxies are being told; what waits for them, and raises, is given back."""
        self._check()
        deadline = time.monotonic() + timeout
        waiting = self._on_loop(lambda: self._delete(uid))

        def wait() -> None:
            for acknowledged in waiting:  # at the same time
                self._wait(acknowledged, deadline, f"the end of pod {uid}", timeout)

        return wait

    def wait_connected(self, proxies: int = 1, timeout: float = ADD_SECONDS) -> None:
        """Wait until so many proxies are connected, or more; raises `MeshError` after ``timeout`` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self.connected >= proxies, timeout):
                raise MeshError(
                    f"{self.connected} proxies have connected to {self.path} within {timeout:g} s, not {proxies}"
                )
        self._check()

    def wait_synced(self, timeout: float = ADD_SECONDS) -> None:
        """Wait for a proxy that has acknowledged everything there is; raises `MeshError` after ``timeout`` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self.synced, timeout):
                raise MeshError(
                    f"no proxy has connected to {self.path} and taken the node's pods within {timeout:g} s"
                )
        self._check()

    @property
    def synced(self) -> bool:
        """Whether the proxy that connected last has acknowledged the snapshot of all pods."""
        connections = self._connections[-1:]
        return bool(connections) and connections[0].synced

    @property
    def connected(self) -> int:
        """How many proxies are connected."""
        return len(self._connections)

    def close(self) -> None:
        """End all connections and let go of all pods; who waits gets an error. Again is fine."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._pods)} pods, {self.connected} proxies"
        return f"<NodeAgent at {self.path}: {state}>"

    # --- on the caller's thread ---

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"the agent at {self.path}", "is closed", "make another one")

    def _on_loop(self, function: Callable[[], T]) -> T:
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        with self._changed:  # so that what is asked for before the end is done before the end
            self._check()
            self._loop.call_soon_threadsafe(run)
        return result.result()

    def _wait(self, acknowledged: "Future[Ack]", deadline: float, what: str, timeout: float) -> None:
        try:
            ack = acknowledged.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            if not self.connected:
                raise MeshError(
                    f"{what}: no proxy is connected to {self.path}, for {timeout:g} s; start one"
                ) from None
            raise MeshError(f"{what}: the proxy has not acknowledged it within {timeout:g} s") from None
        if ack.error:
            raise MeshError(f"{what}: the proxy refuses: {ack.error}")

    # --- on the agent's thread: proxies ---

    def _serve_all(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        try:
            standing.live_in(
                standing.home()
            )  # not in the pod that its maker may stand in, which would never end
            # Asyncio's own, whatever policy the program has set.
            runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
            loop = runner.get_loop()
        except BaseException as error:
            started.set_exception(error)
            return
        with runner:
            self._ending = asyncio.Event()
            started.set_result(loop)
            runner.run(self._serve_until_the_end())

    async def _serve_until_the_end(self) -> None:
        self._serving.add(asyncio.create_task(self._accept()))
        await self._ending.wait()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for pod in self._pods.values():
            self._drop(pod, ClosedError(f"the agent at {self.path}", "was closed", "make another one"))
        self._pods.clear()

    async def _accept(self) -> None:
        while True:
            try:
                made = await accepted(self._listener.socket)
            except OSError as error:
                _log.warning("the agent at %s cannot take a proxy: %s", self.path, error.strerror)
                await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                continue
            packets = PacketSocket(made, zds.MOST_BYTES)
            task = asyncio.create_task(self._serve(packets))
            self._serving.add(task)
            task.add_done_callback(partial(self._served, packets))

    def _served(self, packets: PacketSocket, task: "asyncio.Task[None]") -> None:
        self._serving.discard(task)
        packets.close()  # here too, for a task that is cancelled before it begins does nothing at all

    async def _serve(self, packets: PacketSocket) -> None:
        connection = _Connection(packets)
        try:
            zds.decode_hello(await _data(packets))
            for pod in self._pods.values():
                connection.say(_addition(pod))
            connection.say(_Message(zds.SnapshotSent()))
            self._connections.append(connection)
            self._tell()
            await self._speak(connection)
        except (OSError, MeshError) as error:
            _log.info("a proxy of the agent at %s is gone: %s", self.path, error)
        except Exception:
            _log.exception("the agent at %s is done with a proxy", self.path)
        finally:
            packets.close()
            self._lose(connection)

    async def _speak(self, connection: _Connection) -> None:
        """Say what is to be said, for as long as the proxy listens."""
        packets = connection.packets
        while True:
            while not connection.unsaid:
                if await packets.readable() and await _data(packets):
                    raise MeshError("it answers what nobody asked")
            message = connection.unsaid[0]
            ack = Ack()
            if message.pod is None:
                await packets.send(zds.encode_request(message.request))
                ack = zds.decode_ack(await _data(packets))
            elif message.pod.netns.fd >= 0:  # else it is gone meanwhile
                netns = hold(message.pod.netns.fd, message.pod.netns.label)  # it may be let go meanwhile
                try:
                    await packets.send(zds.encode_request(message.request), [netns.fd])
                finally:
                    netns.close()
                ack = zds.decode_ack(await _data(packets))
            connection.unsaid.popleft()
            self._acknowledged(connection, message, ack)

    def _acknowledged(self, connection: _Connection, message: _Message, ack: Ack) -> None:
        waiting = message.pod.acknowledged if message.pod is not None else message.acknowledged
        if waiting is not None and not waiting.done():
            waiting.set_result(ack)
        elif ack.error:
            _log.warning("a proxy of the agent at %s refuses %s: %s", self.path, message.request, ack.error)
        if isinstance(message.request, zds.SnapshotSent):
            connection.synced = not ack.error
            self._tell()

    def _lose(self, connection: _Connection) -> None:
        for message in connection.unsaid:
            if message.acknowledged is not None:
                message.acknowledged.set_result(Ack())  # it carries nothing of this node's any more
        if connection in self._connections:
            self._connections.remove(connection)
            self._tell()
        if self._connections:  # who is the last one now has not been told of what came later
            last = self._connections[-1]
            for pod in self._pods.values():
                if pod not in last.told:
                    last.say(_addition(pod))

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # --- on the agent's thread: pods ---

    def _add(self, pod: _Pod) -> None:
        before = self._pods.pop(pod.uid, None)
        self._pods[pod.uid] = pod
        if before is not None:
            self._drop(before, MeshError(f"pod {before.info.name!r} ({pod.uid}) was replaced meanwhile"))
        if self._connections:
            self._connections[-1].say(_addition(pod))

    def _delete(self, uid: str) -> "list[Future[Ack]]":
        pod = self._pods.pop(uid, None)
        if pod is None:
            return []
        self._drop(pod, MeshError(f"pod {pod.info.name!r} ({uid}) was deleted meanwhile"))
        waiting = []
        for connection in self._connections:
            acknowledged: Future[Ack] = Future()
            connection.say(_Message(zds.Delete(uid), acknowledged=acknowledged))
            connection.told.discard(pod)
            waiting.append(acknowledged)
        return waiting

    def _forget(self, pod: _Pod) -> None:
        """Of an addition that failed: nothing of it stays, with the proxies neither."""
        if self._pods.get(pod.uid) is pod:
            self._delete(pod.uid)

    def _drop(self, pod: _Pod, why: Exception) -> None:
        pod.netns.close()
        if not pod.acknowledged.done():
            pod.acknowledged.set_exception(why)


def _addition(pod: _Pod) -> _Message:
    return _Message(zds.Add(pod.uid, pod.info), pod)


async def _data(packets: PacketSocket) -> bytes:
    """The next packet of a proxy, which sends no descriptors; raises `MeshError` where it is gone."""
    packet = await packets.receive()
    packet.close()
    if not packet.data:
        raise MeshError("it has closed the connection")
    return packet.data
