"""Under debugpy with an editor attached: breakpoints inside pods."""

import os
import sys

import pytest

from tests.plugin.conftest import Running, Session
from tests.plugin.dap import Dap, address

pytest.importorskip("debugpy")

STEPPED = """
    import os

    def test_it(cluster):
        pod = cluster.add_pod("client")
        with pod:
            here = os.readlink("/proc/thread-self/ns/net")
            name = pod.name  # breakpoint
        assert here == f"net:[{pod.inode}]"
"""

TASK = """
    import asyncio
    import os

    async def test_it(cluster):
        pod = cluster.add_pod("client")
        async with pod:
            await asyncio.sleep(0)
            here = os.readlink("/proc/thread-self/ns/net")
            name = pod.name  # breakpoint
        assert here == f"net:[{pod.inode}]"
"""

THREAD = """
    import os

    def work(pod):
        here = os.readlink("/proc/thread-self/ns/net")
        name = pod.name  # breakpoint
        return here

    def test_it(cluster):
        pod = cluster.add_pod("client")
        assert pod.run(work, pod) == f"net:[{pod.inode}]"
"""


Breakpoints = dict[str, list[int]]


def debugged(session: Session, text: str, plugins: str = "") -> tuple[Running, Dap, Breakpoints]:
    """A session under debugpy with a client attached to its first process, and the breakpoints set."""
    if "asyncio" in plugins:
        session.ini("asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function")
    session.file("test_it.py", text)
    path = session.path / "test_it.py"
    lines = path.read_text().splitlines()
    breakpoints = {str(path): [number for number, line in enumerate(lines, 1) if "# breakpoint" in line]}
    endpoints = session.path / "endpoints"
    words = session.arguments("-s", plugins=plugins)
    listen = ["-m", "debugpy", "--listen", "127.0.0.1:0", "--wait-for-client"]
    running = session.start_command(
        [sys.executable, "-Xfrozen_modules=off", *listen, *words[1:]],
        env={"DEBUGPY_ADAPTER_ENDPOINTS": str(endpoints)},
    )
    client = Dap(address(endpoints))
    client.attach({"subProcess": True, "justMyCode": False}, breakpoints)
    return running, client, breakpoints


@pytest.mark.parametrize(
    ("text", "plugins"),
    [(STEPPED, ""), (TASK, "asyncio"), (THREAD, "")],
    ids=["with", "async with", "run"],
)
def test_breakpoint_inside_a_pod_is_hit(session: Session, text: str, plugins: str) -> None:
    running, parent, breakpoints = debugged(session, text, plugins=plugins)
    with parent:
        configuration = parent.event("debugpyAttach")
        assert configuration["subProcessId"] != running.process.pid
        with Dap((configuration["connect"]["host"], configuration["connect"]["port"])) as child:
            child.attach(configuration, breakpoints)
            thread, frame = child.stopped()
            assert os.path.basename(frame["source"]["path"]) == "test_it.py"
            assert child.evaluate("pod.name", frame) == "'client'"
            assert child.evaluate("here == f'net:[{pod.inode}]'", frame) == "True"
            inside = child.evaluate("__import__('os').readlink('/proc/thread-self/ns/net') == here", frame)
            assert inside == "True"
            child.ask("continue", threadId=thread)
            child.event("terminated")
        parent.event("terminated")
    # Not before: the adapter holds the session's output open for as long as somebody is attached.
    assert running.end() == 0, running.text
    assert "1 passed" in running.text
