"""Certificates from an authority elsewhere, by Istio's certificate service: for a proxy in a process of its own.

Rules: a connection for each call, with a time limit for all of it; the key is made here and stays in memory.
Does not belong here: what is asked and answered (see `certificate_service`), keeping it fresh (see `identity.secrets`).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from netwarren.errors import MeshConfigError, MeshError
from netwarren.mesh.control import grpc
from netwarren.mesh.control.certificate_service import PATH, decode_answer, encode_request, new_key
from netwarren.mesh.control.credentials import Credentials
from netwarren.mesh.identity import tls
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.model import Identity

SECONDS = 10.0
"""For one certificate."""

Connect = Callable[[int], Awaitable[socket.socket]]
"""A connected, non-blocking socket to a port of the authority's host."""


class CertificateClient:
    """Asks the authority at ``address`` (``https://HOST:PORT``); `fetch` is an `identity.secrets.Fetch`.

    ``roots`` (PEM) are what its server's certificate is trusted by. ``impersonates``: it asks for its pods' identities
    rather than for its own, as a shared ztunnel does. ``credentials`` are who it says that it is, by default nobody.
    Raises `MeshConfigError` for an address that is none.
    """

    def __init__(
        self,
        address: str,
        roots: bytes,
        connect: Connect,
        *,
        lifetime: float,
        impersonates: bool,
        credentials: Credentials | None = None,
    ) -> None:
        parts = urlsplit(address if "://" in address else f"https://{address}")
        if parts.scheme != "https" or not parts.hostname:
            raise MeshConfigError(f"the authority's address {address!r} is none; write https://HOST:PORT")
        self._host = parts.hostname
        self._port = parts.port or 443
        self._authority = parts.netloc
        self._context = tls.trusting_context(roots)
        self._connect = connect
        self._lifetime = lifetime
        self._impersonates = impersonates
        self._credentials = credentials or Credentials()

    async def fetch(self, identity: Identity) -> Certificate:
        """A new certificate for ``identity``; raises `MeshError`."""
        key = new_key(identity)
        message = encode_request(key.request, self._lifetime, identity if self._impersonates else None)
        headers = self._credentials.headers()
        try:
            async with asyncio.timeout(SECONDS):
                answer = await self._call(message, headers)
        except TimeoutError:
            raise MeshError(f"the authority at {self._authority} has not answered in {SECONDS:g} s") from None
        except ssl.SSLError as error:
            raise MeshError(f"the authority at {self._authority}: {tls.failed_handshake(error)}") from None
        except OSError as error:
            raise MeshError(f"the authority at {self._authority} cannot be asked: {error}") from None
        return decode_answer(answer, identity, key.key)

    async def _call(self, message: bytes, headers: list[tuple[str, str]]) -> bytes:
        connected = await self._connect(self._port)
        try:
            reader, writer = await asyncio.open_connection(
                sock=connected, ssl=self._context, server_hostname=self._host
            )
        except BaseException:
            connected.close()
            raise
        try:
            return await grpc.call(reader, writer, self._authority, PATH, message, headers)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
