"""What a user may write for ``egress=``, and which connections go where then."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import pytest

from netwarren.errors import ConfigurationError
from netwarren.topology.egress import Egress, EgressArgument, HostPort, Name, Range, parse_egress

IPV4 = [ip_address("172.18.0.1")]
DUAL = [*IPV4, ip_address("fd00:172:18::1")]
INSIDE = [ip_network(text) for text in ("10.0.0.0/14", "172.18.0.0/16", "fd00:10::/48", "fd00:172:18::/64")]


def chosen(value: EgressArgument, bridge: Iterable[object] = DUAL) -> Egress:
    return Egress.choose(parse_egress(value), bridge, INSIDE)  # type: ignore[arg-type]


def way(egress: Egress, address: str, port: int) -> tuple[list[str], int] | None:
    """Where a connection goes, in short."""
    found = egress.way(ip_address(address), port)
    return None if found is None else ([str(each) for each in found.addresses], found.port)


# --- reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "addresses", "port"),
    [
        ("localhost:5432", ["127.0.0.1", "::1"], 5432),
        ("127.0.0.1:1", ["127.0.0.1"], 1),
        ("127.0.0.53:53", ["127.0.0.53"], 53),
        ("[::1]:65535", ["::1"], 65535),
    ],
)
def test_a_port_of_the_hosts_loopback_is_read(text: str, addresses: list[str], port: int) -> None:
    assert parse_egress(text) == (HostPort(text, tuple(map(ip_address, addresses)), port),)


@pytest.mark.parametrize(
    ("text", "network", "port"),
    [
        ("10.1.2.3:443", "10.1.2.3/32", 443),
        ("10.1.2.3", "10.1.2.3/32", None),
        ("10.1.2.0/24", "10.1.2.0/24", None),
        ("10.1.2.0/24:443", "10.1.2.0/24", 443),
        ("[2001:db8::1]:443", "2001:db8::1/128", 443),
        ("[2001:db8::1]", "2001:db8::1/128", None),
        ("2001:db8::1", "2001:db8::1/128", None),
        ("2001:db8::/32", "2001:db8::/32", None),
        ("[2001:db8::/32]:443", "2001:db8::/32", 443),
        ("[2001:db8::]/32:443", "2001:db8::/32", 443),
    ],
)
def test_an_address_or_range_outside_is_read(text: str, network: str, port: int | None) -> None:
    assert parse_egress(text) == (Range(text, ip_network(network), port),)


def test_a_star_is_everything_in_both_families() -> None:
    assert parse_egress("*") == (Range("*", ip_network("0.0.0.0/0")), Range("*", ip_network("::/0")))
    assert [opening.port for opening in parse_egress("*:443") if isinstance(opening, Range)] == [443, 443]


@pytest.mark.parametrize("text", ["example.com:443", "EXAMPLE.com.:443"])
def test_a_host_name_is_read_without_case_and_final_dot(text: str) -> None:
    assert parse_egress(text) == (Name(text, "example.com", 443),)


@pytest.mark.parametrize("nothing", [None, (), []])
def test_nothing_is_nothing(nothing: EgressArgument) -> None:
    assert parse_egress(nothing) == ()


def test_several_are_kept_in_order_and_each_once() -> None:
    texts = [opening.text for opening in parse_egress(["b.example:1", "localhost:5", "b.example:1"])]
    assert texts == ["b.example:1", "localhost:5"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost", "names no port"),
        ("example.com", "names no port"),
        ("", "names no host"),
        (":80", "names no host"),
        (" localhost:80", "names no host"),
        ("localhost:", "has '' for a port"),
        ("localhost:0", "has '0' for a port"),
        ("localhost:65536", "has '65536' for a port"),
        ("localhost:http", "has 'http' for a port"),
        ("localhost:-1", "has '-1' for a port"),
        ("localhost:٣", "for a port"),
        ("10.1.2.300:443", "is not an address"),
        ("10.1.2:443", "is not an address"),
        ("10.1.2.3/24", "the range is 10.1.2.0/24"),
        ("10.1.2.0/33", "is not a range"),
        ("2001:db8::zz", "is not an address"),
        ("[10.1.2.3]:443", "has brackets around"),
        ("[2001:db8::1]443", "is not an address"),
        ("127.0.0.1", "only single ports are opened"),
        ("127.0.0.0/8:80", "only single ports are opened"),
        ("224.0.0.1:80", "is multicast"),
        ("0.0.0.0:80", "is nobody's address"),
        ("[::]:80", "is nobody's address"),
        ("-a.example:80", "is neither an address nor a host name"),
        ("a..example:80", "is neither an address nor a host name"),
        ("http://example.com", "for a port"),
        ("a" * 64 + ".example:80", "is neither"),
    ],
)
def test_what_means_nothing_is_refused_with_a_reason_and_by_its_text(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_egress(text)
    assert why in str(refusal.value)
    assert repr(text) in str(refusal.value)


def test_something_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="5432, which is no text"):
        parse_egress([5432])  # type: ignore[list-item]
    with pytest.raises(
        ConfigurationError, match="egress=5432 is no text; write a port of the host's loopback"
    ):
        parse_egress(5432)  # type: ignore[arg-type]


def test_two_ports_of_the_host_with_one_number_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:53 and 127\.0\.0\.53:53"):
        parse_egress(["127.0.0.1:53", "127.0.0.53:53"])


# --- choosing for a cluster ---------------------------------------------------------------------------


def test_of_everything_only_the_clusters_families_are_left() -> None:
    assert [str(network) for network, _ in chosen("*", IPV4).catches()] == ["0.0.0.0/0"]


def test_an_address_of_a_family_the_cluster_has_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="IPv6, which this cluster does not have"):
        chosen("[2001:db8::1]:443", IPV4)


@pytest.mark.parametrize("text", ["10.0.1.0/24", "172.18.0.1:80", "fd00:10::5"])
def test_what_is_the_clusters_own_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="the cluster's own"):
        chosen(text)


def test_a_range_around_the_clusters_own_is_taken_and_does_not_reach_into_it() -> None:
    egress = chosen("10.0.0.0/8")
    assert way(egress, "10.9.0.1", 80) == (["10.9.0.1"], 80)
    assert way(egress, "10.0.1.2", 80) is None


# --- which connections go where -----------------------------------------------------------------------


def test_a_port_of_the_host_is_dialled_at_the_bridge_in_every_family() -> None:
    egress = chosen("localhost:5432")
    for address in DUAL:
        assert way(egress, str(address), 5432) == (["127.0.0.1", "::1"], 5432)
    assert [(str(network), port) for network, port in egress.catches()] == [
        ("172.18.0.1/32", 5432),
        ("fd00:172:18::1/128", 5432),
    ]


def test_another_port_of_the_bridge_goes_nowhere_not_even_with_everything_open() -> None:
    egress = chosen(["localhost:5432", "*"])
    assert way(egress, "172.18.0.1", 5433) is None
    assert way(egress, "172.18.0.1", 5432) == (["127.0.0.1", "::1"], 5432)


def test_the_hosts_loopback_is_never_an_address_outside() -> None:
    assert way(chosen("localhost:5432"), "127.0.0.1", 5432) is None


def test_an_address_is_open_at_its_port_alone() -> None:
    egress = chosen("192.0.2.7:443")
    assert way(egress, "192.0.2.7", 443) == (["192.0.2.7"], 443)
    assert way(egress, "192.0.2.7", 80) is None
    assert way(egress, "192.0.2.8", 443) is None


def test_a_way_tells_which_opening_it_goes_through() -> None:
    found = chosen(["192.0.2.0/24:443", "*"]).way(ip_address("192.0.2.7"), 443)
    assert found is not None
    assert found.opening.text == "192.0.2.0/24:443"


# --- names --------------------------------------------------------------------------------------------


def test_a_name_opens_nothing_until_it_is_resolved() -> None:
    egress = chosen("example.com:443")
    assert egress.catches() == []
    assert way(egress, "192.0.2.7", 443) is None


def test_a_resolved_name_opens_its_addresses_at_its_port() -> None:
    egress = chosen(["example.com:443", "example.com:80"])
    named = egress.ports_of("Example.COM.")
    assert named is not None
    more = egress.resolved(named, [ip_address("192.0.2.7"), ip_address("2001:db8::7")])
    assert way(more, "192.0.2.7", 443) == (["192.0.2.7"], 443)
    assert way(more, "2001:db8::7", 80) == (["2001:db8::7"], 80)
    assert way(more, "192.0.2.7", 22) is None
    assert way(egress, "192.0.2.7", 443) is None
    assert more.resolved(named, [ip_address("192.0.2.7")]) is more


def test_a_name_that_is_the_hosts_loopback_opens_a_port_of_the_host_and_is_answered_with_the_bridge() -> None:
    egress = chosen("db.example:5432")
    named = egress.ports_of("db.example")
    assert named is not None
    addresses = [ip_address("127.0.1.1")]
    assert way(egress.resolved(named, addresses), "172.18.0.1", 5432) == (["127.0.1.1"], 5432)
    assert egress.answers(addresses) == tuple(DUAL)


def test_a_name_does_not_take_a_port_of_the_host_that_was_named() -> None:
    egress = chosen(["localhost:5432", "db.example:5432"])
    more = egress.resolved(egress.ports_of("db.example") or (), [ip_address("127.0.1.1")])
    assert way(more, "172.18.0.1", 5432) == (["127.0.0.1", "::1"], 5432)


def test_a_name_never_opens_what_is_the_clusters_own() -> None:
    egress = chosen("example.com:443")
    assert egress.resolved(egress.ports_of("example.com") or (), [ip_address("10.0.1.2")]) is egress


def test_a_name_nobody_named_is_not_answered_unless_everything_is_open() -> None:
    assert chosen("example.com:443").ports_of("other.example") is None
    assert chosen("192.0.2.0/24").ports_of("other.example") is None
    assert chosen("*").ports_of("other.example") == ()


def test_an_answer_has_the_clusters_families_alone() -> None:
    addresses = [ip_address("192.0.2.7"), ip_address("2001:db8::7")]
    assert chosen("*", IPV4).answers(addresses) == (ip_address("192.0.2.7"),)
