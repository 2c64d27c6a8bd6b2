"""What one run found out: the tree that marks are judged by, that the report shows, and that the JSON file keeps.

Rules: data alone; times in ms unless a name says otherwise; what could not be run is there with its reason.
Does not belong here: how it was measured (see `measure`), what is good enough (see `marks`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Series
from bench.suite import Suite
from bench.waiting import Call


@dataclass
class Built:
    """What one contestant took for clusters of one size."""

    ready: Series = field(default_factory=Series)
    """Until a cluster was ready for traffic."""
    whole: Series = field(default_factory=Series)
    """Until it was closed as well."""
    user: float = 0.0
    """Ms of the processor for a cluster, with all children and with a share of the program's start."""
    system: float = 0.0
    skipped: str = ""


@dataclass
class Size:
    """What one contestant took for a cluster of so many pods, and for one pod more and one less in it."""

    pods: int
    ready: Series = field(default_factory=Series)
    of_pods: Series = field(default_factory=Series)
    """Adding all pods to the nodes that are there; ours alone."""
    add: Series = field(default_factory=Series)
    remove: Series = field(default_factory=Series)
    close: Series = field(default_factory=Series)
    own_kb: list[float] = field(default_factory=list)
    """Memory of our process, and of the kernel, for a pod."""
    kernel_kb: list[float] = field(default_factory=list)
    sent: int = 0
    arrived: int = 0
    skipped: str = ""


@dataclass
class Where:
    """Where the time of sustained clusters went."""

    phases: list[Mapping[str, Any]] = field(default_factory=list)
    """The fields of `bench.clusters.Phase`, per cluster."""
    first: Sequence[tuple[str, float]] = ()
    """What the thread that builds was seen at, and the share of all looks."""
    others: Sequence[tuple[str, float]] = ()
    floor: Sequence[tuple[str, float]] = ()
    cleaner: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    """What the kernel's worker that ends namespaces was seen at, by whose namespaces they were."""
    calls: Mapping[str, Sequence[Call]] = field(default_factory=dict)
    """By contestant: the system calls that took longest, over ``traced`` clusters."""
    traced: int = 0


@dataclass
class Results:
    """All of one run; by contestant, where a mapping has no other key."""

    machine: Mapping[str, str]
    quick: bool
    began: str
    single: dict[str, Built] = field(default_factory=dict)
    paused: dict[str, Built] = field(default_factory=dict)
    """As ``single``, each cluster after a pause, as in a suite whose tests do something."""
    pause: float = 0.0
    sustained: dict[str, Built] = field(default_factory=dict)
    held: list[Sequence[Mapping[str, int]]] = field(default_factory=list)
    """By turns: what our process holds on to as it goes on (`bench.clusters.held`)."""
    where: Where = field(default_factory=Where)
    suites: list[Suite] = field(default_factory=list)
    nodes: int = 0
    scale: dict[str, list[Size]] = field(default_factory=dict)
    stepping: dict[str, Series] = field(default_factory=dict)
    """In microseconds, by the names of `bench.stepping`."""
    start_up: dict[str, Series] = field(default_factory=dict)
    others: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What `bench.names`, `bench.mesh` and `bench.hbone_bulk` print, by their names."""
    skipped: list[str] = field(default_factory=list)
    """What could not be run, and why."""
    seconds: float = 0.0
    noise: Mapping[str, Any] = field(default_factory=dict)
