"""Connections of a listening socket, each in a task of its own, until the end; then none is left open.

Rules: who comes at the last moment is let go of like all others, by the task that was made for it; no transport and no
socket is forgotten, which `asyncio.start_server` (before Python 3.13) and a cancelled `loop.sock_accept` would.
Does not belong here: what is said.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

_AGAIN_SECONDS = 0.1
_TURNS = 4
"""Of the loop, in which asyncio begins with a connection that has come, or closes the socket of one that is cut off: a
transport for TLS that is closed before it has begun stays open."""


async def serve_until(
    ending: asyncio.Event,
    listener: socket.socket,
    serve: Callable[[socket.socket], Coroutine[Any, Any, None]],
) -> None:
    """Give each connection, which does not block, to ``serve``, which closes it; cancel all that run at the end."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        if not ending.is_set():
            loop.add_reader(listener, accept)

    def accept() -> None:
        try:
            accepted, _peer = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # as when descriptors run out
            loop.remove_reader(listener)
            loop.call_later(_AGAIN_SECONDS, begin)
            return
        accepted.setblocking(False)
        task = loop.create_task(serve(accepted))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener.setblocking(False)
    begin()
    try:
        await ending.wait()
    finally:
        ending.set()
        loop.remove_reader(listener)
        await turns()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await turns()


async def turns() -> None:
    """Let the loop begin or close what it was given just now."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
