"""Certificates as data, and those that were made elsewhere."""

import base64
import contextlib
import pickle
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from netwarren.errors import MeshError
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate import (
    Certificate,
    describe,
    facts,
    identities,
    read_chain,
    timestamp,
)
from netwarren.mesh.model import Identity
from tests.mesh.identity.peers import CLIENT

AUTHORITY = Authority(now=1_800_000_000)
LEAF = AUTHORITY.issue(CLIENT, lifetime=3600, now=1_800_000_000)


def with_names(*uris: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1)
        .not_valid_before(timestamp(1_800_000_000))
        .not_valid_after(timestamp(1_800_000_001))
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_its_description_is_what_the_admin_page_shows() -> None:
    shown = describe(LEAF.chain[0])
    assert base64.b64decode(shown.pem) == ssl.DER_cert_to_PEM_cert(LEAF.chain[0]).encode()
    assert shown.serialNumber == str(LEAF.serial)
    assert (shown.validFrom, shown.expirationTime) == ("2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z")


def test_its_key_is_not_in_its_repr() -> None:
    assert "PRIVATE KEY" not in repr(LEAF)


def test_its_pem_is_read_back_as_it_was() -> None:
    assert Certificate.read(LEAF.chain_pem, LEAF.key, LEAF.roots_pem) == LEAF


def test_a_chain_ends_with_the_root_where_no_roots_are_given() -> None:
    below = AUTHORITY.intermediate("below", now=1_800_000_000).issue(CLIENT)
    assert Certificate.read(below.chain_pem + below.roots_pem, below.key) == below


def test_a_key_in_another_encoding_is_the_same_key() -> None:
    key = serialization.load_pem_private_key(LEAF.key, password=None)
    old = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert b"EC PRIVATE KEY" in old
    assert Certificate.read(LEAF.chain_pem, old, LEAF.roots_pem) == LEAF


@pytest.mark.parametrize(
    ("chain", "key", "roots", "why"),
    [
        (b"", LEAF.key, LEAF.roots_pem, "at least a leaf"),
        (LEAF.chain_pem, LEAF.key, b"", "where no roots are given"),
        (b"nothing", LEAF.key, LEAF.roots_pem, "chain of certificates cannot be read"),
        (LEAF.chain_pem, b"nothing", LEAF.roots_pem, f"key of {CLIENT} cannot be read"),
        (
            LEAF.chain_pem,
            Authority().issue(CLIENT).key,
            LEAF.roots_pem,
            f"not that of the certificate of {CLIENT}",
        ),
        (LEAF.roots_pem, LEAF.key, LEAF.roots_pem, "no SPIFFE identity"),
    ],
)
def test_what_does_not_belong_together_is_one_error(chain: bytes, key: bytes, roots: bytes, why: str) -> None:
    with pytest.raises(MeshError, match=why):
        Certificate.read(chain, key, roots)


@pytest.mark.parametrize("now", [1_799_999_999.0, 1_800_003_601.0])
def test_one_that_is_not_valid_now_says_when_it_is(now: float) -> None:
    with pytest.raises(MeshError, match="valid from 2027-01-15T08:00:00Z until 2027-01-15T09:00:00Z"):
        Certificate.read(LEAF.chain_pem, LEAF.key, LEAF.roots_pem, now=now)
    assert Certificate.read(LEAF.chain_pem, LEAF.key, LEAF.roots_pem, now=1_800_003_600) == LEAF


def test_only_spiffe_names_are_identities() -> None:
    der = with_names("https://example.org", str(CLIENT), "spiffe://x/ns/y", "spiffe://td/ns/a/sa/b")
    assert identities(der) == (CLIENT, Identity("td", "a", "b"))
    assert len(facts(der).uris) == 4


def test_a_certificate_without_names_has_no_identity() -> None:
    assert facts(with_names()).uris == ()
    assert identities(with_names()) == ()


def test_an_error_of_a_certificate_can_be_pickled() -> None:
    with pytest.raises(MeshError) as caught:
        facts(b"nothing")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@given(st.binary(max_size=600))
@example(b"")
@example(b"0\x80")
def test_garbage_is_one_error(data: bytes) -> None:
    with pytest.raises(MeshError):
        facts(data)
    with contextlib.suppress(MeshError):
        read_chain(data)


@given(st.integers(0, len(LEAF.chain[0]) - 1), st.integers(1, 255))
def test_a_certificate_with_a_wrong_byte_is_read_or_one_error(position: int, change: int) -> None:
    data = bytearray(LEAF.chain[0])
    data[position] ^= change
    with contextlib.suppress(MeshError):
        identities(bytes(data))
        describe(bytes(data))
    with contextlib.suppress(MeshError):
        Certificate.read(ssl.DER_cert_to_PEM_cert(bytes(data)).encode(), LEAF.key, LEAF.roots_pem)


@given(st.integers(0, len(LEAF.chain_pem)))
def test_a_chain_that_was_cut_is_one_error(length: int) -> None:
    with contextlib.suppress(MeshError):
        assert read_chain(LEAF.chain_pem[:length]) in ((), LEAF.chain)
