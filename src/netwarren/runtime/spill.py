"""What a program wrote and memory has no room for: in a file without a name, in the usual directory for such.

Rules: made with the first byte; a disk that is full takes nothing more, and harms nobody; the caller holds a lock.
Does not belong here: what is still in memory (see `output`).
"""

import os
from io import FileIO

from netwarren.kernel import descriptors


class Spill:
    """The bytes from the first one on, ``size`` of them.

    ``lost`` counts those after them that were refused, which is all from the first refusal on; ``failure`` says why.
    """

    def __init__(self) -> None:
        self.size = self.lost = 0
        self.failure = ""
        self._owner = os.getpid()
        self._closed = False
        self._file: FileIO | None = None

    def append(self, data: bytes | bytearray) -> None:
        """Keep ``data``, or as much of it as there is room for; not in a forked child, which has the same file."""
        if self._closed or os.getpid() != self._owner:
            return
        rest = memoryview(data)
        try:
            while rest and not self.failure:
                if self._file is None:
                    self._file = descriptors.opened(_unnamed)
                written = self._file.write(rest)
                self.size += written
                rest = rest[written:]
        except OSError as error:
            self.failure = error.strerror or str(error)
        self.lost += len(rest)

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on."""
        return os.pread(self._file.fileno(), size, offset) if self._file is not None else b""

    def close(self) -> None:
        """Give the room back, and take no more; again is fine."""
        self._closed = True
        self.size = 0
        if self._file is not None:
            self._file.close()
            self._file = None


def _unnamed() -> FileIO:
    import tempfile  # which most programs do not need, and takes milliseconds

    return tempfile.TemporaryFile(prefix="netwarren-output-", buffering=0)
