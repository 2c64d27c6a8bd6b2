"""Netlink's wire and its socket: a batch of requests out in one `sendmsg`, answers matched by number.

Rules: the wire half is pure and refuses malformed input with `NetlinkFormatError`; a socket belongs to
the namespace it was opened in and serves any thread; all answers are read before an error is raised.
Does not belong here: what a link, an address or a route looks like (one file each); nftables.
"""

import errno
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from netwarren.errors import ClosedError, KernelError, NetwarrenError, UnsupportedByKernel
from netwarren.kernel import descriptors

# linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SOL_NETLINK = 270

_NLMSG_ERROR = 2
_NLMSG_DONE = 3

_NLM_F_REQUEST = 0x01
_NLM_F_ACK = 0x04
_NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
_NLM_F_DUMP = 0x300
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200

_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

# The kernel's own ENOTSUPP leaks out of some drivers and has no name in user space.
_ENOTSUPP = 524

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_U8 = struct.Struct("=HHBxxx")
_U16 = struct.Struct("=HHHxx")
_U32 = struct.Struct("=HHI")
_ERRNO = struct.Struct("=i")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

# One datagram must fit the send buffer, and the answers of a datagram whose every request fails must
# fit the receive buffer (208 KiB each by default; an answer takes about 900 bytes of it).
_MOST_REQUESTS = 128
_MOST_BYTES = 64 * 1024
_RECEIVE = 64 * 1024
_DUMP_TRIES = 10


class NetlinkFormatError(NetwarrenError, ValueError):
    """Bytes that are no netlink message, or a value that fits none."""


class Request(NamedTuple):
    """One netlink message to send.

    ``flags`` are NLM_F_* beyond REQUEST and ACK, ``body`` the family's header and attributes, ``doing``
    says it in words for errors, ``needs`` names the part of the kernel (``veth``) it cannot do without.
    """

    type: int
    flags: int
    body: bytes
    doing: str
    needs: str = ""


# --- the wire: attributes, headers, messages ------------------------------------------------------


def attribute(type: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes; ``struct nlattr`` of linux/netlink.h."""
    size = len(value)
    if size > 0xFFFF - 4:
        raise NetlinkFormatError(f"attribute {type} is {size} bytes long; netlink carries 65531 at most")
    return _ATTRIBUTE.pack(size + 4, type) + value + _PADDING[size & 3]


def _number(layout: struct.Struct, size: int, type: int, value: int) -> bytes:
    try:
        return layout.pack(size + 4, type, value)
    except struct.error:
        raise NetlinkFormatError(
            f"{value!r} does not fit attribute {type}, an unsigned number of {8 * size} bits"
        ) from None


def u8(type: int, value: int) -> bytes:
    """An attribute that holds an unsigned byte."""
    return _number(_U8, 1, type, value)


def u16(type: int, value: int) -> bytes:
    """An attribute that holds an unsigned 16 bit number in this machine's order."""
    return _number(_U16, 2, type, value)


def u32(type: int, value: int) -> bytes:
    """An attribute that holds an unsigned 32 bit number in this machine's order."""
    return _number(_U32, 4, type, value)


def nest(type: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(type | _NLA_F_NESTED, b"".join(parts))


def pack_header(layout: struct.Struct, *values: int) -> bytes:
    """A family header (``struct ifinfomsg`` and its like) from numbers."""
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise NetlinkFormatError(f"{values} does not fit a netlink header: {error}") from None


def unpack_header(layout: struct.Struct, body: bytes) -> tuple[Any, ...]:
    """The numbers of the family header at the start of a message's body."""
    try:
        return layout.unpack_from(body)
    except struct.error:
        raise NetlinkFormatError(
            f"a message of {len(body)} bytes is too short for its header of {layout.size}"
        ) from None


def parse_attributes(data: bytes | memoryview, offset: int = 0) -> dict[int, bytes]:
    """The attributes from ``offset`` to the end, by type; of equal types the last."""
    end = len(data)
    if not 0 <= offset <= end:
        raise NetlinkFormatError(f"attributes cannot start at byte {offset} of {end}")
    found: dict[int, bytes] = {}
    while offset < end:
        left = end - offset
        if left < 4:
            raise NetlinkFormatError(f"{left} stray bytes after the last attribute")
        length, type = _ATTRIBUTE.unpack_from(data, offset)
        if not 4 <= length <= left:
            raise NetlinkFormatError(f"attribute {type} claims {length} bytes where {left} are left")
        found[type & _NLA_TYPE_MASK] = bytes(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    return found


def number(attributes: Mapping[int, bytes], type: int, default: int = 0) -> int:
    """The unsigned number, of whatever width, in an attribute."""
    value = attributes.get(type)
    return default if value is None else int.from_bytes(value, sys.byteorder)


def text(attributes: Mapping[int, bytes], type: int) -> str:
    """The NUL-terminated string in an attribute, ``""`` where there is none."""
    return attributes.get(type, b"").partition(b"\0")[0].decode(errors="replace")


def parse_messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message in a datagram."""
    offset, end = 0, len(data)
    while offset < end:
        left = end - offset
        if left < 16:
            raise NetlinkFormatError(f"{left} stray bytes after the last message")
        length, type, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not 16 <= length <= left:
            raise NetlinkFormatError(f"a message claims {length} bytes where {left} were received")
        yield type, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def parse_answer(flags: int, body: bytes, done: bool = False) -> tuple[int, str]:
    """Errno (0: it worked) and the kernel's text, of an NLMSG_ERROR or (``done``) NLMSG_DONE."""
    if done and not body:
        return 0, ""
    (result,) = unpack_header(_ERRNO, body)
    detail = ""
    if flags & _NLM_F_ACK_TLVS:
        if done:
            start = 4
        elif flags & _NLM_F_CAPPED:
            start = 20
        else:  # the whole request is quoted before the attributes
            start = 4 + ((int.from_bytes(body[4:8], sys.byteorder) + 3) & ~3)
        detail = text(parse_attributes(body, start), _NLMSGERR_ATTR_MSG)
    return -result, detail


# --- what the kernel may lack ---------------------------------------------------------------------

_ABSENT = frozenset({errno.EOPNOTSUPP, errno.ENOENT, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
# Of a link, EOPNOTSUPP alone may also mean a master that takes no ports: the text tells (Linux 5.0).
_ABSENT_KIND = _ABSENT - {errno.EOPNOTSUPP}
_NO_SUCH_KIND = "Unknown device type"
# Of a socket, ENOENT means that it is gone.
_ABSENT_DESTROY = frozenset({errno.EOPNOTSUPP})
# Of nftables it may mean a table or chain that is not there.
_ABSENT_NFTABLES = frozenset({errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})

# What a request may need of the kernel: how to get it, and the answers that mean it is missing.
_NEEDS: dict[str, tuple[str, frozenset[int]]] = {
    "veth": ("`modprobe veth`, or CONFIG_VETH=y", _ABSENT_KIND),
    "bridge": ("`modprobe bridge`, or CONFIG_BRIDGE=y", _ABSENT_KIND),
    "IPv6": ("CONFIG_IPV6=y, and no ipv6.disable=1 on its command line", _ABSENT),
    "policy routing": ("CONFIG_IP_MULTIPLE_TABLES=y, CONFIG_IPV6_MULTIPLE_TABLES=y", _ABSENT),
    "socket diagnosis": (
        "`modprobe tcp_diag udp_diag`, or CONFIG_INET_DIAG=y and CONFIG_INET_UDP_DIAG=y",
        _ABSENT,
    ),
    "socket destruction": ("CONFIG_INET_DIAG_DESTROY=y", _ABSENT_DESTROY),
    "nftables": ("`modprobe nf_tables`, or CONFIG_NF_TABLES=y", _ABSENT_NFTABLES),
    # Asked for in a table that is there: what is not, is the kind of chain or expression.
    "NAT in nftables": (
        "`modprobe nft_chain_nat nft_masq nft_reject_ipv4 nft_reject_ipv6 nft_numgen`, or CONFIG_NFT_NAT=y, "
        "CONFIG_NFT_MASQ=y, CONFIG_NFT_REJECT=y and CONFIG_NFT_NUMGEN=y",
        _ABSENT,
    ),
    "connection tracking": (
        "`modprobe nf_conntrack_netlink`, or CONFIG_NF_CT_NETLINK=y",
        _ABSENT_NFTABLES,
    ),
    "transparent proxying": (
        "`modprobe nft_tproxy`, or CONFIG_NFT_TPROXY=y",
        _ABSENT_NFTABLES | {errno.ENOENT},
    ),
}

# A protocol by name, and what the kernel lacks where no socket of it can be opened.
_PROTOCOLS = {
    NETLINK_ROUTE: ("route", "route netlink"),
    NETLINK_SOCK_DIAG: ("sock_diag", "socket diagnosis"),
    NETLINK_NETFILTER: ("netfilter", "nftables"),
}


def refusal(request: Request, number: int, where: str, detail: str = "") -> KernelError:
    """The error for a request the kernel refused: the one place that translates netlink's errors."""
    number = errno.EOPNOTSUPP if number == _ENOTSUPP else number
    if request.needs:
        remedy, absent = _NEEDS.get(request.needs) or (
            f"`modprobe {request.needs}`, or a kernel built with it",
            _ABSENT_KIND,
        )
        if detail == _NO_SUCH_KIND or (number in absent and not detail):
            hint = f"This kernel has no {request.needs}: {remedy}"
            return UnsupportedByKernel(request.doing, number, where=where, detail=detail, hint=hint)
    hint = descriptors.hint(number)
    if number == errno.EPERM:
        hint = "It takes CAP_NET_ADMIN in the user namespace that owns this network namespace"
    return KernelError(request.doing, number, where=where, detail=detail, hint=hint)


# --- the socket -----------------------------------------------------------------------------------


class Netlink:
    """A netlink socket of the network namespace the opening thread stands in; netlink(7).

    It stays in that namespace whatever thread uses it later, and locks itself. The kernel answers within
    the send, so reading never waits: an answer that is not there will not come.
    """

    def __init__(self, where: str, protocol: int = NETLINK_ROUTE) -> None:
        self.where = where
        self.protocol = protocol
        self._lock = threading.Lock()
        self._sequence = 0
        self._in_step = True
        self._overrun = False
        self._socket: socket.socket | None = None
        try:
            self._socket = sock = descriptors.opened(
                lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
            )
        except OSError as error:
            _, needs = _PROTOCOLS.get(protocol, ("", f"netlink protocol {protocol}"))
            request = Request(0, 0, b"", "open a netlink socket", needs)
            raise refusal(request, error.errno or 0, where) from None
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                sock.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                pass  # before Linux 4.20: errors without a text, dumps that are filtered by us alone

    def commit(self, requests: Sequence[Request]) -> None:
        """Have all requests carried out, in order, in one system call (more when they are thousands).

        Every request is tried, also after one that failed. Raises the error of the first that failed.
        """
        failure: KernelError | None = None
        with self._lock:
            for batch in _batches(requests):
                failed = self._commit_batch(batch)
                failure = failure or failed
        if failure is not None:
            raise failure

    def commit_whole(self, opening: Request, requests: Sequence[Request], closing: Request) -> None:
        """Have all requests carried out or none: a batch of nfnetlink, framed by two messages.

        Raises the error of the first that failed, or that of ``opening`` where the whole was refused.
        """
        if requests:
            with self._lock:
                # Kernels before 6.10 do not answer the closing message; the one before it is the last.
                failure = self._commit_batch((opening, *requests, closing), unanswered=1)
            if failure is not None:
                raise failure

    def dump(self, request: Request) -> list[bytes]:
        """The bodies of all messages of a multipart answer: what ``ip ... show`` reads."""
        for _ in range(_DUMP_TRIES):
            with self._lock:
                bodies = self._dump_once(request)
            if bodies is not None:
                return bodies
        hint = f"The table changed while it was read, {_DUMP_TRIES} times in a row"
        raise KernelError(request.doing, errno.EINTR, where=self.where, hint=hint)

    def get(self, request: Request) -> bytes:
        """The body of the one message that answers ``request``."""
        with self._lock:
            sequence = self._send((request,), 0)
            for type, flags, number, body in self._answers(request):
                if number != sequence:
                    continue
                self._in_step = True
                if type == _NLMSG_ERROR:
                    code, detail = parse_answer(flags, body)
                    raise refusal(request, code, self.where, detail)
                return body
            raise self._unanswered(request)

    def close(self) -> None:
        """Close the socket; again is fine."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def __del__(self) -> None:
        # For one that an interruption (Ctrl-C) left without an owner.
        if getattr(self, "_socket", None) is not None:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name, _ = _PROTOCOLS.get(self.protocol, (self.protocol, ""))
        return f"<Netlink {name} in {self.where} {'closed' if self._socket is None else 'open'}>"

    # Everything below is called with the lock held.

    def _usable(self) -> socket.socket:
        if self._socket is None:
            raise ClosedError(f"the netlink socket of {self.where}", "is closed", "open another one")
        return self._socket

    def _send(self, requests: Sequence[Request], last_flags: int, unanswered: int = 0) -> int:
        """Send one datagram; the sequence number of its last request that is answered, which gets the flags."""
        sock = self._usable()
        if not self._in_step:
            # An exchange was cut short (Ctrl-C): what is left of it, a running dump included, goes first.
            for _ in self._answers(requests[0]):
                pass
        first = self._sequence + 1
        if first > 0xFFFF0000:
            first = 1
        last = first + len(requests) - 1 - unanswered
        parts: list[bytes] = []
        for sequence, (type, flags, body, _, _) in enumerate(requests, first):
            flags |= _NLM_F_REQUEST if sequence != last else _NLM_F_REQUEST | last_flags
            size = len(body)
            parts += (_HEADER.pack(size + 16, type, flags, sequence, 0), body)
            if size & 3:
                parts.append(_PADDING[size & 3])
        self._sequence = last + unanswered
        self._in_step = False
        self._overrun = False
        try:
            sock.send(b"".join(parts))
        except OSError as error:
            raise refusal(requests[0], error.errno or 0, self.where, "the request was not sent") from None
        return last

    def _answers(self, request: Request) -> Iterator[tuple[int, int, int, bytes]]:
        """Every message that waits for us, until none does."""
        sock = self._usable()
        while True:
            try:
                data = sock.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                # Told once an overrun: answers were lost, those that were not still wait.
                if error.errno == errno.ENOBUFS and not self._overrun:
                    self._overrun = True
                    continue
                raise refusal(request, error.errno or 0, self.where, "the answer was not read") from None
            yield from parse_messages(data)

    def _commit_batch(self, requests: Sequence[Request], unanswered: int = 0) -> KernelError | None:
        last = self._send(requests, _NLM_F_ACK, unanswered)
        first = last - len(requests) + 1 + unanswered
        failure: KernelError | None = None
        for type, flags, sequence, body in self._answers(requests[0]):
            if type != _NLMSG_ERROR or not first <= sequence <= last:
                continue
            number, detail = parse_answer(flags, body)
            if number and failure is None:
                failure = refusal(requests[sequence - first], number, self.where, detail)
            if sequence == last:
                self._in_step = True
                break
        if failure is None and (self._overrun or not self._in_step):
            return self._unanswered(requests[0])
        return failure

    def _dump_once(self, request: Request) -> list[bytes] | None:
        """The bodies; None when they are not one consistent answer."""
        expected = self._send((request,), _NLM_F_DUMP)
        bodies: list[bytes] = []
        consistent = True
        for type, flags, sequence, body in self._answers(request):
            if sequence != expected:
                continue
            if flags & _NLM_F_DUMP_INTR:
                consistent = False
            if type in (_NLMSG_DONE, _NLMSG_ERROR):
                self._in_step = True
                number, detail = parse_answer(flags, body, done=type == _NLMSG_DONE)
                if number:
                    raise refusal(request, number, self.where, detail)
                break
            bodies.append(body)
        return bodies if consistent and self._in_step and not self._overrun else None

    def _unanswered(self, request: Request) -> KernelError:
        hint = "The kernel's answer was lost; the state of this namespace is unknown"
        return KernelError(request.doing, errno.ENOBUFS, where=self.where, hint=hint)


def _batches(requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    """The requests in runs that fit one datagram each, nearly always one run."""
    start = size = 0
    for position, request in enumerate(requests):
        taken = len(request.body) + 19  # header, and padding at worst
        if position > start and (size + taken > _MOST_BYTES or position - start == _MOST_REQUESTS):
            yield requests[start:position]
            start, size = position, 0
        size += taken
    if requests:
        yield requests[start:] if start else requests
