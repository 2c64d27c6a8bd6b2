"""Where the proxy spends its time and its memory, asked over HTTP.

Rules: bounded in time, one at a time; what cannot be had is said in a sentence, not made up.
Does not belong here: Go's pprof format, which tells of Go's stacks.
"""

import asyncio
import cProfile
import io
import pstats
import threading
import tracemalloc
from http import HTTPStatus

from netwarren.mesh.telemetry.http import Request, Response, text

MOST_SECONDS = 30.0
_MOST_LINES = 60

_one_at_a_time = threading.Lock()


async def cpu_page(request: Request) -> Response:
    """What this loop's thread does for ``seconds`` (1 if not said), as a table of `pstats`."""
    try:
        seconds = float(request.query.get("seconds", "1"))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        return text(f"seconds is a number from 0 to {MOST_SECONDS:g}\n", HTTPStatus.BAD_REQUEST)
    if not _one_at_a_time.acquire(blocking=False):
        return text("another profile is being taken\n", HTTPStatus.CONFLICT)
    try:
        profile = cProfile.Profile()
        try:
            profile.enable()
        except ValueError as error:
            return text(f"this process is being profiled by somebody else: {error}\n", HTTPStatus.CONFLICT)
        try:
            await asyncio.sleep(seconds)
        finally:
            profile.disable()
        table = io.StringIO()
        pstats.Stats(profile, stream=table).sort_stats("cumulative").print_stats(_MOST_LINES)
        return text(table.getvalue())
    finally:
        _one_at_a_time.release()


def heap_page(request: Request) -> Response:
    """Which lines took the memory that is in use, in order of size, where Python traces that."""
    if not tracemalloc.is_tracing():
        return text(
            "Python does not trace memory here; set PYTHONTRACEMALLOC=1 before it starts\n",
            HTTPStatus.NOT_IMPLEMENTED,
        )
    statistics = tracemalloc.take_snapshot().statistics("lineno")[:_MOST_LINES]
    return text("".join(f"{each}\n" for each in statistics))
