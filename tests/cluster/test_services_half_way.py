"""A change of services that fails half-way leaves every node as it was, and fit for the next change."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from netwarren import Cluster, KernelError, UnsupportedByKernel
from netwarren.kernel import conntrack, nft_sets, nftables
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, Request
from netwarren.runtime.machine import Machine
from tests.cluster.readback import state
from tests.cluster.servers import Servers

LABELS = {"app": "web"}
FIRST_TABLE = "no services yet"


class Broken(Exception):
    """What these tests break off with."""


def rules_of(machine: Machine) -> list[str]:
    """All that nftables has in a machine."""

    def read() -> list[str]:
        with Netlink(machine.label, NETLINK_NETFILTER) as netlink:
            found = [f"{each.chain}: {each.expressions}" for each in nftables.rules(netlink)]
            found += [str(each) for each in nftables.chains(netlink)]
            for each in nft_sets.sets(netlink):
                found.append(str(each))
                elements = nft_sets.elements(netlink, each.family, each.table, each.name)
                found += [f"{element.key.hex()} {element.verdict}" for element in elements]
            return sorted(found)

    return machine.run(read)


def everything(cluster: Cluster) -> list[object]:
    nodes = cluster.built_nodes.values()
    return [state(cluster), list(cluster.services), *(rules_of(node) for node in nodes)]


def add_service(cluster: Cluster) -> None:
    cluster.add_service("late", selector=LABELS, ports=["80", "8080/udp"], node_ports=True)


def turn(cluster: Cluster) -> None:
    cluster.pod("b").ready = False


CHANGES: dict[str, Callable[[Cluster], object]] = {
    "service added": add_service,
    "service removed": lambda cluster: cluster.remove_service("web"),
    "pod added": lambda cluster: cluster.add_pod("late", "node-a", labels=LABELS),
    "node added": lambda cluster: cluster.add_node("late"),
    "pod unready": turn,
    FIRST_TABLE: add_service,
}


FIRST, SECOND, LATER = "at the first node", "at the second node", "after the rules"
POINTS = [
    *((change, FIRST) for change in CHANGES),
    *((change, SECOND) for change in CHANGES if change != "node added"),
    *((change, LATER) for change in ("service removed", "pod unready")),  # where datagrams may have to move
]


@pytest.mark.parametrize(("change", "where"), POINTS)
@pytest.mark.parametrize("error", [Broken, KernelError, KeyboardInterrupt])
def test_a_change_broken_off_on_any_node_leaves_no_trace(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, change: str, where: str, error: type[BaseException]
) -> None:
    a, b = (cluster.add_pod(end, f"node-{end}", labels=LABELS) for end in "ab")
    if change != FIRST_TABLE:
        cluster.add_service("web", selector=LABELS, ports=["80", "8080/udp"], node_ports=True)
    before = everything(cluster)
    raised = error("refused", 1) if error is KernelError else error()
    calls = 0

    def commit(netlink: Netlink, requests: Sequence[Request]) -> None:
        nonlocal calls
        calls += 1
        # As a whole table, in place of a change that was refused: once more.
        limit = 2 if error is KernelError and change not in (FIRST_TABLE, "node added") else 1
        first = {FIRST: 1, SECOND: 2}.get(where, 1000)
        if first <= calls < first + limit:
            raise raised
        original(netlink, requests)

    def connections(netlink: Netlink) -> Any:
        raise raised

    original = nftables.commit
    with monkeypatch.context() as patch:
        patch.setattr(nftables, "commit", commit)
        if where == LATER:
            patch.setattr(conntrack, "connections", connections)
        with pytest.raises(error) as caught:
            CHANGES[change](cluster)
    assert caught.value is raised
    assert everything(cluster) == before
    CHANGES[change](cluster)
    with Servers([a, b]) as servers:
        if "late" in cluster.services:
            address = cluster.resolve("late")
            assert servers.ask_by_datagram(a, address, 8080).server in {"a", "b"}


def test_a_kernel_without_nat_in_nftables_is_told_and_nothing_is_left(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netwarren.kernel import nft_expressions, nft_wire

    cluster.add_pod("a")
    before = everything(cluster)
    with monkeypatch.context() as patch:
        patch.setattr(nft_expressions, "masquerade", lambda: [nft_wire.expression("no-such-one")])
        with pytest.raises(UnsupportedByKernel, match=r"masquerade in node 'node-a': ENOENT.*CONFIG_NFT_NAT"):
            cluster.add_service("web", pods=["a"], ports=80)
    assert everything(cluster) == before


def test_a_pod_is_ended_and_removed_even_if_its_services_cannot_be_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = cluster.add_pod("a", labels=LABELS)
    cluster.add_service("web", selector=LABELS, ports=80)

    def commit(netlink: Netlink, requests: Sequence[Request]) -> None:
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(nftables, "commit", commit)
        with pytest.raises(Broken):
            a.remove()
    assert "a" not in cluster.pods
    again = cluster.add_pod("a", labels=LABELS)
    with Servers([again], port=80) as servers:
        assert servers.chosen(cluster.node("node-a"), cluster.resolve("web"), times=3) == {"a"}


def test_several_threads_add_and_remove_services_and_pods(cluster: Cluster) -> None:
    stays = cluster.add_pod("stays", labels=LABELS)
    client = cluster.add_pod("client", "node-b")
    service = cluster.add_service("web", selector=LABELS, ports=8080)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(6):
                pod = cluster.add_pod(f"pod-{number}-{turn}", f"node-{'ab'[number % 2]}", labels=LABELS)
                mine = cluster.add_service(
                    f"web-{number}", selector=LABELS, ports=["80", "53/udp"], node_ports=True
                )
                pod.ready = False
                mine.remove()
                pod.remove()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    with Servers([stays]) as servers:
        session = servers.session(client, service.ip, 8080)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert session.works()
        session.close()
        assert [each.pod for each in service.endpoints] == ["stays"]
        assert servers.chosen(client, service.ip, 8080, times=10) == {"stays"}
    assert list(cluster.services) == ["web"]
    assert cluster.add_service("next", pods=(), ports=80, node_ports=True).ip == "10.96.0.2"
