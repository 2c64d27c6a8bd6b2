"""What a pod sends: caught on its way out, decided on, and carried to the next hop, in plain or by HBONE.

Rules: the application's socket is not read before its next hop is there, so that one that fails is reset; what is
refused before it is known enough is only logged (an early deny).
Does not belong here: the decision (see `state.outbound`), the tunnels (see `hbone`).
"""

import socket
from typing import TYPE_CHECKING

from netwarren.errors import MeshError
from netwarren.mesh.hbone.copy import copy_both_ways
from netwarren.mesh.hbone.double import open_within
from netwarren.mesh.hbone.pool import PoolKey
from netwarren.mesh.hbone.stream import ByteStream, SocketStream
from netwarren.mesh.hbone.tls import Verify
from netwarren.mesh.hbone.transport import Tunnel
from netwarren.mesh.hbone.tunnel_stream import TunnelStream
from netwarren.mesh.identity import tls
from netwarren.mesh.inpod.sockets import original_destination, socket_address
from netwarren.mesh.model import Identity, SocketAddress
from netwarren.mesh.proxy import revocation
from netwarren.mesh.proxy.common import as_told
from netwarren.mesh.proxy.dialling import dial
from netwarren.mesh.state import headers, outbound
from netwarren.mesh.state.headers import TraceParent
from netwarren.mesh.state.outbound import Unresolved, Upstream
from netwarren.mesh.telemetry.connection import Connection, Opened, early_deny
from netwarren.mesh.telemetry.connections import Outbound
from netwarren.mesh.telemetry.labels import Peer, on_demand_dns_labels
from netwarren.topology.addresses import Address, parse_address

if TYPE_CHECKING:
    import ssl

    from netwarren.mesh.proxy.pod import PodProxy


async def carry(pod: "PodProxy", accepted: socket.socket) -> None:
    """Carry a connection of the pod's to its end."""
    common = pod.common
    client = socket_address(accepted.getpeername())
    target = original_destination(accepted)
    stream = SocketStream(accepted)
    try:
        try:
            upstream = await _decide(pod, client, target)
        except MeshError as error:
            early_deny(common.log, "source", client, target, error)
            return
        address = upstream.address
        assert isinstance(address, SocketAddress)
        secured = upstream.protocol != "TCP"
        opened = Opened(
            "source",
            client,
            address,
            Peer.of(upstream.source),
            Peer.of(upstream.workload) if upstream.workload is not None else None,
            upstream.service,
            pod.identity(upstream.source) if secured else None,
            "mutual_tls" if secured else "unknown",
            str(upstream.authority) if upstream.authority is not None else None,
        )
        double = upstream.protocol == "DOUBLEHBONE"
        registration = pod.connections.register(Outbound(client, target, address, upstream.protocol))
        try:
            with Connection(common.metrics, common.log, opened, asking=double) as connection:
                async with registration:
                    far: ByteStream
                    if double:
                        far, peer = await _open_within(pod, client, upstream)
                        connection.found(peer)
                    else:
                        far = await _open(pod, client, upstream)
                    if isinstance(far, TunnelStream):
                        far.on_cut = registration.end
                    await copy_both_ways(
                        stream, far, on_sent=connection.count_received, on_received=connection.count_sent
                    )
        except (MeshError, OSError):
            pass  # recorded
    finally:
        await stream.close()


async def _decide(pod: "PodProxy", client: SocketAddress, target: SocketAddress) -> Upstream:
    common = pod.common
    if target.address.is_loopback and target.port in common.config.illegal_ports:
        workload = None  # refused at once, whoever it is
    else:
        workload = await pod.workload()
    upstream = outbound.decide(
        common.state, common.config, workload, client.address, target, common.rng, who=pod.label
    )
    if not isinstance(upstream.address, Unresolved):
        return upstream
    common.metrics.on_demand_dns.labels(
        on_demand_dns_labels(upstream.source, upstream.address.hostname)
    ).add()
    answers = await _resolve(pod, upstream.address.hostname)
    return outbound.resolved(upstream, answers, common.rng)


async def _open(pod: "PodProxy", client: SocketAddress, upstream: Upstream) -> ByteStream:
    """The stream to the next hop, or through it; raises `MeshError`."""
    address = upstream.address
    assert isinstance(address, SocketAddress)
    if upstream.protocol == "TCP":
        return await dial(pod.sockets, address, seconds=pod.common.config.connect_timeout)
    return await _open_tunnel(pod, client, upstream, TraceParent.draw(pod.common.rng))


async def _open_tunnel(
    pod: "PodProxy", client: SocketAddress, upstream: Upstream, trace: TraceParent
) -> ByteStream:
    address = upstream.address
    assert isinstance(address, SocketAddress)
    key = PoolKey(pod.identity(upstream.source), frozenset(upstream.sans), address, client.address)
    lines = tuple(upstream.headers(client, trace))
    opened, _tunnel = await pod.pool.open_stream(key, str(upstream.authority), lines)
    return opened.stream


async def _open_within(pod: "PodProxy", client: SocketAddress, upstream: Upstream) -> tuple[ByteStream, Peer]:
    """The stream within a tunnel to a network's gateway, and who is at its end, behind that; raises `MeshError`."""
    config = pod.common.config
    trace = TraceParent.draw(pod.common.rng)
    outer = await _open_tunnel(pod, client, upstream, trace)
    try:
        certificate = await pod.common.secrets.get(pod.identity(upstream.source))
    except BaseException:
        outer.abort()
        raise
    inner, tunnel = await open_within(
        outer,
        tls.client_context(certificate, tls12=pod.common.config.tls12),
        str(upstream.authority),
        tuple(upstream.inner_headers(client, trace, config.network)),
        verify=_verifier(pod, frozenset(upstream.inner_sans)),
        settings=config.http2,
    )
    pod.inner_tunnels.add(tunnel)
    tunnel.at_end(lambda: pod.inner_tunnels.discard(tunnel))
    revocation.cut_if_revoked(pod.common, tunnel)
    told = headers.parse_baggage(headers.values_of(inner.headers, headers.BAGGAGE))
    return inner.stream, as_told(told, tls.peer_identity(tls.peer_chain(tunnel.tls)))


async def connect(pod: "PodProxy", key: PoolKey) -> Tunnel:
    """A new connection for the pool; raises `MeshError`."""
    config = pod.common.config
    assert isinstance(key.source, Identity)
    certificate = await pod.common.secrets.get(key.source)
    lower = await dial(pod.sockets, key.destination, seconds=config.connect_timeout, hbone=True)
    tunnel = await Tunnel.connect(
        lower,
        tls.client_context(certificate, tls12=pod.common.config.tls12),
        verify=_verifier(pod, key.destinations),
        settings=config.http2,
    )
    revocation.cut_if_revoked(pod.common, tunnel)
    return tunnel


def _verifier(pod: "PodProxy", expected: frozenset[object]) -> Verify:
    def verify(finished: "ssl.SSLObject") -> None:
        with revocation.counted(pod.common, "source"):
            tls.verify_server(
                tls.peer_chain(finished), [str(each) for each in expected], pod.common.revocations
            )

    return verify


async def _resolve(pod: "PodProxy", hostname: str) -> list[Address] | None:
    """The addresses of a name, asked for from the pod; None where nobody knows it, or answers."""
    from dns import name, rcode, rdataclass, rdatatype

    found: list[Address] = []
    answered = False
    for kind in (rdatatype.A, rdatatype.AAAA):
        try:
            response = await pod.upstream.ask(name.from_text(hostname), kind, rdataclass.IN)
        except MeshError:
            continue
        if response.rcode() != rcode.NOERROR:
            continue
        answered = True
        found += [
            parse_address(record.address)
            for each in response.answer
            if each.rdtype == kind
            for record in each
        ]
    return found if answered else None
