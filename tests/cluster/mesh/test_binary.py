"""Other ztunnel programs as node proxies: our own, run as one, and some that are none."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from netwarren import Cluster, Pod
from netwarren.cluster import mesh as mesh_module
from netwarren.cluster import ztunnel_program
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.errors import MeshError, ProgramError
from netwarren.mesh.inpod.listener import private_run
from netwarren.mesh.model import Match, Policy, StringMatch
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh.conftest import double, ended, talk, until_refused
from tests.cluster.mesh.test_pages import get
from tests.mesh.control.subscriber import SUBSCRIBER

OURS = [sys.executable, "-m", "netwarren.mesh"]
IDENTITY = "spiffe://cluster.local/ns/default/sa/{}"
COMPLETE = "connection complete"
CLIENT = StringMatch("Exact", "cluster.local/ns/default/sa/client")


def deploy(cluster: Cluster, node: str = "node-a", **options: object) -> NodeProxy:
    """Our own, in a process of its own; it may take a while to import where others test, too."""
    return cluster.deploy_ztunnel_sync(node, binary=OURS, ready_timeout=60.0, **options)


def script(tmp_path: Path, text: str) -> list[str]:
    """A program of Python's."""
    path = tmp_path / "ztunnel.py"
    path.write_text(text)
    return [sys.executable, str(path)]


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_a_program_carries_its_nodes_pods_and_speaks_hbone_with_our_proxy_of_another_node(
    families: str,
) -> None:
    with Cluster(families=families) as cluster:
        deploy(cluster)
        ours = cluster.deploy_ztunnel_sync("node-b")
        here, there = cluster.add_pod("here", "node-a"), cluster.add_pod("there", "node-b")
        for pod in (here, there):
            pod.start(double(family=socket.AF_INET6 if families == "ipv6" else socket.AF_INET))
        assert talk(here, there.ip) == (here.ip, b"hellohello")
        inbound = expect_record_sync(ours.log, COMPLETE, {"direction": "inbound"})
        assert inbound.fields["src.identity"] == IDENTITY.format("here")
        assert talk(there, here.ip) == (there.ip, b"hellohello")
        outbound = expect_record_sync(ours.log, COMPLETE, {"direction": "outbound"})
        assert outbound.fields["dst.identity"] == IDENTITY.format("here")


def test_two_programs_speak_with_each_other(cluster: Cluster) -> None:
    proxies = [deploy(cluster, node) for node in ("node-a", "node-b")]
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-b")
    server.start(double())
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    for proxy in proxies:
        assert proxy.program is not None
        proxy.program.wait_for_output(rf'{COMPLETE}.*src.identity="{IDENTITY.format("client")}"')


@pytest.mark.parametrize("by", ["its control plane", "its file"])
def test_what_changes_is_known_to_it_before_the_call_returns(cluster: Cluster, by: str) -> None:
    binary = OURS if by == "its control plane" else ["env", "XDS_ADDRESS=", *OURS]
    proxy = cluster.deploy_ztunnel_sync("node-a", binary=binary, ready_timeout=60.0)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    for _ in range(2):
        rules = (((Match(principals=(CLIENT,)),),),)
        cluster.mesh.add_policy(Policy("closed", "default", "Namespace", "Deny", rules=rules))
        assert ended(client, server.ip, 8080)
        cluster.mesh.remove_policy("default", "closed")
        assert talk(client, server.ip) == (client.ip, b"hellohello")
    service = cluster.add_service("web", pods=[server], ports={80: 8080})
    assert talk(client, service.ip, 80) == (client.ip, b"hellohello")
    assert proxy.program is not None
    heard = "xds::client:xds{id=1}\treceived response" in proxy.program.output
    assert heard == (by == "its control plane")
    _, _, metrics = cluster.root.run(lambda: get(f"http://{proxy.pod.ip}:15020/metrics"))
    url = "type.googleapis.com/istio.security.Authorization"
    assert (
        f'istio_xds_message_total{{url="{url}"}} 5\n'.encode() in metrics
    ) == heard  # the first, and four changes


def test_it_is_told_anew_of_a_pod_whose_service_account_changes(cluster: Cluster) -> None:
    proxy = deploy(cluster)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    for pod in (server, client):
        cluster.mesh.update(pod, service_account="robot")
    assert talk(client, server.ip) == (client.ip, b"hellohello")
    assert proxy.program is not None
    proxy.program.wait_for_output(rf'{COMPLETE}.*src.identity="{IDENTITY.format("robot")}"')


def test_a_policy_cuts_connections_that_are_open(cluster: Cluster) -> None:
    deploy(cluster)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        rules = (((Match(destination_ports=(8080,)),),),)
        cluster.mesh.add_policy(Policy("closed", "default", "Namespace", "Deny", rules=rules))
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_a_policy_of_its_file_is_for_connections_to_come(cluster: Cluster) -> None:
    cluster.deploy_ztunnel_sync("node-a", binary=["env", "XDS_ADDRESS=", *OURS], ready_timeout=60.0)
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        rules = (((Match(destination_ports=(8080,)),),),)
        cluster.mesh.add_policy(Policy("closed", "default", "Namespace", "Deny", rules=rules))
        assert ended(client, server.ip, 8080)
        connection.sendall(b"x")
        assert connection.recv(2, socket.MSG_WAITALL) == b"xx"


def test_its_certificates_are_of_the_clusters_authority(cluster: Cluster) -> None:
    proxy = deploy(cluster, certificate_lifetime=3600.0)
    cluster.add_pod("web", "node-a")
    server = cluster.add_pod("server", "node-a")
    server.start(double())
    talk(cluster.pod("web"), server.ip)
    _, _, body = proxy.pod.run(lambda: get("http://127.0.0.1:15000/config_dump"))
    found = {each["identity"]: each for each in json.loads(body)["certificates"]}
    assert found[IDENTITY.format("server")]["state"] == "Available"
    (root,) = found[IDENTITY.format("server")]["rootCerts"]
    from netwarren.mesh.identity.certificate import facts

    assert root["serialNumber"] == str(facts(cluster.mesh.authority.certificate).serial)


def test_an_identity_that_the_authority_refuses_has_no_connection(cluster: Cluster) -> None:
    from netwarren.mesh.model import Identity

    deploy(cluster)
    cluster.mesh.authority.refuse(Identity("cluster.local", "default", "client"), "forgotten")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    assert ended(client, server.ip, 8080)
    proxy = cluster.mesh.proxies["node-a"]
    assert proxy.program is not None
    proxy.program.wait_for_output(r"no certificate for .*/sa/client.*refuses.*forgotten")


def test_its_pages_are_read_over_http_and_not_as_objects(cluster: Cluster) -> None:
    proxy = deploy(cluster, log_format="json")
    assert proxy.ready
    assert proxy.running
    assert repr(proxy) == "<NodeProxy on node-a: ready>"
    status, _, body = cluster.root.run(lambda: get(f"http://{proxy.pod.ip}:15020/metrics"))
    assert status == 200
    assert b"istio_build{" in body
    for what in ("metrics", "log"):
        with pytest.raises(MeshError, match=r":15020/metrics.*program\.output"):
            getattr(proxy, what)


def test_a_pod_that_it_cannot_carry_is_refused_and_is_not_there(cluster: Cluster) -> None:
    from ipaddress import ip_address

    from netwarren.mesh.inpod.agent import NodeAgent
    from netwarren.mesh.inpod.sockets import PodSockets
    from netwarren.mesh.inpod.zds import WorkloadInfo
    from netwarren.mesh.model import SocketAddress

    deploy(cluster)
    add, taken = NodeAgent.begin_addition, []

    def take_first(agent: NodeAgent, uid: str, info: WorkloadInfo, netns: int) -> Callable[[], None]:
        with PodSockets(netns, reuse_port=False) as sockets:
            taken.append(sockets.listen(SocketAddress(ip_address("0.0.0.0"), 15008)))
        return add(agent, uid, info, netns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NodeAgent, "begin_addition", take_first)
        with pytest.raises(MeshError, match=r"start proxy.*15008"):
            cluster.add_pod("web", "node-a")
    taken[0].close()
    assert "web" not in cluster.pods
    assert cluster.mesh.carried(cluster.add_pod("web", "node-a"))


def test_one_dedicated_to_a_pod_lives_in_it(cluster: Cluster) -> None:
    ours = cluster.deploy_ztunnel_sync("node-b")
    far = cluster.add_pod("far", "node-b")
    pod = cluster.add_pod("web", "node-a")
    own = cluster.deploy_ztunnel_sync(pod, mode="dedicated", binary=OURS, ready_timeout=60.0)
    for each in (far, pod):
        each.start(double())
    assert talk(pod, far.ip) == (pod.ip, b"hellohello")
    inbound = expect_record_sync(ours.log, COMPLETE, {"direction": "inbound"})
    assert inbound.fields["src.identity"] == IDENTITY.format("web")
    assert talk(far, pod.ip) == (pod.ip, b"hellohello")
    own.shut_down()
    with pytest.raises(ConnectionRefusedError):
        talk(pod, far.ip)


# --- the end ----------------------------------------------------------------------------------------


def _wait_for_the_end(host: str) -> Callable[[Callable[[object], None]], bytes]:
    def wait(ready: Callable[[object], None]) -> bytes:
        with socket.create_connection((host, 8080), timeout=60) as connection:
            said = connection.recv(100)
            ready(None)
            with contextlib.suppress(ConnectionResetError):
                said += connection.recv(100)
            return said

    return wait


def _pair(cluster: Cluster) -> tuple[Pod, Pod]:
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    return server, client


def test_sigterm_cuts_what_has_not_ended_by_the_deadline_and_its_status_is_0(cluster: Cluster) -> None:
    proxy = deploy(cluster, drain_deadline=0.2)
    server, client = _pair(cluster)
    waiting = client.start(_wait_for_the_end(server.ip))
    proxy.shut_down()
    assert waiting.result(20) == f"{client.ip}\n".encode()
    assert proxy.program is not None
    assert proxy.program.returncode == 0
    assert 'error="connection closed due to connection drain"' in proxy.program.output
    assert not proxy.running
    assert not proxy.ready


def test_sigterm_gives_connections_time_to_end(cluster: Cluster) -> None:
    proxy = deploy(cluster, drain_deadline=60.0)
    server, client = _pair(cluster)
    assert proxy.program is not None
    with client, socket.create_connection((server.ip, 8080), timeout=20) as connection:
        assert connection.recv(100)
        proxy.program.terminate()
        with client:
            until_refused(server.ip, 9)  # the proxy listens no more: redirected to nobody
        connection.sendall(b"x")
        assert connection.recv(2, socket.MSG_WAITALL) == b"xx"
    assert proxy.program.wait(20) == 0


def test_asked_to_quit_it_ends(cluster: Cluster) -> None:
    proxy = deploy(cluster)
    proxy.pod.run(lambda: get("http://127.0.0.1:15000/quitquitquit", "POST"))
    assert proxy.program is not None
    assert proxy.program.wait(20) == 0


def test_it_goes_with_its_pod_and_another_may_come(cluster: Cluster) -> None:
    before = _left()
    proxy = deploy(cluster)
    program = proxy.program
    assert program is not None
    proxy.pod.remove()
    assert program.returncode is not None
    assert cluster.mesh.proxies == {}
    assert _left() == before
    assert cluster.deploy_ztunnel_sync("node-a").ready
    server, client = _pair(cluster)
    assert talk(client, server.ip) == (client.ip, b"hellohello")


def test_a_pod_for_one_that_has_ended_is_refused(cluster: Cluster) -> None:
    proxy = deploy(cluster)
    assert proxy.program is not None
    proxy.program.send_signal(signal.SIGKILL)
    proxy.program.wait(20)
    with pytest.raises(MeshError, match=r"has ended.*ztunnel-node-a"):
        cluster.add_pod("late", "node-a")
    assert "late" not in cluster.pods
    cluster.add_pod("elsewhere", "node-b")


def test_one_that_ends_and_nobody_expected_that_is_told_at_the_clusters_end() -> None:
    before = _left()
    cluster = Cluster()
    proxy = deploy(cluster)
    assert proxy.program is not None
    os.kill(proxy.program.pid, signal.SIGKILL)
    os.waitid(os.P_PID, proxy.program.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(
        ProgramError, match=r"netwarren\.mesh.*was killed by SIGKILL and nobody expected that"
    ):
        cluster.close()
    assert _left() == before


def test_a_dedicated_one_that_has_ended_makes_room_for_another(cluster: Cluster) -> None:
    before = _left()
    pod = cluster.add_pod("web", "node-a")
    first = cluster.deploy_ztunnel_sync(pod, mode="dedicated", binary=OURS, ready_timeout=60.0)
    assert first.program is not None
    first.program.stop()
    assert cluster.deploy_ztunnel_sync(pod, mode="dedicated").ready
    assert _left() == before


async def test_the_loop_goes_on_while_it_is_deployed(cluster: Cluster) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    counting = asyncio.create_task(count())
    proxy = await cluster.deploy_ztunnel("node-a", binary=OURS, ready_timeout=60.0)
    counting.cancel()
    assert proxy.ready
    assert turns > 5


# --- what follows no file ---------------------------------------------------------------------------

_READS_ONCE = """
import os
from netwarren.mesh import program
os.environ["XDS_ADDRESS"] = ""
ours = program.Ztunnel
program.Ztunnel = lambda *words, follows, **options: ours(*words, **options)
program.LocalFile.changed = lambda file: False
program.main()
"""


def test_one_that_reads_its_file_once_is_not_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    server = cluster.add_pod("server", "node-b")
    server.start(double())
    proxy = cluster.deploy_ztunnel_sync("node-a", binary=script(tmp_path, _READS_ONCE), ready_timeout=60.0)
    cluster.mesh.add_policy(Policy("policy", "default", "Namespace", "Allow"))
    _, _, body = proxy.pod.run(lambda: get("http://127.0.0.1:15000/config_dump"))
    assert [each["name"] for each in json.loads(body)["workloads"]] == ["server", "ztunnel-node-a"]
    assert json.loads(body)["policies"] == []


_SUBSCRIBES = f"""
import os, threading
{SUBSCRIBER}
address, roots = os.environ["XDS_ADDRESS"].removeprefix("https://"), os.environ["XDS_ROOT_CA"]
threading.Thread(target=follow, args=(address, roots), daemon=True).start()
{_READS_ONCE}
"""


def test_one_that_subscribes_to_the_mesh_has_acknowledged_what_changes_before_the_call_returns(
    cluster: Cluster, tmp_path: Path
) -> None:
    pytest.importorskip("grpc")
    binary = script(tmp_path, _SUBSCRIBES)
    proxy = cluster.deploy_ztunnel_sync("node-a", binary=binary, ready_timeout=60.0)
    program = proxy.program
    assert program is not None
    program.wait_for_output("^subscribed$", 20.0)
    cluster.mesh.add_policy(Policy("policy", "default", "Namespace", "Allow"))
    assert "+ default/policy\n" in program.output
    web = cluster.add_pod("web", "node-b")
    assert "+ cluster1//v1/Pod/default/web\n" in program.output
    cluster.add_service("web", pods=[web], ports={80: 8080})
    assert "+ default/web.default.svc.cluster.local\n" in program.output
    web.remove()
    cluster.mesh.remove_policy("default", "policy")
    assert "- default/policy\n" in program.output
    assert "- cluster1//v1/Pod/default/web\n" in program.output


def test_one_that_says_that_it_follows_and_does_not_is_one_error(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ztunnel_program, "FOLLOW_SECONDS", 0.3)
    text = (
        "import os\nfrom netwarren.mesh import program\nos.environ['XDS_ADDRESS'] = ''\n"
        "program.LocalFile.changed = lambda file: False\nprogram.main()\n"
    )
    with pytest.raises(MeshError, match=r"ztunnel\.py.* has not read .*mesh\.yaml anew within 0\.3 s"):
        cluster.deploy_ztunnel_sync("node-a", binary=script(tmp_path, text), ready_timeout=60.0)
    assert cluster.mesh.proxies == {}
    assert cluster.pods == {}


_STOPS_FOLLOWING = """
import os
from netwarren.mesh import program
os.environ["XDS_ADDRESS"] = ""
looked = program.LocalFile.changed
program.LocalFile.changed = lambda file: not os.path.exists({stop!r}) and looked(file)
program.main()
"""


def test_where_one_does_not_take_that_a_pod_is_gone_the_pod_is_gone_all_the_same(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = tmp_path / "stop"
    binary = script(tmp_path, _STOPS_FOLLOWING.format(stop=str(stop)))
    proxy = cluster.deploy_ztunnel_sync("node-a", binary=binary, ready_timeout=60.0)
    other = cluster.deploy_ztunnel_sync("node-b")
    web = cluster.add_pod("web", "node-a")
    stop.touch()
    monkeypatch.setattr(ztunnel_program, "FOLLOW_SECONDS", 0.3)
    with pytest.raises(MeshError, match="has not read"):
        web.remove()
    assert "web" not in cluster.pods
    assert not cluster.mesh.carried("web")
    assert "web" not in {each.name for each in other._proxy.state.workloads}
    with pytest.raises(MeshError, match="has not read"):
        cluster.add_pod("late", "node-a")
    assert "late" not in cluster.pods
    assert "late" not in {each.name for each in other._proxy.state.workloads}
    proxy.pod.remove()
    assert cluster.mesh.proxies == {"node-b": other}


# --- what is none -----------------------------------------------------------------------------------


def _left() -> tuple[set[str], set[str]]:
    """The files and threads that a deployment may leave."""
    ours = f"netwarren-mesh-{os.getpid()}-"
    files = {each for each in os.listdir(private_run() or "/tmp") if each.startswith(ours)}
    threads = {each.name for each in threading.enumerate()}
    return files, {each for each in threads if each in ("netwarren-control", "netwarren-agent")}


@pytest.mark.parametrize(
    "binary", ["/there/is/no/ztunnel", ["/there/is/no/ztunnel", "proxy"], Path("/there/is/no/ztunnel")]
)
def test_a_program_that_does_not_exist_is_one_error_and_there_is_no_pod(
    cluster: Cluster, binary: object
) -> None:
    before = _left()
    with pytest.raises(MeshError, match=r"no ztunnel is deployed: /there/is/no/ztunnel.*cannot be started"):
        cluster.deploy_ztunnel_sync("node-a", binary=binary)  # type: ignore[arg-type]
    _nothing(cluster, before)


def test_one_that_dies_is_one_error_with_what_it_wrote(cluster: Cluster, tmp_path: Path) -> None:
    before = _left()
    text = "import sys\nprint('no such variable')\nsys.exit(3)"
    with pytest.raises(MeshError, match=r"(?s)ztunnel\.py.* has exited 3 too early.*no such variable"):
        cluster.deploy_ztunnel_sync("node-a", binary=script(tmp_path, text))
    _nothing(cluster, before)


def test_one_that_never_turns_ready_is_one_error_with_what_it_wrote(cluster: Cluster, tmp_path: Path) -> None:
    before = _left()
    text = "import signal\nprint('still thinking', flush=True)\nsignal.pause()"
    with pytest.raises(
        MeshError, match=r"(?s)ztunnel\.py.* is not ready within 1 s.*healthz/ready.*still thinking"
    ):
        cluster.deploy_ztunnel_sync("node-a", binary=script(tmp_path, text), ready_timeout=1.0)
    _nothing(cluster, before)


_READY = """
import http.server
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
print("I am ready", flush=True)
http.server.HTTPServer(("", 15021), Ready).serve_forever()
"""


def test_one_that_is_ready_and_knows_no_node_agent_is_one_error(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_module, "READY_SECONDS", 0.2)
    before = _left()
    with pytest.raises(MeshError, match=r"(?s)ztunnel\.py.* no proxy has connected to .*I am ready"):
        cluster.deploy_ztunnel_sync("node-a", binary=script(tmp_path, _READY), ready_timeout=60.0)
    _nothing(cluster, before)


def test_a_dedicated_one_that_dies_leaves_the_pod_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    from netwarren.mesh.inpod import redirection

    before = _left()
    pod = cluster.add_pod("web", "node-a")
    with pytest.raises(MeshError, match="has exited 3"):
        cluster.deploy_ztunnel_sync(pod, mode="dedicated", binary=script(tmp_path, "import sys\nsys.exit(3)"))
    assert redirection.read(pod.namespace_fd, pod.label) == ((), (), (), ())
    assert not cluster.mesh.carried(pod)
    pod.remove()
    _nothing(cluster, before)


def _nothing(cluster: Cluster, before: tuple[set[str], set[str]]) -> None:
    assert cluster.pods == {}
    assert cluster.mesh.proxies == {}
    assert cluster.mesh.config.workloads == ()
    assert _left() == before
    assert cluster.deploy_ztunnel_sync("node-a").ready


def test_our_program_says_what_is_wrong_with_its_environment(cluster: Cluster) -> None:
    pod = cluster.add_pod("pod", "node-a")
    for variables, told in (
        ({"PROXY_MODE": "sidecar"}, "PROXY_MODE='sidecar': it is shared or dedicated"),
        ({"CA_ROOT_CA": "/no/roots"}, "CA_ROOT_CA='/no/roots'"),
        ({"FAKE_CA": "true", "LOCAL_XDS_PATH": "/no/mesh"}, "LOCAL_XDS_PATH='/no/mesh' cannot be read"),
        (
            {"FAKE_CA": "true", "XDS_ADDRESS": "localhost", "XDS_ROOT_CA": "/no/roots"},
            "XDS_ROOT_CA='/no/roots'",
        ),
    ):
        program = pod.popen(OURS, extra_env=variables)
        assert program.wait(60) == 1
        assert program.output.startswith("ztunnel: ")
        assert told in program.output
        assert program.output.count("\n") == 1


def test_our_program_is_not_ready_before_its_control_plane_has_told_it_of_the_mesh(
    cluster: Cluster, tmp_path: Path
) -> None:
    pod = cluster.add_pod("pod", "node-a")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(cluster.mesh.authority.roots_pem)
    variables = {"FAKE_CA": "true", "XDS_ADDRESS": "https://127.0.0.1:1", "XDS_ROOT_CA": str(roots)}
    program = pod.popen(OURS, extra_env=variables)
    program.wait_for_output("XDS client connection error: .*https://127.0.0.1:1: .*retrying in 40ms", 60.0)
    _, _, body = pod.run(lambda: get("http://127.0.0.1:15021/healthz/ready"))
    assert body == b"not ready, pending: state manager, workload proxy manager\n"
    assert program.stop() == 0


def test_our_program_goes_on_with_what_it_knows_when_its_file_makes_no_sense(
    cluster: Cluster, tmp_path: Path
) -> None:
    pod = cluster.add_pod("pod", "node-a")
    path = tmp_path / "mesh.yaml"
    path.write_text("workloads: []")
    variables = {"FAKE_CA": "true", "LOCAL_XDS_PATH": str(path)}
    program = pod.popen(OURS, extra_env=variables)
    program.wait_ready(lambda: pod.run(_refuses_readiness), 60.0)
    path.write_text("workloads: [{colour: red}]")
    program.wait_for_output(r"error\tstate\t.*workloads\[0\].*colour", 20.0)
    assert program.stop() == 0


def test_our_program_has_the_certificates_of_its_node_and_forgets_none_when_its_file_changes(
    cluster: Cluster, tmp_path: Path
) -> None:
    pod = cluster.add_pod("pod", "node-a")
    path = tmp_path / "mesh.yaml"
    workload = "{{namespace: default, workloadIps: [], services: {{}}, protocol: HBONE, uid: {0}, serviceAccount: {0}, node: {1}}}"

    def write(*accounts: str) -> None:
        workloads = [workload.format(each, "here") for each in accounts]
        path.write_text(f"workloads: [{', '.join(workloads)}, {workload.format('far', 'there')}]")

    def kept() -> set[str]:
        _, _, body = get("http://127.0.0.1:15000/config_dump")
        return {each["identity"].rpartition("/")[2] for each in json.loads(body)["certificates"]}

    write("a")
    variables = {"FAKE_CA": "true", "LOCAL_XDS_PATH": str(path), "NODE_NAME": "here"}
    program = pod.popen(OURS, extra_env=variables)
    program.wait_ready(lambda: pod.run(_refuses_readiness), 60.0)
    assert pod.run(kept) == {"a"}
    write("b")
    program.wait_ready(lambda: pod.run(kept) == {"a", "b"}, 60.0)
    assert program.stop() == 0


def _refuses_readiness() -> bool:
    return get("http://127.0.0.1:15021/healthz/ready")[0] == 500
