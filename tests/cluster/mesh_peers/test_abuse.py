"""Clients of HBONE that do what they must not: each gets what it deserves, and the next one is served."""

import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import TypeAlias

import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, ResponseReceived, StreamEnded, StreamReset

from netwarren.mesh.identity.authority import Authority, Purpose
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.tls import client_context
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh_peers.conftest import Mesh, Peer, identity, plain

FAILED = "connection failed"
COMPLETE = "connection complete"


def refused(mesh: Mesh, context: ssl.SSLContext) -> None:
    """Nobody answers a request of this client, and the log tells of a handshake that failed."""
    since = mesh.proxy.log.count
    try:
        peer = Peer(mesh.stranger, str(mesh.server.ip), context)
    except OSError:  # where the client was told before it had done its part
        pass
    else:
        with peer:
            try:
                peer.ask(f"{mesh.server.ip}:8080")
            except OSError:
                pass
            peer.wait_end()
            assert not peer.seen(ResponseReceived)
    failed = expect_record_sync(mesh.proxy.log, FAILED, {"direction": "inbound"}, since=since)
    assert "src.identity" not in failed.fields


def ended_for(peer: Peer) -> set[object]:
    """Why the connection was ended."""
    return {event.error_code for event in peer.seen(ConnectionTerminated)}


SERVER_ONLY: tuple[Purpose] = ("server",)
Issue: TypeAlias = Callable[[Authority], Certificate]

STRANGERS: dict[str, Issue] = {
    "another root": lambda authority: Authority().issue(identity("stranger")),
    "another trust domain": lambda authority: authority.issue(identity("stranger", "elsewhere.local")),
    "expired": lambda authority: authority.issue(identity("stranger"), lifetime=-10),
    "a server's": lambda authority: authority.issue(identity("stranger"), purposes=SERVER_ONLY),
}


@pytest.mark.parametrize("certificate", STRANGERS.values(), ids=STRANGERS)
def test_a_client_with_a_wrong_certificate_is_refused(
    mesh: Mesh, certificate: Callable[[Authority], Certificate]
) -> None:
    refused(mesh, client_context(certificate(mesh.authority), mesh.authority.roots))
    mesh.assert_it_lives()


def test_a_client_without_certificate_is_refused(mesh: Mesh) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=b"".join(mesh.authority.roots))
    context.set_alpn_protocols(["h2"])
    refused(mesh, context)
    mesh.assert_it_lives()


def test_a_client_of_tls_1_2_is_refused(mesh: Mesh) -> None:
    context = client_context(mesh.certificate(), tls12=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    refused(mesh, context)
    mesh.assert_it_lives()


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: server\r\n\r\n", bytes(range(256)) * 100, b"\x00" * 70000],
    ids=["HTTP/1.1", "bytes", "zeros"],
)
@pytest.mark.parametrize("secured", [True, False])
def test_garbage_ends_the_connection(mesh: Mesh, garbage: bytes, secured: bool) -> None:
    connection = plain(mesh.stranger, str(mesh.server.ip))
    if secured:
        connection = client_context(mesh.certificate()).wrap_socket(connection)
    with connection:
        try:
            connection.sendall(garbage)
            while connection.recv(65536):
                pass
        except TimeoutError:
            raise AssertionError("the connection goes on") from None
        except OSError:
            pass
    mesh.assert_it_lives()


def test_garbage_on_a_connection_in_use_takes_its_streams_along(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        stream = peer.ask(f"{mesh.server.ip}:8080")
        assert peer.answer(stream)[":status"] == "200"
        peer.socket.sendall(b"\xff" * 200)
        peer.wait_end()
        assert ended_for(peer) == {ErrorCodes.FRAME_SIZE_ERROR}
    expect_record_sync(mesh.proxy.log, COMPLETE, {"direction": "inbound"})
    mesh.assert_it_lives()


@pytest.mark.usefixtures("nothing_kept")
def test_handshakes_that_do_not_end_keep_nobody_waiting(mesh: Mesh) -> None:
    hello, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = client_context(mesh.certificate()).wrap_bio(answer, hello)
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    first = hello.read()
    mesh.assert_it_lives()
    held = len(os.listdir("/proc/self/fd"))
    slow = [plain(mesh.stranger, str(mesh.server.ip)) for _ in range(50)]
    for number, each in enumerate(slow):
        each.sendall(first[: 1 + number * len(first) // 50])
    mesh.assert_it_lives()
    since = mesh.proxy.log.count
    for number, each in enumerate(slow):
        port = each.getsockname()[1]
        each.close()
        expect_record_sync(
            mesh.proxy.log,
            FAILED,
            where=lambda record, port=port: str(record.fields["src.addr"]).endswith(f":{port}"),  # type: ignore[misc]
            since=since,
        )
        assert number < 50
    mesh.assert_it_lives()
    assert len(os.listdir("/proc/self/fd")) <= held + 2


def test_headers_that_are_too_large_end_the_connection(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        with contextlib.suppress(OSError):
            peer.ask(f"{mesh.server.ip}:8080", *((f"x-{number}", "y" * 4000) for number in range(40)))
        peer.wait_end()
        assert not peer.seen(ResponseReceived)
        assert ended_for(peer) == {ErrorCodes.ENHANCE_YOUR_CALM}
    mesh.assert_it_lives()


def test_small_headers_that_unfold_to_large_ones_end_the_connection(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        line = ("x-much", "y" * 3000)  # in HPACK's table after the first time, and then a byte each
        peer.ask(f"{mesh.server.ip}:8080", *[line] * 1000)
        peer.wait_end()
        assert not peer.seen(ResponseReceived)
    mesh.assert_it_lives()


def test_more_streams_than_allowed_are_refused_and_the_others_served(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        peer.wait_settings()
        assert peer.h2.remote_settings.max_concurrent_streams == 200
        peer.h2.remote_settings.max_concurrent_streams = 1000  # it does not care
        peer.h2.remote_settings.acknowledge()
        streams = [peer.ask(f"{mesh.server.ip}:8080", flush=False) for _ in range(250)]
        peer.flush()
        while len(peer.seen(ResponseReceived)) + len(peer.seen(StreamReset)) < 250:
            peer.receive()
        served = [event.stream_id for event in peer.seen(ResponseReceived)]
        assert set(served) == set(streams[:200])
        assert {event.error_code for event in peer.seen(StreamReset)} == {ErrorCodes.REFUSED_STREAM}
        for stream in (streams[0], streams[199]):
            peer.say(stream, b"hello")
            assert peer.heard(stream, 5) == b"hello"
        peer.say(streams[0], b"", end=True)
        peer.wait(StreamEnded, streams[0])
        assert peer.echoed(f"{mesh.server.ip}:8080", b"one more") == b"one more"
    mesh.assert_it_lives()


def test_a_client_that_only_opens_and_resets_is_sent_away(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        try:
            for _ in range(50):
                for _ in range(20):
                    stream = peer.ask(f"{mesh.server.ip}:8080", flush=False)
                    peer.h2.reset_stream(stream, ErrorCodes.CANCEL)
                peer.flush()
        except OSError:
            pass
        peer.wait_end()
        assert ended_for(peer) == {ErrorCodes.ENHANCE_YOUR_CALM}
    mesh.assert_it_lives()


def test_a_stream_that_is_reset_ends_and_its_neighbour_does_not(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        one, other = (peer.ask(f"{mesh.server.ip}:8080") for _ in range(2))
        for stream in (one, other):
            peer.say(stream, b"hello")
            assert peer.heard(stream, 5) == b"hello"
        peer.h2.reset_stream(one, ErrorCodes.CANCEL)
        peer.flush()
        record = expect_record_sync(mesh.proxy.log, COMPLETE, {"direction": "inbound"})
        assert "error" not in record.fields
        peer.say(other, b"there")
        assert peer.heard(other, 10) == b"hellothere"
    mesh.assert_it_lives()


def test_a_connection_that_is_reset_ends_its_streams(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        for _ in range(10):
            assert peer.answer(peer.ask(f"{mesh.server.ip}:8080"))[":status"] == "200"
        since = mesh.proxy.log.count
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert mesh.proxy.log.changes.wait(
        lambda: (
            len([each for each in mesh.proxy.log.records(since) if each.message == COMPLETE]) >= 10 or None
        ),
        20,
    )
    mesh.assert_it_lives()


def test_data_beyond_the_window_ends_the_connection(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        stream = peer.ask(f"{mesh.server.ip}:8080")
        assert peer.answer(stream)[":status"] == "200"
        size = 1 << 20
        frame = struct.pack(">I", size)[1:] + b"\0\0" + struct.pack(">I", stream) + bytes(size)
        with contextlib.suppress(OSError):
            for _ in range(40):  # its echo is not read: the application stops, and so must the client
                peer.socket.sendall(frame)
        peer.wait_end()
        assert ended_for(peer) == {ErrorCodes.FLOW_CONTROL_ERROR}
    mesh.assert_it_lives()


def test_who_breaks_the_protocol_is_told_so_whatever_was_still_on_its_way(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        stream = peer.ask(f"{mesh.server.ip}:8080")
        assert peer.answer(stream)[":status"] == "200"
        peer.socket.sendall(b"\0\0\4\x08\0" + struct.pack(">II", stream, 0) + b"\0" * (1 << 20))  # opens by 0
        peer.wait_end()
        assert ended_for(peer) == {ErrorCodes.PROTOCOL_ERROR}
    mesh.assert_it_lives()


def test_who_breaks_the_protocol_and_goes_on_is_heard_for_a_moment_only(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        peer.socket.settimeout(10)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            while True:
                peer.socket.sendall(b"\xff" * 65536)
    mesh.assert_it_lives()


def test_a_request_that_is_taken_back_at_once_leaves_nothing_behind(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        for _ in range(5):
            stream = peer.ask(f"{mesh.server.ip}:8080", flush=False)
            peer.h2.reset_stream(stream, ErrorCodes.CANCEL)
        peer.flush()  # all in one piece: no request is looked at before it is gone
        assert peer.echoed(f"{mesh.server.ip}:8080", b"but this") == b"but this"
    mesh.assert_it_lives()
