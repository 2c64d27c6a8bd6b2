"""What a node and a pod are once decided: names, indexes and addresses, as data.

Rules: frozen; everything a plan needs is in the spec, so that a plan needs no model.
Does not belong here: deciding any of it (see `model`), what is to be done about it (see `plan`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from netwarren.topology.addresses import Address, Family, Interface, Network, family_of

DEFAULT_NAMESPACE = "default"
"""The Kubernetes namespace of pods and services that name none."""


@dataclass(frozen=True, slots=True)
class NodeFamily:
    """What a node has in one family.

    ``interface`` is its eth0 in the node network (172.18.0.2/16), ``root`` the root's address there,
    ``pod_range`` what its pods get theirs from, and ``gateway`` what these know their node by.
    """

    interface: Interface
    root: Address
    pod_range: Network
    gateway: Address

    @property
    def family(self) -> Family:
        return family_of(self.interface)

    @property
    def address(self) -> Address:
        return self.interface.ip


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node: ``index`` is its bridge port's in the root, ``mac`` its eth0's, ``root_mac`` the bridge's.

    ``families`` is in the cluster's order of preference.
    """

    name: str
    index: int
    mac: str
    root_mac: str
    families: tuple[NodeFamily, ...]

    @property
    def address(self) -> Address:
        """Its address in the preferred family."""
        return self.families[0].address

    def address_in(self, family: Family) -> Address | None:
        """Its address in ``family``, if the cluster has that."""
        return next((each.address for each in self.families if each.family == family), None)


@dataclass(frozen=True, slots=True)
class PodSpec:
    """A pod: ``index`` is that of its veth's end in the node, ``mac`` its eth0's.

    ``interfaces`` is its eth0 in each family (10.0.1.2/24), in the cluster's order of preference.
    ``namespace`` is the Kubernetes namespace it is in, and ``labels`` what services select it by.
    """

    name: str
    node: str
    index: int
    mac: str
    interfaces: tuple[Interface, ...]
    namespace: str = DEFAULT_NAMESPACE
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def address(self) -> Address:
        """Its address in the preferred family."""
        return self.interfaces[0].ip

    def address_in(self, family: Family) -> Address | None:
        """Its address in ``family``, if the cluster has that."""
        return next((each.ip for each in self.interfaces if each.version == family), None)
