"""The name servers that know what the mesh does not: what the pod would ask if there were no proxy.

Rules: sockets come from the pod, live for one question, and are closed whatever happens; each server is tried
by UDP, and by TCP where the answer was cut; all in all there is a deadline.
Does not belong here: one exchange (see `client`), what is asked here at all (see `decision`).
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from netwarren.errors import MeshError, NetwarrenError
from netwarren.mesh.dns import client
from netwarren.mesh.model import SocketAddress
from netwarren.names.wire import PAYLOAD

MOST_AT_ONCE = 128
"""Questions under way, and so sockets; others wait for their turn, within their deadline."""

_FINAL = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


class SocketFactory(Protocol):
    """Who makes sockets in the pod, not blocking and not yet connected; may raise `OSError` or `NetwarrenError`."""

    def datagram(self, address: SocketAddress | None, family: int) -> socket.socket: ...

    def stream(self, family: int) -> socket.socket: ...


class UpstreamError(MeshError):
    """No name server has answered."""


class Upstream:
    """``servers`` as in the pod's resolv.conf, the first first.

    ``timeout`` seconds for one server at a time, ``attempts`` at each, and at most ``deadline`` seconds.
    """

    def __init__(
        self,
        servers: Sequence[SocketAddress],
        sockets: SocketFactory,
        *,
        timeout: float = 2.0,
        attempts: int = 2,
        deadline: float = 5.0,
    ) -> None:
        self._servers = tuple(servers)
        self._sockets = sockets
        self._timeout = timeout
        self._attempts = attempts
        self._deadline = deadline
        self._room = asyncio.Semaphore(MOST_AT_ONCE)

    async def ask(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, rdclass: dns.rdataclass.RdataClass
    ) -> dns.message.Message:
        """What the first server says that knows, or the last one that says it does not; raises `UpstreamError`."""
        query = dns.message.make_query(name, rdtype, rdclass, use_edns=0, payload=PAYLOAD)
        denial: dns.message.Message | None = None
        reason = "there is no name server to ask; the pod's resolv.conf names none"
        try:
            async with asyncio.timeout(self._deadline), self._room:
                for server in self._servers * self._attempts:
                    try:
                        response = await self._try(server, query)
                    except (OSError, NetwarrenError) as error:
                        reason = f"{server}: {str(error) or 'no answer'}"
                        continue
                    if response.rcode() in _FINAL:
                        return response
                    denial = response
        except TimeoutError:
            reason = f"no answer in {self._deadline:g} s"
        if denial is None:
            raise UpstreamError(f"{name} was not found: {reason}")
        return denial

    async def _try(self, server: SocketAddress, query: dns.message.Message) -> dns.message.Message:
        family = socket.AF_INET6 if server.address.version == 6 else socket.AF_INET
        async with asyncio.timeout(self._timeout):
            with self._sockets.datagram(None, family) as by_udp:
                await client.connect(by_udp, server)
                response = await client.ask(query, by_udp)
            if not response.flags & dns.flags.TC:
                return response
            with self._sockets.stream(family) as by_tcp:
                await client.connect(by_tcp, server)
                return await client.ask(query, by_tcp)
