"""Certificates as they are dumped."""

import base64
from datetime import UTC, datetime
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from netwarren.mesh.identity.certificate import Certificate
from netwarren.mesh.identity.secrets import SecretState
from netwarren.mesh.model import Identity

IDENTITY = Identity("cluster.local", "default", "client")


def _certificate(serial: int) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "cluster.local")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )


def test_an_identity_is_dumped_with_its_chain_and_its_roots() -> None:
    leaf, root = _certificate(2**150 + 1), _certificate(7)
    chain, roots = (each.public_bytes(serialization.Encoding.DER) for each in (leaf, root))
    held = Certificate(IDENTITY, (chain,), (roots,), b"", 0, 0, leaf.serial_number)
    dump = SecretState(IDENTITY, "Available", held).described()
    assert list(dump) == ["identity", "state", "certChain", "rootCerts"]
    assert dump["identity"] == "spiffe://cluster.local/ns/default/sa/client"
    assert dump["state"] == "Available"
    (shown,) = cast(list[dict[str, str]], dump["certChain"])
    assert x509.load_pem_x509_certificate(base64.b64decode(shown.pop("pem"))) == leaf
    assert shown == {
        "serialNumber": str(2**150 + 1),
        "validFrom": "2026-01-02T03:04:05Z",
        "expirationTime": "2027-01-02T03:04:05Z",
    }
    assert [each["serialNumber"] for each in cast(list[dict[str, str]], dump["rootCerts"])] == ["7"]


def test_an_identity_without_a_certificate_says_why() -> None:
    assert SecretState(IDENTITY, "Initializing", None).described()["state"] == "Initializing"
    assert SecretState(IDENTITY, "Unavailable: CA is gone", None).described() == {
        "identity": str(IDENTITY),
        "state": "Unavailable: CA is gone",
        "certChain": [],
        "rootCerts": [],
    }
