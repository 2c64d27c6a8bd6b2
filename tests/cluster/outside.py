"""The host, as tests of egress and published ports need it: sockets, servers and programs there.

Rules: this thread may have left the host's network in a test before, so all is made by the host thread;
everything is on the host's loopback or at its own addresses, and nothing leaves the machine.
Does not belong here: packets between machines of a cluster (see `traffic`).
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from netwarren.runtime import host

T = TypeVar("T")

SECONDS = 20.0


def on_host(function: Callable[[], T]) -> T:
    """Call ``function`` on a thread that stands in the host's network."""
    return host.call(lambda: asyncio.to_thread(function))


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def has_ipv6() -> bool:
    """Whether the host has ::1."""
    try:
        on_host(lambda: listen("::1")).close()
    except OSError:
        return False
    return True


def listen(address: str, port: int = 0) -> socket.socket:
    return socket.create_server((address, port), family=family(address))


def free_port() -> int:
    """A port of the host's loopback where nobody listens, and nobody was given: bound, not listening."""
    with on_host(lambda: listen("127.0.0.1")) as bound:
        port: int = bound.getsockname()[1]
        return port


def connect(address: str, port: int) -> socket.socket:
    """A connection from the host."""
    return on_host(partial(socket.create_connection, (address, port), SECONDS))


def echo(connection: socket.socket) -> None:
    """Send back what comes until it ends, then ``end``."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.sendall(b"end")


@contextlib.contextmanager
def server(
    handle: Callable[[socket.socket], object] = echo, address: str = "127.0.0.1", port: int = 0
) -> Iterator[int]:
    """A TCP server on the host, one thread a connection; yields its port."""
    listening = on_host(lambda: listen(address, port))
    threads: list[threading.Thread] = []

    def handle_one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(SECONDS)
            handle(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=handle_one, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listening.close()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def datagram_server(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A UDP server on the host that sends each datagram back, reversed; yields its port."""

    def bound() -> socket.socket:
        made = socket.socket(family(address), socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    listening = on_host(bound)

    def answer() -> None:
        while True:
            data, client = listening.recvfrom(65535)
            if not data:
                return
            listening.sendto(data[::-1], client)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        with on_host(lambda: socket.socket(family(address), socket.SOCK_DGRAM)) as last:
            last.sendto(b"", listening.getsockname())
        thread.join()
        listening.close()


def run_on_host(script: str, *arguments: str) -> str:
    """What a program of the host's writes: ``script`` in Python."""
    command = [sys.executable, "-c", script, *arguments]
    return on_host(partial(subprocess.check_output, command, text=True, timeout=60))
