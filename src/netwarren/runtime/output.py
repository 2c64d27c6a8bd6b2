"""What a program writes: read off its pipe by one thread for all programs, kept within bounds.

Rules: memory is bounded, whatever the program does; what a program wrote before it ended is complete as
soon as its end is known; nothing goes to disk.
Does not belong here: the program (see `program`).
"""

import os
import select
import threading
from collections.abc import Callable

from netwarren.runtime import standing

KEPT_BYTES = 4 << 20
_CHUNK = 1 << 16
_MOST_CHUNKS = 16  # together what a pipe can hold, by the default of fs.pipe-max-size
_SLACK = 1 << 20  # trimmed now and then, not with each chunk


class News:
    """Something to wait for that happens again and again; ``count`` says how often it did."""

    def __init__(self) -> None:
        self.count = 0
        self._condition = threading.Condition()

    def tell(self) -> None:
        """It has happened."""
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait(self, since: int, seconds: float) -> None:
        """Wait until it has happened more than ``since`` times, for ``seconds`` at most."""
        with self._condition:
            self._condition.wait_for(lambda: self.count > since, seconds)


class Output:
    """The text that came out of a pipe: all of it, or the last ``limit`` bytes where it is more.

    ``news`` is called when something was read, and at the pipe's end.
    """

    def __init__(
        self, fd: int, limit: int | None = KEPT_BYTES, news: Callable[[], None] = lambda: None
    ) -> None:
        self._fd = fd
        self._limit = limit
        self._news = news
        self._kept = bytearray()
        self._dropped = 0
        self._run_begins = 0  # counted from the first byte ever, those dropped included
        self._lock = threading.Lock()
        os.set_blocking(fd, False)
        _pump.add(self)

    def fileno(self) -> int:
        """The descriptor to poll; -1 once everything was read."""
        return self._fd

    def drain(self) -> bool:
        """Read what is there, or as much as a pipe can hold; False once the pipe is at its end."""
        with self._lock:
            read, more = self._drain()
        if read:
            self._news()  # without the lock: who waits for it wants to read
        return more

    def follow(self, fd: int, mark: str) -> None:
        """Go on with another pipe, after ``mark`` on a line of its own."""
        self.close()
        os.set_blocking(fd, False)
        with self._lock:
            if self._kept and self._kept[-1:] != b"\n":
                self._kept += b"\n"
            self._keep(f"{mark}\n".encode())
            self._run_begins = self._dropped + len(self._kept)
            self._fd = fd
        _pump.add(self)

    def data(self) -> bytes:
        """Everything kept so far, what the pipe holds at this moment included."""
        return self._read()[1]

    def text(self) -> str:
        """`data` as text; where some was dropped, the first line says how much."""
        dropped, data = self._read()
        text = data.decode(errors="replace")
        return f"[{dropped} bytes before this were dropped]\n{text}" if dropped else text

    def text_of_run(self) -> str:
        """What came through the present pipe, as far as it is kept."""
        dropped, data = self._read()
        return data[max(0, self._run_begins - dropped) :].decode(errors="replace")

    def close(self) -> None:
        """Read what is there and stop reading, whoever may still hold the other end."""
        self.drain()
        with self._lock:
            self._close()

    def _read(self) -> tuple[int, bytes]:
        self.drain()
        with self._lock:
            self._trim()
            return self._dropped, bytes(self._kept)

    def _drain(self) -> tuple[bool, bool]:
        """Whether there was something, and whether there may be more."""
        for turn in range(_MOST_CHUNKS):  # and no more, for a program that writes as fast as we read
            if self._fd < 0:
                return turn > 0, False
            try:
                chunk = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                return turn > 0, True
            if not chunk:
                self._close()
                return True, False
            self._keep(chunk)
        return True, True

    def _keep(self, chunk: bytes) -> None:
        self._kept += chunk
        if self._limit is not None and len(self._kept) > self._limit + _SLACK:
            self._trim()

    def _trim(self) -> None:
        if self._limit is not None and (excess := len(self._kept) - self._limit) > 0:
            del self._kept[:excess]
            self._dropped += excess

    def _close(self) -> None:
        if self._fd >= 0:
            _pump.remove(self)
            os.close(self._fd)
            self._fd = -1


class _Pump:
    """The thread that reads, so that no program ever waits for us to look."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._outputs: dict[int, Output] = {}
        self._lock = threading.Lock()

    def add(self, output: Output) -> None:
        with self._lock:
            if self._epoll is None:
                self._epoll = select.epoll()
                threading.Thread(
                    target=self._run, args=(self._epoll,), name="netwarren-output", daemon=True
                ).start()
            self._outputs[output.fileno()] = output
            self._epoll.register(output.fileno(), select.EPOLLIN | select.EPOLLHUP)

    def remove(self, output: Output) -> None:
        with self._lock:
            if self._outputs.pop(output.fileno(), None) is not None and self._epoll is not None:
                self._epoll.unregister(output.fileno())

    def _run(self, epoll: select.epoll) -> None:
        # Started by whoever starts the first program, perhaps inside a pod, which it must not keep alive.
        standing.live_in(standing.home())
        while True:
            for fd, _event in epoll.poll():
                with self._lock:
                    output = self._outputs.get(fd)
                if output is not None:
                    output.drain()

    def forget(self) -> None:
        """In a forked child: the thread is gone, and the epoll descriptor is the parent's too."""
        if self._epoll is not None:
            self._epoll.close()
        self.__init__()  # type: ignore[misc]


_pump = _Pump()
os.register_at_fork(after_in_child=_pump.forget)
