"""Servers and clients of the tests of node proxies: all of them ordinary sockets in pods."""

import contextlib
import socket
from collections.abc import Callable

from netwarren import Pod


def double(port: int = 8080, family: int = socket.AF_INET) -> Callable[[Callable[[object], None]], None]:
    """For `Pod.start`: a server that sends who calls, a line, and then each chunk twice, until the client's end."""

    def serve(ready: Callable[[object], None]) -> None:
        with socket.create_server(("", port), family=family) as listener:
            ready(None)
            while True:
                connection, address = listener.accept()
                with connection, contextlib.suppress(ConnectionError):  # of clients that are cut off
                    connection.sendall(f"{address[0]}\n".encode())
                    while data := connection.recv(65536):
                        connection.sendall(data + data)

    return serve


def talk(client: Pod, host: str, port: int = 8080, said: bytes = b"hello") -> tuple[str, bytes]:
    """Say something and half-close: whom the server saw, and all that it answered."""
    with client, socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    seen, _, rest = answer.partition(b"\n")
    return seen.decode(), rest


def ended(client: Pod, host: str, port: int) -> bool:
    """Whether who says something is cut off without a word.

    By a reset if the proxy sees it before it refuses, as ztunnel does; a refusal may be as fast as the client.
    """
    with client, socket.create_connection((host, port), timeout=20) as connection:
        try:
            connection.sendall(b"hello")
            return connection.recv(10) == b""
        except (ConnectionResetError, BrokenPipeError):
            return True


def until_refused(host: str, port: int) -> None:
    """Until nobody listens there any more, for whoever stands where this is called."""
    while True:
        try:
            socket.create_connection((host, port), timeout=20).close()
        except ConnectionResetError:
            pass  # it was waiting to be accepted
        except ConnectionRefusedError:
            return
