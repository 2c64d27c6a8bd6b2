"""What tells one writing of a file from the next, for those who follow it.

Rules: by stat(2), by way of the file's links, so that whatever file system and manner of writing (in place, renamed
over, Kubernetes' ``..data`` links) is seen alike.
Does not belong here: when it is looked at, and what is read.
"""

import os
from typing import TypeAlias

FileState: TypeAlias = tuple[int, int, int, int] | None


def file_state(path: str) -> FileState:
    """Device, inode, time of the last change in ns, and size; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
