"""The pages of node proxies over HTTP."""

import gzip
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from netwarren import Cluster
from netwarren.mesh.state.store import State
from tests.cluster.mesh.conftest import double, talk


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        url, method=method, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


def test_metrics_come_compressed_where_that_is_accepted(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    server, client = cluster.add_pod("server", "node-a"), cluster.add_pod("client", "node-a")
    server.start(double())
    talk(client, server.ip)
    url = f"http://{proxy.pod.ip}:15020/metrics"
    _, headers, body = cluster.root.run(lambda: get(url, Accept_Encoding="gzip"))
    assert headers["content-encoding"] == "gzip"
    text = gzip.decompress(body).decode()
    assert "istio_tcp_connections_opened_total{" in text
    assert text.rstrip().endswith("# EOF")
    _, headers, body = cluster.root.run(lambda: get(url))
    assert "content-encoding" not in headers
    assert b"istio_tcp_connections_opened_total{" in body


def test_metrics_are_read_and_not_posted(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    assert cluster.root.run(lambda: get(f"http://{proxy.pod.ip}:15020/metrics", "POST"))[0] == 405


@pytest.mark.parametrize("captured", [True, False])
def test_a_pod_of_the_mesh_scrapes_the_metrics(cluster: Cluster, captured: bool) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    scraper = cluster.add_pod("scraper", "node-a", captured=captured)
    status, _, body = scraper.run(lambda: get(f"http://{proxy.pod.ip}:15020/metrics"))
    assert status == 200
    assert b"istio_build{" in body


def test_curl_reads_the_pages(cluster: Cluster) -> None:
    import shutil

    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    proxy = cluster.deploy_ztunnel_sync("node-a")
    command = ["curl", "-sS", "--noproxy", "*", "--compressed", f"http://{proxy.pod.ip}:15020/metrics"]
    assert "istio_build{" in cluster.root.check_output(command)
    command = ["curl", "-sS", "--noproxy", "*", f"http://{proxy.pod.ip}:15021/healthz/ready"]
    assert cluster.root.check_output(command) == "ready\n"


def test_administration_is_on_loopback_only(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    with pytest.raises(urllib.error.URLError, match="refused"):
        cluster.root.run(lambda: get(f"http://{proxy.pod.ip}:15000/config_dump"))


@pytest.mark.cluster(families="dual")
def test_administration_is_on_loopback_of_both_families(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    for localhost in ("127.0.0.1", "[::1]"):
        assert proxy.pod.run(get, f"http://{localhost}:15000/config_dump")[0] == 200


def test_config_dump_follows_the_cluster(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")

    def dump() -> dict[str, list[dict[str, str]]]:
        _, headers, body = proxy.pod.run(lambda: get("http://127.0.0.1:15000/config_dump"))
        assert headers["content-type"].startswith("application/json")
        found: dict[str, list[dict[str, str]]] = json.loads(body)
        return found

    assert dump()["services"] == []
    service = cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    pod = cluster.add_pod("web-0", "node-a", labels={"app": "web"})
    after = dump()
    assert [each["hostname"] for each in after["services"]] == ["web.default.svc.cluster.local"]
    assert {each["identity"] for each in after["certificates"]} == {
        "spiffe://cluster.local/ns/default/sa/web-0",
        "spiffe://cluster.local/ns/default/sa/ztunnel-node-a",
    }
    pod.remove()
    service.remove()
    after = dump()
    (left,) = after["certificates"]
    assert left["identity"] == "spiffe://cluster.local/ns/default/sa/ztunnel-node-a"
    assert after["services"] == []
    assert {each["name"] for each in after["workloads"]} == {"ztunnel-node-a"}


def test_config_dump_writes_out_what_is_known_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps: list[dict[str, Any]] = []
    dump = State.dump

    def counted(state: State) -> dict[str, Any]:
        dumps.append(dump(state))
        return dumps[-1]

    monkeypatch.setattr(State, "dump", counted)
    proxy = cluster.deploy_ztunnel_sync("node-a")
    cluster.add_service("web", selector={"app": "web"}, ports={80: 8080})
    _, _, body = proxy.pod.run(lambda: get("http://127.0.0.1:15000/config_dump"))
    (written,) = dumps
    assert json.loads(body).items() >= json.loads(json.dumps(written, default=str)).items()
    assert set(written) == {"workloads", "services", "policies", "stagedServices"}


def test_to_ask_it_to_quit_ends_it(cluster: Cluster) -> None:
    proxy = cluster.deploy_ztunnel_sync("node-a")
    status, _, _ = proxy.pod.run(lambda: get("http://127.0.0.1:15000/quitquitquit", "POST"))
    assert status == 200
    proxy._proxy._ended.result(10)
    assert not proxy.running
    assert not proxy.ready
