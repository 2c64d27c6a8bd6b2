"""The model of a cluster: which nodes and pods there are, and what each of them is called and has.

Rules: every decision is made here and nowhere else; a refusal leaves the model exactly as it was. Not
thread-safe: whoever shares a model between threads holds a lock around each call.
Does not belong here: what a change means for links and routes (see `plan`), handles for users.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import MappingProxyType

from netwarren.errors import AddressError, DuplicateName, NetwarrenError, RangeExhausted, UnknownName
from netwarren.topology.addresses import (
    Address,
    AddressesArgument,
    FamiliesArgument,
    Family,
    FamilyArgument,
    Interface,
    NetworksArgument,
    addresses_by_family,
    interface_of,
    networks_by_family,
    parse_families,
    parse_family,
)
from netwarren.topology.links import (
    BRIDGE,
    BRIDGE_INDEX,
    FIRST_VETH_INDEX,
    MOST_BRIDGE_PORTS,
    eth0_mac,
)
from netwarren.topology.naming import check_labels, check_name
from netwarren.topology.pools import AddressPool, RangePool, usual_reservations
from netwarren.topology.ranges import Ranges, choose_ranges, gateway_of
from netwarren.topology.specs import DEFAULT_NAMESPACE, NodeFamily, NodeSpec, PodSpec


class _NodePods:
    """The pods of one node, and what is left for more."""

    def __init__(self, spec: NodeSpec) -> None:
        self.specs: dict[str, PodSpec] = {}
        self.pools: dict[Family, AddressPool] = {
            each.family: AddressPool(
                each.pod_range,
                usual_reservations(each.pod_range, "the gateway of the pods"),
                what="pod address",
                where=f"the pod range of {spec.name}",
                remedy=f"remove a pod from {spec.name}, put this one on another node, "
                "or make the cluster with larger per-node ranges",
            )
            for each in spec.families
        }
        # Only ever counts up: the kernel frees a dead pod's link late, and until then its index is taken.
        self.next_index = FIRST_VETH_INDEX


class ClusterModel:
    """The nodes and pods of one cluster.

    ``families`` as `addresses.parse_families` takes them; ``ranges`` replaces the default ranges of the
    families it is given for.
    """

    def __init__(self, families: FamiliesArgument = 4, ranges: Iterable[Ranges] = ()) -> None:
        self.families = parse_families(families)
        self.ranges = choose_ranges(self.families, ranges)
        self.root: tuple[Interface, ...] = tuple(each.root for each in self.ranges)
        self._root_mac = eth0_mac(self.root, BRIDGE_INDEX)
        self._nodes: dict[str, NodeSpec] = {}
        self._pods: dict[str, PodSpec] = {}
        self._node_pods: dict[str, _NodePods] = {}
        self._next_index = FIRST_VETH_INDEX  # as in a node, and for the same reason
        self._pod_ranges = {each.family: RangePool(each.pods, each.prefix) for each in self.ranges}
        self._node_addresses = {
            each.family: AddressPool(
                each.nodes,
                usual_reservations(each.nodes, "the address of the root"),
                what="node address",
                where="the node range of the cluster",
                remedy="remove a node, or make the cluster with a wider node range",
            )
            for each in self.ranges
        }

    def __repr__(self) -> str:
        families = "+".join(f"IPv{family}" for family in self.families)
        return f"<ClusterModel {families}: {len(self._nodes)} nodes, {len(self._pods)} pods>"

    # --- what there is ----------------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, NodeSpec]:
        """The nodes by name, oldest first; a live view."""
        return MappingProxyType(self._nodes)

    @property
    def pods(self) -> Mapping[str, PodSpec]:
        """The pods by name, oldest first; a live view."""
        return MappingProxyType(self._pods)

    def node(self, name: str) -> NodeSpec:
        """The node called ``name``; raises `UnknownName`."""
        try:
            return self._nodes[name]
        except KeyError:
            raise UnknownName("node", name, self._nodes) from None

    def pod(self, name: str) -> PodSpec:
        """The pod called ``name``; raises `UnknownName`."""
        try:
            return self._pods[name]
        except KeyError:
            raise UnknownName("pod", name, self._pods) from None

    def pods_on(self, node: str) -> Mapping[str, PodSpec]:
        """The pods of a node by name, oldest first; a live view. Raises `UnknownName`."""
        return MappingProxyType(self._node_pods[self.node(node).name].specs)

    def resolve(self, name: str, family: FamilyArgument | None = None) -> Address:
        """The address of a pod or node: the preferred one, or that of ``family``.

        Raises `UnknownName`, and `AddressError` if the cluster does not have that family.
        """
        spec = self._pods.get(name) or self._nodes.get(name)
        if spec is None:
            raise UnknownName("pod or node", name, [*self._pods, *self._nodes])
        if family is None:
            return spec.address
        wanted = parse_family(family)
        address = spec.address_in(wanted)
        if address is None:
            raise AddressError(
                f"{name} has no IPv{wanted} address, it has {spec.address}; "
                f"make the cluster with families that include 'ipv{wanted}'"
            )
        return address

    # --- nodes ------------------------------------------------------------------------------------

    def add_node(
        self, name: str, *, pod_range: NetworksArgument = None, address: AddressesArgument = None
    ) -> NodeSpec:
        """Decide on a new node; ``pod_range`` and ``address`` may ask for one each per family.

        Raises `InvalidName`, `DuplicateName`, or an `AddressError`.
        """
        self._check_new("node", name)
        wanted_ranges = networks_by_family(pod_range, self.families)
        wanted_addresses = addresses_by_family(address, self.families)
        if len(self._nodes) >= MOST_BRIDGE_PORTS:
            raise RangeExhausted("port", f"the bridge {BRIDGE}", len(self._nodes), "remove a node first")
        owner = f"node {name}"
        with ExitStack() as undo:
            families = []
            for ranges in self.ranges:
                family = ranges.family
                range_pool, address_pool = self._pod_ranges[family], self._node_addresses[family]
                taken_range = range_pool.take(wanted_ranges.get(family), owner=owner)
                undo.callback(range_pool.give_back, taken_range)
                taken_address = address_pool.take(wanted_addresses.get(family), owner=owner)
                undo.callback(address_pool.give_back, taken_address)
                families.append(
                    NodeFamily(
                        interface=interface_of(taken_address, ranges.nodes.prefixlen),
                        root=ranges.root.ip,
                        pod_range=taken_range,
                        gateway=gateway_of(taken_range),
                    )
                )
            undo.pop_all()
        index = self._next_index
        self._next_index += 1
        mac = eth0_mac([each.interface for each in families], index)
        spec = NodeSpec(name, index, mac, self._root_mac, tuple(families))
        self._nodes[name] = spec
        self._node_pods[name] = _NodePods(spec)
        return spec

    def remove_node(self, name: str) -> NodeSpec:
        """Forget a node, and give back what it had; refused while there are pods on it."""
        spec = self.node(name)
        pods = self._node_pods[name].specs
        if pods:
            some = ", ".join(list(pods)[:12]) + (f" and {len(pods) - 12} more" if len(pods) > 12 else "")
            raise NetwarrenError(f"node {name!r} still has pods: {some}; remove them first")
        del self._nodes[name], self._node_pods[name]
        for each in spec.families:
            self._pod_ranges[each.family].give_back(each.pod_range)
            self._node_addresses[each.family].give_back(each.address)
        return spec

    # --- pods -------------------------------------------------------------------------------------

    def add_pod(
        self,
        name: str,
        node: str,
        *,
        address: AddressesArgument = None,
        namespace: str = DEFAULT_NAMESPACE,
        labels: Mapping[str, str] | None = None,
    ) -> PodSpec:
        """Decide on a new pod; ``address`` may ask for one per family.

        Raises `InvalidName`, `DuplicateName`, `UnknownName` (of the node), `ConfigurationError` (of the
        labels), or an `AddressError`.
        """
        self._check_new("pod", name)
        check_name("namespace", namespace)
        checked = check_labels(labels or {})
        node_spec = self.node(node)
        wanted = addresses_by_family(address, self.families)
        siblings = self._node_pods[node]
        owner = f"pod {name}"
        with ExitStack() as undo:
            interfaces = []
            for each in node_spec.families:
                pool = siblings.pools[each.family]
                taken = pool.take(wanted.get(each.family), owner=owner)
                undo.callback(pool.give_back, taken)
                interfaces.append(interface_of(taken, each.pod_range.prefixlen))
            undo.pop_all()
        index = siblings.next_index
        siblings.next_index += 1
        mac = eth0_mac(interfaces, index)
        spec = PodSpec(name, node, index, mac, tuple(interfaces), namespace, checked)
        self._pods[name] = siblings.specs[name] = spec
        return spec

    def remove_pod(self, name: str) -> PodSpec:
        """Forget a pod, and give back what it had."""
        spec = self.pod(name)
        siblings = self._node_pods[spec.node]
        del self._pods[name], siblings.specs[name]
        for pool, interface in zip(siblings.pools.values(), spec.interfaces, strict=True):
            pool.give_back(interface.ip)
        return spec

    def _check_new(self, kind: str, name: str) -> None:
        """Pods and nodes share one set of names: both resolve, and both name a namespace."""
        check_name(kind, name)
        if name in self._nodes:
            raise DuplicateName("node", name, str(self._nodes[name].address))
        if name in self._pods:
            pod = self._pods[name]
            raise DuplicateName("pod", name, f"{pod.address} on {pod.node}")
