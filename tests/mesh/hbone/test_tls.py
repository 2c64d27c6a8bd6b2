"""TLS without sockets."""

import ssl
from pathlib import Path

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.hbone.failure import TlsFailure
from netwarren.mesh.hbone.tls import TlsSession
from tests.mesh.hbone.certificates import Authority, identities


def shuffle(client: TlsSession, server: TlsSession) -> None:
    """Carries the handshake's bytes to and fro."""
    to_server = client.start()
    for _ in range(4):
        server.receive(to_server)
        client.receive(server.take())
        to_server = client.take()


@pytest.fixture
def pair(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> tuple[TlsSession, TlsSession]:
    client = TlsSession(client_context, server_side=False)
    server = TlsSession(server_context, server_side=True)
    shuffle(client, server)
    return client, server


def test_both_ends_know_each_other_after_the_handshake(pair: tuple[TlsSession, TlsSession]) -> None:
    client, server = pair
    assert client.established
    assert server.established
    assert client.alpn == server.alpn == "h2"
    assert client.object.version() == "TLSv1.3"
    assert identities(server.object) == ["spiffe://cluster.local/ns/default/sa/client"]
    assert identities(client.object) == ["spiffe://cluster.local/ns/default/sa/server"]
    assert client.peer_certificate is not None


def test_plaintext_of_many_records_arrives_whole(pair: tuple[TlsSession, TlsSession]) -> None:
    client, server = pair
    data = bytes(range(256)) * 4096
    assert server.receive(client.send(data)) == data


def test_ciphertext_may_come_byte_by_byte(pair: tuple[TlsSession, TlsSession]) -> None:
    client, server = pair
    ciphertext = client.send(b"hello")
    got = b"".join(server.receive(ciphertext[at : at + 1]) for at in range(len(ciphertext)))
    assert got == b"hello"


def test_an_end_is_told_once_and_seen(pair: tuple[TlsSession, TlsSession]) -> None:
    client, server = pair
    assert server.receive(client.send(b"last") + client.close()) == b"last"
    assert server.ended
    assert client.close() == b""


def test_what_verify_raises_ends_the_handshake_before_any_plaintext(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    def verify(tls: ssl.SSLObject) -> None:
        raise MeshError(f"not {identities(tls)[0]}")

    client = TlsSession(client_context, server_side=False)
    server = TlsSession(server_context, server_side=True, verify=verify)
    server.receive(client.start())
    client.receive(server.take())
    with pytest.raises(MeshError, match=r"not spiffe://cluster\.local/ns/default/sa/client"):
        server.receive(client.take() + client.send(b"early"))
    assert not server.established


def test_a_peer_of_another_root_is_refused_and_told(
    authority: Authority, server_context: ssl.SSLContext, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other").context("client", server=False, trusts=authority)
    client = TlsSession(other, server_side=False)
    server = TlsSession(server_context, server_side=True)
    server.receive(client.start())
    client.receive(server.take())
    with pytest.raises(TlsFailure, match="tls error: ") as caught:
        server.receive(client.take())
    assert caught.value.flag == "TLS_FAILURE"
    with pytest.raises(TlsFailure, match="alert"):
        client.receive(server.take())


def test_a_client_without_a_certificate_is_refused(
    authority: Authority, server_context: ssl.SSLContext
) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(authority.path)
    client = TlsSession(bare, server_side=False)
    server = TlsSession(server_context, server_side=True)
    server.receive(client.start())
    client.receive(server.take())
    with pytest.raises(TlsFailure, match="did not return a certificate"):
        server.receive(client.take())


def test_what_is_no_tls_is_refused(server_context: ssl.SSLContext) -> None:
    with pytest.raises(TlsFailure):
        TlsSession(server_context, server_side=True).receive(b"GET / HTTP/1.1\r\n\r\n")


def test_a_changed_record_is_refused(pair: tuple[TlsSession, TlsSession]) -> None:
    client, server = pair
    ciphertext = bytearray(client.send(b"hello"))
    ciphertext[-1] ^= 1
    with pytest.raises(TlsFailure):
        server.receive(bytes(ciphertext))
