"""What a client may mean by a name."""

import pytest

from netwarren.mesh.dns.aliases import Alias, aliases, expansions, search_domains, wildcards

DOMAIN = "cluster.local"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name", ("name.ns1.svc.cluster.local",)),
        ("name.ns2", ("name.ns2.svc.cluster.local", "name.ns2.ns1.svc.cluster.local")),
        ("name.ns2.svc", ("name.ns2.svc.cluster.local", "name.ns2.svc.svc.cluster.local")),
        ("name.ns2.not-svc", ("name.ns2.not-svc.svc.cluster.local",)),
        ("www.google.com", ("www.google.com.svc.cluster.local",)),
        ("pod.sub-domain.ns.svc", ("pod.sub-domain.ns.svc.cluster.local",)),
        ("pod.sub-domain.ns.not-svc", ()),
        ("name.ns2.svc.cluster", ()),
        ("name.ns2.svc.cluster.local", ()),
    ],
)
def test_a_name_is_expanded_by_its_number_of_labels(name: str, expected: tuple[str, ...]) -> None:
    assert expansions(name, "ns1", DOMAIN) == expected


def test_the_search_list_of_a_shared_proxy_is_that_of_the_clients_namespace() -> None:
    assert search_domains("ns1", DOMAIN) == ("ns1.svc.cluster.local", "svc.cluster.local", "cluster.local")


def test_aliases_come_in_order_and_once() -> None:
    search = search_domains("ns1", DOMAIN)
    assert aliases("web.ns2.ns1.svc.cluster.local", "ns1", DOMAIN, search) == (
        Alias("web.ns2.ns1.svc.cluster.local"),
        Alias("web.ns2", "web.ns2"),
        Alias("web.ns2.svc.cluster.local", "web.ns2"),
        Alias("web.ns2.ns1", "web.ns2.ns1"),
        Alias("web.ns2.ns1.svc", "web.ns2.ns1.svc"),
    )


def test_a_dedicated_proxy_takes_off_what_its_resolv_conf_puts_behind() -> None:
    assert aliases("web.corp.example", "ns1", DOMAIN, ("corp.example",)) == (
        Alias("web.corp.example"),
        Alias("web.corp.example.svc.cluster.local"),
        Alias("web", "web"),
        Alias("web.ns1.svc.cluster.local", "web"),
    )


def test_a_search_domain_alone_is_a_name_like_any_other() -> None:
    search = search_domains("ns1", DOMAIN)
    assert Alias("", "") not in aliases("svc.cluster.local", "ns1", DOMAIN, search)
    assert aliases("notcluster.local", "ns1", DOMAIN, search)[0] == Alias("notcluster.local")
    assert all(alias.stripped is None for alias in aliases("notcluster.local", "ns1", DOMAIN, search))


def test_wildcards_go_from_the_narrowest_to_the_widest() -> None:
    assert list(wildcards("svc1")) == []
    assert list(wildcards("svc1.ns1.svc.cluster.local")) == [
        "*.ns1.svc.cluster.local",
        "*.svc.cluster.local",
        "*.cluster.local",
        "*.local",
    ]
