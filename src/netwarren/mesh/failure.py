"""Why the node proxy ended a connection: one error class each, with the response flag that metrics carry.

Rules: `flag` is the value of the label ``response_flags`` (Istio's standard metrics); texts are those of the access
log's ``error``; an error of another class that has an attribute `flag` (of `hbone`, `identity`, `state`) counts as
much as one of these, which are nobody else's.
Does not belong here: deciding that a connection must end (see `state`), telling of it (see `telemetry`).
"""

from typing import ClassVar, Literal, TypeAlias

from netwarren.errors import MeshError

ResponseFlag: TypeAlias = Literal[
    "-",
    "DENY",
    "CONNECT",
    "TLS_FAILURE",
    "H2_HANDSHAKE_FAILURE",
    "NETWORK_POLICY",
    "IDENTITY_ERROR",
    "CERT_REVOKED",
]


def flag_of(error: BaseException | None) -> str:
    """The label ``response_flags`` of a connection that ended with ``error``; ``-`` where it ended well."""
    if error is None:
        return "-"
    flag: str = getattr(error, "flag", "CONNECT")
    return flag


class ProxyError(MeshError):
    """A connection by way of the proxy failed; `flag` tells of what kind."""

    flag: ClassVar[ResponseFlag] = "CONNECT"


class PolicyChanged(ProxyError):
    """The connection was let in, and would no longer be."""

    flag = "DENY"

    def __init__(self) -> None:
        super().__init__("connection closed due to policy change")


class CertificateRevoked(ProxyError):
    """The peer's certificate, or one of its issuers', has been revoked; ``serial`` says which, if that is known. RFC 5280, section 5."""

    flag = "CERT_REVOKED"

    def __init__(self, serial: int | None = None) -> None:
        self.serial = serial
        super().__init__("connection closed: peer certificate revoked by CRL")


class Drained(ProxyError):
    """The proxy, or the pod, ends, and the connection was still open."""

    def __init__(self) -> None:
        super().__init__("connection closed due to connection drain")
