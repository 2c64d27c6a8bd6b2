"""Bytes that were received and are not read yet.

Rules: large pieces are kept as the views they came as, small ones are copied together, so that what is kept
stays within a small multiple of its length, however the peer cuts it.
Does not belong here: flow control (see `windows`).
"""

from collections import deque

_SMALL = 4096


class Chunks:
    """A queue of bytes; ``len()`` is how many."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview | bytearray] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, piece: memoryview) -> None:
        size = len(piece)
        self._length += size
        # A view keeps alive all that it is a view of.
        if size >= _SMALL and size * 4 >= len(piece.obj):  # type: ignore[arg-type]
            self._pieces.append(piece)
        elif self._pieces and isinstance(last := self._pieces[-1], bytearray) and len(last) < 4 * _SMALL:
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def pop(self, most: int) -> bytes:
        """Up to ``most`` bytes from the front."""
        if most >= self._length:
            taken = bytes(self._pieces[0]) if len(self._pieces) == 1 else b"".join(self._pieces)
            self.clear()
            return taken
        parts: list[memoryview | bytearray] = []
        left = most
        while left:
            piece = self._pieces[0]
            if len(piece) <= left:
                parts.append(self._pieces.popleft())
                left -= len(piece)
                continue
            view = memoryview(piece)
            parts.append(view[:left])
            # A view also of what was a bytearray: nothing is added to it any more.
            self._pieces[0] = view[left:]
            left = 0
        self._length -= most
        return b"".join(parts)

    def clear(self) -> None:
        self._pieces.clear()
        self._length = 0
