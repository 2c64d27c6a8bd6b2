"""What netwarren keeps between clusters: roots that wait, namespaces made ahead, namespaces yet to end.

Rules: nothing of it is left, nor in the ferry's hands, when `let_go` returns.
Does not belong here: how they are kept (see `netwarren.cluster.roots`, `.stock` and `.ended`).
"""

from netwarren.cluster import ended, roots, stock
from netwarren.runtime import ferry


def let_go() -> None:
    """Let go of all that is kept; before a test counts what is open, or wants a root to be made."""
    ferry.catch_up()
    for kept in (roots, stock, ended):
        kept.empty()
