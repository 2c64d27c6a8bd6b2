"""The host thread: left behind by the first that leaves, reachable from everywhere, none in a child that left."""

import asyncio
import contextvars
import subprocess
import sys
import threading
import time

import pytest

from netwarren import Cluster, Pod
from netwarren.kernel.netns import inode_of
from netwarren.runtime import host
from tests.runtime.test_fork import in_child

PRELUDE = """
import asyncio, os, socket, threading
from netwarren import Cluster, SteppingError
from netwarren.kernel.netns import inode_of
from netwarren.runtime import host
outside = inode_of()
def on_host(function):
    return host.call(lambda: asyncio.to_thread(function))
"""


def child(script: str) -> None:
    """A process of its own, whose main thread stands in the host's network."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", PRELUDE + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "leave",
    [
        "with pod: pass",
        "pod.run(inode_of)",
        "pod.start(inode_of).result()",
        "pod.check_output(['true'])",
        "asyncio.run(pod.run_async(asyncio.sleep, 0))",
        "async def visit():\n    async with pod: pass\nasyncio.run(visit())",
    ],
)
def test_it_stays_whoever_leaves_first(leave: str) -> None:
    child(f"""
with Cluster() as cluster:
    pod = cluster.add_pod("a")
    {leave.replace(chr(10), chr(10) + "    ")}
    assert on_host(inode_of) == outside
""")


def test_it_is_reached_from_inside_a_pod_that_was_entered_before_it_was_wanted() -> None:
    child("""
with socket.create_server(("127.0.0.1", 0)) as listening, Cluster() as cluster:
    with cluster.add_pod("a") as pod:
        port = pod.publish(80).port
        assert on_host(inode_of) == outside
        made = on_host(lambda: socket.create_connection(listening.getsockname()))
        made.close()
    thread = threading.Thread(target=lambda: pod.publish(81))
    thread.start()
    thread.join()
    assert len(pod.published) == 2
""")


def test_it_is_parked_until_somebody_wants_it() -> None:
    child("""
import sys
with Cluster() as cluster:
    with cluster.add_pod("a"): pass
    (thread,) = [each for each in threading.enumerate() if each.name == "netwarren-host"]
    assert host._parked._loop is None
    on_host(inode_of)
    assert host._parked._loop is not None
    assert thread.is_alive()
""")


def test_a_process_without_a_cluster_has_none() -> None:
    child("import netwarren.cluster\nassert threading.active_count() == 1")


def test_a_child_forked_on_the_host_has_its_own() -> None:
    child("""
cluster = Cluster()
pod = cluster.add_pod("a")
pod.publish(80).close()
child = os.fork()
if child == 0:
    status = 1
    try:
        assert on_host(inode_of) == outside
        assert pod.publish(80).port
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
cluster.close()
""")


def test_a_child_forked_after_its_parent_had_left_is_refused_with_a_remedy() -> None:
    child("""
cluster = Cluster()
with cluster.add_pod("a") as pod: pass
kept = pod.publish(80)
child = os.fork()
if child == 0:
    status = 1
    try:
        for use in (lambda: pod.publish(80), lambda: Cluster(egress="localhost:1")):
            try:
                use()
            except SteppingError as error:
                assert "fork before the first `with pod:`" in str(error)
            else:
                raise AssertionError
        kept.close()
        assert not kept.closed  # it is the parent's
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
with on_host(lambda: socket.create_connection(("127.0.0.1", kept.port))): pass
cluster.close()
""")


def test_a_forked_child_keeps_no_connection_open() -> None:
    child("""
import select
listening = socket.create_server(("127.0.0.1", 0))
cluster = Cluster(egress=f"localhost:{listening.getsockname()[1]}")
with cluster.add_pod("a").socket() as connection:
    connection.connect((cluster.host, listening.getsockname()[1]))
    accepted, _ = listening.accept()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        connection.close()
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    cluster.close()
    accepted.settimeout(20)
    try:
        assert accepted.recv(1) == b""
    except ConnectionResetError:
        pass
    os.close(write)
    os.waitpid(child, 0)
    accepted.close()
listening.close()
""")


def test_a_spawned_programs_network_is_the_one_it_was_started_in(pod: Pod) -> None:
    script = PRELUDE + "assert on_host(inode_of) == outside\nprint(outside)"
    assert pod.check_output([sys.executable, "-c", script]) == f"{pod.inode}\n"


# --- calls ------------------------------------------------------------------------------------------------


async def where() -> int:
    return inode_of()


def test_a_call_is_on_the_host_and_returns_what_it_did(pod: Pod) -> None:
    with pod:
        assert host.call(where) == host.HOST != pod.inode


def test_a_call_raises_what_it_did(pod: Pod) -> None:
    async def fail() -> None:
        raise ValueError("so it is")

    with pytest.raises(ValueError, match="so it is"):
        host.call(fail)


def test_a_call_has_no_context_of_its_callers(pod: Pod) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def look() -> str:
        return variable.get()

    variable.set("mine")
    assert host.call(look) == "none"


def test_calls_come_from_many_threads_at_once(cluster: Cluster) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(host.call(where))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [host.HOST] * 20


def test_a_call_that_is_interrupted_is_done_all_the_same(pod: Pod) -> None:
    done: list[int] = []

    async def slow() -> None:
        await asyncio.sleep(0.2)
        done.append(1)

    import signal

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            host.call(slow)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert done == [1]


def test_the_pods_of_a_child_are_reached_by_its_own_thread(pod: Pod) -> None:
    """The main thread of this session may have left or not; either way the child says so, and does not hang."""

    def use() -> None:
        from netwarren.errors import SteppingError

        started = time.monotonic()
        try:
            pod.publish(80).close()
        except SteppingError:
            pass
        assert time.monotonic() - started < 30

    in_child(use)
