"""The file of a mesh's local configuration (``LOCAL_XDS_PATH``): written whole, and read again when it has changed.

Rules: a reader sees the file before a change or after it, never between (rename(2)).
Does not belong here: what the file says (see `state.local_config`), when it is looked at.
"""

import os

from netwarren.errors import MeshConfigError
from netwarren.mesh.file_state import FileState, file_state
from netwarren.mesh.state.dump import load_json, load_yaml
from netwarren.mesh.state.local_config import Config


def write(path: str, data: bytes) -> None:
    """Put ``data`` in place of what is in a file; raises `OSError`."""
    beside = f"{path}.new"
    with open(beside, "wb") as file:
        file.write(data)
    os.rename(beside, path)


class LocalFile:
    """A configuration's file, YAML or JSON, as somebody follows it who did not write it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: FileState = None

    def read(self) -> Config:
        """What it says now. Raises `MeshConfigError` where it cannot be read or does not parse."""
        self._seen = file_state(self.path)
        try:
            with open(self.path, "rb") as file:
                text = file.read()
        except OSError as error:
            raise MeshConfigError(f"LOCAL_XDS_PATH={self.path!r} cannot be read: {error.strerror}") from None
        try:
            return load_json(text) if text.startswith(b"{") else load_yaml(text)
        except MeshConfigError as error:
            raise MeshConfigError(f"{self.path}: {error}") from None

    def changed(self) -> bool:
        """Whether there is something else to `read` than what was read last; not while there is no file."""
        state = file_state(self.path)
        return state is not None and state != self._seen
