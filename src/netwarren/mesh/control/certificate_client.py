"""Certificates from an authority elsewhere, by Istio's certificate service: for a proxy in a process of its own.

Rules: a connection for each call, with a time limit for all of it; the key is made here and stays in memory.
Does not belong here: what is asked and answered (see `certificate_service`), connections (see `endpoint`), keeping it
fresh (see `identity.secrets`).
"""

import asyncio

from netwarren.errors import MeshError
from netwarren.mesh.control import grpc_client
from netwarren.mesh.control.certificate_service import PATH, decode_answer, encode_request, new_key
from netwarren.mesh.control.credentials import Credentials
from netwarren.mesh.control.endpoint import Endpoint
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.model import Identity

SECONDS = 10.0
"""For one certificate."""


class CertificateClient:
    """Asks the ``authority``; `fetch` is an `identity.secrets.Fetch`.

    ``impersonates``: it asks for its pods' identities rather than for its own, as a shared ztunnel does. ``credentials``
    are who it says that it is, by default nobody.
    """

    def __init__(
        self,
        authority: Endpoint,
        *,
        lifetime: float,
        impersonates: bool,
        credentials: Credentials | None = None,
    ) -> None:
        self._authority = authority
        self._lifetime = lifetime
        self._impersonates = impersonates
        self._credentials = credentials or Credentials()

    async def fetch(self, identity: Identity) -> Certificate:
        """A new certificate for ``identity``; raises `MeshError`."""
        key = new_key(identity)
        message = encode_request(key.request, self._lifetime, identity if self._impersonates else None)
        headers = self._credentials.headers()
        try:
            async with asyncio.timeout(SECONDS), self._authority.open() as (reader, writer):
                answer = await grpc_client.call(
                    reader, writer, self._authority.authority, PATH, message, headers
                )
        except TimeoutError:
            raise MeshError(
                f"{self._authority.what} at {self._authority.authority} has not answered in {SECONDS:g} s"
            ) from None
        return decode_answer(answer, identity, key.key)
