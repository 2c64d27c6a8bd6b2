"""The checks of the main job: namespaces, veth, bridge, addresses, routes, forwarding, and a packet.

Rules: made by the verbs a cluster is made by, and read back; what is not proved by reading is proved by
a connection.
Does not belong here: IPv6's share of the node proxy, filtering, queueing.
"""

import os
import socket
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from netwarren.doctor.check import Amiss, Check
from netwarren.doctor.entering import MOUNTS
from netwarren.doctor.ground import (
    BRIDGE,
    ETH0,
    GATE4,
    GATE6,
    NODE4,
    NODE6,
    PATIENCE,
    POD4,
    POD6,
    PORT,
    ROOT4,
    ROOT6,
    Ground,
)
from netwarren.errors import KernelError, SandboxError
from netwarren.kernel import address, link, neighbour, netns, route, sysctl
from netwarren.kernel.netlink import Request
from netwarren.sandbox import diagnosis

NETWORK_NAMESPACE = "network namespace"
SETNS = "setns there and back"
VETH = "veth pair"
BRIDGE_PORT = "bridge with a port"
ADDRESSES4 = "IPv4 addresses"
ADDRESSES6 = "IPv6 addresses"
ROUTES = "routes"
FORWARDING4 = "IPv4 forwarding"
FORWARDING6 = "IPv6 forwarding"


def _network_namespace(ground: Ground) -> None:
    try:
        made = [ground.make(label) for label in ("pod", "node", "root")]
    except KernelError as error:
        told: SandboxError = diagnosis.explain("make a network namespace", error, ground.machine)
        raise told from error
    if len({each.inode for each in made}) != 3:
        raise Amiss("the call worked and the network namespace is the same as before")


def _setns(ground: Ground) -> None:
    with ground.inside("pod"):
        there = netns.inode_of()
    if there != ground.namespace("pod").inode or netns.inode_of() != ground.namespace("root").inode:
        raise Amiss("the call worked and the thread stands in another namespace than it should")


def _veth(ground: Ground) -> None:
    for here, there, name in (("root", "node", "to-node"), ("node", "pod", "to-pod")):
        fd = ground.namespace(there).fd
        ground.netlink(here).commit([link.add_veth(name, PORT, peer="eth0", peer_index=ETH0, peer_netns=fd)])
        ground.netlink(there).commit([link.set_link(ETH0, up=True)])
        if link.link(ground.netlink(there), ETH0).kind != "veth":
            raise Amiss(f"the pair was made and its end in {there} is no veth")


def _bridge(ground: Ground) -> None:
    netlink = ground.netlink("root")
    netlink.commit([link.add_bridge("bridge", BRIDGE), link.set_link(PORT, master=BRIDGE, up=True)])
    if link.link(netlink, PORT).master != BRIDGE:
        raise Amiss("the port was set and the kernel does not show it")


def _addresses4(ground: Ground) -> None:
    for label, index, interface in (
        ("root", BRIDGE, ROOT4),
        ("node", ETH0, NODE4),
        ("node", PORT, GATE4),
        ("pod", ETH0, POD4),
    ):
        _give(ground, label, index, interface)


def _addresses6(ground: Ground) -> None:
    for label, index, interface in (
        ("root", BRIDGE, ROOT6),
        ("node", ETH0, NODE6),
        ("node", PORT, GATE6),
        ("pod", ETH0, POD6),
    ):
        _give(ground, label, index, interface)


def _give(ground: Ground, label: str, index: int, interface: IPv4Interface | IPv6Interface) -> None:
    netlink = ground.netlink(label)
    requests: list[Request] = [address.add_address(index, interface)]
    if isinstance(interface, IPv6Interface):
        requests.append(route.settle_address(index, interface.ip))
    netlink.commit(requests)
    for found in address.addresses(netlink, index=index):
        if found.interface == interface:
            if found.tentative:
                raise Amiss(
                    f"{interface} is tentative: duplicate address detection runs although it was told not to",
                    "use a kernel that heeds IFA_F_NODAD (Linux 2.6.19 and later)",
                )
            return
    raise Amiss(f"{interface} was added in {label} and the kernel does not show it")


def _routes(ground: Ground) -> None:
    everywhere = IPv4Network("0.0.0.0/0")
    ground.netlink("root").commit([route.add_route(IPv4Network("10.0.0.0/24"), via=NODE4.ip)])
    ground.netlink("node").commit([route.add_route(POD4.network, index=PORT)])
    ground.netlink("pod").commit(
        [route.add_route(GATE4.network, index=ETH0), route.add_route(everywhere, via=GATE4.ip)]
    )
    if route.lookup(ground.netlink("pod"), ROOT4.ip).via != GATE4.ip:
        raise Amiss("the default route was added and the kernel does not take it")


def _routes6(ground: Ground) -> None:
    everywhere = IPv6Network("::/0")
    ground.netlink("root").commit([route.add_route(IPv6Network("fd00:10::/64"), via=NODE6.ip)])
    ground.netlink("node").commit([route.add_route(POD6.network, index=PORT)])
    ground.netlink("pod").commit(
        [route.add_route(GATE6.network, index=ETH0), route.add_route(everywhere, via=GATE6.ip)]
    )
    # As in a cluster, neighbours are told and not discovered: the kernel joins the groups that they are
    # asked for in a moment after an address is added, and what is asked before costs a second.
    for label, index, there, far_index, far in (
        ("root", BRIDGE, "node", ETH0, NODE6),
        ("node", ETH0, "root", BRIDGE, ROOT6),
        ("node", PORT, "pod", ETH0, POD6),
        ("pod", ETH0, "node", PORT, GATE6),
    ):
        mac = link.link(ground.netlink(there), far_index).mac
        ground.netlink(label).commit([neighbour.add_neighbour(index, far.ip, mac)])


def _forwarding4(ground: Ground) -> None:
    _set_in_node(ground, "net.ipv4.ip_forward")


def _forwarding6(ground: Ground) -> None:
    _set_in_node(ground, "net.ipv6.conf.all.forwarding")


def _set_in_node(ground: Ground, name: str) -> None:
    with ground.inside("node"):
        sysctl.write(name, 1)
        if sysctl.read(name) != "1":
            raise Amiss(f"{name} was set to 1 and is {sysctl.read(name)}")


def _traffic4(ground: Ground) -> None:
    _cross(ground, socket.AF_INET, str(ROOT4.ip), str(POD4.ip))


def _traffic6(ground: Ground) -> None:
    _routes6(ground)
    _cross(ground, socket.AF_INET6, str(ROOT6.ip), str(POD6.ip))


def _cross(ground: Ground, family: socket.AddressFamily, server_at: str, client_at: str) -> None:
    """A TCP connection from pod through node to root, on one thread: sockets stay where they were made."""
    ground.netlink("node").commit(
        [link.set_link(PORT, up=True), link.settle_link(PORT), link.settle_link(ETH0)]
    )
    ground.netlink("pod").commit([link.settle_link(ETH0)])
    ground.netlink("root").commit([link.settle_link(PORT), link.settle_link(BRIDGE)])
    with socket.create_server((server_at, 0), family=family) as server:
        server.settimeout(PATIENCE)
        with ground.inside("pod"):
            client = socket.socket(family, socket.SOCK_STREAM)
        with client:
            client.settimeout(PATIENCE)
            client.connect(server.getsockname()[:2])
            accepted, peer = server.accept()
            with accepted:
                accepted.settimeout(PATIENCE)
                client.sendall(b"echo")
                if accepted.recv(4) != b"echo":
                    raise Amiss("the connection was made and what was sent did not arrive")
        if peer[0] != client_at:
            raise Amiss(f"the connection came from {peer[0]} and not from {client_at}")


def _tun(ground: Ground) -> None:
    import fcntl
    import struct

    with ground.inside("pod"):
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            raise Amiss(
                "/dev/net/tun is there, and only root may open it",
                "let root run `chmod 666 /dev/net/tun`, as udev does on most machines: what may be done with "
                "it is decided by network namespace",
            ) from None
        try:
            # struct ifreq with TUNSETIFF, IFF_TUN and IFF_NO_PI of linux/if_tun.h
            fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x0001 | 0x1000))
        finally:
            os.close(device)


_WIRED = (VETH, BRIDGE_PORT)

CHECKS = (
    Check(
        NETWORK_NAMESPACE,
        "every pod, every node and the cluster's root",
        _network_namespace,
        required=True,
        needs=(MOUNTS,),
    ),
    Check(
        SETNS,
        "`with pod:` and every socket made in a pod",
        _setns,
        required=True,
        needs=(NETWORK_NAMESPACE,),
        remedy="in a container, use a seccomp profile that allows setns",
    ),
    Check(
        VETH,
        "wires between pods, nodes and the root",
        _veth,
        required=True,
        needs=(NETWORK_NAMESPACE,),
        remedy="let root run `modprobe veth`, or use a kernel with CONFIG_VETH=y",
    ),
    Check(
        BRIDGE_PORT,
        "the network that nodes hang on",
        _bridge,
        required=True,
        needs=(VETH,),
        remedy="let root run `modprobe bridge`, or use a kernel with CONFIG_BRIDGE=y",
    ),
    Check(ADDRESSES4, "pods and nodes", _addresses4, required=True, needs=_WIRED),
    Check(ROUTES, "every pod reaches every other", _routes, required=True, needs=(ADDRESSES4,)),
    Check(
        FORWARDING4,
        "nodes route for their pods",
        _forwarding4,
        required=True,
        needs=(SETNS,),
        remedy="in a container, make /proc/sys writable: --privileged, or --security-opt systempaths=unconfined",
    ),
    Check(
        "traffic across a node",
        "the main job: a connection from a pod through its node",
        _traffic4,
        required=True,
        needs=(ROUTES, FORWARDING4),
        remedy="look for a security module or a firewall that drops packets in new namespaces",
    ),
    Check(
        ADDRESSES6,
        'families="ipv6" and dual stack, without seconds of waiting',
        _addresses6,
        needs=_WIRED,
        remedy="boot without ipv6.disable=1, or use a kernel with CONFIG_IPV6=y",
    ),
    Check(
        FORWARDING6,
        'families="ipv6" and dual stack',
        _forwarding6,
        needs=(SETNS,),
        remedy="boot without ipv6.disable=1, or use a kernel with CONFIG_IPV6=y",
    ),
    Check(
        "IPv6 traffic across a node",
        'families="ipv6" and dual stack',
        _traffic6,
        needs=(ADDRESSES6, FORWARDING6),
    ),
)

TUN = Check(
    "tun",
    "programs in pods that make tunnels themselves (VPNs)",
    _tun,
    needs=(SETNS,),
    remedy="let root run `modprobe tun`, or use a kernel with CONFIG_TUN=y; in a container, add `--device /dev/net/tun`",
)
