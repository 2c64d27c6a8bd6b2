"""TCP connections that the proxy makes from a pod.

Rules: what fails is said in the words and with the response flag of ztunnel; nothing is left of what failed.
Does not belong here: where to connect to, TLS.
"""

import asyncio
import os
import socket
from typing import Protocol

from netwarren.errors import KernelError
from netwarren.mesh.hbone.failure import ConnectFailed, ConnectTimedOut
from netwarren.mesh.hbone.stream import SocketStream
from netwarren.mesh.model import SocketAddress
from netwarren.topology.addresses import Address


class Streams(Protocol):
    """Who makes unconnected TCP sockets (`inpod.sockets.PodSockets`)."""

    def stream(self, family: int, *, source: Address | None = None) -> socket.socket: ...


async def dial(
    sockets: Streams,
    address: SocketAddress,
    *,
    seconds: float,
    source: Address | None = None,
    hbone: bool = False,
) -> SocketStream:
    """A connection to ``address``, from ``source`` if given, within ``seconds``.

    Raises `ConnectFailed`; `ConnectTimedOut`, which speaks of policies, where it was for an HBONE port.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET if address.address.version == 4 else socket.AF_INET6
    try:
        made = sockets.stream(family, source=source)
    except KernelError as error:
        raise ConnectFailed(address, error) from None
    try:
        async with asyncio.timeout(seconds):
            await loop.sock_connect(made, (str(address.address), address.port))
    except TimeoutError:
        made.close()
        if hbone:
            raise ConnectTimedOut(address, seconds) from None
        raise ConnectFailed(address, f"no answer within {seconds:g} s") from None
    except OSError as error:
        made.close()
        raise ConnectFailed(address, os.strerror(error.errno or 0)) from None
    except BaseException:
        made.close()
        raise
    return SocketStream(made)
