"""Network interfaces: bridges, veth pairs, their settings, and reading them back.

Rules: every verb makes a `Request` and changes nothing; a new link's index is chosen by the caller, so
that all that is done to it can go in the same batch; an absurd name is refused before the kernel sees it.
Does not belong here: addresses on links, queueing (tc), which names and indexes to use.
"""

import re
import struct
from typing import NamedTuple

from netwarren.errors import AddressError, NetwarrenError
from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    Request,
    attribute,
    nest,
    number,
    pack_header,
    parse_attributes,
    text,
    u32,
    unpack_header,
)

# linux/rtnetlink.h
_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_GETLINK = 18
_RTM_SETLINK = 19

# linux/if.h
_IFF_UP = 0x1
_IFF_RUNNING = 0x40
_IFF_LOWER_UP = 0x10000

# linux/if_link.h
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_LINKINFO = 18
_IFLA_STATS64 = 23
_IFLA_NET_NS_FD = 28
_IFLA_EXT_MASK = 29
_IFLA_NUM_TX_QUEUES = 31
_IFLA_NUM_RX_QUEUES = 32
_IFLA_LINK_NETNSID = 37
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_BR_FORWARD_DELAY = 1
_IFLA_BR_STP_STATE = 5

_RTEXT_FILTER_SKIP_STATS = 1 << 3  # linux/rtnetlink.h; counting takes longer than all the rest

_VETH_INFO_PEER = 1  # linux/veth.h

_IFINFO = struct.Struct("=BBHiII")  # struct ifinfomsg: family, -, type, index, flags, change mask
_STATS = struct.Struct("=8Q")  # struct rtnl_link_stats64, its beginning
_NO_STATS = bytes(_STATS.size)

# One queue each way: the kernel makes one per CPU otherwise, which doubles the cost of a pair.
_ONE_QUEUE = u32(_IFLA_NUM_TX_QUEUES, 1) + u32(_IFLA_NUM_RX_QUEUES, 1)
_PLAIN_BRIDGE = nest(
    _IFLA_LINKINFO,
    attribute(_IFLA_INFO_KIND, b"bridge\0"),
    nest(_IFLA_INFO_DATA, u32(_IFLA_BR_FORWARD_DELAY, 0), u32(_IFLA_BR_STP_STATE, 0)),
)
_NO_STATISTICS = u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
_VETH_KIND = attribute(_IFLA_INFO_KIND, b"veth\0")

# net/core/dev.c dev_valid_name(); "%" besides, which would make it a pattern ("eth%d").
_NAME = re.compile(r"(?!\.{1,2}\Z)[^\s/:%\0]+")


class InvalidLinkName(NetwarrenError, ValueError):
    """A name no network interface can have."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        super().__init__(
            f"{name!r} cannot name a network interface: {why}; a name is 1 to 15 bytes "
            "without white space, '/', ':' or '%', and neither '.' nor '..'"
        )


def _name(name: str) -> bytes:
    encoded = name.encode(errors="replace")
    if len(encoded) > 15:
        raise InvalidLinkName(name, f"it is {len(encoded)} bytes long")
    if _NAME.fullmatch(name) is None:
        raise InvalidLinkName(name, "it has a character that is not allowed" if name else "it is empty")
    return attribute(_IFLA_IFNAME, encoded + b"\0")


def mac_bytes(mac: str) -> bytes:
    """The six bytes of ``02:00:00:00:00:01``."""
    try:
        value = bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        value = b""
    if len(value) != 6 or mac.count(":") not in (0, 5):
        raise AddressError(f"{mac!r} is no MAC address; write six bytes in hexadecimal: 02:00:00:00:00:01")
    return value


def mac_text(value: bytes) -> str:
    """``02:00:00:00:00:01`` from bytes; ``""`` from none."""
    return value.hex(":") if value else ""


def _common(name: str, mtu: int | None, mac: str | None) -> bytes:
    parts = _name(name)
    if mtu is not None:
        parts += u32(_IFLA_MTU, mtu)
    if mac is not None:
        parts += attribute(_IFLA_ADDRESS, mac_bytes(mac))
    return parts


# --- verbs ----------------------------------------------------------------------------------------


def add_bridge(
    name: str, index: int, *, up: bool = True, mtu: int | None = None, mac: str | None = None
) -> Request:
    """A bridge whose ports forward at once: no spanning tree, no forward delay.

    ``ip link add NAME index INDEX type bridge stp_state 0 forward_delay 0``; ip-link(8), linux/if_link.h.
    """
    flags = _IFF_UP if up else 0
    body = pack_header(_IFINFO, 0, 0, 0, index, flags, flags) + _common(name, mtu, mac) + _PLAIN_BRIDGE
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add bridge {name}", "bridge")


def add_veth(
    name: str,
    index: int,
    *,
    peer: str,
    peer_index: int,
    peer_netns: int,
    master: int | None = None,
    up: bool = True,
    mtu: int | None = None,
    mac: str | None = None,
    peer_mac: str | None = None,
) -> Request:
    """A veth pair: this end here, the peer born in the namespace behind the descriptor ``peer_netns``.

    ``ip link add NAME index INDEX type veth peer name PEER index PEER_INDEX netns FD``; veth(4),
    linux/veth.h. ``mtu`` is of both ends. The peer stays down: IFF_UP on it here is answered with
    ENOTCONN, since its other end is not registered yet; set it up in its own namespace.
    """
    flags = _IFF_UP if up else 0
    far_end = (
        pack_header(_IFINFO, 0, 0, 0, peer_index, 0, 0)
        + _common(peer, mtu, peer_mac)
        + _ONE_QUEUE
        + u32(_IFLA_NET_NS_FD, peer_netns)
    )
    body = (
        pack_header(_IFINFO, 0, 0, 0, index, flags, flags)
        + _common(name, mtu, mac)
        + _ONE_QUEUE
        + (b"" if master is None else u32(_IFLA_MASTER, master))
        + nest(_IFLA_LINKINFO, _VETH_KIND, nest(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, far_end)))
    )
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add veth {name} with peer {peer}", "veth")


def set_link(
    index: int,
    *,
    up: bool | None = None,
    name: str | None = None,
    master: int | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    netns: int | None = None,
) -> Request:
    """Change what is not None; ``master=0`` takes the link out of its bridge.

    ``ip link set dev INDEX up mtu MTU address MAC master M name NAME netns FD``; ip-link(8).
    """
    flags = _IFF_UP if up else 0
    body = pack_header(_IFINFO, 0, 0, 0, index, flags, 0 if up is None else _IFF_UP)
    doing = f"set link {index}"
    if up is not None:
        doing += " up" if up else " down"
    if name is not None:
        body += _name(name)
        doing += f" name {name}"
    if master is not None:
        body += u32(_IFLA_MASTER, master)
        doing += f" master {master}" if master else " nomaster"
    if mtu is not None:
        body += u32(_IFLA_MTU, mtu)
        doing += f" mtu {mtu}"
    if mac is not None:
        body += attribute(_IFLA_ADDRESS, mac_bytes(mac))
        doing += f" address {mac}"
    if netns is not None:
        body += u32(_IFLA_NET_NS_FD, netns)
        doing += " netns"
    return Request(_RTM_SETLINK, 0, body, doing)


def settle_link(index: int) -> Request:
    """Make a carrier that came up effective now, as a part of a batch.

    The end of a veth pair that was up first drops what it is given until the kernel's link watch has
    run, some time later, and a lost SYN costs a second. Asking for the link makes it run: rtnl_getlink()
    calls linkwatch_sync_dev(), Linux 6.8. Earlier kernels only answer. ``ip link show dev INDEX``.
    """
    return Request(_RTM_GETLINK, 0, pack_header(_IFINFO, 0, 0, 0, index, 0, 0), f"settle link {index}")


def delete_link(index: int) -> Request:
    """``ip link delete dev INDEX``; about 16 ms each: let the namespace die instead where you can."""
    return Request(_RTM_DELLINK, 0, pack_header(_IFINFO, 0, 0, 0, index, 0, 0), f"delete link {index}")


# --- reading --------------------------------------------------------------------------------------


class Link(NamedTuple):
    """A network interface as the kernel describes it."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody misses
    name: str
    kind: str
    """``veth``, ``bridge``, ...; ``""`` for lo and hardware."""
    up: bool
    """Set up by its administrator (IFF_UP)."""
    running: bool
    """Up, with a carrier (its other end is up, too), and the kernel's link watch has seen it (IFF_RUNNING)."""
    mtu: int
    mac: str
    master: int | None
    peer_index: int | None
    """Of a veth, the index of the other end, in that end's namespace."""
    peer_netnsid: int | None
    """The id this namespace knows the peer's namespace by; None where that is this one."""
    stp: bool | None
    """Of a bridge: does it run the spanning tree protocol."""
    forward_delay: float | None
    """Of a bridge: seconds a port listens before it forwards."""
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    rx_dropped: int
    tx_dropped: int

    def __str__(self) -> str:
        """Reads like the first line of ``ip link``."""
        words = [f"{self.index}: {self.name}"]
        if self.peer_index is not None:
            words[0] += f"@if{self.peer_index}"
        words.append("running" if self.running else "up" if self.up else "down")
        words.append(f"mtu {self.mtu}")
        if self.master is not None:
            words.append(f"master {self.master}")
        if self.kind:
            words.append(self.kind)
        return " ".join(words)


def parse_link(body: bytes) -> Link:
    """A `Link` from the body of an RTM_NEWLINK."""
    _, _, _, index, flags, _ = unpack_header(_IFINFO, body)
    found = parse_attributes(body, _IFINFO.size)
    info = parse_attributes(found.get(_IFLA_LINKINFO, b""))
    kind = text(info, _IFLA_INFO_KIND)
    data = parse_attributes(info.get(_IFLA_INFO_DATA, b"")) if kind == "bridge" else None
    stats = unpack_header(_STATS, found.get(_IFLA_STATS64, _NO_STATS))
    return Link(
        index=index,
        name=text(found, _IFLA_IFNAME),
        kind=kind,
        up=bool(flags & _IFF_UP),
        running=_runs(flags),
        mtu=number(found, _IFLA_MTU),
        mac=mac_text(found.get(_IFLA_ADDRESS, b"")),
        master=number(found, _IFLA_MASTER) or None,
        peer_index=number(found, _IFLA_LINK) or None,
        peer_netnsid=number(found, _IFLA_LINK_NETNSID) if _IFLA_LINK_NETNSID in found else None,
        stp=None if data is None else bool(number(data, _IFLA_BR_STP_STATE)),
        forward_delay=None if data is None else number(data, _IFLA_BR_FORWARD_DELAY) / 100,
        rx_packets=stats[0],
        tx_packets=stats[1],
        rx_bytes=stats[2],
        tx_bytes=stats[3],
        rx_dropped=stats[6],
        tx_dropped=stats[7],
    )


def links(netlink: Netlink, *, statistics: bool = True) -> list[Link]:
    """All links of the namespace, by index; ``ip -d -s link``. Without ``statistics`` those are 0."""
    body = bytes(_IFINFO.size) + (b"" if statistics else _NO_STATISTICS)
    request = Request(_RTM_GETLINK, 0, body, "list the links")
    return sorted((parse_link(body) for body in netlink.dump(request)), key=lambda link: link.index)


def link(netlink: Netlink, index: int) -> Link:
    """The link with this index; ``ip -d -s link show dev INDEX``."""
    body = pack_header(_IFINFO, 0, 0, 0, index, 0, 0)
    return parse_link(netlink.get(Request(_RTM_GETLINK, 0, body, f"show link {index}")))


def running(netlink: Netlink, index: int) -> bool:
    """`Link.running` of the link with this index, for those who ask often: nothing else is read."""
    body = pack_header(_IFINFO, 0, 0, 0, index, 0, 0) + _NO_STATISTICS
    answer = netlink.get(Request(_RTM_GETLINK, 0, body, f"show link {index}"))
    _, _, _, _, flags, _ = unpack_header(_IFINFO, answer)
    return _runs(flags)


def _runs(flags: int) -> bool:
    return bool(flags & _IFF_RUNNING and flags & _IFF_LOWER_UP)
