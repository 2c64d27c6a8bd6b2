"""What a pod is sent: HBONE on port 15008, and plain text that was caught on its way in.

Rules: an HBONE client is answered 200 only when the application has taken the connection; what is refused before
policies are asked is only logged (an early deny), what they or the application refuse is counted, too.
Does not belong here: the plan and the verdict (see `state.inbound`), tunnels (see `hbone`).
"""

import socket
from typing import TYPE_CHECKING

from netwarren.errors import MeshError
from netwarren.mesh.hbone import proxy_protocol
from netwarren.mesh.hbone.copy import copy_both_ways
from netwarren.mesh.hbone.stream import ByteStream, SocketStream
from netwarren.mesh.hbone.transport import ConnectRequest, ServerTunnel
from netwarren.mesh.identity import tls
from netwarren.mesh.inpod.sockets import original_destination, socket_address
from netwarren.mesh.model import Identity
from netwarren.mesh.proxy import revocation
from netwarren.mesh.proxy.common import as_told
from netwarren.mesh.proxy.dialling import dial
from netwarren.mesh.state import headers, inbound
from netwarren.mesh.state.inbound import ConnectFacts, InboundPlan
from netwarren.mesh.state.rbac import Verdict
from netwarren.mesh.state.refusals import (
    ConnectAddress,
    NonConnectMethod,
    PolicyRejection,
    Refusal,
    UnknownSourceWorkload,
)
from netwarren.mesh.telemetry.connection import Connection, Opened, early_deny
from netwarren.mesh.telemetry.connections import Inbound
from netwarren.mesh.telemetry.labels import Peer

if TYPE_CHECKING:
    import ssl

    from netwarren.mesh.proxy.pod import PodProxy


async def carry_hbone(pod: "PodProxy", accepted: socket.socket) -> None:
    """Serve one HBONE connection to its end."""
    common = pod.common
    client = socket_address(accepted.getpeername())
    destination = socket_address(accepted.getsockname())
    lower = SocketStream(accepted)
    who: list[Identity | None] = []

    def verify(finished: "ssl.SSLObject") -> None:
        chain = tls.peer_chain(finished)
        with revocation.counted(common, "destination"):
            who.append(tls.verify_client(chain, certificate.identity.trust_domain, common.revocations))

    async def answer(request: ConnectRequest) -> None:
        facts = ConnectFacts("CONNECT", request.authority, request.headers, client, destination, who[0])
        await _answer(pod, request, facts)

    def rejected(method: str) -> None:
        refusal = ConnectAddress("") if method == "CONNECT" else NonConnectMethod(method)
        early_deny(common.log, "destination", client, destination, refusal)

    try:
        workload = await pod.workload()
        if workload is None:
            raise UnknownSourceWorkload(pod.label)
        certificate = await common.secrets.get(pod.identity(workload))
        tunnel = await ServerTunnel.accept(
            lower,
            tls.server_context(certificate, tls12=common.config.tls12),
            on_connect=answer,
            verify=verify,
            settings=common.config.http2,
            on_rejected=rejected,
        )
    except (MeshError, OSError) as error:
        await lower.close()
        early_deny(common.log, "destination", client, destination, error)
        return
    except BaseException:
        await lower.close()
        raise
    pod.tunnels.add(tunnel)
    revocation.cut_if_revoked(common, tunnel)
    try:
        if pod.connections.draining:
            await tunnel.drain(common.config.drain_deadline)
        await tunnel.wait_closed()
    finally:
        pod.tunnels.discard(tunnel)
        await tunnel.close()


async def _answer(pod: "PodProxy", request: ConnectRequest, facts: ConnectFacts) -> None:
    common = pod.common
    try:
        plan = inbound.plan(
            common.state,
            common.config,
            await pod.workload(),
            facts,
            preserve_source=pod.preserves_source,
            who=pod.label,
        )
    except Refusal as refusal:
        early_deny(common.log, "destination", facts.source, facts.destination, refusal)
        request.refuse(refusal.status or 503)
        return
    opened = Opened(
        "destination",
        facts.source,
        facts.destination,
        _source(plan),
        Peer.of(plan.workload),
        plan.service,
        facts.identity,
        "mutual_tls",
        request.authority,
    )
    registration = pod.connections.register(
        Inbound(facts.source, facts.destination, "HBONE", plan, request.authority)
    )
    try:
        with Connection(common.metrics, common.log, opened) as connection:
            async with registration:
                request.on_cut(registration.end)
                try:
                    app = await _to_application(pod, plan)
                except PolicyRejection as refusal:
                    request.refuse(refusal.status or 401)
                    raise
                except MeshError:
                    request.refuse(503)
                    raise
                try:
                    said = plan.response_baggage
                    stream = request.accept(() if said is None else ((headers.BAGGAGE, said),))
                    await copy_both_ways(
                        stream, app, on_sent=connection.count_received, on_received=connection.count_sent
                    )
                except BaseException:
                    app.abort()
                    raise
    except (MeshError, OSError):
        pass  # recorded


async def carry_plaintext(pod: "PodProxy", accepted: socket.socket) -> None:
    """Carry a connection in plain text to the application, to its end."""
    common = pod.common
    client = socket_address(accepted.getpeername())
    destination = original_destination(accepted)
    stream = SocketStream(accepted)
    try:
        illegal = destination.port in common.config.illegal_ports
        try:
            plan = inbound.plan_plaintext(
                common.state,
                common.config,
                None if illegal else await pod.workload(),
                client,
                destination,
                preserve_source=pod.preserves_source,
                who=pod.label,
            )
        except Refusal as refusal:
            early_deny(common.log, "destination", client, destination, refusal)
            return
        opened = Opened(
            "destination", client, destination, _source(plan), Peer.of(plan.workload), plan.service
        )
        registration = pod.connections.register(Inbound(client, destination, "TCP", plan))
        try:
            with Connection(common.metrics, common.log, opened) as connection:
                async with registration:
                    app = await _to_application(pod, plan)
                    await copy_both_ways(
                        stream, app, on_sent=connection.count_received, on_received=connection.count_sent
                    )
        except (MeshError, OSError):
            pass  # recorded
    finally:
        await stream.close()


async def _to_application(pod: "PodProxy", plan: InboundPlan) -> ByteStream:
    """Where policies allow it, the connection to the application, with the PROXY header it wants; `MeshError`."""
    common = pod.common
    try:
        _tell(pod, inbound.admit(common.state, plan))
    except PolicyRejection as refusal:
        _tell(pod, refusal.verdict)
        raise
    app = await dial(pod.sockets, plan.address, seconds=common.config.connect_timeout, source=plan.bind)
    if plan.proxy_header is not None:
        told = plan.proxy_header
        identity = None if told.identity is None else str(told.identity)
        await app.write(
            proxy_protocol.encode(proxy_protocol.ProxyHeader(told.source, told.destination, identity))
        )
    return app


def _tell(pod: "PodProxy", verdict: Verdict) -> None:
    pod.common.warn_of_unknown(verdict)
    for each in verdict.dry_run:
        policy = None if each.policy is None else str(each.policy)
        pod.common.log.write("info", "rbac", each.message, {"policy": policy})


def _source(plan: InboundPlan) -> Peer | None:
    if plan.source_workload is not None:
        return Peer.of(plan.source_workload)
    told, identity = plan.source_baggage, plan.facts.source_identity
    return as_told(told, identity) if told.workload or told.namespace or identity is not None else None
