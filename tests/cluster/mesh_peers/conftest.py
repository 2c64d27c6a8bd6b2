"""A mesh of one captured server and a stranger beside it, and a client of HBONE made of `ssl` and `h2` alone."""

import contextlib
import socket
import socketserver
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from netwarren import Cluster, Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.tls import client_context
from netwarren.mesh.model import Identity

E = TypeVar("E", bound=Event)

SECONDS = 20


def talk(client: Pod, host: str, data: bytes, port: int = 8080) -> bytes:
    """What comes back of ``data``; ``b""`` where the connection is cut instead."""
    with client, socket.create_connection((host, port), timeout=SECONDS) as connection:
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(1 << 20):
                answer += more
        except TimeoutError:
            raise
        except OSError:
            pass
        return answer


def identity(account: str, domain: str = "cluster.local") -> Identity:
    return Identity(domain, "default", account)


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):  # of clients that are cut off
            while data := self.request.recv(65536):
                self.request.sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


def echo(ready: Callable[[object], None]) -> None:
    """For `Pod.start`: a server at port 8080 that sends back what it gets, to many clients at once."""
    with _Server(("", 8080), _Echo) as server:
        ready(None)
        server.serve_forever()


class _Server6(_Server):
    address_family = socket.AF_INET6


def echo6(ready: Callable[[object], None]) -> None:
    """As `echo`, at the addresses of IPv6."""
    with _Server6(("::", 8080), _Echo) as server:
        ready(None)
        server.serve_forever()


@dataclass(frozen=True)
class Mesh:
    """``server`` is carried by ``proxy`` and echoes at port 8080; ``stranger`` is carried by nobody."""

    cluster: Cluster
    proxy: NodeProxy
    server: Pod
    stranger: Pod

    @property
    def authority(self) -> Authority:
        return self.cluster.mesh.authority

    def certificate(self, account: str = "stranger") -> Certificate:
        return self.authority.issue(identity(account))

    def peer(self, certificate: Certificate | None = None) -> "Peer":
        return Peer(self.stranger, str(self.server.ip), client_context(certificate or self.certificate()))

    def assert_it_lives(self) -> None:
        """A client that does everything right is served."""
        with self.peer() as peer:
            assert peer.echoed(f"{self.server.ip}:8080", b"still there?") == b"still there?"
        assert self.proxy.ready


@pytest.fixture
def mesh(cluster: Cluster) -> Mesh:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server = cluster.add_pod("server", "node-a")
    stranger = cluster.add_pod("stranger", "node-b", captured=False)
    server.start(echo)
    return Mesh(cluster, proxy, server, stranger)


def plain(pod: Pod, host: str, port: int = 15008) -> socket.socket:
    with pod:
        return socket.create_connection((host, port), timeout=SECONDS)


class Peer:
    """A client's connection from ``pod`` to port 15008 of ``host``; sends what it is told to, right or wrong."""

    def __init__(self, pod: Pod, host: str, context: ssl.SSLContext) -> None:
        connection = plain(pod, host)
        try:
            self.socket = context.wrap_socket(connection)
        except BaseException:
            connection.close()
            raise
        settings = H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = H2Connection(settings)
        self.h2.initiate_connection()
        self.events: list[Event] = []
        self.flush()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def ask(
        self,
        authority: str,
        *headers: tuple[str, str],
        method: str = "CONNECT",
        end: bool = False,
        flush: bool = True,
    ) -> int:
        """A request; the number of its stream."""
        stream = self.h2.get_next_available_stream_id()
        path = [] if method == "CONNECT" else [(":scheme", "https"), (":path", "/")]
        lines = [(":method", method), (":authority", authority), *path, *headers]
        self.h2.send_headers(stream, lines, end_stream=end)
        if flush:
            self.flush()
        return stream

    def seen(self, kind: type[E], stream: int | None = None) -> list[E]:
        """The events of this kind until now."""
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (stream is None or getattr(event, "stream_id", None) == stream)
        ]

    def receive(self) -> None:
        """What comes next; raises `OSError` where nothing comes any more."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the connection has ended")
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()

    def wait(self, kind: type[E], stream: int | None = None) -> E:
        """The first event of this kind."""
        while not (found := self.seen(kind, stream)):
            self.receive()
        return found[0]

    def wait_end(self) -> None:
        """Until the other side ends the connection, which it must."""
        try:
            while True:
                self.receive()
        except TimeoutError:
            raise AssertionError(f"the connection goes on; what came was {self.events}") from None
        except OSError:
            pass

    def wait_settings(self) -> None:
        """Until what the server allows is known."""
        self.wait(RemoteSettingsChanged)

    def answer(self, stream: int) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.wait(ResponseReceived, stream).headers}

    def status(self, authority: str, *headers: tuple[str, str], method: str = "CONNECT") -> str:
        """The status that a request gets; one that is no 200 has no body and ends the stream."""
        stream = self.ask(authority, *headers, method=method)
        status = self.answer(stream)[":status"]
        if status != "200":
            self.wait(StreamEnded, stream)
            assert not self.seen(DataReceived, stream)
        return status

    def say(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def heard(self, stream: int, size: int) -> bytes:
        """The first ``size`` bytes of a stream, or what there was until its end."""
        while True:
            said = b"".join(event.data for event in self.seen(DataReceived, stream))
            ended = bool(self.seen(StreamEnded, stream)) or bool(self.seen(StreamReset, stream))
            if len(said) >= size or ended:
                return said
            self.receive()

    def echoed(self, authority: str, data: bytes) -> bytes:
        """What comes back of ``data``, once both have ended."""
        stream = self.ask(authority)
        assert self.answer(stream)[":status"] == "200"
        self.say(stream, data, end=True)
        self.wait(StreamEnded, stream)
        return self.heard(stream, len(data))
