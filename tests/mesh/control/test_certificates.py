"""Certificates by Istio's certificate service: a ztunnel's request, the authority's answer, and what may go wrong."""

import asyncio
import contextlib
import gc
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from netwarren.errors import MeshConfigError, MeshError
from netwarren.mesh.control import grpc_client
from netwarren.mesh.control.certificate_client import CertificateClient
from netwarren.mesh.control.certificate_service import (
    PATH,
    decode_answer,
    encode_request,
    methods,
    new_key,
)
from netwarren.mesh.control.credentials import Credentials
from netwarren.mesh.control.endpoint import Endpoint
from netwarren.mesh.control.failure import CallFailed
from netwarren.mesh.control.grpc import INVALID_ARGUMENT, UNIMPLEMENTED
from netwarren.mesh.control.grpc_server import ServerConnection
from netwarren.mesh.control.server import HOSTS, ControlPlane
from netwarren.mesh.identity import tls
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.certificate import Certificate, facts
from tests.mesh.identity.peers import CLIENT, SERVER, handshake


def asked(authority: Authority, message: bytes) -> bytes:
    """What the authority answers."""
    return methods(authority)[PATH](message)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def served(authority: Authority) -> Iterator[int]:
    """The port of a server of the authority."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = ControlPlane(authority, listener)
    server.start()
    yield listener.getsockname()[1]
    server.close()


async def connect(port: int) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made


async def let_go(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def client(
    authority: Authority,
    port: int,
    *,
    impersonates: bool = True,
    lifetime: float = 60.0,
    credentials: Credentials | None = None,
) -> CertificateClient:
    return CertificateClient(
        Endpoint.of("the authority", f"https://127.0.0.1:{port}", authority.roots_pem, connect),
        lifetime=lifetime,
        impersonates=impersonates,
        credentials=credentials,
    )


# --- requests and answers ---------------------------------------------------------------------------


def test_a_request_is_that_of_ztunnel() -> None:
    read = x509.load_pem_x509_csr(new_key(CLIENT).request)
    assert read.is_signature_valid
    assert read.subject == x509.Name([])
    assert isinstance(read.public_key(), ec.EllipticCurvePublicKey)
    assert read.signature_hash_algorithm is not None
    assert read.signature_hash_algorithm.name == "sha256"
    (extension,) = read.extensions
    assert extension.critical
    assert extension.value == x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(CLIENT))])


def test_what_is_answered_is_the_certificate_of_the_key_that_was_sent(authority: Authority) -> None:
    key = new_key(CLIENT)
    found = decode_answer(asked(authority, encode_request(key.request, 60.0)), CLIENT, key.key)
    assert found.identity == CLIENT
    assert found.key.split() == key.key.split()
    assert found.roots == authority.roots
    assert 60 <= found.not_after - found.not_before <= 62
    pair = handshake(tls.client_context(found), tls.server_context(authority.issue(SERVER)))
    assert tls.peer_identity(tls.peer_chain(pair.server)) == CLIENT


def test_a_proxy_that_impersonates_gets_the_identity_that_it_names(authority: Authority) -> None:
    key = new_key(SERVER)
    found = decode_answer(asked(authority, encode_request(key.request, 60.0, CLIENT)), CLIENT, key.key)
    assert found.identity == CLIENT


def test_intermediates_and_several_roots_come_with_the_answer() -> None:
    other = Authority("other.org")
    issuer = Authority().trust(other).intermediate("one")
    key = new_key(CLIENT)
    found = decode_answer(asked(issuer, encode_request(key.request, 60.0)), CLIENT, key.key)
    assert found.chain[1:] == issuer.chain
    assert found.roots == issuer.roots
    assert other.certificate in found.roots


def test_an_answer_for_somebody_else_is_refused(authority: Authority) -> None:
    key = new_key(CLIENT)
    answer = asked(authority, encode_request(key.request, 60.0))
    with pytest.raises(MeshError, match=f"asked for {SERVER} and has answered with {CLIENT}"):
        decode_answer(answer, SERVER, key.key)


@pytest.mark.parametrize("answer", [b"", b"\xff\xff\xff"])
def test_an_answer_that_is_none_is_refused(answer: bytes) -> None:
    with pytest.raises(MeshError):
        decode_answer(answer, CLIENT, new_key(CLIENT).key)


def test_a_request_that_is_none_or_is_not_signed_with_its_key_is_refused(authority: Authority) -> None:
    with pytest.raises(MeshError, match="request cannot be read"):
        asked(authority, encode_request(b"no PEM", 60.0))
    with pytest.raises(MeshError, match="is no IstioCertificateRequest"):
        asked(authority, b"\xff\xff\xff")
    der = bytearray(x509.load_pem_x509_csr(new_key(CLIENT).request).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()
    with pytest.raises(MeshError, match="not signed"):
        asked(authority, encode_request(forged, 60.0))


# --- by gRPC ----------------------------------------------------------------------------------------


async def test_a_client_gets_certificates_from_a_server(authority: Authority, served: int) -> None:
    found = await asyncio.gather(*(client(authority, served).fetch(each) for each in (CLIENT, SERVER)))
    assert [each.identity for each in found] == [CLIENT, SERVER]
    assert found[0].key != found[1].key


async def test_one_that_does_not_impersonate_gets_its_own(authority: Authority, served: int) -> None:
    found = await client(authority, served, impersonates=False).fetch(CLIENT)
    assert found.identity == CLIENT


async def test_what_the_authority_refuses_is_told_with_its_reason(authority: Authority, served: int) -> None:
    authority.refuse(CLIENT, "forgotten")
    with pytest.raises(CallFailed, match=f"refuses {CLIENT}: forgotten") as caught:
        await client(authority, served).fetch(CLIENT)
    assert caught.value.status == INVALID_ARGUMENT


async def test_a_server_of_another_authority_is_not_trusted(served: int) -> None:
    with pytest.raises(MeshError, match="invalid peer certificate"):
        await client(Authority(), served).fetch(CLIENT)


async def test_an_authority_that_is_not_there_is_one_error(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MeshError, match=f"127.0.0.1:{port} cannot be asked"):
        await client(authority, port).fetch(CLIENT)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1", "https://", "", "https://127.0.0.1:port", "https://127.0.0.1:70000"]
)
def test_an_address_that_is_none_is_refused(authority: Authority, address: str) -> None:
    with pytest.raises(MeshConfigError, match="https://HOST:PORT"):
        Endpoint.of("the authority", address, authority.roots_pem, connect)


async def test_garbage_ends_its_connection_and_others_are_served(authority: Authority, served: int) -> None:
    context = tls.trusting_context(authority.roots_pem)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", served, ssl=context, server_hostname="localhost"
    )
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.read()
    await let_go(writer)
    plain = await connect(served)
    plain.send(b"garbage" * 100)
    assert (await client(authority, served).fetch(CLIENT)).identity == CLIENT
    plain.close()


async def test_a_method_that_there_is_not_is_unimplemented(authority: Authority, served: int) -> None:
    context = tls.trusting_context(authority.roots_pem)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", served, ssl=context, server_hostname="localhost"
    )
    with pytest.raises(CallFailed, match=r"there is no /a\.B/C") as caught:
        await grpc_client.call(reader, writer, "localhost", "/a.B/C", b"")
    assert caught.value.status == UNIMPLEMENTED
    await let_go(writer)


async def test_a_server_may_close_with_connections_open(authority: Authority) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = ControlPlane(authority, listener)
    server.start()
    context = tls.trusting_context(authority.roots_pem)
    port = listener.getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    assert await reader.read(1)  # its settings
    server.close()
    server.close()
    with pytest.raises(OSError):
        await connect(port)
    await let_go(writer)


def test_whatever_comes_a_server_says_something_or_ends() -> None:
    rng = random.Random(1)
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
    for _ in range(300):
        said: list[bytes] = []
        connection = ServerConnection({}, {}, said.append)
        connection.receive(begin + rng.randbytes(rng.randrange(1, 200)))
        assert said


# --- who a client says it is ------------------------------------------------------------------------


@pytest.fixture
async def overheard(authority: Authority) -> AsyncIterator[tuple[int, list[dict[str, str]]]]:
    """The port of a server of the authority, and the headers of the requests that have come to it."""
    heard: list[dict[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = ServerConnection(methods(authority), {}, writer.write)
        other = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        other.initiate_connection()
        while data := await reader.read(1 << 16):
            for event in other.receive_data(data):
                if isinstance(event, RequestReceived):
                    heard.append({str(name): str(value) for name, value in event.headers or ()})
            server.receive(data)
        await let_go(writer)

    context = tls.serving_context(authority.issue(SERVER, hosts=HOSTS))
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1], heard


async def test_a_client_says_its_cluster_and_the_token_that_its_file_has_now(
    authority: Authority, overheard: tuple[int, list[dict[str, str]]], tmp_path: Path
) -> None:
    port, heard = overheard
    path = tmp_path / "token"
    asking = client(authority, port, credentials=Credentials.told(str(path), "one"))
    path.write_text("first\n")
    await asking.fetch(CLIENT)
    path.write_text("second")
    await asking.fetch(CLIENT)
    assert [(each["authorization"], each["clusterid"]) for each in heard] == [
        ("Bearer first", "one"),
        ("Bearer second", "one"),
    ]


# --- other people's client --------------------------------------------------------------------------

_GRPCIO = """
import sys, grpc
port, roots, path, message = int(sys.argv[1]), sys.argv[2], sys.argv[3], bytes.fromhex(sys.argv[4])
credentials = grpc.ssl_channel_credentials(open(roots, "rb").read())
with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
    same = lambda data: data
    call = channel.unary_unary(path, request_serializer=same, response_deserializer=same)
    for _ in range(3):
        answer = call(message, timeout=20)
    try:
        call(b"\\xff", timeout=20)
    except grpc.RpcError as error:
        print(error.code().name, file=sys.stderr)
print(answer.hex())
"""


def test_the_grpc_library_is_answered(authority: Authority, served: int, tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.roots_pem)
    key = new_key(CLIENT)
    message = encode_request(key.request, 60.0, CLIENT)
    done = subprocess.run(
        [sys.executable, "-c", _GRPCIO, str(served), str(roots), PATH, message.hex()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "INVALID_ARGUMENT" in done.stderr
    found = decode_answer(bytes.fromhex(done.stdout), CLIENT, key.key)
    assert isinstance(found, Certificate)
    assert str(CLIENT) in facts(found.chain[0]).uris


def test_the_end_leaves_nobody_who_is_amid_a_handshake() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = ControlPlane(Authority(), listener)
    server.start()
    with (
        socket.create_connection(address, timeout=20) as halfway,
        socket.create_connection(address) as silent,
    ):
        halfway.sendall(bytes.fromhex("1603010200"))  # the header of a record that does not come
        with socket.create_connection(address, timeout=20) as wrong:
            wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while wrong.recv(100):
                    pass  # so the others, which came before, have been taken
        server.close()
        for each in (halfway, silent):
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(100) == b""
    gc.collect()  # an unclosed transport or socket is complained of by now


def test_the_end_leaves_nobody_who_comes_at_that_moment() -> None:
    authority = Authority()
    for _ in range(40):
        listener = socket.create_server(("127.0.0.1", 0))
        server = ControlPlane(authority, listener)
        server.start()
        late = [socket.create_connection(listener.getsockname(), timeout=20) for _ in range(3)]
        server.close()
        for each in late:
            each.close()
    gc.collect()
