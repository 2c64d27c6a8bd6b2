"""Clusters: a root with a bridge, nodes on the bridge, pods on the nodes, in namespaces of the kernel.

Rules: `netwarren.topology` decides, `netwarren.kernel` does, and what is made here is undone here; one
lock a cluster, so that any thread may add and remove.
Does not belong here: decisions that data alone can make, ways of running code.
"""

from netwarren.cluster.cluster import Cluster
from netwarren.cluster.members import Node, Pod, Root

__all__ = ["Cluster", "Node", "Pod", "Root"]
