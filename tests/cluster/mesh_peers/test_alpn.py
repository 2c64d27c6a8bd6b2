"""What a client of HBONE offers by ALPN: HTTP/2, or nothing at all, as ztunnel's TLS library has it."""

import ssl

import pytest

from netwarren.mesh.identity.tls import client_context
from netwarren.mesh.telemetry.expect import expect_record_sync
from tests.cluster.mesh_peers.conftest import Mesh, Peer


def context(mesh: Mesh, *protocols: str) -> ssl.SSLContext:
    """A client's, which offers these."""
    made = client_context(mesh.certificate())  # of its own, since the certificate is
    made.set_alpn_protocols(list(protocols))
    return made


@pytest.mark.parametrize("protocols", [("h2",), ("http/1.1", "h2"), ()], ids=["h2", "both", "none"])
def test_who_offers_http2_or_nothing_is_served(mesh: Mesh, protocols: tuple[str, ...]) -> None:
    with Peer(mesh.stranger, mesh.server.ip, context(mesh, *protocols)) as peer:
        assert peer.echoed(f"{mesh.server.ip}:8080", b"hello") == b"hello"


@pytest.mark.parametrize("protocols", [("http/1.1",), ("h2c", "h3", "istio-peer-exchange")])
def test_who_offers_others_only_is_sent_the_alert_for_that(mesh: Mesh, protocols: tuple[str, ...]) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        Peer(mesh.stranger, mesh.server.ip, context(mesh, *protocols))
    failed = expect_record_sync(mesh.proxy.log, "connection failed", {"direction": "inbound"})
    assert "no application protocol" in str(failed.fields["error"])
    assert protocols[0] in str(failed.fields["error"])
    mesh.assert_it_lives()
