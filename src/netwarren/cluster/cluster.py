"""The cluster: what users make, and add nodes and pods to.

Rules: the model decides first and is put back if the kernel refuses; every change is whole or not at
all; a closed cluster leaves no process, no thread, no name.
Does not belong here: decisions (see `netwarren.topology`), requests to the kernel (see `wiring`), what a
report looks like (see `report`).
"""

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from netwarren.cluster import roots
from netwarren.cluster.members import Node, Pod, Root
from netwarren.cluster.meshing import Meshing
from netwarren.cluster.name_server import NameServer
from netwarren.cluster.netns_names import NetnsNames
from netwarren.cluster.serving import Serving
from netwarren.cluster.wiring import Wiring
from netwarren.errors import (
    ClosedError,
    ConfigurationError,
    DuplicateName,
    KernelError,
    NetwarrenError,
    UnknownName,
)
from netwarren.kernel import netns
from netwarren.kernel.netns import Namespace
from netwarren.names import server
from netwarren.runtime import ferry
from netwarren.runtime.ending import end_all, raise_untold
from netwarren.runtime.machine import Machine
from netwarren.sandbox import Sandbox, resolver, shell
from netwarren.topology import plan
from netwarren.topology.addresses import (
    AddressesArgument,
    FamiliesArgument,
    FamilyArgument,
    Interface,
    NetworksArgument,
    parse_families,
)
from netwarren.topology.configuration import read_ranges
from netwarren.topology.model import ClusterModel
from netwarren.topology.naming import check_name
from netwarren.topology.operations import ROOT
from netwarren.topology.specs import DEFAULT_NAMESPACE, NodeSpec, PodSpec
from netwarren.topology.wellknown import NAME_SERVER_IN_PROCESS

if TYPE_CHECKING:
    from netwarren.cluster.egress import Outlet
    from netwarren.names import ClusterDNS
    from netwarren.names.kubernetes import Snapshot
    from netwarren.topology.egress import EgressArgument, Opening

DEFAULT_NODES = ("node-a", "node-b")

_ADD_ANEW = "add it anew to go on using the name"

# Those that nobody has closed yet, for the end of the process.
_open: "weakref.WeakSet[Cluster]" = weakref.WeakSet()


class Cluster(Serving, Meshing):
    """A network of its own, shaped like a Kubernetes cluster's; closed by `close` or ``with``.

    ``name`` is what ``ip netns`` and reports call it. ``nodes`` are the names of the nodes there are;
    each is built when it is first used. ``families`` is ``"ipv4"`` (the default), ``"ipv6"`` or both,
    the preferred one first. Nodes' addresses are taken from ``node_range``; ``pod_range`` is cut into one
    range for each node's pods, of length ``pod_prefix``; services' addresses are taken from
    ``service_range``; ranges are given as text, one a family.
    ``egress`` names what of the host and the internet pods may reach, by default nothing:
    ``"localhost:5432"`` (a port of the host's loopback, dialled at `host`), ``"10.1.2.0/24"``,
    ``"10.1.2.3:443"``, ``"example.com:443"``, ``"*"``, or several of these.
    ``sandbox`` says how to enter where that has not happened yet.

    All methods may be called from any thread. Raises `SandboxError` where the sandbox cannot be entered,
    `ConfigurationError` for an option that means nothing.
    """

    def __init__(
        self,
        name: str = "cluster",
        *,
        nodes: Iterable[str] = DEFAULT_NODES,
        families: FamiliesArgument = "ipv4",
        pod_range: NetworksArgument = None,
        pod_prefix: int | None = None,
        node_range: NetworksArgument = None,
        service_range: NetworksArgument = None,
        egress: "EgressArgument" = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        self.families = parse_families(families)
        self._model = ClusterModel(
            self.families, read_ranges(self.families, pod_range, node_range, pod_prefix)
        )
        if isinstance(nodes, str) or not isinstance(nodes, Iterable):
            raise ConfigurationError(
                f"nodes={nodes!r} is not several names; write them in a tuple, such as nodes=({str(nodes)!r},)"
            )
        self._declared = tuple(check_name("node", node) for node in dict.fromkeys(nodes))
        openings = _openings(egress)
        self._lock = threading.RLock()
        self._closed = False
        self._wiring = Wiring()
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, Pod] = {}
        self._services = None
        self._mesh = None
        self._netns_names = NetnsNames()
        self._name_server = NameServer(self.families, self._snapshot, self._name_of)
        self.name = name
        if service_range is not None:
            self._make_services(service_range)
        (sandbox or Sandbox()).enter()
        self._owner = os.getpid()  # now: entering may have gone on in a forked child
        self._outlet: Outlet | None = None
        resolver.prepare([str(address) for address in NAME_SERVER_IN_PROCESS.values()], self.families)
        try:
            self.root = self._make_root()
            self._outlet = self._open(openings)
            if self._outlet is not None:
                self.dns.upstream = self._outlet.upstream
        except BaseException:
            self._abandon()
            raise
        _open.add(self)

    def __repr__(self) -> str:
        nodes = len({*self._nodes, *self._declared})
        state = "closed" if self._closed else f"{nodes} nodes, {len(self._pods)} pods"
        return f"<Cluster {self.name}: {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except NetwarrenError as untold:
            if error is None:
                raise
            error.add_note(f"And in the cluster: {untold}")  # which may be the cause, but is not what failed

    @property
    def dns(self) -> "ClusterDNS":
        """The cluster's name server."""
        return self._name_server.dns

    @property
    def netns_name(self) -> str:
        """What ``ip netns`` calls the root; its members are called ``NAME`` and this, with a dot between."""
        return self._netns_names.root

    # --- nodes and pods ---

    @property
    def nodes(self) -> dict[str, Node]:
        """All nodes by name; those not used yet are built by asking."""
        with self._lock:
            self._check_open()
            self._add_nodes([(name, None, None) for name in self._declared if name not in self._nodes])
            return dict(self._nodes)

    @property
    def built_nodes(self) -> dict[str, Node]:
        """The nodes that have been used, by name."""
        with self._lock:
            return dict(self._nodes)

    @property
    def bridge_addresses(self) -> tuple[Interface, ...]:
        """The addresses of the root's bridge, as `ipaddress` interfaces."""
        return self._model.root

    @property
    def host(self) -> str:
        """The address at which pods reach the ports of the host's loopback that ``egress`` names.

        It is the root's on its bridge, in the cluster's first family; in another one, see
        `bridge_addresses`.
        """
        return str(self._model.root[0].ip)

    @property
    def pods(self) -> dict[str, Pod]:
        """All pods by name."""
        with self._lock:
            return dict(self._pods)

    def node(self, name: str) -> Node:
        """The node called ``name``; raises `UnknownName`, which lists those there are."""
        with self._lock:
            self._check_open()
            if name in self._nodes:
                return self._nodes[name]
            if name in self._declared:
                return self._add_nodes([(name, None, None)])[0]
            raise UnknownName("node", name, {*self._nodes, *self._declared})

    def pod(self, name: str) -> Pod:
        """The pod called ``name``; raises `UnknownName`, which lists those there are."""
        with self._lock:
            self._check_open()
            if name not in self._pods:
                raise UnknownName("pod", name, self._pods)
            return self._pods[name]

    def add_node(
        self, name: str, *, address: AddressesArgument = None, pod_range: NetworksArgument = None
    ) -> Node:
        """Add a node, with ``address`` in the node range and ``pod_range`` for its pods if given.

        Raises `InvalidName`, `DuplicateName`, `AddressError` and its kinds.
        """
        with self._lock:
            self._check_open()
            self._refuse_declared(name)
            return self._add_nodes([(name, address, pod_range)])[0]

    def add_pod(
        self,
        name: str,
        node: str | Node | None = None,
        *,
        address: AddressesArgument = None,
        namespace: str = DEFAULT_NAMESPACE,
        labels: Mapping[str, str] | None = None,
        pid_namespace: bool = False,
        captured: bool = True,
        workload: Mapping[str, Any] | None = None,
    ) -> Pod:
        """Add a pod on ``node`` (the first one by default), with ``address`` of the node's range if given.

        ``namespace`` is the Kubernetes namespace it is in, ``labels`` what services may select it by. With
        ``pid_namespace``, programs that are started there see and signal none but the pod's processes, as in
        Kubernetes with shareProcessNamespace. On a node that has a proxy (`deploy_ztunnel`) that carries the
        pod's traffic if ``captured``; ``workload`` are fields of its `netwarren.mesh.model.Workload`.
        Raises `InvalidName`, `DuplicateName`, `UnknownName` for the node, `ConfigurationError` for labels,
        `AddressError` and its kinds, `KernelError` where there can be no PID namespace.
        """
        with self._lock:
            self._check_open()
            on = self._place(node)
            self._refuse_declared(name)
            spec: PodSpec | None = None
            try:
                spec = self._model.add_pod(name, on.name, address=address, namespace=namespace, labels=labels)
                made = self._wire_pod(spec, on)
                pod = self._pods[name] = Pod(self, spec, made)
                self._netns_names.add(name, made)
                if pid_namespace:
                    pod._separate_processes()
                self._follow([pod])
                self._carry(pod, captured, workload)
            except BaseException:
                if spec is not None and name in self._pods:
                    end_all([self._pods[name]])
                if spec is not None:
                    self._wiring.undo(plan.plan_pod_removal(spec))
                    self._forget(name, self._pods)
                    self._model.remove_pod(name)
                raise
            return pod

    def remove_pod(self, pod: str | Pod) -> None:
        """Remove a pod: end what runs in it and cut it off; its address may be given out again.

        Raises what failed in its background and nobody has been told about.
        """
        with self._lock:
            self._check_open()
            gone = pod if isinstance(pod, Pod) else self.pod(pod)
            self._own(gone, self._pods)
            gone._retire("was removed", _ADD_ANEW)
        try:
            untold = self._let_go([gone], [gone])
        finally:
            with self._lock:
                if not self._closed and self._pods.get(gone.name) is gone:  # else it went with its node
                    self._wiring.undo(plan.plan_pod_removal(gone.spec))
                    self._forget(gone.name, self._pods)
                    self._model.remove_pod(gone.name)
        raise_untold(untold)

    def remove_node(self, node: str | Node) -> None:
        """Remove a node and the pods on it."""
        with self._lock:
            self._check_open()
            gone = node if isinstance(node, Node) else self.node(node)
            self._own(gone, self._nodes)
            pods = list(gone.pods.values())
            for machine in (gone, *pods):
                machine._retire("was removed", _ADD_ANEW)
        try:
            untold = self._let_go(pods, [*pods, gone])
        finally:
            with self._lock:
                if not self._closed:
                    for pod in pods:
                        if self._pods.get(pod.name) is pod:  # else somebody was removing it already
                            self._forget(pod.name, self._pods)
                            self._model.remove_pod(pod.name)
                    others = [other.spec for other in self._nodes.values() if other is not gone]
                    self._wiring.undo(plan.plan_node_removal(gone.spec, others))
                    self._forget(gone.name, self._nodes)
                    self._model.remove_node(gone.name)
                    if self._services is not None:
                        self._services.forget(gone.name)
                    self._declared = tuple(name for name in self._declared if name != gone.name)
        raise_untold(untold)

    def resolve(self, name: str, family: FamilyArgument | None = None) -> str:
        """The address of the service, pod or node ``name``, as text: in ``family``, or the cluster's first one.

        A service goes before a pod of its name, and one in another namespace is ``web.prod``. Of a headless
        one, it is the address of the first ready endpoint. Raises `UnknownName`, which lists the names there
        are, and `AddressError`.
        """
        with self._lock:
            self._check_open()
            if self._services is not None:
                address = self._services.resolve(name, family)
                if address is not None:
                    return str(address)
            if name in self._declared:
                self.node(name)
            elif name not in self._nodes and name not in self._pods:
                known = {*self._pods, *self._nodes, *self._declared}
                if self._services is None:
                    raise UnknownName("pod or node", name, known)
                raise UnknownName("service, pod or node", name, {*known, *self._services.handles})
            return str(self._model.resolve(name, family=family))

    # --- the end ---

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """End everything in the cluster and let its namespaces go; again is fine.

        Raises `BackgroundError` where something failed in a background that nobody has been told about, and
        `ProgramError` where a program ended and nobody expected that (see `Program`).
        """
        with self._lock:
            if self._closed or os.getpid() != self._owner:
                return  # a forked child holds copies of descriptors, and has ended nothing by itself
            self._closed = True
            _open.discard(self)
            machines = self._machines()
            for machine in machines:
                machine._retire("is in a closed cluster", "make another cluster")
        try:
            if self._mesh is not None:
                self._mesh.close()  # before its sockets in pods are cut off
            untold = end_all(machines)  # without the lock: what is to end may be waiting for it
        finally:
            if self._outlet is not None:
                self._outlet.close()
            # Without the lock, too: whoever answers may be waiting for it.
            sockets = self._name_server.release()
            with self._lock:
                self._give_back_root(sockets)
                self._abandon()
        raise_untold(untold)

    # --- for people ---

    def step_in_command(self, name: str | None = None) -> str:
        """A shell command that steps into the root, or the pod or node ``name``, while this process runs."""
        if name is None:
            return shell.command(os.getpid(), self.netns_name)
        self.resolve(name)  # raises `UnknownName`, and builds a declared node
        machine = self._pods.get(name) or self._nodes.get(name)
        if machine is not None:
            with contextlib.suppress(KernelError):  # the shell does without
                machine._make_view()
        return shell.command(os.getpid(), self._netns_names.of(name))

    def describe(self) -> str:
        """The topology as a picture in text: root, nodes, pods, addresses."""
        from netwarren.cluster import report

        return report.picture(self)

    def report(self) -> str:
        """Everything a failing test's reader wants: the picture, routes, listening sockets, programs' output,
        the last questions for names.

        Never raises: what cannot be read is said in its place.
        """
        from netwarren.cluster import report

        return report.report(self)

    # --- inside ---

    def _machines(self) -> list[Machine]:
        with self._lock:
            return [*self._pods.values(), *self._nodes.values(), self.root]

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"cluster {self.name!r}", "is closed", "make another one")

    def _place(self, node: str | Node | None) -> Node:
        if isinstance(node, Node):
            self._own(node, self._nodes)
            return node
        if node is not None:
            named = self.node(node)
            named.check()  # it may be about to go
            return named
        for name in dict.fromkeys((*self._declared, *self._nodes)):
            first = self.node(name)
            if not first.gone:
                return first
        raise UnknownName("node", "(any)", ())

    def _refuse_declared(self, name: str) -> None:
        if name in self._declared and name not in self._nodes:
            raise DuplicateName("node", name, "declared, and built when it is first used")

    def _own(self, machine: Machine, members: Mapping[str, Machine]) -> None:
        machine.check()
        if members.get(machine.name) is not machine:
            raise ClosedError(
                machine.label, f"is not of cluster {self.name!r}", "use the cluster it was made by"
            )

    def _name_of(self, member: object) -> str:
        """The name of the root, or a node or pod that is there; raises `UnknownName`, which lists those there are."""
        with self._lock:
            if isinstance(member, Machine):
                if member is not self.root:
                    self._own(member, {**self._nodes, **self._pods})
                return member.name
            known = {"root", *self._declared, *self._nodes, *self._pods}
            if not isinstance(member, str) or member not in known:
                raise UnknownName("pod or node", cast(str, member), known)
            return member

    def _make_root(self) -> Root:
        label = f"the root of {self.name}"
        waiting = roots.take(self._model.root)
        if waiting is None:
            namespace = ferry.roam(partial(self._wire_root, label))
        else:
            namespace = self._wiring.adopt(ROOT, label, waiting.namespace, waiting.netlink)
            waiting.sockets.drain()
            self._name_server.listen(waiting.sockets)
        self._netns_names.add_root(self.name, namespace)
        return Root(self, namespace)

    def _wire_root(self, label: str) -> Namespace:
        namespace = self._wiring.create(ROOT, label, plan.sysctls("root", self.families))
        self._wiring.apply(plan.plan_cluster(self._model.ranges, resolver.host_servers()))
        roots.learn(self._model.root, self._wiring.netlink(ROOT))
        netns.enter(namespace)
        self._name_server.listen(server.listen(self.families))
        return namespace

    def _let_go(self, pods: Sequence[Pod], machines: Sequence[Machine]) -> list[BaseException]:
        """`_end` of machines, the ``pods`` among them, which no proxy carries any more then."""
        try:
            self._carry_no_more(pods)
        finally:
            untold = self._end(machines)
        return untold

    def _end(self, machines: Sequence[Machine]) -> list[BaseException]:
        """`end_all` of machines that are retired, after their last new connection through a service."""
        try:
            with self._lock:
                if not self._closed:
                    self._follow(machines)
        finally:
            untold = end_all(machines)  # without the lock: what is to end may be waiting for it
        return untold

    def _open(self, openings: "Sequence[Opening]") -> "Outlet | None":
        """The way out that was asked for, laid in the root."""
        if not openings:
            return None
        from netwarren.cluster import egress

        return egress.open_ways(openings, self._model.ranges, self.root)

    def _snapshot(self) -> "Snapshot":
        """For the name server's thread, without the lock: each tuple is made at one go."""
        from netwarren.names.kubernetes import Snapshot

        return Snapshot(
            self.families,
            self._model.root,
            tuple(self._model.nodes.values()),
            tuple(self._model.pods.values()),
            self._services.snapshot(tuple(self._pods.values())) if self._services is not None else (),
        )

    def _add_nodes(self, wanted: Sequence[tuple[str, AddressesArgument, NetworksArgument]]) -> list[Node]:
        others = [node.spec for node in self._nodes.values()]
        specs: list[NodeSpec] = []
        try:
            for name, address, pod_range in wanted:
                specs.append(self._model.add_node(name, address=address, pod_range=pod_range))
            namespaces = self._wire_nodes(specs, others)
            for spec, namespace in zip(specs, namespaces, strict=True):
                self._nodes[spec.name] = Node(self, spec, namespace)
                self._netns_names.add(spec.name, namespace)
            if self._services is not None:
                self._services.welcome([self._nodes[spec.name] for spec in specs])
        except BaseException:
            for spec in specs:
                if self._services is not None:
                    self._services.forget(spec.name)
                self._wiring.undo(plan.plan_node_removal(spec, others))
                self._forget(spec.name, self._nodes)
                self._model.remove_node(spec.name)
            raise
        return [self._nodes[spec.name] for spec in specs]

    def _wire_nodes(self, specs: Sequence[NodeSpec], others: Sequence[NodeSpec]) -> list[Namespace]:
        settings = plan.sysctls("node", self.families)
        made = [self._wiring.create(spec.name, f"node {spec.name!r}", settings) for spec in specs]
        self._wiring.apply(plan.plan_nodes(specs, others))
        return made

    def _wire_pod(self, spec: PodSpec, node: Node) -> Namespace:
        settings = plan.sysctls("pod", self.families)
        namespace = self._wiring.create(spec.name, f"pod {spec.name!r}", settings)
        self._wiring.apply(plan.plan_pod(spec, node.spec))
        self._wiring.release_netlink(spec.name)
        return namespace

    def _forget(self, name: str, members: dict[str, Any]) -> None:
        """Let go of a member, or of as much of it as was made."""
        members.pop(name, None)
        self._netns_names.remove(name)
        self._wiring.discard(name)

    def _abandon(self) -> None:
        if self._services is not None:
            self._services.close()
        self._name_server.close()
        self._netns_names.clear()
        self._wiring.discard_all()

    def _give_back_root(self, sockets: server.Sockets | None) -> None:
        """Leave the root to the next cluster, unless somebody has been in it."""
        if sockets is None:
            return
        if self.root._touched:
            sockets.close()
            return
        ways = [plan.plan_node_removal(node.spec, ()) for node in self._nodes.values()]
        left = [request for steps in ways for step in steps for request in self._wiring.removals(step)]
        roots.keep(self._model.root, roots.Waiting(*self._wiring.give_away(ROOT), sockets), left)


def _openings(wanted: "EgressArgument") -> "Sequence[Opening]":
    if wanted is None:
        return ()
    from netwarren.topology.egress import parse_egress

    return parse_egress(wanted)


@atexit.register
def _close_open() -> None:
    for cluster in list(_open):
        with contextlib.suppress(Exception):  # nobody is left to be told
            cluster.close()
