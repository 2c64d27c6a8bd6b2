"""Netlink's wire without a kernel, and its socket with one."""

import errno
import os
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from ipaddress import ip_interface
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwarren.errors import ClosedError, KernelError, NetwarrenError, UnsupportedByKernel
from netwarren.kernel import address, link, neighbour, netlink, route, rule, sockdiag
from netwarren.kernel.address import add_address, addresses
from netwarren.kernel.link import add_bridge, delete_link, links, set_link
from netwarren.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    NetlinkFormatError,
    Request,
    attribute,
    nest,
    parse_answer,
    parse_attributes,
    parse_messages,
    u8,
    u16,
    u32,
)
from netwarren.kernel.syscall import CLONE_NEWNET, setns

NewNetns = Callable[[str], tuple[int, Netlink]]
PARSERS: list[Callable[[bytes], object]] = [
    parse_attributes,
    lambda body: list(parse_messages(body)),
    lambda body: parse_answer(0x300, body),
    lambda body: parse_answer(0x200, body),
    lambda body: parse_answer(0x200, body, done=True),
    link.parse_link,
    address.parse_address,
    route.parse_route,
    rule.parse_rule,
    neighbour.parse_neighbour,
    lambda body: sockdiag.parse_socket("tcp", body),
]

# No directory of examples: the checkout may belong to somebody else.
in_any_checkout = settings(database=None, deadline=None)


# --- the wire -------------------------------------------------------------------------------------


def test_attributes_are_padded_to_four_bytes() -> None:
    assert attribute(3, b"lo\0") == struct.pack("=HH", 7, 3) + b"lo\0\0"
    assert u8(1, 7) == struct.pack("=HHBxxx", 5, 1, 7)
    assert u16(1, 7) == struct.pack("=HHHxx", 6, 1, 7)
    assert u32(1, 7) == struct.pack("=HHI", 8, 1, 7)


def test_a_nest_is_marked_as_one_and_read_back_without_the_mark() -> None:
    nested = nest(18, u32(1, 5), attribute(2, b"x"))
    assert struct.unpack_from("=HH", nested) == (20, 18 | 0x8000)
    assert parse_attributes(parse_attributes(nested)[18]) == {1: u32(1, 5)[4:], 2: b"x"}


@in_any_checkout
@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=200)), st.binary(max_size=16))
def test_attributes_survive_a_round_trip(values: dict[int, bytes], header: bytes) -> None:
    data = header + b"".join(attribute(type, value) for type, value in values.items())
    assert parse_attributes(data, len(header)) == values
    assert parse_attributes(memoryview(data), len(header)) == values


@in_any_checkout
@given(st.binary(max_size=300), st.integers(-5, 310))
def test_garbage_is_read_or_refused_and_never_anything_else(data: bytes, offset: int) -> None:
    for parse in PARSERS:
        try:
            parse(data)
        except NetlinkFormatError:
            pass
    try:
        parse_attributes(data, offset)
    except NetlinkFormatError:
        pass


@in_any_checkout
@given(
    st.sampled_from([2, 10, 0, 255]),
    st.binary(min_size=0, max_size=80),
    st.dictionaries(st.integers(0, 60), st.binary(max_size=40), max_size=8),
)
def test_a_wellformed_message_with_absurd_content_is_read_or_refused(
    family: int, header: bytes, values: dict[int, bytes]
) -> None:
    tail = b"".join(attribute(type, value) for type, value in values.items())
    for parse in PARSERS:
        for size in (8, 12, 16, 72):
            try:
                parse(bytes([family]) + header[1:size].ljust(size - 1, b"\0") + tail)
            except NetlinkFormatError:
                pass


def test_a_format_error_is_a_netwarren_error_and_a_value_error() -> None:
    with pytest.raises(NetlinkFormatError, match="claims 3 bytes where 4 are left") as caught:
        parse_attributes(struct.pack("=HH", 3, 1))
    assert isinstance(caught.value, NetwarrenError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_a_number_that_does_not_fit_its_attribute_is_refused(value: int) -> None:
    with pytest.raises(NetlinkFormatError, match="unsigned number of 32 bits"):
        u32(4, value)
    with pytest.raises(NetlinkFormatError, match="does not fit a netlink header"):
        link.add_bridge("br0", 1 << 40)
    with pytest.raises(NetlinkFormatError, match="65531 at most"):
        attribute(1, bytes(70_000))


# --- a socket that answers by script --------------------------------------------------------------


class Scripted:
    """Stands in for the socket: records what is sent, answers from a list."""

    def __init__(self, *answers: Callable[[int], bytes] | OSError) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, size: int, flags: int) -> bytes:
        if not self.answers:
            raise BlockingIOError
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        (*_, last) = parse_messages(self.sent[-1])
        return answer(last[2])

    def close(self) -> None:
        pass


def scripted(*answers: Callable[[int], bytes] | OSError) -> tuple[Netlink, Scripted]:
    opened = Netlink("node-a")
    script = Scripted(*answers)
    opened._usable().close()
    opened._socket = cast(socket.socket, script)
    return opened, script


def message(type: int, sequence: int, body: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), type, flags, sequence, 0) + body


def ack(sequence: int, number: int = 0) -> bytes:
    return message(2, sequence, struct.pack("=i", -number) + bytes(16), 0x100)


ASK = Request(18, 0, bytes(16), "list the links")
GONE = OSError(errno.ENOBUFS, "no buffers")


def test_only_the_last_request_of_a_batch_asks_for_an_acknowledgement() -> None:
    opened, script = scripted(ack)
    opened.commit([ASK, ASK, Request(16, NLM_F_CREATE, b"odd", "odd")])
    (datagram,) = script.sent
    assert [(type, flags) for type, flags, _, _ in parse_messages(datagram)] == [
        (18, 0x1),
        (18, 0x1),
        (16, 0x1 | 0x4 | NLM_F_CREATE),
    ]


def test_answers_to_somebody_elses_questions_are_ignored() -> None:
    opened, _ = scripted(lambda n: ack(n + 7, errno.EPERM) + ack(n))
    opened.commit([ASK])
    opened, _ = scripted(lambda n: message(16, n - 1, b"late") + message(16, n, b"mine"))
    assert opened.get(ASK) == b"mine"


def test_an_interrupted_dump_is_read_again() -> None:
    def torn(n: int) -> bytes:
        return message(16, n, b"torn", flags=0x12) + message(3, n, bytes(4))

    def full(n: int) -> bytes:
        return message(16, n, b"full", flags=0x2) + message(3, n, bytes(4))

    opened, script = scripted(torn, full)
    assert opened.dump(ASK) == [b"full"]
    assert len(script.sent) == 2
    opened, script = scripted(*[torn] * 50)
    with pytest.raises(KernelError, match=r"EINTR.*changed while it was read, 10 times"):
        opened.dump(ASK)
    assert len(script.sent) == 10


def test_a_dump_that_lost_messages_is_read_again() -> None:
    def full(n: int) -> bytes:
        return message(16, n, b"full") + message(3, n, bytes(4))

    opened, _ = scripted(GONE, full, full)
    assert opened.dump(ASK) == [b"full"]


def test_an_error_at_the_end_of_a_dump_is_raised() -> None:
    opened, _ = scripted(lambda n: message(3, n, struct.pack("=i", -errno.EMSGSIZE)))
    with pytest.raises(KernelError, match="list the links in node-a: EMSGSIZE"):
        opened.dump(ASK)


def test_a_lost_answer_is_an_error_and_not_a_wait() -> None:
    opened, _ = scripted()
    with pytest.raises(KernelError, match=r"ENOBUFS.*answer was lost"):
        opened.commit([ASK])
    opened, _ = scripted(GONE, ack)
    with pytest.raises(KernelError, match=r"ENOBUFS.*answer was lost"):
        opened.commit([ASK, ASK])
    opened, _ = scripted()
    with pytest.raises(KernelError, match=r"ENOBUFS.*answer was lost"):
        opened.get(ASK)


def test_sequence_numbers_start_again_before_they_overflow() -> None:
    opened, script = scripted(ack)
    opened._sequence = 0xFFFFFFF0
    opened.commit([ASK, ASK])
    assert [sequence for _, _, sequence, _ in parse_messages(script.sent[0])] == [1, 2]


def test_the_kernels_own_enotsupp_reads_like_the_real_one() -> None:
    opened, _ = scripted(lambda n: ack(n, 524))
    with pytest.raises(KernelError) as caught:
        opened.commit([ASK])
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOENT, errno.EAFNOSUPPORT])
def test_a_missing_part_of_the_kernel_is_named_with_its_remedy(number: int) -> None:
    request = Request(32, 0, bytes(12), "add rule 5:", "policy routing")
    error = netlink.refusal(request, number, "node-a")
    assert isinstance(error, UnsupportedByKernel)
    assert "This kernel has no policy routing: CONFIG_IP_MULTIPLE_TABLES=y" in str(error)


def test_a_refusal_about_something_else_is_not_blamed_on_the_kind() -> None:
    request = Request(16, 0, bytes(16), "add veth a", "veth")
    assert type(netlink.refusal(request, errno.EOPNOTSUPP, "", "Cannot enslave")) is KernelError
    assert type(netlink.refusal(request, errno.EOPNOTSUPP, "")) is KernelError
    found = netlink.refusal(request, errno.EOPNOTSUPP, "", "Unknown device type")
    assert type(found) is UnsupportedByKernel
    assert found.hint == "This kernel has no veth: `modprobe veth`, or CONFIG_VETH=y"


# --- a socket in a kernel -------------------------------------------------------------------------


def no_such_link(index: int) -> Request:
    return set_link(index, up=True)


@pytest.mark.fresh_netns
def test_a_batch_is_applied_in_order() -> None:
    with Netlink("node-a") as opened:
        opened.commit(
            [
                add_bridge("first", 10),
                set_link(10, name="second", up=False),
                add_bridge("first", 11),
                set_link(10, name="third"),
            ]
        )
        assert [(found.index, found.name) for found in links(opened) if found.kind == "bridge"] == [
            (10, "third"),
            (11, "first"),
        ]


@pytest.mark.fresh_netns
def test_the_first_request_that_failed_is_named_and_the_others_are_applied() -> None:
    with Netlink("node-a") as opened:
        with pytest.raises(KernelError) as caught:
            opened.commit([add_bridge("a", 10), no_such_link(98), no_such_link(99), add_bridge("b", 11)])
        error = caught.value
        assert (error.operation, error.errno, error.where) == ("set link 98 up", errno.ENODEV, "node-a")
        assert str(error) == "set link 98 up in node-a: ENODEV (No such device)"
        assert [found.name for found in links(opened) if found.kind == "bridge"] == ["a", "b"]


@pytest.mark.fresh_netns
def test_the_kernels_own_words_are_part_of_the_error() -> None:
    with Netlink("node-a") as opened:
        opened.commit([set_link(1, up=True)])
        again = add_address(1, cast(Any, ip_interface("10.0.0.1/32")))
        with pytest.raises(KernelError, match=r"EEXIST.*: .*already assigned") as caught:
            opened.commit([again, again])
        assert caught.value.operation == "add address 10.0.0.1/32 dev 1"
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.fresh_netns
def test_the_socket_is_usable_after_an_error_of_every_kind() -> None:
    with Netlink("node-a") as opened:
        for _ in range(3):
            with pytest.raises(KernelError, match="ENODEV"):
                opened.commit([no_such_link(99)] * 3)
            with pytest.raises(KernelError, match="show link 99 in node-a: ENODEV"):
                link.link(opened, 99)
            with pytest.raises(KernelError, match="Invalid header"):
                opened.dump(Request(18, 0, bytes(12), "list half a header"))
            assert link.link(opened, 1).name == "lo"
            assert "lo" in [found.name for found in links(opened)]


@pytest.mark.fresh_netns
def test_a_batch_of_five_thousand_requests_works() -> None:
    with Netlink("node-a") as opened:
        networks = [f"10.{n >> 8}.{n & 255}.1/32" for n in range(5000)]
        requests = [add_address(1, cast(Any, ip_interface(network))) for network in networks]
        opened.commit([set_link(1, up=True), *requests])
        found = [str(a.interface) for a in addresses(opened) if a.interface.version == 4]
        assert found == ["127.0.0.1/8", *networks]


@pytest.mark.fresh_netns
def test_of_five_thousand_failures_the_first_is_raised_and_all_are_tried() -> None:
    with Netlink("node-a") as opened:
        with pytest.raises(KernelError, match="set link 1000 up") as caught:
            opened.commit([*(no_such_link(1000 + n) for n in range(5000)), add_bridge("last", 7)])
        assert caught.value.errno == errno.ENODEV
        assert link.link(opened, 7).name == "last"


@pytest.mark.fresh_netns
def test_answers_that_do_not_fit_the_buffer_leave_the_socket_usable() -> None:
    with Netlink("node-a") as opened:
        opened._usable().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with pytest.raises(KernelError, match=r"set link 99 up.*ENODEV"):
            opened.commit([no_such_link(99)] * 100)
        with pytest.raises(KernelError, match=r"set link 99 up.*ENODEV"):
            opened.commit([*[no_such_link(99)] * 100, add_bridge("a", 10)])
        opened.commit([add_bridge("b", 11)])
        assert [found.name for found in links(opened) if found.kind == "bridge"] == ["a", "b"]


@pytest.mark.fresh_netns
def test_a_dump_left_half_read_does_not_disturb_the_next_exchange() -> None:
    with Netlink("node-a") as opened:
        opened.commit([add_bridge(f"br{n}", 10 + n) for n in range(60)])
        sequence = opened._send((ASK,), 0x300)  # as if Ctrl-C came before the answer was read
        assert sequence == opened._sequence
        assert len([found for found in links(opened) if found.kind == "bridge"]) == 60
        opened._send((no_such_link(99),), 0)
        opened.commit([add_bridge("after", 9)])


@pytest.mark.fresh_netns
def test_an_unknown_kind_of_link_is_unsupported_by_this_kernel() -> None:
    kind = nest(18, attribute(1, b"netwarrennonsense\0"))
    request = Request(
        16, NLM_F_CREATE | NLM_F_EXCL, bytes(16) + kind, "add netwarrennonsense", "netwarrennonsense"
    )
    with Netlink("node-a") as opened:
        with pytest.raises(UnsupportedByKernel, match="This kernel has no netwarrennonsense: `modprobe") as e:
            opened.commit([add_bridge("a", 10), request])
        assert e.value.errno == errno.EOPNOTSUPP


@pytest.mark.fresh_netns
def test_a_socket_serves_its_own_namespace_from_a_thread_that_stands_elsewhere(new_netns: NewNetns) -> None:
    elsewhere, there = new_netns("elsewhere")
    with Netlink("home") as here, there:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                setns(elsewhere, CLONE_NEWNET)
                here.commit([add_bridge("of-home", 10)])
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert failures == []
        assert link.link(here, 10).name == "of-home"
        assert 10 not in [found.index for found in links(there)]


@pytest.mark.fresh_netns
def test_threads_may_share_a_socket() -> None:
    with Netlink("node-a") as opened:
        failures: list[BaseException] = []

        def work(base: int) -> None:
            try:
                for index in range(base, base + 20):
                    opened.commit([add_bridge(f"br{index}", index, up=False)])
                    assert link.link(opened, index).name == f"br{index}"
                    with pytest.raises(KernelError):
                        opened.commit([no_such_link(9999)])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len([found for found in links(opened) if found.kind == "bridge"]) == 80


def test_without_the_capability_the_error_says_which_one_it_takes() -> None:
    if os.geteuid() == 0:
        pytest.skip("root has every capability")
    with Netlink("the host") as opened, pytest.raises(KernelError, match=r"EPERM.*CAP_NET_ADMIN"):
        opened.commit([delete_link(99_999)])


def test_closing_is_repeatable_and_use_afterwards_is_a_clear_error() -> None:
    opened = Netlink("node-a")
    assert repr(opened) == "<Netlink route in node-a open>"
    opened.close()
    opened.close()
    assert repr(opened) == "<Netlink route in node-a closed>"
    for use in (lambda: opened.commit([ASK]), lambda: opened.dump(ASK), lambda: opened.get(ASK)):
        with pytest.raises(ClosedError, match="the netlink socket of node-a is closed; open another one"):
            use()


def test_a_socket_is_not_inherited_by_programs() -> None:
    with Netlink("node-a") as opened:
        assert not os.get_inheritable(opened._usable().fileno())


def test_a_netlink_protocol_the_kernel_lacks_is_unsupported() -> None:
    with pytest.raises(UnsupportedByKernel, match="open a netlink socket in node-a: EPROTONOSUPPORT"):
        Netlink("node-a", 31)


def test_nothing_to_do_is_done_without_a_system_call() -> None:
    opened, script = scripted()
    opened.commit([])
    assert script.sent == []
