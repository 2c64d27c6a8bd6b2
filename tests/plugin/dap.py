"""A client of the Debug Adapter Protocol: as much of an editor's debugger as a test needs.

Rules: one connection a debugged process, as editors do it; every wait has a bound, and who waits in vain
is shown what the adapter said.
Does not belong here: what is debugged.
"""

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SECONDS = 40.0

Message = dict[str, Any]


class Dap:
    """A connection to debugpy at ``address``."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._said: list[Message] = []
        self._news = threading.Condition()
        self._sent = 0
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the adapter was first
        self._reader.join(SECONDS)
        self._socket.close()

    # --- what the adapter says ---

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as stream:
                while (length := _length(stream)) is not None:
                    message = json.loads(stream.read(length))
                    with self._news:
                        self._said.append(message)
                        self._news.notify_all()
        except OSError:
            pass  # reset: the adapter has ended
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait(self, what: str, fits: Callable[[Message], bool]) -> Message:
        """The first message not taken yet that ``fits``; takes it."""

        def found() -> bool:
            return self._ended or any(fits(message) for message in self._said)

        with self._news:
            self._news.wait_for(found, SECONDS)
            for position, message in enumerate(self._said):
                if fits(message):
                    return self._said.pop(position)
            said = "\n".join(json.dumps(message)[:400] for message in self._said)
            until = "before the adapter hung up" if self._ended else f"in {SECONDS:g} s"
        raise AssertionError(f"no {what} came {until}; what the adapter said besides:\n{said}")

    def event(self, name: str) -> Message:
        """The body of the next event ``name``."""
        event = self.wait(f"event {name}", lambda m: m["type"] == "event" and m["event"] == name)
        body: Message = event.get("body", {})
        return body

    # --- what we ask ---

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request; returns its number, for `answer`."""
        self._sent += 1
        text = json.dumps(
            {"seq": self._sent, "type": "request", "command": command, "arguments": arguments}
        ).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
        return self._sent

    def answer(self, number: int) -> Message:
        """The body of the answer to request ``number``, which must be a success."""
        response = self.wait(
            f"answer to request {number}",
            lambda m: m["type"] == "response" and m["request_seq"] == number,
        )
        assert response["success"], response
        body: Message = response.get("body", {})
        return body

    def ask(self, command: str, **arguments: Any) -> Message:
        """Send a request and wait for its answer."""
        return self.answer(self.send(command, **arguments))

    def attach(self, configuration: Message, breakpoints: dict[str, list[int]]) -> None:
        """What an editor does at first: attach, set breakpoints by file and line, go."""
        self.ask("initialize", clientID="netwarren-tests", adapterID="debugpy", pathFormat="path")
        attach = self.send("attach", **configuration)
        self.event("initialized")
        for path, lines in breakpoints.items():
            self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line} for line in lines])
        self.ask("setExceptionBreakpoints", filters=[])
        self.ask("configurationDone")
        self.answer(attach)

    def stopped(self) -> tuple[int, Message]:
        """Wait until a thread stops at a breakpoint: its id and its top stack frame."""
        event = self.event("stopped")
        assert event["reason"] == "breakpoint", event
        thread: int = event["threadId"]
        frames = self.ask("stackTrace", threadId=thread, levels=1)["stackFrames"]
        return thread, frames[0]

    def evaluate(self, expression: str, frame: Message) -> str:
        """The repr of ``expression`` in a stack frame."""
        return str(
            self.ask("evaluate", expression=expression, frameId=frame["id"], context="watch")["result"]
        )


def address(endpoints: Path) -> tuple[str, int]:
    """Where debugpy's adapter listens, from the file that it writes (DEBUGPY_ADAPTER_ENDPOINTS) when it is ready.

    It listens before it is: who comes then is served by halves, and the next one not at all.
    """
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            client = json.loads(endpoints.read_text())["client"]
            return client["host"], client["port"]
        except (FileNotFoundError, json.JSONDecodeError):
            time.sleep(0.02)  # nothing tells when another process has written a file
    raise AssertionError("debugpy's adapter was never ready")


def _length(stream: Any) -> int | None:
    length: int | None = None
    while line := stream.readline():
        if line == b"\r\n":
            return length
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return None
