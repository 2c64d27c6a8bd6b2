"""A port of a pod on the host: who connects to it there is connected with the port in the pod.

Rules: a connection begins in the pod itself, so that what listens on the pod's loopback is reached, as by
``kubectl port-forward``; closed with the pod at the latest; a forked child's copy is nobody's to close.
Does not belong here: carrying the bytes (see `forwarder`).
"""

import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Self

from netwarren.errors import AddressError, AddressTaken, ConfigurationError
from netwarren.runtime import ferry, host

if TYPE_CHECKING:
    from netwarren.runtime.forwarder import Forwarder

_LOOPBACK = ("127.0.0.1", "::1")


class Published:
    """A port of a pod on the host, until `close`; made by ``pod.publish``.

    ``address`` and ``port`` are where it is on the host, ``pod_port`` is the one in the pod.
    ``connections`` counts those that were carried on, ``refused`` those that nobody in the pod took.
    """

    def __init__(
        self,
        where: str,
        pod_port: int,
        address: str,
        host_port: int,
        make: Callable[[int], socket.socket],
        own: Sequence[str],
    ) -> None:
        _check_port("port", pod_port, 1)
        _check_port("host_port", host_port, 0)
        self.where = where
        self.pod_port = pod_port
        self.address = _check_address(address)
        self.connections = 0
        self.refused = 0
        self._make = make
        self._candidates = [(each, pod_port) for each in dict.fromkeys((*_LOOPBACK, *own))]
        self._owner = os.getpid()
        self._closing = threading.Lock()
        self._forwarder: Forwarder | None = None
        try:
            self.port = host.call(lambda: self._open(host_port))
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = "" if self._forwarder is not None else ", closed"
        return f"<Published {self.where} port {self.pod_port} at {self._at(self.port)}{state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, for a server that speaks HTTP."""
        return f"http://{self._at(self.port)}"

    @property
    def closed(self) -> bool:
        """Whether it is closed, by `close` or with its pod."""
        return self._forwarder is None

    def close(self) -> None:
        """Give the host's port back and reset its connections; again is fine."""
        if os.getpid() != self._owner:
            return
        with self._closing:
            forwarder, self._forwarder = self._forwarder, None
        if forwarder is not None:
            host.call(forwarder.close)

    def describe(self) -> str:
        """One line for a report."""
        return f"{self._at(self.port)} -> {self.pod_port}: {self.connections} connections, {self.refused} refused"

    def _at(self, port: int) -> str:
        return f"[{self.address}]:{port}" if ":" in self.address else f"{self.address}:{port}"

    async def _open(self, host_port: int) -> int:
        from netwarren.runtime.forwarder import BACKLOG, Forwarder

        listener = socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.address, host_port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise self._refusal(error, host_port) from None
        forwarder = self._forwarder = Forwarder()
        forwarder.listen(listener, self._connect)
        port: int = listener.getsockname()[1]
        return port

    def _refusal(self, error: OSError, host_port: int) -> AddressError:
        at = self._at(host_port)
        if error.errno == errno.EADDRINUSE:
            return AddressTaken("port of the host", at, "another program, or published already")
        if error.errno == errno.EACCES:
            why = "ports below 1024 are root's (net.ipv4.ip_unprivileged_port_start); take a higher one, or 0 for any"
            return AddressError(f"{at} on the host cannot be listened on: {why}")
        if error.errno == errno.EADDRNOTAVAIL:
            return AddressError(f"{self.address} is not an address of the host; 127.0.0.1 is one")
        return AddressError(f"{at} on the host cannot be listened on: {error.strerror}")

    async def _inside(self, family: int) -> socket.socket:
        return await ferry.call_async(lambda: self._make(family))

    async def _connect(self, _connection: socket.socket) -> socket.socket:
        forwarder = self._forwarder
        if forwarder is None:
            raise ConnectionRefusedError()
        try:
            made = await forwarder.connect(self._candidates, self._inside)
        except BaseException:
            self.refused += 1
            raise
        self.connections += 1
        return made


def _check_port(what: str, port: object, least: int) -> None:
    if not isinstance(port, int) or not least <= port <= 65535:
        raise ConfigurationError(f"{what}={port!r} is no port; it is a number from {least} to 65535")


def _check_address(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        raise ConfigurationError(
            f"address={address!r} is not an address of the host; write 127.0.0.1 (the default) or ::1 for this "
            "machine alone, or another one by which others are to reach it"
        ) from None
