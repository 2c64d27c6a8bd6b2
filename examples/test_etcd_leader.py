"""Three members of etcd elect a new leader when the leader's node disappears."""

import json
import os
import shutil
from pathlib import Path

import pytest

from netwarren import Cluster, Pod, ProgramError

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("etcd") and shutil.which("etcdctl")), reason="etcd and etcdctl are not installed"
    ),
    pytest.mark.cluster(nodes=["node-a", "node-b", "node-c"]),
]

MEMBERS = {"etcd-a": "node-a", "etcd-b": "node-b", "etcd-c": "node-c"}


def start(pod: Pod, data: Path) -> None:
    everyone = ",".join(f"{name}=http://{name}:2380" for name in MEMBERS)
    command = ["etcd", "--name", pod.name, "--data-dir", str(data)]
    command += [
        "--listen-peer-urls",
        f"http://{pod.ip}:2380",
        "--listen-client-urls",
        f"http://{pod.ip}:2379",
    ]
    command += ["--initial-advertise-peer-urls", f"http://{pod.name}:2380"]
    command += ["--advertise-client-urls", f"http://{pod.name}:2379", "--initial-cluster", everyone]
    pod.popen([*command, "--heartbeat-interval", "50", "--election-timeout", "500"])


class Client:
    """Somebody with etcdctl."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.members = list(MEMBERS)

    def ask(self, *words: str) -> str:
        """Ask each member in turn until one answers: in an election, none does for a moment."""
        refusals: list[ProgramError] = []
        for _ in range(20):
            for member in self.members:
                command = [
                    "etcdctl",
                    "--endpoints",
                    f"http://{member}:2379",
                    "--command-timeout",
                    "1s",
                    *words,
                ]
                try:
                    return self.pod.check_output(command, env={**os.environ, "ETCDCTL_API": "3"})
                except ProgramError as error:
                    refusals.append(error)
        raise refusals[-1]

    def leader(self) -> str:
        (status,) = json.loads(self.ask("endpoint", "status", "--write-out", "json"))
        members = json.loads(self.ask("member", "list", "--write-out", "json"))["members"]
        return str(next(each["name"] for each in members if each["ID"] == status["Status"]["leader"]))


def test_the_others_elect_a_leader_and_keep_what_was_written(cluster: Cluster, tmp_path: Path) -> None:
    pods = {name: cluster.add_pod(name, node=node) for name, node in MEMBERS.items()}
    for name, pod in pods.items():
        start(pod, tmp_path / name)
    client = Client(cluster.add_node("node-d").add_pod("client"))
    client.ask("put", "colour", "green")

    gone = client.leader()
    cluster.remove_node(MEMBERS[gone])
    client.members.remove(gone)

    client.ask("put", "shape", "round")
    assert client.leader() in client.members
    assert client.ask("get", "--print-value-only", "colour").strip() == "green"
    assert client.ask("get", "--print-value-only", "shape").strip() == "round"
