"""Names: a cluster's DNS, from its pods, nodes and services to the answer that a program gets.

Rules: which records there are and what is answered is decided by data alone; one server for all clusters
of the process does the rest, at the edge.
Does not belong here: what code and programs read before they ask (see `netwarren.sandbox.resolver`).
"""

from netwarren.names.dns import ClusterDNS
from netwarren.names.queries import Query

__all__ = ["ClusterDNS", "Query"]
