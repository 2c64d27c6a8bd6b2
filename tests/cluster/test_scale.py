"""Many at once of what is tested one by one elsewhere: connections through a service, names."""

import contextlib
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import dns.message

from netwarren import Cluster, Pod
from netwarren.topology.wellknown import NAME_SERVER


def serve_name(name: str):  # type: ignore[no-untyped-def]
    def serve(ready: object) -> None:
        with socket.create_server(("", 8080), backlog=512) as listener:
            ready()  # type: ignore[operator]
            while True:
                connection, _address = listener.accept()
                with connection, contextlib.suppress(ConnectionError):
                    connection.sendall(name.encode())

    return serve


def ask(host: str) -> str:
    with socket.create_connection((host, 80), timeout=20) as connection:
        return connection.recv(100).decode()


def test_a_thousand_connections_are_spread_over_ten_endpoints_as_chance_has_it(cluster: Cluster) -> None:
    names = [f"web-{number}" for number in range(10)]
    for number, name in enumerate(names):
        node = ("node-a", "node-b")[number % 2]
        cluster.add_pod(name, node, labels={"app": "web"}).start(serve_name(name))
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    with cluster.add_pod("client"):
        met = Counter(ask(service.ip) for _ in range(1000))
    # 100 each, with a deviation of 9.5; five of those to either side are left once in 200,000 runs.
    assert set(met) == set(names)
    assert all(52 <= count <= 148 for count in met.values()), met
    cluster.pod("web-3").remove()
    with cluster.pod("client"):
        assert "web-3" not in {ask(service.ip) for _ in range(200)}


def test_names_asked_for_by_many_pods_at_once_are_answered_right(cluster: Cluster) -> None:
    pods = [cluster.add_pod(f"pod-{number}", ("node-a", "node-b")[number % 2]) for number in range(20)]

    def ask_for_all(pod: Pod) -> int:
        right = 0
        with pod.socket(type=socket.SOCK_DGRAM) as asker:
            asker.settimeout(30)
            asker.connect((str(NAME_SERVER[4]), 53))
            for _ in range(5):
                for other in pods:
                    question = dns.message.make_query(f"{other.name}.default.svc.cluster.local", "A")
                    asker.send(question.to_wire())
                    answer = dns.message.from_wire(asker.recv(65535))
                    assert answer.id == question.id
                    right += [str(record) for each in answer.answer for record in each] == [other.ip]
        return right

    with ThreadPoolExecutor(20) as threads:
        assert sum(threads.map(ask_for_all, pods)) == 20 * 20 * 5
