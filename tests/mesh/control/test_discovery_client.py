"""Following a control plane on connections: ours, the grpc library's, and some that misbehave."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from netwarren.mesh.control import discovery_client
from netwarren.mesh.control.credentials import Credentials
from netwarren.mesh.control.discovery_client import DiscoveryClient, Source
from netwarren.mesh.control.endpoint import Endpoint
from netwarren.mesh.control.grpc_server import ServerConnection
from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION, DISCOVERY_PATH
from netwarren.mesh.control.server import HOSTS, ControlPlane
from netwarren.mesh.identity import tls
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.model import Policy, Workload
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.store import State
from netwarren.mesh.telemetry.expect import expect_record
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics
from tests.mesh.control.test_certificates import connect
from tests.mesh.identity.peers import SERVER


def mesh(*names: str) -> Config:
    workloads = [Workload(name, name, "default", (ip_address("10.0.0.1"),)) for name in names]
    return Config(tuple(workloads), (Policy("policy", "default", "Namespace", "Allow"),))


class Following:
    """A client that runs, and what it knows."""

    def __init__(self, authority: Authority, port: int, credentials: Credentials | None = None) -> None:
        self.state = State()
        self.log = Log("debug")
        self.metrics = Metrics()
        self.completed = asyncio.Event()
        endpoint = Endpoint.of("the plane", f"https://127.0.0.1:{port}", authority.roots_pem, connect)
        source = Source(endpoint, "ztunnel~1.1.1.1~z.ns~ns", {"NAME": "z"}, credentials or Credentials())
        client = DiscoveryClient(source, self._apply, self.metrics, self.log, self.completed.set)
        self._task = asyncio.create_task(client.run())

    def _apply(self, change: Callable[[State], None]) -> None:
        change(self.state)

    @property
    def names(self) -> list[str]:
        return sorted(each.name for each in self.state.workloads)

    def ended(self, reason: str) -> float:
        """How many streams have ended for that reason."""
        return self.metrics.xds_terminations.labels((reason,)).value

    async def logged(self, message: str, **fields: str | int) -> None:
        await expect_record(self.log, message, fields, seconds=20)

    async def told(self, start: str) -> str:
        """The first message that begins so."""
        found = await self.log.changes.wait_async(
            lambda: next((each for each in self.messages if each.startswith(start)), None), 20
        )
        assert found is not None, self.messages
        return found

    @property
    def messages(self) -> list[str]:
        return [each.message for each in self.log.records()]

    async def until(self, condition: Callable[[], object]) -> None:
        """Whatever changes is told of in the log afterwards."""
        assert await self.log.changes.wait_async(lambda: condition() or None, 20)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))


@pytest.fixture
def authority() -> Authority:
    return Authority()


class Plane:
    """Our control plane, which may be closed and served anew at its port."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.port = 0

    def serve(self, config: Config) -> ControlPlane:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self.now = ControlPlane(self._authority, listener, config)
        self.now.start()
        return self.now


@pytest.fixture
def plane(authority: Authority) -> Iterator[Plane]:
    made = Plane(authority)
    made.serve(mesh("a"))
    yield made
    made.now.close()


@pytest.fixture
async def following(authority: Authority, plane: Plane) -> AsyncIterator[Following]:
    made = Following(authority, plane.port)
    yield made
    await made.close()


async def test_it_knows_what_the_control_plane_knows_before_a_change_of_that_returns(
    plane: Plane, following: Following
) -> None:
    await asyncio.wait_for(following.completed.wait(), 20)
    assert following.names == ["a"]
    assert [each.name for each in following.state.policies] == ["policy"]
    loop = asyncio.get_running_loop()
    for names in (["a", "b"], ["b"], [f"workload-{number:04}" for number in range(3000)]):
        await loop.run_in_executor(None, plane.now.change, mesh(*names), 20.0)
        assert following.names == names
    await following.logged("received response", type_url=ADDRESS, size=3000, removes=1)
    assert following.metrics.xds_messages.labels((ADDRESS,)).value == 4
    assert following.metrics.xds_messages.labels((AUTHORIZATION,)).value == 1
    assert following.metrics.xds_message_bytes.labels((ADDRESS,)).value > 3000 * 30


async def test_it_comes_again_when_the_control_plane_does_and_learns_what_is_gone(
    plane: Plane, following: Following
) -> None:
    await asyncio.wait_for(following.completed.wait(), 20)
    plane.now.close()
    await following.told(
        "XDS client connection error: gRPC connection error connecting to https://127.0.0.1:"
    )
    assert following.names == ["a"]
    plane.serve(mesh("b"))
    await following.until(lambda: following.names == ["b"])
    assert following.ended("Reconnect") == 1
    assert following.ended("ConnectionError") >= 1


async def test_one_of_another_authority_is_not_believed(plane: Plane) -> None:
    following = Following(Authority(), plane.port)
    message = await following.told("XDS client connection error")
    assert "invalid peer certificate" in message
    assert message.endswith("retrying in 20ms")
    await following.close()
    assert following.names == []


async def test_the_time_between_attempts_grows(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_client, "LONGEST_WAIT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    following = Following(authority, port)
    await following.until(lambda: len(following.messages) > 3)
    await following.close()
    assert following.ended("ConnectionError") >= 4
    waits = [each.rpartition(" ")[2] for each in following.messages]
    assert waits[:4] == ["20ms", "40ms", "50ms", "50ms"]


# --- servers that misbehave -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(authority: Authority, say: list[bytes], silent: bool = False) -> AsyncIterator[int]:
    """A server that says the messages ``say`` on a stream of discovery, or takes calls and says nothing at all."""

    class Handler:
        def hear(self, message: bytes) -> None:
            pass

        def ended(self) -> None:
            pass

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def begin(send: Callable[[bytes], None]) -> Handler:
            for each in say:
                asyncio.get_running_loop().call_soon(send, each)
            return Handler()

        server = ServerConnection({}, {DISCOVERY_PATH: begin} if say or silent else {}, writer.write)
        heard = 0
        while data := await reader.read(1 << 16):
            heard += 1
            if not (silent and heard > 1):
                server.receive(data)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    context = tls.serving_context(authority.issue(SERVER, hosts=HOSTS))
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_one_that_has_no_such_service_is_asked_again_as_one_that_is_not_there(
    authority: Authority,
) -> None:
    async with served(authority, []) as port:
        following = Following(authority, port)
        assert f"there is no {DISCOVERY_PATH}" in await following.told("XDS client connection error")
        await following.close()


async def test_what_is_no_response_ends_the_stream_and_the_next_comes_later(authority: Authority) -> None:
    async with served(authority, [b"\xff"]) as port:
        following = Following(authority, port)
        assert "is no DeltaDiscoveryResponse" in await following.told("XDS client error")
        await following.close()
        assert following.ended("Error") >= 1
        assert following.ended("Reconnect") == 0


async def test_one_that_is_silent_is_asked_whether_it_is_there_and_given_up(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_client, "ALIVE_SECONDS", 0.1)
    async with served(authority, [], silent=True) as port:
        following = Following(authority, port)
        assert "the plane is silent" in await following.told("XDS client")
        await following.close()


async def test_one_that_does_not_answer_at_all_is_given_up(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_client, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        following = Following(authority, listener.getsockname()[1])
        assert "has not answered within 0.1 s" in await following.told("XDS client connection error")
        await following.close()


# --- the grpc library -------------------------------------------------------------------------------

_SERVER = '''
"""Serves discovery by the grpc library, on a port that it prints, and prints what it is asked."""
import sys
from concurrent import futures
import grpc
from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION, DISCOVERY_API, DISCOVERY_PATH
from netwarren.mesh.control.resources import resources_of
from netwarren.mesh.model import Workload
from netwarren.mesh.state.local_config import Config

request, response = (DISCOVERY_API[f"DeltaDiscovery{each}"] for each in ("Request", "Response"))
key, chain = (open(each, "rb").read() for each in sys.argv[1:])
resources = resources_of(Config((Workload("a", "a", "default"),)))
streams = []

def discover(requests, context):
    headers = dict(context.invocation_metadata())
    streams.append(context)
    print("from", headers.get("authorization"), headers.get("clusterid"), flush=True)
    for each in requests:
        if each.response_nonce:
            print("acknowledged", each.response_nonce, flush=True)
            if each.response_nonce == AUTHORIZATION:
                if len(streams) == 1:
                    return
                context.abort(grpc.StatusCode.INTERNAL, "enough")
            continue
        print("asked", each.type_url, each.node.id, *(known.key for known in each.initial_resource_versions), flush=True)
        answer = response(type_url=each.type_url, nonce=each.type_url)
        for name, found in resources[each.type_url].items():
            answer.resources.add(name=name).resource.value = found.message
        yield answer

path, _, method = DISCOVERY_PATH[1:].partition("/")
handler = grpc.stream_stream_rpc_method_handler(discover, request.FromString, response.SerializeToString)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(path, {method: handler}),))
port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, chain)]))
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None).wait()
'''


async def test_the_grpc_librarys_server_is_followed_and_may_end_a_stream_with_a_status(
    authority: Authority, tmp_path: Path
) -> None:
    pytest.importorskip("grpc")
    issued = authority.issue(SERVER, hosts=HOSTS)
    for name, text in (("key", issued.key), ("chain", issued.chain_pem)):
        (tmp_path / name).write_bytes(text)
    (tmp_path / "token").write_text("secret")
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SERVER, str(tmp_path / "key"), str(tmp_path / "chain")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    port = int(await program.stdout.readline())
    following = Following(authority, port, Credentials.told(str(tmp_path / "token"), "one"))
    assert "status 13: enough" in await following.told("XDS client error")
    assert following.names == ["a"]
    assert following.completed.is_set()
    assert (following.ended("Complete"), following.ended("Reconnect")) == (1, 0)
    asked = "asked {} ztunnel~1.1.1.1~z.ns~ns"
    for known in ("", " a"):
        lines = [(await program.stdout.readline()).decode().strip() for _ in range(5)]
        assert lines[0] == "from Bearer secret one"
        assert sorted(lines[1:]) == sorted(
            [asked.format(ADDRESS) + known, asked.format(AUTHORIZATION)]
            + [f"acknowledged {each}" for each in (ADDRESS, AUTHORIZATION)]
        )
    await following.close()
    program.stdin.close()
    await program.stdout.read()
    assert await program.wait() == 0
