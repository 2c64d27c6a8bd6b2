"""HBONE within HBONE: through a network's gateway to a workload of that network, which sees our certificate.

Rules: the inner connection carries one stream, is never used again and ends with it; the outer stream is its own.
Does not belong here: the outer connection (see `pool`), whether a gateway is in between.
"""

import ssl

from netwarren.mesh.config import Http2Settings
from netwarren.mesh.hbone.events import Headers
from netwarren.mesh.hbone.stream import ByteStream
from netwarren.mesh.hbone.tls import Verify
from netwarren.mesh.hbone.transport import OpenedStream, Tunnel


async def open_within(
    outer: ByteStream,
    context: ssl.SSLContext,
    authority: str,
    headers: Headers = (),
    *,
    verify: Verify | None = None,
    settings: Http2Settings = Http2Settings(),  # noqa: B008 (frozen)
) -> tuple[OpenedStream, Tunnel]:
    """A second handshake and CONNECT within the stream ``outer``: the inner stream and its tunnel.

    ``outer`` is given away, also where this raises. Raises as `Tunnel.connect` and `Tunnel.open_stream` do.
    """
    tunnel = await Tunnel.connect(outer, context, verify=verify, settings=settings)
    try:
        opened = await tunnel.open_stream(authority, headers)
    except BaseException:
        await tunnel.close()
        raise
    tunnel.release()
    return opened, tunnel
