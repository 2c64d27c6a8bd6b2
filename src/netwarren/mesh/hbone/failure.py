"""What goes wrong with a tunnel, with the response flag that access logs and metrics show for it.

Rules: ``flag`` is one of the values of Istio's response flags as ztunnel writes them; errors that only say that the
other side went away are `ConnectionResetError` or `BrokenPipeError` too, which a copy takes for an end.
Does not belong here: flags of decisions and policies.
"""

from http import HTTPStatus

from netwarren.errors import MeshError


class TlsFailure(MeshError):
    """The TLS handshake failed, the peer is not who it must be, or a record was not what it must be."""

    flag = "TLS_FAILURE"


class Http2Failure(MeshError):
    """The peer's HTTP/2 is not to be followed; ``code`` is the error code that it was told (RFC 9113, section 7)."""

    flag = "H2_HANDSHAKE_FAILURE"

    def __init__(self, text: str, code: int = 1) -> None:
        self.code = code
        super().__init__(text)


class StreamReset(Http2Failure):
    """The peer reset one stream with an error, or refused to take it (RFC 9113, section 8.7)."""


class ConnectionLost(Http2Failure, ConnectionResetError):
    """The connection beneath a stream ended before the stream did."""


class StreamGone(Http2Failure, BrokenPipeError):
    """Written to a stream that can carry nothing more."""


class ConnectRefused(MeshError):
    """The peer answered CONNECT with another status than 200."""

    flag = "CONNECT"

    def __init__(self, status: int, authority: str) -> None:
        self.status = status
        self.authority = authority
        try:
            phrase = f" {HTTPStatus(status).phrase}"
        except ValueError:
            phrase = ""
        super().__init__(f"http status: {status}{phrase} (CONNECT {authority})")


class ConnectFailed(MeshError):
    """TCP to the next hop failed."""

    flag = "CONNECT"

    def __init__(self, destination: object, reason: object) -> None:
        self.destination = str(destination)
        super().__init__(f"connection failed: {destination}: {reason}")


class ConnectTimedOut(MeshError):
    """TCP to a peer's HBONE port got no answer in ``seconds``, as where a NetworkPolicy drops it."""

    flag = "NETWORK_POLICY"

    def __init__(self, destination: object, seconds: float) -> None:
        self.destination = str(destination)
        super().__init__(
            "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: "
            f"{destination} did not answer within {seconds:g} s"
        )
