"""Frames told apart, however the bytes are cut."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwarren.mesh.config import Http2Settings
from netwarren.mesh.hbone import frames
from netwarren.mesh.hbone.chunks import Chunks
from netwarren.mesh.hbone.connection import Connection
from netwarren.mesh.hbone.failure import Http2Failure
from netwarren.mesh.hbone.frames import PREFACE, DataPiece, Frame, FrameSplitter, frame_header

STREAM = b"".join(
    [
        frame_header(8, frames.PING, 0, 0) + b"12345678",
        frame_header(5, frames.DATA, 0, 1) + b"hello",
        frame_header(0, frames.SETTINGS, 1, 0),
        frame_header(8, frames.DATA, frames.PADDED, 3) + b"\x02padded"[:6] + b"\0\0",
        frame_header(0, frames.DATA, frames.END_STREAM, 1),
        frame_header(2, frames.DATA, frames.END_STREAM, 3) + b"ab",
    ]
)


def outcome(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], dict[int, tuple[bytes, int, bool]]]:
    """(frames as kind and payload, what each stream got: bytes, counted, ended)."""
    splitter = FrameSplitter(server=False, most_data=1000, most_other=1000)
    whole = []
    streams: dict[int, tuple[bytes, int, bool]] = {}
    for piece in pieces:
        for part in splitter.feed(piece):
            if isinstance(part, Frame):
                whole.append((part.kind, part.payload))
            else:
                data, counted, ended = streams.get(part.stream_id, (b"", 0, False))
                assert not ended
                streams[part.stream_id] = data + bytes(part.payload), counted + part.counted, part.ends
    return whole, streams


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
@settings(max_examples=200, deadline=None)
def test_frames_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(at)]
    assert outcome(pieces) == (
        [(frames.PING, b"12345678"), (frames.SETTINGS, b"")],
        {1: (b"hello", 5, True), 3: (b"paddeab", 10, True)},
    )


def test_data_is_a_view_of_what_was_fed() -> None:
    splitter = FrameSplitter(server=False, most_data=1000, most_other=1000)
    data = frame_header(5, frames.DATA, 0, 1) + b"hello"
    (piece,) = splitter.feed(data)
    assert isinstance(piece, DataPiece)
    assert piece.payload.obj is data


def test_the_first_wrong_byte_of_a_preface_is_enough() -> None:
    splitter = FrameSplitter(server=True, most_data=1000, most_other=1000)
    assert list(splitter.feed(b"PRI * HT")) == []
    with pytest.raises(Http2Failure):
        list(splitter.feed(b"X"))


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_server_takes_any_bytes_or_refuses_them_by_the_one_error(data: bytes, preface: bool) -> None:
    server = Connection("server", Http2Settings(), 0.0)
    try:
        server.receive((PREFACE if preface else b"") + data, 0.0)
    except Http2Failure:
        assert server.closed
    assert server.pending < 100_000


FRAMES = st.builds(
    lambda kind, flags, stream, payload: frame_header(len(payload), kind, flags, stream) + payload,
    st.integers(0, 12),
    st.integers(0, 255),
    st.integers(0, 5),
    st.one_of(st.binary(max_size=40), st.just(b"\x42\x07CONNECT\x41\x06a:8080"), st.just(bytes(8))),
)


@given(st.lists(FRAMES, max_size=30), st.sampled_from(["client", "server"]))
@settings(max_examples=500, deadline=None)
def test_any_frames_are_taken_or_refused_by_the_one_error(sent: list[bytes], role: str) -> None:
    end = Connection("client" if role == "client" else "server", Http2Settings(), 0.0)
    if role == "client":
        end.open_stream("10.0.0.1:80", ())
    try:
        end.receive((PREFACE if role == "server" else b"") + b"".join(sent), 0.0)
    except Http2Failure:
        assert end.closed
    assert end.pending < 100_000


# --- what is kept -----------------------------------------------------------------------------------


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.binary(min_size=4096, max_size=9000)), max_size=12),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_chunks_give_back_what_was_put_in(pieces: list[bytes], data: st.DataObject) -> None:
    chunks = Chunks()
    got = b""
    for piece in pieces:
        chunks.push(memoryview(piece))
        if chunks and data.draw(st.booleans()):
            most = data.draw(st.integers(1, 10_000))
            taken = chunks.pop(most)
            assert 0 < len(taken) <= most
            got += taken
    while chunks:
        got += chunks.pop(777)
    assert got == b"".join(pieces)


def test_small_pieces_do_not_keep_large_buffers_alive() -> None:
    chunks = Chunks()
    for _ in range(1000):
        chunks.push(memoryview(bytes(100_000))[:1])
    assert len(chunks._pieces) == 1
    assert isinstance(chunks._pieces[0], bytearray)
