"""Programs that code standing in a pod starts by itself, by `subprocess` or asyncio's: followed, too.

Python tells audit hooks (PEP 578) of every program before it starts. So the warden hears of the pod in time,
and the death of this process is the death of that program, as it is with ``pod.popen``.
Rules: one hook a process, from its first machine on; it looks at the event's name and is gone.
Does not belong here: the orderly end, which finds programs by where they stand.
"""

import sys
from collections.abc import Container
from functools import partial

from netwarren.runtime import ferry, standing, warden

_EVENTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.system", "os.fork", "os.forkpty"})

_following = False


def follow() -> None:
    """From now on, see programs off that start in a pod; again is fine."""
    global _following
    if not _following:
        _following = True
        sys.addaudithook(_hear)


def _hear(event: str, _arguments: tuple[object, ...], events: Container[str] = _EVENTS) -> None:
    if (
        event in events
    ):  # a parameter, because the hook outlives this module's globals at the interpreter's end
        namespace = standing.in_pod()
        if namespace is not None:
            ferry.call(partial(warden.watch, namespace))
