"""Records, their lines, the levels."""

import io
import json

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.telemetry.log import Levels, Log
from netwarren.mesh.telemetry.records import Bare, Record, as_json, plain

RECORD = Record(
    1767323045.0006,
    "info",
    "access",
    "connection complete",
    {"src.addr": Bare("10.0.2.3:41000"), "src.workload": 'cli"ent', "bytes_sent": 4},
)


def test_a_plain_line_has_tabs_between_its_parts_and_quotes_around_text() -> None:
    assert plain(RECORD) == (
        "2026-01-02T03:04:05.000600Z\tinfo\taccess\tconnection complete\t"
        'src.addr=10.0.2.3:41000 src.workload="cli\\"ent" bytes_sent=4'
    )


def test_a_plain_line_without_fields_ends_with_its_message() -> None:
    assert plain(Record(0, "warn", "dns", "slow")) == "1970-01-01T00:00:00.000000Z\twarn\tdns\tslow"


def test_a_json_line_has_the_message_last() -> None:
    assert as_json(RECORD) == (
        '{"level":"info","time":"2026-01-02T03:04:05.000600Z","scope":"access","src.addr":"10.0.2.3:41000",'
        '"src.workload":"cli\\"ent","bytes_sent":4,"message":"connection complete"}'
    )


@pytest.mark.parametrize(
    "value", ["two\nlines", Bare("two\nlines"), "tab\there", "a\u2028b", Bare("x\r\n\ty=1")]
)
def test_a_value_with_line_breaks_stays_on_its_line(value: str) -> None:
    line = plain(Record(0, "info", "access", "x", {"dst.hbone_addr": value}))
    assert len(line.splitlines()) == 1
    assert line.count("\t") == 4


def test_only_what_is_of_the_level_is_kept() -> None:
    log = Log("warn")
    log.write("info", "x", "not this")
    log.write("error", "x", "this")
    assert [record.message for record in log.records()] == ["this"]
    assert log.count == 1


def test_a_target_has_a_level_of_its_own() -> None:
    log = Log("off,access:debug")
    log.write("error", "dns", "not this")
    log.write("debug", "access", "this")
    assert [record.message for record in log.records()] == ["this"]


@pytest.mark.parametrize(
    ("levels", "kept"),
    [
        ("info,xds:off", ["state", "access"]),
        ("off,ztunnel:info", ["xds::client", "state"]),
        ("off,ztunnel::xds=info", ["xds::client"]),
        ("off,ztunnel::xds=off,xds::client=info", ["xds::client"]),
        ("off,ztunnel:info,state:off", ["xds::client"]),
        ("off,xds::client::inner=info,xd=info", []),
    ],
)
def test_a_target_means_all_within_it_also_as_ztunnel_calls_it_inside(levels: str, kept: list[str]) -> None:
    log = Log(levels)
    for target in ("xds::client", "state", "access"):
        log.write("info", target, "x")
    assert [record.target for record in log.records()] == kept


def test_a_plain_line_says_after_its_target_what_it_is_a_part_of() -> None:
    record = Record(0, "warn", "xds::client", "gone", span="xds{id=2}")
    assert plain(record) == "1970-01-01T00:00:00.000000Z\twarn\txds::client:xds{id=2}\tgone"


def test_fields_that_are_none_are_absent() -> None:
    log = Log()
    log.write("info", "x", "y", {"there": "1", "absent": None, "empty": ""})
    assert log.records()[0].fields == {"there": "1", "empty": ""}


def test_a_level_that_is_none_is_refused_and_changes_nothing() -> None:
    levels = Levels("info")
    with pytest.raises(MeshError, match=r"'dns:loud' is no level of the log; levels are: trace, debug"):
        levels.apply("access=debug,dns:loud")
    assert str(levels) == "info"


def test_levels_add_up_until_they_are_reset() -> None:
    log = Log("info,dns:off")
    log.set_levels("access:debug")
    assert str(log.levels) == "info,access:debug,dns:off"
    log.set_levels("trace")
    assert str(log.levels) == "trace"
    log.set_levels(None, reset=True)
    assert str(log.levels) == "info,dns:off"


def test_the_order_of_levels_does_not_matter() -> None:
    assert str(Levels("access=DEBUG,warn")) == str(Levels("warn,access:debug")) == "warn,access:debug"


def test_a_stream_gets_each_line_in_the_format_asked_for() -> None:
    stream = io.StringIO()
    log = Log(line_format="json", stream=stream, now=lambda: 0.0)
    log.write("info", "x", "one")
    log.write("info", "x", "two", {"n": 1})
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"level": "info", "time": "1970-01-01T00:00:00.000000Z", "scope": "x", "message": "one"},
        {"level": "info", "time": "1970-01-01T00:00:00.000000Z", "scope": "x", "n": 1, "message": "two"},
    ]
    assert log.lines() == stream.getvalue().splitlines()


def test_a_stream_that_is_closed_does_not_disturb() -> None:
    stream = io.StringIO()
    log = Log(stream=stream)
    stream.close()
    log.write("info", "x", "one")
    log.write("info", "x", "two")
    assert log.count == 2


def test_memory_keeps_the_latest_and_counts_them_all() -> None:
    log = Log(most=3)
    for number in range(10):
        log.write("info", "x", str(number))
    assert [record.message for record in log.records()] == ["7", "8", "9"]
    assert log.count == 10
    assert [record.message for record in log.records(since=8)] == ["8", "9"]
    assert [record.message for record in log.records(since=2)] == ["7", "8", "9"]
    assert log.records(since=10) == []
