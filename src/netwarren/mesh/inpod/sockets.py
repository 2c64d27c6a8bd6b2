"""Sockets of the node proxy in a pod: made there, used from the proxy's loop; and whom a connection was meant for.

Rules: each is made on the calling thread, which is in the pod for that and home again before anything else runs;
every one carries the proxy's mark before it speaks, so that it is not redirected to the proxy.
Does not belong here: which addresses are listened at and dialled; the rules that redirect (see `redirection`).
"""

import logging
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Any, Self

from netwarren.errors import KernelError, MeshError, NetwarrenError, SteppingError
from netwarren.kernel import descriptors, sysctl
from netwarren.kernel.netns import Namespace
from netwarren.mesh.config import PACKET_MARK
from netwarren.mesh.inpod.stepping import call_in, hold
from netwarren.mesh.model import SocketAddress
from netwarren.runtime import ferry, standing
from netwarren.topology.addresses import Address

_log = logging.getLogger(__name__)

KEEPALIVE_IDLE = KEEPALIVE_INTERVAL = 180
"""Seconds; of a connection in which nothing moves, and between the questions whether the peer is there."""
KEEPALIVE_PROBES = 9
BACKLOG = 128

# linux/in.h, linux/in6.h, linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h
_IP_FREEBIND = 15
_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75
_IPV6_FREEBIND = 78
_SO_ORIGINAL_DST = 80
_IP6T_SO_ORIGINAL_DST = 80

_TRANSPARENT = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_TRANSPARENT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT),
}
_FREEBIND = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_FREEBIND),
    socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_FREEBIND),
}

_SOCKADDR_IN = struct.Struct("=HH4s8x")
_SOCKADDR_IN6 = struct.Struct("=HH4x16s4x")


class PodSockets:
    """Makes sockets in the pod behind ``netns``, a descriptor of its network namespace, of which it keeps a copy.

    All are non-blocking, close-on-exec, and marked with ``mark`` (SO_MARK; None: not at all); of TCP, they have
    TCP_NODELAY and ask after 180 s of silence whether the peer is there. They outlive `close`, which lets go of
    the namespace. ``ipv6`` False: IPv6 is not used, whatever the pod has. ``reuse_port``: others with our user id
    may listen beside us, as a proxy does that is to take over from us.
    A thread that stands in the host's network may call this, too: the socket is made on another one then.
    """

    def __init__(
        self,
        netns: int,
        label: str = "the pod",
        *,
        mark: int | None = PACKET_MARK,
        ipv6: bool = True,
        reuse_port: bool = True,
    ) -> None:
        self.label = label
        self._namespace = hold(netns, label)
        self._mark = mark
        self._ipv6 = ipv6
        self._reuse_port = reuse_port

    @property
    def ipv6_enabled(self) -> bool:
        """Whether lo has IPv6 in the pod, as it is now (``net.ipv6.conf.lo.disable_ipv6``)."""
        return self._ipv6 and call_in(self._namespace, _lo_has_ipv6)

    def listen(
        self, address: SocketAddress, *, transparent: bool | None = None, backlog: int = BACKLOG
    ) -> socket.socket:
        """A TCP socket that listens at ``address``; at ``::`` for both families. Port 0 is any free one.

        ``transparent`` (IP_TRANSPARENT of ip(7)): True must be had, None may be, False is not asked for; what
        came of it says `is_transparent`. Accepted sockets inherit that and the mark.
        Raises `KernelError`, with EADDRINUSE where somebody listens there.
        """

        def make() -> socket.socket:
            made = self._new(_family(address.address), socket.SOCK_STREAM)
            return _kept(made, lambda: self._listen(made, address, transparent, backlog))

        return self._made(f"listen at {address}", make)

    def stream(self, family: int, *, source: Address | None = None) -> socket.socket:
        """An unconnected TCP socket of ``family`` (AF_INET, AF_INET6), for a connection of the proxy's own.

        It speaks from ``source``, which need not be an address of the pod's (IP_TRANSPARENT, IP_FREEBIND); where
        that cannot be had it speaks from the pod's, with a warning. Raises `KernelError`.
        """

        def make() -> socket.socket:
            made = self._new(family, socket.SOCK_STREAM)
            return _kept(made, lambda: self._speak_from(made, source) if source is not None else None)

        return self._made("make a TCP socket", make)

    def datagram(self, address: SocketAddress | None, family: int) -> socket.socket:
        """A UDP socket of ``family``, bound to ``address`` unless that is None. Raises `KernelError`."""

        def make() -> socket.socket:
            made = self._new(family, socket.SOCK_DGRAM)
            return _kept(made, lambda: self._bind(made, address) if address is not None else None)

        return self._made("make a UDP socket" if address is None else f"bind UDP to {address}", make)

    def close(self) -> None:
        """Let go of the namespace; again is fine. Sockets that were made stay."""
        self._namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PodSockets in {self._namespace!r}>"

    # --- in the pod ---

    def _made(self, operation: str, make: Callable[[], socket.socket]) -> socket.socket:
        try:
            return call_in(self._namespace, make)
        except OSError as error:
            number = error.errno or 0
            hint = descriptors.hint(number)
            raise KernelError(operation, number, where=self.label, hint=hint) from None

    def _new(self, family: int, kind: int) -> socket.socket:
        made = descriptors.opened(lambda: socket.socket(family, kind))
        return _kept(made, lambda: self._prepare(made, kind))

    def _prepare(self, made: socket.socket, kind: int) -> None:
        made.setblocking(False)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        if self._mark is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)

    def _listen(
        self, made: socket.socket, address: SocketAddress, transparent: bool | None, backlog: int
    ) -> None:
        if transparent is not False:
            try:
                made.setsockopt(*_TRANSPARENT[made.family], 1)
            except OSError:
                if transparent:
                    raise
        self._bind(made, address)
        made.listen(backlog)

    def _bind(self, made: socket.socket, address: SocketAddress) -> None:
        if self._reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6:
            both = int(address.address.is_unspecified)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 - both)
        made.bind((str(address.address), address.port))

    def _speak_from(self, made: socket.socket, source: Address) -> None:
        try:
            made.setsockopt(*_TRANSPARENT[made.family], 1)
            made.setsockopt(*_FREEBIND[made.family], 1)
            made.bind((str(source), 0))
        except OSError as error:
            _log.warning("in %s, cannot speak from %s: %s", self.label, source, error.strerror)


def _kept(made: socket.socket, prepare: Callable[[], None]) -> socket.socket:
    try:
        prepare()
    except BaseException:
        made.close()
        raise
    return made


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _lo_has_ipv6() -> bool:
    try:
        return sysctl.read("net.ipv6.conf.lo.disable_ipv6") == "0"
    except KernelError:
        return False  # a kernel without


# --- what a socket tells --------------------------------------------------------------------------


def is_transparent(sock: socket.socket) -> bool:
    """Whether a socket may have addresses that its machine has not (IP_TRANSPARENT)."""
    return bool(sock.getsockopt(*_TRANSPARENT[sock.family]))


def socket_address(sockaddr: tuple[Any, ...]) -> SocketAddress:
    """What Python's `socket` says of an address, with an IPv4 address that IPv6 wraps unwrapped (RFC 4291, 2.5.5.2)."""
    return SocketAddress(_unmapped(ip_address(str(sockaddr[0]).partition("%")[0])), int(sockaddr[1]))


def original_destination(sock: socket.socket) -> SocketAddress:
    """Where the client of an accepted socket connected to, before it was redirected here.

    SO_ORIGINAL_DST (linux/netfilter_ipv4.h), IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv6/ip6_tables.h); without a
    connection of conntrack's, the socket's own address.
    """
    try:
        data = sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
        _, port, packed = _SOCKADDR_IN.unpack(data)
        return SocketAddress(IPv4Address(packed), socket.ntohs(port))
    except (OSError, struct.error):
        pass
    try:
        data = sock.getsockopt(socket.IPPROTO_IPV6, _IP6T_SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
        _, port, packed = _SOCKADDR_IN6.unpack(data)
        return SocketAddress(_unmapped(IPv6Address(packed)), socket.ntohs(port))
    except (OSError, struct.error):
        return socket_address(sock.getsockname())


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


# --- whether all this is possible -----------------------------------------------------------------


def check_capabilities(*, mark: int | None = PACKET_MARK, transparent: bool = True) -> None:
    """Find out whether this process may enter pods and make marked, transparent sockets there.

    Raises one `MeshError` that says what it may not: setns(2) takes CAP_SYS_ADMIN, SO_MARK and IP_TRANSPARENT take
    CAP_NET_ADMIN (or, the latter, CAP_NET_RAW) in the user namespace that owns the pods' network namespaces.
    """
    try:
        if standing.can_return():
            _try_options(mark, transparent)
        else:  # of the host's network we have no capabilities, and need none
            ferry.call(lambda: _try_options(mark, transparent))
    except _Lacking as lacking:
        raise _cannot(str(lacking)) from None
    except (NetwarrenError, OSError) as error:
        if isinstance(error, MeshError):
            raise
        raise _cannot(f"make and enter network namespaces ({error})") from None


def settle(*, mark: int | None = PACKET_MARK, transparent: bool = True) -> None:
    """Have this thread live at home, as a proxy's does, and `check_capabilities` there; raises as that does."""
    try:
        standing.live_in(standing.home())
    except SteppingError as error:
        raise _cannot(f"enter pods ({error})") from None
    check_capabilities(mark=mark, transparent=transparent)


class _Lacking(Exception):
    pass


def _cannot(what: str) -> MeshError:
    return MeshError(
        f"the node proxy cannot {what}; run it as root or inside a sandbox (`netwarren run`), with CAP_SYS_ADMIN and "
        "CAP_NET_ADMIN"
    )


def _try_options(mark: int | None, transparent: bool) -> None:
    here = _present()
    try:
        call_in(here, lambda: None)
    except SteppingError as error:
        raise _Lacking(f"enter pods ({error})") from None
    finally:
        here.close()
    with socket.socket() as made:
        try:
            if mark is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        except OSError as error:
            raise _Lacking(f"mark its packets (SO_MARK: {error.strerror})") from None
        try:
            if transparent:
                made.setsockopt(*_TRANSPARENT[socket.AF_INET], 1)
        except OSError as error:
            raise _Lacking(f"speak from its clients' addresses (IP_TRANSPARENT: {error.strerror})") from None


def _present() -> Namespace:
    from netwarren.kernel import netns

    return netns.here("where the proxy runs")
