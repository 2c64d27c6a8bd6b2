"""An authority that is served: Istio's certificate service on a socket, for proxies in processes of their own.

Rules: one thread with one loop; TLS with a certificate of the authority itself, which its clients trust by its roots;
nobody is asked who they are, for it is a test's.
Does not belong here: what is asked and answered (see `certificate_service`), which network the socket is in.
"""

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future

from netwarren.mesh.identity import grpc, tls
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate_service import methods
from netwarren.mesh.model import Identity

HOSTS = ("localhost", "127.0.0.1", "::1", "istiod.istio-system.svc")
"""What its certificate calls it: where it is, and what a ztunnel may take it for."""


class CaServer:
    """Serves ``authority`` on ``listener``, which it closes, from `start` to `close`."""

    def __init__(self, authority: Authority, listener: socket.socket) -> None:
        self._listener = listener
        self._methods = methods(authority)
        identity = Identity(authority.trust_domain, "istio-system", "istiod")
        self._context = tls.serving_context(authority.issue(identity, hosts=HOSTS))
        self._ending: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start its thread; who connects from now on is answered."""
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="netwarren-authority", daemon=True
        )
        self._thread.start()
        started.result()

    def close(self) -> None:
        """End it, and every connection; again is fine."""
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join()
        self._listener.close()

    def _run(self, started: "Future[None]") -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await grpc.serve(reader, writer, self._methods)
            except (OSError, asyncio.CancelledError):
                pass  # the client is gone, or the server is to go
            finally:
                connections.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(connected, sock=self._listener, ssl=self._context)
        started.set_result(None)
        await self._ending.wait()
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)
