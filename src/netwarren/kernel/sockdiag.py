"""The TCP and UDP sockets of a network namespace: who listens, who is connected, and ending them.

Rules: takes a `Netlink` opened with `NETLINK_SOCK_DIAG`; sock_diag(7) is the source of every layout.
Does not belong here: which process owns a socket (/proc/PID/fd), Unix sockets, waiting for a port.
"""

import errno
import struct
from collections.abc import Iterable
from typing import NamedTuple

from netwarren.errors import KernelError
from netwarren.kernel.address import AF_INET, AF_INET6, IPAddress, unpack_address
from netwarren.kernel.netlink import (
    Netlink,
    NetlinkFormatError,
    Request,
    number,
    pack_header,
    parse_attributes,
    unpack_header,
)

# linux/sock_diag.h
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21

# linux/inet_diag.h
_INET_DIAG_SKV6ONLY = 11

_PROTOCOLS = {"tcp": 6, "udp": 17}  # linux/in.h

# net/tcp_states.h, by the words of ss(8)
_STATES = {
    1: "established",
    2: "syn-sent",
    3: "syn-recv",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    7: "unconnected",
    8: "close-wait",
    9: "last-ack",
    10: "listen",
    11: "closing",
    12: "syn-recv",
}
_ALL = 0xFFF << 1
_LISTENING = {"tcp": 1 << 10, "udp": 1 << 7}  # a bound UDP socket without a peer is as good as listening

_REQUEST = struct.Struct("=BBBBI")  # struct inet_diag_req_v2: family, protocol, extensions, -, states
_ID_SIZE = 48  # struct inet_diag_sockid
# struct inet_diag_msg: family, state, timer, retransmissions, then the id: ports, addresses,
# interface, cookie; then expiry, queues, uid, inode.
_MESSAGE = struct.Struct("=BBBB2s2s16s16sI8s5I")


class SocketInfo(NamedTuple):
    """A socket as the kernel describes it."""

    protocol: str
    """``tcp`` or ``udp``."""
    local_address: IPAddress
    local_port: int
    remote_address: IPAddress
    remote_port: int
    state: str
    """``listen``, ``established``, ``unconnected``, ...; the words of ss(8)."""
    inode: int
    """What /proc/PID/fd calls it: ``socket:[INODE]``; 0 when no process has it any more."""
    uid: int
    v6only: bool
    """Of an IPv6 socket that listens: does it refuse IPv4?"""
    id: bytes
    """The kernel's own identification of it: ``struct inet_diag_sockid``."""

    def __str__(self) -> str:
        text = f"{self.protocol} {_endpoint(self.local_address, self.local_port)}"
        if self.remote_port:
            text += f" -> {_endpoint(self.remote_address, self.remote_port)}"
        return f"{text} {self.state}"


def _endpoint(address: IPAddress, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def parse_socket(protocol: str, body: bytes) -> SocketInfo:
    """A `SocketInfo` from the body of an answer."""
    family, state, _, _, sport, dport, source, destination, _, _, *tail = unpack_header(_MESSAGE, body)
    found = parse_attributes(body, _MESSAGE.size)
    if family not in (AF_INET, AF_INET6):
        raise NetlinkFormatError(f"a socket of address family {family}, which is neither IPv4 nor IPv6")
    size = 4 if family == AF_INET else 16
    return SocketInfo(
        protocol=protocol,
        local_address=unpack_address(source[:size]),
        local_port=int.from_bytes(sport, "big"),
        remote_address=unpack_address(destination[:size]),
        remote_port=int.from_bytes(dport, "big"),
        state=_STATES.get(state) or str(state),
        inode=tail[4],
        uid=tail[3],
        v6only=bool(number(found, _INET_DIAG_SKV6ONLY)),
        id=body[4 : 4 + _ID_SIZE],
    )


def sockets(netlink: Netlink, *, listening_only: bool = True) -> list[SocketInfo]:
    """The TCP and UDP sockets of both families; ``ss -tuln``, or ``ss -tuan``.

    A UDP socket that is bound and has no peer counts as listening.
    """
    found: list[SocketInfo] = []
    for protocol, number_ in _PROTOCOLS.items():
        states = _LISTENING[protocol] if listening_only else _ALL
        for family in (AF_INET, AF_INET6):
            body = pack_header(_REQUEST, family, number_, 0, 0, states) + bytes(_ID_SIZE)
            request = Request(
                _SOCK_DIAG_BY_FAMILY, 0, body, f"list the {protocol} sockets", "socket diagnosis"
            )
            found += [parse_socket(protocol, answer) for answer in netlink.dump(request)]
    return found


def destroy(netlink: Netlink, sockets: Iterable[SocketInfo]) -> None:
    """End sockets under their owners, who see ECONNABORTED; those that are gone already are no error.

    ``ss --kill``; sock_diag(7), SOCK_DESTROY of linux/sock_diag.h. Tries them all.
    """
    failure: KernelError | None = None
    for socket in sockets:
        family = AF_INET if socket.local_address.version == 4 else AF_INET6
        body = pack_header(_REQUEST, family, _PROTOCOLS[socket.protocol], 0, 0, 0) + socket.id
        request = Request(_SOCK_DESTROY, 0, body, f"destroy socket {socket}", "socket destruction")
        try:
            netlink.commit((request,))
        except KernelError as error:
            if error.errno != errno.ENOENT:
                failure = failure or error
    if failure is not None:
        raise failure
