"""The checks of kinds: queueing disciplines (tc) and links a kernel may or may not have.

Rules: one check a kind, really made and taken away with its namespace; the options are the fewest that
make the kernel take it.
Does not belong here: using them; their full encoding is for the layers that do.
"""

import struct
from collections.abc import Callable

from netwarren.doctor.check import Check
from netwarren.doctor.ground import ETH0, LO, Ground
from netwarren.doctor.wiring import SETNS, TUN, VETH
from netwarren.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Request, attribute, nest, u32

# linux/rtnetlink.h
_RTM_NEWLINK = 16
_RTM_NEWQDISC = 36
_RTM_DELQDISC = 37
_TCA_KIND = 1
_TCA_OPTIONS = 2

# linux/pkt_sched.h
_TC_H_ROOT = 0xFFFFFFFF
_TC_H_CLSACT = 0xFFFFFFF1
_TCA_TBF_PARMS = 1
_TCA_TBF_BURST = 6
_TCA_HTB_INIT = 2

# linux/if_link.h
_IFLA_LINK = 5
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2

_TCMSG = struct.Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, info
_IFINFO = struct.Struct("=BBHiII")

# struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
_NETEM = struct.pack("=6I", 0, 1000, 0, 0, 0, 0)
# struct tc_tbf_qopt: two struct tc_ratespec (cell_log, linklayer, overhead, cell_align, mpu, rate), then
# limit, buffer, mtu. TC_LINKLAYER_ETHERNET spares the kernel a table of rates.
_TBF = nest(
    _TCA_OPTIONS,
    attribute(_TCA_TBF_PARMS, struct.pack("=BBHhHI12xIII", 0, 1, 0, 0, 0, 125_000, 10_000, 0, 0)),
    u32(_TCA_TBF_BURST, 10_000),
)
# struct tc_htb_glob: version, rate2quantum, default class, debug, direct packets
_HTB = nest(_TCA_OPTIONS, attribute(_TCA_HTB_INIT, struct.pack("=5I", 3, 10, 0, 0, 0)))

_QDISCS = {
    "netem": (_TC_H_ROOT, attribute(_TCA_OPTIONS, _NETEM), "delay, loss and reordering by the kernel"),
    "tbf": (_TC_H_ROOT, _TBF, "a link's bandwidth"),
    "htb": (_TC_H_ROOT, _HTB, "bandwidth by class of traffic"),
    "fq_codel": (_TC_H_ROOT, b"", "fair queues, as on most machines"),
    "fq": (_TC_H_ROOT, b"", "pacing"),
    "clsact": (_TC_H_CLSACT, b"", "filters and programs at a link's two ends"),
    "ingress": (_TC_H_CLSACT, b"", "filters on what a link receives"),
}

# What IFLA_INFO_DATA must hold, and whether IFLA_LINK must name a link.
_LINKS = {
    "dummy": (b"", False, "DUMMY", "addresses on a link without a wire"),
    "ifb": (b"", False, "IFB", "queueing what a link receives"),
    "macvlan": (b"", True, "MACVLAN", "CNI plugins that give pods MAC addresses of their own"),
    "ipvlan": (b"", True, "IPVLAN", "CNI plugins that share a MAC address"),
    "vlan": (struct.pack("=HHHxx", 6, 1, 5), True, "VLAN_8021Q", "tagged networks"),
    "vxlan": (u32(1, 42), False, "VXLAN", "overlays between nodes"),
    "geneve": (u32(1, 42), False, "GENEVE", "overlays between nodes"),
    "vrf": (u32(1, 42), False, "NET_VRF", "routers with several tables"),
    "wireguard": (b"", False, "WIREGUARD", "encrypted overlays between nodes"),
}
_LINK_MODULES = {"vlan": "8021q"}


def _try_qdisc(kind: str, parent: int, options: bytes) -> Callable[[Ground], None]:
    handle = 0xFFFF0000 if parent == _TC_H_CLSACT else 0x00010000
    header = _TCMSG.pack(0, LO, handle, parent, 0) + attribute(_TCA_KIND, kind.encode() + b"\0")

    def perform(ground: Ground) -> None:
        netlink = ground.netlink("pod")
        doing = f"add qdisc {kind}"
        netlink.commit([Request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, header + options, doing)])
        netlink.commit([Request(_RTM_DELQDISC, 0, header, f"delete qdisc {kind}")])

    return perform


def _try_link(kind: str, data: bytes, on_link: bool) -> Callable[[Ground], None]:
    body = _IFINFO.pack(0, 0, 0, 0, 0, 0) + (u32(_IFLA_LINK, ETH0) if on_link else b"")
    info = attribute(_IFLA_INFO_KIND, kind.encode() + b"\0") + (nest(_IFLA_INFO_DATA, data) if data else b"")
    request = Request(
        _RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        body + nest(_IFLA_LINKINFO, info),
        f"add link of type {kind}",
    )

    def perform(ground: Ground) -> None:
        ground.netlink("pod").commit([request])

    return perform


def _qdisc(kind: str) -> Check:
    parent, options, needed_for = _QDISCS[kind]
    module = "sch_ingress" if parent == _TC_H_CLSACT else f"sch_{kind}"
    remedy = f"let root run `modprobe {module}`, or use a kernel with CONFIG_NET_{module.upper()}=y"
    return Check(f"tc {kind}", needed_for, _try_qdisc(kind, parent, options), needs=(SETNS,), remedy=remedy)


def _link(kind: str) -> Check:
    data, on_link, config, needed_for = _LINKS[kind]
    module = _LINK_MODULES.get(kind, kind)
    remedy = f"let root run `modprobe {module}`, or use a kernel with CONFIG_{config}=y"
    return Check(
        f"link {kind}",
        needed_for,
        _try_link(kind, data, on_link),
        needs=(VETH,) if on_link else (SETNS,),
        remedy=remedy,
    )


CHECKS = (*(_qdisc(kind) for kind in _QDISCS), *(_link(kind) for kind in _LINKS), TUN)
