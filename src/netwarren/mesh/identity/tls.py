"""TLS as a mesh speaks it: contexts with a workload's certificate, and who the peer is after the handshake.

Rules: TLS 1.3 unless 1.2 is asked for, mutual, ALPN ``h2``, no host names, no resumption; keys go to OpenSSL through
memory; names and revocation are checked after the handshake and before any byte of the peer is read.
Does not belong here: reading and writing (see `hbone`), the lists themselves (see `crl`).
"""

import os
import ssl
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from netwarren.errors import MeshError
from netwarren.mesh.identity.certificate import Certificate, facts, identities, read_chain
from netwarren.mesh.identity.crl import Revocations
from netwarren.mesh.identity.failure import HandshakeError, WrongIdentity, WrongTrustDomain
from netwarren.mesh.model import Identity

SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")
"""TLS 1.3's suites that a mesh uses.

`ssl` can choose those of TLS 1.3 from Python 3.15 on only (``set_ciphersuites``); before, OpenSSL offers ChaCha20
too, and the one way to stop it is OpenSSL's configuration file, which is the whole process's. So the hello of an
older Python still names ChaCha20, a server prefers AES-256 whenever the client knows it, and a connection on which
ChaCha20 was agreed all the same is refused by `peer_chain`, before any of its data is used.
"""
_SUITES_12 = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"
_ALLOWED = frozenset({*SUITES, *_SUITES_12.split(":")})

_Key = tuple[bool, tuple[bytes, ...], bool]
_contexts: weakref.WeakKeyDictionary[Certificate, dict[_Key, ssl.SSLContext]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def client_context(
    certificate: Certificate, roots: Collection[bytes] | None = None, *, tls12: bool = False
) -> ssl.SSLContext:
    """What a client with this certificate connects with; it trusts ``roots`` (DER; default: the certificate's).

    Made once (2 ms, most of it OpenSSL reading the key) and kept as long as the certificate is; the same object on each call, not to be changed.
    Raises `MeshError` where OpenSSL does not take the certificate, its key or a root.
    """
    return _context(certificate, False, tuple(certificate.roots if roots is None else roots), tls12)


def server_context(
    certificate: Certificate, roots: Collection[bytes] | None = None, *, tls12: bool = False
) -> ssl.SSLContext:
    """What a server with this certificate accepts with, a client's certificate required; as `client_context`.

    To be asked for at each handshake, with the certificate of that moment: so renewal needs nothing else. With
    ``tls12`` it is a new context each time.
    """
    return _context(certificate, True, tuple(certificate.roots if roots is None else roots), tls12)


def serving_context(certificate: Certificate) -> ssl.SSLContext:
    """What a server that asks its clients for no certificate accepts with; ALPN ``h2``. Raises `MeshError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        _load(context, certificate)
    except (ssl.SSLError, ValueError) as error:
        raise MeshError(f"TLS does not take the certificate of {certificate.identity}: {error}") from None
    return context


def trusting_context(roots: bytes) -> ssl.SSLContext:
    """What a client without a certificate connects with, that checks the server's name by ``roots`` (PEM); ALPN ``h2``.

    Raises `MeshError` for roots that do not parse.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cadata=b"".join(read_chain(roots)))
    except (ssl.SSLError, ValueError) as error:
        raise MeshError(f"TLS does not take the authority's roots: {error}") from None
    return context


def _context(certificate: Certificate, server: bool, roots: tuple[bytes, ...], tls12: bool) -> ssl.SSLContext:
    if server and tls12:
        # OpenSSL remembers TLS 1.2's sessions in the context, which `ssl` cannot forbid, and a resumed one has no
        # chain to check; a context of its own for each handshake knows none.
        return _make(certificate, server, roots, tls12)
    key = (server, roots, tls12)
    with _lock:  # proxies have a thread each and may share an authority
        kept = _contexts.setdefault(certificate, {})
        if key not in kept:
            kept[key] = _make(certificate, server, roots, tls12)
        return kept[key]


def _make(certificate: Certificate, server: bool, roots: tuple[bytes, ...], tls12: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if tls12 else ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    if server:
        context.num_tickets = 0
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_SUITES_12)
    choose: Callable[[str], None] | None = getattr(context, "set_ciphersuites", None)
    if choose is not None:
        choose(":".join(SUITES))
    context.set_alpn_protocols(["h2"])
    try:
        _load(context, certificate)
        context.load_verify_locations(cadata=b"".join(roots))
    except (ssl.SSLError, ValueError) as error:
        raise MeshError(f"TLS does not take the certificate of {certificate.identity}: {error}") from None
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Give ``context`` the chain and key; `ssl` takes them from a file only, so they are in one without a disk."""
    file = os.memfd_create("certificate")
    try:
        os.write(file, certificate.chain_pem + certificate.key)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


class Connection(Protocol):
    """A TLS connection after its handshake: `ssl.SSLObject` (asyncio's ``ssl_object``) or `ssl.SSLSocket`."""

    def cipher(self) -> tuple[str, str, int] | None: ...


def peer_chain(connection: Connection) -> tuple[bytes, ...]:
    """The chain by which the peer was trusted, DER, from its leaf to the root; for `verify_server`, `verify_client`.

    Raises `HandshakeError` where the peer has none or the connection's cipher suite is none of a mesh.

    What the peer sent is not enough for revocation (an issuer may be missing, others may be in it), and building the
    chain again could end in another one. Python has what OpenSSL verified from 3.13 on (``get_verified_chain``);
    3.10 to 3.12, which get security fixes only and so keep it, have the same function inside.
    """
    suite = connection.cipher()
    if suite is None or suite[0] not in _ALLOWED:
        raise HandshakeError(f"the cipher suite {suite[0] if suite else None} is none of {', '.join(SUITES)}")
    public: Callable[[], list[bytes]] | None = getattr(connection, "get_verified_chain", None)
    if public is not None:
        chain = tuple(public())
    else:
        inner: Any = getattr(connection, "_sslobj")  # noqa: B009 (mypy knows no such attribute)
        chain = tuple(
            ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in inner.get_verified_chain() or ()
        )
    if not chain:
        raise HandshakeError("the peer presented no certificate")
    return chain


def peer_identity(chain: Sequence[bytes]) -> Identity | None:
    """Who the peer is: the first SPIFFE identity of its leaf, None where it has none."""
    return next(iter(identities(chain[0])), None)


def verify_server(
    chain: Sequence[bytes],
    expected: Collection[str] | Collection[Identity],
    revocations: Revocations | None = None,
) -> Identity | None:
    """Whether the server behind `peer_chain` is one of ``expected``, and not revoked; who it is.

    Any URI name of the leaf must be any of the expected ones, to the letter. Raises `CertificateRevoked`,
    `WrongIdentity`, and `MeshError` for a certificate that does not parse.
    """
    if revocations is not None:
        revocations.check(chain)
    wanted = list(map(str, expected))
    presented = facts(chain[0]).uris
    if set(wanted).isdisjoint(presented):
        raise WrongIdentity(wanted, presented)
    matched = (identity for identity in identities(chain[0]) if str(identity) in wanted)
    return next(matched, peer_identity(chain))


def verify_client(
    chain: Sequence[bytes], trust_domain: str, revocations: Revocations | None = None
) -> Identity | None:
    """Whether the client behind `peer_chain` is of the server's trust domain, and not revoked; who it is.

    Raises `CertificateRevoked`, `WrongTrustDomain`, and `MeshError` for a certificate that does not parse.
    """
    if revocations is not None:
        revocations.check(chain)
    if not any(identity.trust_domain == trust_domain for identity in identities(chain[0])):
        raise WrongTrustDomain(trust_domain, facts(chain[0]).uris)
    return peer_identity(chain)


def failed_handshake(error: OSError) -> HandshakeError:
    """The error that a handshake's `ssl.SSLError` (or `OSError`) is to whoever reads logs."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return HandshakeError(f"invalid peer certificate: {error.verify_message}")
    reason = getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__
    return HandshakeError(reason)
