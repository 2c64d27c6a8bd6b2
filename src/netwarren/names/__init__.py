"""Names: a cluster's DNS, from its pods, nodes and services to the answer that a program gets.

Rules: which records there are and what is answered is decided by data alone; one server for all clusters
of the process does the rest, at the edge.
Does not belong here: what code and programs read before they ask (see `netwarren.sandbox.resolver`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netwarren.names.dns import ClusterDNS
    from netwarren.names.queries import Query

__all__ = ["ClusterDNS", "Query"]


def __getattr__(name: str) -> Any:
    # What decides is loaded with the first question, which most tests never ask.
    if name == "ClusterDNS":
        from netwarren.names.dns import ClusterDNS

        return ClusterDNS
    if name == "Query":
        from netwarren.names.queries import Query

        return Query
    raise AttributeError(f"module 'netwarren.names' has no attribute {name!r}")
