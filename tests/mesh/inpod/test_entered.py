"""All of it in a process that has entered by itself, or gone on in a fork of it."""

import os
import subprocess
import sys
import textwrap

import pytest

from netwarren.sandbox.entry import MARKER

SCRIPT = """
    import sys
    import threading

    (way,) = sys.argv[1:]
    if way == "fork":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    import netwarren.sandbox.auto

    import asyncio
    import os
    from ipaddress import ip_address
    from netwarren import Cluster
    from netwarren.mesh.inpod import redirection
    from netwarren.mesh.inpod.agent import NodeAgent
    from netwarren.mesh.inpod.sockets import PodSockets, check_capabilities, original_destination
    from netwarren.mesh.inpod.zds import WorkloadInfo
    from netwarren.mesh.inpod.zds_proxy import ZdsClient
    from netwarren.mesh.model import SocketAddress

    check_capabilities()

    class Pods:
        async def start(self, uid, info, netns):
            self.sockets = PodSockets(netns, info.name)
            self.outbound = self.sockets.listen(SocketAddress(ip_address("::"), 15001), transparent=True)

        async def stop(self, uid, *, graceful):
            self.outbound.close()
            self.sockets.close()

    async def follow(path, pods):
        task = asyncio.current_task()
        ends.append((asyncio.get_running_loop(), task))
        try:
            await ZdsClient(path, pods).run()
        except asyncio.CancelledError:
            pass

    with Cluster() as cluster, NodeAgent() as agent:
        node = cluster.add_node("node-9")
        client, ztunnel = node.add_pod("client"), node.add_pod("ztunnel")
        pods, ends = Pods(), []
        proxy = ztunnel.start(lambda: asyncio.run(follow(agent.path, pods)))
        redirection.apply(client.namespace_fd, client.label)
        agent.add("client", WorkloadInfo("client", "default", "default"), client.namespace_fd)
        with client.socket() as near:
            near.settimeout(5)
            near.connect(("192.0.2.1", 80))
            pods.outbound.settimeout(5)
            with pods.outbound.accept()[0] as accepted:
                print(original_destination(accepted))
        agent.delete("client")
        redirection.remove(client.namespace_fd, client.label)
        loop, task = ends[0]
        loop.call_soon_threadsafe(task.cancel)
        proxy.result(5)
"""


@pytest.mark.parametrize("way", ["here", "fork"])
def test_a_pod_is_captured_however_the_sandbox_was_entered(way: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != MARKER}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT), way]
    ended = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "192.0.2.1:80\n", "")
