"""The name server's sockets in one pod: questions come in by UDP and TCP, and answers go back.

Rules: one loop; no client can hold up another's answer, nor make us keep more than so many questions and
connections; `DnsServer.close` leaves no task and no socket. TCP is as RFC 7766 wants it.
Does not belong here: making the sockets, and what comes between a question and its answer (see `resolver`).
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, TypeAlias, cast

from netwarren.mesh.dns.resolver import Transport

Answerer: TypeAlias = Callable[[bytes, Transport], Awaitable[bytes | None]]

IDLE = 5.0
"""Seconds that a TCP client may take for its next question, or to read its answers."""
MOST_DATAGRAMS = 1024
"""Questions by UDP under way; what comes beyond is lost, as packets are."""
MOST_CONNECTIONS = 100
"""The one that came first has to go for another."""
MOST_PIPELINED = 32
"""Questions under way of one connection; others wait in it."""


class DnsServer:
    """Answers by ``answer`` what comes through ``datagrams`` (UDP) and ``streams`` (TCP, listening).

    The sockets are bound, do not block, and are the server's from now on. ``async with`` starts and closes it.
    """

    def __init__(
        self, answer: Answerer, *, datagrams: Sequence[socket.socket], streams: Sequence[socket.socket]
    ) -> None:
        self._answer = answer
        self._sockets = (tuple(datagrams), tuple(streams))
        self._datagrams: list[_Datagrams] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._connections: dict[asyncio.Task[None], None] = {}  # the oldest first

    async def start(self) -> None:
        """Begin to answer; raises `OSError`, and then everything is closed."""
        loop = asyncio.get_running_loop()
        datagrams, streams = self._sockets
        try:
            for each in datagrams:
                _transport, protocol = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._on_datagram), sock=each
                )
                self._datagrams.append(protocol)
            for each in streams:
                self._servers.append(await asyncio.start_server(self._on_connection, sock=each))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End it, unanswered questions and all; again is fine."""
        self._closing = True
        for server in self._servers:
            server.close()
        for protocol in self._datagrams:
            protocol.transport.abort()
        ending = [*self._tasks, *self._connections]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for protocol in self._datagrams:
            await protocol.lost
        for server in self._servers:
            await server.wait_closed()
        await asyncio.sleep(0)  # an aborted transport closes its socket in the loop's next turn
        for sockets in self._sockets:  # those that no transport took, if one failed to start
            for each in sockets:
                each.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    def _on_datagram(self, data: bytes, back: Callable[[bytes], None]) -> None:
        if len(self._tasks) < MOST_DATAGRAMS:
            task = asyncio.get_running_loop().create_task(self._answer_datagram(data, back))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, data: bytes, back: Callable[[bytes], None]) -> None:
        answer = await self._answer(data, "udp")
        if answer is not None:
            back(answer)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: one that asyncio makes for a coroutine is reported as failed when it is cancelled (3.11).
        if self._closing:  # accepted before, and told only now
            writer.transport.abort()
            return
        staying = [task for task in self._connections if not task.cancelling()]
        if len(staying) >= MOST_CONNECTIONS:
            staying[0].cancel()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections[task] = None

        def ended(task: asyncio.Task[None]) -> None:
            del self._connections[task]
            writer.transport.abort()  # one that was cancelled before it began has not done it

        task.add_done_callback(ended)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
            async with asyncio.timeout(IDLE):
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError):
            pass  # of one client, who is gone, or does not read
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes, as answers get ready, until nothing more comes and all is answered."""
        room = asyncio.Semaphore(MOST_PIPELINED)
        async with asyncio.TaskGroup() as answers:
            while True:
                await room.acquire()
                try:
                    async with asyncio.timeout(IDLE):
                        length = int.from_bytes(await reader.readexactly(2), "big")
                        data = await reader.readexactly(length)
                except (OSError, EOFError):
                    return
                answers.create_task(self._answer_in_stream(data, writer, room))

    async def _answer_in_stream(
        self, data: bytes, writer: asyncio.StreamWriter, room: asyncio.Semaphore
    ) -> None:
        try:
            answer = await self._answer(data, "tcp")
            if answer is not None:
                writer.write(len(answer).to_bytes(2, "big") + answer)
                async with asyncio.timeout(IDLE):
                    await writer.drain()
        except OSError:
            writer.transport.abort()
        finally:
            room.release()


class _Datagrams(asyncio.DatagramProtocol):
    """One UDP socket; ``lost`` is done when it is closed."""

    transport: asyncio.DatagramTransport

    def __init__(self, on_datagram: Callable[[bytes, Callable[[bytes], None]], None]) -> None:
        self._on_datagram = on_datagram
        self._full = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own is none by its class

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        def back(answer: bytes) -> None:
            if not (self._full or self.transport.is_closing()):
                self.transport.sendto(answer, address)

        self._on_datagram(data, back)
