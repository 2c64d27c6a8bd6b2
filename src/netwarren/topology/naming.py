"""Names of pods, nodes and services: what a name may be, and which of two equal ones has to go.

Rules: a name is an RFC 1123 label, a service's an RFC 1035 label, as in Kubernetes, and nothing a resolver
reads as something else.
Does not belong here: names of links (see `links`), or who has a name already (see `model`).
"""

import re
from collections.abc import Mapping

from netwarren.errors import ConfigurationError, InvalidName

LONGEST_NAME = 63

# Names that every machine resolves by itself, whatever our own resolver would say.
RESERVED_NAMES = {"localhost": "is reserved: every resolver answers it with the loopback address"}

# A label's value, and the part of its key behind the slash (Kubernetes, "Labels and Selectors").
_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"(?=.{1,253}/)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/")

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_STRANGE = re.compile(r"[^a-z0-9-]")
# What inet_aton(3) takes for an address: `curl http://10` goes to 0.0.0.10 and asks no resolver.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def check_name(kind: str, name: str) -> str:
    """``name`` itself if a ``kind`` (``"pod"``, ``"node"``) may be called so; raises `InvalidName`."""
    why = _objection(name)
    if why:
        raise InvalidName(kind, name, why)
    return name


def check_service_name(name: str) -> str:
    """``name`` itself if a service may be called so: an RFC 1035 label; raises `InvalidName`."""
    why = _objection(name)
    if not why and not name[0].isalpha():
        why = "starts with a digit"
    if why:
        raise InvalidName("service", name, why)
    return name


def check_text(what: str, value: object, like: str) -> str:
    """``value`` itself if it is a text; raises `ConfigurationError`, which shows one it could be ``like``."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{what} {value!r} is no text; write it like {like!r}")
    return value


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """A copy of ``labels`` if Kubernetes would take them; raises `ConfigurationError`."""
    if not isinstance(labels, Mapping):
        raise ConfigurationError(f"labels {labels!r} are no dictionary; write them like {{'app': 'web'}}")
    for key, value in labels.items():
        check_text("the label", key, "app")
        check_text(f"label {key!r}:", value, "web")
        prefix = _LABEL_PREFIX.match(key)
        if not _LABEL_VALUE.fullmatch(key[prefix.end() if prefix else 0 :]) or (
            value and not _LABEL_VALUE.fullmatch(value)
        ):
            raise ConfigurationError(
                f"label {key!r}: {value!r} is none of Kubernetes'; a key is like 'app' or 'example.com/app', a "
                "value is empty or at most 63 letters, digits, '-', '_', '.', starting and ending with a letter "
                "or digit"
            )
    return dict(labels)


def _objection(name: object) -> str:
    if not isinstance(name, str):
        return "is no text"
    if not name:
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"is {len(name)} characters long"
    if not _LABEL.fullmatch(name):
        strange = _STRANGE.search(name)
        if strange is None:
            return "starts with '-'" if name.startswith("-") else "ends with '-'"
        character = strange.group()
        if "A" <= character <= "Z":
            return f"contains the capital letter {character!r}"
        return f"contains {character!r}"
    if _NUMBER.fullmatch(name):
        return "is a number, which programs read as an IPv4 address instead of resolving it"
    return RESERVED_NAMES.get(name, "")
