"""Delta xDS as a ztunnel speaks it, message by message; and by the grpc library, on a connection."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.control.discovery import Discovery, Subscriber
from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION, DISCOVERY_API
from netwarren.mesh.control.resources import resources_of
from netwarren.mesh.control.server import ControlPlane
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.model import Policy, Workload
from netwarren.mesh.state.local_config import Config
from tests.mesh.control.subscriber import SUBSCRIBER

_REQUEST = DISCOVERY_API["DeltaDiscoveryRequest"]
_RESPONSE = DISCOVERY_API["DeltaDiscoveryResponse"]


def mesh(*names: str, policies: Sequence[str] = (), node: str = "node-a") -> Config:
    workloads = [Workload(name, name, "default", (ip_address("10.0.0.1"),), node=node) for name in names]
    return Config(tuple(workloads), tuple(Policy(name, "default", "Namespace", "Deny") for name in policies))


class Client:
    """A ztunnel's end of a stream."""

    def __init__(self, discovery: Discovery) -> None:
        self.responses: list[Any] = []
        self.stream: Subscriber = discovery.subscribe(self._hear)

    def _hear(self, data: bytes) -> None:
        response = _RESPONSE()
        response.ParseFromString(data)
        self.responses.append(response)

    def ask(self, url: str = ADDRESS, nonce: str = "", error: str = "", **known: str) -> None:
        request = _REQUEST(type_url=url, response_nonce=nonce)
        for name, version in known.items():
            request.initial_resource_versions.add(key=name, value=version)
        if error:
            request.error_detail.message = error
        self.stream.hear(request.SerializeToString())

    def answer(self, error: str = "") -> None:
        """To the last response."""
        self.ask(self.responses[-1].type_url, self.responses[-1].nonce, error)

    def last(self) -> tuple[list[str], list[str]]:
        """The names of what was sent last, and of what is gone."""
        response = self.responses[-1]
        return sorted(each.name for each in response.resources), sorted(response.removed_resources)


def test_who_subscribes_is_sent_all_there_is() -> None:
    client = Client(Discovery(resources_of(mesh("a", "b", policies=["p"]))))
    client.ask()
    assert client.last() == (["a", "b"], [])
    (first, _) = client.responses[-1].resources
    assert first.resource.type_url == client.responses[-1].type_url == ADDRESS
    assert first.resource.value
    assert list(first.aliases) == ["/10.0.0.1"]
    client.ask(AUTHORIZATION)
    assert client.last() == (["default/p"], [])


def test_where_there_is_nothing_that_is_said_too() -> None:
    client = Client(Discovery(resources_of(mesh())))
    client.ask()
    client.ask(AUTHORIZATION)
    assert [(each.type_url, len(each.resources)) for each in client.responses] == [
        (ADDRESS, 0),
        (AUTHORIZATION, 0),
    ]


def test_of_a_change_only_the_difference_is_sent() -> None:
    found = Discovery(resources_of(mesh("a", "b")))
    client = Client(found)
    client.ask()
    client.answer()
    found.change(resources_of(mesh("b", "c")))
    assert client.last() == (["c"], ["a"])
    client.answer()
    found.change(resources_of(mesh("b", "c")))
    assert len(client.responses) == 2
    found.change(resources_of(mesh("b", "c", node="node-b")))
    assert client.last() == (["b", "c"], [])


def test_the_next_response_waits_for_the_acknowledgement_of_the_last() -> None:
    settled: list[bool] = []
    found = Discovery(resources_of(mesh("a")), lambda: settled.append(found.settled))
    client = Client(found)
    client.ask()
    found.change(resources_of(mesh("a", "b")))
    found.change(resources_of(mesh("a", "b", "c")))
    assert len(client.responses) == 1
    assert not found.settled
    client.ask(nonce="another")
    assert len(client.responses) == 1
    client.answer()
    assert client.last() == (["b", "c"], [])
    client.answer()
    assert settled == [False, True]


def test_who_comes_again_is_sent_what_it_does_not_know() -> None:
    found = Discovery(resources_of(mesh("a", "b")))
    before = Client(found)
    before.ask()
    versions = {each.name: each.version for each in before.responses[-1].resources}
    before.stream.ended()
    again = Client(found)
    again.ask(ADDRESS, "", "", a=versions["a"], b="old", gone="1")
    assert again.last() == (["b"], ["gone"])


def test_a_refusal_is_kept_with_its_reason_and_the_stream_goes_on() -> None:
    found = Discovery(resources_of(mesh("a")))
    client = Client(found)
    client.ask()
    client.answer("bad workload")
    assert found.refusals == ["bad workload"]
    assert found.settled
    found.change(resources_of(mesh("a", "b")))
    assert client.last() == (["b"], [])


def test_other_types_are_not_answered_and_what_is_no_request_is_an_error() -> None:
    client = Client(Discovery(resources_of(mesh("a"))))
    client.ask("type.googleapis.com/envoy.config.cluster.v3.Cluster")
    assert client.responses == []
    with pytest.raises(MeshError, match="no DeltaDiscoveryRequest"):
        client.stream.hear(b"\xff")


# --- on a connection --------------------------------------------------------------------------------


@pytest.fixture
def plane() -> Iterator[tuple[ControlPlane, int, bytes]]:
    authority = Authority()
    listener = socket.create_server(("127.0.0.1", 0))
    served = ControlPlane(authority, listener, mesh("a"))
    served.start()
    yield served, listener.getsockname()[1], authority.roots_pem
    served.close()


def subscriber(tmp_path: Path, port: int, roots: bytes, options: str = "") -> "subprocess.Popen[str]":
    """A client that has subscribed to both types."""
    pytest.importorskip("grpc")
    path = tmp_path / "roots.pem"
    path.write_bytes(roots)
    text = f"{SUBSCRIBER}\nfollow('localhost:{port}', {str(path)!r}{options})"
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


def lines(client: "subprocess.Popen[str]", last: str) -> list[str]:
    """What it prints, to a line."""
    assert client.stdout is not None
    found: list[str] = []
    while not found or found[-1] != last:
        line = client.stdout.readline()
        assert line, found
        found.append(line.strip())
    return found


def test_the_grpc_library_is_told_of_every_change_before_the_call_returns(
    plane: tuple[ControlPlane, int, bytes], tmp_path: Path
) -> None:
    served, port, roots = plane
    with subscriber(tmp_path, port, roots) as client:
        assert lines(client, "subscribed") == ["+ a", "subscribed"]
        served.change(mesh("b", policies=["p"]), 20.0)
        assert sorted(lines(client, "+ default/p")) == ["+ b", "+ default/p", "- a"]
        many = [f"workload-{number}" for number in range(2000)]
        served.change(mesh(*many, policies=["p"]), 20.0)
        assert len(lines(client, "- b")) == 2001
        served.close()
        assert lines(client, "ended UNAVAILABLE")[-1:] == ["ended UNAVAILABLE"]


def test_one_that_does_not_acknowledge_is_one_error(
    plane: tuple[ControlPlane, int, bytes], tmp_path: Path
) -> None:
    served, port, roots = plane
    with subscriber(tmp_path, port, roots, ", acknowledge=False") as client:
        lines(client, "subscribed")
        with pytest.raises(MeshError, match=r"not acknowledged them within 0\.2 s"):
            served.change(mesh("b"), 0.2)
        waiting = threading.Thread(target=lambda: served.change(mesh("c"), 20.0))
        waiting.start()
        client.kill()
        waiting.join(20)
        assert not waiting.is_alive()


def test_one_that_refuses_is_one_error_with_its_reason(
    plane: tuple[ControlPlane, int, bytes], tmp_path: Path
) -> None:
    served, port, roots = plane
    with subscriber(tmp_path, port, roots, ", error='bad workload'") as client:
        lines(client, "subscribed")
        with pytest.raises(MeshError, match="does not take all of them: bad workload"):
            served.change(mesh("b"), 20.0)
        client.kill()


def test_without_subscribers_a_change_is_known_at_once(plane: tuple[ControlPlane, int, bytes]) -> None:
    served, _, _ = plane
    served.change(mesh("b"), 20.0)
    served.close()
    served.change(mesh("c"), 20.0)
