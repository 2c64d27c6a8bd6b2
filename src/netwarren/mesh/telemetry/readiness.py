"""Whether the proxy is ready: the tasks that must be done before, by name, and the page that tells of them.

Rules: ready means that nothing is pending; a task may become pending again; usable from any thread.
Does not belong here: the tasks.
"""

from http import HTTPStatus

from netwarren.mesh.telemetry.changes import Changes
from netwarren.mesh.telemetry.http import Request, Response, empty, not_allowed, text


class Readiness:
    """What is still pending before a proxy is ready."""

    def __init__(self, *tasks: str) -> None:
        self.changes = Changes()
        self._pending = set(tasks)

    def __repr__(self) -> str:
        return f"<Readiness: {', '.join(self.pending) or 'ready'}>"

    @property
    def pending(self) -> list[str]:
        """The names of what is pending, sorted."""
        with self.changes.lock:
            return sorted(self._pending)

    @property
    def ready(self) -> bool:
        return not self.pending

    def begin(self, task: str) -> None:
        """``task`` is pending, maybe again."""
        with self.changes.lock:
            self._pending.add(task)
        self.changes.notify()

    def done(self, task: str) -> None:
        """``task`` is done; repeatable."""
        with self.changes.lock:
            self._pending.discard(task)
        self.changes.notify()

    def wait(self, seconds: float) -> bool:
        """Block this thread until it is ready; False after ``seconds``."""
        return self.changes.wait(self._look, seconds) is not None

    async def wait_async(self, seconds: float) -> bool:
        """As `wait`, for a coroutine on any loop."""
        return await self.changes.wait_async(self._look, seconds) is not None

    def _look(self) -> bool | None:
        return True if not self._pending else None


def readiness_page(readiness: Readiness, request: Request) -> Response:
    """The answer of port 15021."""
    if request.path != "/healthz/ready":
        return empty(HTTPStatus.NOT_FOUND)
    if request.method != "GET":
        return not_allowed("GET")
    if pending := readiness.pending:
        return text(f"not ready, pending: {', '.join(pending)}\n", HTTPStatus.INTERNAL_SERVER_ERROR)
    return text("ready\n")
