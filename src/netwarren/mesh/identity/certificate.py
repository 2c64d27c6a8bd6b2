"""A workload's certificate: its identity, chain, key and roots, as data; reading those that others made.

Rules: frozen; certificates are DER, the key is PEM (PKCS #8) in memory; what does not parse is one `MeshError`.
Does not belong here: issuing (see `authority`), trusting (see `tls`).
"""

import base64
import functools
import math
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from netwarren.errors import MeshError
from netwarren.mesh.model import Identity

T = TypeVar("T")


def parsed(what: str, parse: Callable[[], T]) -> T:
    """What ``parse`` gives; anything it raises is a `MeshError` that names ``what``.

    The parsers of `cryptography` raise many classes (warnings too, where those are errors), none of which tells
    more than that the bytes are not what they are said to be.
    """
    try:
        return parse()
    except MeshError:
        raise
    except Exception as error:
        why = (str(error) or type(error).__name__).split("\n", 1)[0]
        raise MeshError(f"{what} cannot be read: {why}") from None


class Described(NamedTuple):
    """One certificate as an admin page shows it; the fields are those of ztunnel's ``/config_dump``."""

    pem: str
    """Base64 of the PEM."""
    serialNumber: str
    """Decimal."""
    validFrom: str
    """RFC 3339, UTC."""
    expirationTime: str


class Facts(NamedTuple):
    """What is asked of a parsed certificate again and again."""

    serial: int
    not_before: float
    not_after: float
    uris: tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def facts(der: bytes) -> Facts:
    """The serial number, validity (seconds since 1970) and URI names of a certificate; raises `MeshError`.

    Kept per certificate, since a mesh's peers present the same few ones on every connection.
    """

    def parse() -> Facts:
        certificate = x509.load_der_x509_certificate(der)
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
        except x509.ExtensionNotFound:
            uris = ()
        return Facts(
            certificate.serial_number,
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
            uris,
        )

    return parsed("a certificate", parse)


def identities(der: bytes) -> tuple[Identity, ...]:
    """The SPIFFE identities among a certificate's URI names, in their order; raises `MeshError` as `facts` does."""
    found = []
    for uri in facts(der).uris:
        try:
            found.append(Identity.parse(uri))
        except MeshError:  # another kind of URI, which a certificate may well carry
            pass
    return tuple(found)


def read_chain(pem: bytes) -> tuple[bytes, ...]:
    """The certificates in PEM text, as DER in their order; ``b""`` has none. Raises `MeshError`."""

    def parse() -> tuple[bytes, ...]:
        return tuple(
            certificate.public_bytes(serialization.Encoding.DER)
            for certificate in x509.load_pem_x509_certificates(pem)
        )

    return parsed("a chain of certificates", parse) if pem.strip() else ()


def to_pem(*certificates: bytes) -> bytes:
    """Certificates as PEM text, one after the other."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates)).encode()


def describe(der: bytes) -> Described:
    """A certificate as the admin server's dump shows it; raises `MeshError`."""
    known = facts(der)
    return Described(
        base64.b64encode(to_pem(der)).decode(),
        str(known.serial),
        _time(known.not_before),
        _time(known.not_after),
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(seconds: float, *, up: bool = False) -> datetime:
    """A time as X.509 can say it, in whole seconds: the one before, or (``up``) the one after."""
    return datetime.fromtimestamp(math.ceil(seconds) if up else math.floor(seconds), UTC)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Certificate:
    """A workload's certificate with its key, as a proxy uses it; times in seconds since 1970.

    ``chain`` is DER, the leaf first, intermediates after it, without the root; ``roots`` (DER) are those that
    its holder trusts; ``key`` is PEM (PKCS #8, not encrypted) and is meant to stay in memory.
    """

    identity: Identity
    chain: tuple[bytes, ...]
    roots: tuple[bytes, ...]
    key: bytes = field(repr=False)
    not_before: float
    not_after: float
    serial: int

    @classmethod
    def read(cls, chain: bytes, key: bytes, roots: bytes = b"", *, now: float | None = None) -> Self:
        """A certificate made elsewhere, from PEM: the chain leaf first, its key, the roots to trust.

        Without ``roots`` the chain's last certificate is the root, as Istio's authority answers. Raises
        `MeshError` for what does not parse, a leaf without SPIFFE identity, no root, the key of another and,
        where ``now`` (seconds since 1970) is given, a leaf that is not valid then.
        """
        certificates = read_chain(chain)
        trusted = read_chain(roots) or certificates[1:][-1:]
        if not certificates or not trusted:
            raise MeshError("a chain has at least a leaf and, where no roots are given, the root after it")
        leaf = certificates[0]
        names = identities(leaf)
        if not names:
            raise MeshError(f"a certificate has no SPIFFE identity among its URIs {list(facts(leaf).uris)}")

        def parse() -> bytes:
            private = serialization.load_pem_private_key(key, password=None)
            info = serialization.PublicFormat.SubjectPublicKeyInfo
            public = x509.load_der_x509_certificate(leaf).public_key()
            own, other = (
                each.public_bytes(serialization.Encoding.DER, info) for each in (private.public_key(), public)
            )
            if own != other:
                raise MeshError(f"the key is not that of the certificate of {names[0]}")
            return private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )

        path = tuple(each for each in certificates if each not in trusted) or (leaf,)
        read = cls.of(names[0], path, trusted, parsed(f"the key of {names[0]}", parse))
        if now is not None and not read.not_before <= now <= read.not_after:
            raise MeshError(
                f"the certificate of {names[0]} is valid from {_time(read.not_before)} until "
                f"{_time(read.not_after)}, which {_time(now)} is not in; have it issued anew"
            )
        return read

    @classmethod
    def of(cls, identity: Identity, chain: tuple[bytes, ...], roots: tuple[bytes, ...], key: bytes) -> Self:
        """The certificate with the serial number and validity that its leaf has; raises `MeshError`."""
        leaf = facts(chain[0])
        return cls(identity, chain, roots, key, leaf.not_before, leaf.not_after, leaf.serial)

    @property
    def half_life(self) -> float:
        """When it is time to renew: in the middle of its life."""
        return (self.not_before + self.not_after) / 2

    def expired(self, now: float) -> bool:
        """Whether its life is over at ``now``."""
        return now > self.not_after

    @property
    def chain_pem(self) -> bytes:
        """The chain as other programs want it (Envoy's ``certificate_chain``), the leaf first."""
        return to_pem(*self.chain)

    @property
    def roots_pem(self) -> bytes:
        """The roots as other programs want them (Envoy's ``trusted_ca``)."""
        return to_pem(*self.roots)
