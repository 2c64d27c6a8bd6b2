"""Who gets through a handshake, and who does not: real TLS on both sides."""

import os
import re
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from netwarren.errors import MeshError
from netwarren.mesh.failure import CertificateRevoked
from netwarren.mesh.identity import tls
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.crl import Revocations
from netwarren.mesh.identity.failure import (
    HandshakeError,
    WrongIdentity,
    WrongTrustDomain,
)
from netwarren.mesh.identity.tls import (
    client_context,
    failed_handshake,
    peer_chain,
    peer_identity,
    server_context,
    verify_client,
    verify_server,
)
from netwarren.mesh.model import Identity
from tests.mesh.identity.peers import CLIENT, SERVER, Pair, handshake

AUTHORITY = Authority()


def connected(authority: Authority = AUTHORITY, client: Identity = CLIENT, server: Identity = SERVER) -> Pair:
    return handshake(client_context(authority.issue(client)), server_context(authority.issue(server)))


def test_both_sides_learn_who_the_other_is() -> None:
    pair = connected()
    assert verify_server(peer_chain(pair.client), [SERVER]) == SERVER
    assert verify_client(peer_chain(pair.server), "cluster.local") == CLIENT
    assert pair.send(b"hello") == b"hello"


def test_it_is_tls_13_with_aes_gcm_for_http2_without_resumption() -> None:
    pair = connected()
    for side in (pair.client, pair.server):
        assert side.version() == "TLSv1.3"
        assert side.selected_alpn_protocol() == "h2"
        assert (side.cipher() or ("",))[0] == "TLS_AES_256_GCM_SHA384"
        assert not side.session_reused
    pair.server.write(b"x")
    assert pair.client.read(1) == b"x"  # a ticket would have come before this byte
    assert pair.client.session is None or not pair.client.session.has_ticket


def test_the_client_sends_no_server_name() -> None:
    seen: list[object] = []
    server = server_context(AUTHORITY.issue(SERVER, lifetime=77))
    server.sni_callback = lambda _side, name, _context: seen.append(name)
    handshake(client_context(AUTHORITY.issue(CLIENT)), server)
    assert seen == [None]


def test_any_expected_name_will_do_as_text_or_identity() -> None:
    chain = peer_chain(connected().client)
    assert verify_server(chain, ["spiffe://cluster.local/ns/x/sa/y", str(SERVER)]) == SERVER
    assert verify_server(chain, {SERVER, CLIENT}) == SERVER


def test_a_server_of_another_name_is_refused_with_both_names() -> None:
    chain = peer_chain(connected(server=Identity("cluster.local", "default", "other")).client)
    text = (
        "identity verification error: peer did not present the expected SAN "
        f"({SERVER},{CLIENT}), got spiffe://cluster.local/ns/default/sa/other"
    )
    with pytest.raises(WrongIdentity, match=f"^{re.escape(text)}$") as caught:
        verify_server(chain, [SERVER, CLIENT])
    assert caught.value.flag == "TLS_FAILURE"


def test_nobody_is_expected_where_no_name_is() -> None:
    with pytest.raises(WrongIdentity):
        verify_server(peer_chain(connected().client), [])


def test_a_client_of_another_trust_domain_is_refused() -> None:
    stranger = Identity("example.org", "default", "client")
    chain = peer_chain(connected(client=stranger).server)
    with pytest.raises(
        WrongTrustDomain, match=r"expected trustdomain \(cluster.local\), got spiffe://example"
    ) as caught:
        verify_client(chain, "cluster.local")
    assert caught.value.flag == "TLS_FAILURE"
    assert verify_client(chain, "example.org") == stranger


def test_trust_domains_with_roots_of_their_own_meet_where_they_trust_each_other() -> None:
    here, there = Authority("cluster.local"), Authority("example.org")
    stranger = Identity("example.org", "default", "client")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client_context(there.issue(stranger)), server_context(here.issue(SERVER)))
    here.trust(there)
    there.trust(here)
    pair = handshake(client_context(there.issue(stranger)), server_context(here.issue(SERVER)))
    assert peer_identity(peer_chain(pair.server)) == stranger
    handshake(client_context(there.issue(stranger)), server_context(here.intermediate("below").issue(SERVER)))
    assert verify_server(peer_chain(pair.client), [SERVER]) == SERVER


def test_roots_of_the_same_name_are_told_apart_and_may_both_be_trusted() -> None:
    old, new = Authority(), Authority()
    roots = old.roots + new.roots
    pair = handshake(
        client_context(old.issue(CLIENT), roots), server_context(new.issue(SERVER), reversed_roots(roots))
    )
    assert peer_chain(pair.client)[-1] == new.certificate
    assert peer_chain(pair.server)[-1] == old.certificate


def reversed_roots(roots: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return roots[::-1]


@pytest.mark.parametrize("expired", ["client", "server"])
def test_an_expired_certificate_is_refused(expired: str) -> None:
    client = AUTHORITY.issue(CLIENT, lifetime=-10 if expired == "client" else 60)
    server = AUTHORITY.issue(SERVER, lifetime=-10 if expired == "server" else 60)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired") as caught:
        handshake(client_context(client), server_context(server))
    refused = failed_handshake(caught.value)
    assert str(refused) == "tls handshake error: invalid peer certificate: certificate has expired"
    assert refused.flag == "TLS_FAILURE"


def test_a_certificate_that_is_not_valid_yet_is_refused() -> None:
    early = AUTHORITY.issue(SERVER, now=4_000_000_000)
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        handshake(client_context(AUTHORITY.issue(CLIENT)), server_context(early))


def test_a_client_without_certificate_is_refused() -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(cadata=AUTHORITY.certificate)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE") as caught:
        handshake(bare, server_context(AUTHORITY.issue(SERVER)))
    assert str(failed_handshake(caught.value)) == "tls handshake error: PEER_DID_NOT_RETURN_A_CERTIFICATE"


@pytest.mark.parametrize("foreign", ["client", "server"])
def test_a_certificate_of_another_root_is_refused(foreign: str) -> None:
    other = Authority()
    client = (other if foreign == "client" else AUTHORITY).issue(CLIENT)
    server = (other if foreign == "server" else AUTHORITY).issue(SERVER)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client_context(client, AUTHORITY.roots), server_context(server, AUTHORITY.roots))


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_certificate_made_for_the_other_side_is_refused(side: str) -> None:
    client = AUTHORITY.issue(CLIENT, purposes=["server"] if side == "client" else ["client"])
    server = AUTHORITY.issue(SERVER, purposes=["client"] if side == "server" else ["server"])
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(client_context(client), server_context(server))


def test_a_leaf_cannot_issue() -> None:
    """What a stolen workload's certificate would be good for: signing the name of another."""
    stolen = AUTHORITY.issue(CLIENT)
    thief = serialization.load_pem_private_key(stolen.key, password=None)
    assert isinstance(thief, ec.EllipticCurvePrivateKey)
    stolen_leaf = x509.load_der_x509_certificate(stolen.chain[0])
    forged = (
        x509.CertificateBuilder(stolen_leaf.subject, x509.Name([]), thief.public_key(), 1)
        .not_valid_before(stolen_leaf.not_valid_before_utc)
        .not_valid_after(stolen_leaf.not_valid_after_utc)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(SERVER))]), critical=True
        )
        .sign(thief, hashes.SHA256())
    ).public_bytes(serialization.Encoding.DER)
    server = Certificate.of(SERVER, (forged, *stolen.chain), stolen.roots, stolen.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client_context(AUTHORITY.issue(CLIENT)), server_context(server))


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_revoked_certificate_is_refused_on_either_side(side: str) -> None:
    authority = Authority()
    client, server = authority.issue(CLIENT), authority.issue(SERVER)
    pair = handshake(client_context(client), server_context(server))
    revocations = Revocations.read(authority.revoke(client if side == "client" else server))
    with pytest.raises(
        CertificateRevoked, match=r"^connection closed: peer certificate revoked by CRL$"
    ) as caught:
        if side == "client":
            verify_client(peer_chain(pair.server), "cluster.local", revocations)
        else:
            verify_server(peer_chain(pair.client), [SERVER], revocations)
    assert caught.value.flag == "CERT_REVOKED"
    verify_client(peer_chain(pair.server), "cluster.local", Revocations.read(Authority("example.org").crl()))


def test_the_intermediate_that_the_peer_sent_is_in_its_chain_and_can_be_revoked() -> None:
    root = Authority()
    below = root.intermediate("below")
    pair = handshake(client_context(root.issue(CLIENT)), server_context(below.issue(SERVER)))
    chain = peer_chain(pair.client)
    assert chain[1:] == (below.certificate, root.certificate)
    verify_server(chain, [SERVER], Revocations.read(root.crl() + below.crl()))
    with pytest.raises(CertificateRevoked):
        verify_server(chain, [SERVER], Revocations.read(root.revoke(below)))


@pytest.mark.parametrize("old", ["client", "server"])
def test_tls_12_is_refused_unless_asked_for(old: str) -> None:
    client, server = AUTHORITY.issue(CLIENT), AUTHORITY.issue(SERVER)
    downgraded = (client_context if old == "client" else server_context)(AUTHORITY.issue(CLIENT), tls12=True)
    downgraded.maximum_version = ssl.TLSVersion.TLSv1_2
    contexts = (
        (downgraded, server_context(server)) if old == "client" else (client_context(client), downgraded)
    )
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
        handshake(*contexts)


@pytest.mark.parametrize("old", ["client", "server"])
def test_tls_12_asked_for_is_mutual_with_aes_gcm(old: str) -> None:
    client, server = AUTHORITY.issue(CLIENT), AUTHORITY.issue(SERVER)
    contexts = client_context(client, tls12=True), server_context(server, tls12=True)
    contexts[0 if old == "client" else 1].maximum_version = ssl.TLSVersion.TLSv1_2
    pair = handshake(*contexts)
    assert pair.client.version() == "TLSv1.2"
    assert (pair.client.cipher() or ("",))[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    assert verify_server(peer_chain(pair.client), [SERVER]) == SERVER
    assert verify_client(peer_chain(pair.server), "cluster.local") == CLIENT


def test_a_session_of_tls_12_is_not_resumed() -> None:
    client = client_context(AUTHORITY.issue(CLIENT), tls12=True)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    server = AUTHORITY.issue(SERVER)
    first = handshake(client, server_context(server, tls12=True))
    second = handshake(client, server_context(server, tls12=True), first.client.session)
    assert not second.server.session_reused
    assert verify_client(peer_chain(second.server), "cluster.local") == CLIENT


def test_tls_12_with_another_cipher_suite_is_refused() -> None:
    client = client_context(AUTHORITY.issue(CLIENT), tls12=True)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        handshake(client, server_context(AUTHORITY.issue(SERVER), tls12=True))


def test_a_new_certificate_is_used_by_the_next_handshake_and_leaves_the_last_one_alone() -> None:
    client = client_context(AUTHORITY.issue(CLIENT))
    old, new = AUTHORITY.issue(SERVER), AUTHORITY.issue(SERVER)
    before, after = handshake(client, server_context(old)), handshake(client, server_context(new))
    assert peer_chain(before.client)[0] == old.chain[0] != new.chain[0]
    assert peer_chain(after.client)[0] == new.chain[0]
    assert before.send(b"still here") == b"still here"


def test_contexts_are_made_once_per_certificate() -> None:
    one, other = AUTHORITY.issue(CLIENT), AUTHORITY.issue(CLIENT)
    assert client_context(one) is client_context(one) is client_context(one, one.roots)
    assert client_context(one) is not client_context(other)
    assert client_context(one) is not client_context(one, tls12=True)
    assert client_context(one) is not server_context(one)


def test_contexts_are_gone_with_their_certificate() -> None:
    certificate = AUTHORITY.issue(CLIENT)
    client_context(certificate)
    server_context(certificate)
    assert certificate in tls._contexts
    before = len(tls._contexts)
    del certificate
    assert len(tls._contexts) == before - 1


def test_a_key_of_another_certificate_is_one_error() -> None:
    mine, other = AUTHORITY.issue(CLIENT), Authority().issue(CLIENT)
    wrong = Certificate.of(CLIENT, mine.chain, mine.roots, other.key)
    with pytest.raises(MeshError, match=f"TLS does not take the certificate of {CLIENT}"):
        client_context(wrong)


def test_a_root_that_is_none_is_one_error() -> None:
    with pytest.raises(MeshError, match="TLS does not take"):
        client_context(AUTHORITY.issue(CLIENT), [b"nothing"])


def test_no_key_and_no_descriptor_is_left_on_the_file_system() -> None:
    """Every file that is opened for writing or made is told by the interpreter; this thread makes none."""
    mine, watching, made = threading.get_ident(), True, []

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if not watching or threading.get_ident() != mine:
            return
        if (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ) or (
            event
            in ("os.rename", "os.link", "os.symlink", "os.mkdir", "tempfile.mkstemp", "tempfile.mkdtemp")
        ):
            made.append((event, arguments))

    sys.addaudithook(audit)
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        authority = Authority()
        pair = connected(authority)
        verify_server(peer_chain(pair.client), [SERVER], Revocations.read(authority.crl()))
    finally:
        watching = False
    assert made == []
    assert sorted(os.listdir("/proc/self/fd")) == before


class Agreed:
    def __init__(self, suite: str) -> None:
        self.suite = suite

    def cipher(self) -> tuple[str, str, int]:
        return self.suite, "TLSv1.3", 256


def test_a_connection_with_another_cipher_suite_is_refused() -> None:
    with pytest.raises(HandshakeError, match="TLS_CHACHA20_POLY1305_SHA256 is none of TLS_AES_256"):
        peer_chain(Agreed("TLS_CHACHA20_POLY1305_SHA256"))


ONLY_CHACHA = """\
openssl_conf = start
[start]
ssl_conf = ssl
[ssl]
system_default = suites
[suites]
Ciphersuites = TLS_CHACHA20_POLY1305_SHA256
"""


@pytest.mark.skipif(
    sys.version_info >= (3, 15), reason="this Python chooses its suites: they cannot be imposed on it"
)
def test_chacha_that_openssl_was_made_to_agree_on_is_refused_before_any_data(tmp_path: Path) -> None:
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(ONLY_CHACHA)
    code = (
        "from tests.mesh.identity.test_tls import *\n"
        "pair = connected()\n"
        "print(pair.client.cipher()[0])\n"
        "for side in (pair.client, pair.server):\n"
        "    try: peer_chain(side)\n"
        "    except HandshakeError: print('refused')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENSSL_CONF": str(configuration), "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.split() == ["TLS_CHACHA20_POLY1305_SHA256", "refused", "refused"]
