"""Transparent proxying: packets for any address handed to a socket of ours; the kernel's tproxy.rst.

Rules: as in `nftables`, an expression is bytes that `add_rule` takes; a socket is made in the namespace
that the calling thread stands in, and is not blocking.
Does not belong here: which packets are caught, and what is done with what was sent in them.
"""

import errno
import socket
import struct
from collections.abc import Iterable

from netwarren.errors import KernelError
from netwarren.kernel import nft_expressions as nft
from netwarren.kernel.address import AF_INET, AF_INET6, IPAddress, IPNetwork
from netwarren.kernel.netlink import Request
from netwarren.kernel.nftables import NLM_F_APPEND, add_rule

# linux/in.h, linux/in6.h
_IP_RECVORIGDSTADDR = 20
_IP_TRANSPARENT = 19
_IPV6_RECVORIGDSTADDR = 74
_IPV6_TRANSPARENT = 75

_SOCKADDR_IN = struct.Struct("=H2s4s")
_SOCKADDR_IN6 = struct.Struct("=H2s4x16s")

ANCILLARY_BYTES = socket.CMSG_SPACE(28)
"""What `socket.recvmsg` needs of room for `original_destination`: a struct sockaddr_in6."""


# --- rules ----------------------------------------------------------------------------------------


def add_catch(
    table: str,
    chain: str,
    network: IPNetwork,
    port: int | None,
    to: tuple[IPAddress, int],
    mark: int,
    *,
    first: bool = False,
) -> Request:
    """A rule that hands packets for ``network``, or for one port there, to the socket at ``to``.

    At the end of the chain, which is one of type filter at prerouting, or as its ``first``. The ``mark`` is for a
    policy rule, so that the packet is received at all.
    ``nft add|insert rule ip TABLE CHAIN ip daddr NETWORK th dport PORT tproxy to ADDRESS:PORT meta mark set
    MARK accept``
    """
    address, listening = to
    ports = [] if port is None else nft.match_destination_port(port)
    hand_over = [*nft.tproxy(address, listening), *nft.set_mark(mark), *nft.accept()]
    words = f"daddr {network}" + (f" th dport {port}" if port is not None else "")
    rule = add_rule(
        _family(network),
        table,
        chain,
        [*_destination(network), *ports, *hand_over],
        f"{words} tproxy to {address} port {listening}",
    )
    flags = rule.flags & ~NLM_F_APPEND if first else rule.flags
    return rule._replace(flags=flags, needs="transparent proxying")


def add_pass(table: str, chain: str, network: IPNetwork) -> Request:
    """A rule that lets packets for ``network`` go on their way. ``nft add rule ... ip daddr NETWORK accept``"""
    words = f"daddr {network} accept"
    return add_rule(_family(network), table, chain, [*_destination(network), *nft.accept()], words)


def _destination(network: IPNetwork) -> list[bytes]:
    return nft.match_destination(network) if network.prefixlen else []


def _family(network: IPNetwork) -> str:
    return "ip" if network.version == 4 else "ip6"


# --- sockets --------------------------------------------------------------------------------------


def listeners(address: IPAddress, backlog: int) -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket at ``address``, on one port, that take what is handed to them.

    An accepted socket's own address is the one that was dialled; for UDP, see `original_destination`.
    """
    while True:
        streams = transparent_socket(address, socket.SOCK_STREAM)
        datagrams = transparent_socket(address, socket.SOCK_DGRAM)
        try:
            streams.bind((str(address), 0))
            datagrams.bind(streams.getsockname())
            streams.listen(backlog)
            if address.version == 4:
                datagrams.setsockopt(socket.IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
            else:
                datagrams.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)
            return streams, datagrams
        except BaseException as error:
            streams.close()
            datagrams.close()
            if not isinstance(error, OSError):
                raise
            if error.errno != errno.EADDRINUSE:  # else somebody has that port for UDP
                raise KernelError(f"listen at {address}", error.errno or 0) from None


def transparent_socket(address: IPAddress, kind: int) -> socket.socket:
    """A socket that may have addresses which this machine has not; IP_TRANSPARENT of ip(7)."""
    made = socket.socket(AF_INET if address.version == 4 else AF_INET6, kind)
    try:
        made.setblocking(False)
        if address.version == 4:
            made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    except OSError as error:
        made.close()
        raise KernelError("make a transparent socket", error.errno or 0) from None
    except BaseException:
        made.close()
        raise
    return made


def original_destination(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[str, int] | None:
    """The address and port that a datagram was sent to, from what `socket.recvmsg` told beside it."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_RECVORIGDSTADDR):
            _, port, packed = _SOCKADDR_IN.unpack_from(data)
            return socket.inet_ntop(socket.AF_INET, packed), int.from_bytes(port, "big")
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR):
            _, port, packed = _SOCKADDR_IN6.unpack_from(data)
            return socket.inet_ntop(socket.AF_INET6, packed), int.from_bytes(port, "big")
    return None
