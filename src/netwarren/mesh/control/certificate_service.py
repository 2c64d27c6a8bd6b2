"""Istio's certificate service: what a ztunnel asks its authority by gRPC, and what that answers.

Rules: pure; ``istio.v1.auth.IstioCertificateService`` (istio/api, ``security/v1alpha1/ca.proto``), as istio/ztunnel
asks it (`src/identity/caclient.rs`); PEM in both messages, the answer's last text being the roots.
Does not belong here: the call (see `grpc_server`, `grpc_client`), connections (see `server`, `endpoint`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from netwarren.errors import MeshError
from netwarren.mesh.control.schema import STRUCT, classes, decoded, encoded
from netwarren.mesh.identity import clock
from netwarren.mesh.identity.authority import DAY, Authority
from netwarren.mesh.identity.certificate import Certificate, to_pem
from netwarren.mesh.model import Identity

PATH = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
IMPERSONATED = "ImpersonatedIdentity"
"""In a request's metadata: whom a proxy asks for, that asks for others."""

_MESSAGES = classes(
    "istio.v1.auth",
    {
        "IstioCertificateRequest": "csr 1 string, validity_duration 3 int64, metadata 4 Struct",
        "IstioCertificateResponse": "cert_chain 1 *string",
        **STRUCT,
    },
)
_REQUEST, _RESPONSE = _MESSAGES["IstioCertificateRequest"], _MESSAGES["IstioCertificateResponse"]


class NewKey(NamedTuple):
    """A key of one's own, and the request to certify it; both PEM."""

    key: bytes
    request: bytes


def new_key(identity: Identity) -> NewKey:
    """An EC P-256 key and a request as ztunnel makes it: no subject, one critical URI name, SHA-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return NewKey(private, request.public_bytes(pem))


def encode_request(request: bytes, lifetime: float, impersonated: Identity | None = None) -> bytes:
    """The message that asks for a certificate of ``lifetime`` seconds, for another identity if given."""
    message = _REQUEST(csr=request.decode(), validity_duration=max(1, round(lifetime)))
    if impersonated is not None:
        message.metadata.fields.add(key=IMPERSONATED).value.string_value = str(impersonated)
    return encoded(message)


def decode_answer(data: bytes, identity: Identity, key: bytes) -> Certificate:
    """The certificate that an answer has for ``key``. Raises `MeshError`, also where it is another identity's."""
    chain = [text.encode() for text in decoded(_RESPONSE, data).cert_chain]
    if len(chain) < 2:
        raise MeshError(
            f"the authority's answer for {identity} has {len(chain)} parts, and not chain and root"
        )
    found = Certificate.read(b"".join(chain[:-1]), key, chain[-1])
    if found.identity != identity:
        raise MeshError(f"the authority was asked for {identity} and has answered with {found.identity}")
    return found


def methods(
    authority: Authority, now: Callable[[], float] = clock.now
) -> Mapping[str, Callable[[bytes], bytes]]:
    """What a server of the service does, by path (see `grpc_server`): whoever asks gets what it asks for."""
    return {PATH: partial(_create_certificate, authority, now)}


def _create_certificate(authority: Authority, now: Callable[[], float], data: bytes) -> bytes:
    asked = decoded(_REQUEST, data)
    wanted = {each.key: each.value.string_value for each in asked.metadata.fields}.get(IMPERSONATED)
    identity = Identity.parse(wanted) if wanted else None
    lifetime = float(asked.validity_duration) if asked.validity_duration > 0 else DAY
    chain = authority.sign(asked.csr.encode(), identity, lifetime=lifetime, now=now())
    texts = [*map(to_pem, chain), authority.roots_pem]
    return encoded(_RESPONSE(cert_chain=[each.decode() for each in texts]))
