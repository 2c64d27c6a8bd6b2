"""One HTTP GET with a deadline for all of it, for a probe.

Rules: each step at the socket has what is left until the deadline, so that a server which says a little now and then
cannot hold up who asks; loaded by the first probe, because few programs need `http.client`, which takes long.
Does not belong here: where the request goes, what the status means (see `ready`).
"""

import io
import socket
import time
from http.client import HTTPConnection, HTTPException
from typing import Any

from netwarren.kernel.address import IPAddress

FAILURES = (OSError, HTTPException)
"""What `status` raises."""


def status(connected_by: socket.socket, address: IPAddress, port: int, path: str, seconds: float) -> int:
    """The status that ``GET path`` is answered with within ``seconds``; closes the socket, which is a new one.

    Raises one of `FAILURES`: TimeoutError where that was too short.
    """
    hurried = _Hurried(connected_by, time.monotonic() + seconds)
    connection: Any = HTTPConnection(str(address), port)
    connection.sock = hurried
    with connected_by:
        hurried.connect((str(address), port))
        connection.request("GET", path, headers={"Connection": "close"})
        with connection.getresponse() as response:
            return int(response.status)


class _Hurried(io.RawIOBase):
    """What `http.client` uses of a socket, until a deadline."""

    def __init__(self, below: socket.socket, deadline: float) -> None:
        self._below = below
        self._deadline = deadline

    def connect(self, to: tuple[str, int]) -> None:
        self._step().connect(to)

    def sendall(self, data: Any) -> None:
        self._step().sendall(data)  # whose time is for all of it: socket.sendall

    def makefile(self, _mode: str) -> io.BufferedReader:
        # Another one, because the connection closes its own when the response is known to be the last.
        return io.BufferedReader(_Hurried(self._below, self._deadline))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._step().recv_into(buffer)

    def _step(self) -> socket.socket:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._below.settimeout(left)
        return self._below
