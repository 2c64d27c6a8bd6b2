"""Certificates as ``/config_dump`` shows them.

Rules: public parts only; times in RFC 3339, serial numbers in decimal, PEM in base64, as Istio's tools read them.
Does not belong here: making and keeping certificates (see `identity`).
"""

import base64
from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from netwarren.mesh.model import Identity

AVAILABLE = "Available"
INITIALIZING = "Initializing"


def unavailable(error: object) -> str:
    """The state of an identity for which no certificate could be had."""
    return f"Unavailable: {error}"


def describe(
    identity: Identity,
    state: str,
    chain: Iterable[x509.Certificate] = (),
    roots: Iterable[x509.Certificate] = (),
) -> dict[str, object]:
    """One entry of ``certificates``: ``chain`` with the workload's own first, ``roots`` what it trusts."""
    return {
        "identity": str(identity),
        "state": state,
        "certChain": [describe_certificate(each) for each in chain],
        "rootCerts": [describe_certificate(each) for each in roots],
    }


def describe_certificate(certificate: x509.Certificate) -> dict[str, str]:
    """One certificate of a chain as ``/config_dump`` shows it."""
    return {
        "pem": base64.b64encode(certificate.public_bytes(Encoding.PEM)).decode(),
        "serialNumber": str(certificate.serial_number),
        "validFrom": _timestamp(certificate.not_valid_before_utc),
        "expirationTime": _timestamp(certificate.not_valid_after_utc),
    }


def _timestamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
