"""What a proxy knows of its node's pods, as its agent tells it: which to start and stop, and what to answer.

Rules: pure, messages and outcomes in, actions out; a network namespace is known by its identity, never by its
descriptor; what could not be started stays pending until it starts, is deleted, or is left out of a snapshot.
Does not belong here: the connection to the agent, descriptors and time (see `zds_proxy`).
"""

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from netwarren.mesh.inpod.zds import Ack, Add, Delete, Keep, Request, SnapshotSent, WorkloadInfo

RETRY_SECONDS = 5.0
"""Between two attempts to start what is pending."""


class NetnsIdentity(NamedTuple):
    """What tells one network namespace from another for as long as somebody holds it: stat(2) of its descriptor."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Start:
    """Begin to carry a pod's traffic, and tell `PodStates.started` what came of it."""

    uid: str
    info: WorkloadInfo
    netns: NetnsIdentity
    retry: bool = False
    """Of one that is pending: nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Cease to carry a pod's traffic, and cut its connections at once."""

    uid: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this."""

    ack: Ack


@dataclass(frozen=True, slots=True)
class Exit:
    """The agent does not keep to the protocol: the proxy ends."""

    reason: str


Action: TypeAlias = Start | Stop | Answer | Exit


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that was told of."""

    info: WorkloadInfo
    netns: NetnsIdentity


@dataclass(slots=True)
class PodStates:
    """The state of one proxy, which lasts over connections. Actions are to be carried out in their order."""

    active: dict[str, Pod] = field(default_factory=dict)
    """By uid, those whose traffic is carried."""
    pending: dict[str, Pod] = field(default_factory=dict)
    """By uid, those that could not be started."""
    started_total: int = 0
    stopped_total: int = 0
    _named: set[str] = field(default_factory=set)
    _snapshot: bool = False

    @property
    def ready(self) -> bool:
        """Whether every pod of the agent's is carried: its snapshot has come, and nothing is pending."""
        return self._snapshot and not self.pending

    @property
    def snapshot_received(self) -> bool:
        """Whether this connection's snapshot is complete."""
        return self._snapshot

    def connected(self) -> None:
        """A connection to the agent begins or is over: a snapshot will come. What runs goes on meanwhile."""
        self._named.clear()
        self._snapshot = False

    def receive(self, request: Request, netns: NetnsIdentity | None = None) -> list[Action]:
        """What a request of the agent's comes to; ``netns`` came with an `Add`, and with no other."""
        match request:
            case Add(uid, info):
                if info is None or netns is None:
                    missing = "workload info" if info is None else "network namespace"
                    return _violation(f"pod {uid} was added without its {missing}")
                return self._add(uid, Pod(info, netns))
            case Keep(uid):
                if self._snapshot:
                    return _violation(f"pod {uid} was kept after the snapshot")
                self._named.add(uid)
                return [Answer(Ack())]
            case Delete(uid):
                return self._delete(uid)
            case SnapshotSent():
                if self._snapshot:
                    return _violation("a second snapshot was sent")
                return self._reconcile()

    def started(self, start: Start, failure: str = "") -> list[Action]:
        """What a `Start` came to; ``failure`` says why it failed."""
        pod = Pod(start.info, start.netns)
        if failure:
            self.pending[start.uid] = pod
            return [] if start.retry else [Answer(Ack(f"failure to start proxy : {failure}"))]
        self.pending.pop(start.uid, None)
        self.active[start.uid] = pod
        self.started_total += 1
        return [] if start.retry else [Answer(Ack())]

    def retry(self) -> list[Start]:
        """What to try again, `RETRY_SECONDS` after the last time."""
        return [Start(uid, pod.info, pod.netns, retry=True) for uid, pod in self.pending.items()]

    def stop_all(self) -> list[Stop]:
        """At the proxy's own end; what is pending is forgotten."""
        self.pending.clear()
        return [self._stop(uid) for uid in list(self.active)]

    # --- each kind of request ---

    def _add(self, uid: str, pod: Pod) -> list[Action]:
        if not self._snapshot:
            self._named.add(uid)
        actions: list[Action] = []
        running = self.active.get(uid)
        if running is not None:
            if running.netns == pod.netns:
                return [Answer(Ack())]
            actions.append(self._stop(uid))
        return [*actions, Start(uid, pod.info, pod.netns)]

    def _delete(self, uid: str) -> list[Action]:
        self.pending.pop(uid, None)
        if not self._snapshot:  # what runs by that name is stopped with the snapshot that does not name it
            self._named.discard(uid)
            return [Answer(Ack())]
        stops = [self._stop(uid)] if uid in self.active else []
        return [*stops, Answer(Ack())]

    def _reconcile(self) -> list[Action]:
        gone = [uid for uid in self.active if uid not in self._named]
        self.pending = {uid: pod for uid, pod in self.pending.items() if uid in self._named}
        self._named.clear()
        self._snapshot = True
        return [*map(self._stop, gone), Answer(Ack())]

    def _stop(self, uid: str) -> Stop:
        del self.active[uid]
        self.stopped_total += 1
        return Stop(uid)


def _violation(reason: str) -> list[Action]:
    return [Answer(Ack(f"protocol error: {reason}")), Exit(reason)]
