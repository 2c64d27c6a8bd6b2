"""A stream by TLS that is left at any moment leaves nothing open."""

import asyncio
import contextlib
import gc
import socket
import ssl

import pytest

from netwarren.mesh.control import tls_stream
from netwarren.mesh.control.server import HOSTS
from netwarren.mesh.control.tls_stream import over_tls
from netwarren.mesh.identity import tls
from netwarren.mesh.identity.authority import Authority
from tests.mesh.identity.peers import SERVER


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The client's and the server's."""
    authority = Authority()
    issued = authority.issue(SERVER, hosts=HOSTS)
    return tls.trusting_context(authority.roots_pem), tls.serving_context(issued)


async def hold(connected: socket.socket, context: ssl.SSLContext, host: str | None) -> None:
    async with over_tls(connected, context, host) as (reader, _writer):
        await reader.read()


async def ends(*tasks: "asyncio.Task[None]") -> None:
    await asyncio.wait(tasks, timeout=20)
    assert all(each.done() for each in tasks)


@pytest.mark.parametrize("which", ["client", "server"])
async def test_one_that_is_cancelled_just_as_its_handshake_is_done_is_closed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setblocking(False)
    made = tls_stream._Protocol.connection_made
    tasks = {
        "client": asyncio.ensure_future(hold(ours, contexts[0], "localhost")),
        "server": asyncio.ensure_future(hold(theirs, contexts[1], None)),
    }
    context = contexts[0 if which == "client" else 1]

    def cancelled(self: tls_stream._Protocol, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        if transport.get_extra_info("sslcontext") is context:
            tasks[which].cancel()

    monkeypatch.setattr(tls_stream._Protocol, "connection_made", cancelled)
    await ends(*tasks.values())
    assert tasks[which].cancelled()
    assert ours.fileno() == theirs.fileno() == -1
    for task in tasks.values():
        with contextlib.suppress(OSError, asyncio.CancelledError):
            task.result()
    gc.collect()  # an unclosed transport or socket is complained of by now


@pytest.mark.parametrize("turns", range(1, 8))
async def test_one_that_is_cancelled_at_any_turn_is_closed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], turns: int
) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    task = asyncio.ensure_future(hold(theirs, contexts[1], None))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await ends(task)
    assert task.cancelled()
    assert theirs.fileno() == -1
    with ours:
        assert ours.recv(1) == b""
    gc.collect()


async def test_one_whose_peer_speaks_something_else_is_an_error_and_closed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours:
        ours.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLError):
            await asyncio.wait_for(hold(theirs, contexts[1], None), 20)
    assert theirs.fileno() == -1
    gc.collect()
