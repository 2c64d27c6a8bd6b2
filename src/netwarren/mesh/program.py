"""The node proxy as a program of its own: ``python -m netwarren.mesh``, configured by a ztunnel's environment.

Rules: it lives in the network namespace that it is started in; its log is its standard output; SIGTERM and SIGINT give
connections time to end, a second SIGINT gives none; what cannot be is one line on standard error and a status of 1.
Does not belong here: what the variables mean (see `environment`), what the proxy does (see `proxy.ztunnel`).
"""

import io
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import NamedTuple

from netwarren.errors import ClosedError, MeshConfigError, MeshError, NetwarrenError
from netwarren.mesh import environment
from netwarren.mesh.control.certificate_client import CertificateClient
from netwarren.mesh.control.credentials import Credentials
from netwarren.mesh.control.discovery_client import Source
from netwarren.mesh.control.endpoint import Endpoint
from netwarren.mesh.environment import Environment
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.secrets import Fetch
from netwarren.mesh.inpod.sockets import PodSockets, check_capabilities
from netwarren.mesh.local_file import LocalFile
from netwarren.mesh.model import SocketAddress
from netwarren.mesh.proxy.dialling import dial
from netwarren.mesh.proxy.ztunnel import Ztunnel
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.telemetry.log import Log
from netwarren.topology.addresses import Address, parse_address

LOOK_SECONDS = 0.02
"""Between two looks at the local configuration's file."""


def main(variables: Mapping[str, str] = os.environ) -> int:
    """Run until it is told to end; returns its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        return _run(environment.read(variables))
    except NetwarrenError as error:
        print(f"ztunnel: {error}", file=sys.stderr)
        return 1


def _run(told: Environment) -> int:
    resolved, config, own = resolution(), told.config, told.own
    if config.mode == "dedicated":
        config = replace(config, search=resolved.search)
    check_capabilities(mark=config.packet_mark, transparent=config.require_original_source is True)
    file = LocalFile(told.mesh_path) if told.mesh_path and not told.xds_address else None
    netns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with PodSockets(netns, "where the proxy runs", mark=config.packet_mark) as sockets:
        proxy = Ztunnel(
            config,
            agent=told.agent_path,
            netns=netns,
            fetch=_fetch(told, sockets),
            mesh=file.read() if file is not None else Config(),
            name_servers=resolved.name_servers,
            # Its uid is not told; by who it is, it is found.
            own=None if own is None else (f"{own.namespace}/{own.name}", own),
            log=Log(told.log_levels, line_format=config.log_format, stream=sys.stdout),
            follows=file is not None,
            source=_source(told, sockets) if told.xds_address else None,
        )
        proxy.start()
        _end_on_signals(proxy)
        while not proxy.wait(LOOK_SECONDS):
            if file is not None and file.changed():
                _reload(proxy, file)
    os.close(netns)
    if proxy.failure is not None:
        print(f"ztunnel: {proxy.failure}", file=sys.stderr)
        return 1
    return 0


def _reload(proxy: Ztunnel, file: LocalFile) -> None:
    try:
        proxy.reload(file.read())
    except MeshConfigError as error:  # it goes on with what it knows
        proxy.log.write("error", "state", str(error), {})
    except ClosedError:
        pass  # it ends


def _end_on_signals(proxy: Ztunnel) -> None:
    def end(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        proxy.end(graceful=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _fetch(told: Environment, sockets: PodSockets) -> Fetch:
    config = told.config
    if told.fake_ca:
        return Authority(config.trust_domain).fetcher(lifetime=config.certificate_lifetime)
    return CertificateClient(
        _endpoint("the authority", "CA", told.ca_address, told.ca_roots, told, sockets),
        lifetime=config.certificate_lifetime,
        impersonates=config.mode == "shared",
        credentials=Credentials.told(told.auth_token, config.cluster_id),
    ).fetch


def _source(told: Environment, sockets: PodSockets) -> Source:
    """Who asks is a node as ztunnel describes itself (`src/xds/client.rs`)."""
    config, own = told.config, told.own
    name, namespace = (own.name, own.namespace) if own is not None else ("", "")
    said = {
        "NAME": name,
        "NAMESPACE": namespace,
        "INSTANCE_IPS": told.instance_ip,
        "NODE_NAME": config.node,
        "CLUSTER_ID": config.cluster_id,
        "DNS_CAPTURE": str(config.dns_proxy).lower(),
    }
    return Source(
        _endpoint("the control plane", "XDS", told.xds_address, told.xds_roots, told, sockets),
        f"ztunnel~{told.instance_ip}~{name}.{namespace}~{namespace}.svc.cluster.local",
        {**said, **told.metadata},
        Credentials.told(told.auth_token, config.cluster_id),
    )


def _endpoint(
    what: str, variable: str, address: str, roots_path: str, told: Environment, sockets: PodSockets
) -> Endpoint:
    """What ``variable``'s _ADDRESS and _ROOT_CA say."""
    try:
        with open(roots_path, "rb") as file:
            roots = file.read()
    except OSError as error:
        raise MeshConfigError(
            f"{variable}_ROOT_CA={roots_path!r}, the roots by which {what} is trusted, cannot be read: "
            f"{error.strerror}"
        ) from None

    async def connect(port: int) -> socket.socket:
        *others, last = [SocketAddress(each, port) for each in addresses]
        for each in others:
            with suppress(MeshError):
                return (await dial(sockets, each, seconds=told.config.connect_timeout)).socket
        return (await dial(sockets, last, seconds=told.config.connect_timeout)).socket

    endpoint = Endpoint.of(what, address, roots, connect)
    addresses = _resolved(endpoint.host, f"{variable}_ADDRESS={address!r}")
    return endpoint


def _resolved(host: str, said: str) -> list[Address]:
    """The addresses of a host: now, for the proxy's thread has nobody to ask where it stands."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise MeshConfigError(f"{said}: the host is not known: {error.strerror}") from None
    return [parse_address(str(each[4][0])) for each in found]


class Resolution(NamedTuple):
    """What resolv.conf(5) says: whom the DNS proxy asks what it does not know, and how names are stretched."""

    name_servers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()


def resolution(path: str = "/etc/resolv.conf") -> Resolution:
    """The name servers and the search list of a file; none where it cannot be read."""
    servers: list[Address] = []
    search: list[str] = []
    try:
        with open(path, errors="replace") as file:
            for line in file:
                match line.split():
                    case ["nameserver", address, *_]:
                        servers.append(parse_address(address.partition("%")[0]))
                    case ["search" | "domain", *domains]:  # the last one counts
                        search = [domain.strip(".") for domain in domains]
    except (OSError, NetwarrenError):
        pass  # names that the mesh does not know are not found then
    return Resolution(tuple(servers), tuple(filter(None, search)))
