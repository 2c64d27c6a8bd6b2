"""Certificate revocation lists (RFC 5280, section 5): reading them, and whether a chain stands on one.

Rules: pure; as ztunnel checks: the whole chain, a certificate no list speaks of is good, a list never gets too old,
and a list that says it is an issuer's but is not signed by it makes that issuer's certificates fail.
Does not belong here: making lists (see `authority`), following a file (see `watch`).
"""

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from netwarren.errors import MeshError
from netwarren.mesh.failure import CertificateRevoked
from netwarren.mesh.identity.certificate import facts, parsed
from netwarren.mesh.identity.failure import HandshakeError

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_COMMENT = re.compile(rb"^[ \t]*#.*$", re.MULTILINE)
_DER_SEQUENCE = b"\x30"


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One list: whose it is (the issuer's name, DER), the serial numbers on it, and the list itself (DER)."""

    issuer: bytes
    serials: frozenset[int]
    der: bytes


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists that are known, of any number of issuers; without any nothing is revoked."""

    lists: tuple[RevocationList, ...] = ()

    @classmethod
    def read(cls, data: bytes) -> "Revocations":
        """The lists in ``data``: PEM, any number of them one after the other, or one in DER.

        Nothing, nothing but comments (lines that begin with #), and an empty block are no list. Raises `MeshError`
        for anything else, a list that lists changes only (delta) included.
        """
        if not _COMMENT.sub(b"", data).strip():
            return cls()
        if data.startswith(_DER_SEQUENCE):
            return cls((_read(data),))
        blocks = list(_BLOCK.finditer(data))
        if data.count(b"-----BEGIN ") != len(blocks) or not blocks:
            raise MeshError(
                "a revocation list is neither DER nor whole blocks of PEM (-----BEGIN X509 CRL-----)"
            )
        for block in blocks:
            if block[1] != b"X509 CRL":
                raise MeshError(f"a file of revocation lists has a block of {block[1].decode()!r}")
        return cls(tuple(_read(block[0], pem=True) for block in blocks if block[2].strip()))

    def check(self, chain: Sequence[bytes]) -> None:
        """Whether a verified chain (DER, leaf first, root last) is good; the root is not looked up.

        Raises `CertificateRevoked`, or `HandshakeError` where a list of an issuer in the chain is not signed by it.
        """
        if not self.lists:
            return
        for certificate, issuer in itertools.pairwise(chain):
            name = _subject(issuer)
            about = [each for each in self.lists if each.issuer == name]
            genuine = [each for each in about if _signed(each.der, issuer)]
            if about and not genuine:
                raise HandshakeError(
                    "the revocation list of the peer's issuer is not signed by that issuer; "
                    "make the list with the authority whose certificates are in use"
                )
            serial = facts(certificate).serial
            if any(serial in each.serials for each in genuine):
                raise CertificateRevoked(serial)


def _read(data: bytes, *, pem: bool = False) -> RevocationList:
    def parse() -> RevocationList:
        crl = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
        for extension in crl.extensions:
            if isinstance(extension.value, x509.DeltaCRLIndicator):
                raise MeshError(
                    "a revocation list has only the changes to another one (delta), which says too little"
                )
        return RevocationList(
            crl.issuer.public_bytes(),
            frozenset(entry.serial_number for entry in crl),
            crl.public_bytes(serialization.Encoding.DER),
        )

    return parsed("a revocation list", parse)


@functools.lru_cache(maxsize=256)
def _subject(certificate: bytes) -> bytes:
    return parsed("a certificate", lambda: x509.load_der_x509_certificate(certificate).subject.public_bytes())


@functools.lru_cache(maxsize=256)
def _signed(crl: bytes, issuer: bytes) -> bool:
    """Whether ``issuer`` signed the list and may sign lists; kept, since each connection asks about the same two."""

    def verify() -> bool:
        certificate = x509.load_der_x509_certificate(issuer)
        try:
            usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
            if not usage.crl_sign:
                return False
        except x509.ExtensionNotFound:
            pass
        # The cast: an issuer's key of a kind that signs nothing (X25519) is a TypeError, which is a MeshError here.
        return x509.load_der_x509_crl(crl).is_signature_valid(certificate.public_key())  # type: ignore[arg-type]

    return parsed("an issuer's certificate", verify)
