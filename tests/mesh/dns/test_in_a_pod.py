"""The DNS proxy in a pod of a cluster: its sockets are the pod's, and the cluster's name server knows the rest."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import pytest

from netwarren import Cluster
from netwarren.cluster.members import Pod
from netwarren.mesh.config import DNS_PORT
from netwarren.mesh.dns import client
from netwarren.mesh.dns.decision import Naming
from netwarren.mesh.dns.resolver import DnsResolver, Transport
from netwarren.mesh.dns.server import DnsServer
from netwarren.mesh.dns.upstream import Upstream
from netwarren.mesh.model import SocketAddress, Workload
from netwarren.topology.wellknown import NAME_SERVER
from tests.mesh.dns.directory import Directory, service
from tests.mesh.dns.edge import TRANSPORTS, Metrics


@dataclass(frozen=True)
class InPod:
    """Makes sockets in a pod; this thread is home again when it has one."""

    pod: Pod

    def datagram(self, address: SocketAddress | None, family: int) -> socket.socket:
        return self._make(address, family, socket.SOCK_DGRAM)

    def stream(self, family: int) -> socket.socket:
        return self._make(None, family, socket.SOCK_STREAM)

    def listen(self, address: SocketAddress, family: int) -> socket.socket:
        listening = self._make(address, family, socket.SOCK_STREAM)
        listening.listen()
        return listening

    def _make(self, address: SocketAddress | None, family: int, kind: int) -> socket.socket:
        with self.pod:
            made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        if address is not None:
            made.bind((str(address.address), address.port))
        return made


@pytest.mark.usefixtures("_netwarren_sandbox")
@pytest.mark.parametrize(("families", "loopback"), [("ipv4", "127.0.0.1"), ("ipv6", "::1")])
async def test_a_pod_asks_its_proxy_and_the_proxy_the_clusters_name_server(
    families: str, loopback: str
) -> None:
    family = socket.AF_INET if families == "ipv4" else socket.AF_INET6
    kind = "A" if families == "ipv4" else "AAAA"
    where = SocketAddress(ip_address(loopback), DNS_PORT)
    vip = "240.240.0.1" if families == "ipv4" else "2001:2::1"
    with Cluster(families=families) as cluster:
        server, pod = cluster.add_pod("server"), InPod(cluster.add_pod("client"))
        cluster.dns.add("many.example", "A", *(ip_address("10.9.0.0") + n for n in range(200)))
        workload = Workload("client", "client", "default", (ip_address(pod.pod.ip),), network="nw1")

        async def the_pod() -> Workload:
            return workload

        resolver = DnsResolver(
            workload=the_pod,
            directory=Directory((service("mesh.example", "default", vip),)),
            upstream=Upstream([SocketAddress(NAME_SERVER[4 if families == "ipv4" else 6], 53)], pod),
            metrics=Metrics(),
            naming=Naming(),
        )

        async def ask(name: str, type: str, transport: Transport) -> dns.message.Message:
            with pod.datagram(None, family) if transport == "udp" else pod.stream(family) as through:
                return await client.lookup(name, type, where, through=through)

        async with DnsServer(
            resolver.answer, datagrams=[pod.datagram(where, family)], streams=[pod.listen(where, family)]
        ):
            for transport in TRANSPORTS:
                ours = await ask("mesh.example", kind, transport)
                assert [rrset[0].to_text() for rrset in ours.answer] == [vip]
                assert ours.flags & dns.flags.AA
                theirs = await ask("server.default.svc.cluster.local", kind, transport)
                assert [rrset[0].to_text() for rrset in theirs.answer] == [server.ip]
                assert not theirs.flags & dns.flags.AA
                assert (await ask("nobody.example", kind, transport)).rcode() == dns.rcode.NXDOMAIN
                many = await ask("many.example", "A", transport)
                assert len(many.answer) == (74 if transport == "udp" else 200)
        assert {query.asker for query in cluster.dns.queries} == {"client"}
