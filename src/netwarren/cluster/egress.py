"""The way out of one cluster: sockets in its root that take what pods send outside, and go on with it on the host.

The kernel hands us packets for what is open (TPROXY); all else stays as it was, and is refused by the routes.
Rules: laid in the root alone, whose namespace ends with the cluster; what is open is decided by
`netwarren.topology.egress`, for the kernel's rules and again for each connection.
Does not belong here: carrying the bytes (see `netwarren.runtime.forwarder` and `flows`).
"""

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

from netwarren.errors import KernelError
from netwarren.kernel import nftables, route, rule, sysctl, tproxy
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, Request
from netwarren.runtime import ferry, host
from netwarren.runtime.flows import Flows
from netwarren.runtime.forwarder import BACKLOG, Endpoint, Forwarder, here
from netwarren.runtime.machine import Machine
from netwarren.sandbox import resolver
from netwarren.topology.addresses import Address, Family, Network, default_network, family_of, host_network
from netwarren.topology.egress import Egress, Name, Opening
from netwarren.topology.links import LOOPBACK_INDEX
from netwarren.topology.ranges import Ranges
from netwarren.topology.wellknown import NAME_SERVERS

# What is ours in the root's tables; no number means anything to anybody else there.
TABLE = "netwarren-egress"
CHAIN = "catch"
MARK = 0x6E770001
ROUTES = 7001
_PRIORITY = 100  # of the policy rule: after the local table (0), before the main one (32766)
_MANGLE = -150  # of the chain: before anybody's NAT

# Where the taking sockets are: on the root's loopback, so that nobody dials them.
_TAKING: dict[Family, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_AF: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}

# br_netfilter has a bridge run the IP rules by itself, and forgets then whom a packet was handed to.
_BRIDGE_SYSCTLS = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")


def open_ways(openings: Sequence[Opening], ranges: Sequence[Ranges], root: Machine) -> "Outlet":
    """Open to a cluster of these ``ranges`` what ``openings`` name. Raises where there is no way to the host."""
    families = [each.family for each in ranges]
    inside = [network for each in ranges for network in (each.pods, each.nodes)]
    inside += [host_network(servers[family]) for family in families for servers in NAME_SERVERS]
    inside += [host_network(each) for each in resolver.host_servers() if each.version in families]
    return Outlet(Egress.choose(openings, (each.root.ip for each in ranges), inside), root)


class Outlet:
    """What of the outside is open to one cluster, while it is."""

    def __init__(self, egress: Egress, root: Machine) -> None:
        self.egress = egress
        self.connections: Counter[str] = Counter()
        """Carried on so far, by what the user wrote; for UDP, flows."""
        self.refused: Counter[str] = Counter()
        """Those that nobody on the host took."""
        self._root = root
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._taking: dict[Family, int] = {}
        self._forwarder: Forwarder | None = None
        self._flows: Flows | None = None
        root._touched = True  # for good: a root with ways out is no other cluster's
        listening: list[tuple[socket.socket, socket.socket]] = []
        host.loop()  # raises where there is no way to the host
        try:
            ferry.roam(partial(self._lay, listening))
            host.call(partial(self._begin, listening))
        except BaseException:
            self.close()
            for pair in listening:
                for each in pair:
                    each.close()
            raise

    def upstream(self, name: str) -> tuple[Address, ...] | None:
        """The addresses by which pods reach the host name ``name``, resolved on the host; these are open then.

        None where nothing of that name is open, and nothing where it does not resolve. The host's loopback
        is told as the root's bridge. For the name server of the cluster; waits for the host's resolver.
        """
        named = self.egress.ports_of(name)
        if named is None or self._forwarder is None:
            return None
        # Without the final dot, by which the C library would not find it in the host's /etc/hosts.
        addresses = host.call(partial(_resolve, name.removesuffix(".")))
        self.open(named, addresses)
        return self.egress.answers(addresses)

    def open(self, named: Iterable[Name], addresses: Iterable[Address]) -> None:
        """Open ``addresses``, which a name that egress names turned out to have."""
        with self._lock:
            before = self.egress
            known = before.catches()
            self.egress = before.resolved(named, addresses)  # first: who comes at once is let through
            try:
                if more := [each for each in self.egress.catches() if each not in known]:
                    ferry.roam(partial(self._catch, more))
            except BaseException:
                self.egress = before
                raise

    def close(self) -> None:
        """Close all sockets and reset what is connected; again is fine."""
        if os.getpid() == self._owner and self._forwarder is not None:
            host.call(self._end)

    def describe(self) -> list[str]:
        """Lines for a report: what is open, and what came of it."""
        bridge = " ".join(map(str, self.egress.bridge))
        lines = [f"egress, the host's ports at {bridge}:"]
        for text in dict.fromkeys(opening.text for opening in self.egress.openings):
            lines.append(f"  {text}: {self.connections[text]} connections, {self.refused[text]} refused")
        return lines

    # --- in the root ---

    def _lay(self, listening: list[tuple[socket.socket, socket.socket]]) -> None:
        families = {family_of(address) for address in self.egress.bridge}
        with self._root._stepped():
            for setting in _BRIDGE_SYSCTLS:
                try:
                    there = sysctl.read(setting)
                except KernelError:
                    continue  # no br_netfilter in this kernel
                if there != "0":
                    sysctl.write(setting, "0", where=self._root.label)
            for family in sorted(families):
                pair = tproxy.listeners(_TAKING[family], BACKLOG)
                listening.append(pair)
                self._taking[family] = pair[0].getsockname()[1]
            with Netlink(self._root.label) as netlink:
                for family in sorted(families):
                    netlink.commit(_routes(family))
        self._catch(self.egress.catches(), new=True)

    def _catch(self, catches: Iterable[tuple[Network, int | None]], new: bool = False) -> None:
        requests: list[Request] = []
        if new:
            for family in self._taking:
                words = "ip" if family == 4 else "ip6"
                requests += [
                    nftables.add_table(words, TABLE),
                    nftables.add_base_chain(words, TABLE, CHAIN, hook="prerouting", priority=_MANGLE),
                ]
            requests += [tproxy.add_pass(TABLE, CHAIN, network) for network in self.egress.inside]
        for network, port in catches:
            family = family_of(network)
            to = _TAKING[family], self._taking[family]
            at_host = network.network_address in self.egress.bridge  # which is inside, else passed by
            requests.append(tproxy.add_catch(TABLE, CHAIN, network, port, to, MARK, first=at_host))
        with self._root._stepped(), Netlink(self._root.label, NETLINK_NETFILTER) as netlink:
            nftables.commit(netlink, requests)

    # --- on the host thread ---

    async def _begin(self, listening: list[tuple[socket.socket, socket.socket]]) -> None:
        self._forwarder = Forwarder()
        self._flows = Flows(self._reach, self._answerer)
        for streams, datagrams in listening:
            self._forwarder.listen(streams, self._connect)
            self._flows.listen(datagrams)

    async def _end(self) -> None:
        forwarder, self._forwarder = self._forwarder, None
        if self._flows is not None:
            self._flows.close()
        if forwarder is not None:
            await forwarder.close()

    async def _connect(self, connection: socket.socket) -> socket.socket:
        address, port = connection.getsockname()[:2]
        way = self.egress.way(ip_address(address), port)
        if way is None or self._forwarder is None:
            raise ConnectionRefusedError()
        try:
            made = await self._forwarder.connect([(str(each), way.port) for each in way.addresses], here)
        except BaseException:
            self.refused[way.opening.text] += 1
            raise
        self.connections[way.opening.text] += 1
        return made

    def _reach(self, destination: Endpoint) -> Endpoint | None:
        way = self.egress.way(ip_address(destination[0]), destination[1])
        if way is None:
            return None
        self.connections[way.opening.text] += 1
        return str(way.addresses[0]), way.port

    async def _answerer(self, client: Endpoint, destination: Endpoint) -> socket.socket:
        return await ferry.call_async(partial(self._answering_socket, client, destination))

    def _answering_socket(self, client: Endpoint, destination: Endpoint) -> socket.socket:
        with self._root._stepped():
            made = tproxy.transparent_socket(ip_address(destination[0]), socket.SOCK_DGRAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one for each client, at one address
            made.bind(destination)
            made.connect(client)
        except BaseException:
            made.close()
            raise
        return made


def _routes(family: Family) -> list[Request]:
    """What is marked is received, whatever address it is for::

    ip rule add priority 100 fwmark MARK lookup 7001
    ip route add local default dev lo table 7001
    """
    everything = default_network(family)
    return [
        rule.add_rule(family=_AF[family], priority=_PRIORITY, fwmark=MARK, table=ROUTES),
        route.add_route(everything, index=LOOPBACK_INDEX, kind="local", table=ROUTES),
    ]


async def _resolve(name: str) -> tuple[Address, ...]:
    import asyncio

    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    texts = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
    return tuple(ip_address(text) for text in texts)
