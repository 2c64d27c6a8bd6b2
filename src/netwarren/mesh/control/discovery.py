"""Discovery: what a ztunnel learns of the mesh from its control plane, by delta xDS on one aggregated stream.

Rules: the protocol of Envoy (``xds_protocol``, "Incremental xDS"), as istio/ztunnel speaks it (`src/xds/client.rs`): all
resources of a type to whoever subscribes to it, then what changes; the next response when the last is acknowledged.
Messages in, messages out, on one thread.
Does not belong here: streams and threads (see `grpc_server`, `server`), what the resources say (see `resources`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from netwarren.mesh.control.messages import ADDRESS, AUTHORIZATION, DISCOVERY_API
from netwarren.mesh.control.resources import Resource, Resources
from netwarren.mesh.control.schema import decoded, encoded


@dataclass(slots=True)
class _Type:
    """One type of resources, as a subscriber has it."""

    versions: dict[str, str] = field(default_factory=dict)
    """What it knows, or has been sent, by name."""
    nonce: str = ""
    """Of the response that it has not acknowledged."""


class Discovery:
    """The resources as they are now, and who has subscribed to them. ``on_settled`` is called when a response was
    acknowledged or refused, or a subscriber is gone.
    """

    def __init__(self, resources: Resources, on_settled: Callable[[], None] = lambda: None) -> None:
        self.resources = resources
        self.subscribers: list[Subscriber] = []
        self.refusals: list[str] = []
        """What subscribers have not taken, and why, since somebody last emptied this."""
        self._on_settled = on_settled

    def subscribe(self, say: Callable[[bytes], None]) -> "Subscriber":
        """A new stream, on which ``say`` sends a message."""
        subscriber = Subscriber(self, say)
        self.subscribers.append(subscriber)
        return subscriber

    def change(self, resources: Resources) -> None:
        """They are others now: every subscriber is told of the difference."""
        self.resources = resources
        for each in self.subscribers:
            each.push()

    @property
    def settled(self) -> bool:
        """Whether every subscriber has answered to all that there is."""
        return not any(each.waiting for each in self.subscribers)


class Subscriber:
    """A stream of one ztunnel (`grpc_server.StreamHandler`)."""

    def __init__(self, discovery: Discovery, say: Callable[[bytes], None]) -> None:
        self._discovery = discovery
        self._say = say
        self._types: dict[str, _Type] = {}
        self._responses = 0

    @property
    def waiting(self) -> bool:
        """Whether a response was not acknowledged yet."""
        return any(each.nonce for each in self._types.values())

    def hear(self, data: bytes) -> None:
        """A request: a subscription, an acknowledgement, or a refusal. Raises `MeshError` for what is none."""
        asked = decoded(DISCOVERY_API["DeltaDiscoveryRequest"], data)
        url = str(asked.type_url)
        if url not in (ADDRESS, AUTHORIZATION):
            return
        if url not in self._types:
            known = {each.key: each.value for each in asked.initial_resource_versions}
            self._types[url] = _Type(known)
            self._push(url, first=True)
            return
        state = self._types[url]
        if not state.nonce or asked.response_nonce != state.nonce:
            return  # of a response before
        state.nonce = ""
        if asked.HasField("error_detail"):
            self._discovery.refusals.append(str(asked.error_detail.message))
        self._push(url)
        self._discovery._on_settled()

    def ended(self) -> None:
        """The stream is over."""
        if self in self._discovery.subscribers:
            self._discovery.subscribers.remove(self)
            self._discovery._on_settled()

    def push(self) -> None:
        """Send what it does not know, of each type of which it has acknowledged the last response."""
        for url in self._types:
            self._push(url)

    def _push(self, url: str, first: bool = False) -> None:
        state = self._types[url]
        if state.nonce:
            return
        there = self._discovery.resources.get(url, {})
        versions = {name: _version(each) for name, each in there.items()}
        new = [name for name, version in versions.items() if state.versions.get(name) != version]
        gone = [name for name in state.versions if name not in versions]
        if not (new or gone or first):
            return
        self._responses += 1
        state.nonce, state.versions = str(self._responses), versions
        response = DISCOVERY_API["DeltaDiscoveryResponse"](
            type_url=url, nonce=state.nonce, removed_resources=gone
        )
        for name in new:
            found = there[name]
            made = response.resources.add(name=name, version=versions[name], aliases=found.aliases)
            made.resource.type_url, made.resource.value = url, found.message
        self._say(encoded(response))


def _version(resource: Resource) -> str:
    return hashlib.blake2b(resource.message, digest_size=8).hexdigest()
