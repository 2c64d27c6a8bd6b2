"""A control plane that is served: certificates and discovery on a socket, for a ztunnel that is a program of its own.

Rules: one thread with one loop; TLS with a certificate of the authority itself, which its clients trust by its roots;
nobody is asked who they are, for it is a test's: tokens and names of clusters in headers are not looked at.
Does not belong here: what is asked and answered (see `certificate_service`, `discovery`), which network the socket is in.
"""

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future

from netwarren.errors import MeshError
from netwarren.mesh.accepting import serve_until
from netwarren.mesh.control import grpc_server
from netwarren.mesh.control.certificate_service import methods
from netwarren.mesh.control.discovery import Discovery
from netwarren.mesh.control.messages import DISCOVERY_PATH
from netwarren.mesh.control.resources import resources_of
from netwarren.mesh.control.tls_stream import over_tls
from netwarren.mesh.identity import tls
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.model import Identity
from netwarren.mesh.state.local_config import Config
from netwarren.runtime import standing

HOSTS = ("localhost", "127.0.0.1", "::1", "istiod.istio-system.svc")
"""What its certificate calls it: where it is, and what a ztunnel may take it for."""


class ControlPlane:
    """Serves ``authority`` and what ``mesh`` is on ``listener``, which it closes, from `start` to `close`."""

    def __init__(self, authority: Authority, listener: socket.socket, mesh: Config | None = None) -> None:
        self._listener = listener
        self._methods = methods(authority)
        self._discovery = Discovery(resources_of(mesh or Config()), self._settled)
        identity = Identity(authority.trust_domain, "istio-system", "istiod")
        self._context = tls.serving_context(authority.issue(identity, hosts=HOSTS))
        self._waiting: list[Future[list[str]]] = []
        self._ending: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start its thread; who connects from now on is answered."""
        standing.home()  # its failure belongs to the caller
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="netwarren-control", daemon=True
        )
        self._thread.start()
        started.result()

    def change(self, mesh: Config, seconds: float) -> None:
        """The mesh is another now; returns when every subscriber has acknowledged that.

        Raises `MeshError` where one refuses, or has not answered in time.
        """
        resources = resources_of(mesh)
        answered: Future[list[str]] = Future()

        def apply() -> None:
            self._discovery.refusals.clear()
            self._discovery.change(resources)
            self._waiting.append(answered)
            self._settled()

        try:
            self._loop.call_soon_threadsafe(apply)
            refusals = answered.result(seconds)
        except RuntimeError:
            return  # it is closed, and so are they
        except TimeoutError:
            raise MeshError(
                f"a subscriber to the mesh's resources has not acknowledged them within {seconds:g} s"
            ) from None
        if refusals:
            raise MeshError(
                f"a subscriber to the mesh's resources does not take all of them: {'; '.join(refusals)}"
            )

    def close(self) -> None:
        """End it, and every connection; again is fine."""
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join()
        self._listener.close()

    # --- on its thread ---

    def _settled(self) -> None:
        if self._discovery.settled:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.done():
                    each.set_result(list(self._discovery.refusals))

    def _run(self, started: "Future[None]") -> None:
        try:
            standing.live_in(standing.home())  # not in the pod that its maker may stand in
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        streams: dict[str, grpc_server.StreamMethod] = {DISCOVERY_PATH: self._discovery.subscribe}

        async def one(accepted: socket.socket) -> None:
            try:
                async with over_tls(accepted, self._context) as (reader, writer):
                    await grpc_server.serve(reader, writer, self._methods, streams)
            except (OSError, asyncio.CancelledError):
                pass  # the client is gone, or the server is to go

        started.set_result(None)
        await serve_until(self._ending, self._listener, one)
