"""The main thread keeps the host's network until its first ``with``; nobody can go back there."""

import subprocess
import sys

import pytest

PRELUDE = """
import asyncio, os, socket, threading
from netwarren import Cluster
from netwarren.kernel.netns import inode_of
from netwarren.runtime import standing
host = inode_of()
cluster = Cluster()
pod = cluster.add_pod("a")
other = cluster.add_pod("b")
"""


def child(script: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + script + "\ncluster.close()\n"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "use",
    [
        "assert pod.run(inode_of) == pod.inode",
        "pod.socket().close()",
        "assert pod.popen(['true']).wait() == 0",
        "assert pod.check_output(['echo', 'hi']) == 'hi\\n'",
        "assert pod.start(inode_of).result() == pod.inode",
        "async def inode(): return inode_of()\nassert asyncio.run(pod.run_async(inode)) == pod.inode",
        "cluster.add_pod('c'); cluster.remove_pod('c'); cluster.add_node('n'); cluster.report()",
    ],
)
def test_it_stays_for_everything_but_blocks(use: str) -> None:
    child(f"{use}\nassert inode_of() == host")


def test_a_run_on_another_thread_raises_what_was_raised() -> None:
    child("""
def fail():
    raise ValueError(threading.current_thread() is threading.main_thread())
try:
    pod.run(fail)
except ValueError as error:
    assert error.args == (False,)
assert inode_of() == host
""")


def test_after_the_first_block_it_is_at_home() -> None:
    child("""
with pod:
    assert inode_of() == pod.inode
assert inode_of() == standing.home().inode != host
with other:
    assert inode_of() == other.inode
assert inode_of() == standing.home().inode
""")


def test_after_the_first_block_code_runs_on_the_thread_itself() -> None:
    child("""
with pod:
    pass
assert pod.run(threading.current_thread) is threading.main_thread()
""")


def test_the_first_async_block_takes_it_home_too() -> None:
    child("""
async def main():
    async with pod:
        assert inode_of() == pod.inode
    assert inode_of() == standing.home().inode
asyncio.run(main())
""")


def test_home_has_a_loopback_that_works() -> None:
    child("""
with pod:
    pass
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
server.close()
assert [name for _, name in socket.if_nameindex()] == ["lo"]
""")


def test_connections_opened_before_go_on() -> None:
    child("""
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
with pod:
    pass
accepted, _ = server.accept()
client.sendall(b"still here")
assert accepted.recv(10) == b"still here"
for each in (server, client, accepted):
    each.close()
""")


def test_other_threads_keep_the_host() -> None:
    child("""
step, looked = threading.Event(), threading.Event()
seen = []
def look():
    step.wait()
    seen.append(inode_of())
thread = threading.Thread(target=look)
thread.start()
with pod:
    pass
step.set()
thread.join()
assert seen == [host]
""")
