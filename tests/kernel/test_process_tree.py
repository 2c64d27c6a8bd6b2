"""A process and all it has started: found, stopped, continued, killed."""

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from netwarren.kernel import process_tree
from netwarren.kernel.netns import inode_of
from netwarren.kernel.process_tree import Member, Tree


@pytest.fixture
def family() -> Iterator[Callable[[str], tuple[Tree, list[int]]]]:
    """Start a shell script that prints pids on one line; the tree and those pids."""
    started: list[tuple[subprocess.Popen[str], Tree]] = []

    def start(script: str) -> tuple[Tree, list[int]]:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        tree = Tree(process.pid, inode_of())
        started.append((process, tree))
        assert process.stdout is not None
        return tree, [int(word) for word in process.stdout.readline().split()]

    yield start
    for process, tree in started:
        tree.kill()
        process.communicate()


def pids(tree: Tree) -> list[int]:
    return [member.pid for member in tree.members()]


def stays(tree: Tree, count: int) -> list[int]:
    """The pids, once there are ``count``: a shell prints a child's pid before that has become what it is."""
    deadline = time.monotonic() + 20
    while len(found := pids(tree)) != count:
        assert time.monotonic() < deadline, found
        os.sched_yield()
    return found


def test_a_stat_line_is_read_whatever_the_name_of_the_program_is() -> None:
    text = "7 (a) S (b ) R) T 3 7 5 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1"
    assert process_tree.parse_stat(text) == Member(7, "T", 3, 5, 4711)


def test_children_and_theirs_belong_to_it_whatever_their_session() -> None:
    table = {
        10: Member(10, "S", 1, 10, 100),
        11: Member(11, "S", 10, 10, 101),
        12: Member(12, "S", 11, 12, 102),  # in a session of its own
        13: Member(13, "S", 1, 12, 103),  # and one that lost its parent there
        14: Member(14, "Z", 10, 10, 104),
        20: Member(20, "S", 1, 20, 100),
    }
    tree = Tree(10, 0)
    tree._known = {10: 100}
    assert [member.pid for member in tree.members(table)] == [10, 11, 12, 13]


def test_one_that_was_seen_once_belongs_to_it_when_it_has_lost_its_parent() -> None:
    tree = Tree(10, 0)
    tree._known = {10: 100}
    tree.members({10: Member(10, "S", 1, 10, 100), 12: Member(12, "S", 10, 12, 102)})
    assert [member.pid for member in tree.members({12: Member(12, "S", 1, 12, 102)})] == [12]


def test_whoever_has_its_pid_later_does_not_belong_to_it() -> None:
    tree = Tree(10, 0)
    tree._known = {10: 100}
    later = {10: Member(10, "S", 1, 10, 900), 11: Member(11, "S", 10, 10, 901)}
    assert tree.members(later) == []


def test_an_orphan_in_its_session_is_found_after_its_end(
    family: Callable[[str], tuple[Tree, list[int]]],
) -> None:
    tree, (orphan,) = family("sleep 1000 >/dev/null & echo $!")
    os.waitid(os.P_PID, tree.pid, os.WEXITED | os.WNOWAIT)
    assert pids(tree) == [orphan]


def test_all_of_it_is_stopped_and_goes_on(family: Callable[[str], tuple[Tree, list[int]]]) -> None:
    tree, (inner,) = family("setsid sh -c 'echo $$; sleep 1000 & wait' & wait")
    members = stays(tree, 3)
    assert members[0] == tree.pid
    assert inner in members
    tree.stop()
    assert [member.state for member in tree.members()] == ["T", "T", "T"]
    tree.resume()
    assert "T" not in [member.state for member in tree.members()]


def test_all_of_it_is_killed_while_it_forks(family: Callable[[str], tuple[Tree, list[int]]]) -> None:
    tree, _pids = family("echo; while :; do (sleep 1000 &); sleep 1000 & done")
    tree.kill()
    assert tree.members() == []


def test_what_is_stopped_can_be_killed(family: Callable[[str], tuple[Tree, list[int]]]) -> None:
    tree, (child,) = family("sleep 1000 & echo $!; wait")
    handle = os.pidfd_open(child)
    tree.stop()
    tree.kill()
    with open(handle, "rb", closefd=True) as ended:
        assert select.select([ended], [], [], 30)[0]


def test_the_sockets_of_a_process_are_known_by_their_inodes() -> None:
    import socket

    with socket.socket() as mine:
        inodes, complete = process_tree.socket_inodes([os.getpid()])
        assert os.fstat(mine.fileno()).st_ino in inodes
        assert complete
    assert process_tree.socket_inodes([2**22 + 1]) == (set(), True)
