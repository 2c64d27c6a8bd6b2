"""What the test authority issues is what its peers ask of a certificate."""

import random
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from netwarren.errors import MeshError
from netwarren.mesh.identity.authority import Authority, RootKey
from netwarren.mesh.identity.certificate import Certificate, facts, identities
from netwarren.mesh.identity.tls import client_context, peer_chain, server_context
from netwarren.mesh.model import Identity
from tests.mesh.identity.peers import CLIENT, SERVER, handshake


def leaf(certificate: Certificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.chain[0])


def test_a_leaf_says_who_it_is_and_what_it_may_do() -> None:
    certificate = leaf(Authority().issue(CLIENT))
    assert identities(Authority().issue(CLIENT).chain[0]) == (CLIENT,)
    assert certificate.subject == x509.Name([])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(CLIENT)]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert usage.value.key_encipherment
    assert not usage.value.key_cert_sign
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


@pytest.mark.parametrize(("kind", "key"), [("ec", ec.EllipticCurvePublicKey), ("rsa", rsa.RSAPublicKey)])
def test_a_root_signs_certificates_and_lists_and_is_named_after_its_trust_domain(
    kind: RootKey, key: type
) -> None:
    authority = Authority("example.org", key=kind)
    root = x509.load_der_x509_certificate(authority.certificate)
    assert isinstance(root.public_key(), key)
    assert root.subject == root.issuer
    assert root.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "example.org"
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert usage.crl_sign
    leaf(authority.issue(CLIENT)).verify_directly_issued_by(root)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("depth", [0, 2])
def test_openssl_accepts_them_in_its_strict_mode(kind: RootKey, depth: int) -> None:
    authority = Authority(key=kind)
    for level in range(depth):
        authority = authority.intermediate(f"level {level}")
    own, other = authority.issue(CLIENT), authority.issue(SERVER)
    contexts = client_context(own), server_context(other)
    for context in contexts:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    pair = handshake(*contexts)
    assert len(peer_chain(pair.client)) == len(peer_chain(pair.server)) == depth + 2
    assert peer_chain(pair.client)[-1] == authority.roots[0]


def test_validity_is_at_least_what_was_asked_for_and_at_most_two_seconds_longer() -> None:
    certificate = Authority().issue(CLIENT, lifetime=10, now=1_800_000_000.7)
    assert (certificate.not_before, certificate.not_after) == (1_800_000_000, 1_800_000_011)
    assert certificate.half_life == 1_800_000_005.5
    assert not certificate.expired(1_800_000_010.7)
    assert certificate.expired(1_800_000_011.5)


def test_serial_numbers_are_random_or_repeat_with_a_seed() -> None:
    def serials(seed: int | None) -> list[int]:
        authority = Authority(rng=None if seed is None else random.Random(seed))
        return [authority.issue(CLIENT).serial for _ in range(5)]

    assert serials(427) == serials(427)
    assert len({*serials(None), *serials(None), *serials(427)}) == 15
    assert all(0 < serial < 1 << 159 for serial in serials(None))


def test_leaves_share_one_key_and_authorities_share_none() -> None:
    one, other = Authority(), Authority()
    assert one.issue(CLIENT).key == one.issue(SERVER).key
    assert one.issue(CLIENT).key != other.issue(CLIENT).key
    assert one.certificate != other.certificate


def test_an_identity_that_was_refused_is_not_issued_until_it_is_allowed() -> None:
    authority = Authority()
    authority.refuse(CLIENT, "forgotten")
    with pytest.raises(MeshError, match=f"refuses {CLIENT}: forgotten"):
        authority.issue(CLIENT)
    authority.issue(SERVER)
    authority.allow(CLIENT)
    assert authority.issue(CLIENT).identity == CLIENT


def test_one_authority_issues_to_several_trust_domains() -> None:
    other = Identity("example.org", "default", "client")
    assert identities(Authority().issue(other).chain[0]) == (other,)


async def test_a_fetcher_issues_for_its_lifetime_from_the_time_that_it_is_told() -> None:
    fetch = Authority().fetcher(lifetime=60, now=lambda: 1_800_000_000.0)
    certificate = await fetch(CLIENT)
    assert (certificate.not_before, certificate.not_after) == (1_800_000_000, 1_800_000_060)


def test_the_root_is_valid_now_and_for_years() -> None:
    root = facts(Authority().certificate)
    assert root.not_before < time.time() < time.time() + 9 * 365 * 86400 < root.not_after


def test_what_is_issued_is_valid_at_once_for_whoever_goes_by_the_clock_of_the_last_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    behind = time.time
    monkeypatch.setattr(
        time, "time", lambda: behind() + 1
    )  # as after each full second, for some milliseconds
    authority = Authority()
    client, server = client_context(authority.issue(CLIENT)), server_context(authority.issue(SERVER))
    handshake(client, server)
    assert facts(authority.issue(CLIENT).chain[0]).not_before <= behind()
