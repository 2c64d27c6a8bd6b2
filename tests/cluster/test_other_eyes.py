"""What other people's tools say of a cluster: `nft` of our rules, `dig` of our answers, where they are installed."""

import shutil

import pytest

from netwarren import Cluster


@pytest.mark.skipif(
    shutil.which("nft") is None, reason="nft is not installed; nothing but this test needs it"
)
def test_nft_prints_the_rules_of_a_service_as_they_were_meant(cluster: Cluster) -> None:
    for name in ("one", "two"):
        cluster.add_pod(name, "node-a", labels={"app": "web"})
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    printed = cluster.node("node-a").check_output(["nft", "list", "ruleset"])
    for meant in (service.ip, "dnat", "8080", *(cluster.pod(name).ip for name in ("one", "two"))):
        assert meant in printed
    cluster.remove_service("web")
    assert service.ip not in cluster.node("node-a").check_output(["nft", "list", "ruleset"])


@pytest.mark.skipif(
    shutil.which("dig") is None, reason="dig is not installed; nothing but this test needs it"
)
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dig_parses_our_answers(cluster: Cluster, transport: str) -> None:
    web = cluster.add_pod("web", "node-a")
    client = cluster.add_pod("client", "node-b")
    said = client.check_output(["dig", transport, "web.default.svc.cluster.local", "A"])
    assert "status: NOERROR" in said
    assert web.ip in said
    assert not any(
        complaint in said for complaint in ("malformed", "bad packet", "extra bytes", "Warning: Message")
    )
    assert client.check_output(["dig", transport, "+short", "-x", web.ip]).startswith("web.")
    assert "status: NXDOMAIN" in client.check_output(["dig", transport, "nobody.default.svc.cluster.local"])
