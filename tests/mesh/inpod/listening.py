"""Sockets in redirected pods, for tests: the proxy's listeners there, and an exchange with them by hand.

Rules: every wait has an end, so that what gets lost fails.
Does not belong here: what the rules are (see `netwarren.mesh.inpod.rules`).
"""

import contextlib
import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address

from netwarren.mesh.inpod.sockets import PodSockets
from netwarren.mesh.model import SocketAddress
from netwarren.runtime.machine import Machine

SECONDS = 5.0
SHORT = 0.3
"""For what is meant to be lost."""


def at(address: str, port: int) -> SocketAddress:
    return SocketAddress(ip_address(address), port)


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def proxy(machine: Machine, *ports: int) -> Iterator[list[socket.socket]]:
    """The proxy's listeners in a pod, at all its addresses."""
    with contextlib.ExitStack() as end:
        pods = end.enter_context(PodSockets(machine.namespace_fd, machine.label))
        made = []
        for port in ports:
            made.append(end.enter_context(pods.listen(at("::", port), transparent=True)))
            made[-1].settimeout(SECONDS)
        yield made


def connecting(machine: Machine, address: str, port: int) -> socket.socket:
    """A socket of the machine, connected; as an application in it would be."""
    made = machine.socket(family(address))
    try:
        made.settimeout(SECONDS)
        made.connect((address, port))
    except BaseException:
        made.close()
        raise
    return made


def listening(machine: Machine, address: str, port: int) -> socket.socket:
    """An application that listens in the machine."""
    made = machine.socket(family(address))
    made.settimeout(SECONDS)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen()
    return made


def outcome(made: socket.socket, address: str, port: int, seconds: float = SECONDS) -> str:
    """What connecting comes to: ``connected``, or the name of the error; ``ETIMEDOUT`` for silence."""
    made.settimeout(seconds)
    number = made.connect_ex((address, port))
    if number == errno.EAGAIN:
        return "ETIMEDOUT"
    return errno.errorcode.get(number, "connected") if number else "connected"
