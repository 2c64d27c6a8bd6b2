"""The sandbox: the user and mount namespace that this process enters once, without root.

Rules: entered at most once a process and never left; the host's network namespace is kept, so that
localhost still is localhost; nothing outside is written.
Does not belong here: network namespaces of clusters, threads that step into them (see
`netwarren.runtime`).
"""

from netwarren.sandbox.entry import Sandbox, inside

__all__ = ["Sandbox", "inside"]
