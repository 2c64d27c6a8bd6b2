"""What a client's first message offers, as OpenSSL writes it."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.mesh.hbone.client_hello import ClientHello


def offered(data: bytes) -> tuple[str, ...] | None:
    return ClientHello().feed(data)


def hello(*protocols: str) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(list(protocols))
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.parametrize("protocols", [(), ("h2",), ("http/1.1", "h2"), ("a" * 255,)])
def test_the_protocols_are_read_in_their_order(protocols: tuple[str, ...]) -> None:
    assert offered(hello(*protocols)) == protocols


def test_as_long_as_it_is_not_whole_there_is_more_to_come() -> None:
    whole = hello("http/1.1")
    reader = ClientHello()
    assert [reader.feed(whole[at : at + 1]) for at in range(len(whole))] == [
        *[None] * (len(whole) - 1),
        ("http/1.1",),
    ]
    assert offered(whole + b"more") is not None


def test_a_hello_in_many_records_is_read() -> None:
    message = hello("http/1.1")[5:]
    records = b"".join(b"\x16\x03\x01\x00\x01" + bytes([each]) for each in message)
    assert offered(records) == ("http/1.1",)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28", b"\x16\x03\x01\x00\x01\x02"]
)
def test_what_is_no_hello_is_left_to_others(data: bytes) -> None:
    assert offered(data) == ()


def test_an_endless_one_is_not_waited_for() -> None:
    assert offered(b"\x16\x03\x01\xff\xff\x01\xff\xff\xff" + bytes(1 << 16)) == ()


@given(st.binary(max_size=300), st.integers(0, 300))
def test_whatever_comes_is_read_without_a_failure(data: bytes, at: int) -> None:
    whole = hello("h2")
    offered(data)
    offered(b"\x16\x03\x01" + len(data).to_bytes(2) + data)
    offered(whole[:at] + data + whole[at + len(data) :])
