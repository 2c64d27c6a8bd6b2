"""Clients of HBONE that send very much of what is small: each is sent away or borne, in bounded memory."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated

from netwarren.mesh.config import Http2Settings
from netwarren.mesh.identity.tls import client_context
from tests.cluster.mesh_peers.conftest import Mesh, Peer, plain

SETTINGS = Http2Settings()
CALM = ErrorCodes.ENHANCE_YOUR_CALM


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


HEADERS = frame(1, 0, 1, b"\x82")
FLOODS: dict[str, tuple[bytes, set[ErrorCodes]]] = {
    "pings": (frame(6, 0, 0, b"12345678"), {CALM}),
    "settings": (frame(4, 0, 0), {CALM}),
    "continuations": (frame(9, 0, 1, b"\0\1x\1y"), {ErrorCodes.PROTOCOL_ERROR}),
    "windows": (frame(8, 0, 0, struct.pack(">I", 1 << 30)), {ErrorCodes.FLOW_CONTROL_ERROR}),
}


def ended_for(peer: Peer) -> set[object]:
    return {event.error_code for event in peer.seen(ConnectionTerminated)}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_that_costs_memory_is_sent_away(mesh: Mesh, flood: str) -> None:
    each, codes = FLOODS[flood]
    with mesh.peer() as peer:
        with contextlib.suppress(OSError):
            if flood == "continuations":
                peer.socket.sendall(HEADERS)
            for _ in range(200):
                peer.socket.sendall(each * 1000)
        peer.wait_end()
        assert ended_for(peer) == codes
    mesh.assert_it_lives()


@pytest.mark.parametrize(
    "each",
    [
        frame(0, 0, 1),
        frame(2, 0, 1, struct.pack(">IB", 0, 16)),
        frame(8, 0, 1, struct.pack(">I", 1)),
        frame(0x77, 0, 0, b"unknown"),
    ],
    ids=["empty data", "priorities", "windows of a byte", "unknown frames"],
)
def test_a_flood_that_costs_nothing_is_borne(mesh: Mesh, each: bytes) -> None:
    with mesh.peer() as peer:
        stream = peer.ask(f"{mesh.server.ip}:8080")
        assert peer.answer(stream)[":status"] == "200"
        for _ in range(20):
            peer.socket.sendall(each * 500)
        peer.say(stream, b"hello")
        assert peer.heard(stream, 5) == b"hello"
    mesh.assert_it_lives()


def test_requests_that_are_refused_without_end_leave_nothing(mesh: Mesh) -> None:
    with mesh.peer() as peer:
        for _ in range(20):
            streams = [peer.ask("nonsense", flush=False) for _ in range(50)]
            peer.flush()
            for stream in streams:
                assert peer.answer(stream)[":status"] == "400"
            peer.events.clear()
        pod = next(iter(mesh.proxy._proxy.pods.values()))
        assert len(pod.connections) == 0
        assert peer.echoed(f"{mesh.server.ip}:8080", b"still there?") == b"still there?"
    mesh.assert_it_lives()


def test_what_an_application_does_not_read_is_bounded_by_the_windows(mesh: Mesh) -> None:
    def deaf(ready: Callable[[object], None]) -> None:
        with socket.create_server(("", 9000), backlog=100) as listener:
            ready(None)
            kept = [listener.accept()[0] for _ in range(20)]
            kept[0].recv(1)
            for each in kept:
                each.recv(1, socket.MSG_PEEK)
                each.close()

    serving = mesh.server.start(deaf)
    del serving
    with mesh.peer() as peer:
        peer.wait_settings()
        streams = [peer.ask(f"{mesh.server.ip}:9000") for _ in range(20)]
        for stream in streams:
            assert peer.answer(stream)[":status"] == "200"
        gc.collect()
        tracemalloc.start()
        try:
            sent = 0
            for stream in streams:
                while (room := min(peer.h2.local_flow_control_window(stream), 1 << 16)) > 0:
                    peer.h2.send_data(stream, bytes(room))
                    peer.flush()
                    sent += room
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sent <= SETTINGS.connection_window + 20 * (8 << 20)  # and what sockets hold
        assert held < 2 * SETTINGS.connection_window
    mesh.assert_it_lives()


def test_a_handshake_of_single_bytes_is_finished(mesh: Mesh) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(mesh.certificate()).wrap_bio(incoming, outgoing)
    with plain(mesh.stranger, mesh.server.ip) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    connection.sendall(bytes([byte]))
                incoming.write(connection.recv(65536))
        for byte in outgoing.read():
            connection.sendall(bytes([byte]))
        tls.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        connection.sendall(outgoing.read())
        incoming.write(connection.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            assert tls.read(9)[3] == 4  # SETTINGS
    mesh.assert_it_lives()


@pytest.mark.usefixtures("nothing_kept")
def test_clients_that_come_and_go_in_every_state_leave_nothing(mesh: Mesh) -> None:
    def life() -> None:
        with mesh.peer() as peer:
            for _ in range(5):
                peer.answer(peer.ask(f"{mesh.server.ip}:8080"))
            peer.ask(f"{mesh.server.ip}:8080")  # which nobody waits for
        with mesh.peer():
            pass
        with plain(mesh.stranger, mesh.server.ip) as half:
            half.sendall(b"\x16\x03\x01")
        with plain(mesh.stranger, mesh.server.ip):
            pass

    def settle() -> int:
        mesh.assert_it_lives()
        pod = next(iter(mesh.proxy._proxy.pods.values()))

        async def ends() -> bool:
            return not pod._tasks or not (await asyncio.wait(pod._tasks, timeout=20))[1]

        assert mesh.proxy._proxy.call(ends)
        assert not pod.tunnels
        assert len(pod.connections) == 0
        return len(os.listdir("/proc/self/fd"))

    life()
    before = settle()
    for _ in range(10):
        life()
    assert settle() <= before + 4
