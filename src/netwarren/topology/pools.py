"""Pools: who has which address of a network, which part of the pod range, and which node port.

Rules: lowest free first, O(log n), nothing is listed in advance (a /64 costs as much as a /24); a
refusal changes nothing; giving back what nobody has does nothing. Exemplar: CNI host-local `allocator/`.
Does not belong here: several families, or what a name is (see `model`).
"""

import heapq
from collections.abc import Container, Mapping
from types import MappingProxyType

from netwarren.errors import AddressError, AddressTaken, RangeExhausted
from netwarren.topology.addresses import Address, Family, Network, address_at, family_of, network_at
from netwarren.topology.ranges import gateway_of


class _Numbers:
    """Whole numbers and who has them; those from ``first`` to ``last`` are handed out, lowest first."""

    def __init__(self, first: int, last: int, skipped: Container[int] = ()) -> None:
        self._first = first
        self._last = last
        self._skipped = skipped
        # Never handed out yet, unless it was asked for: everything from here on.
        self._next = first
        # Handed out and given back: a heap, and the same as a set. What was asked for since stays in both
        # until it comes up.
        self._returned: list[int] = []
        self._returned_set: set[int] = set()
        self.owners: dict[int, str] = {}

    def take_lowest(self, owner: str) -> int | None:
        while self._returned:
            number = heapq.heappop(self._returned)
            self._returned_set.remove(number)
            if number not in self.owners:
                self.owners[number] = owner
                return number
        while self._next in self.owners or self._next in self._skipped:
            self._next += 1
        if self._next > self._last:
            return None
        number = self._next
        self._next += 1
        self.owners[number] = owner
        return number

    def give_back(self, number: int) -> None:
        if self.owners.pop(number, None) is None:
            return
        if self._first <= number < self._next and number not in self._returned_set:
            heapq.heappush(self._returned, number)
            self._returned_set.add(number)


def usual_reservations(network: Network, gateway: str) -> dict[Address, str]:
    """The addresses of a network nobody can have, and why: its own, its ``gateway``, IPv4's broadcast."""
    reserved = {
        # In IPv6 it is every router's anycast address.
        network.network_address: "the address of the network itself",
        gateway_of(network): gateway,
    }
    if family_of(network) == 4:
        reserved[network.broadcast_address] = "the broadcast address"
    return reserved


class AddressPool:
    """The addresses of one network.

    ``reserved`` says of each address nobody gets what it is; `usual_reservations` by default. ``what``
    an address is, ``where`` the network is, and the ``remedy`` for a full one are for errors.
    """

    def __init__(
        self,
        network: Network,
        reserved: Mapping[Address, str] | None = None,
        *,
        what: str = "address",
        where: str = "",
        remedy: str = "give one back first, or choose a wider range",
    ) -> None:
        if reserved is None:
            reserved = usual_reservations(network, "the gateway")
        self.network = network
        self._base = int(network.network_address)
        self._reserved = {int(address) - self._base: why for address, why in reserved.items()}
        self._what = what
        self._where = where
        self._remedy = remedy
        self._numbers = _Numbers(0, network.num_addresses - 1, self._reserved)

    def __repr__(self) -> str:
        return f"<AddressPool {self.network}: {len(self._numbers.owners)} taken>"

    @property
    def taken(self) -> Mapping[Address, str]:
        """Who has which address."""
        owners = sorted(self._numbers.owners.items())
        return MappingProxyType({address_at(self.network, number): owner for number, owner in owners})

    def take(self, wanted: Address | None = None, *, owner: str) -> Address:
        """The lowest free address, or ``wanted``; raises `AddressError` or a subclass of it."""
        if wanted is not None:
            return self._take_wanted(wanted, owner)
        number = self._numbers.take_lowest(owner)
        if number is None:
            raise RangeExhausted(self._what, self.network, len(self._numbers.owners), self._remedy)
        return address_at(self.network, number)

    def give_back(self, address: Address) -> None:
        """Undo `take`."""
        self._numbers.give_back(int(address) - self._base)

    def _take_wanted(self, wanted: Address, owner: str) -> Address:
        number = int(wanted) - self._base
        if wanted not in self.network:
            raise AddressError(f"{self._what} {wanted} is outside {self._place()}; {self._would_do()}")
        if number in self._reserved:
            raise AddressError(
                f"{self._what} {wanted} is {self._reserved[number]} in {self._place()}; {self._would_do()}"
            )
        if number in self._numbers.owners:
            raise AddressTaken(self._what, wanted, self._numbers.owners[number])
        self._numbers.owners[number] = owner
        return address_at(self.network, number)  # not `wanted`: it may carry an IPv6 zone

    def _place(self) -> str:
        return f"{self.network}, {self._where}" if self._where else str(self.network)

    def _would_do(self) -> str:
        first, last = 0, self.network.num_addresses - 1
        while first in self._reserved:
            first += 1
        while last in self._reserved:
            last -= 1
        return (
            f"ask for one from {address_at(self.network, first)} to {address_at(self.network, last)}, "
            "or for none at all"
        )


class NodePortPool:
    """The node ports of one protocol: 30000 to 32767, as Kubernetes has them."""

    first, last = 30000, 32767

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._numbers = _Numbers(self.first, self.last)

    def __repr__(self) -> str:
        return f"<NodePortPool {self._protocol}: {len(self._numbers.owners)} taken>"

    def take(self, wanted: int | None = None, *, owner: str) -> int:
        """The lowest free port, or ``wanted``; raises `AddressError` or a subclass of it."""
        what = f"{self._protocol} node port"
        if wanted is None:
            number = self._numbers.take_lowest(owner)
            if number is None:
                range_ = f"{self.first}-{self.last}"
                raise RangeExhausted(what, range_, len(self._numbers.owners), "remove a service with some")
            return number
        if not self.first <= wanted <= self.last:
            raise AddressError(
                f"{what} {wanted} is none; ask for one from {self.first} to {self.last}, or for none at all"
            )
        if wanted in self._numbers.owners:
            raise AddressTaken(what, wanted, self._numbers.owners[wanted])
        self._numbers.owners[wanted] = owner
        return wanted

    def give_back(self, port: int) -> None:
        """Undo `take`."""
        self._numbers.give_back(port)


class RangePool:
    """The pod range of a cluster, cut into one range per node, all of one length.

    The first is handed out only on request: the second node's pods in 10.0.1.x and the first's in 10.0.0.x
    would confuse, so the first node has 10.0.1.0/24, the second 10.0.2.0/24, and so on.
    """

    def __init__(
        self,
        network: Network,
        prefix: int,
        *,
        what: str = "per-node pod range",
        remedy: str = "remove a node, or make the cluster with a wider pod range or smaller per-node ranges",
    ) -> None:
        self.network = network
        self.prefix = prefix
        self._shift = network.max_prefixlen - prefix
        self._base = int(network.network_address)
        self._what = what
        self._remedy = remedy
        self._numbers = _Numbers(1, (1 << (prefix - network.prefixlen)) - 1)

    def __repr__(self) -> str:
        return f"<RangePool {self.network} by /{self.prefix}: {len(self._numbers.owners)} taken>"

    @property
    def family(self) -> Family:
        return family_of(self.network)

    @property
    def taken(self) -> Mapping[Network, str]:
        """Who has which range."""
        owners = sorted(self._numbers.owners.items())
        return MappingProxyType({self._range(number): owner for number, owner in owners})

    def take(self, wanted: Network | None = None, *, owner: str) -> Network:
        """The lowest free range, or ``wanted``; raises `AddressError` or a subclass of it."""
        if wanted is not None:
            return self._take_wanted(wanted, owner)
        number = self._numbers.take_lowest(owner)
        if number is None:
            raise RangeExhausted(self._what, self.network, len(self._numbers.owners), self._remedy)
        return self._range(number)

    def give_back(self, network: Network) -> None:
        """Undo `take`."""
        self._numbers.give_back(self._number(network))

    def _take_wanted(self, wanted: Network, owner: str) -> Network:
        if wanted.network_address not in self.network or wanted.prefixlen < self.network.prefixlen:
            raise AddressError(
                f"{self._what} {wanted} is outside {self.network}, the pod range of the cluster; "
                f"ask for a /{self.prefix} inside it, or for none at all"
            )
        if wanted.prefixlen != self.prefix:
            raise AddressError(
                f"{self._what} {wanted} is a /{wanted.prefixlen}, and this cluster gives each node a "
                f"/{self.prefix}; ask for {self._range(self._number(wanted))}, or make the cluster with "
                f"that prefix"
            )
        number = self._number(wanted)
        if number in self._numbers.owners:
            raise AddressTaken(self._what, wanted, self._numbers.owners[number])
        self._numbers.owners[number] = owner
        return wanted

    def _number(self, network: Network) -> int:
        return (int(network.network_address) - self._base) >> self._shift

    def _range(self, number: int) -> Network:
        return network_at(self.network, number << self._shift, self.prefix)
