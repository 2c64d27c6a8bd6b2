"""What a cluster says of itself to people: repr, picture, report; the report never makes things worse."""

import socket
import sys
import threading
from collections.abc import Callable

import pytest

from netwarren import Cluster
from netwarren.cluster import report as report_module
from netwarren.runtime.machine import Machine
from tests.cluster.traffic import listener


def test_repr_shows_what_a_thing_is_and_where(cluster: Cluster) -> None:
    pod = cluster.add_pod("client", "node-b")
    cluster.node("node-a").add_pod("a")
    assert repr(pod) == "<Pod client 10.0.1.2 on node-b>"
    assert repr(pod.node) == "<Node node-b 172.18.0.2, 1 pods>"
    assert repr(cluster.root) == f"<Root of {cluster.name}>"
    assert repr(cluster) == f"<Cluster {cluster.name}: 2 nodes, 2 pods>"


def test_repr_shows_that_a_thing_is_gone() -> None:
    with Cluster("c") as cluster:
        pod = cluster.add_pod("client", "node-a")
        node = pod.node
        pod.remove()
        assert repr(pod) == "<Pod client 10.0.1.2 on node-a, was removed>"
    assert repr(node) == "<Node node-a 172.18.0.2, 0 pods, is in a closed cluster>"
    assert repr(cluster) == "<Cluster c: closed>"
    assert repr(cluster.root) == "<Root of c, is in a closed cluster>"


def test_the_picture_shows_everything_there_is_and_its_addresses() -> None:
    with Cluster("shop", families="dual") as cluster:
        cluster.add_pod("web", "node-a")
        cluster.add_pod("db", "node-a")
        cluster.add_pod("user", "node-b")
        assert cluster.describe().splitlines() == [
            "cluster shop",
            "└─ root  br0 172.18.0.1/16 fd00:172:18::1/64",
            "   ├─ node-a  eth0 172.18.0.2 fd00:172:18::2  pods 10.0.1.0/24 fd00:10:0:1::/64",
            "   │  ├─ web  eth0 10.0.1.2 fd00:10:0:1::2",
            "   │  └─ db  eth0 10.0.1.3 fd00:10:0:1::3",
            "   └─ node-b  eth0 172.18.0.3 fd00:172:18::3  pods 10.0.2.0/24 fd00:10:0:2::/64",
            "      └─ user  eth0 10.0.2.2 fd00:10:0:2::2",
        ]


def section(report: str, label: str) -> list[str]:
    """The lines about one machine."""
    lines = report.splitlines()
    start = lines.index(f"{label}:") + 1
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith("  ")), len(lines))
    return [line.strip() for line in lines[start:end]]


def test_the_report_has_the_picture_and_how_to_step_in(cluster: Cluster) -> None:
    cluster.add_pod("web")
    report = cluster.report()
    assert report.startswith(cluster.describe())
    assert f"{cluster.step_in_command()}\n" in report


def test_the_report_shows_links_addresses_and_routes_of_each_machine(cluster: Cluster) -> None:
    cluster.add_pod("web", "node-a")
    report = cluster.report()
    assert section(report, "pod 'web'")[:3] == [
        "lo         up    127.0.0.1/8 ::1/128",
        "eth0       up    10.0.1.2/24",
        "route default via 10.0.1.1 dev eth0",
    ]
    assert "route unreachable 10.0.1.0/24" in section(report, "node 'node-a'")
    assert "br0        up    172.18.0.1/16" in section(report, "the root")


def test_the_report_shows_who_listens(cluster: Cluster) -> None:
    pod = cluster.add_pod("web")
    with listener(pod, pod.ip, 8080), pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("0.0.0.0", 53))
        found = section(cluster.report(), "pod 'web'")
    assert "listens tcp 10.0.1.2:8080 listen" in found
    assert "listens udp 0.0.0.0:53 unconnected" in found


def test_the_report_shows_what_runs_in_the_background(cluster: Cluster) -> None:
    def serve(ready: Callable[[], None], stop: threading.Event) -> None:
        ready()
        stop.wait(30)

    cluster.add_pod("web").start(serve)
    assert "background serve: running" in section(cluster.report(), "pod 'web'")


def test_the_report_shows_the_end_of_what_programs_wrote(cluster: Cluster) -> None:
    pod = cluster.add_pod("web")
    program = pod.popen([sys.executable, "-c", "for n in range(100): print('line', n)"])
    program.wait(30)
    found = section(cluster.report(), "pod 'web'")
    written = [line for line in found if line.startswith("|")]
    assert written[0] == "| ... 60 lines before these"
    assert written[1:] == [f"| line {number}" for number in range(60, 100)]
    assert any(line.startswith("program ") and f"(pid {program.pid})" in line for line in found)


def test_the_report_of_a_large_cluster_says_what_it_leaves_out() -> None:
    with Cluster(nodes=("one",)) as cluster:
        for number in range(45):
            cluster.add_pod(f"pod-{number}")
        report = cluster.report()
    assert "pod-44" in report
    assert report.splitlines()[-1] == "... and 7 more members, not shown"


def test_what_cannot_be_read_is_said_in_its_place(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, whole = cluster.add_pod("broken"), cluster.add_pod("whole")
    read = report_module._network

    def fail(machine: Machine) -> list[str]:
        if machine is broken:
            raise RuntimeError("half of it is gone")
        return read(machine)

    monkeypatch.setattr(report_module, "_network", fail)
    report = cluster.report()
    assert "cannot be read: RuntimeError('half of it is gone')" in report
    assert "eth0" in section(report, whole.label)[1]


def test_the_report_of_a_cluster_that_is_being_changed_does_not_fail(cluster: Cluster) -> None:
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            cluster.add_pod("comes", "node-a").remove()
            cluster.remove_node("node-a")
            cluster.add_node("node-a")

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            assert cluster.report().startswith(f"cluster {cluster.name}\n")
    finally:
        stop.set()
        thread.join()


def test_a_closed_cluster_still_reports() -> None:
    with Cluster("gone") as cluster:
        cluster.add_pod("web")
    assert cluster.report().startswith("cluster gone\n")
    assert "web  eth0 10.0.1.2" in cluster.describe()
