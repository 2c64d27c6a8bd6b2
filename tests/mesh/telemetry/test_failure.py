"""Errors of connections and their response flags."""

import pickle

import pytest

from netwarren.errors import MeshError
from netwarren.mesh import failure
from netwarren.mesh.hbone import failure as hbone
from netwarren.mesh.identity import failure as identity
from netwarren.mesh.state.rbac import Verdict
from netwarren.mesh.state.refusals import PolicyRejection


@pytest.mark.parametrize(
    ("error", "flag", "text"),
    [
        (hbone.ConnectFailed("10.0.0.1:80", "refused"), "CONNECT", "connection failed: 10.0.0.1:80: refused"),
        (
            hbone.ConnectTimedOut("10.0.0.1:15008", 10),
            "NETWORK_POLICY",
            "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: "
            "10.0.0.1:15008 did not answer within 10 s",
        ),
        (hbone.TlsFailure("alert"), "TLS_FAILURE", "alert"),
        (hbone.Http2Failure("preface"), "H2_HANDSHAKE_FAILURE", "preface"),
        (identity.HandshakeError("alert"), "TLS_FAILURE", "tls handshake error: alert"),
        (identity.IdentityError("us", "none"), "IDENTITY_ERROR", "no certificate for us: none"),
        (
            PolicyRejection(Verdict(False)),
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
def test_each_error_has_its_flag_and_its_text(error: MeshError, flag: str, text: str) -> None:
    assert failure.flag_of(error) == flag
    assert str(error) == text
    assert isinstance(error, MeshError)
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), failure.flag_of(copied)) == (type(error), text, flag)


def test_no_error_is_a_dash_and_a_strange_one_a_failure_to_connect() -> None:
    assert failure.flag_of(None) == "-"
    assert failure.flag_of(OSError(111, "refused")) == "CONNECT"


def test_a_flag_counts_on_an_error_of_any_class() -> None:
    class Strange(Exception):
        flag = "TLS_FAILURE"

    assert failure.flag_of(Strange()) == "TLS_FAILURE"
