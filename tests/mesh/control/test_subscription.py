"""A ztunnel's end of delta xDS, message by message: alone, and with our control plane's end."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.control.discovery import Discovery
from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION, DISCOVERY_API
from netwarren.mesh.control.resources import resources_of
from netwarren.mesh.control.subscription import Heard, Subscription
from netwarren.mesh.model import NamespacedName, Policy, Service, Workload
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.store import State

KEY = NamespacedName("default", "web.default.svc.cluster.local")
WEB = Workload("uid/web", "web", "default", (ip_address("10.0.0.1"),), services={KEY: {80: 8080}})
SERVICE = Service("web", "default", KEY.name, ports={80: 8080})
POLICY = Policy("closed", "default", "Namespace", "Deny")
MESH = Config((WEB,), (POLICY,), (SERVICE,))


class Proxy:
    """What a proxy knows, and its subscription."""

    def __init__(self) -> None:
        self.state = State()
        self.subscription = Subscription(
            "ztunnel~1.1.1.1~z.istio-system~istio-system.svc.cluster.local",
            {"NAME": "z", "CLUSTER_ID": "one"},
            self._apply,
        )

    def _apply(self, change: Callable[[State], None]) -> None:
        change(self.state)

    def requests(self) -> list[Any]:
        return [DISCOVERY_API["DeltaDiscoveryRequest"].FromString(each) for each in self.subscription.begin()]

    def hear(self, url: str, config: Config, *removed: str, nonce: str = "1") -> Heard:
        response = DISCOVERY_API["DeltaDiscoveryResponse"](
            type_url=url, nonce=nonce, removed_resources=removed
        )
        for name, each in resources_of(config)[url].items():
            response.resources.add(name=name).resource.value = each.message
        return self.subscription.hear(response.SerializeToString())

    def complete(self) -> bool:
        return self.subscription.complete

    def known(self) -> tuple[list[Workload], list[Service], list[Policy]]:
        return list(self.state.workloads), list(self.state.services), list(self.state.policies)


def answer(heard: Heard) -> Any:
    return DISCOVERY_API["DeltaDiscoveryRequest"].FromString(heard.answer)


def test_a_new_stream_asks_for_all_of_both_types_and_says_who_asks() -> None:
    asked = Proxy().requests()
    assert [each.type_url for each in asked] == [ADDRESS, AUTHORIZATION]
    for each in asked:
        assert each.node.id == "ztunnel~1.1.1.1~z.istio-system~istio-system.svc.cluster.local"
        assert {found.key: found.value.string_value for found in each.node.metadata.fields} == {
            "NAME": "z",
            "CLUSTER_ID": "one",
        }
        for field in ("resource_names_subscribe", "initial_resource_versions", "response_nonce"):
            assert not getattr(each, field)


def test_what_is_heard_is_known_and_acknowledged() -> None:
    proxy = Proxy()
    heard = proxy.hear(ADDRESS, MESH, nonce="seven")
    assert (heard.url, heard.resources, heard.removed, heard.refusals) == (ADDRESS, 2, 0, ())
    assert heard.size == sum(len(each.message) for each in resources_of(MESH)[ADDRESS].values())
    said = answer(heard)
    assert (said.type_url, said.response_nonce, said.HasField("error_detail")) == (ADDRESS, "seven", False)
    assert not proxy.complete()
    proxy.hear(AUTHORIZATION, MESH)
    assert proxy.complete()
    assert proxy.known() == ([WEB], [SERVICE], [POLICY])
    (endpoint,) = proxy.state.endpoints(SERVICE)
    assert (endpoint.workload, endpoint.ports) == (WEB, {80: 8080})


def test_what_is_gone_is_forgotten_by_the_name_it_came_with() -> None:
    proxy = Proxy()
    proxy.hear(ADDRESS, MESH)
    proxy.hear(AUTHORIZATION, MESH)
    proxy.hear(ADDRESS, Config(), WEB.uid)
    assert proxy.known() == ([], [SERVICE], [POLICY])
    proxy.hear(ADDRESS, Config(), str(KEY))
    proxy.hear(AUTHORIZATION, Config(), "default/closed")
    assert proxy.known() == ([], [], [])


@pytest.mark.parametrize("name", ["alone", "default/there/is/none", "default/nobody"])
@pytest.mark.parametrize("url", [ADDRESS, AUTHORIZATION])
def test_what_was_not_there_and_is_gone_is_told_of_and_no_refusal(url: str, name: str) -> None:
    heard = Proxy().hear(url, Config(), name)
    assert (heard.unknown, heard.refusals) == ((name,), ())


def test_one_resource_that_makes_no_sense_is_refused_by_name_and_the_others_apply() -> None:
    proxy = Proxy()
    response = DISCOVERY_API["DeltaDiscoveryResponse"](type_url=ADDRESS, nonce="1")
    response.resources.add(name="bad").resource.value = b"\xff"
    response.resources.add(name="empty")
    for name, each in resources_of(MESH)[ADDRESS].items():
        response.resources.add(name=name).resource.value = each.message
    heard = proxy.subscription.hear(response.SerializeToString())
    said = answer(heard)
    assert said.response_nonce == "1"
    assert said.error_detail.message == "; ".join(heard.refusals)
    assert [each.partition(":")[0] for each in heard.refusals] == ["bad", "empty"]
    assert "there is nothing but a name" in heard.refusals[1]
    assert proxy.known() == ([WEB], [SERVICE], [])
    proxy.hear(AUTHORIZATION, Config())
    assert not proxy.complete()  # before it was taken whole
    proxy.hear(ADDRESS, Config())
    assert proxy.complete()


def test_who_comes_again_names_what_it_knows() -> None:
    proxy = Proxy()
    proxy.hear(ADDRESS, MESH)
    proxy.hear(AUTHORIZATION, MESH)
    proxy.hear(ADDRESS, Config(), WEB.uid)
    known = [{each.key: each.value for each in asked.initial_resource_versions} for asked in proxy.requests()]
    assert known == [{str(KEY): ""}, {"default/closed": ""}]


def test_another_type_is_acknowledged_and_nothing_is_known_of_it() -> None:
    proxy = Proxy()
    response = DISCOVERY_API["DeltaDiscoveryResponse"](type_url="type.googleapis.com/x.Y", nonce="1")
    response.resources.add(name="x").resource.value = b"\xff"
    assert answer(proxy.subscription.hear(response.SerializeToString())).response_nonce == "1"
    assert proxy.known() == ([], [], [])


def test_what_is_no_response_is_an_error() -> None:
    with pytest.raises(MeshError, match="no DeltaDiscoveryResponse"):
        Proxy().subscription.hear(b"\xff")


def test_a_mesh_that_changes_is_followed_over_streams_that_end() -> None:
    """Against our own control plane, which tells what is new and what is gone."""
    plane, proxy = Discovery(resources_of(MESH)), Proxy()

    def stream() -> None:
        told: list[bytes] = []
        subscriber = plane.subscribe(told.append)
        for request in proxy.subscription.begin():
            subscriber.hear(request)
        while told:
            subscriber.hear(proxy.subscription.hear(told.pop(0)).answer)
        assert plane.settled
        assert plane.refusals == []
        subscriber.ended()

    stream()
    assert proxy.known() == ([WEB], [SERVICE], [POLICY])
    plane.change(resources_of(Config((), (POLICY,), (SERVICE,))))
    stream()
    assert proxy.known() == ([], [SERVICE], [POLICY])
    plane.change(resources_of(Config((WEB,))))
    stream()
    assert proxy.known() == ([WEB], [], [])
