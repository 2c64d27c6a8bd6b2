"""What is read before a name is asked for: which of the host's name servers a cluster takes over, and the copy."""

from ipaddress import ip_address

import pytest

from netwarren.sandbox.resolver import routed, with_ours

OURS = ("169.254.20.11", "fd00:169:254:20::11")


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        (["192.0.2.53", "2001:db8::53"], ["192.0.2.53", "2001:db8::53"]),
        (["127.0.0.53", "192.0.2.53"], ["192.0.2.53"]),
        (["::1", "0.0.0.0", "fe80::1", "fe80::1%eth0", "no address"], []),
        (["169.254.169.254"], ["169.254.169.254"]),
        (["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ([], []),
    ],
)
def test_servers_that_are_reached_by_routes_are_taken_over(named: list[str], taken: list[str]) -> None:
    text = "# nameserver 192.0.2.9\nsearch a.example\n" + "".join(f"nameserver {name}\n" for name in named)
    assert routed(text) == tuple(map(ip_address, taken))


def test_a_copy_has_the_hosts_first_server_first_and_ours_behind() -> None:
    text = "search a.example b\nnameserver 127.0.0.53\nnameserver 192.0.2.1\noptions edns0 rotate ndots:2\n"
    lines = with_ours(text, OURS).splitlines()
    assert lines[:3] == ["search a.example b", "options edns0 ndots:2", "nameserver 127.0.0.53"]
    assert lines[4:] == [f"nameserver {server}" for server in OURS]


def test_where_no_server_is_named_the_copy_names_the_one_that_is_meant() -> None:
    assert with_ours("", OURS).startswith("nameserver 127.0.0.1\n")


def test_ours_are_not_taken_for_the_hosts() -> None:
    assert routed(with_ours("nameserver 192.0.2.1\n", OURS)) == (ip_address("192.0.2.1"),)
