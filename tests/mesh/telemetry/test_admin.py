"""The administrator's pages."""

import json
import tracemalloc
from ipaddress import ip_address

import pytest

from netwarren.mesh.telemetry.admin import Admin, ConfigDump
from netwarren.mesh.telemetry.http import Request, Response, text
from netwarren.mesh.telemetry.log import Log


class _Proxy:
    def __init__(self) -> None:
        self.ends = 0

    def shut_down(self) -> None:
        self.ends += 1

    async def shut_down_async(self) -> None:
        self.ends += 1


@pytest.fixture
def proxy() -> _Proxy:
    return _Proxy()


@pytest.fixture
def admin(proxy: _Proxy) -> Admin:
    return Admin(Log("info,dns:off"), proxy.shut_down)


async def _ask(admin: Admin, path: str, method: str = "GET", **query: str) -> tuple[int, str]:
    answer: Response = await admin.page(Request(method, path, query))
    return int(answer.status), answer.body.decode()


async def test_the_dump_has_all_keys_even_of_a_proxy_that_knows_nothing(admin: Admin) -> None:
    status, body = await _ask(admin, "/config_dump")
    assert status == 200
    assert list(json.loads(body)) == [
        "workloads",
        "services",
        "policies",
        "stagedServices",
        "staticConfig",
        "version",
        "config",
        "certificates",
        "workloadState",
    ]


async def test_the_dump_shows_what_is_known_when_it_is_asked_for(proxy: _Proxy) -> None:
    workloads: list[dict[str, object]] = []
    state = {"uid-1": {"state": "Up", "connections": {"inbound": [], "outbound": []}, "info": {"name": "a"}}}
    admin = Admin(
        Log(),
        proxy.shut_down,
        ConfigDump(state=lambda: {"workloads": workloads}, workload_state=lambda: state),
    )
    workloads.append({"uid": "x", "workloadIps": [ip_address("fd00::1")]})
    _, body = await _ask(admin, "/config_dump")
    dump = json.loads(body)
    assert dump["workloads"] == [{"uid": "x", "workloadIps": ["fd00::1"]}]
    assert dump["workloadState"] == state


async def test_quitting_is_asked_for_with_post(admin: Admin, proxy: _Proxy) -> None:
    assert await _ask(admin, "/quitquitquit") == (405, "")
    assert await _ask(admin, "/quitquitquit", "DELETE") == (405, "")
    assert proxy.ends == 0
    assert await _ask(admin, "/quitquitquit", "POST") == (200, "shutdown now\n")
    assert proxy.ends == 1


async def test_quitting_may_be_a_coroutine(proxy: _Proxy) -> None:
    admin = Admin(Log(), proxy.shut_down_async)
    assert await _ask(admin, "/quitquitquit", "POST") == (200, "shutdown now\n")
    assert proxy.ends == 1


async def test_the_levels_of_the_log_are_read_changed_and_reset(admin: Admin) -> None:
    assert await _ask(admin, "/logging", "POST") == (200, "current log level is info,dns:off\n")
    assert await _ask(admin, "/logging", "POST", level="access:debug") == (
        200,
        "current log level is info,access:debug,dns:off\n",
    )
    assert admin.log.enabled("debug", "access")
    assert await _ask(admin, "/logging", "POST", level="error") == (200, "current log level is error\n")
    assert await _ask(admin, "/logging", "POST", reset="") == (200, "current log level is info,dns:off\n")
    assert await _ask(admin, "/logging", "POST", reset="true", level="dns:warn") == (
        200,
        "current log level is info,dns:warn\n",
    )


async def test_a_level_that_is_none_is_refused_with_the_usage(admin: Admin) -> None:
    status, body = await _ask(admin, "/logging", "POST", level="loud")
    assert status == 400
    assert body.startswith("Invalid level provided: loud\n\nusage: POST /logging")
    assert str(admin.log.levels) == "info,dns:off"


async def test_levels_are_asked_for_with_post(admin: Admin) -> None:
    status, body = await _ask(admin, "/logging", level="error")
    assert status == 405
    assert body.startswith("Invalid HTTP method\n\nusage:")
    assert str(admin.log.levels) == "info,dns:off"


async def test_the_dashboard_lists_the_pages_and_those_of_others(proxy: _Proxy) -> None:
    admin = Admin(Log(), proxy.shut_down, pages={"/ho?a&b": ("how <so>", lambda request: text("so"))})
    status, body = await _ask(admin, "/")
    assert status == 200
    for path in ("/config_dump", "/logging", "/quitquitquit", "/debug/pprof/profile", "/debug/pprof/heap"):
        assert f'<a href="{path}">' in body
    assert '<a href="/ho?a&amp;b">' in body
    assert "how &lt;so&gt;" in body
    assert await _ask(admin, "/ho?a&b") == (200, "so")


@pytest.mark.parametrize("path", ["/config_dump/", "/nothing", "/debug/pprof", "/debug/pprof/goroutine"])
async def test_there_is_nothing_elsewhere(admin: Admin, path: str) -> None:
    assert await _ask(admin, path) == (404, "")


async def test_a_profile_tells_what_this_thread_did(admin: Admin) -> None:
    status, body = await _ask(admin, "/debug/pprof/profile", seconds="0.01")
    assert status == 200
    assert "function calls" in body
    assert "cumtime" in body


@pytest.mark.parametrize("seconds", ["", "x", "-1", "31", "nan", "inf"])
async def test_a_profile_is_bounded_in_time(admin: Admin, seconds: str) -> None:
    assert await _ask(admin, "/debug/pprof/profile", seconds=seconds) == (
        400,
        "seconds is a number from 0 to 30\n",
    )


async def test_memory_is_told_of_where_it_is_traced(admin: Admin) -> None:
    tracing = tracemalloc.is_tracing()
    if not tracing:
        status, body = await _ask(admin, "/debug/pprof/heap")
        assert status == 501
        assert "PYTHONTRACEMALLOC" in body
        tracemalloc.start()
    try:
        kept = [bytearray(1000) for _ in range(1000)]
        status, body = await _ask(admin, "/debug/pprof/heap")
    finally:
        if not tracing:
            tracemalloc.stop()
    assert status == 200
    assert "test_admin.py" in body
    del kept
