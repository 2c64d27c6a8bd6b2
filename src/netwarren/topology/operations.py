"""Operations on links, addresses and routes as data, each one verb of the kernel.

Rules: links go by index, never by name; every operation that adds says what undoes it. Named tuples, which are
made by the dozen for each pod and loaded in a fifth of the time of frozen data classes; so two kinds may be
equal: tell them apart by type.
Does not belong here: which operations a change needs (see `plan`), carrying them out (see `cluster`).
"""

from ipaddress import IPv6Address
from typing import Literal, NamedTuple, TypeAlias

from netwarren.topology.addresses import Address, Interface, Network

# The namespace key of the root; nodes and pods go by their names, and no name is empty.
ROOT = ""

RouteKind: TypeAlias = Literal["unicast", "unreachable"]


class AddBridge(NamedTuple):
    """``ip link add NAME index INDEX address MAC type bridge``

    With a MAC of its own: a bridge without takes its lowest port's, and changes it as ports come and go.
    """

    name: str
    link: int
    mac: str


class AddVeth(NamedTuple):
    """``ip link add NAME index INDEX address MAC [master MASTER] type veth peer name PEER index PEER_INDEX
    address PEER_MAC netns PEER_NAMESPACE``

    Both ends are down. Undone by the end of either namespace, not by a deletion (16-30 ms).
    """

    name: str
    link: int
    mac: str
    peer: str
    peer_link: int
    peer_mac: str
    peer_namespace: str
    master: int | None = None


class SetUp(NamedTuple):
    """``ip link set INDEX up``, undone by `SetDown`."""

    link: int


class SetDown(NamedTuple):
    """``ip link set INDEX down``"""

    link: int


class SettleLink(NamedTuple):
    """``ip link show dev INDEX`` until its carrier is effective

    The end of a veth pair that was up first drops what it is given until the kernel's link watch has run,
    some time after the other end came up, and a lost first packet costs TCP a second.
    """

    link: int


class SettleAddress(NamedTuple):
    """``ip -6 route replace local ADDRESS dev INDEX table local``

    The kernel makes an IPv6 address receive from a work queue, some time after it was added; this does so
    in the same batch.
    """

    link: int
    address: IPv6Address


class AddAddress(NamedTuple):
    """``ip addr add INTERFACE dev INDEX nodad [noprefixroute]``

    Always without duplicate address detection (IPv6 would wait a second or two); without the route to the
    prefix if ``prefix_route`` is false. Undone by `SetDown` or the end of the namespace.
    """

    link: int
    interface: Interface
    prefix_route: bool = True


class AddNeighbour(NamedTuple):
    """``ip neigh replace ADDRESS lladdr MAC dev INDEX nud permanent``, undone by `DeleteNeighbour`."""

    link: int
    address: Address
    mac: str


class DeleteNeighbour(NamedTuple):
    """``ip neigh del ADDRESS dev INDEX``"""

    link: int
    address: Address


class AddRoute(NamedTuple):
    """``ip route add [unreachable] DESTINATION [via VIA] [dev INDEX] [src SOURCE]``, undone by `DeleteRoute`.

    Without ``via`` the destination is on the link itself (in IPv4: ``scope link``).
    """

    destination: Network
    via: Address | None = None
    link: int | None = None
    source: Address | None = None
    kind: RouteKind = "unicast"

    @property
    def undo(self) -> "DeleteRoute":
        return DeleteRoute(self.destination, self.via, self.link, self.kind)


class DeleteRoute(NamedTuple):
    """``ip route del [unreachable] DESTINATION [via VIA] [dev INDEX]``"""

    destination: Network
    via: Address | None = None
    link: int | None = None
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


class Step(NamedTuple):
    """Operations in one namespace (`ROOT`, or a node's or pod's name), in order, as one batch."""

    namespace: str
    operations: tuple[Operation, ...]


# Steps in the order to apply them.
Plan: TypeAlias = tuple[Step, ...]


class Sysctl(NamedTuple):
    """``sysctl -w NAME=VALUE``

    Where it is not ``required``, a kernel that does not have it needs nothing set.
    """

    name: str
    value: str
    required: bool = True
