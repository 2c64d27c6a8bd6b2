"""The bytes of ZDS, as Istio's agent and proxy write them, and bytes that are none."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwarren.errors import MeshError
from netwarren.mesh.inpod import zds
from netwarren.mesh.inpod.zds import Ack, Add, Delete, Keep, Request, SnapshotSent, WorkloadInfo

INFO = WorkloadInfo("name", "ns", "sa")


def test_hello_is_as_ztunnel_says_it() -> None:
    assert zds.encode_hello() == bytes.fromhex("08 01")
    assert zds.decode_hello(bytes.fromhex("08 01")) == 1


@pytest.mark.parametrize("data", [b"", bytes.fromhex("08 02"), bytes.fromhex("08 00")])
def test_another_version_is_refused(data: bytes) -> None:
    with pytest.raises(MeshError, match="speaks version"):
        zds.decode_hello(data)


@pytest.mark.parametrize(
    ("ack", "data"), [(Ack(), bytes.fromhex("0a 00")), (Ack("no"), bytes.fromhex("0a 04 0a 02") + b"no")]
)
def test_an_answer_is_as_ztunnel_gives_it(ack: Ack, data: bytes) -> None:
    assert zds.encode_ack(ack) == data
    assert zds.decode_ack(data) == ack


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        (SnapshotSent(), bytes.fromhex("1a 00")),
        (Keep("u1"), bytes.fromhex("2a 04 0a 02") + b"u1"),
        (Delete("u1"), bytes.fromhex("12 04 12 02") + b"u1"),  # field 2
        (Add("u1", None), bytes.fromhex("0a 04 0a 02") + b"u1"),
        (
            Add("u1", INFO),
            bytes.fromhex("0a 14 0a 02") + b"u1" + bytes.fromhex("12 0e 0a 04") + b"name"
            + bytes.fromhex("12 02") + b"ns" + bytes.fromhex("1a 02") + b"sa",
        ),
        (Add("u1", WorkloadInfo("", "", "")), bytes.fromhex("0a 06 0a 02") + b"u1" + bytes.fromhex("12 00")),
    ],
)  # fmt: skip
def test_a_request_is_as_istios_agent_writes_it(request_: Request, data: bytes) -> None:
    assert zds.encode_request(request_) == data
    assert zds.decode_request(data) == request_


@pytest.mark.parametrize(
    "data", [b"", bytes.fromhex("22 00"), b"\x0a", b"\x0a\x02\x0a", b"\x0a\x03\x0a\x01\xff"]
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(MeshError, match="WorkloadRequest"):
        zds.decode_request(data)


def test_an_answer_without_an_ack_is_refused() -> None:
    with pytest.raises(MeshError, match="without an ack"):
        zds.decode_ack(b"")


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert zds.decode_request(bytes.fromhex("1a 00 f8 07 01")) == SnapshotSent()


def test_a_message_that_no_proxy_would_read_whole_is_refused_to_its_sender() -> None:
    with pytest.raises(MeshError, match="use shorter names"):
        zds.encode_request(Add("u" * 1024, INFO))


def test_a_long_error_is_cut_where_a_character_ends() -> None:
    data = zds.encode_ack(Ack("é" * 1024))
    assert len(data) <= zds.MOST_BYTES
    assert set(zds.decode_ack(data).error) == {"é"}


def test_text_that_is_none_is_refused_to_its_sender() -> None:
    with pytest.raises(MeshError, match="cannot say"):
        zds.encode_request(Delete("\ud800"))


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
_REQUESTS = st.one_of(
    st.builds(Add, _TEXT, st.none() | st.builds(WorkloadInfo, _TEXT, _TEXT, _TEXT)),
    st.builds(Keep, _TEXT),
    st.builds(Delete, _TEXT),
    st.just(SnapshotSent()),
)


@given(_REQUESTS)
def test_what_is_written_is_read(request: Request) -> None:
    assert zds.decode_request(zds.encode_request(request)) == request


@pytest.mark.parametrize("decode", [zds.decode_request, zds.decode_ack, zds.decode_hello])
@given(data=st.binary(max_size=80) | _REQUESTS.map(zds.encode_request).flatmap(
    lambda whole: st.integers(0, len(whole)).map(lambda size: whole[:size])
))  # fmt: skip
def test_any_bytes_are_a_message_or_one_error(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        found = decode(data)
    except MeshError:
        return
    assert found is not None
