"""Two byte streams joined: what one sends the other gets, until both have sent all.

Rules: the end of one direction half-closes the other side and leaves the reverse open; a side that went away is
an end and no error; counters are called as bytes are written, not afterwards.
Does not belong here: opening the streams.
"""

import asyncio
import errno
from collections.abc import Callable
from typing import Literal, NamedTuple

from netwarren.mesh.hbone.stream import ByteStream

# (from how many bytes on, bytes read at a time), as ztunnel's src/copy.rs: memory of a stream that says little
# stays little, and 64 bytes less than whole TLS records leave room for the headers of a frame.
_SIZES = ((0, 1024), (128 << 10, 16384 - 64), (10 << 20, 16 * 16384 - 64))

_TURN = 1 << 20  # bytes after which other tasks get their turn

_Outcome = Literal["ended", "source lost", "sink lost"]


class Copied(NamedTuple):
    """How many bytes went each way."""

    sent: int
    received: int


async def copy_both_ways(
    client: ByteStream,
    server: ByteStream,
    *,
    on_sent: Callable[[int], None] | None = None,
    on_received: Callable[[int], None] | None = None,
) -> Copied:
    """Joins ``client`` and ``server`` until both directions have ended, then closes both.

    ``on_sent`` is told of bytes written to ``server``, ``on_received`` of those written to ``client``.
    Raises what a stream raises besides that its other side is gone (`StreamReset`); then, and when cancelled,
    both are aborted.
    """
    sent, received = _Direction(client, server, on_sent), _Direction(server, client, on_received)
    tasks = [asyncio.ensure_future(direction.run()) for direction in (sent, received)]
    try:
        await _until_done(tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        client.abort()
        server.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    await client.close()
    await server.close()
    return Copied(sent.count, received.count)


async def _until_done(tasks: "list[asyncio.Task[_Outcome]]") -> None:
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(task.result() == "source lost" for task in done):
            # Who reset the connection takes nothing any more.
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            return


class _Direction:
    def __init__(
        self, source: ByteStream, sink: ByteStream, on_written: Callable[[int], None] | None
    ) -> None:
        self._source = source
        self._sink = sink
        self._on_written = on_written
        self.count = 0

    async def run(self) -> _Outcome:
        read, write, on_written = self._source.read, self._sink.write, self._on_written
        sizes = list(_SIZES[1:])
        size = _SIZES[0][1]
        turn = 0
        outcome: _Outcome = "ended"
        while True:
            try:
                data = await read(size)
            except OSError as error:
                _refuse_unless_gone(error)
                outcome = "source lost"
                break
            if not data:
                break
            try:
                await write(data)
            except OSError as error:
                _refuse_unless_gone(error)
                return "sink lost"
            self.count += len(data)
            if on_written is not None:
                on_written(len(data))
            while sizes and self.count >= sizes[0][0]:
                size = sizes.pop(0)[1]
            turn += len(data)
            if turn > _TURN:
                turn = 0
                await asyncio.sleep(0)
        try:
            await self._sink.write_eof()
        except OSError as error:
            _refuse_unless_gone(error)
        return outcome


def _refuse_unless_gone(error: OSError) -> None:
    if not (isinstance(error, ConnectionResetError | BrokenPipeError) or error.errno == errno.ENOTCONN):
        raise error
