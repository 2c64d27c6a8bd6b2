"""How calls of a control plane fail, so that who calls knows whether to try again, and when.

Rules: what the server has answered, what has broken; anything else is a `MeshError` as such.
Does not belong here: deciding that something failed.
"""

from netwarren.errors import MeshError


class CallFailed(MeshError):
    """A call was answered with another status than OK: ``status`` and the server's ``reason``."""

    def __init__(self, path: str, status: int, reason: str) -> None:
        self.path = path
        self.status = status
        self.reason = reason
        super().__init__(f"{path} was answered with status {status}: {reason or 'no reason is given'}")


class Broken(MeshError):
    """A connection could not be made, or has ended amid a call, which the server may have let go of."""
