"""Kernel settings by name, with a kernel and without."""

import errno
import os
from collections.abc import Callable

import pytest

from netwarren.errors import KernelError
from netwarren.kernel import sysctl
from netwarren.kernel.link import add_bridge
from netwarren.kernel.netlink import Netlink
from netwarren.kernel.syscall import CLONE_NEWNET, setns


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/5.forwarding", "net/ipv4/conf/eth0.5/forwarding"),
        ("net/ipv4/conf/eth0.5/forwarding", "net/ipv4/conf/eth0.5/forwarding"),
    ],
)
def test_names_are_read_as_sysctl_reads_them(name: str, path: str) -> None:
    assert sysctl.path(name) == f"/proc/sys/{path}"


@pytest.mark.fresh_netns
def test_a_setting_reads_back_as_it_was_written() -> None:
    for value in (1, "0", 1):
        sysctl.write("net.ipv4.ip_forward", value)
        assert sysctl.read("net.ipv4.ip_forward") == str(value)
    sysctl.write("net.ipv4.ip_local_port_range", "2000 3000")
    assert sysctl.read("net/ipv4/ip_local_port_range") == "2000\t3000"


@pytest.mark.fresh_netns
def test_the_settings_of_a_link_with_a_dot_in_its_name_can_be_reached() -> None:
    with Netlink("node-a") as node:
        node.commit([add_bridge("eth0.5", 10)])
    sysctl.write("net/ipv4/conf/eth0.5/rp_filter", 2)
    assert sysctl.read("net.ipv4.conf.eth0/5.rp_filter") == "2"


@pytest.mark.fresh_netns
def test_settings_are_of_the_namespace_the_thread_stands_in(
    new_netns: Callable[[str], tuple[int, Netlink]],
) -> None:
    sysctl.write("net.ipv4.ip_forward", 1)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    fd, other = new_netns("pod")
    other.close()
    setns(fd, CLONE_NEWNET)
    sysctl.write("net.ipv4.ip_forward", 0)
    setns(before, CLONE_NEWNET)
    assert sysctl.read("net.ipv4.ip_forward") == "1"


def test_an_unknown_setting_is_said_to_be_unknown_to_this_kernel() -> None:
    with pytest.raises(KernelError, match=r"read sysctl net\.nonsense: ENOENT .*There is no such sysctl"):
        sysctl.read("net.nonsense")
    with pytest.raises(KernelError, match=r"set sysctl net\.nonsense to 1 in node-a: ENOENT"):
        sysctl.write("net.nonsense", 1, where="node-a")


@pytest.mark.fresh_netns
def test_a_value_the_kernel_does_not_take_is_named() -> None:
    with pytest.raises(KernelError, match=r"set sysctl net\.ipv4\.ip_forward to banana: EINVAL"):
        sysctl.write("net.ipv4.ip_forward", "banana")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "/proc/sys is mounted read-only, as in a container"),
        (errno.EACCES, "Only settings of a network namespace"),
        (errno.EPERM, "Only settings of a network namespace"),
    ],
)
def test_a_refusal_says_what_to_do_about_it(number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(KernelError, match=words) as caught:
        sysctl.write("net.ipv4.ip_forward", 1)
    assert caught.value.errno == number
