"""Ten thousand questions for names from fifty pods at once: how many a second, and how long one takes.

Prints the rate and the latency of questions by UDP, each of them for another pod's address, and that none was
answered wrong. What it takes depends on the machine; compare with a run of the same machine.
"""

import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import dns.message

from netwarren import Cluster, Pod
from netwarren.topology.wellknown import NAME_SERVER

PODS = 50
EACH = 200


def main() -> None:
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
                for number in range(EACH):
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
    print(f"{len(took)} questions from {PODS} pods, all answered right: {len(took) / seconds:.0f} a second")
    print(
        f"one took {statistics.median(took) * 1e3:.1f} ms in the median, {took[len(took) * 95 // 100] * 1e3:.1f} ms "
        f"at p95, {took[-1] * 1e3:.1f} ms at most, with {PODS} asking at once"
    )


if __name__ == "__main__":
    main()
