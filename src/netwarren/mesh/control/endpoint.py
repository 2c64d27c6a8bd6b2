"""Where an authority or a control plane is served: its address, and connections to it.

Rules: ``https://HOST:PORT`` by TLS, trusted by roots that are given, its host's name checked; a connection for each call.
Does not belong here: what is said on a connection (see `grpc_client`), whose sockets they are.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from netwarren.errors import MeshConfigError
from netwarren.mesh.control.failure import Broken
from netwarren.mesh.control.tls_stream import over_tls
from netwarren.mesh.identity import tls

Connect = Callable[[int], Awaitable[socket.socket]]
"""A connected, non-blocking socket to a port of the endpoint's host."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``what`` it is, for errors; ``authority`` is ``HOST:PORT`` as its address, ``url``, has it."""

    what: str
    url: str
    authority: str
    host: str
    port: int
    _connect: Connect = field(repr=False)
    _context: ssl.SSLContext = field(repr=False)

    @classmethod
    def of(cls, what: str, address: str, roots: bytes, connect: Connect) -> Self:
        """The endpoint at ``address`` (``https://HOST:PORT``), trusted by ``roots`` (PEM). Raises `MeshConfigError`."""
        try:
            parts = urlsplit(address if "://" in address else f"https://{address}")
            port = parts.port or 443
        except ValueError:
            parts, port = urlsplit(""), 0
        if parts.scheme != "https" or not parts.hostname:
            raise MeshConfigError(f"the address of {what}, {address!r}, is none; write https://HOST:PORT")
        return cls(
            what, parts.geturl(), parts.netloc, parts.hostname, port, connect, tls.trusting_context(roots)
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, which is cut at the end. Raises `Broken` where there is none, and where it ends."""
        try:
            connected = await self._connect(self.port)
            async with over_tls(connected, self._context, self.host) as stream:
                yield stream
        except ssl.SSLError as error:
            raise Broken(f"{self.what} at {self.authority}: {tls.failed_handshake(error)}") from None
        except OSError as error:
            raise Broken(f"{self.what} at {self.authority} cannot be asked: {error}") from None
