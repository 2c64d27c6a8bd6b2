"""A subscription to a mesh: what a ztunnel asks its control plane for, and what it makes of the answers; delta xDS.

Rules: the protocol of Envoy (``xds_protocol``, "Incremental xDS"), as istio/ztunnel speaks it (`src/xds/client.rs`): all
resources of both types; each response is acknowledged, or refused with every resource of it that made no sense while the
others apply; who comes again says what it knows. Messages in, messages out.
Does not belong here: connections (see `discovery_client`), the other side (see `discovery`), what resources say (see
`learning`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from netwarren.errors import MeshError
from netwarren.mesh.control.learning import address_of, policy_of
from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION, DISCOVERY_API
from netwarren.mesh.control.schema import decoded, encoded
from netwarren.mesh.model import NamespacedName, Policy, Service, Workload
from netwarren.mesh.state.store import State

TYPES = (ADDRESS, AUTHORIZATION)

Apply = Callable[[Callable[[State], None]], None]
"""Has a change made to what is known of the mesh, before it returns."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A response: the ``answer`` to it, its type, how many resources it had (``size`` bytes of them) and took away.

    ``refusals`` are the reasons why some were not taken; ``unknown`` the names of those to be taken away that were not there.
    """

    answer: bytes
    url: str
    nonce: str
    resources: int
    removed: int
    size: int
    refusals: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class Subscription:
    """What has been heard of a mesh, over as many streams as it takes; ``node_id`` and ``metadata`` say who asks."""

    def __init__(self, node_id: str, metadata: Mapping[str, str], apply: Apply) -> None:
        self._node = DISCOVERY_API["Node"](id=node_id)
        for key, value in sorted(metadata.items()):
            self._node.metadata.fields.add(key=key).value.string_value = value
        self._apply = apply
        self._known: dict[str, dict[str, None]] = {url: {} for url in TYPES}
        self._awaited = set(TYPES)

    @property
    def complete(self) -> bool:
        """Whether a response of each type has come that could be taken whole."""
        return not self._awaited

    def begin(self) -> list[bytes]:
        """The requests of a new stream: for all of each type, with the names of what is known, whose versions are not."""
        requests = []
        for url in TYPES:
            request = DISCOVERY_API["DeltaDiscoveryRequest"](type_url=url, node=self._node)
            for name in self._known[url]:
                request.initial_resource_versions.add(key=name)
            requests.append(encoded(request))
        return requests

    def hear(self, data: bytes) -> Heard:
        """Take a response. Raises `MeshError` for what is none."""
        response = decoded(DISCOVERY_API["DeltaDiscoveryResponse"], data)
        url = str(response.type_url)
        refusals: list[str] = []
        unknown: list[str] = []
        if url in TYPES:
            learned = _learned(response, refusals)
            gone = list(response.removed_resources)

            def change(state: State) -> None:
                for each in learned:
                    _add(state, each)
                unknown.extend(name for name in gone if not _remove(state, url, name))

            self._apply(change)
            known = self._known[url]
            for name in gone:
                known.pop(name, None)
            known |= dict.fromkeys(each.name for each in response.resources)
            if not refusals:
                self._awaited.discard(url)
        answer = DISCOVERY_API["DeltaDiscoveryRequest"](type_url=url, response_nonce=response.nonce)
        if refusals:
            answer.error_detail.message = "; ".join(refusals)
        return Heard(
            encoded(answer),
            url,
            response.nonce,
            len(response.resources),
            len(response.removed_resources),
            sum(len(each.resource.value) for each in response.resources),
            tuple(refusals),
            tuple(unknown),
        )


def _learned(response: Any, refusals: list[str]) -> list[Workload | Service | Policy]:
    """What its resources say; of those that make no sense the reasons."""
    read = address_of if response.type_url == ADDRESS else policy_of
    found: list[Workload | Service | Policy] = []
    for each in response.resources:
        try:
            if not each.HasField("resource"):
                raise MeshError("there is nothing but a name")
            found.append(read(each.resource.value))
        except MeshError as error:
            refusals.append(f"{each.name}: {error}")
    return found


def _add(state: State, learned: Workload | Service | Policy) -> None:
    match learned:
        case Workload():
            state.add_workload(learned)
        case Service():
            state.add_service(learned)
        case Policy():
            state.add_policy(learned)


def _remove(state: State, url: str, name: str) -> bool:
    """Whether there was something of that name, which is gone now."""
    key = NamespacedName(*name.split("/", 1)) if "/" in name else None
    if url == AUTHORIZATION:
        if key is None or state.policy(key) is None:
            return False
        state.remove_policy(key)
    elif state.workload(name) is not None:
        state.remove_workload(name)
    elif key is not None and state.service(key) is not None:
        state.remove_service(key)
    else:
        return False
    return True
