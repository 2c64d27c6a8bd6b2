"""Reading revocation lists, and which chains they cut."""

import contextlib
import shutil
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from netwarren.errors import MeshError
from netwarren.mesh.failure import CertificateRevoked
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate import Certificate, timestamp
from netwarren.mesh.identity.crl import Revocations
from netwarren.mesh.identity.failure import HandshakeError
from tests.mesh.identity.peers import CLIENT, SERVER

KEY_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
NOW = 1_800_000_000.0
AUTHORITY = Authority(now=NOW)
GOOD, BAD = AUTHORITY.issue(CLIENT, now=NOW), AUTHORITY.issue(CLIENT, now=NOW)
LIST = AUTHORITY.revoke(BAD, now=NOW)


def chain(certificate: Certificate) -> tuple[bytes, ...]:
    return (*certificate.chain, certificate.roots[0])


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_crl(pem).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    "data", [LIST, der(LIST), b"# a comment\n" + LIST + b"\n\n"], ids=["PEM", "DER", "comment"]
)
def test_a_list_cuts_whom_it_names_and_nobody_else(data: bytes) -> None:
    revocations = Revocations.read(data)
    revocations.check(chain(GOOD))
    with pytest.raises(CertificateRevoked) as caught:
        revocations.check(chain(BAD))
    assert caught.value.serial == BAD.serial


EMPTY = b"-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"


@pytest.mark.parametrize(
    "data",
    [b"", b"\n \n", b"# nobody yet\n\n  # (since Monday)\n", EMPTY, b"# a comment\n" + EMPTY + EMPTY],
    ids=["empty", "blank", "comments", "empty block", "empty blocks"],
)
def test_a_file_without_a_list_revokes_nothing(data: bytes) -> None:
    assert Revocations.read(data) == Revocations()
    Revocations.read(data).check(chain(BAD))


def test_an_empty_block_hides_no_list_beside_it() -> None:
    with pytest.raises(CertificateRevoked):
        Revocations.read(EMPTY + LIST).check(chain(BAD))


def test_lists_of_several_issuers_stand_in_one_file() -> None:
    other = Authority("example.org", now=NOW)
    theirs = other.issue(SERVER, now=NOW)
    revocations = Revocations.read(other.revoke(theirs, now=NOW) + LIST)
    assert len(revocations.lists) == 2
    for certificate in (theirs, BAD):
        with pytest.raises(CertificateRevoked):
            revocations.check(chain(certificate))
    revocations.check(chain(GOOD))


def test_who_has_no_list_is_good() -> None:
    stranger = Authority("example.org", now=NOW).issue(SERVER, now=NOW)
    Revocations.read(LIST).check(chain(stranger))


def test_a_list_never_gets_too_old() -> None:
    authority = Authority(now=NOW)
    leaf = authority.issue(CLIENT, now=NOW)
    authority.revoke(leaf, now=1_000_000_000)
    stale = Revocations.read(authority.crl(now=1_000_000_000, lifetime=1))
    with pytest.raises(CertificateRevoked):
        stale.check(chain(leaf))


def test_every_certificate_of_the_chain_but_the_root_is_looked_up() -> None:
    root = Authority(now=NOW)
    middle = root.intermediate("middle", now=NOW)
    lower = middle.intermediate("lower", now=NOW)
    leaf = chain(lower.issue(CLIENT, now=NOW))
    assert len(leaf) == 4
    Revocations.read(root.crl(now=NOW) + middle.crl(now=NOW) + lower.crl(now=NOW)).check(leaf)
    with pytest.raises(CertificateRevoked):
        Revocations.read(root.revoke(middle, now=NOW)).check(leaf)
    with pytest.raises(CertificateRevoked):
        Revocations.read(middle.revoke(lower, now=NOW)).check(leaf)


def test_a_list_that_its_issuer_did_not_sign_makes_the_certificates_fail() -> None:
    forged = Authority(now=NOW).revoke(BAD, now=NOW)  # another authority of the same name
    for certificate in (GOOD, BAD):
        with pytest.raises(HandshakeError, match="not signed by that issuer"):
            Revocations.read(forged).check(chain(certificate))


def test_of_two_issuers_with_one_name_each_list_counts_for_its_own() -> None:
    other = Authority(now=NOW)
    theirs = other.issue(SERVER, now=NOW)
    revocations = Revocations.read(other.revoke(theirs, now=NOW) + LIST)
    revocations.check(chain(GOOD))
    for certificate in (theirs, BAD):
        with pytest.raises(CertificateRevoked):
            revocations.check(chain(certificate))


def test_revoking_adds_to_what_is_revoked() -> None:
    authority = Authority(now=NOW)
    one, other, third = (authority.issue(CLIENT, now=NOW) for _ in range(3))
    authority.revoke(one, now=NOW)
    (known,) = Revocations.read(authority.revoke(other, other, now=NOW + 1)).lists
    assert known.serials == {one.serial, other.serial}
    assert third.serial not in known.serials


def test_a_list_says_when_why_and_until_when() -> None:
    crl = x509.load_pem_x509_crl(LIST)
    entry = crl.get_revoked_certificate_by_serial_number(BAD.serial)
    assert entry is not None
    assert entry.revocation_date_utc == crl.last_update_utc == timestamp(NOW)
    assert (
        entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        == x509.ReasonFlags.key_compromise
    )
    assert crl.next_update_utc == timestamp(NOW + 30 * 86400)
    assert crl.issuer.rfc4514_string() == "O=cluster.local"


def test_a_list_of_an_issuer_that_may_sign_none_makes_the_certificates_fail() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issues only")])
    usage = x509.KeyUsage(*(each == "key_cert_sign" for each in KEY_USAGES))
    issuer = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(timestamp(NOW))
        .not_valid_after(timestamp(NOW + 1))
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    crl = x509.CertificateRevocationListBuilder(name, timestamp(NOW), timestamp(NOW + 1)).sign(
        key, hashes.SHA256()
    )
    with pytest.raises(HandshakeError, match="not signed by that issuer"):
        Revocations.read(crl.public_bytes(serialization.Encoding.PEM)).check((GOOD.chain[0], issuer))


def build(*extensions: x509.ExtensionType) -> bytes:
    builder = x509.CertificateRevocationListBuilder(x509.Name([]), timestamp(NOW), timestamp(NOW + 1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    key = ec.generate_private_key(ec.SECP256R1())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"not a valid CRL", "neither DER nor whole blocks of PEM"),
        (b"# a comment\nnot a valid CRL", "neither DER nor whole blocks of PEM"),
        (b"\x00\x01\x02", "neither DER nor whole blocks of PEM"),
        (LIST[: len(LIST) // 2], "neither DER nor whole blocks of PEM"),
        (LIST + b"-----BEGIN X509 CRL-----\n", "neither DER nor whole blocks of PEM"),
        (GOOD.chain_pem, "a block of 'CERTIFICATE'"),
        (GOOD.chain[0], "a revocation list cannot be read"),
        (der(LIST)[:-1], "a revocation list cannot be read"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "a revocation list cannot be read"),
        (build(x509.DeltaCRLIndicator(1)), "delta"),
    ],
)
def test_what_is_no_list_is_one_error(data: bytes, why: str) -> None:
    with pytest.raises(MeshError, match=why):
        Revocations.read(data)


@given(st.binary(max_size=400))
@example(b"0")
@example(b"-----BEGIN X509 CRL-----\n-----END X509 CRL-----")
def test_garbage_is_one_error_or_nothing(data: bytes) -> None:
    with contextlib.suppress(MeshError):
        assert Revocations.read(data) == Revocations()


SIGNED = x509.load_pem_x509_crl(LIST).tbs_certlist_bytes
"""The part of the list that its signature is of; what is around it can be written in more than one way."""


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_a_list_with_a_wrong_byte_revokes_nobody(position: int, change: int) -> None:
    data = bytearray(der(LIST))
    data[data.index(SIGNED) + position] ^= change
    try:
        Revocations.read(bytes(data)).check(chain(BAD))
    except CertificateRevoked:
        pytest.fail("a certificate was revoked by a list that nobody signed")
    except MeshError:
        pass


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl program")
def test_openssl_reads_the_list() -> None:
    shown = subprocess.run(
        ["openssl", "crl", "-noout", "-text"], input=LIST, capture_output=True, check=True, timeout=60
    ).stdout.decode()
    assert "Version 2" in shown
    assert "Key Compromise" in shown
    assert BAD.serial.to_bytes((BAD.serial.bit_length() + 7) // 8).hex().upper() in shown
