"""Asking a name server through a socket that is given: one question by UDP, or any number by TCP.

Rules: on the running loop; only an answer to the question that was asked counts (RFC 5452, section 3); the
caller closes the socket, and says how long it waits.
Does not belong here: whom to ask, and whom next (see `upstream`).
"""

import asyncio
import socket

import dns.flags
import dns.message

from netwarren.errors import MeshError
from netwarren.mesh.model import SocketAddress
from netwarren.names.wire import LONGEST, PAYLOAD


async def lookup(
    name: str,
    type: str,
    server: SocketAddress,
    *,
    through: socket.socket,
    payload: int | None = PAYLOAD,
    timeout: float = 10.0,
) -> dns.message.Message:
    """Ask ``server`` for the records of ``name``, through a socket that was not yet used.

    By UDP or TCP, as the socket is; there is no search list, and a TC bit is the caller's to see. ``payload``
    is how many bytes of answer are taken by UDP, None is without EDNS; ``timeout`` is in seconds. Records
    stay one by one, in their order. Raises `TimeoutError`, `OSError`, and `MeshError` for no answer.
    """
    query = dns.message.make_query(name, type, use_edns=payload is not None and 0, payload=payload or 0)
    async with asyncio.timeout(timeout):
        await connect(through, server)
        return await ask(query, through)


async def connect(through: socket.socket, server: SocketAddress) -> None:
    """Connect a socket to ``server``, so that it hears from nobody else; raises `OSError`."""
    through.setblocking(False)
    where = (str(server.address), server.port)
    if through.type == socket.SOCK_DGRAM:
        through.connect(where)
    else:
        await asyncio.get_running_loop().sock_connect(through, where)


async def ask(query: dns.message.Message, through: socket.socket) -> dns.message.Message:
    """The answer to ``query`` through a connected socket; raises `OSError`, and `MeshError` for no answer."""
    loop = asyncio.get_running_loop()
    data = query.to_wire()
    if through.type == socket.SOCK_DGRAM:
        await loop.sock_sendall(through, data)
        while True:  # somebody may guess, and be faster
            response = _answer_in(await loop.sock_recv(through, LONGEST), query)
            if response is not None:
                return response
    await loop.sock_sendall(through, len(data).to_bytes(2, "big") + data)
    length = int.from_bytes(await _exactly(through, 2), "big")
    response = _answer_in(await _exactly(through, length), query)
    if response is None:
        raise MeshError(f"what came is no answer to {query.question[0]}; is that a name server?")
    return response


def _answer_in(data: bytes, query: dns.message.Message) -> dns.message.Message | None:
    try:
        # One that is cut (TC) may end in the middle of a record.
        response = dns.message.from_wire(data, one_rr_per_rrset=True, continue_on_error=True)
    except Exception:  # of dnspython's kinds, and those that it lets through
        return None
    if response.errors and not response.flags & dns.flags.TC:
        return None
    return response if query.is_response(response) else None


async def _exactly(through: socket.socket, number: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < number:
        more = await loop.sock_recv(through, number - len(data))
        if not more:
            raise ConnectionResetError("the name server ended the connection before its answer was whole")
        data += more
    return data
