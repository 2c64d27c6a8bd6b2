"""The tests that the design page shows, under every runner of async tests, and with real programs."""

import os
import shutil

import pytest

from tests.plugin.conftest import Session

# As on the design page, the server is left to the loop's end, of which asyncio complains.
LEFT = "ignore:.*unclosed:pytest.PytestUnraisableExceptionWarning"

ECHO = """
    import asyncio
    import pytest

    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    {marker}
    async def test_echo(cluster):
        server = cluster.add_pod("server", node="node-a")
        client = cluster.add_pod("client", node="node-a")
        async with server:
            await asyncio.start_server(echo, port=8080)
        async with client:
            reader, writer = await asyncio.open_connection(cluster.resolve("server"), 8080)
            writer.write(b"hello\\n")
            assert await reader.readline() == b"hello\\n"
            assert writer.get_extra_info("sockname")[0] == client.ip
            assert writer.get_extra_info("peername")[0] == server.ip
            writer.close()
            await writer.wait_closed()
"""

TRIO_ECHO = """
    import pytest
    import trio

    @pytest.fixture
    def anyio_backend():
        return "trio"

    async def echo(stream):
        await stream.send_all(await stream.receive_some())
        await stream.aclose()

    @pytest.mark.anyio
    async def test_echo(cluster):
        server = cluster.add_pod("server", node="node-a")
        client = cluster.add_pod("client", node="node-b")
        async with trio.open_nursery() as nursery:
            async with server:
                await nursery.start(trio.serve_tcp, echo, 8080)
            async with client:
                stream = await trio.open_tcp_stream(cluster.resolve("server"), 8080)
                async with stream:
                    assert stream.socket.getsockname()[0] == client.ip
                    await stream.send_all(b"hello")
                    assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel()
"""

ANYIO_ECHO = """
    import anyio
    import pytest

    pytestmark = pytest.mark.anyio

    async def echo(stream):
        async with stream:
            await stream.send(await stream.receive())

    async def test_echo(cluster):
        server = cluster.add_pod("server", node="node-a")
        client = cluster.add_pod("client", node="node-b")
        async with anyio.create_task_group() as group:
            async with server:
                listener = await anyio.create_tcp_listener(local_host="0.0.0.0", local_port=8080)
                group.start_soon(listener.serve, echo)
            async with client:
                async with await anyio.connect_tcp(cluster.resolve("server"), 8080) as stream:
                    await stream.send(b"hello")
                    assert await stream.receive() == b"hello"
            group.cancel_scope.cancel()
        await listener.aclose()
"""

PROGRAM = """
    import socket
    import subprocess
    import sys

    WEB = "import http.server; s = http.server.HTTPServer(('', 80), http.server.SimpleHTTPRequestHandler);" \\
        "print('ready', flush=True); s.serve_forever()"
    USER = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"

    def test_real_programs(cluster, tmp_path):
        (tmp_path / "index.html").write_text("Welcome")
        web = cluster.add_pod("web", node="node-a")
        server = web.popen([sys.executable, "-c", WEB], cwd=tmp_path, stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"ready\\n"
        user = cluster.add_pod("user", node="node-b")
        address = cluster.resolve("web")
        assert "Welcome" in user.check_output([sys.executable, "-c", USER, f"http://{address}"])
        with user:
            connection = socket.create_connection((address, 80))
            assert connection.getsockname()[0] == user.ip
            connection.close()
"""

NGINX = """
    import shutil
    import socket

    from netwarren import port

    NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

    # nginx by the paths it was built with, which only this pod's nginx sees: an ordinary user may not write to them.
    def test_real_programs(cluster):
        pod = cluster.add_pod("web", node="node-a")
        pod.private_directory("/var/log/nginx")
        pod.private_directory("/var/lib/nginx")
        pod.private_directory("/run")
        web = pod.popen([NGINX, "-g", "daemon off;"], ready=port(80))
        user = cluster.add_pod("user", node="node-b")
        assert "Welcome" in user.check_output(["curl", "-s", "http://web"])
        with user:
            socket.create_connection(("web", 80)).close()
        assert web.state == "running"
"""


def test_async_test_runs_with_pytest_asyncio_in_auto_mode(session: Session) -> None:
    session.ini("asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function", warnings=LEFT)
    session.file("test_it.py", ECHO.format(marker=""))
    session.passes(plugins="asyncio", passed=1)


def test_async_test_runs_with_pytest_asyncio_in_strict_mode(session: Session) -> None:
    session.ini("asyncio_mode = strict", "asyncio_default_fixture_loop_scope = function", warnings=LEFT)
    session.file("test_it.py", ECHO.format(marker="@pytest.mark.asyncio"))
    session.passes(plugins="asyncio", passed=1)


def test_async_test_runs_with_anyios_plugin_on_asyncio(session: Session) -> None:
    backend = '@pytest.fixture\n    def anyio_backend(): return "asyncio"\n\n    @pytest.mark.anyio'
    session.ini(warnings=LEFT)
    session.file("test_it.py", ECHO.format(marker=backend))
    session.passes(plugins="anyio", passed=1)


def test_async_test_runs_with_anyios_plugin_on_trio(session: Session) -> None:
    pytest.importorskip("trio")
    session.file("test_it.py", TRIO_ECHO)
    session.passes(plugins="anyio", passed=1)


def test_async_test_written_for_anyio_runs_on_both_backends(session: Session) -> None:
    pytest.importorskip("trio")
    session.file("test_it.py", ANYIO_ECHO)
    result = session.passes("-v", plugins="anyio", passed=2)
    result.stdout.fnmatch_lines(["*test_echo[[]asyncio]*PASSED*", "*test_echo[[]trio]*PASSED*"])


def test_real_programs_and_plain_sockets_meet_in_a_sync_test(session: Session) -> None:
    session.file("test_it.py", PROGRAM)
    session.passes(passed=1)


@pytest.mark.skipif(
    not (shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") and shutil.which("curl")),
    reason="needs nginx and curl",
)
def test_nginx_serves_curl(session: Session) -> None:
    session.file("test_it.py", NGINX)
    session.passes(passed=1)
