"""One errand in a pod, for code that is given the pod as a descriptor, by the node's agent or by a test.

Rules: there and back on the calling thread, or on the ferry where that could not come back; nothing awaits in
between; a thread that cannot be brought home raises `SteppingError` then and at every later errand.
Does not belong here: `with pod:` and what users run in pods (see `netwarren.runtime`).
"""

import os
import socket
from collections.abc import Callable
from typing import TypeVar

from netwarren.errors import ClosedError, KernelError, SteppingError
from netwarren.kernel import descriptors
from netwarren.kernel.netns import Namespace
from netwarren.runtime import ferry, standing

T = TypeVar("T")


def hold(netns: int, label: str) -> Namespace:
    """The network namespace behind the descriptor ``netns``, held by a descriptor of its own.

    ``label`` is what messages call it ("pod 'client'"). Raises `KernelError` where ``netns`` is closed.
    """
    try:
        return Namespace(descriptors.opened(lambda: os.dup(netns)), label)
    except OSError as error:
        number = error.errno or 0
        hint = descriptors.hint(number)
        raise KernelError(f"hold the network namespace of {label}", number, hint=hint) from None


def call_in(namespace: Namespace, function: Callable[[], T]) -> T:
    """Call ``function`` in ``namespace`` and return or raise what it did; setns(2).

    Raises `SteppingError` where the thread cannot step in, or cannot be brought back, which is the end of it
    for all of us.
    """
    if namespace.fd < 0:
        raise ClosedError(namespace.label, "was let go", "hold it while there is something to do in it")
    if standing.can_return():
        return _step(namespace, function)
    return ferry.call(lambda: _step(namespace, function))


def lost() -> bool:
    """Whether this thread could not be brought home, and can do nothing in pods any more."""
    return bool(standing.here.lost)


def _step(namespace: Namespace, function: Callable[[], T]) -> T:
    # A step of a task rather than a `with` block, which on a loop's thread takes a guard.
    depth = standing.begin_step(namespace)
    try:
        result = function()
    except BaseException:
        standing.end_step(depth)
        raise
    try:
        standing.end_step(depth)
    except SteppingError:
        if isinstance(result, socket.socket):
            result.close()
        raise
    return result
