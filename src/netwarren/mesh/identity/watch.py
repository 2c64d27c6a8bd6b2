"""Following the file of revocation lists: read at the start, read again when it has changed and come to rest.

Rules: the loop's clock is a parameter.
Does not belong here: what the lists say (see `crl`), cutting connections that they revoke, what tells a change (see `file_state`).
"""

import logging
import os
from collections.abc import Callable

from netwarren.errors import MeshError
from netwarren.mesh.file_state import FileState, file_state
from netwarren.mesh.identity.clock import Clock, Timer, WallClock
from netwarren.mesh.identity.crl import Revocations

LOOK_INTERVAL = 0.25
DEBOUNCE = 2.0

_log = logging.getLogger(__name__)


class RevocationFile:
    """The lists of a file as they are now, in ``revocations``; ``on_reload`` is called with each new state.

    A missing file has no revocations until it is there. A file that does not parse when `start` reads it disables
    revocation for good (``error`` says why); one that stops parsing later leaves the lists as they were. Lists are
    read ``debounce`` seconds after the file last changed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_reload: Callable[[Revocations], object] = lambda revocations: None,
        *,
        clock: Clock | None = None,
        debounce: float = DEBOUNCE,
        interval: float = LOOK_INTERVAL,
    ) -> None:
        self.path = os.fspath(path)
        self.revocations = Revocations()
        self.error: MeshError | None = None
        self._on_reload = on_reload
        self._clock = clock or WallClock()
        self._debounce = debounce
        self._interval = interval
        self._timer: Timer | None = None
        self._loaded: FileState = None
        self._seen: FileState = None
        self._since = 0.0

    def start(self) -> None:
        """Read the file and follow it from now on, on the running loop; again is nothing."""
        if self._timer is not None:
            return
        self._seen = self._loaded = file_state(self.path)
        if self._loaded is None:
            _log.warning(
                "there is no file of revocation lists at %s; nothing is revoked until there is", self.path
            )
        else:
            try:
                self.revocations = self._read()
            except MeshError as error:
                self.error = error
                _log.error("revocation is off: %s", error)
                return
        self._timer = self._clock.call_later(self._interval, self._look)

    def close(self) -> None:
        """Follow no longer; again is nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _read(self) -> Revocations:
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise MeshError(f"{self.path} cannot be read: {error.strerror}") from None
        try:
            return Revocations.read(data)
        except MeshError as error:
            raise MeshError(f"{self.path}: {error}") from None

    def _look(self) -> None:
        self._timer = self._clock.call_later(self._interval, self._look)
        now, state = self._clock.now(), file_state(self.path)
        if state != self._seen:
            self._seen, self._since = state, now
        if state is None or state == self._loaded or now - self._since < self._debounce:
            return
        self._loaded = state
        try:
            revocations = self._read()
        except MeshError as error:
            _log.warning("the revocation lists stay as they were: %s", error)
            return
        if revocations != self.revocations:
            self.revocations = revocations
            self._on_reload(revocations)
