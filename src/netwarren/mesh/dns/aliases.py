"""Which services' hostnames a client may mean by a name: as it stands, expanded as Kubernetes does, stripped.

Rules: pure; a name is as `netwarren.names.records.plain` keeps it; the order is that of Istio's ztunnel
(`src/dns/server.rs`), and the first that there is wins.
Does not belong here: which services there are, and what is answered (see `decision`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alias:
    """``name`` is to be looked for; ``stripped`` is what was asked without a search domain, None if one was not taken off."""

    name: str
    stripped: str | None = None


def search_domains(namespace: str, domain: str) -> tuple[str, ...]:
    """What the resolv.conf of a pod in ``namespace`` has as its search list, if nobody has changed it."""
    return (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)


def aliases(name: str, namespace: str, domain: str, search: Sequence[str]) -> tuple[Alias, ...]:
    """All that a client in ``namespace`` may mean by ``name``, the first first, each once.

    A resolver has put a search domain behind a short name before it asked; which ones it puts there is
    ``search``, so that they are taken off again.
    """
    found = {name: Alias(name)}
    for expanded in expansions(name, namespace, domain):
        found.setdefault(expanded, Alias(expanded))
    for suffix in search:
        stripped = name.removesuffix(f".{suffix}")
        if stripped == name or not stripped:
            continue
        for each in (stripped, *expansions(stripped, namespace, domain)):
            found.setdefault(each, Alias(each, stripped))
    return tuple(found.values())


def expansions(name: str, namespace: str, domain: str) -> tuple[str, ...]:
    """The whole names in Kubernetes that ``name`` may be short for, which its number of labels says."""
    match name.split("."):
        case [_]:
            return (f"{name}.{namespace}.svc.{domain}",)
        case [_, _]:
            return (f"{name}.svc.{domain}", f"{name}.{namespace}.svc.{domain}")
        case [_, _, "svc"]:
            return (f"{name}.{domain}", f"{name}.svc.{domain}")
        case [_, _, _]:
            return (f"{name}.svc.{domain}",)
        case [_, _, _, "svc"]:
            return (f"{name}.{domain}",)
        case _:
            return ()


def wildcards(name: str) -> Iterator[str]:
    """The hostnames that stand for ``name`` among others: ``*.b.c`` and ``*.c`` for ``a.b.c``."""
    _label, dot, above = name.partition(".")
    while dot:
        yield f"*.{above}"
        _label, dot, above = above.partition(".")
