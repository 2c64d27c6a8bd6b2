"""One cluster, many threads: whatever they add and remove at the same time, the cluster stays whole."""

import threading
from collections.abc import Callable

import pytest

from netwarren import ClosedError, Cluster, DuplicateName, NetwarrenError, Pod, UnknownName
from tests.cluster.readback import inside, members
from tests.cluster.traffic import reaches

THREADS = 8


def at_once(*jobs: Callable[[], object]) -> list[BaseException]:
    """Run all jobs, each on a thread of its own, from the same moment on; what they raised."""
    start = threading.Barrier(len(jobs))
    raised: list[BaseException] = []

    def work(job: Callable[[], object]) -> None:
        start.wait()
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_eight_threads_add_and_remove_pods_at_once(cluster: Cluster) -> None:
    def work(number: int) -> None:
        node = ("node-a", "node-b")[number % 2]
        for turn in range(6):
            pod = cluster.add_pod(f"pod-{number}-{turn}", node)
            assert pod.run(lambda: True)
            if turn % 2:
                pod.remove()

    assert at_once(*[lambda number=number: work(number) for number in range(THREADS)]) == []
    assert len(cluster.pods) == THREADS * 3
    assert len({pod.ip for pod in cluster.pods.values()}) == THREADS * 3
    pods = list(cluster.pods.values())
    assert all(reaches(near, far, far.ip) for near, far in zip(pods, pods[1:] + pods[:1], strict=True))


def test_eight_threads_add_nodes_at_once_and_all_of_them_know_each_other() -> None:
    with Cluster(nodes=()) as cluster:
        jobs = [lambda number=number: cluster.add_node(f"node-{number}") for number in range(THREADS)]
        assert at_once(*jobs) == []
        pods = [node.add_pod(f"pod-{node.name}") for node in cluster.nodes.values()]
        assert all(reaches(near, far, far.ip) for near in pods for far in pods if far is not near)


def test_a_declared_node_is_built_once_however_many_ask_for_it(cluster: Cluster) -> None:
    found = []
    assert at_once(*[lambda: found.append(cluster.node("node-b"))] * THREADS) == []
    assert len(found) == THREADS
    assert set(found) == {cluster.built_nodes["node-b"]}


def test_of_many_who_want_one_name_one_gets_it(cluster: Cluster) -> None:
    raised = at_once(*[lambda: cluster.add_pod("server")] * THREADS)
    assert [type(error) for error in raised] == [DuplicateName] * (THREADS - 1)
    assert reaches(cluster.add_pod("client", "node-b"), cluster.pod("server"), cluster.resolve("server"))


def test_of_many_who_remove_one_pod_one_does(cluster: Cluster) -> None:
    pod = cluster.add_pod("server")
    raised = at_once(*[lambda: cluster.remove_pod(pod)] * THREADS)
    assert [type(error) for error in raised] == [ClosedError] * (THREADS - 1)
    assert cluster.pods == {}


@pytest.mark.parametrize("turn", range(5))
def test_a_node_and_its_pods_are_removed_and_added_to_at_once(turn: int) -> None:
    with Cluster() as cluster:
        pods = [cluster.add_pod(f"pod-{number}", "node-b") for number in range(3)]
        node = pods[0].node
        late: list[Pod] = []
        raised = at_once(
            node.remove,
            *[pod.remove for pod in pods],
            lambda: late.append(cluster.add_pod("late-1", "node-b")),
            lambda: late.append(cluster.add_pod("late-2", node)),
            lambda: cluster.resolve("pod-0"),
        )
        assert {type(error) for error in raised} <= {ClosedError, UnknownName}, raised
        assert cluster.pods == {}
        assert all(pod.gone for pod in (*pods, *late))
        again = cluster.add_node("node-b").add_pod("pod-0")
        assert reaches(cluster.add_pod("client", "node-a"), again, again.ip)


def test_a_removal_that_takes_long_holds_nobody_up(cluster: Cluster) -> None:
    """Code in a pod that is being removed may itself need the cluster before it can end."""

    cluster.node("node-b")

    def last_words(ready: Callable[[], None], stop: threading.Event) -> str:
        ready()
        assert stop.wait(30)
        return cluster.resolve("node-b")

    pod = cluster.add_pod("server", "node-a")
    background = pod.start(last_words)
    pod.remove()
    assert background.result(timeout=30) == cluster.node("node-b").ip


def test_a_name_is_taken_until_its_pod_is_gone_altogether(cluster: Cluster) -> None:
    def ask(ready: Callable[[], None], stop: threading.Event) -> None:
        ready()
        assert stop.wait(30)
        with pytest.raises(DuplicateName):
            cluster.add_pod("server", "node-b")

    pod = cluster.add_pod("server", "node-a")
    background = pod.start(ask)
    pod.remove()
    background.result(timeout=30)
    assert cluster.add_pod("server", "node-b").ip == "10.0.2.2"


def test_closing_while_others_add_pods_ends_them_all() -> None:
    with Cluster() as cluster:
        cluster.node("node-a")

        def add(number: int) -> None:
            for turn in range(20):
                cluster.add_pod(f"pod-{number}-{turn}", "node-a")

        jobs = [lambda number=number: add(number) for number in range(4)]
        raised = at_once(*jobs, cluster.close)
        assert {type(error) for error in raised} <= {ClosedError}, raised
        assert all(machine.gone for machine in members(cluster))


def test_two_clusters_are_built_at_once_on_two_threads() -> None:
    made: list[Cluster] = []

    def build() -> None:
        with Cluster() as cluster:
            a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
            assert reaches(a, b, b.ip)
            made.append(cluster)

    assert at_once(*[build] * 4) == []
    assert [cluster.closed for cluster in made] == [True] * 4


def test_a_thread_is_where_it_was_after_it_changed_the_cluster(cluster: Cluster) -> None:
    pod = cluster.add_pod("server")

    def work() -> None:
        from tests.cluster.readback import standing

        with pod:
            cluster.add_pod("other").remove()
            assert standing() == pod.inode
            with pytest.raises(NetwarrenError):
                cluster.add_pod("Bad Name")
            assert standing() == pod.inode

    assert at_once(work) == []
    assert len(inside(pod).links) == 2
