"""Large clusters, and many one after the other: bounded in time, descriptors, threads and memory."""

import gc
import os
import random
import subprocess
import sys
import textwrap
import threading

import pytest

from netwarren import Cluster
from netwarren.cluster import roots
from netwarren.runtime import ferry
from netwarren.sandbox import names
from tests.cluster.readback import inside
from tests.cluster.traffic import reaches
from tests.kept import let_go


def test_sixty_nodes_of_five_pods_all_reach_each_other() -> None:
    with Cluster(nodes=[f"node-{number}" for number in range(60)]) as cluster:
        for node in cluster.nodes.values():
            for number in range(5):
                node.add_pod(f"{node.name}-{number}")
        pods = list(cluster.pods.values())
        assert len({pod.ip for pod in pods}) == 300
        choice = random.Random(1)
        for _ in range(100):
            near, far = choice.sample(pods, 2)
            assert reaches(near, far, far.ip), (near, far)
        routes = [route for route in inside(pods[0].node).routes if route.via is not None]
        assert len(routes) == 60


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def one_cluster() -> None:
    with Cluster("a-hundred-clusters") as cluster:
        a, b = cluster.add_pod("a", "node-a"), cluster.add_pod("b", "node-b")
        with a:
            pass
        a.run(lambda: None)
        reaches(a, b, b.ip)
        b.remove()


def held() -> tuple[int, int, list[str]]:
    """Descriptors, threads, and names of this test's clusters; without what waits to be used again."""
    let_go()
    gc.collect()
    own = [name for name in os.listdir(names.directory()) if "a-hundred-clusters" in name]
    return open_files(), threading.active_count(), own


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.usefixtures("nothing_kept")
def test_a_hundred_clusters_leave_no_descriptor_thread_name_or_memory() -> None:
    for _ in range(10):
        one_cluster()
    before = held()
    memory = resident()
    for _ in range(100):
        one_cluster()
    assert held() == before
    assert resident() - memory < 16 << 20


@pytest.mark.usefixtures("nothing_kept")
def test_what_waits_to_be_used_again_is_bounded() -> None:
    Cluster().close()
    let_go()
    before = open_files()  # with those of the name server's thread
    clusters = [Cluster() for _ in range(roots.MOST_WAITING + 10)]
    for cluster in clusters:
        cluster.close()
    ferry.catch_up()
    # A namespace, its netlink socket and its name server's two; one root may have been in the ferry's hands.
    assert abs(open_files() - before - 4 * roots.MOST_WAITING) <= 4
    let_go()
    assert open_files() == before


@pytest.mark.usefixtures("nothing_kept")
def test_pods_that_come_and_go_leave_nothing_in_a_cluster_that_stays() -> None:
    with Cluster() as cluster:
        cluster.add_pod("stays").remove()
        before, memory = open_files(), resident()
        for _ in range(300):
            cluster.add_pod("comes").remove()
        gc.collect()
        assert open_files() == before
        assert resident() - memory < 16 << 20
        assert len(inside(cluster.node("node-a")).links) == 2


# --- descriptors: in a process of its own, whose limit is lowered -----------------------------------


def with_limit(soft: int, hard: int, code: str) -> str:
    """Run code in a fresh interpreter that may have ``soft`` descriptors, and ``hard`` if it asks."""
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    program += "limit = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n"
    program += "from netwarren import *\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_low_soft_limit_of_descriptors_is_raised_when_a_cluster_needs_more() -> None:
    code = """
        with Cluster(nodes=("one",)) as cluster:
            for number in range(120):
                pod = cluster.add_pod(f"pod-{number}")
            print(len(cluster.pods), limit() >= 240)
    """
    assert with_limit(64, 4096, code) == "120 True\n"


def test_a_soft_limit_that_is_high_enough_stays_as_it_was() -> None:
    code = """
        with Cluster() as cluster:
            for number in range(20):
                cluster.add_pod(f"pod-{number}")
            print(limit())
    """
    assert with_limit(1024, 4096, code) == "1024\n"


def test_descriptors_the_user_has_taken_are_made_up_for() -> None:
    code = """
        import os
        with Cluster() as cluster:
            cluster.node("node-a")
            taken = []
            try:
                while True:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            print(cluster.add_pod("web").ip, limit())
    """
    assert with_limit(64, 4096, code) in ("10.0.1.2 128\n", "10.0.1.2 256\n")


@pytest.mark.parametrize("limit", range(64, 68))  # which of a pod's descriptors is refused depends on it
def test_at_the_hard_limit_an_error_names_it_and_the_cluster_goes_on(limit: int) -> None:
    code = """
        with Cluster() as cluster:
            first = cluster.add_pod("first")
            try:
                for number in range(100):
                    cluster.add_pod(f"pod-{number}")
            except KernelError as error:
                print(type(error).__name__, "EMFILE" in str(error), f"all the {limit()} files" in str(error))
                print("`ulimit -Hn`" in str(error))
            count = len(cluster.pods)
            for number in range(5):
                cluster.remove_pod(f"pod-{number}")
            print(cluster.add_pod("again").run(lambda: "works"), 25 < count < limit())
    """
    assert with_limit(limit, limit, code) == "KernelError True True\nTrue\nworks True\n"


def test_what_is_kept_for_later_goes_before_a_pod_is_refused() -> None:
    fill = """
            with Cluster() as cluster:
                try:
                    while True:
                        cluster.add_pod(f"pod-{len(cluster.pods)}")
                except KernelError:
                    print(len(cluster.pods))
    """
    before = """
            clusters = [Cluster() for _ in range(4)]
            for number, cluster in enumerate(clusters):
                cluster.add_pod("a").remove()
                cluster.close()
    """
    fresh, after = (
        int(with_limit(96, 96, textwrap.dedent(code) + textwrap.dedent(fill))) for code in ("", before)
    )
    assert fresh > 60
    assert after >= fresh - 3  # what waits takes some twenty; the ferry may have one for a moment


def test_pods_are_removed_and_the_cluster_closed_where_the_user_has_taken_every_descriptor() -> None:
    code = """
        import os
        taken = []
        def take_all():
            try:
                while True:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
        with Cluster() as cluster:
            for number in range(6):
                cluster.add_pod(f"pod-{number}")
            program = cluster.pods["pod-1"].popen(["sleep", "100"])
            for number in range(3):
                take_all()
                cluster.remove_pod(f"pod-{number}")
            print(program.poll() is not None, list(cluster.pods))
            take_all()
        print("closed")
    """
    assert with_limit(128, 128, code) == "True ['pod-3', 'pod-4', 'pod-5']\nclosed\n"
