"""Processes: children, and whoever stands in a namespace."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from netwarren.kernel import netns, process


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    started = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def lone(script: str) -> str:
    """Run in an interpreter that has no children, with namespaces of its own."""
    prelude = (
        "import os, signal, subprocess, sys; from netwarren.kernel import netns, process, userns; "
        "from netwarren.kernel.syscall import CLONE_NEWNET; userns.enter(CLONE_NEWNET, userns.own_map())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + script], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_threads_are_counted_including_those_unknown_to_python() -> None:
    import _thread

    before = process.threads()
    block = _thread.allocate_lock()
    block.acquire()
    started = threading.Event()

    def run() -> None:
        started.set()
        block.acquire()

    _thread.start_new_thread(run, ())
    started.wait()
    assert process.threads() == before + 1
    block.release()


def test_a_process_without_children_says_so() -> None:
    assert lone("print(process.children())") == "set()\n"


def test_a_child_is_seen_until_it_is_waited_for() -> None:
    printed = lone("""
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
print(process.children() == {child.pid})
child.communicate()
print(process.children())
""")
    assert printed == "True\nset()\n"


def test_a_child_of_another_thread_is_seen() -> None:
    printed = lone("""
import threading
started, end = threading.Event(), threading.Event()
pids = set()
def run():
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    pids.add(child.pid)
    started.set()
    end.wait()
    child.communicate()
thread = threading.Thread(target=run, daemon=True)
thread.start()
started.wait()
print(process.children() == pids)
end.set()
thread.join()
""")
    assert printed == "True\n"


def test_whoever_stands_in_a_namespace_is_found(sleeper: "subprocess.Popen[bytes]") -> None:
    assert sleeper.pid in process.standing_in({netns.inode_of()})


def test_the_asking_process_itself_is_left_out() -> None:
    assert os.getpid() not in process.standing_in({os.stat("/proc/self/ns/net").st_ino})


def test_nobody_stands_in_a_namespace_that_is_none(sleeper: "subprocess.Popen[bytes]") -> None:
    assert process.standing_in({1}) == []


def test_killing_ends_them_all_and_children_of_children() -> None:
    printed = lone("""
home = netns.here()
made = netns.create("made")
read, write = os.pipe()
shell = "setsid sleep 1000 & (sleep 1000 &) ; echo up; exec sleep 1000"
child = subprocess.Popen(["/bin/sh", "-c", shell], stdout=write)
os.close(write)
netns.enter(home)
assert os.read(read, 3) == b"up\\n"
print(process.kill_standing_in({made.inode}), process.standing_in({made.inode}), child.wait())
assert os.read(read, 1) == b""  # nobody holds the other end
""")
    assert printed == f"[] [] {-signal.SIGKILL}\n"


def test_killing_spares_those_who_stand_elsewhere() -> None:
    printed = lone("""
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
made = netns.create("made")
process.kill_standing_in({made.inode})
print(child.poll())
child.communicate()
""")
    assert printed == "None\n"


def test_killing_nobody_is_fine() -> None:
    assert process.kill_standing_in({1}) == []


def test_killing_leaves_no_descriptor() -> None:
    printed = lone("""
home = netns.here()
made = netns.create("made")
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
netns.enter(home)
before = os.listdir("/proc/self/fd")
process.kill_standing_in({made.inode})
print(os.listdir("/proc/self/fd") == before)
child.communicate()
""")
    assert printed == "True\n"


def test_out_of_time_it_tells_who_is_left_and_keeps_no_descriptor() -> None:
    printed = lone("""
home = netns.here()
made = netns.create("made")
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
netns.enter(home)
before = os.listdir("/proc/self/fd")
left = process.kill_standing_in({made.inode}, seconds=-1)
print(left == [child.pid], os.listdir("/proc/self/fd") == before)
child.kill()
child.communicate()
""")
    assert printed == "True True\n"


def test_a_process_dies_with_the_one_that_made_it() -> None:
    script = (
        "import subprocess, sys; from netwarren.kernel.process import die_with_parent; "
        "subprocess.Popen(['/bin/sh', '-c', 'echo up; exec sleep 1000'], preexec_fn=die_with_parent); "
        "import signal; signal.pause()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout as pipe:
        assert pipe.readline() == b"up\n"
        parent.kill()
        assert pipe.read() == b""  # ends when the child does, too
    parent.wait()
