"""A connected socket as a stream by TLS, on asyncio, which is cut for certain in the end.

Rules: whatever happens, also amid the handshake, no transport and no socket is left open when the block is left.
asyncio by itself leaves one where who waits for a handshake is cancelled before it has begun, or just as it is done:
then it waits for the peer's farewell, for half a minute.
Does not belong here: what is said, whom to trust (see `identity.tls`).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

from netwarren.mesh.accepting import turns


class _Protocol(asyncio.StreamReaderProtocol):
    """Knows its transport as soon as there is one, when nobody else does yet."""

    made: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.made = transport
        super().connection_made(transport)


@contextlib.asynccontextmanager
async def over_tls(
    connected: socket.socket, context: ssl.SSLContext, host: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """``connected``, which does not block and is closed in the end, as a stream; ``host`` is the server's name, which
    its certificate must have, and None at the server's end. Raises OSError where there is no handshake.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = _Protocol(reader)
    opening = asyncio.ensure_future(
        loop.connect_accepted_socket(lambda: protocol, connected, ssl=context)
        if host is None
        else loop.create_connection(lambda: protocol, sock=connected, ssl=context, server_hostname=host)
    )
    try:
        await asyncio.shield(opening)
        assert protocol.made is not None
        yield reader, asyncio.StreamWriter(protocol.made, protocol, reader, loop)
    finally:
        if not opening.done():
            await turns()
            opening.cancel()
            await asyncio.wait((opening,))
        if not opening.cancelled():
            opening.exception()  # it was told, or nobody waits for it any more
        if protocol.made is not None:
            protocol.made.abort()
            with contextlib.suppress(OSError):
                await asyncio.StreamWriter(protocol.made, protocol, reader, loop).wait_closed()
        connected.close()
