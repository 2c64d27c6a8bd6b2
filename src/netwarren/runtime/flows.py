"""Forwarding of UDP: a flow for each client and each destination, with a socket on either side.

Rules: on the host thread's loop alone; a datagram is passed on whole or lost, as UDP may; a flow that has
been idle for a while ends, and where there are too many, the one that has been idle longest.
Does not belong here: where a flow goes on (a `Reach` says it), streams (see `forwarder`).
"""

import asyncio
import os
import socket
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from netwarren.kernel import descriptors
from netwarren.kernel.tproxy import ANCILLARY_BYTES, original_destination
from netwarren.runtime.forwarder import Endpoint

Reach: TypeAlias = Callable[[Endpoint], Endpoint | None]
"""Where on the host a flow to a destination goes on; None where it goes nowhere."""
Answerer: TypeAlias = Callable[[Endpoint, Endpoint], Awaitable[socket.socket]]
"""Makes the client's side of a flow: a socket that is at the destination and connected to the client."""

IDLE_SECONDS = 120.0  # RFC 4787, REQ-5: not less than two minutes
MOST_FLOWS = 1024
_MOST_WAITING = 64  # datagrams, while a flow is being made
_BATCH = 32  # datagrams at a time, before others get a turn
_LARGEST = 65535


class Flows:
    """The flows from some listening sockets, until `close`.

    ``outer`` makes the sockets on the host; ``most`` flows are open at once, each until it was idle for
    ``idle`` seconds.
    """

    def __init__(
        self,
        reach: Reach,
        answerer: Answerer,
        *,
        outer: Callable[[int, int], socket.socket] = socket.socket,
        most: int = MOST_FLOWS,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.sockets: set[socket.socket] = set()
        self._reach = reach
        self._answerer = answerer
        self._outer = outer
        self._most = most
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._flows: OrderedDict[tuple[Endpoint, Endpoint], _Flow] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        _open.add(self)

    def __len__(self) -> int:
        return len(self._flows)

    def listen(self, listener: socket.socket) -> None:
        """From now on, pass on what comes to ``listener``, which is closed with this."""
        self.sockets.add(listener)
        self._loop.add_reader(listener, self._receive, listener)

    def close(self) -> None:
        """Close every socket; again is fine."""
        if self._timer is not None:
            self._timer.cancel()
        for key in list(self._flows):
            self._end(key)
        for each in self.sockets:
            self._loop.remove_reader(each)
            each.close()
        self.sockets.clear()

    def _receive(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _flags, client = listener.recvmsg(_LARGEST, ANCILLARY_BYTES)
            except OSError:
                return
            destination = original_destination(ancillary)
            if destination is not None:
                self._pass_on((client[:2], destination), data)

    def _pass_on(self, key: tuple[Endpoint, Endpoint], data: bytes) -> None:
        flow = self._flows.get(key)
        if flow is None:
            client, destination = key
            target = self._reach(destination)
            if target is None:
                return
            if len(self._flows) >= self._most:
                self._end(next(iter(self._flows)))
            flow = self._flows[key] = _Flow()
            flow.opening = self._loop.create_task(self._open(key, flow, client, destination, target))
        self._touch(key, flow)
        if flow.outer is not None:
            _send(flow.outer, data)
        elif len(flow.waiting) < _MOST_WAITING:
            flow.waiting.append(data)

    async def _open(
        self,
        key: tuple[Endpoint, Endpoint],
        flow: "_Flow",
        client: Endpoint,
        destination: Endpoint,
        target: Endpoint,
    ) -> None:
        try:
            inner = await self._answerer(client, destination)
            self.sockets.add(inner)
            flow.inner = inner
            family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
            outer = descriptors.opened(lambda: self._outer(family, socket.SOCK_DGRAM))
            self.sockets.add(outer)
            flow.outer = outer
            descriptors.leave_room(outer.fileno())
            outer.setblocking(False)
            outer.connect(target)
        except OSError:
            if self._flows.get(key) is flow:
                self._end(key)
            return
        self._loop.add_reader(inner, self._carry, key, flow, inner, outer)
        self._loop.add_reader(outer, self._carry, key, flow, outer, inner)
        for data in flow.waiting:
            _send(outer, data)
        flow.waiting.clear()

    def _carry(
        self, key: tuple[Endpoint, Endpoint], flow: "_Flow", source: socket.socket, sink: socket.socket
    ) -> None:
        for _ in range(_BATCH):
            try:
                data = source.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                continue  # what was sent before was refused; there may be more
            self._touch(key, flow)
            _send(sink, data)

    def _touch(self, key: tuple[Endpoint, Endpoint], flow: "_Flow") -> None:
        flow.last = self._loop.time()
        self._flows.move_to_end(key)
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._flows:
            key, flow = next(iter(self._flows.items()))
            left = flow.last + self._idle - now
            if left > 0:
                self._timer = self._loop.call_later(left, self._sweep)
                return
            self._end(key)

    def _end(self, key: tuple[Endpoint, Endpoint]) -> None:
        flow = self._flows.pop(key)
        if flow.opening is not None:
            flow.opening.cancel()
        for each in (flow.inner, flow.outer):
            if each is not None:
                self._loop.remove_reader(each)
                self.sockets.discard(each)
                each.close()


class _Flow:
    """One flow; ``inner`` and ``outer`` are there once it is open, ``waiting`` what came before."""

    def __init__(self) -> None:
        self.inner: socket.socket | None = None
        self.outer: socket.socket | None = None
        self.opening: asyncio.Task[None] | None = None
        self.waiting: list[bytes] = []
        self.last = 0.0


def _send(sink: socket.socket, data: bytes) -> None:
    try:
        sink.send(data)
    except OSError:
        return  # no room, or refused: lost


_open: "weakref.WeakSet[Flows]" = weakref.WeakSet()


def _forget() -> None:
    # A forked child has copies, which would go on receiving what the parent has closed.
    for flows in list(_open):
        for each in flows.sockets:
            each.close()
    _open.clear()


os.register_at_fork(after_in_child=_forget)
