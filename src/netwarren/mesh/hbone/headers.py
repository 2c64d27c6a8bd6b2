"""`h2` set up for tunnels, and the headers that it takes and gives.

Rules: what is announced to the peer are the settings that ztunnel announces, as `Http2Settings`
has them; headers come from `h2` as bytes, for a peer may send bytes that are no text.
Does not belong here: which frames reach `h2` (see `connection`).
"""

from typing import Literal, TypeAlias

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from netwarren.mesh.config import Http2Settings
from netwarren.mesh.hbone.events import Headers

Role: TypeAlias = Literal["client", "server"]


def begin(role: Role, settings: Http2Settings, most_headers: int) -> H2Connection:
    """A connection that has announced ``settings``, with a header list of ``most_headers`` bytes at the most."""
    client = role == "client"
    h2 = H2Connection(H2Configuration(client_side=client, header_encoding=None))
    announced = {
        SettingCodes.INITIAL_WINDOW_SIZE: settings.stream_window,
        SettingCodes.MAX_FRAME_SIZE: settings.frame_size,
        SettingCodes.MAX_HEADER_LIST_SIZE: most_headers,
    }
    if client:
        announced[SettingCodes.ENABLE_PUSH] = 0
    else:
        announced[SettingCodes.MAX_CONCURRENT_STREAMS] = settings.server_max_streams
    h2.local_settings = Settings(client=client, initial_values=announced)
    h2.decoder.max_header_list_size = most_headers
    h2.initiate_connection()
    # h2 ends the connection of a client that opens one stream too many; ours refuses the stream (8.1.4).
    announced[SettingCodes.MAX_CONCURRENT_STREAMS] = 2 * settings.server_max_streams
    h2.local_settings = Settings(client=client, initial_values=announced)
    h2.max_inbound_frame_size = max(most_headers, 16384)
    return h2


def encoded(headers: Headers) -> list[tuple[str, str]]:
    """Headers as `h2` takes them."""
    return [(name.lower(), value) for name, value in headers]


def decoded(headers: object) -> list[tuple[str, str]]:
    """Headers of `h2`, pseudo-headers too, one character a byte."""
    assert isinstance(headers, list)
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def without_pseudo(fields: list[tuple[str, str]]) -> Headers:
    """All but ``:method`` and its like."""
    return tuple(field for field in fields if not field[0].startswith(":"))
