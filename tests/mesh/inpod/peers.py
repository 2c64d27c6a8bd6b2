"""The other end of a ZDS connection, spoken by hand; and pods that only write down what is done with them.

Rules: blocking sockets with a timeout, on the test's own thread.
Does not belong here: the agent and the proxy's side themselves.
"""

import array
import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from netwarren.mesh.inpod import zds
from netwarren.mesh.inpod.zds import WorkloadInfo
from netwarren.mesh.inpod.zds_proxy import ZdsClient

SECONDS = 5.0
INFO = WorkloadInfo("name", "ns", "sa")


class Peer:
    """A connected SOCK_SEQPACKET socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(SECONDS)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes, *descriptors: int) -> None:
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        self.socket.sendmsg([data], rights)

    def receive(self) -> tuple[bytes, list[int]]:
        """A packet, ``b""`` at the end; the descriptors are the caller's."""
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(64))
        found = array.array("i")
        for _, _, rights in ancillary:
            found.frombytes(rights)
        return data, found.tolist()

    # --- as an agent ---

    def ask(self, request: zds.Request, *descriptors: int) -> zds.Ack:
        self.send(zds.encode_request(request), *descriptors)
        return self.answer()

    def answer(self) -> zds.Ack:
        return zds.decode_ack(self.receive()[0])

    # --- as a proxy ---

    def hear(self) -> tuple[zds.Request, tuple[int, int] | None]:
        """A request, and the identity of the network namespace that came with it."""
        data, descriptors = self.receive()
        assert data, "the agent has closed the connection"
        found = [os.fstat(each) for each in descriptors]
        for each in descriptors:
            os.close(each)
        assert len(found) <= 1
        return zds.decode_request(data), (found[0].st_dev, found[0].st_ino) if found else None

    def acknowledge(self, error: str = "") -> None:
        self.send(zds.encode_ack(zds.Ack(error)))


def listening(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.bind(path)
    made.listen()
    made.settimeout(SECONDS)
    return made


def accept(listener: socket.socket) -> Peer:
    """The proxy that connects next, which says hello."""
    made, _ = listener.accept()
    peer = Peer(made)
    assert peer.receive()[0] == b"\x08\x01"
    return peer


def connect(path: str) -> Peer:
    """A proxy by hand, which has said hello."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.connect(path)
    peer = Peer(made)
    peer.send(zds.encode_hello())
    return peer


class Recorded:
    """Pods of a proxy; ``refusals`` are what `start` raises for a uid, as long as there is one."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.refusals: dict[str, str] = {}
        self._changed = threading.Condition()

    async def start(self, uid: str, info: WorkloadInfo, netns: int) -> None:
        os.fstat(netns)  # it is open
        assert not os.get_inheritable(netns)
        refusal = self.refusals.get(uid)
        self._write("refused" if refusal else "start", uid)
        if refusal:
            raise OSError(refusal)

    async def stop(self, uid: str, *, graceful: bool) -> None:
        self._write("stop gracefully" if graceful else "stop", uid)

    def _write(self, *words: Any) -> None:
        with self._changed:
            self.done.append(words)
            self._changed.notify_all()

    def wait_for(self, *done: tuple[Any, ...]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: all(each in self.done for each in done), SECONDS), self.done


class Running:
    """A `ZdsClient` on a loop and thread of its own."""

    def __init__(self, path: str, pods: Recorded, retry_seconds: float = 60.0) -> None:
        self.ready: list[bool] = []
        self._changed = threading.Condition()
        self.client = ZdsClient(path, pods, on_ready=self._note, retry_seconds=retry_seconds)
        self.failure: BaseException | None = None
        self._loop = asyncio.SelectorEventLoop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self.client.run())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.failure = error

    def _note(self, ready: bool) -> None:
        with self._changed:
            self.ready.append(ready)
            self._changed.notify_all()

    def wait_ready(self, ready: bool = True) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.ready[-1:] == [ready], SECONDS), self.ready

    def wait_end(self) -> BaseException | None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.failure

    def call(self, function: Callable[[], Awaitable[Any]]) -> None:
        """After the end."""
        self._loop.run_until_complete(function())

    def close(self) -> None:
        if self._thread.is_alive() and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def running(path: str, pods: Recorded, retry_seconds: float = 60.0) -> Iterator[Running]:
    made = Running(path, pods, retry_seconds)
    try:
        yield made
    finally:
        made.close()


def descriptors() -> set[tuple[int, str]]:
    """Those this process has open, by number and what they are."""
    found: set[tuple[int, str]] = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


def namespaces(among: Sequence[tuple[int, str]] | set[tuple[int, str]]) -> list[str]:
    """The network namespaces among descriptors, one for each descriptor."""
    return sorted(what for _, what in among if what.startswith("net:"))
