"""Forwarding of TCP: who connects to a listening socket is connected with somebody in another network.

Rules: on the host thread's loop alone; whoever cannot be connected on is reset, and so are both ends when
one of them is; an end of one direction is passed on as such; what is read is written before more is read.
Does not belong here: where a connection goes on (an `Opener` says it), datagrams (see `flows`).
"""

import asyncio
import contextlib
import os
import socket
import struct
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from netwarren.kernel import descriptors

Opener: TypeAlias = Callable[[socket.socket], Awaitable[socket.socket]]
"""Connects on for an accepted socket, or raises OSError."""
Endpoint: TypeAlias = tuple[str, int]
"""An address and a port."""
Maker: TypeAlias = Callable[[int], Awaitable[socket.socket]]
"""Makes a socket of an address family, in the network that it is to connect in."""

BACKLOG = 1024
_CHUNK = 1 << 16  # below what malloc takes from the kernel anew each time
_TURN = 16  # chunks, before others get a turn
_BATCH = 64  # connections at a time
_PAUSE = 0.05  # seconds, where no more can be accepted for now
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time at all

_forwarders: "weakref.WeakSet[Forwarder]" = weakref.WeakSet()


class Forwarder:
    """Listening sockets and the connections that came of them, until `close`."""

    def __init__(self) -> None:
        self.sockets: set[socket.socket] = set()
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        _forwarders.add(self)

    def listen(self, listener: socket.socket, opener: Opener) -> None:
        """From now on, connect on who connects to ``listener``, which is closed with this."""
        listener.setblocking(False)
        self.sockets.add(listener)
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._accept, listener, opener)

    async def close(self) -> None:
        """Close every socket, the listening ones first; connections are reset. Again is fine."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        self._listeners.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    async def connect(self, candidates: Iterable[Endpoint], make: Maker) -> socket.socket:
        """For an `Opener`: a connection to the first of ``candidates`` that takes it, or its last OSError."""
        failure: OSError = ConnectionRefusedError()
        for address in candidates:
            made = None
            try:
                made = await make(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
                self.sockets.add(made)
                made.setblocking(False)
                await self._loop.sock_connect(made, address)
                return made
            except BaseException as error:
                if made is not None:
                    self.sockets.discard(made)
                    made.close()
                if not isinstance(error, OSError):
                    raise
                failure = error
        raise failure

    def _accept(self, listener: socket.socket, opener: Opener) -> None:
        for _ in range(_BATCH):
            try:
                connection, _address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors or memory: some may be given back
                self._loop.remove_reader(listener)
                self._loop.call_later(_PAUSE, self._resume, listener, opener)
                return
            connection.setblocking(False)
            self.sockets.add(connection)
            descriptors.leave_room(connection.fileno())
            task = self._loop.create_task(self._serve(connection, opener))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _resume(self, listener: socket.socket, opener: Opener) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener, opener)

    async def _serve(self, connection: socket.socket, opener: Opener) -> None:
        other = None
        try:
            other = await opener(connection)
            await relay(connection, other)
        except BaseException as failure:
            for each in (connection, other):
                if each is not None:
                    with contextlib.suppress(OSError):
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if not isinstance(failure, (OSError, asyncio.CancelledError)):
                raise
        finally:
            for each in (connection, other):
                if each is not None:
                    self.sockets.discard(each)
                    each.close()


async def relay(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both ends have ended; raises OSError where one of them is reset."""
    for each in (one, other):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # when to send, their owners know
    directions = (_Direction(one, other), _Direction(other, one))
    try:
        for direction in directions:
            direction.begin()
        await asyncio.gather(*(direction.ended for direction in directions))
    finally:
        for direction in directions:
            direction.stop()


class _Direction:
    """One direction of a connection; by callbacks, because a task with a future for each chunk takes twice as long."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._sink = sink
        self._left = b""
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def begin(self) -> None:
        self._loop.add_reader(self._source, self._read)

    def stop(self) -> None:
        """Leave both sockets to themselves; again is fine."""
        self._unwatch()
        if self.ended.done() and not self.ended.cancelled():
            self.ended.exception()  # seen: of two failures, one is told
        self.ended.cancel()

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)

    def _read(self) -> None:
        try:
            for _ in range(_TURN):
                chunk = self._source.recv(_CHUNK)
                if not chunk:
                    self._end()
                    return
                if not self._send(chunk):
                    self._loop.remove_reader(self._source)  # until it is written
                    self._loop.add_writer(self._sink, self._write)
                    return
        except BlockingIOError:
            return
        except OSError as failure:
            self._fail(failure)

    def _write(self) -> None:
        try:
            if self._send(self._left):
                self._loop.remove_writer(self._sink)
                self._loop.add_reader(self._source, self._read)
        except OSError as failure:
            self._fail(failure)

    def _send(self, chunk: bytes) -> bool:
        """Whether all of it went; what did not is `_left`."""
        try:
            sent = self._sink.send(chunk)
        except BlockingIOError:
            sent = 0
        self._left = chunk[sent:]
        return not self._left

    def _end(self) -> None:
        self._loop.remove_reader(self._source)
        with contextlib.suppress(OSError):  # gone altogether: the other direction hears of it
            self._sink.shutdown(socket.SHUT_WR)
        if not self.ended.done():
            self.ended.set_result(None)

    def _fail(self, failure: OSError) -> None:
        self._unwatch()
        if not self.ended.done():
            self.ended.set_exception(failure)


async def here(family: int) -> socket.socket:
    """A `Maker` of sockets in the host's network."""
    return descriptors.opened(lambda: socket.socket(family))


def _forget() -> None:
    # A forked child has copies, which would keep connections open that the parent closes.
    for forwarder in list(_forwarders):
        for each in forwarder.sockets:
            each.close()
    _forwarders.clear()


os.register_at_fork(after_in_child=_forget)
