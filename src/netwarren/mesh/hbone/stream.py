"""Byte streams: what can be read, written, half-closed and cut; and the one over a TCP socket.

Rules: nothing is read before `read` is called, so a socket that is dropped unread resets its peer; a call that
can be served at once does not go through the loop.
Does not belong here: streams within a tunnel (see `tunnel_stream`), copying (see `copy`).
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Protocol

_LINGER_NONE = struct.pack("ii", 1, 0)  # struct linger of socket(7): close() sends RST


class ByteStream(Protocol):
    """Bytes both ways. One reader and one writer at a time.

    Where the other side is gone, `read` raises `ConnectionResetError` and `write` `BrokenPipeError` or
    `ConnectionResetError`; what else is raised is an error.
    """

    async def read(self, most: int) -> bytes:
        """The next bytes, ``most`` of them at the most; ``b""`` when the other side sends no more."""

    async def write(self, data: bytes) -> None:
        """Returns when all of ``data`` is on its way, or in a buffer that is not full."""

    async def write_eof(self) -> None:
        """Half-closes: the other side reads an end, and may still write."""

    def abort(self) -> None:
        """Cuts both ways at once; the other side sees a reset (RST, RST_STREAM)."""

    async def close(self) -> None:
        """Lets go of it: what was written still arrives, what is unread is lost. May be called again."""


class SocketStream:
    """A connected TCP socket (or one of a pair) on the running loop; it owns the socket and closes it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None

    async def read(self, most: int) -> bytes:
        while True:
            try:
                return self.socket.recv(most)
            except (BlockingIOError, InterruptedError):
                pass
            self._reading = self._loop.create_future()
            try:
                await self._ready(self._reading, self._loop.add_reader, self._loop.remove_reader)
            finally:
                self._reading = None

    async def write(self, data: bytes) -> None:
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            self._writing = self._loop.create_future()
            try:
                await self._ready(self._writing, self._loop.add_writer, self._loop.remove_writer)
            finally:
                self._writing = None
            try:
                rest = rest[self.socket.send(rest) :]
            except (BlockingIOError, InterruptedError):
                pass

    async def _ready(
        self,
        future: asyncio.Future[None],
        add: Callable[..., None],
        remove: Callable[[int], bool],
    ) -> None:
        descriptor = self.socket.fileno()
        if descriptor < 0:
            raise ConnectionResetError("the stream was closed")
        add(descriptor, _set, future)
        try:
            await future
        finally:
            if self.socket.fileno() == descriptor:  # else the number may be another socket's by now
                remove(descriptor)

    async def write_eof(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self._close()

    async def close(self) -> None:
        self._close()

    def _close(self) -> None:
        descriptor = self.socket.fileno()
        if descriptor < 0:
            return
        for future, remove in (
            (self._reading, self._loop.remove_reader),
            (self._writing, self._loop.remove_writer),
        ):
            if future is not None:
                remove(descriptor)
                if not future.done():
                    future.set_exception(ConnectionResetError("the stream was closed"))
        self.socket.close()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
