"""The administrator's pages, at port 15000: what the proxy knows, its log's levels, its end, profiles of it.

Rules: what a page shows it gets from functions given to it, called when it is asked for; keys and answers are those
of Istio's ztunnel.
Does not belong here: what is shown; serving (see `http`), certificates as data (see `identity`).
"""

import html
import inspect
import json
import platform
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeAlias

from netwarren import __version__
from netwarren.errors import MeshError
from netwarren.mesh.telemetry import profiles
from netwarren.mesh.telemetry.http import Handler, Request, Response, empty, not_allowed, text
from netwarren.mesh.telemetry.log import Log

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Source: TypeAlias = Callable[[], object]
"""Gives something that is JSON once what JSON has no word for (an address) is written as its ``str()``."""

USAGE = """
usage: POST /logging                                   (to list the current levels)
usage: POST /logging?level=<level>                     (to change the level everywhere)
usage: POST /logging?level=<target>:<level>,<level>    (to change the levels of targets)
usage: POST /logging?reset=true                        (to go back to the levels at the start)

hint: levels:   error|warn|info|debug|trace|off
hint: targets:  the third column of the log, i.e. access
"""


def build_info() -> dict[str, str]:
    """``version`` of ``/config_dump``: of this proxy and of what it runs on."""
    return {"version": __version__, "pythonVersion": platform.python_version()}


def _nothing() -> Mapping[str, Json]:
    return {}


def _none() -> list[Json]:
    return []


@dataclass(frozen=True, slots=True)
class ConfigDump:
    """What ``/config_dump`` is put together from."""

    state: Callable[[], Mapping[str, object]] = _nothing
    """Gives ``workloads``, ``services``, ``policies`` and ``stagedServices``, all of one moment."""
    static_config: Source = _nothing
    version: Source = build_info
    config: Source = _nothing
    certificates: Source = _none
    """A list of `identity.secrets.SecretState.described`."""
    workload_state: Source = _nothing
    """``{uid: {"state": "Up"|"Pending", "connections": Connections.listing(), "info": {...}}}``."""

    def text(self) -> str:
        """The JSON text, indented."""
        state = self.state()
        dump = {
            "workloads": state.get("workloads", []),
            "services": state.get("services", []),
            "policies": state.get("policies", []),
            "stagedServices": state.get("stagedServices", {}),
            "staticConfig": self.static_config(),
            "version": self.version(),
            "config": self.config(),
            "certificates": self.certificates(),
            "workloadState": self.workload_state(),
        }
        return json.dumps(dump, indent=2, default=str)


@dataclass(frozen=True, slots=True)
class Admin:
    """The administrator's pages; `page` answers.

    ``shut_down`` begins the proxy's end and returns: it must not wait for this server's own end. ``pages`` are
    further ones, by path, with a description for the dashboard.
    """

    log: Log
    shut_down: Callable[[], Awaitable[None] | None]
    dump: ConfigDump = field(default_factory=ConfigDump)
    pages: dict[str, tuple[str, Handler]] = field(default_factory=dict)

    async def page(self, request: Request) -> Response:
        """The answer of port 15000."""
        match request.path:
            case "/":
                return self._dashboard()
            case "/config_dump":
                return text(self.dump.text(), content_type="application/json")
            case "/logging":
                return self._logging(request)
            case "/quitquitquit":
                return await self._quit(request)
            case "/debug/pprof/profile":
                return await profiles.cpu_page(request)
            case "/debug/pprof/heap":
                return profiles.heap_page(request)
        if request.path in self.pages:
            answer = self.pages[request.path][1](request)
            return await answer if inspect.isawaitable(answer) else answer
        return empty(HTTPStatus.NOT_FOUND)

    async def _quit(self, request: Request) -> Response:
        if request.method != "POST":
            return not_allowed("POST")
        begun = self.shut_down()
        if inspect.isawaitable(begun):
            await begun
        return text("shutdown now\n")

    def _logging(self, request: Request) -> Response:
        if request.method != "POST":
            return not_allowed("POST", f"Invalid HTTP method\n{USAGE}")
        level = request.query.get("level")
        try:
            self.log.set_levels(level, reset="reset" in request.query)
        except MeshError:
            return text(f"Invalid level provided: {level}\n{USAGE}", HTTPStatus.BAD_REQUEST)
        return text(f"current log level is {self.log.levels}\n")

    def _dashboard(self) -> Response:
        shown = [
            ("/config_dump", "what the proxy knows and is configured with"),
            ("/logging", "the log's levels (POST)"),
            ("/quitquitquit", "end the proxy (POST)"),
            ("/debug/pprof/profile", "where the proxy spends its time; seconds=1"),
            ("/debug/pprof/heap", "where the proxy's memory was taken, if that is traced"),
            *((path, description) for path, (description, _) in sorted(self.pages.items())),
        ]
        rows = "".join(
            f'<tr><td><a href="{html.escape(path)}">{html.escape(path)}</a></td><td>{html.escape(what)}</td></tr>\n'
            for path, what in shown
        )
        return text(
            f"<!doctype html>\n<title>ztunnel</title>\n<h1>ztunnel</h1>\n<table>\n{rows}</table>\n",
            content_type="text/html; charset=utf-8",
        )
