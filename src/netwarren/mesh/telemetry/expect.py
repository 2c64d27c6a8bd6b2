"""A test's expectations of what the proxy tells: a metric that changes by so much, a record of the log.

Rules: woken by the event, never polling; bounded by a deadline; who is disappointed reads what there was instead;
from any thread but that of the proxy's loop (coroutines: from any loop).
Does not belong here: what is told (see `metrics`, `log`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from netwarren.errors import MeshError
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics
from netwarren.mesh.telemetry.records import FieldValue, Record, plain
from netwarren.mesh.telemetry.registry import Number, Sample, spelled

SECONDS = 5.0

_Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The metrics at one time, to tell later what has changed since; see `snapshot`."""

    metrics: Metrics
    values: Mapping[_Series, Number] = field(repr=False)

    def delta(self, name: str, labels: Mapping[str, str]) -> Number:
        """By how much the series of ``name`` with all these labels, and maybe others, have changed together.

        Raises `MeshError` where there is no such metric: nothing is ever counted under a misspelled name.
        """
        return sum(self._changes(name, labels).values())

    def _changes(self, name: str, labels: Mapping[str, str]) -> dict[str, Number]:
        self._check(name)
        return {
            sample.name + spelled(sample.labels): sample.value - self.values.get(_series(sample), 0)
            for sample in self.metrics.registry.samples()
            if sample.name == name and labels.items() <= sample.labels.items()
        }

    def _check(self, name: str) -> None:
        known = self.metrics.registry.names()
        if name not in known:
            raise MeshError(f"no metric is called {name!r}; there are: {', '.join(known)}")

    def _missed(self, name: str, labels: Mapping[str, str], wanted: Number) -> AssertionError:
        lines = [f"  {series} {change:+}" for series, change in self._changes(name, {}).items() if change]
        return AssertionError(
            f"{name}{spelled(labels)} has changed by {self.delta(name, labels):+}, not by {wanted:+}; since then:\n"
            + ("\n".join(lines) or "  (nothing of that name)")
        )


def snapshot(metrics: Metrics) -> Snapshot:
    """The metrics as they are now; what `expect` counts from."""
    return Snapshot(metrics, {_series(sample): sample.value for sample in metrics.registry.samples()})


async def expect(
    since: Snapshot, name: str, labels: Mapping[str, str], delta: Number, *, seconds: float = SECONDS
) -> None:
    """Wait until the series of ``name`` with all these labels have changed by ``delta``, together, ``since`` then.

    A ``delta`` of 0 is there at once, and says nothing of what comes. Raises `AssertionError`, with what has changed,
    where it is not so within ``seconds``, and `MeshError` where there is no metric of that name.
    """
    if await since.metrics.changes.wait_async(_looking(since, name, labels, delta), seconds) is None:
        raise since._missed(name, labels, delta)


def expect_sync(
    since: Snapshot, name: str, labels: Mapping[str, str], delta: Number, *, seconds: float = SECONDS
) -> None:
    """As `expect`, blocking this thread."""
    if since.metrics.changes.wait(_looking(since, name, labels, delta), seconds) is None:
        raise since._missed(name, labels, delta)


async def expect_record(
    log: Log,
    message: str,
    fields: Mapping[str, FieldValue] | None = None,
    *,
    where: Callable[[Record], bool] | None = None,
    since: int = 0,
    seconds: float = SECONDS,
) -> Record:
    """Wait for the first record, from the ``since``-th on (see `Log.count`), with this message and these fields.

    ``where`` says what else it must be like. A field wanted as ``""`` or None must not be there. Raises `AssertionError`, with the records there were, where
    none comes within ``seconds``.
    """
    found = await log.changes.wait_async(_searching(log, message, fields or {}, where, since), seconds)
    return found or _no_record(log, message, fields or {}, since)


def expect_record_sync(
    log: Log,
    message: str,
    fields: Mapping[str, FieldValue] | None = None,
    *,
    where: Callable[[Record], bool] | None = None,
    since: int = 0,
    seconds: float = SECONDS,
) -> Record:
    """As `expect_record`, blocking this thread."""
    found = log.changes.wait(_searching(log, message, fields or {}, where, since), seconds)
    return found or _no_record(log, message, fields or {}, since)


def _looking(
    since: Snapshot, name: str, labels: Mapping[str, str], delta: Number
) -> Callable[[], bool | None]:
    since._check(name)
    return lambda: True if since.delta(name, labels) == delta else None


def _searching(
    log: Log,
    message: str,
    fields: Mapping[str, FieldValue],
    where: Callable[[Record], bool] | None,
    since: int,
) -> Callable[[], Record | None]:
    def find() -> Record | None:
        for record in log.records(since):
            if record.matches(message, fields) and (where is None or where(record)):
                return record
        return None

    return find


def _no_record(log: Log, message: str, fields: Mapping[str, FieldValue], since: int) -> Record:
    there = "\n".join(f"  {plain(record)}" for record in log.records(since)) or "  (none)"
    raise AssertionError(
        f"no record {message!r} with {dict(fields)} has come; the records there were:\n{there}"
    )


def _series(sample: Sample) -> _Series:
    return sample.name, tuple(sample.labels.items())
