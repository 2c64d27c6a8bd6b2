"""What a program writes: read off its pipe by one thread for all programs, kept within bounds.

Rules: memory is bounded, whatever the program does; what a program wrote before it ended is complete as
soon as its end is known; what memory has no room for goes to disk, and is lost only where that is full.
Does not belong here: the program (see `program`), the disk (see `spill`).
"""

import codecs
import os
import re
import select
import threading
from collections.abc import Callable, Iterator

from netwarren.runtime import standing
from netwarren.runtime.spill import Spill

KEPT_BYTES = 4 << 20
_CHUNK = 1 << 16
_MOST_CHUNKS = 16  # together what a pipe can hold, by the default of fs.pipe-max-size
_SLACK = 1 << 20  # trimmed now and then, not with each chunk
_LONGEST_MATCH = 1 << 20
_SEARCHED_AT_ONCE = 4  # times that; more makes fewer bytes be searched twice, and each look longer


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
    """The text that came out of a pipe: all of it, or the last ``limit`` bytes where it is more, and the rest on disk.

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
        self._spill = Spill()  # of what was dropped
        self._run_begins = 0  # counted from the first byte ever, those dropped included
        self._searched: dict[re.Pattern[str], int] = {}
        """For each pattern that was not found yet, where to go on; counted so, too."""
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
            self._run_begins = self._end()
            self._searched.clear()
            self._fd = fd
        _pump.add(self)

    def data(self) -> bytes:
        """Everything kept so far, what the pipe holds at this moment included."""
        return self._read()[1]

    def text(self) -> str:
        """`data` as text; where some was dropped, the first line says how much, and how much is not on disk either."""
        dropped, data = self._read()
        text = data.decode(errors="replace")
        loss = f", {self._spill.lost} of them for good: {self._spill.failure}" if self._spill.lost else ""
        return f"[{dropped} bytes before this were dropped{loss}]\n{text}" if dropped else text

    def lines(self) -> Iterator[str]:
        """All of it up to this moment, a line at a time, its end included; one that is longer than 64 KiB in pieces.

        Where the disk was full, or was given back (`release`), a line says how much is missing.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        for piece in self._pieces():
            *whole, rest = (rest + decoder.decode(piece)).split("\n")
            yield from (f"{line}\n" for line in whole)
            if len(rest) > _CHUNK:
                yield rest
                rest = ""
        rest += decoder.decode(b"", final=True)
        if rest:
            yield rest

    def search(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        """The first match in what came through the present pipe, also in what memory has no room for.

        A match of more than 1 MiB may be missed. What was searched in vain is not searched again.
        """
        self.drain()
        with self._lock:
            start, end = self._searched.get(pattern, self._run_begins), self._end()
        while True:
            begin, window = self._take(start, _SEARCHED_AT_ONCE * _LONGEST_MATCH)
            if begin + len(window) < end and (cut := window.rfind(b"\n") + 1) > _LONGEST_MATCH:
                window = window[:cut]
            found = pattern.search(window.decode(errors="replace"))
            if found is not None:
                return found
            if begin + len(window) >= end:
                self._searched[pattern] = begin
                return None
            following = _line_begin(window, len(window) - _LONGEST_MATCH)
            start = begin + (following or len(window))

    def close(self) -> None:
        """Read what is there and stop reading, whoever may still hold the other end."""
        self.drain()
        with self._lock:
            self._close()

    def release(self) -> None:
        """Give back what was needed on disk; what is in memory stays."""
        with self._lock:
            self._trim()
            self._spill.close()

    def _pieces(self) -> Iterator[bytes]:
        self.drain()
        with self._lock:
            end = self._end()
        at, last = 0, b"\n"
        while at < end:
            begin, data = self._take(at, min(_CHUNK, end - at))
            if begin > at:
                line_end = b"" if last == b"\n" else b"\n"
                yield line_end + f"[{begin - at} bytes are missing here]\n".encode()
            yield data
            at, last = begin + len(data), data[-1:]

    def _take(self, start: int, size: int) -> tuple[int, bytes]:
        """At most ``size`` bytes that were written one after the other, and where they begin.

        That is at ``start``, or where there are bytes again, if those are lost.
        """
        with self._lock:
            begin, data = start, b""
            if start < self._spill.size:
                data = self._spill.read(start, min(size, self._spill.size - start))
                if start + len(data) < self._dropped:
                    return start, data
            else:
                begin = max(start, self._dropped)
            offset = begin + len(data) - self._dropped
            return begin, data + self._kept[offset : offset + size - len(data)]

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
            self._spill.append(self._kept[:excess])
            del self._kept[:excess]
            self._dropped += excess

    def _end(self) -> int:
        """How many bytes there were so far."""
        return self._dropped + len(self._kept)

    def _close(self) -> None:
        if self._fd >= 0:
            _pump.remove(self)
            os.close(self._fd)
            self._fd = -1


def _line_begin(data: bytes, position: int) -> int:
    """Where the first line at ``position`` or after it begins; there itself, if none does."""
    if position <= 0:
        return 0
    found = data.find(b"\n", position - 1) + 1
    return found if 0 < found < len(data) else position


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
