"""Operations on links, addresses and routes as data, each one verb of the kernel.

Rules: frozen; links go by index, never by name; every operation that adds says what undoes it.
Does not belong here: which operations a change needs (see `plan`), carrying them out (see `cluster`).
"""

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Literal, TypeAlias

from netwarren.topology.addresses import Address, Interface, Network

# The namespace key of the root; nodes and pods go by their names, and no name is empty.
ROOT = ""

RouteKind: TypeAlias = Literal["unicast", "unreachable"]


@dataclass(frozen=True, slots=True)
class AddBridge:
    """``ip link add NAME index INDEX address MAC type bridge``

    With a MAC of its own: a bridge without takes its lowest port's, and changes it as ports come and go.
    """

    name: str
    index: int
    mac: str


@dataclass(frozen=True, slots=True)
class AddVeth:
    """``ip link add NAME index INDEX address MAC [master MASTER] type veth peer name PEER index PEER_INDEX
    address PEER_MAC netns PEER_NAMESPACE``

    Both ends are down. Undone by the end of either namespace, not by a deletion (16-30 ms).
    """

    name: str
    index: int
    mac: str
    peer: str
    peer_index: int
    peer_mac: str
    peer_namespace: str
    master: int | None = None


@dataclass(frozen=True, slots=True)
class SetUp:
    """``ip link set INDEX up``, undone by `SetDown`."""

    index: int


@dataclass(frozen=True, slots=True)
class SetDown:
    """``ip link set INDEX down``"""

    index: int


@dataclass(frozen=True, slots=True)
class SettleLink:
    """``ip link show dev INDEX`` until its carrier is effective

    The end of a veth pair that was up first drops what it is given until the kernel's link watch has run,
    some time after the other end came up, and a lost first packet costs TCP a second.
    """

    index: int


@dataclass(frozen=True, slots=True)
class SettleAddress:
    """``ip -6 route replace local ADDRESS dev INDEX table local``

    The kernel makes an IPv6 address receive from a work queue, some time after it was added; this does so
    in the same batch.
    """

    index: int
    address: IPv6Address


@dataclass(frozen=True, slots=True)
class AddAddress:
    """``ip addr add INTERFACE dev INDEX nodad [noprefixroute]``

    Always without duplicate address detection (IPv6 would wait a second or two); without the route to the
    prefix if ``prefix_route`` is false. Undone by `SetDown` or the end of the namespace.
    """

    index: int
    interface: Interface
    prefix_route: bool = True


@dataclass(frozen=True, slots=True)
class AddNeighbour:
    """``ip neigh replace ADDRESS lladdr MAC dev INDEX nud permanent``, undone by `DeleteNeighbour`."""

    index: int
    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class DeleteNeighbour:
    """``ip neigh del ADDRESS dev INDEX``"""

    index: int
    address: Address


@dataclass(frozen=True, slots=True)
class AddRoute:
    """``ip route add [unreachable] DESTINATION [via VIA] [dev INDEX] [src SOURCE]``, undone by `DeleteRoute`.

    Without ``via`` the destination is on the link itself (in IPv4: ``scope link``).
    """

    destination: Network
    via: Address | None = None
    index: int | None = None
    source: Address | None = None
    kind: RouteKind = "unicast"

    @property
    def undo(self) -> "DeleteRoute":
        return DeleteRoute(self.destination, self.via, self.index, self.kind)


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """``ip route del [unreachable] DESTINATION [via VIA] [dev INDEX]``"""

    destination: Network
    via: Address | None = None
    index: int | None = None
    kind: RouteKind = "unicast"


Operation: TypeAlias = (
    AddBridge
    | AddVeth
    | SetUp
    | SetDown
    | SettleLink
    | SettleAddress
    | AddAddress
    | AddNeighbour
    | DeleteNeighbour
    | AddRoute
    | DeleteRoute
)


@dataclass(frozen=True, slots=True)
class Step:
    """Operations in one namespace (`ROOT`, or a node's or pod's name), in order, as one batch."""

    namespace: str
    operations: tuple[Operation, ...]


# Steps in the order to apply them.
Plan: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Sysctl:
    """``sysctl -w NAME=VALUE``

    Where it is not ``required``, a kernel that does not have it needs nothing set.
    """

    name: str
    value: str
    required: bool = True
