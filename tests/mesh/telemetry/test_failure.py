"""Errors of connections and their response flags."""

import pickle

import pytest

from netwarren.errors import MeshError
from netwarren.mesh import failure


@pytest.mark.parametrize(
    ("error", "flag", "text"),
    [
        (failure.ConnectionFailed("refused"), "CONNECT", "connection failed: refused"),
        (
            failure.HboneTimedOut("10.0.0.1:15008"),
            "NETWORK_POLICY",
            "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: 10.0.0.1:15008",
        ),
        (failure.TlsFailed("alert"), "TLS_FAILURE", "tls error: alert"),
        (failure.Http2Failed("preface"), "H2_HANDSHAKE_FAILURE", "http2 error: preface"),
        (failure.IdentityFailed("none"), "IDENTITY_ERROR", "identity error: none"),
        (
            failure.PolicyRejected("allow policies exist, but none allowed"),
            "DENY",
            "connection closed due to policy rejection: allow policies exist, but none allowed",
        ),
        (failure.PolicyChanged(), "DENY", "connection closed due to policy change"),
        (
            failure.CertificateRevoked(),
            "CERT_REVOKED",
            "connection closed: peer certificate revoked by CRL",
        ),
        (failure.Drained(), "CONNECT", "connection closed due to connection drain"),
    ],
)
def test_each_error_has_its_flag_and_its_text(error: failure.ProxyError, flag: str, text: str) -> None:
    assert failure.flag_of(error) == flag
    assert str(error) == text
    assert isinstance(error, MeshError)
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), copied.flag) == (type(error), text, flag)


def test_no_error_is_a_dash_and_a_strange_one_a_failure_to_connect() -> None:
    assert failure.flag_of(None) == "-"
    assert failure.flag_of(OSError(111, "refused")) == "CONNECT"


def test_a_flag_counts_on_an_error_of_any_class() -> None:
    class Strange(Exception):
        flag = "TLS_FAILURE"

    assert failure.flag_of(Strange()) == "TLS_FAILURE"
