"""The names under which ``ip netns`` finds a cluster's namespaces: CLUSTER, NODE.CLUSTER, POD.CLUSTER.

Rules: the cluster's own name is the first free one, because the processes of a sandbox share the directory; a
name that is not free is not given, and nothing else depends on it.
Does not belong here: the directory (see `netwarren.sandbox.names`).
"""

import itertools
import re

from netwarren.kernel.netns import Namespace
from netwarren.sandbox import names


class NetnsNames:
    """What one cluster has published, and takes back. ``root`` is what the root is called, once it is."""

    def __init__(self) -> None:
        self.root = ""
        self._published: list[str] = []

    def add_root(self, wanted: str, root: Namespace) -> None:
        """Take the first free name like ``wanted`` for the cluster and its root."""
        base = re.sub(r"[^A-Za-z0-9_-]+", "-", wanted).strip("-")[:128] or "cluster"
        for number in itertools.count(1):
            name = base if number == 1 else f"{base}-{number}"
            if names.publish(name, root.fd):
                self.root = name
                self._published.append(name)
                return

    def add(self, name: str, namespace: Namespace) -> None:
        """Publish a member's name."""
        published = self.of(name)
        self._published.append(published)  # first, so that no interruption leaves a name behind
        if not names.publish(published, namespace.fd):
            self._published.remove(published)

    def remove(self, name: str) -> None:
        """Take a member's name back; nothing happens where it was not published."""
        published = self.of(name)
        if published in self._published:
            self._published.remove(published)
            names.withdraw(published)

    def clear(self) -> None:
        """Take all names back."""
        for published in self._published:
            names.withdraw(published)

    def of(self, name: str) -> str:
        """What a member is called there."""
        return f"{name}.{self.root}"
