"""Network namespaces: held by descriptors, known by inodes."""

import errno
import os
import threading
from collections.abc import Callable

import pytest

from netwarren.errors import KernelError
from netwarren.kernel import netns
from netwarren.kernel.netns import Namespace


def in_thread(function: Callable[[], None]) -> None:
    """On a thread of its own, which may stay wherever it lands."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.mark.fresh_netns
def test_a_new_namespace_is_where_the_thread_stands() -> None:
    before = netns.inode_of()
    made = netns.create("made")
    assert netns.inode_of() == made.inode != before


@pytest.mark.fresh_netns
def test_entering_is_for_the_calling_thread_only() -> None:
    home = netns.here()

    def elsewhere() -> None:
        made = netns.create("made")
        assert netns.inode_of() == made.inode

    in_thread(elsewhere)
    assert netns.inode_of() == home.inode


@pytest.mark.fresh_netns
def test_one_can_go_back_and_forth() -> None:
    home = netns.here("home")
    made = netns.create("made")
    for namespace in (home, made, home, made):
        netns.enter(namespace)
        assert netns.inode_of() == namespace.inode


@pytest.mark.fresh_netns
def test_entering_a_closed_namespace_names_it() -> None:
    made = netns.create("the made one")
    made.close()
    with pytest.raises(KernelError, match="step into the network namespace of the made one: EBADF") as raised:
        netns.enter(made)
    assert raised.value.errno == errno.EBADF


@pytest.mark.fresh_netns
def test_a_namespace_lives_as_long_as_its_descriptor() -> None:
    home = netns.here()
    made = netns.create("made")
    inode = made.inode
    netns.enter(home)
    path = f"/proc/self/fd/{made.fd}"
    assert netns.inode_of(path) == inode
    made.close()
    with pytest.raises(FileNotFoundError):
        netns.inode_of(path)


@pytest.mark.fresh_netns
def test_descriptors_are_not_inherited_by_programs() -> None:
    made = netns.create("made")
    assert not os.get_inheritable(made.fd)
    assert not os.get_inheritable(netns.here().fd)


def test_closing_twice_is_fine() -> None:
    namespace = netns.here()
    namespace.close()
    namespace.close()
    assert namespace.fd == -1


def test_a_forgotten_namespace_closes_its_descriptor() -> None:
    fd = netns.here().fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_repr_shows_label_inode_and_end() -> None:
    namespace: Namespace = netns.here("node 'a'")
    assert repr(namespace) == f"<Namespace node 'a' net:[{netns.inode_of()}]>"
    namespace.close()
    assert repr(namespace).endswith(" closed>")


def test_a_refusal_to_make_one_says_for_whom() -> None:
    script = "from netwarren.kernel import netns; netns.create(\"pod 'x'\")"
    import subprocess
    import sys

    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from netwarren.kernel.syscall import capset; capset(0, 0, 0)\n{script}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "make the network namespace of pod 'x': EPERM" in result.stderr
