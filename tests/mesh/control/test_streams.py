"""A server's end of gRPC's streams and unary calls, against a client of HTTP/2 in memory: how long messages may be."""

import struct
from ipaddress import ip_address
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, StreamReset

from netwarren.mesh.control.discovery import Discovery
from netwarren.mesh.control.grpc import MOST_BYTES, MOST_STREAMED_BYTES
from netwarren.mesh.control.grpc_server import ServerConnection
from netwarren.mesh.control.messages import ADDRESS, DISCOVERY_API, DISCOVERY_PATH
from netwarren.mesh.control.resources import resources_of
from netwarren.mesh.model import Workload
from netwarren.mesh.state.local_config import Config

_REQUEST = DISCOVERY_API["DeltaDiscoveryRequest"]
_RESPONSE = DISCOVERY_API["DeltaDiscoveryResponse"]


def framed(message: bytes, length: int | None = None) -> bytes:
    """A message as gRPC sends it; ``length`` is what it says of itself, if that is not the truth."""
    return struct.pack("!?I", False, len(message) if length is None else length) + message


class Client:
    """A client with one call to ``path``."""

    def __init__(self, found: Discovery, path: str) -> None:
        self.heard: list[Event] = []
        self._said: list[bytes] = []
        self._server = ServerConnection(
            {"/a.B/C": bytes}, {DISCOVERY_PATH: found.subscribe}, self._said.append
        )
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._stream = self._h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", path)]
        self._h2.send_headers(self._stream, headers)
        self._exchange()

    def say(self, data: bytes) -> None:
        """Send all of it, as fast as the server lets it."""
        while data and self.reset is None:
            size = min(
                len(data),
                self._h2.local_flow_control_window(self._stream),
                self._h2.max_outbound_frame_size,
            )
            assert size > 0
            self._h2.send_data(self._stream, data[:size])
            data = data[size:]
            self._exchange()

    def _exchange(self) -> None:
        while data := self._h2.data_to_send():
            self._server.receive(data)
            for event in self._h2.receive_data(b"".join(self._said)):
                if isinstance(event, DataReceived):
                    self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                self.heard.append(event)
            self._said.clear()

    @property
    def reset(self) -> int | None:
        """By which code the server has reset the stream."""
        return next((each.error_code for each in self.heard if isinstance(each, StreamReset)), None)

    @property
    def response(self) -> Any:
        """The one response that there is."""
        data = b"".join(each.data or b"" for each in self.heard if isinstance(each, DataReceived))
        found = _RESPONSE()
        found.ParseFromString(data[5:])
        return found


def mesh(size: int) -> Discovery:
    workloads = [
        Workload(
            f"cluster1//v1/Pod/default/workload-{number}", "w", "default", (ip_address(0x0A000000 + number),)
        )
        for number in range(size)
    ]
    return Discovery(resources_of(Config(tuple(workloads))))


def test_one_that_comes_again_with_thousands_of_versions_is_sent_the_difference() -> None:
    found = mesh(3000)
    first = Client(found, DISCOVERY_PATH)
    first.say(framed(_REQUEST(type_url=ADDRESS).SerializeToString()))
    again = _REQUEST(type_url=ADDRESS)
    for each in first.response.resources[1:]:
        again.initial_resource_versions.add(key=each.name, value=each.version)
    assert again.ByteSize() > 65_535  # more than a window
    client = Client(found, DISCOVERY_PATH)
    client.say(framed(again.SerializeToString()))
    assert client.reset is None
    assert [each.name for each in client.response.resources] == [first.response.resources[0].name]


def test_a_message_that_would_be_too_long_is_refused_before_it_has_come() -> None:
    found = mesh(1)
    client = Client(found, DISCOVERY_PATH)
    client.say(framed(bytes(1000), MOST_STREAMED_BYTES + 1))
    assert client.reset == ErrorCodes.ENHANCE_YOUR_CALM
    assert found.subscribers == []


def test_a_call_of_one_message_is_refused_when_too_much_of_it_has_come() -> None:
    client = Client(mesh(1), "/a.B/C")
    client.say(framed(bytes(MOST_BYTES - 5)))
    assert client.reset is None
    client.say(b"more")
    assert client.reset == ErrorCodes.ENHANCE_YOUR_CALM
