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
from netwarren.kernel.address import AF_INET, AF_INET6, IPAddress, IPNetwork
from netwarren.kernel.netlink import Request, nest
from netwarren.kernel.nftables import (
    _NLM_F_APPEND,
    _be16,
    _be32,
    _data,
    _equals,
    _expression,
    add_rule,
    match_destination_port,
)

# linux/netfilter/nf_tables.h
_NFTA_TPROXY_FAMILY = 1
_NFTA_TPROXY_REG_ADDR = 2
_NFTA_TPROXY_REG_PORT = 3
_NFTA_META_KEY = 2
_NFTA_META_SREG = 3
_NFTA_BITWISE_SREG = 1
_NFTA_BITWISE_DREG = 2
_NFTA_BITWISE_LEN = 3
_NFTA_BITWISE_MASK = 4
_NFTA_BITWISE_XOR = 5
_NFTA_PAYLOAD_DREG = 1
_NFTA_PAYLOAD_BASE = 2
_NFTA_PAYLOAD_OFFSET = 3
_NFTA_PAYLOAD_LEN = 4
_NFTA_IMMEDIATE_DREG = 1
_NFTA_IMMEDIATE_DATA = 2
_NFTA_DATA_VERDICT = 2
_NFTA_VERDICT_CODE = 1
_NFT_REG_VERDICT = 0
_NFT_REG_1 = 1
_NFT_REG_2 = 2
_NFT_META_MARK = 3
_NFT_PAYLOAD_NETWORK_HEADER = 1
_NF_ACCEPT = 1

_PROTO = {4: 2, 6: 10}  # NFPROTO_IPV4 and NFPROTO_IPV6 of linux/netfilter.h
_DADDR = {4: (16, 4), 6: (24, 16)}  # offset and length in struct iphdr and struct ipv6hdr

# linux/in.h, linux/in6.h
_IP_RECVORIGDSTADDR = 20
_IP_TRANSPARENT = 19
_IPV6_RECVORIGDSTADDR = 74
_IPV6_TRANSPARENT = 75

_SOCKADDR_IN = struct.Struct("=H2s4s")
_SOCKADDR_IN6 = struct.Struct("=H2s4x16s")

ANCILLARY_BYTES = socket.CMSG_SPACE(28)
"""What `socket.recvmsg` needs of room for `original_destination`: a struct sockaddr_in6."""


# --- expressions ----------------------------------------------------------------------------------


def match_destination(network: IPNetwork) -> list[bytes]:
    """``ip daddr NETWORK`` or ``ip6 daddr NETWORK``, in a table of that family; nothing where it is all."""
    if not network.prefixlen:
        return []
    offset, length = _DADDR[network.version]
    found = [
        _expression(
            "payload",
            _be32(_NFTA_PAYLOAD_DREG, _NFT_REG_1),
            _be32(_NFTA_PAYLOAD_BASE, _NFT_PAYLOAD_NETWORK_HEADER),
            _be32(_NFTA_PAYLOAD_OFFSET, offset),
            _be32(_NFTA_PAYLOAD_LEN, length),
        )
    ]
    if network.prefixlen < network.max_prefixlen:
        found.append(
            _expression(
                "bitwise",
                _be32(_NFTA_BITWISE_SREG, _NFT_REG_1),
                _be32(_NFTA_BITWISE_DREG, _NFT_REG_1),
                _be32(_NFTA_BITWISE_LEN, length),
                _data(_NFTA_BITWISE_MASK, network.netmask.packed),
                _data(_NFTA_BITWISE_XOR, bytes(length)),
            )
        )
    return [*found, _equals(network.network_address.packed)]


def accept() -> list[bytes]:
    """``accept``: what has come so far goes through this chain no further."""
    verdict = nest(_NFTA_IMMEDIATE_DATA, nest(_NFTA_DATA_VERDICT, _be32(_NFTA_VERDICT_CODE, _NF_ACCEPT)))
    return [_expression("immediate", _be32(_NFTA_IMMEDIATE_DREG, _NFT_REG_VERDICT), verdict)]


def hand_to(address: IPAddress, port: int, mark: int) -> list[bytes]:
    """``tproxy to ADDRESS:PORT meta mark set MARK accept``, in a chain of type filter at prerouting.

    The packet goes to the socket there, TCP's or UDP's, or to the one that has accepted its connection;
    the mark is for a policy rule, so that it is received at all. Packets of other protocols go on.
    """
    return [
        _immediate(_NFT_REG_1, address.packed),
        _immediate(_NFT_REG_2, _be16(port)),
        _expression(
            "tproxy",
            _be32(_NFTA_TPROXY_FAMILY, _PROTO[address.version]),
            _be32(_NFTA_TPROXY_REG_ADDR, _NFT_REG_1),
            _be32(_NFTA_TPROXY_REG_PORT, _NFT_REG_2),
        ),
        _immediate(_NFT_REG_1, struct.pack("=I", mark)),
        _expression("meta", _be32(_NFTA_META_KEY, _NFT_META_MARK), _be32(_NFTA_META_SREG, _NFT_REG_1)),
        *accept(),
    ]


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", _be32(_NFTA_IMMEDIATE_DREG, register), _data(_NFTA_IMMEDIATE_DATA, value))


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

    At the end of the chain, or as its ``first``.
    ``nft add|insert rule ip TABLE CHAIN ip daddr NETWORK th dport PORT tproxy to ADDRESS:PORT ...``
    """
    address, listening = to
    ports = [] if port is None else match_destination_port(port)
    words = f"daddr {network}" + (f" th dport {port}" if port is not None else "")
    rule = add_rule(
        _family(network),
        table,
        chain,
        [*match_destination(network), *ports, *hand_to(address, listening, mark)],
        f"{words} tproxy to {address} port {listening}",
    )
    flags = rule.flags & ~_NLM_F_APPEND if first else rule.flags
    return rule._replace(flags=flags, needs="transparent proxying")


def add_pass(table: str, chain: str, network: IPNetwork) -> Request:
    """A rule that lets packets for ``network`` go on their way. ``nft add rule ... ip daddr NETWORK accept``"""
    words = f"daddr {network} accept"
    return add_rule(_family(network), table, chain, [*match_destination(network), *accept()], words)


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
