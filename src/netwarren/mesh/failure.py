"""Why the node proxy ended a connection: one error class each, with the response flag that metrics carry.

Rules: `flag` is the value of the label ``response_flags`` (Istio's standard metrics); texts are those of the access
log's ``error``; an error of another class that has an attribute `flag` counts as much as one of these.
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

HBONE_TIMED_OUT = "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008"


def flag_of(error: BaseException | None) -> str:
    """The label ``response_flags`` of a connection that ended with ``error``; ``-`` where it ended well."""
    if error is None:
        return "-"
    flag: str = getattr(error, "flag", "CONNECT")
    return flag


class ProxyError(MeshError):
    """A connection by way of the proxy failed; `flag` tells of what kind."""

    flag: ClassVar[ResponseFlag] = "CONNECT"


class ConnectionFailed(ProxyError):
    """The next hop, or the application, did not take the connection."""

    def __init__(self, why: object) -> None:
        super().__init__(f"connection failed: {why}")


class HboneTimedOut(ProxyError):
    """The next hop's HBONE port answered nothing in time."""

    flag = "NETWORK_POLICY"

    def __init__(self, why: object) -> None:
        super().__init__(f"{HBONE_TIMED_OUT}: {why}")


class TlsFailed(ProxyError):
    """The TLS handshake with the peer failed; RFC 8446, section 4."""

    flag = "TLS_FAILURE"

    def __init__(self, why: object) -> None:
        super().__init__(f"tls error: {why}")


class Http2Failed(ProxyError):
    """The peer does not speak HTTP/2 (RFC 9113) as it must, or ended it."""

    flag = "H2_HANDSHAKE_FAILURE"

    def __init__(self, why: object) -> None:
        super().__init__(f"http2 error: {why}")


class IdentityFailed(ProxyError):
    """There is no certificate for the workload, or the peer showed another identity than the expected."""

    flag = "IDENTITY_ERROR"

    def __init__(self, why: object) -> None:
        super().__init__(f"identity error: {why}")


class PolicyRejected(ProxyError):
    """An authorization policy does not let the connection in; ``why`` says which, in the words of RBAC."""

    flag = "DENY"

    def __init__(self, why: object) -> None:
        super().__init__(f"connection closed due to policy rejection: {why}")


class PolicyChanged(ProxyError):
    """The connection was let in, and would no longer be."""

    flag = "DENY"

    def __init__(self) -> None:
        super().__init__("connection closed due to policy change")


class CertificateRevoked(ProxyError):
    """The peer's certificate, or one of its issuers', has been revoked; RFC 5280, section 5."""

    flag = "CERT_REVOKED"

    def __init__(self) -> None:
        super().__init__("connection closed: peer certificate revoked by CRL")


class Drained(ProxyError):
    """The proxy, or the pod, ends, and the connection was still open."""

    def __init__(self) -> None:
        super().__init__("connection closed due to connection drain")
