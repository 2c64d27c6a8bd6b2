"""Ten thousand questions for names from fifty pods at once: how many a second, and how long one takes.

Prints one JSON object: the rate and the latency of questions by UDP, each of them for another pod's address; an
answer that is wrong ends it. What it takes depends on the machine; compare with a run of the same machine.
"""

import argparse
import json
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import dns.message

from netwarren import Cluster, Pod
from netwarren.topology.wellknown import NAME_SERVER

PODS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=200, help="questions from each pod")
    each_asks = parser.parse_args().each
    with Cluster() as cluster:
        pods = [cluster.add_pod(f"pod-{number}", ("node-a", "node-b")[number % 2]) for number in range(PODS)]
        expected = {pod.name: pod.ip for pod in pods}
        questions = {
            pod.name: dns.message.make_query(f"{pod.name}.default.svc.cluster.local", "A").to_wire()
            for pod in pods
        }

        def ask(pod: Pod) -> list[float]:
            took = []
            with pod.socket(type=socket.SOCK_DGRAM) as asker:
                asker.settimeout(30)
                asker.connect((str(NAME_SERVER[4]), 53))
                for number in range(each_asks):
                    name = pods[number % PODS].name
                    start = time.perf_counter()
                    asker.send(questions[name])
                    answer = asker.recv(65535)
                    took.append(time.perf_counter() - start)
                    assert socket.inet_aton(expected[name]) in answer
            return took

        ask(pods[0])  # what answers is loaded with the first question
        start = time.perf_counter()
        with ThreadPoolExecutor(PODS) as threads:
            took = sorted(each for one in threads.map(ask, pods) for each in one)
        seconds = time.perf_counter() - start
    found = {
        "pods": PODS,
        "questions": len(took),
        "per_second": round(len(took) / seconds, 1),
        "median_ms": round(statistics.median(took) * 1e3, 3),
        "p95_ms": round(took[len(took) * 95 // 100] * 1e3, 3),
        "most_ms": round(took[-1] * 1e3, 3),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
