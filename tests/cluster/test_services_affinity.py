"""Session affinity: a client stays with one endpoint, whoever else comes and goes, until its time is over."""

import time
from ipaddress import ip_address

from netwarren import Cluster, Pod, Service
from netwarren.kernel import nft_sets
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink
from netwarren.kernel.nft_sets import Element
from netwarren.runtime.machine import Machine
from tests.cluster.servers import Servers

LABELS = {"app": "web"}


def scene(cluster: Cluster, seconds: int | bool = True) -> tuple[list[Pod], list[Pod], Service]:
    pods = [cluster.add_pod(f"web-{number}", "node-b", labels=LABELS) for number in range(4)]
    clients = [cluster.add_pod(f"client-{number}") for number in range(6)]
    ports = ["8080/tcp", "8080/udp"]
    service = cluster.add_service("web", selector=LABELS, ports=ports, session_affinity=seconds)
    return pods, clients, service


def test_a_client_stays_with_its_endpoint_by_both_protocols_and_clients_are_spread(cluster: Cluster) -> None:
    pods, clients, service = scene(cluster)
    assert service.spec.affinity == 10800
    with Servers(pods) as servers:
        for ask in (servers.ask, servers.ask_by_datagram):
            chosen = [{ask(client, service.ip, 8080).server for _ in range(10)} for client in clients]
            assert all(len(each) == 1 for each in chosen)
            # All six at one of four by chance: once in 1,024 tests. So more are asked then.
            more = [cluster.add_pod(f"{ask.__name__.replace('_', '-')}-{n}") for n in range(12)]
            chosen += [{ask(client, service.ip, 8080).server} for client in more]
            assert len(set.union(*chosen)) > 1


def test_clients_of_endpoints_that_stay_are_kept_when_others_come_and_go() -> None:
    for families in ("ipv4", "ipv6"):
        with Cluster(families=families) as cluster:
            pods, clients, service = scene(cluster)
            with Servers(pods) as servers:
                before = {client: servers.ask(client, service.ip, 8080).server for client in clients}
                servers.add(cluster.add_pod("late", labels=LABELS))
                cluster.add_service("another", selector=LABELS, ports=8080, session_affinity=True)
                assert {each: servers.ask(each, service.ip, 8080).server for each in clients} == before
                pods[0].remove()
                for client in clients:
                    chosen = {servers.ask(client, service.ip, 8080).server for _ in range(5)}
                    assert len(chosen) == 1
                    assert chosen == {before[client]} or before[client] == "web-0"


def remembered(node: Machine) -> list[Element]:
    """The clients that a node remembers for any endpoint."""

    def read() -> list[Element]:
        with Netlink(node.label, NETLINK_NETFILTER) as netlink:
            return [
                element
                for each in nft_sets.sets(netlink)
                if not each.map
                for element in nft_sets.elements(netlink, each.family, each.table, each.name)
            ]

    return node.run(read)


def test_a_client_is_remembered_for_so_many_seconds_since_it_last_connected(cluster: Cluster) -> None:
    pods, (client, *_), service = scene(cluster, seconds=1)
    with Servers(pods) as servers:
        first = servers.ask(client, service.ip, 8080).server
        (element,) = remembered(client.node)
        assert element.key == ip_address(client.ip).packed
        assert 0 < element.expires <= 1
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            while remembered(client.node):
                assert time.monotonic() < deadline, "the client is never forgotten"
            # One of four is chosen anew, and in one of four cases it is the same.
            if servers.ask(client, service.ip, 8080).server != first:
                return
    raise AssertionError("the client was never sent to another one")
