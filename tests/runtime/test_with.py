"""``with pod:`` on one thread."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netwarren import ClosedError, Cluster, Pod
from netwarren.errors import SteppingError
from tests.runtime.conftest import where


def test_the_thread_is_in_the_pod_and_back_afterwards(pod: Pod) -> None:
    with pod:
        pass  # the first block may take the thread through the one-way door
    home = where()
    with pod:
        assert where() == pod.inode != home
    assert where() == home


def test_the_block_gets_the_pod(pod: Pod) -> None:
    with pod as inside:
        assert inside is pod


def test_an_exception_goes_through_and_the_thread_is_back(pod: Pod) -> None:
    with pod:
        pass
    home = where()
    with pytest.raises(ValueError, match="mine"), pod:
        raise ValueError("mine")
    assert where() == home


def test_a_base_exception_brings_it_back_too(pod: Pod) -> None:
    with pod:
        pass
    home = where()
    with pytest.raises(KeyboardInterrupt), pod:
        raise KeyboardInterrupt
    assert where() == home


def test_blocks_nest(pod: Pod, other: Pod) -> None:
    with pod:
        with other:
            assert where() == other.inode
        assert where() == pod.inode


def test_the_same_pod_nests_in_itself(pod: Pod) -> None:
    with pod:
        with pod:
            assert where() == pod.inode
        assert where() == pod.inode
    assert where() != pod.inode


def test_an_inner_exception_brings_the_thread_to_the_outer_pod(pod: Pod, other: Pod) -> None:
    with pod:
        with pytest.raises(ValueError, match="inner"), other:
            raise ValueError("inner")
        assert where() == pod.inode


def test_nodes_and_the_root_are_entered_in_the_same_way(cluster: Cluster) -> None:
    for machine in (cluster.node("node-a"), cluster.root):
        with machine:
            assert where() == machine.inode


def test_sockets_made_inside_reach_the_other_pods(pod: Pod, other: Pod) -> None:
    with other:
        server = socket.create_server(("", 8080))
    with pod:
        client = socket.create_connection((other.ip, 8080), timeout=10)
    accepted, (peer, _port) = server.accept()
    assert peer == pod.ip
    for each in (server, client, accepted):
        each.close()


def test_a_removed_pod_is_refused(cluster: Cluster, pod: Pod) -> None:
    cluster.remove_pod(pod)
    with pytest.raises(ClosedError, match="pod 'first' was removed"), pod:
        pass


def test_a_pod_removed_while_inside_does_not_keep_the_thread(cluster: Cluster, pod: Pod) -> None:
    with pod:
        pass
    home = where()
    with pod:
        cluster.remove_pod(pod)
    assert where() == home


def test_blocks_left_out_of_order_say_so(pod: Pod, other: Pod) -> None:
    pod.__enter__()
    other.__enter__()
    with pytest.raises(SteppingError, match=r"pod 'first'.* was left before the blocks inside it"):
        pod.__exit__(None, None, None)
    assert where() == other.inode
    other.__exit__(None, None, None)
    assert where() not in (pod.inode, other.inode)


def test_a_block_never_entered_cannot_be_left(pod: Pod) -> None:
    with pytest.raises(SteppingError, match="pod 'first'"):
        pod.__exit__(None, None, None)


def test_a_generator_may_be_a_context_manager(pod: Pod) -> None:
    @contextmanager
    def stepping() -> Iterator[int]:
        with pod:
            yield where()

    with stepping() as inode:
        assert where() == inode == pod.inode
    assert where() != pod.inode
