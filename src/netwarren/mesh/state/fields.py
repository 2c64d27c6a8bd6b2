"""Reading what an author wrote: a value at a path, and what it must be.

Rules: a reader takes a value and its path and gives what it means, or raises one `MeshConfigError` that names the
path and what would do; unknown fields are refused with the nearest known name.
Does not belong here: which fields there are (see `local_config`).
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

from netwarren.errors import MeshConfigError
from netwarren.mesh.model import NamespacedName, NetworkAddress
from netwarren.topology.addresses import Address, Network

T = TypeVar("T")
K = TypeVar("K")
Reader: TypeAlias = Callable[[object, str], T]

_ABSENT: Final = object()


def refuse(path: str, why: str) -> NoReturn:
    """Raise the error for what is at ``path``."""
    raise MeshConfigError(f"{path or 'the configuration'}: {why}")


def near(name: str, known: Iterable[str]) -> str:
    """The sentence that leads from a wrong name to a right one."""
    names = list(known)
    close = get_close_matches(name, names, 1, 0.6) or [
        each for each in names if each.lower() == name.replace("_", "").replace("-", "").lower()
    ]
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(names))}"


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()} (a word like on, off, yes, no needs quotes in YAML)"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return f"{value!r:.80}"


class Fields:
    """The fields of one mapping; those not named in ``known`` are refused at once."""

    def __init__(self, value: object, path: str, known: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping):
            refuse(path, f"is {_kind(value)}, and must be a mapping of {', '.join(known)}")
        for key in value:
            if key not in known:
                refuse(_under(path, key), f"is no known field; {near(str(key), known)}")
        self._value: Mapping[Any, object] = value
        self._path = path

    def required(self, name: str, read: Reader[T]) -> T:
        """The field's value; refused if it is not there."""
        if name not in self._value:
            refuse(_under(self._path, name), "is missing, and must be given")
        return read(self._value[name], _under(self._path, name))

    def optional(self, name: str, read: Reader[T], default: T) -> T:
        """The field's value, or ``default`` where it is absent or null."""
        value = self._value.get(name)
        return default if value is None else read(value, _under(self._path, name))

    def maybe(self, name: str, read: Reader[T]) -> T | None:
        """The field's value, or None where it is absent or null."""
        value = self._value.get(name)
        return None if value is None else read(value, _under(self._path, name))

    def listed(self, name: str, read: Reader[T]) -> tuple[T, ...]:
        """The field's list of what ``read`` reads, empty where it is absent or null."""
        value = self._value.get(name)
        return () if value is None else each(read)(value, _under(self._path, name))


def _under(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


# --- values ---------------------------------------------------------------------------------------


def text(value: object, path: str) -> str:
    """A string."""
    if not isinstance(value, str):
        refuse(path, f"is {_kind(value)}, and must be a string; put it in quotes")
    return value


def truth(value: object, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        refuse(path, f"is {_kind(value)}, and must be true or false")
    return value


def number(least: int, most: int) -> Reader[int]:
    """A whole number; as the key of a JSON object it comes as a string of digits."""

    def read(value: object, path: str) -> int:
        """A whole number within the bounds."""
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            refuse(path, f"is {_kind(value)}, and must be a number from {least} to {most}")
        return value

    return read


port = number(1, 65535)
target_port = number(0, 65535)
uint32 = number(0, (1 << 32) - 1)


def choice(*known: T) -> Reader[T]:
    """One of the words of an enumeration."""

    def read(value: object, path: str) -> T:
        for each in known:
            if each == value and type(value) is str:
                return each
        refuse(path, f"is {_kind(value)}, which is none of {', '.join(map(str, known))}")

    return read


def address(value: object, path: str) -> Address:
    """An IP address."""
    try:
        return ip_address(text(value, path))
    except ValueError:
        refuse(path, f"is {value!r:.80}, which is no IP address")


def network(value: object, path: str) -> Network:
    """A range of addresses; an address alone is a range of one, bits beyond the prefix are dropped."""
    try:
        return ip_network(text(value, path), strict=False)
    except ValueError:
        refuse(path, f"is {value!r:.80}, which is no range of addresses; one is written 10.0.0.0/8")


def network_address(value: object, path: str) -> NetworkAddress:
    """``network/IP``; the network may be empty."""
    name, slash, host = text(value, path).rpartition("/")
    if not slash:
        refuse(path, f"is {value!r:.80} without a network; write '/{host:.60}' for the default network")
    return NetworkAddress(name, address(host, path))


def namespaced_name(value: object, path: str) -> NamespacedName:
    """``namespace/name``."""
    namespace, slash, name = text(value, path).partition("/")
    if not (slash and name):
        refuse(path, f"is {value!r:.80}, and must be written namespace/name")
    return NamespacedName(namespace, name)


def destination(value: object, path: str) -> NetworkAddress | NamespacedName:
    """``network/IP`` or ``namespace/hostname``."""
    name, slash, host = text(value, path).rpartition("/")
    if slash:
        try:
            return NetworkAddress(name, ip_address(host))
        except ValueError:
            if name and host and "/" not in name:
                return NamespacedName(name, host)
    refuse(path, f"is {value!r:.80}, and must be written network/IP or namespace/hostname")


def each(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """A list of what ``read`` reads."""

    def read_all(value: object, path: str) -> tuple[T, ...]:
        if not isinstance(value, (list, tuple)):
            refuse(path, f"is {_kind(value)}, and must be a list")
        return tuple([read(one, f"{path}[{place}]") for place, one in enumerate(value)])

    return read_all


def table(read_key: Reader[K], read: Reader[T]) -> Reader[dict[K, T]]:
    """A mapping of what ``read_key`` reads to what ``read`` reads."""

    def read_all(value: object, path: str) -> dict[K, T]:
        if not isinstance(value, Mapping):
            refuse(path, f"is {_kind(value)}, and must be a mapping")
        return {read_key(key, _under(path, key)): read(one, _under(path, key)) for key, one in value.items()}

    return read_all
