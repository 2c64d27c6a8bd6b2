"""A certificate authority for tests: a root, intermediates where wanted, SPIFFE leaves, revocation lists.

Rules: keys stay in memory; time is a parameter; what it issues is valid to OpenSSL in its strict mode (Python 3.13's
default contexts), BoringSSL (Envoy) and rustls (ztunnel).
Does not belong here: keeping certificates fresh (see `secrets`), judging them (see `tls` and `crl`).
"""

import ipaddress
import random
import threading
from collections.abc import Awaitable, Callable, Collection
from typing import Literal, Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from netwarren.errors import MeshError
from netwarren.mesh.identity import clock
from netwarren.mesh.identity.certificate import Certificate, facts, parsed, timestamp, to_pem
from netwarren.mesh.model import Identity

RootKey: TypeAlias = Literal["ec", "rsa"]
Purpose: TypeAlias = Literal["server", "client"]
_Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DAY = 86400.0
_PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


def _usage(**allowed: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in names})


_SIGNS = _usage(key_cert_sign=True, crl_sign=True)
_SPEAKS = _usage(digital_signature=True, key_encipherment=True)


class Authority:
    """A test's certificate authority, named after its trust domain; it issues to identities of any trust domain.

    The root's key is EC P-256 (0.1 ms to make, 0.2 ms a signature) or, with ``key="rsa"`` as Istio's own root is,
    RSA-2048 (50 to 250 ms, 2 ms). All its leaves share one EC P-256 key, as those of ztunnel's test authority do:
    what tells them apart is the name. Serial numbers are 159 random bits; ``rng`` makes them repeatable.

    With an ``issuer`` it is an intermediate called ``name`` (see `intermediate`), which shares the leaves' key.

    Leaves have an empty subject (one that equals the issuer's would pass for self-signed) with the identity as
    critical name (RFC 5280, 4.2.1.6), and name their issuer's key, which OpenSSL's strict mode asks for.
    """

    def __init__(
        self,
        trust_domain: str = "cluster.local",
        *,
        key: RootKey = "ec",
        now: float | None = None,
        rng: random.Random | None = None,
        issuer: "Authority | None" = None,
        name: str = "",
    ) -> None:
        self.trust_domain = trust_domain
        self._key = _make_key(key)
        self._rng: random.Random = rng or (issuer._rng if issuer else random.SystemRandom())
        self._refused: dict[Identity, str] = {}
        self._revoked: dict[int, float] = {}
        self._issued: dict[Identity, tuple[int, ...]] = {}
        self._lists = 0
        self._lock = threading.Lock()  # proxies have a thread each
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)]
        attributes += [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
        self._name = x509.Name(attributes)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        self._leaf_key: ec.EllipticCurvePrivateKey = (
            issuer._leaf_key if issuer else ec.generate_private_key(ec.SECP256R1())
        )
        self._leaf_id = x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key())
        self._leaf_pem = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.certificate = self._certified(issuer or self, own, clock.now() if now is None else now)
        self.chain: tuple[bytes, ...] = (self.certificate, *issuer.chain) if issuer else ()
        self._issuer = issuer
        self._trusted: tuple[bytes, ...] = () if issuer else (self.certificate,)

    def _certified(self, issuer: "Authority", own: x509.SubjectKeyIdentifier, now: float) -> bytes:
        builder = (
            x509.CertificateBuilder(issuer._name, self._name, self._key.public_key())
            .serial_number(self._serial())
            .not_valid_before(timestamp(now - DAY))
            .not_valid_after(timestamp(now + 3650 * DAY))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS, critical=True)
            .add_extension(own, critical=False)
            .add_extension(issuer._key_id, critical=False)
        )
        return _der(builder.sign(issuer._key, hashes.SHA256()))

    def __repr__(self) -> str:
        return f"<Authority {self.trust_domain}>"

    @property
    def roots(self) -> tuple[bytes, ...]:
        """What its leaves' holders trust (DER): its own root and those of `trust`."""
        return (self._issuer.roots if self._issuer else ()) + self._trusted

    @property
    def roots_pem(self) -> bytes:
        """`roots`, as PEM."""
        return to_pem(*self.roots)

    def intermediate(self, name: str, *, now: float | None = None) -> "Authority":
        """Another authority under this one, whose leaves carry its certificate in their chain."""
        return Authority(self.trust_domain, now=now, issuer=self, name=name)

    def trust(self, *others: "Authority") -> Self:
        """Whoever gets a certificate from now on trusts these authorities' leaves too: a mesh of several roots."""
        for each in others:
            self._trusted += tuple(root for root in each.roots if root not in self.roots)
        return self

    def issue(
        self,
        identity: Identity,
        *,
        lifetime: float = DAY,
        now: float | None = None,
        purposes: Collection[Purpose] = ("server", "client"),
        hosts: Collection[str] = (),
    ) -> Certificate:
        """A certificate for ``identity`` that is valid for ``lifetime`` seconds from ``now`` (default: this moment).

        X.509 knows whole seconds: it begins up to one second earlier and ends up to one later. A negative lifetime
        gives one that has expired. ``hosts`` are names and addresses by which others know its holder besides, as
        a server whose name clients check. Raises `MeshError` for an identity that was refused (`refuse`).
        """
        names = [_general_name(each) for each in hosts]
        public, own = self._leaf_key.public_key(), self._leaf_id
        leaf = self._leaf(identity, public, own, lifetime=lifetime, now=now, purposes=purposes, names=names)
        return Certificate.of(identity, (leaf, *self.chain), self.roots, self._leaf_pem)

    def sign(
        self,
        request: bytes,
        identity: Identity | None = None,
        *,
        lifetime: float = DAY,
        now: float | None = None,
    ) -> tuple[bytes, ...]:
        """The chain (DER, leaf first, without the root) that certifies a request's key (PEM; RFC 2986).

        It is for ``identity``, or else for the one that the request names, and otherwise as `issue` has it. Raises
        `MeshError` for what is no request, is not signed with its own key, or names no SPIFFE identity.
        """

        def parse() -> tuple[x509.CertificateSigningRequest, list[str]]:
            read = x509.load_pem_x509_csr(request)
            if not read.is_signature_valid:
                raise MeshError("a certificate's request is not signed with the key that is in it")
            try:
                found = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            except x509.ExtensionNotFound:
                return read, []
            return read, found.get_values_for_type(x509.UniformResourceIdentifier)

        read, uris = parsed("a certificate's request", parse)
        key = read.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise MeshError(f"a certificate's request has a key of a kind that is not certified: {key!r}")
        if identity is None:
            if len(uris) != 1:
                raise MeshError(f"a certificate's request names {len(uris)} identities, not one: {uris}")
            identity = Identity.parse(uris[0])
        own = x509.SubjectKeyIdentifier.from_public_key(key)
        return self._leaf(identity, key, own, lifetime=lifetime, now=now), *self.chain

    def _leaf(
        self,
        identity: Identity,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        own: x509.SubjectKeyIdentifier,
        *,
        lifetime: float,
        now: float | None,
        purposes: Collection[Purpose] = ("server", "client"),
        names: Collection[x509.GeneralName] = (),
    ) -> bytes:
        if identity in self._refused:
            raise MeshError(f"{self!r} refuses {identity}: {self._refused[identity]}")
        begin = clock.now() if now is None else now
        end = begin + lifetime
        subject = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity)), *names])
        usages = x509.ExtendedKeyUsage([_PURPOSES[purpose] for purpose in purposes])
        serial = self._serial()
        builder = (
            x509.CertificateBuilder(self._name, x509.Name([]), key)
            .serial_number(serial)
            .not_valid_before(timestamp(min(begin, end - 1)))
            .not_valid_after(timestamp(end, up=True))
            .add_extension(subject, critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_SPEAKS, critical=True)
            .add_extension(usages, critical=False)
            .add_extension(own, critical=False)
            .add_extension(self._key_id, critical=False)
        )
        leaf = _der(builder.sign(self._key, hashes.SHA256()))
        with self._lock:
            self._issued[identity] = (*self._issued.get(identity, ()), serial)
        return leaf

    def fetcher(
        self, *, lifetime: float = DAY, now: Callable[[], float] = clock.now
    ) -> Callable[[Identity], Awaitable[Certificate]]:
        """What a `SecretManager` asks for certificates, each valid for ``lifetime`` seconds."""

        async def fetch(identity: Identity) -> Certificate:
            return self.issue(identity, lifetime=lifetime, now=now())

        return fetch

    def refuse(self, identity: Identity, why: str = "the test asked for it") -> None:
        """From now on, until `allow`, `issue` raises for this identity: a fault to order."""
        self._refused[identity] = why

    def allow(self, identity: Identity) -> None:
        """End of `refuse`; nothing where it was not refused."""
        self._refused.pop(identity, None)

    def revoke(self, *revoked: "Certificate | Authority | Identity", now: float | None = None) -> bytes:
        """Put what this authority issued on its list for good; the new list, as `crl` gives it.

        That is leaves, intermediates, and of an identity all that was issued to it so far.
        """
        moment = clock.now() if now is None else now
        for each in revoked:
            for serial in self._serials(each):
                self._revoked.setdefault(serial, moment)
        return self.crl(now=moment)

    def _serials(self, of: "Certificate | Authority | Identity") -> Collection[int]:
        match of:
            case Identity():
                return self._issued.get(of, ())
            case Authority():
                return (facts(of.certificate).serial,)
            case _:
                return (facts(of.chain[0]).serial,)

    def crl(self, *, now: float | None = None, lifetime: float = 30 * DAY) -> bytes:
        """The list of what is revoked (RFC 5280, 5), PEM, with the reason keyCompromise; signed by this authority."""
        moment = clock.now() if now is None else now
        self._lists += 1
        reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(timestamp(min(moment, moment + lifetime - 1)))
            .next_update(timestamp(moment + lifetime, up=True))
            .add_extension(x509.CRLNumber(self._lists), critical=False)
            .add_extension(self._key_id, critical=False)
        )
        for serial, since in self._revoked.items():
            entry = x509.RevokedCertificateBuilder(serial, timestamp(since)).add_extension(
                reason, critical=False
            )
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _serial(self) -> int:
        return self._rng.getrandbits(159) or 1  # 20 bytes of which the top bit is clear (RFC 5280, 4.1.2.2)


def _make_key(kind: RootKey) -> _Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
