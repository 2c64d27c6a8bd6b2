"""Where the node's agent listens: a Unix socket with a name in the file system, for proxies that know it by that.

Rules: without a path of the user's, the name lies in the sandbox's own /run, so that it vanishes with the sandbox,
however that ends, and programs in pods find it; closing removes it.
Does not belong here: what is said (see `agent`).
"""

import contextlib
import os
import socket
import tempfile

from netwarren.errors import KernelError
from netwarren.sandbox import names

_BACKLOG = 16


class Listener:
    """A listening, non-blocking socket of type SOCK_SEQPACKET at ``path``; None: at a new one of its own.

    Raises `KernelError` where it cannot listen there, with EADDRINUSE where the name is taken.
    """

    def __init__(self, path: str | None = None) -> None:
        self._directory = (
            tempfile.mkdtemp(prefix="netwarren-zds-", dir=private_run()) if path is None else None
        )
        self.path = path if path is not None else f"{self._directory}/ztunnel.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        bound = False
        try:
            self.socket.setblocking(False)
            self.socket.bind(self.path)
            bound = True
            self.socket.listen(_BACKLOG)
        except BaseException as error:
            self._close(bound)
            if isinstance(error, OSError):
                raise KernelError(f"listen at {self.path}", error.errno or 0) from None
            raise

    def close(self) -> None:
        """Close the socket and remove its name; again is fine."""
        self._close(True)

    def _close(self, bound: bool) -> None:
        if self.socket.fileno() < 0:
            return
        self.socket.close()
        with contextlib.suppress(OSError):
            if bound:
                os.unlink(self.path)
        with contextlib.suppress(OSError):
            if self._directory is not None:
                os.rmdir(self._directory)


def private_run() -> str | None:
    """The /run that the sandbox has laid over the host's (see `netwarren.sandbox.names`); None where it could not."""
    run = os.path.dirname(names.directory())
    try:
        ours = os.stat(run).st_dev == os.stat(names.views()).st_dev and os.access(run, os.W_OK)
    except OSError:
        return None
    return run if ours else None
