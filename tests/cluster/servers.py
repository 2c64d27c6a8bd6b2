"""Servers in several pods, and clients that get to one of them without saying to which.

Rules: all sockets are used from one thread; who was chosen is who has something to read; everything has a
timeout, so that what gets lost fails.
Does not belong here: packets to a machine that is known beforehand (see `traffic`).
"""

import select
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

from netwarren.cluster.members import Pod
from netwarren.runtime.machine import Machine
from tests.cluster.traffic import SECONDS, listener, new_socket

PORT = 8080


class Answer(NamedTuple):
    """Who was chosen, and the address it saw."""

    server: str
    seen_from: str


class Session(NamedTuple):
    """A connection that stays open, with whom, and from what address that sees it come."""

    near: socket.socket
    far: socket.socket
    server: str

    def works(self) -> bool:
        """Whether data passes both ways."""
        for sender, receiver in ((self.near, self.far), (self.far, self.near)):
            sender.sendall(b"still there?")
            if receiver.recv(100) != b"still there?":
                return False
        return True

    def close(self) -> None:
        self.near.close()
        self.far.close()


class Servers:
    """In each of ``pods``, at each of its addresses, a listener and a socket for datagrams."""

    def __init__(self, pods: Iterable[Pod], port: int = PORT) -> None:
        self.port = port
        self._listeners: dict[socket.socket, str] = {}
        self._datagrams: dict[socket.socket, str] = {}
        for pod in pods:
            self.add(pod)

    def add(self, pod: Pod) -> None:
        for ip in pod.ips:
            self._listeners[listener(pod, ip, self.port)] = pod.name
            made = new_socket(pod, ip, socket.SOCK_DGRAM)
            made.bind((ip, self.port))
            self._datagrams[made] = pod.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (*self._listeners, *self._datagrams):
            each.close()

    def session(self, client: Machine, address: str, port: int = 80, *, source: str = "") -> Session:
        """A connection from ``client`` to ``address``, with whoever is chosen."""
        near = new_socket(client, address)
        try:
            if source:
                near.bind((source, 0))
            near.connect((address, port))
            chosen = _readable(self._listeners)
            far, _ = chosen.accept()
        except BaseException:
            near.close()
            raise
        far.settimeout(SECONDS)
        return Session(near, far, self._listeners[chosen])

    def ask(self, client: Machine, address: str, port: int = 80, *, source: str = "") -> Answer:
        """Who is chosen for a connection, which data pass in both directions."""
        made = self.session(client, address, port, source=source)
        try:
            assert made.works()
            return Answer(made.server, str(made.far.getpeername()[0]))
        finally:
            made.close()

    def exchange(self, near: socket.socket) -> Answer:
        """Who is chosen for a datagram from a connected socket, which gets an answer."""
        near.send(b"who is there?")
        chosen = _readable(self._datagrams)
        data, source = chosen.recvfrom(100)
        assert data == b"who is there?"
        chosen.sendto(b"me", source)
        assert near.recv(100) == b"me"
        return Answer(self._datagrams[chosen], str(source[0]))

    def ask_by_datagram(self, client: Machine, address: str, port: int = 80) -> Answer:
        """Who is chosen for a new flow of datagrams."""
        with new_socket(client, address, socket.SOCK_DGRAM) as near:
            near.connect((address, port))
            return self.exchange(near)

    def chosen(self, client: Machine, address: str, port: int = 80, times: int = 40) -> set[str]:
        """Who is chosen at all. Of two, one is missed by chance once in 2 ** 39 tests."""
        return {self.ask(client, address, port).server for _ in range(times)}


def _readable(sockets: Iterable[socket.socket]) -> socket.socket:
    ready, _, _ = select.select(list(sockets), [], [], SECONDS)
    if not ready:
        raise TimeoutError("nobody was chosen")
    (chosen,) = ready
    return chosen
