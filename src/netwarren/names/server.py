"""The name server: the sockets of all clusters, and the one thread that answers on them.

Rules: nothing waits: sockets do not block, a late answer is a timer, and who is asked outside is asked on a
thread of its own; no query, and no client, can end the thread or hold up another's answer.
Does not belong here: what comes between a query and its answer (see `exchange`).
"""

import contextlib
import heapq
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from netwarren.errors import KernelError
from netwarren.kernel import descriptors
from netwarren.names import raw
from netwarren.runtime import standing
from netwarren.topology.addresses import Family, parse_address
from netwarren.topology.wellknown import NAME_SERVER

if TYPE_CHECKING:
    from netwarren.names.dns import ClusterDNS

PORT = 53
IDLE_SECONDS = 10.0
"""How long a TCP client may say nothing (RFC 7766, section 6.2.3, wants "a few seconds")."""
MOST_CONNECTIONS = 100
"""At one time and in one cluster; the one that came first has to go for another."""
MOST_ASKED_OUTSIDE = 32

_MOST_AT_ONCE = 64  # packets of one socket, before others have their turn
_LONGEST = 65535
# Who asks any other address of ours has no resolv.conf of a pod.
_WITH_SEARCH_LIST = frozenset(address.packed for address in NAME_SERVER.values())
_MAPPED = bytes(10) + b"\xff\xff"  # IPv4 on an IPv6 socket; RFC 4291, section 2.5.5.2

# linux/in6.h and linux/in.h; not in Python's socket module in all versions.
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IP_PKTINFO = 49, 50, 8
_PKTINFO6 = struct.Struct("=16sI")
_PKTINFO4 = struct.Struct("=i4s4s")
_ANCILLARY = socket.CMSG_SPACE(_PKTINFO6.size)

T = TypeVar("T")

Send = Callable[[bytes], None]
Names = Callable[[], "ClusterDNS"]


class Sockets(NamedTuple):
    """What a cluster is asked at: port 53 of its root, by UDP and by TCP; IPv6 ones serve both families."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()

    def drain(self) -> None:
        """Drop what came while nobody listened."""
        with contextlib.suppress(OSError):
            while True:
                self.udp.recv(1)
        with contextlib.suppress(OSError):
            while True:
                self.tcp.accept()[0].close()


def listen(families: Sequence[Family]) -> Sockets:
    """Open a cluster's sockets where the calling thread stands.

    Raises `KernelError`, with EADDRINUSE where somebody there has port 53.
    """
    family = socket.AF_INET6 if 6 in families else socket.AF_INET
    opened: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            opened.append(descriptors.opened(partial(socket.socket, family, kind)))
        udp, tcp = opened
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        # For what the last server here has left in TIME_WAIT.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in opened:
            each.setblocking(False)
            each.bind(("", PORT))
        tcp.listen(MOST_CONNECTIONS)
        return Sockets(udp, tcp)
    except OSError as error:
        for each in opened:
            each.close()
        number = error.errno or 0
        raise KernelError("listen at port 53 in the root", number, hint=descriptors.hint(number)) from None


class Listener:
    """Who answers at the sockets of one cluster. Each use of them is under its lock."""

    def __init__(self, names: Names, sockets: Sockets) -> None:
        self.names = names
        self.udp, self.tcp = sockets
        self.family = self.udp.family
        self.lock = threading.Lock()
        self.closed = False
        self.connections: dict[int, Connection] = {}
        try:
            _server.watch(self.udp.fileno(), self, self.on_packets)
            _server.watch(self.tcp.fileno(), self, self.on_connections)
        except BaseException:
            self.release().close()
            raise

    def release(self) -> Sockets:
        """Answer no more, and leave the sockets to the caller."""
        with self.lock:
            self.closed = True
            for connection in list(self.connections.values()):
                connection.close()
            for each in (self.udp, self.tcp):
                _server.forget(each.fileno())
        return Sockets(self.udp, self.tcp)

    def on_packets(self, _event: int) -> None:
        """Answer what has come by UDP."""
        for _ in range(_MOST_AT_ONCE):
            try:
                data, ancillary, _flags, source = self.udp.recvmsg(_LONGEST, _ANCILLARY)
            except OSError:  # there is no more, or an ICMP error for an answer of ours
                return
            asked, reply = self._way_back(ancillary)
            self.answer(data, source[0], asked, "udp", partial(self._send, reply, source))

    def on_connections(self, _event: int) -> None:
        """Take in who has come by TCP."""
        for _ in range(_MOST_AT_ONCE):
            try:
                accepted, source = descriptors.opened(self.tcp.accept)
            except BlockingIOError:
                return
            except OSError:  # no descriptor is free: the client waits with the others, and we do not spin
                _server.want(self.tcp.fileno(), readable=False)
                _server.after(0.1, self, partial(_server.want, self.tcp.fileno()))
                return
            if len(self.connections) >= MOST_CONNECTIONS:
                next(iter(self.connections.values())).close()
            connection = Connection(self, accepted, source[0])
            self.connections[accepted.fileno()] = connection

    def answer(self, data: bytes, source: str, asked: bytes, transport: str, send: Send) -> None:
        """See to it that the query ``data`` to our address ``asked`` is answered."""
        if not raw.is_query(data):
            return
        if _server.exchange is None:
            send(raw.bare(data, raw.SERVFAIL))
            return
        search = asked not in _WITH_SEARCH_LIST
        try:
            _server.exchange.answer(self, data, source.partition("%")[0], transport, send, search=search)
        except Exception:  # a mistake of ours, or of a callable that we were given: others still get theirs
            send(raw.bare(data, raw.SERVFAIL))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Act now, or in some seconds, unless these sockets are closed by then."""
        _server.after(seconds, self, act)

    def elsewhere(self, ask: Callable[[], T], finish: Callable[[T | None], None]) -> None:
        """Run ``ask``, which may wait, on a thread of its own, and ``finish`` with its result on the server's.

        With None where it raised, or too many are asked already.
        """
        _server.elsewhere(self, ask, finish)

    def _way_back(
        self, ancillary: list[tuple[int, int, bytes]]
    ) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        """Our address that was asked, and what makes an answer leave from it; ipv6(7), ip(7)."""
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
                address, _index = _PKTINFO6.unpack_from(data)
                return address.removeprefix(_MAPPED), [(level, kind, _PKTINFO6.pack(address, 0))]
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                _index, _local, address = _PKTINFO4.unpack_from(data)
                return address, [(level, kind, _PKTINFO4.pack(0, address, bytes(4)))]
        return b"", []

    def _send(self, reply: list[tuple[int, int, bytes]], to: tuple[Any, ...], data: bytes) -> None:
        with contextlib.suppress(OSError):  # no room, or no way: the packet is lost, as packets are
            self.udp.sendmsg([data], reply, 0, to)


class Connection:
    """One TCP client: queries with their length before them, any number, answered as they get ready."""

    def __init__(self, listener: Listener, accepted: socket.socket, source: str) -> None:
        self.listener = listener
        self.socket = accepted
        self.source = source
        self.fd = accepted.fileno()
        self.came_in = bytearray()
        self.to_go = bytearray()
        self.last_heard = time.monotonic()
        local = accepted.getsockname()[0]
        self.asked = parse_address(local.partition("%")[0]).packed.removeprefix(_MAPPED)
        accepted.setblocking(False)
        _server.watch(self.fd, listener, self.on_event)
        _server.after(IDLE_SECONDS, listener, self._expire)

    def on_event(self, event: int) -> None:
        """Read, answer, and send what could not be sent before."""
        if event & select.EPOLLOUT:
            self._flush()
        if not event & ~select.EPOLLOUT or self.socket.fileno() < 0:
            return
        try:
            data = self.socket.recv(_LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.last_heard = time.monotonic()
        self.came_in += data
        while len(self.came_in) >= 2:
            end = 2 + int.from_bytes(self.came_in[:2], "big")
            if len(self.came_in) < end:
                break
            query = bytes(self.came_in[2:end])
            del self.came_in[:end]
            self.listener.answer(query, self.source, self.asked, "tcp", self._send)

    def close(self) -> None:
        """End the connection; again is fine."""
        if self.socket.fileno() >= 0:
            _server.forget(self.fd)
            self.socket.close()
            self.listener.connections.pop(self.fd, None)

    def _send(self, data: bytes) -> None:
        if self.socket.fileno() >= 0:
            self.to_go += len(data).to_bytes(2, "big") + data
            self._flush()

    def _flush(self) -> None:
        try:
            while self.to_go:
                del self.to_go[: self.socket.send(self.to_go)]
        except BlockingIOError:
            if len(self.to_go) > 16 * _LONGEST:  # it asks, and does not read
                self.close()
                return
        except OSError:
            self.close()
            return
        _server.want(self.fd, writable=bool(self.to_go))

    def _expire(self) -> None:
        rest = self.last_heard + IDLE_SECONDS - time.monotonic()
        if self.socket.fileno() < 0:
            return
        if rest > 0:
            _server.after(rest, self.listener, self._expire)
        else:
            self.close()


class _Server:
    """The thread, what it waits for, and what is due when."""

    def __init__(self) -> None:
        self.exchange: ModuleType | None = None
        self._looked_for_exchange = False
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._handlers: dict[int, tuple[Listener, Callable[[int], None]]] = {}
        self._timers: list[tuple[float, int, Listener, Callable[[], None]]] = []
        self._count = itertools.count()
        self._done: deque[tuple[Listener, Callable[[], None]]] = deque()
        self._outside = threading.BoundedSemaphore(MOST_ASKED_OUTSIDE)
        self._lock = threading.Lock()

    def watch(self, fd: int, listener: Listener, handler: Callable[[int], None]) -> None:
        """Call ``handler`` under the listener's lock when there is something to read from ``fd``."""
        with self._lock:
            if self._epoll is None:
                standing.home()  # its failure belongs to the caller, not to a thread nobody watches
                self._epoll = select.epoll()
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._epoll.register(self._wake, select.EPOLLIN)
                threading.Thread(
                    target=self._run, args=(self._epoll,), name="netwarren-names", daemon=True
                ).start()
            self._handlers[fd] = listener, handler
            self._epoll.register(fd, select.EPOLLIN)

    def want(self, fd: int, *, readable: bool = True, writable: bool = False) -> None:
        """When to call the handler of ``fd``."""
        assert self._epoll is not None
        self._epoll.modify(fd, select.EPOLLIN * readable | select.EPOLLOUT * writable)

    def forget(self, fd: int) -> None:
        """Take `watch` back, before ``fd`` is closed."""
        with self._lock:
            if self._handlers.pop(fd, None) is not None and self._epoll is not None:
                self._epoll.unregister(fd)

    def after(self, seconds: float, listener: Listener, act: Callable[[], None]) -> None:
        """Act now, or in some seconds; on the server's thread, under the listener's lock, which it has."""
        if seconds <= 0:
            act()
        else:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), listener, act))

    def elsewhere(self, listener: Listener, ask: Callable[[], T], finish: Callable[[T | None], None]) -> None:
        """`Listener.elsewhere`."""
        if not self._outside.acquire(blocking=False):
            finish(None)
            return
        outside, done, wake = self._outside, self._done, self._wake

        def run() -> None:
            result: T | None = None
            try:
                with contextlib.suppress(Exception):  # of a callable that we were given
                    result = ask()
            finally:
                outside.release()
            done.append((listener, partial(finish, result)))
            os.eventfd_write(wake, 1)

        threading.Thread(target=run, name="netwarren-names-outside", daemon=True).start()

    def _run(self, epoll: select.epoll) -> None:
        # Started by whoever makes the first cluster, perhaps inside a pod, which it must not keep alive.
        standing.live_in(standing.home())
        while True:
            events = epoll.poll(max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None)
            if events and not self._looked_for_exchange:
                self._look_for_exchange()
            for fd, event in events:
                if fd == self._wake:
                    os.eventfd_read(fd)
                    continue
                with self._lock:
                    listener, handler = self._handlers.get(fd, (None, None))
                if listener is not None and handler is not None:
                    self._act(listener, partial(handler, event))
            while self._done:
                self._act(*self._done.popleft())
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                _when, _number, listener, act = heapq.heappop(self._timers)
                self._act(listener, act)

    @staticmethod
    def _act(listener: Listener, act: Callable[[], None]) -> None:
        with listener.lock, contextlib.suppress(Exception):  # of one client, which nobody else shall feel
            if not listener.closed:
                act()

    def _look_for_exchange(self) -> None:
        """Import it, which takes a tenth of a second; without dnspython every answer is SERVFAIL."""
        self._looked_for_exchange = True
        with contextlib.suppress(ImportError):
            from netwarren.names import exchange

            self.exchange = exchange

    def forget_all(self) -> None:
        """In a forked child: the thread is gone, and the sockets are the parent's, who needs their port."""
        if self._epoll is not None:
            self._epoll.close()
            os.close(self._wake)
        for fd, (listener, _handler) in self._handlers.items():
            listener.closed = True
            for each in (listener.udp, listener.tcp, *(c.socket for c in listener.connections.values())):
                if each.fileno() == fd:
                    each.close()
        exchange, looked = self.exchange, self._looked_for_exchange
        self.__init__()  # type: ignore[misc]
        self.exchange, self._looked_for_exchange = exchange, looked


_server = _Server()
os.register_at_fork(after_in_child=_server.forget_all)
