"""Real sockets on loopback for tests: name servers to ask upstream, and the proxy's own."""

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from netwarren.mesh.dns import client
from netwarren.mesh.dns.decision import Naming, ServiceDirectory
from netwarren.mesh.dns.resolver import DnsResolver, Transport, WorkloadSource
from netwarren.mesh.dns.server import DnsServer
from netwarren.mesh.dns.upstream import Upstream
from netwarren.mesh.model import SocketAddress, Workload
from tests.mesh.dns.directory import CLIENT, MESH, PREFERRED

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")
LARGE = [f"240.0.0.{n}" for n in range(256)]


def bound(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket, SocketAddress]:
    """A UDP socket and a listening TCP socket at the same port."""
    while True:
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind((LOOPBACK[socket.AddressFamily(family)], 0))
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.bind(udp.getsockname())
        except OSError:  # somebody has that one
            udp.close()
            tcp.close()
            continue
        tcp.listen()
        udp.setblocking(False)
        tcp.setblocking(False)
        host, port, *_ = udp.getsockname()
        return udp, tcp, SocketAddress(ip_address(host), port)


@dataclass
class Sockets:
    """Makes sockets, and keeps them, so that a test can see that they were closed."""

    made: list[socket.socket] = field(default_factory=list)

    def datagram(self, address: SocketAddress | None, family: int) -> socket.socket:
        assert address is None
        return self._make(family, socket.SOCK_DGRAM)

    def stream(self, family: int) -> socket.socket:
        return self._make(family, socket.SOCK_STREAM)

    def _make(self, family: int, kind: int) -> socket.socket:
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        self.made.append(made)
        return made

    @property
    def open(self) -> list[socket.socket]:
        return [each for each in self.made if each.fileno() >= 0]


@dataclass
class Metrics:
    """Keeps what is counted, in order."""

    counted: list[tuple[str, str, str, Workload | None]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def on_request(self, query_type: str, protocol: Transport, source: Workload | None) -> None:
        self.counted.append(("request", query_type, protocol, source))

    def on_upstream_request(self, query_type: str, protocol: Transport, source: Workload | None) -> None:
        self.counted.append(("upstream request", query_type, protocol, source))

    def on_upstream_failure(self, query_type: str, protocol: Transport, source: Workload | None) -> None:
        self.counted.append(("upstream failure", query_type, protocol, source))

    def on_upstream_duration(
        self, query_type: str, protocol: Transport, source: Workload | None, seconds: float
    ) -> None:
        self.counted.append(("upstream duration", query_type, protocol, source))
        self.seconds.append(seconds)


Reply = Callable[[dns.message.Message, Transport], Awaitable[bytes | None]]


@contextlib.asynccontextmanager
async def name_server(
    reply: Reply | None = None, family: int = socket.AF_INET
) -> AsyncIterator[tuple[SocketAddress, list[tuple[str, str, Transport]]]]:
    """A name server on loopback, by default of `known`; with its address, and what it is asked in order."""
    questions: list[tuple[str, str, Transport]] = []
    udp, tcp, address = bound(family)

    async def answer(data: bytes, transport: Transport) -> bytes | None:
        query = dns.message.from_wire(data)
        _name, _rdclass, type = query.question[0].to_text().split()
        questions.append((query.question[0].name.to_text(), type, transport))
        return await (reply or known)(query, transport)

    async with DnsServer(answer, datagrams=[udp], streams=[tcp]):
        yield address, questions


async def known(query: dns.message.Message, transport: Transport) -> bytes:
    """The answers for www.bing.com. and large.com., of which no more than the first goes by UDP."""
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.AA
    name, _rdclass, type = query.question[0].to_text().split()
    addresses = {("www.bing.com.", "A"): ["1.1.1.1"], ("large.com.", "A"): LARGE}.get((name.lower(), type))
    if name.lower() not in ("www.bing.com.", "large.com."):
        response.set_rcode(dns.rcode.NXDOMAIN)
    if addresses:
        response.answer += [dns.rrset.from_text(name, 300, "IN", type, each) for each in addresses]
    return response.to_wire(max_size=query.payload if transport == "udp" else 65535, prefer_truncation=True)


async def the_client() -> Workload | None:
    return CLIENT


@dataclass
class Proxy:
    """A DNS proxy that runs: where it is, and what it was made of."""

    address: SocketAddress
    metrics: Metrics
    sockets: Sockets
    server: DnsServer

    async def ask(
        self, name: str, type: str = "A", transport: Transport = "udp", payload: int | None = 1232
    ) -> dns.message.Message:
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        family = socket.AF_INET6 if self.address.address.version == 6 else socket.AF_INET
        with socket.socket(family, kind) as through:
            return await client.lookup(name, type, self.address, through=through, payload=payload)


@contextlib.asynccontextmanager
async def dns_proxy(
    servers: Sequence[SocketAddress] = (),
    *,
    workload: WorkloadSource = the_client,
    directory: ServiceDirectory = MESH,
    workload_wait: float = 5.0,
    timeout: float = 5.0,
    deadline: float = 10.0,
    family: int = socket.AF_INET,
) -> AsyncIterator[Proxy]:
    """The proxy of the client in `directory.MESH`, on loopback."""
    metrics, sockets = Metrics(), Sockets()
    upstream = Upstream(servers, sockets, timeout=timeout, deadline=deadline)
    resolver = DnsResolver(
        workload=workload,
        directory=directory,
        upstream=upstream,
        metrics=metrics,
        naming=Naming(preferred_namespace=PREFERRED),
        workload_wait=workload_wait,
    )
    udp, tcp, address = bound(family)
    async with DnsServer(resolver.answer, datagrams=[udp], streams=[tcp]) as server:
        yield Proxy(address, metrics, sockets, server)
    assert not sockets.open
