"""HTTP/2 connections of tunnels, bytes carried by hand between two ends, or to h2 as another implementation."""

import struct

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, StreamReset
from h2.events import ResponseReceived as H2Response
from h2.settings import SettingCodes

from netwarren.mesh.config import Http2Settings
from netwarren.mesh.hbone import frames
from netwarren.mesh.hbone.connection import Connection
from netwarren.mesh.hbone.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    RequestReceived,
    RequestRejected,
    ResponseReceived,
    StreamEnded,
    StreamWasReset,
    WindowOpened,
)
from netwarren.mesh.hbone.failure import ConnectionLost, Http2Failure, StreamGone
from netwarren.mesh.hbone.frames import PREFACE, Frame, FrameSplitter, frame_header

SMALL = Http2Settings(stream_window=1000, connection_window=65535, frame_size=16384)


class Ends:
    """A client and a server connection, and what happened at each."""

    def __init__(self, settings: Http2Settings = Http2Settings()) -> None:  # noqa: B008
        self.client = Connection("client", settings, 0.0)
        self.server = Connection("server", settings, 0.0)
        self.at_client: list[Event] = []
        self.at_server: list[Event] = []
        self.shuffle()

    def shuffle(self, now: float = 0.0) -> None:
        while self.client.pending or self.server.pending:
            self.at_server += self.server.receive(self.client.take(), now)
            self.at_client += self.client.receive(self.server.take(), now)

    def open(self, authority: str = "10.0.0.1:80") -> int:
        stream = self.client.open_stream(authority, ())
        self.shuffle()
        self.server.respond(stream, 200)
        self.shuffle()
        return stream

    def received(self, stream: int, *, server: bool = True) -> bytes:
        events = self.at_server if server else self.at_client
        return b"".join(
            bytes(e.data) for e in events if isinstance(e, DataReceived) and e.stream_id == stream
        )


def h2_client() -> tuple[H2Connection, Connection]:
    """h2's client, which knows the settings of our server."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    server = Connection("server", Http2Settings(), 0.0)
    server.receive(client.data_to_send(), 0.0)
    client.receive_data(server.take())
    server.receive(client.data_to_send(), 0.0)
    server.take()
    return client, server


CONNECT = [(":method", "CONNECT"), (":authority", "10.0.0.1:80")]


def goaway_of(data: bytes) -> tuple[int, int, bytes]:
    splitter = FrameSplitter(server=False, most_data=1 << 20, most_other=1 << 20)
    for part in splitter.feed(data):
        if isinstance(part, Frame) and part.kind == frames.GOAWAY:
            return frames.read_goaway(part)
    raise AssertionError("no GOAWAY")


# --- tunnels ----------------------------------------------------------------------------------------


def test_a_request_has_its_authority_and_headers_and_no_other_pseudo_headers() -> None:
    ends = Ends()
    stream = ends.client.open_stream("10.0.0.1:80", (("baggage", "k8s.pod.name=a"), ("Forwarded", 'for="1"')))
    ends.shuffle()
    assert ends.at_server[-1] == RequestReceived(
        stream, "10.0.0.1:80", (("baggage", "k8s.pod.name=a"), ("forwarded", 'for="1"'))
    )


def test_an_answer_has_its_status_and_headers() -> None:
    ends = Ends()
    stream = ends.client.open_stream("10.0.0.1:80", ())
    ends.shuffle()
    ends.server.respond(stream, 200, (("baggage", "x=y"),))
    ends.shuffle()
    assert ResponseReceived(stream, 200, (("baggage", "x=y"),), False) in ends.at_client


def test_bytes_go_both_ways_and_each_direction_ends_alone() -> None:
    ends = Ends()
    stream = ends.open()
    ends.client.send(stream, b"ping")
    ends.client.end(stream)
    ends.shuffle()
    assert ends.received(stream) == b"ping"
    assert ends.at_server[-1] == StreamEnded(stream)
    ends.server.send(stream, b"pong")
    ends.shuffle()
    assert ends.received(stream, server=False) == b"pong"
    ends.server.end(stream)
    ends.shuffle()
    assert ends.at_client[-1] == StreamEnded(stream)


def test_a_refusal_is_an_answer_without_a_body() -> None:
    ends = Ends()
    stream = ends.client.open_stream("10.0.0.1:80", ())
    ends.shuffle()
    ends.server.respond(stream, 401, end=True)
    ends.shuffle()
    assert ResponseReceived(stream, 401, (), True) in ends.at_client
    assert ends.server.stream_count == 0


def test_another_implementation_sees_a_refusal_end_its_stream() -> None:
    client, server = h2_client()
    client.send_headers(1, CONNECT)
    server.receive(client.data_to_send(), 0.0)
    server.respond(1, 503, end=True)
    response, *_ = client.receive_data(server.take())
    assert isinstance(response, H2Response)
    assert response.stream_ended is not None
    assert dict(response.headers or []) == {b":status": b"503"}


@pytest.mark.parametrize(
    ("request_headers", "asked"),
    [
        ([(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")], "GET"),
        (
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":path", "/"),
                (":authority", "a"),
                ("content-length", "3"),
            ],
            "POST",
        ),
        (
            [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":path", "/"),
                (":authority", "a"),
            ],
            "CONNECT for websocket",
        ),
        ([(":method", "CONNECT"), (":authority", "")], "CONNECT"),
    ],
    ids=["GET", "POST", "extended CONNECT", "CONNECT to nothing"],
)
def test_what_is_no_plain_connect_to_something_gets_400(
    request_headers: list[tuple[str, str]], asked: str
) -> None:
    client, server = h2_client()
    client.config.validate_outbound_headers = False
    client.send_headers(1, request_headers)
    client.send_data(1, b"abc", end_stream=True)
    events = server.receive(client.data_to_send(), 0.0)
    assert events == [RequestRejected(1, asked)]
    response, *_ = client.receive_data(server.take())
    assert isinstance(response, H2Response)
    assert dict(response.headers or [])[b":status"] == b"400"
    client.send_headers(3, CONNECT)
    assert isinstance(server.receive(client.data_to_send(), 0.0)[0], RequestReceived)


def test_padding_is_no_data_and_is_given_back() -> None:
    client, server = h2_client()
    client.send_headers(1, CONNECT)
    server.receive(client.data_to_send(), 0.0)
    server.respond(1, 200)
    client.receive_data(server.take())
    for _ in range(6000):  # more than the window, if padding stayed counted
        client.send_data(1, b"x", pad_length=255)
        (event,) = server.receive(client.data_to_send(), 0.0)
        assert isinstance(event, DataReceived)
        assert bytes(event.data) == b"x"
        client.receive_data(server.take())
    assert client.local_flow_control_window(1) > 2 << 20


def test_a_large_frame_passes_in_pieces_before_it_is_whole() -> None:
    ends = Ends()
    stream = ends.open()
    ends.client.send(stream, bytes(1 << 20))
    data = ends.client.take()
    events = ends.server.receive(data[:1000], 0.0)
    assert [len(event.data) for event in events if isinstance(event, DataReceived)] == [1000 - frames.HEADER]


# --- windows ----------------------------------------------------------------------------------------


def test_no_more_is_sent_than_the_reader_has_taken() -> None:
    ends = Ends(SMALL)
    stream = ends.open()
    assert ends.client.send(stream, bytes(5000)) == 1000
    ends.shuffle()
    assert ends.client.send(stream, bytes(4000)) == 0
    ends.server.consumed(stream, 1000)
    ends.shuffle()
    assert ends.at_client[-1] == WindowOpened(stream)
    assert ends.client.send(stream, bytes(4000)) == 1000


def test_a_stream_that_is_not_read_does_not_stop_another() -> None:
    ends = Ends(SMALL)
    stalled, other = ends.open(), ends.open()
    ends.client.send(stalled, bytes(1000))
    ends.shuffle()
    total = 0
    for _ in range(200):  # three times the connection's window
        total += ends.client.send(other, bytes(1000))
        ends.shuffle()
        ends.server.consumed(other, 1000)
        ends.shuffle()
    assert total == 200_000
    assert ends.client.send(stalled, b"x") == 0


def test_what_nobody_read_of_a_reset_stream_is_given_back_to_the_connection() -> None:
    ends = Ends(SMALL)
    for _ in range(200):
        stream = ends.open()
        assert ends.client.send(stream, bytes(1000)) == 1000
        ends.shuffle()
        ends.server.reset(stream, frames.CANCEL)
        ends.shuffle()
    assert ends.server.stream_count == 0


def test_what_comes_after_a_reset_is_given_back_to_the_connection() -> None:
    ends = Ends(SMALL)
    for _ in range(200):
        stream = ends.open()
        assert ends.client.send(stream, bytes(1000)) == 1000
        ends.server.reset(stream, frames.CANCEL)  # crosses the data
        ends.shuffle()
    stream = ends.open()
    assert ends.client.send(stream, b"x") == 1


def test_bytes_that_came_before_an_end_still_open_the_connections_window_when_read() -> None:
    ends = Ends(SMALL)
    for _ in range(200):
        stream = ends.open()
        assert ends.client.send(stream, bytes(1000)) == 1000
        ends.client.end(stream)
        ends.server.end(stream)
        ends.shuffle()
        ends.server.consumed(stream, 1000)
        ends.shuffle()


def test_a_peer_that_sends_more_than_its_window_is_cut_off() -> None:
    ends = Ends(SMALL)
    stream = ends.open()
    with pytest.raises(Http2Failure, match="more than its window"):
        ends.server.receive(frame_header(1001, frames.DATA, 0, stream) + bytes(1001), 0.0)
    assert goaway_of(ends.server.take())[1] == frames.FLOW_CONTROL_ERROR
    assert ends.server.closed


def test_a_window_that_the_peer_shrinks_by_settings_becomes_negative_and_recovers() -> None:
    client, server = h2_client()
    client.send_headers(1, CONNECT)
    server.receive(client.data_to_send(), 0.0)
    server.respond(1, 200)
    assert server.send(1, bytes(50_000)) == 50_000
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10_000})
    server.receive(client.data_to_send(), 0.0)
    assert server.send(1, b"x") == 0
    server.receive(frames.window_update(1, 40_000), 0.0)
    assert server.send(1, b"x") == 0
    server.receive(frames.window_update(1, 1), 0.0)
    assert server.send(1, b"xx") == 1


def test_frames_are_no_larger_than_the_peer_takes() -> None:
    client, server = h2_client()
    client.send_headers(1, CONNECT)
    server.receive(client.data_to_send(), 0.0)
    server.respond(1, 200)
    assert server.send(1, bytes(65535)) == 65535
    client.receive_data(server.take())  # raises for a frame of more than 16384


def test_a_window_beyond_the_largest_is_an_error() -> None:
    _, server = h2_client()
    with pytest.raises(Http2Failure):
        server.receive(frames.window_update(0, frames.MOST_WINDOW), 0.0)
    assert goaway_of(server.take())[1] == frames.FLOW_CONTROL_ERROR


# --- resets and ends --------------------------------------------------------------------------------


def test_a_reset_is_told_with_its_code_and_ends_both_directions() -> None:
    ends = Ends()
    stream = ends.open()
    ends.server.reset(stream, frames.CANCEL)
    ends.shuffle()
    assert ends.at_client[-1] == StreamWasReset(stream, frames.CANCEL)
    with pytest.raises(StreamGone):
        ends.client.send(stream, b"x")
    assert ends.client.stream_count == ends.server.stream_count == 0


def test_one_stream_too_many_is_refused_and_the_others_go_on() -> None:
    client, server = h2_client()
    for number in range(1, 401, 2):
        client.send_headers(number, CONNECT)
    server.receive(client.data_to_send(), 0.0)
    client.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
    client.remote_settings.acknowledge()
    client.send_headers(401, CONNECT)
    assert server.receive(client.data_to_send(), 0.0) == []
    (event,) = client.receive_data(server.take())
    assert isinstance(event, StreamReset)
    assert event.error_code == frames.REFUSED_STREAM
    server.respond(1, 200)
    assert isinstance(client.receive_data(server.take())[0], H2Response)


def test_a_client_opens_no_more_streams_than_the_server_takes() -> None:
    ends = Ends(Http2Settings(server_max_streams=2))
    ends.open()
    ends.open()
    with pytest.raises(ConnectionLost, match="no more streams"):
        ends.client.open_stream("10.0.0.1:80", ())


def test_draining_lets_open_streams_finish_and_takes_those_on_their_way() -> None:
    ends = Ends()
    stream = ends.open()
    ends.server.drain()
    late = ends.client.open_stream("10.0.0.2:80", ())
    ends.shuffle()
    assert ends.client.going_away
    assert ends.server.drained
    assert RequestReceived(late, "10.0.0.2:80", ()) in ends.at_server
    assert ends.at_client[-1] == GoAwayReceived(late, frames.NO_ERROR, "")
    with pytest.raises(ConnectionLost):
        ends.client.open_stream("10.0.0.3:80", ())
    ends.client.send(stream, b"still")
    ends.shuffle()
    assert ends.received(stream) == b"still"


def test_streams_above_the_last_of_a_goaway_are_refused() -> None:
    ends = Ends()
    ends.open()
    late = ends.client.open_stream("10.0.0.2:80", ())
    ends.client.take()
    events = ends.client.receive(frames.goaway(1, frames.NO_ERROR), 0.0)
    assert events == [StreamWasReset(late, frames.REFUSED_STREAM), GoAwayReceived(1, 0, "")]


def test_another_implementation_understands_the_end() -> None:
    client, server = h2_client()
    server.close(frames.NO_ERROR)
    (event,) = client.receive_data(server.take())
    assert isinstance(event, ConnectionTerminated)


# --- pings ------------------------------------------------------------------------------------------


def test_pings_begin_after_the_interval_and_go_on_in_it() -> None:
    ends = Ends()
    assert ends.client.tick(0.0) == 10.0
    assert not ends.client.pending
    assert ends.client.tick(10.0) == 20.0
    ends.shuffle(10.5)
    assert ends.client.tick(20.0) == 30.0
    ends.shuffle(20.5)
    assert ends.client.tick(30.0) == 40.0


def test_a_ping_without_an_answer_ends_the_connection() -> None:
    ends = Ends()
    ends.client.tick(10.0)
    ends.client.take()
    assert ends.client.tick(20.0) == 30.0
    assert ends.client.tick(29.9) == 30.0
    with pytest.raises(Http2Failure, match="20 s"):
        ends.client.tick(30.0)
    assert ends.client.closed


# --- peers that do what they must not ---------------------------------------------------------------


def flood(server: Connection, data: bytes, rounds: int = 100_000) -> Http2Failure:
    """Sends ``data`` again and again without reading any answer, until the server has had enough."""
    for _ in range(rounds):
        try:
            server.receive(data, 0.0)
        except Http2Failure as failure:
            return failure
        assert server.pending < 1 << 20
    raise AssertionError("it takes all of it")


@pytest.mark.parametrize(
    "data",
    [
        frame_header(8, frames.PING, 0, 0) + bytes(8),
        frame_header(0, frames.SETTINGS, 0, 0),
        frame_header(6, frames.SETTINGS, 0, 0) + struct.pack("!HL", 4, 1000),
    ],
    ids=["pings", "empty settings", "settings"],
)
def test_a_flood_that_wants_answers_ends_the_connection(data: bytes) -> None:
    _, server = h2_client()
    assert flood(server, data).code == frames.ENHANCE_YOUR_CALM
    assert goaway_of(server.take())[1] == frames.ENHANCE_YOUR_CALM


def test_pings_whose_answers_are_read_are_answered_without_end() -> None:
    _, server = h2_client()
    ping = frame_header(8, frames.PING, 0, 0) + bytes(8)
    for _ in range(10_000):
        server.receive(ping, 0.0)
        assert len(server.take()) == len(ping)


def test_streams_opened_only_to_be_reset_end_the_connection() -> None:
    client, server = h2_client()
    with pytest.raises(Http2Failure) as caught:
        for number in range(1, 1001, 2):
            client.send_headers(number, CONNECT)
            client.reset_stream(number, frames.CANCEL)
            server.receive(client.data_to_send(), 0.0)
            server.take()
    assert caught.value.code == frames.ENHANCE_YOUR_CALM


def test_answered_streams_may_be_reset_without_end() -> None:
    ends = Ends()
    for _ in range(500):
        stream = ends.open()
        ends.client.reset(stream, frames.CANCEL)
        ends.shuffle()
    assert not ends.server.closed


def test_a_header_list_that_is_too_large_ends_the_connection() -> None:
    client, server = h2_client()
    client.max_outbound_frame_size = 1 << 20
    client.send_headers(1, [*CONNECT, ("x", "y" * 70_000)])
    with pytest.raises(Http2Failure):
        server.receive(client.data_to_send(), 0.0)
    assert server.closed


def test_headers_that_unpack_to_more_than_the_limit_end_the_connection() -> None:
    client, server = h2_client()
    client.send_headers(1, [*CONNECT, *[("x-long-name", "y" * 3000)] * 40])
    data = client.data_to_send()
    assert len(data) < 10_000
    with pytest.raises(Http2Failure) as caught:
        server.receive(data, 0.0)
    assert caught.value.code == frames.ENHANCE_YOUR_CALM


def test_a_header_block_without_end_ends_the_connection() -> None:
    _, server = h2_client()
    server.receive(frame_header(1, frames.HEADERS, 0, 1) + b"\x82", 0.0)
    piece = frame_header(4096, frames.CONTINUATION, 0, 1) + bytes(4096)
    assert flood(server, piece, 20).code == frames.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", frames.PROTOCOL_ERROR),
        (PREFACE + frame_header((1 << 20) + 1, frames.DATA, 0, 1), frames.FRAME_SIZE_ERROR),
        (PREFACE + frame_header(1 << 20, frames.HEADERS, 4, 1), frames.FRAME_SIZE_ERROR),
        (PREFACE + frame_header(3, frames.WINDOW_UPDATE, 0, 0) + bytes(3), frames.FRAME_SIZE_ERROR),
        (PREFACE + frame_header(4, frames.WINDOW_UPDATE, 0, 0) + bytes(4), frames.PROTOCOL_ERROR),
        (PREFACE + frame_header(1, frames.DATA, 0, 1) + b"x", frames.PROTOCOL_ERROR),
        (PREFACE + frame_header(2, frames.DATA, frames.PADDED, 1) + b"\x05x", frames.PROTOCOL_ERROR),
        (PREFACE + frame_header(1, frames.HEADERS, 0, 1) + b"\x82" + frame_header(1, 0, 0, 1) + b"x", 1),
        (PREFACE + frame_header(3, frames.HEADERS, 4, 1) + b"\xff\xff\xff", None),
        (PREFACE + frame_header(7, frames.PING, 0, 0) + bytes(7), None),
        (PREFACE + frame_header(4, frames.GOAWAY, 0, 0) + bytes(4), frames.FRAME_SIZE_ERROR),
        (PREFACE + frame_header(1, frames.CONTINUATION, 4, 1) + b"\x82", None),
        (PREFACE + frame_header(4, frames.PUSH_PROMISE, 4, 1) + bytes(4), None),
    ],
)
def test_what_is_no_http2_is_told_why_and_ends_the_connection(data: bytes, code: int | None) -> None:
    server = Connection("server", Http2Settings(), 0.0)
    with pytest.raises(Http2Failure) as caught:
        server.receive(data, 0.0)
    assert caught.value.flag == "H2_HANDSHAKE_FAILURE"
    assert code in (None, caught.value.code)
    assert goaway_of(server.take())[1] == caught.value.code
    assert server.receive(data, 0.0) == []


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
def test_a_client_that_reads_no_refusals_is_sent_away_before_they_pile_up(method: str) -> None:
    client, server = h2_client()
    path = [(":scheme", "https"), (":path", "/")] if method == "GET" else []
    client.clear_outbound_data_buffer()

    def ask(number: int) -> None:
        client.send_headers(number, [(":method", method), (":authority", "nobody"), *path])
        request = client.data_to_send()
        client.reset_stream(number)  # that it forgets it, too; not sent
        client.clear_outbound_data_buffer()
        for event in server.receive(request, 0.0):
            if isinstance(event, RequestReceived):
                server.respond(event.stream_id, 400, end=True)

    with pytest.raises(Http2Failure) as caught:
        for number in range(1, 10_001, 2):
            ask(number)
    assert caught.value.code == frames.ENHANCE_YOUR_CALM
    assert server.pending < 100_000


@pytest.mark.parametrize("status", ["200", "503"])
def test_a_content_length_means_nothing_in_the_answer_to_a_connect(status: str) -> None:
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    client = Connection("client", Http2Settings(), 0.0)
    stream = client.open_stream("10.0.0.1:80", ())
    server.receive_data(client.take())
    server.send_headers(stream, [(":status", status), ("content-length", "5")])
    server.send_data(stream, b"sorry", end_stream=True)
    events = client.receive(server.data_to_send(), 0.0)
    assert [event.status for event in events if isinstance(event, ResponseReceived)] == [int(status)]
    assert [bytes(event.data) for event in events if isinstance(event, DataReceived)] == [b"sorry"]
    assert any(isinstance(event, StreamEnded) for event in events)


def test_a_content_length_means_nothing_in_a_connect() -> None:
    client, server = h2_client()
    client.send_headers(1, [*CONNECT, ("content-length", "5")])
    client.send_data(1, b"much more than that", end_stream=True)
    events = server.receive(client.data_to_send(), 0.0)
    assert any(isinstance(event, RequestReceived) for event in events)
    assert any(isinstance(event, StreamEnded) for event in events)


def test_data_before_the_answer_ends_the_connection() -> None:
    client = Connection("client", Http2Settings(), 0.0)
    stream = client.open_stream("10.0.0.1:80", ())
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    client.receive(server.data_to_send(), 0.0)
    with pytest.raises(Http2Failure, match="before the answer") as caught:
        client.receive(frame_header(1, frames.DATA, 0, stream) + b"x", 0.0)
    assert caught.value.code == frames.PROTOCOL_ERROR
