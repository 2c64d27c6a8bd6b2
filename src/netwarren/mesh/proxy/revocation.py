"""Certificates that are revoked: who has one gets no tunnel, and loses those that there are.

Rules: each tunnel that is refused or cut is counted once, for the side on which the proxy stands; a tunnel is looked
at again when it is there, since a list may have come during its handshake; its streams end with CERT_REVOKED.
Does not belong here: what is revoked (see `identity.crl`), following the file (see `identity.watch`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from netwarren.mesh.failure import CertificateRevoked
from netwarren.mesh.hbone.transport import ServerTunnel, Tunnel
from netwarren.mesh.identity import tls
from netwarren.mesh.identity.failure import TlsFailure
from netwarren.mesh.proxy.common import Common
from netwarren.mesh.telemetry.labels import Reporter

if TYPE_CHECKING:
    from netwarren.mesh.proxy.pod import PodProxy


@contextmanager
def counted(common: Common, reporter: Reporter) -> Iterator[None]:
    """Within it, a peer is judged; counts it if it is found revoked."""
    try:
        yield
    except CertificateRevoked:
        common.metrics.crl_policy_rejections.labels((reporter,)).add()
        raise


def cut_if_revoked(common: Common, tunnel: Tunnel | ServerTunnel) -> None:
    """Cut a tunnel, and its streams, if its peer's certificate is revoked by now."""
    if common.revocations is None:
        return
    try:
        with counted(common, "source" if isinstance(tunnel, Tunnel) else "destination"):
            common.revocations.check(tls.peer_chain(tunnel.tls))
    except CertificateRevoked as revoked:
        tunnel.abort(failure=revoked)
    except TlsFailure as failure:  # a list that its issuer has not signed: no word on this peer
        common.log.write("warn", "tls", str(failure), {})


def cut_revoked(pod: "PodProxy") -> None:
    """The lists have changed: look at all tunnels of a pod."""
    there: list[Tunnel | ServerTunnel] = [*pod.tunnels, *pod.pool.tunnels, *pod.inner_tunnels]
    for tunnel in there:
        cut_if_revoked(pod.common, tunnel)
