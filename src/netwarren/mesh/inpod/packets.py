"""Packets with descriptors, over a Unix socket of type SOCK_SEQPACKET, on an asyncio loop; unix(7).

Rules: a descriptor that came is the receiver's to close, and closed here where it is not handed over; nothing is
lost where a wait is cancelled or over; an error of the connection is an OSError.
Does not belong here: what the packets say (see `zds`).
"""

import array
import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from netwarren.errors import MeshError

# Of the kernel's 253 (SCM_MAX_FD): one is what is right, and some more are told from it.
_MOST_DESCRIPTORS = 8
_INT = array.array("i").itemsize


class Packet(NamedTuple):
    """What came in one packet; no data: the other side has closed the connection."""

    data: bytes
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Close the descriptors, which must not have been closed yet."""
        close_all(self.descriptors)


def close_all(descriptors: Sequence[int]) -> None:
    """Close all of them, whatever becomes of one."""
    for each in descriptors:
        try:
            os.close(each)
        except OSError:
            continue


class PacketSocket:
    """A connected socket, and the loop that waits for it; used by one task at a time."""

    def __init__(self, sock: socket.socket, most_bytes: int) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._most_bytes = most_bytes
        self._waiting: asyncio.Future[bool] | None = None

    def close(self) -> None:
        """Close the socket; again is fine."""
        self._socket.close()

    async def readable(self, seconds: float | None = None) -> bool:
        """Wait until `receive_now` has something; False after ``seconds``, or `wake`, if nothing came."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        try:
            return await _until(loop.add_reader, loop.remove_reader, self._socket, self._waiting, seconds)
        finally:
            self._waiting = None

    def wake(self) -> None:
        """End a wait of `readable`, if there is one; on the loop's thread."""
        if self._waiting is not None:
            _settle(self._waiting, False)

    def receive_now(self) -> Packet | None:
        """The packet that waits, or None. Raises OSError, and `MeshError` for one that is too long.

        Its descriptors are close-on-exec.
        """
        room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * _INT)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(self._most_bytes, room, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        found = tuple(_descriptors(ancillary))
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            close_all(found)
            what = "bytes" if flags & socket.MSG_TRUNC else "descriptors"
            raise MeshError(
                f"a packet has more {what} than are read at once ({self._most_bytes} bytes, {_MOST_DESCRIPTORS} descriptors)"
            )
        return Packet(data, found)

    async def receive(self) -> Packet:
        """The next packet; raises as `receive_now` does."""
        while (packet := self.receive_now()) is None:
            await self.readable()
        return packet

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one packet; ``descriptors`` stay the caller's."""
        ancillary = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
                return
            except (BlockingIOError, InterruptedError):
                await _until(loop.add_writer, loop.remove_writer, self._socket, loop.create_future())


async def accepted(listening: socket.socket) -> socket.socket:
    """The next connection to a socket that listens, and does not block."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            made, _ = listening.accept()
            return made
        except (BlockingIOError, InterruptedError):
            await _until(loop.add_reader, loop.remove_reader, listening, loop.create_future())


async def _until(
    watch: Callable[..., Any],
    forget: Callable[[Any], Any],
    sock: socket.socket,
    came: "asyncio.Future[bool]",
    seconds: float | None = None,
) -> bool:
    watch(sock, _settle, came, True)
    timer = None if seconds is None else came.get_loop().call_later(seconds, _settle, came, False)
    try:
        return await came
    finally:
        if sock.fileno() >= 0:
            forget(sock)
        if timer is not None:
            timer.cancel()


def _settle(future: "asyncio.Future[bool]", result: bool) -> None:
    if not future.done():
        future.set_result(result)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % _INT])
    return found.tolist()
