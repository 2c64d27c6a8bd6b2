"""A program's pipes as asyncio's streams.

Rules: asyncio is imported by who opens streams; the pipes are closed with the block that opened them.
Does not belong here: output that is kept (see `output`).
"""

import contextlib
from collections.abc import AsyncIterator
from typing import IO, TYPE_CHECKING, Any

from netwarren.errors import ConfigurationError

if TYPE_CHECKING:
    import asyncio


@contextlib.asynccontextmanager
async def open_streams(
    label: str, stdin: IO[Any] | None, stdout: IO[Any] | None
) -> "AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]":
    """A reader of ``stdout`` and a writer to ``stdin``; see `Program.streams`."""
    import asyncio

    if stdin is None or stdout is None:
        raise ConfigurationError(f"{label} has no pipes; start it with stdin=PIPE, stdout=PIPE")
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "streams() is for asyncio; in trio, use trio.lowlevel.FdStream(os.dup(program.stdout.fileno()))"
        ) from None
    reader = asyncio.StreamReader(loop=loop)
    incoming, _protocol = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdout)
    try:
        outgoing, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop)), stdin
        )
    except BaseException:
        incoming.close()
        raise
    writer = asyncio.StreamWriter(outgoing, protocol, None, loop)
    try:
        yield reader, writer
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    finally:
        incoming.close()
        if not outgoing.is_closing() or outgoing.get_write_buffer_size():
            outgoing.abort()
        await asyncio.sleep(0)  # in which the loop closes both
