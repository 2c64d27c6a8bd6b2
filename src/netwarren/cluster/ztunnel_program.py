"""A ztunnel that is a program of its own in a pod: its environment, its files, its authority, its process.

Rules: it is told what a ztunnel is told in Kubernetes, by variables (`netwarren.mesh.environment`), a control plane and a
file, which is replaced whole; all of it goes with the program.
Does not belong here: which pods it carries and what it is told of them (see `mesh`).
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from netwarren.errors import MeshError, NetwarrenError, ProgramError
from netwarren.mesh import local_file
from netwarren.mesh.config import ADMIN_PORT, READINESS_PORT, ProxyConfig
from netwarren.mesh.control.server import ControlPlane
from netwarren.mesh.environment import Environment, variables_of
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.inpod.listener import private_run
from netwarren.mesh.inpod.sockets import PodSockets
from netwarren.mesh.inpod.zds import WorkloadInfo
from netwarren.mesh.model import SocketAddress
from netwarren.mesh.state.dump import dump_json, dump_yaml, plain_of
from netwarren.mesh.state.local_config import Config
from netwarren.runtime.program import Command, Program
from netwarren.runtime.ready import http

if TYPE_CHECKING:
    from netwarren.cluster.members import Pod

FOLLOW_SECONDS = 10.0
"""How long a program that follows its file may take to know what is new."""

_GRACE = 2.0
"""Seconds beyond the time in which a program lets connections end, before it is killed."""

_log = logging.getLogger(__name__)


class ZtunnelProgram:
    """The program ``command`` as the proxy that lives in ``pod``, from `start` to `close`.

    ``own`` is who the pod is, ``agent`` where the node's agent listens; a dedicated one has none. A program that
    subscribes to the mesh (``XDS_ADDRESS``, as Istio's and ours do) or says in its ``/config_dump`` that it follows the file
    (``config.followsLocalXds``, as ours does without that) is waited for whenever that changes; any other knows what there
    was when it read it.
    """

    def __init__(
        self,
        command: Command,
        pod: "Pod",
        config: ProxyConfig,
        own: WorkloadInfo,
        *,
        agent: str,
        authority: Authority,
        mesh: Config,
    ) -> None:
        self.config = config
        self.program: Program | None = None
        self.follows = False
        self._command = command
        self._pod = pod
        self._own = own
        self._agent = agent
        self._authority = authority
        self._mesh = mesh
        self._written = self._text(mesh)
        self._path = ""
        self._control: ControlPlane
        self._undo = contextlib.ExitStack()

    def start(self, ready_timeout: float) -> None:
        """Start it and wait until it is ready. Raises `MeshError`, with what it wrote; nothing is left then."""
        try:
            self._start(ready_timeout)
        except BaseException as error:
            self.close()
            if isinstance(error, ProgramError):
                raise MeshError(f"no ztunnel is deployed: {error}") from error
            raise

    def _start(self, ready_timeout: float) -> None:
        directory = tempfile.mkdtemp(prefix=f"netwarren-mesh-{os.getpid()}-", dir=private_run())
        self._undo.callback(shutil.rmtree, directory, ignore_errors=True)
        self._path, roots = os.path.join(directory, "mesh.yaml"), os.path.join(directory, "roots.pem")
        local_file.write(self._path, self._written)
        local_file.write(roots, self._authority.roots_pem)
        with PodSockets(self._pod.namespace_fd, self._pod.label) as sockets:
            listener = sockets.listen(SocketAddress(ip_address("127.0.0.1"), 0))
        self._undo.callback(listener.close)
        self._control = ControlPlane(self._authority, listener, self._mesh)
        self._undo.callback(self._control.close)
        self._control.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        told = Environment(
            self.config,
            self._own,
            agent_path=self._agent,
            mesh_path=self._path,
            xds_address=address,
            xds_roots=roots,
            ca_address=address,
            ca_roots=roots,
        )
        self.program = self._pod.popen(
            self._command,
            extra_env=variables_of(told),
            ready=http("/healthz/ready", port=READINESS_PORT),
            ready_timeout=ready_timeout,
        )
        self.follows = bool(self._dump().get("config", {}).get("followsLocalXds", False))

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.program is not None and self.program._process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it says so itself, on port 15021."""
        if self.program is None or not self.running:
            return False
        return http("/healthz/ready", port=READINESS_PORT).look(self.program) is None

    def tell(self, mesh: Config) -> None:
        """The mesh is another now. Raises `MeshError` where a program that follows does not know it in time."""
        text = self._text(mesh)
        if not self.running or text == self._written:
            return
        local_file.write(self._path, text)
        self._written = text
        try:
            self._control.change(mesh, FOLLOW_SECONDS)
        except MeshError as error:
            if self.running:
                raise self.failed(str(error)) from error
        if not self.follows:
            return
        wanted = _plain(mesh)
        deadline = time.monotonic() + FOLLOW_SECONDS
        pause = 0.005
        while self.running:
            if _known(self._dump()) == wanted:
                return
            if time.monotonic() > deadline:
                raise self.failed(f"has not read {self._path} anew within {FOLLOW_SECONDS:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def close(self, *, graceful: bool = False) -> None:
        """End it: by SIGTERM, with time for connections to end (``graceful``), or at once. Again is fine."""
        if self.program is not None and self.running:  # else its end is told, if nobody expected it
            if graceful:
                self.program.stop(self.config.drain_deadline + _GRACE)
            else:
                self.program.kill()
        self._undo.close()

    def _text(self, mesh: Config) -> bytes:
        """The file. Ours reads JSON, which is YAML, sooner; ztunnel wants ports as numbers, and tags, which JSON has not."""
        return (dump_json(mesh) if self.follows else dump_yaml(mesh)).encode()

    def failed(self, why: str) -> MeshError:
        """What to raise about it, with what it wrote."""
        assert self.program is not None
        return MeshError(str(self.program._error(why)))

    def _dump(self) -> dict[str, Any]:
        """Its ``/config_dump``; nothing where it has none."""
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection("127.0.0.1", ADMIN_PORT)
        try:
            connection.sock = self._pod.socket(socket.AF_INET)
            connection.sock.settimeout(FOLLOW_SECONDS)
            connection.sock.connect(("127.0.0.1", ADMIN_PORT))
            connection.request("GET", "/config_dump", headers={"Connection": "close"})
            found = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError, NetwarrenError) as error:
            _log.debug("%s has no /config_dump: %s", self.program, error)
            return {}
        finally:
            connection.close()
        return found if isinstance(found, dict) else {}


def _plain(mesh: Config) -> dict[str, list[str]]:
    return _sorted(plain_of(mesh))


def _known(dump: dict[str, Any]) -> dict[str, list[str]]:
    """The same of a ``/config_dump``, in which services have endpoints, which workloads name here."""
    services = [
        {name: value for name, value in service.items() if name != "endpoints"}
        for service in dump.get("services", ())
    ]
    return _sorted({**dump, "services": services})


def _sorted(plain: dict[str, Any]) -> dict[str, list[str]]:
    return {
        part: sorted(json.dumps(each, sort_keys=True) for each in plain.get(part, ()))
        for part in ("workloads", "policies", "services")
    }
