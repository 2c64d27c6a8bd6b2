"""Packets between machines, by sockets made in them and used from this one thread.

Rules: every socket has a timeout, so that what gets lost fails; what can be lost and sent again without
anybody noticing (TCP) is counted.
Does not belong here: what the kernel's tables say (see `readback`).
"""

import errno
import os
import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

from netwarren.runtime.machine import Machine

SECONDS = 10.0

_ETH_P_ALL = 3
_ETHER = struct.Struct("!6s6sH")
_TOTAL_RETRANS = 100  # of struct tcp_info
_IP_RECVTTL = 12  # linux/in.h; in the socket module from Python 3.14 on
_RECVERR = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}  # linux/in*.h


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def new_socket(machine: Machine, address: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket of ``machine`` that can speak with ``address``."""
    made = machine.socket(family(address), kind)
    made.settimeout(SECONDS)
    return made


def listener(machine: Machine, address: str, port: int = 8080) -> socket.socket:
    made = new_socket(machine, address)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen()
    return made


class Connection:
    """A TCP connection: both ends, and what it took to make it."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.near.close()
        self.far.close()

    @property
    def seen_from(self) -> str:
        """The client's address, as the server sees it."""
        return str(self.far.getpeername()[0])

    @property
    def sent_again(self) -> int:
        """How many packets of the client's were lost, the first ones included."""
        information = self.near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int.from_bytes(information[_TOTAL_RETRANS : _TOTAL_RETRANS + 4], "little")


def connect(client: Machine, server: Machine, address: str, port: int = 8080) -> Connection:
    """A connection from ``client`` to ``address``, which ``server`` has."""
    with listener(server, address, port) as listening:
        near = new_socket(client, address)
        try:
            near.connect((address, port))
            far, _ = listening.accept()
        except BaseException:
            near.close()
            raise
        far.settimeout(SECONDS)
        return Connection(near, far)


def refusal(client: Machine, address: str, port: int = 8080) -> str:
    """The name of the error a datagram to ``address`` is answered with; raises TimeoutError for silence.

    A datagram, because a router's answer may come while `connect` of TCP holds its socket: the kernel then
    keeps it to itself, in IPv6, until it has sent another packet a second later.
    """
    with new_socket(client, address, socket.SOCK_DGRAM) as near:
        level, option = _RECVERR[near.family]
        near.setsockopt(level, option, 1)
        try:
            near.connect((address, port))
            near.send(b"anybody there?")
            near.recv(1)
        except TimeoutError:
            raise
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "answered"


def connect_refusal(client: Machine, address: str, port: int = 8080) -> str:
    """The name of the error that connecting to ``address`` ends with; raises TimeoutError for silence."""
    with new_socket(client, address) as near:
        number = near.connect_ex((address, port))
        if number == errno.EAGAIN:  # what a socket with a timeout says when that is over
            raise TimeoutError(f"{client.label} got no answer from {address}")
        return errno.errorcode.get(number, str(number))


def reaches(client: Machine, server: Machine, address: str) -> bool:
    """Whether a connection succeeds, at the first packet."""
    with connect(client, server, address) as made:
        return made.sent_again == 0


class Datagram(NamedTuple):
    """A UDP datagram as it arrived."""

    ttl: int
    source: str
    data: bytes


def datagram(sender: Machine, receiver: Machine, address: str, data: bytes = b"hello") -> Datagram:
    """Send one from ``sender`` to ``address``, which ``receiver`` has; a TTL starts at 64."""
    with (
        new_socket(receiver, address, socket.SOCK_DGRAM) as far,
        new_socket(sender, address, socket.SOCK_DGRAM) as near,
    ):
        if family(address) == socket.AF_INET6:
            far.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        else:
            far.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        far.bind((address, 5353))
        near.sendto(data, (address, 5353))
        received, controls, _, source = far.recvmsg(65536, 64)
        ((_, _, value),) = controls
        return Datagram(int.from_bytes(value[:4], "little"), source[0], received)


class Frame(NamedTuple):
    source_mac: str
    destination_mac: str
    data: bytes


class Tap:
    """All frames that pass a link of a machine, from now on; an AF_PACKET socket."""

    def __init__(self, machine: Machine, link: str) -> None:
        self._socket = machine.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.setblocking(False)
        self._socket.bind((link, _ETH_P_ALL))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def frames(self, mark: bytes) -> list[Frame]:
        """Those that passed so far and carry ``mark``."""
        found: list[Frame] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return found
            if mark in data:
                to, by, _ = _ETHER.unpack_from(data)
                found.append(Frame(by.hex(":"), to.hex(":"), data[_ETHER.size :]))


def mark() -> bytes:
    """Bytes that no other packet carries."""
    return os.urandom(16)
