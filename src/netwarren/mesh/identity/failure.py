"""What goes wrong with identities and TLS, with the response flag by which metrics and logs know it.

Rules: ``flag`` is one of Istio's response flags; the texts are those that ztunnel logs.
Does not belong here: deciding that something is wrong.
"""

from collections.abc import Iterable

from netwarren.errors import MeshError


def _list(names: Iterable[object]) -> str:
    return ",".join(map(str, names))


class TlsFailure(MeshError):
    """A handshake failed, or the peer is not whom TLS had to prove."""

    flag = "TLS_FAILURE"


class HandshakeError(TlsFailure):
    """TLS was not established: no certificate, one of another authority, an expired one, another version."""

    def __init__(self, why: object) -> None:
        super().__init__(f"tls handshake error: {why}")


class WrongIdentity(TlsFailure):
    """The server is none of those that were expected; ``expected`` and ``presented`` are SPIFFE URIs."""

    def __init__(self, expected: Iterable[object], presented: Iterable[object]) -> None:
        self.expected = tuple(map(str, expected))
        self.presented = tuple(map(str, presented))
        super().__init__(
            "identity verification error: peer did not present the expected SAN "
            f"({_list(self.expected)}), got {_list(self.presented)}"
        )


class WrongTrustDomain(TlsFailure):
    """The client is of another trust domain than the server it calls."""

    def __init__(self, trust_domain: str, presented: Iterable[object]) -> None:
        self.trust_domain = trust_domain
        self.presented = tuple(map(str, presented))
        super().__init__(
            "identity verification error: peer did not present the expected trustdomain "
            f"({trust_domain}), got {_list(self.presented)}"
        )


class IdentityError(MeshError):
    """A workload's own certificate cannot be had; ``identity`` is its SPIFFE URI."""

    flag = "IDENTITY_ERROR"

    def __init__(self, identity: object, why: object) -> None:
        self.identity = str(identity)
        self.why = str(why)
        super().__init__(f"no certificate for {identity}: {why}")
