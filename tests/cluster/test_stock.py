"""Namespaces that were made ahead are as good as those made on the spot."""

import multiprocessing
import os

import pytest

from netwarren import Cluster
from netwarren.cluster import stock
from netwarren.errors import KernelError
from netwarren.runtime import ferry
from tests.cluster.readback import inside
from tests.cluster.traffic import reaches


def waiting() -> int:
    """How many wait, once the ferry has nothing more to do."""
    ferry.catch_up()
    return sum(map(len, stock._waiting.values()))


@pytest.fixture(autouse=True)
def _empty() -> None:
    waiting()
    stock.empty()


def life(families: str = "ipv4") -> list[list[str]]:
    """What is in the machines of a small cluster, and that they reach one another."""
    with Cluster(nodes=["one", "two"], families=families) as cluster:
        a, b = cluster.add_pod("a", "one"), cluster.add_pod("b", "two")
        assert reaches(a, b, b.ip)
        assert reaches(b, a, a.ip)
        return [inside(machine).lines() for machine in (a, b, a.node, b.node)]


@pytest.mark.parametrize("families", ["ipv4", "ipv6", "dual"])
def test_a_cluster_of_namespaces_made_ahead_is_like_one_of_new_ones(families: str) -> None:
    new = life(families)
    assert waiting() > 0
    assert life(families) == new


def test_as_many_are_made_ahead_as_were_missed() -> None:
    life()
    made = waiting()
    life()
    assert waiting() >= made > 0
    assert all(depth <= stock.MOST for depth in stock._depths.values())


def test_a_namespace_made_ahead_is_called_by_what_it_became() -> None:
    life()
    waiting()
    with Cluster(nodes=["one"]) as cluster:
        pod = cluster.add_pod("web")
        assert "pod 'web'" in repr(pod._namespace)


def test_nobody_misses_what_could_not_be_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    life()
    waiting()
    stock.empty()

    def refuse(label: str, settings: stock.Settings) -> stock.Blank:
        raise KernelError(f"make the network namespace of {label}", 28)

    with monkeypatch.context() as patch:
        patch.setattr(stock, "make", refuse)
        with pytest.raises(KernelError, match="ENOSPC"):
            life()
        assert waiting() == 0
    life()


def test_a_forked_child_has_a_stock_of_its_own() -> None:
    life()
    assert waiting() > 0
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        held = waiting()
        sender.send((held, len(life())))
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    sender.close()
    assert receiver.recv() == (0, 4)
    process.join()
    receiver.close()
    process.close()
    life()
