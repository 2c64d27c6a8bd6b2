"""Servers of HBONE that do what they must not: our client of them is cut off, the log says why, and the next one is served."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.mesh.identity.authority import Authority, Purpose
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.tls import server_context
from netwarren.mesh.model import GatewayAddress, NetworkAddress
from netwarren.mesh.telemetry.expect import expect_record_sync, expect_sync, snapshot
from netwarren.topology.addresses import parse_address
from tests.cluster.mesh.hbone_servers import hbone_server
from tests.cluster.mesh_peers.conftest import SECONDS, identity, talk

COMPLETE = "connection complete"
CLOSED = "istio_tcp_connections_closed_total"
SERVER = "10.99.0.1"
CLIENT_ONLY: tuple[Purpose] = ("client",)
Behave: TypeAlias = Callable[["Server"], None]


class Server:
    """The server's end of one connection, after TLS."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.socket = sock
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.h2.initiate_connection()

    def send(self, raw: bytes = b"") -> None:
        """What h2 has to say, and then ``raw``."""
        self.socket.sendall(self.h2.data_to_send() + raw)

    def asked(self) -> int:
        """The stream of the client's first request."""
        self.send()
        while True:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the client has gone")
            for event in self.h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    assert event.stream_id is not None
                    self.send()
                    return event.stream_id

    def answer(self, status: str = "200", *headers: tuple[str, str], end: bool = False) -> int:
        stream = self.asked()
        self.h2.send_headers(stream, [(":status", status), *headers], end_stream=end)
        self.send()
        return stream

    def wait_end(self) -> None:
        """Until the client ends the connection."""
        with contextlib.suppress(OSError):
            while self.socket.recv(65536):
                pass

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


@dataclass(frozen=True)
class Way:
    """``client`` is carried by ``proxy``; what is for `SERVER` goes to port 15008 of ``waypoint``, which is a test's."""

    cluster: Cluster
    proxy: NodeProxy
    client: Pod
    waypoint: Pod
    opened: list[socket.socket] = field(default_factory=list)

    @property
    def authority(self) -> Authority:
        return self.cluster.mesh.authority

    @contextlib.contextmanager
    def serving(self, accept: Callable[[socket.socket], None]) -> Iterator[None]:
        """``accept`` gets each connection to the waypoint, one after the other."""
        listener = self.waypoint.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.waypoint.ip, 15008))
        listener.listen(64)

        opened = self.opened

        def run() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                connection.settimeout(SECONDS)
                opened.append(connection)
                with connection, contextlib.suppress(OSError):
                    accept(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for each in opened:  # who waits for an end that does not come: the proxy keeps what works
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(each, socket.SHUT_RDWR)
            thread.join()
            listener.close()

    @contextlib.contextmanager
    def behaving(
        self, behave: Behave, certificate: Certificate | None = None, context: ssl.SSLContext | None = None
    ) -> Iterator[None]:
        """``behave`` is what the waypoint does after the handshake."""
        made = context or server_context(certificate or self.authority.issue(identity("waypoint")))

        def accept(connection: socket.socket) -> None:
            with made.wrap_socket(connection, server_side=True) as secured:
                self.opened.append(secured)
                behave(Server(secured))

        with self.serving(accept):
            yield

    def failed(self, flag: str) -> str:
        """A connection of the client is cut with this flag; why, as the log says."""
        before, since = snapshot(self.proxy.metrics), self.proxy.log.count
        assert talk(self.client, SERVER, b"hello") == b""
        expect_sync(before, CLOSED, {"reporter": "source", "response_flags": flag}, 1)
        record = expect_record_sync(self.proxy.log, COMPLETE, {"direction": "outbound"}, since=since)
        return str(record.fields["error"])

    def assert_it_lives(self) -> None:
        """A waypoint that does everything right is served with the next connection."""
        with hbone_server(self.cluster, self.waypoint):
            assert talk(self.client, SERVER, b"hello") == b"via\nhello"
        assert self.proxy.ready


@pytest.fixture
def way(cluster: Cluster) -> Way:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    client = cluster.add_pod("client", "node-a")
    waypoint = cluster.add_pod("waypoint", "node-b", captured=False)
    gateway = GatewayAddress(NetworkAddress("", parse_address(waypoint.ip)))
    workload = {"waypoint": gateway, "addresses": (parse_address(SERVER),)}
    cluster.add_pod("server", "node-b", captured=False, workload=workload)
    return Way(cluster, proxy, client, waypoint)


# --- before HTTP/2 ---


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03" + bytes(range(256)) * 20, b"\0" * 5000],
    ids=["nothing", "HTTP/1.1", "bytes", "zeros"],
)
def test_a_server_that_speaks_no_tls_is_a_tls_failure(way: Way, said: bytes) -> None:
    def accept(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with way.serving(accept):
        assert "tls" in way.failed("TLS_FAILURE")
    way.assert_it_lives()


def test_a_server_that_resets_during_the_handshake_is_a_failure(way: Way) -> None:
    def accept(connection: socket.socket) -> None:
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with way.serving(accept):
        way.failed("TLS_FAILURE")
    way.assert_it_lives()


IMPOSTORS: dict[str, Callable[[Authority], Certificate]] = {
    "another root": lambda authority: Authority().issue(identity("waypoint")),
    "another account": lambda authority: authority.issue(identity("impostor")),
    "another trust domain": lambda authority: authority.issue(identity("waypoint", "elsewhere.local")),
    "expired": lambda authority: authority.issue(identity("waypoint"), lifetime=-10),
    "a client's": lambda authority: authority.issue(identity("waypoint"), purposes=CLIENT_ONLY),
}


@pytest.mark.parametrize("certificate", IMPOSTORS.values(), ids=IMPOSTORS)
def test_a_server_with_a_wrong_certificate_is_told_nothing(
    way: Way, certificate: Callable[[Authority], Certificate]
) -> None:
    heard: list[bytes] = []
    made = certificate(way.authority)
    context = server_context(made, way.authority.roots)
    with way.behaving(lambda server: heard.append(server.socket.recv(100)), context=context):
        way.failed("TLS_FAILURE")
    assert not any(heard)
    way.assert_it_lives()


def test_a_server_of_tls_1_2_is_a_tls_failure(way: Way) -> None:
    context = server_context(way.authority.issue(identity("waypoint")), tls12=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with way.behaving(Server.wait_end, context=context):
        way.failed("TLS_FAILURE")
    way.assert_it_lives()


# --- instead of an answer ---


def garbage(server: Server) -> None:
    server.socket.sendall(b"\xff" * 5000)
    server.wait_end()


def http1(server: Server) -> None:
    server.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    server.wait_end()


def end(server: Server) -> None:
    server.asked()


def reset(server: Server) -> None:
    server.asked()
    server.reset()


def data_before_headers(server: Server) -> None:
    server.send(frame(0, 0, server.asked(), b"hello"))
    server.wait_end()


def promise(server: Server) -> None:
    stream = server.asked()
    server.send(frame(5, 4, stream, struct.pack(">I", 2) + b"\x82"))
    server.wait_end()


def large_headers(server: Server) -> None:
    server.answer("200", *((f"x-{number}", "y" * 1000) for number in range(20)))  # of 16 KiB there may be
    server.wait_end()


def unfolding_headers(server: Server) -> None:
    server.answer("200", *[("x-much", "y" * 3000)] * 100)
    server.wait_end()


def endless_headers(server: Server) -> None:
    stream = server.asked()
    server.send(frame(1, 0, stream, b"\x88"))
    with contextlib.suppress(OSError):
        for _ in range(1000):
            server.send(frame(9, 0, stream, b"\0\1x" + b"\x7f\0" + b"y" * 127))
    server.wait_end()


def no_status(server: Server) -> None:
    stream = server.asked()
    server.h2.send_headers(stream, [("x-status", "200")])
    server.send()
    server.wait_end()


def goaway(server: Server) -> None:
    server.asked()
    server.h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=0)
    server.send()


def settings_of_nonsense(server: Server) -> None:
    server.send(frame(4, 0, 0, struct.pack(">HI", 5, 1)))  # SETTINGS_MAX_FRAME_SIZE of 1
    server.wait_end()


def pings(server: Server) -> None:
    server.asked()
    with contextlib.suppress(OSError):
        for _ in range(100):
            server.send(frame(6, 0, 0, b"12345678") * 1000)  # whose answers nobody reads
    server.wait_end()


NO_ANSWERS = (
    garbage,
    http1,
    end,
    reset,
    data_before_headers,
    promise,
    large_headers,
    unfolding_headers,
    endless_headers,
    no_status,
    goaway,
    settings_of_nonsense,
    pings,
)


@pytest.mark.parametrize("behave", NO_ANSWERS, ids=lambda behave: behave.__name__)
def test_a_server_that_breaks_http2_is_a_failure_of_that(way: Way, behave: Behave) -> None:
    with way.behaving(behave):
        way.failed("H2_HANDSHAKE_FAILURE")
    way.assert_it_lives()


@pytest.mark.parametrize("code", [ErrorCodes.REFUSED_STREAM, ErrorCodes.INTERNAL_ERROR, ErrorCodes.NO_ERROR])
def test_a_stream_that_is_reset_before_it_is_answered_is_a_failure(way: Way, code: ErrorCodes) -> None:
    def behave(server: Server) -> None:
        server.h2.reset_stream(server.asked(), code)
        server.send()
        server.wait_end()

    with way.behaving(behave):
        assert code.name in way.failed("H2_HANDSHAKE_FAILURE")
    way.assert_it_lives()


@pytest.mark.parametrize("status", ["204", "301", "401", "403", "404", "500", "502", "999"])
def test_another_status_than_200_is_a_refusal(way: Way, status: str) -> None:
    def behave(server: Server) -> None:
        server.answer(status, end=True)
        server.wait_end()

    with way.behaving(behave):
        assert f"http status: {status}" in way.failed("CONNECT")
    way.assert_it_lives()


def test_a_server_that_never_answers_keeps_its_client_until_the_pod_goes(way: Way) -> None:
    asked = threading.Event()

    def behave(server: Server) -> None:
        server.asked()
        asked.set()
        server.wait_end()

    with way.behaving(behave), way.client:
        connection = socket.create_connection((SERVER, 8080), timeout=SECONDS)
        assert asked.wait(SECONDS)
        with connection:
            way.client.remove()
            with contextlib.suppress(ConnectionError):
                assert connection.recv(10) == b""
    expect_record_sync(
        way.proxy.log,
        COMPLETE,
        where=lambda record: "connection drain" in str(record.fields.get("error")),
    )


# --- after the answer ---


@pytest.mark.parametrize(
    ("code", "flag"), [(ErrorCodes.INTERNAL_ERROR, "H2_HANDSHAKE_FAILURE"), (ErrorCodes.CANCEL, "-")]
)
def test_a_stream_that_is_reset_later_ends_as_its_code_says(way: Way, code: ErrorCodes, flag: str) -> None:
    def behave(server: Server) -> None:
        stream = server.answer()
        server.h2.send_data(stream, b"a word")
        server.h2.reset_stream(stream, code)
        server.send()
        server.wait_end()

    before = snapshot(way.proxy.metrics)
    with way.behaving(behave):
        talk(way.client, SERVER, b"hello")
        expect_sync(before, CLOSED, {"reporter": "source", "response_flags": flag}, 1)
    way.assert_it_lives()


@pytest.mark.parametrize("ending", [Server.reset, lambda server: None], ids=["reset", "end"])
def test_a_connection_that_goes_later_takes_its_streams_along(
    way: Way, ending: Callable[[Server], None]
) -> None:
    heard = threading.Event()

    def behave(server: Server) -> None:
        stream = server.answer()
        server.h2.send_data(stream, b"a word")
        server.send()
        heard.wait(SECONDS)  # a reset would take along what has not been sent yet
        ending(server)

    with (
        way.behaving(behave),
        way.client,
        socket.create_connection((SERVER, 8080), timeout=SECONDS) as client,
    ):
        assert client.recv(6, socket.MSG_WAITALL) == b"a word"
        client.sendall(b"hello")
        heard.set()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(10) == b""
    expect_record_sync(way.proxy.log, COMPLETE, {"direction": "outbound"})
    way.assert_it_lives()


def test_a_server_that_sends_more_than_its_window_is_cut(way: Way) -> None:
    sent = threading.Event()

    def behave(server: Server) -> None:
        stream = server.answer()
        with contextlib.suppress(OSError):
            for _ in range(6400):  # 100 MiB
                server.send(frame(0, 0, stream, bytes(1 << 14)))
        sent.set()

    with (
        way.behaving(behave),
        way.client,
        socket.create_connection((SERVER, 8080), timeout=SECONDS) as client,
    ):
        assert sent.wait(SECONDS)
        size = 0
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(1 << 20):
                size += len(data)
        assert size < 20 << 20  # a window, and what sockets hold
    expect_record_sync(way.proxy.log, COMPLETE, {"direction": "outbound"})
    way.assert_it_lives()
