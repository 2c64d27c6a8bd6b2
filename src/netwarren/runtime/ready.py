"""When a program is ready: what to look at, and waiting for it.

Rules: a probe is data with one verb, `Probe.look`, which says what it has seen; lines of output wake who waits
for them, everything else is looked at in small steps; nothing connects that was not asked to.
Does not belong here: what a program does once it is ready.
"""

import inspect
import ipaddress
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from netwarren.errors import ConfigurationError, NetwarrenError
from netwarren.kernel import process, process_tree, sockdiag
from netwarren.kernel.address import IPAddress
from netwarren.kernel.netlink import NETLINK_SOCK_DIAG, Netlink
from netwarren.kernel.sockdiag import SocketInfo
from netwarren.runtime import ferry

if TYPE_CHECKING:
    from netwarren.runtime.program import Program

T = TypeVar("T")

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05
_FAIR_TRY = 0.1  # a server that does not answer in this time has something to do with it
_PROTOCOLS = ("tcp", "udp")


@dataclass(frozen=True)
class NotYet:
    """What a look has ``seen`` instead of readiness; ``cause`` is the exception where one told.

    ``in_haste``: there was less time than the look should have, so that what was seen before says more.
    """

    seen: str
    cause: Exception | None = None
    in_haste: bool = False


class Probe:
    """Something that holds once a program is ready; ``str`` of it goes on with "waited for ..."."""

    by_output = False
    """Whether only new output can change what a look sees."""

    def look(self, program: "Program", seconds: float = math.inf) -> NotYet | None:
        """None if it holds; ``seconds`` are left to find out."""
        raise NotImplementedError


@dataclass(frozen=True)
class Port(Probe):
    """See `port`."""

    number: int
    protocol: str
    address: IPAddress | None

    def __str__(self) -> str:
        return f"a socket that listens on {self._name()}"

    def _name(self) -> str:
        on = f" of {self.address}" if self.address is not None else ""
        return f"{self.number}/{self.protocol}{on}"

    def look(self, program: "Program", seconds: float = math.inf) -> NotYet | None:
        """As `Probe.look`."""
        found = self.sockets(program)
        return self.taken(program, found) if found else NotYet(f"nothing listens on {self._name()}")

    def taken(self, program: "Program", found: Iterable[SocketInfo]) -> NotYet | None:
        """What to say where it is others that have the sockets ``found``."""
        holder = _held_elsewhere(program, {each.inode for each in found})
        if not holder:
            return None
        who = "this process itself" if holder == os.getpid() else f"process {holder}"
        return NotYet(f"{self._name()} is held by {who}, which this program did not start")

    def sockets(self, program: "Program") -> list[SocketInfo]:
        """The sockets in the program's namespace that it is about."""
        machine = program._machine

        def read() -> list[SocketInfo]:
            with machine._stepped(), Netlink(machine.label, NETLINK_SOCK_DIAG) as netlink:
                return sockdiag.sockets(netlink)

        return [each for each in ferry.roam(read) if self.matches(each)]

    def matches(self, found: SocketInfo) -> bool:
        """Whether what is sent to the port, at the address if there is one, gets to this socket."""
        if (found.protocol, found.local_port) != (self.protocol, self.number):
            return False
        if self.address is None or found.local_address == self.address:
            return True
        if not found.local_address.is_unspecified:
            return False
        return found.local_address.version == self.address.version or (
            self.address.version == 4 and not found.v6only
        )


@dataclass(frozen=True)
class Log(Probe):
    """See `log`."""

    pattern: "re.Pattern[str]"

    by_output = True

    def __str__(self) -> str:
        return f"a line of output that matches {self.pattern.pattern!r}"

    def look(self, program: "Program", seconds: float = math.inf) -> NotYet | None:
        """As `Probe.look`."""
        return None if program._search(self.pattern) else NotYet("no such line")


@dataclass(frozen=True)
class Http(Probe):
    """See `http`."""

    path: str
    port: Port
    status: int
    timeout: float

    def __str__(self) -> str:
        return f"GET {self.path} on port {self.port.number} to answer {self.status}"

    def look(self, program: "Program", seconds: float = math.inf) -> NotYet | None:
        """As `Probe.look`."""
        address, found = self.port.address, self.port.sockets(program)
        if address is None:
            if not found:
                return NotYet(f"connection refused: nothing listens on port {self.port.number}")
            address = reachable(found[0])
        if program._machine._has(address) and (taken := self.port.taken(program, found)) is not None:
            return taken
        from netwarren.runtime import http_get

        try:
            asking = program._machine.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
            status = http_get.status(asking, address, self.port.number, self.path, min(self.timeout, seconds))
        except http_get.FAILURES as error:
            return NotYet(
                str(error) or type(error).__name__, error, in_haste=seconds < min(self.timeout, _FAIR_TRY)
            )
        return None if status == self.status else NotYet(f"status {status}")


@dataclass(frozen=True)
class Call(Probe):
    """A callable of the user's: true means ready, and an exception not yet."""

    function: Callable[..., object]

    def __str__(self) -> str:
        return f"{getattr(self.function, '__name__', repr(self.function))}() to be true"

    def look(self, program: "Program", seconds: float = math.inf) -> NotYet | None:
        """As `Probe.look`."""
        arguments = (program,) if _takes_one(self.function) else ()
        try:
            value = program._machine.run(self.function, *arguments)
        except Exception as error:
            return NotYet(f"{type(error).__name__}: {error}", error)
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()  # else it would warn of not having been awaited
            raise ConfigurationError(
                f"ready={getattr(self.function, '__name__', self.function)} returns something to await, which is true at "
                "once; give a plain function, or await it yourself after popen"
            )
        return None if value else NotYet(f"it returned {value!r}")


@dataclass(frozen=True)
class AllOf(Probe):
    """See `all_of`."""

    probes: tuple[Probe, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.probes))

    def look(self, program: "Program", seconds: float = math.inf) -> NotYet | None:
        """As `Probe.look`."""
        return next((seen for each in self.probes if (seen := each.look(program, seconds)) is not None), None)


Ready = Probe | Callable[..., object]
"""What users may give: a probe, or a callable."""


def port(number: int, protocol: str = "tcp", *, address: str | None = None) -> Port:
    """A probe: the program listens on a port, in its pod; ``ready=port(80)``, ``port(53, "udp")``.

    Read from the kernel (sock_diag(7)); no connection is made. With ``address``, what is sent there must get to
    the socket: it is bound to that address or to all. A socket that a process has which the program did not
    start does not count. Raises `ConfigurationError` where that is no port, protocol or address.
    """
    if not _is_port(number):
        raise ConfigurationError(f"port({number!r}) is no port; ports are 1 to 65535")
    if protocol not in _PROTOCOLS:
        raise ConfigurationError(f"port({number}, {protocol!r}): the protocol is 'tcp' or 'udp'")
    try:
        return Port(number, protocol, ipaddress.ip_address(address) if address is not None else None)
    except ValueError:
        raise ConfigurationError(
            f"port({number}, address={address!r}): that is no IPv4 or IPv6 address"
        ) from None


def _is_port(number: object) -> bool:
    return isinstance(number, int) and 0 < number < 65536


def log(pattern: "str | re.Pattern[str]") -> Log:
    """A probe: a line of the program's output matches a regular expression; ``ready=log("ready to accept")``.

    Searched for as `re.search` does, ``^`` and ``$`` being those of each line, in standard output and error since
    the program's start. Raises `ConfigurationError` where that is no regular expression.
    """
    return Log(compiled(pattern))


def http(
    path: str = "/", *, port: int = 80, status: int = 200, address: str | None = None, timeout: float = 1.0
) -> Http:
    """A probe: an HTTP GET of ``path`` from inside the pod is answered with ``status``, by the program (see `port`).

    It goes to ``address``, or else to where the listening socket is bound (loopback, if it is bound to all);
    each try has ``timeout`` seconds, from the connection to the end of the headers, as in a Kubernetes `httpGet`
    probe, and no longer than the wait for readiness.
    Raises `ConfigurationError` where that is no port or address.
    """
    return Http(path, globals()["port"](port, address=address), status, timeout)


def all_of(*probes: Ready) -> AllOf:
    """A probe: all of ``probes`` hold; they are waited for one after another, in this order."""
    return AllOf(tuple(map(as_probe, probes)))


def as_probe(ready: Ready) -> Probe:
    """What users may give, as a probe; raises `ConfigurationError` for anything else."""
    if isinstance(ready, Probe):
        return ready
    if callable(ready):
        return Call(ready)
    raise ConfigurationError(
        f"ready={ready!r} means nothing; it is port(...), log(...), http(...), all_of(...) or a function"
    )


def compiled(pattern: "str | re.Pattern[str]") -> "re.Pattern[str]":
    """A regular expression, of whose lines ``^`` and ``$`` speak; raises `ConfigurationError`."""
    if not isinstance(pattern, str | re.Pattern):
        raise ConfigurationError(
            f"{pattern!r} is no regular expression: it is a text, or what re.compile returns"
        )
    try:
        return re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
    except re.error as error:
        raise ConfigurationError(f"{pattern!r} is no regular expression: {error}") from None


# --- waiting --------------------------------------------------------------------------------------


def wait(program: "Program", ready: Ready, seconds: float, given_up: Callable[[], bool]) -> None:
    """Wait until ``ready`` holds; see `Program.wait_ready`."""
    deadline = time.monotonic() + seconds
    missed = f"is not ready within {seconds:g} s"
    for probe in _one_by_one(as_probe(ready)):
        look = partial(_look, probe, program, deadline)
        until(program, look, deadline, missed, str(probe), by_output=probe.by_output, given_up=given_up)


def _look(probe: Probe, program: "Program", deadline: float) -> NotYet | None:
    """`Probe.look`, of which nothing holds for a program that is not there to be used any more."""
    seen = probe.look(program, max(deadline - time.monotonic(), _FIRST_PAUSE))
    if seen is None and probe.by_output:
        # A line is the program's own. One that ends well after it is for `Program._untold`.
        lost = program._process.poll() not in (None, 0) and not program._may_exit
    else:
        lost = program._has_failed()
    return NotYet("that, but of a program that has ended") if seen is None and lost else seen


def _one_by_one(probe: Probe) -> Iterator[Probe]:
    if isinstance(probe, AllOf):
        for each in probe.probes:
            yield from _one_by_one(each)
    else:
        yield probe


def until(
    program: "Program",
    look: Callable[[], NotYet | T],
    deadline: float,
    missed: str,
    waited: str,
    *,
    by_output: bool,
    given_up: Callable[[], bool],
) -> T:
    """Look until there is something else than `NotYet`, and return that.

    Raises `ProgramError` where the program ends before, and at the deadline, with what was ``missed`` and
    ``waited`` for. Raises it, too, at the next step where ``given_up`` says that the caller is not there any more.
    """
    pause = _FIRST_PAUSE
    last: NotYet | None = None
    while True:
        news = program._news.count
        # Before the look, which then sees all that it wrote.
        ended = program._has_failed() or (by_output and program._is_silent())
        try:
            seen = look()
        except (NetwarrenError, OSError) as error:
            if not program._machine.gone:
                raise
            seen = NotYet("its pod is gone", error)
        if not isinstance(seen, NotYet):
            return seen
        if last is None or not seen.in_haste:
            last = seen
        told = f"waited for {waited}; last seen: {last.seen}"
        if ended:
            raise program._error(f"{program._past()} too early: {told}{_daemon_hint(program)}")
        left = deadline - time.monotonic()
        if left <= 0 or given_up():
            raise program._error(f"{missed}: {told}; it is {program._condition()}") from last.cause
        pause = min(pause * 1.5, _LONGEST_PAUSE)
        if by_output:
            program._news.wait(news, min(_LONGEST_PAUSE, left))
        else:
            time.sleep(min(pause, left))


def _daemon_hint(program: "Program") -> str:
    if program._process.returncode != 0 or program._may_exit:
        return ""
    return "; if it goes to the background by itself, have it stay in the foreground, or start it with may_exit=True"


def reachable(found: SocketInfo) -> IPAddress:
    """An address at which a listening socket is reached from its own namespace."""
    address = found.local_address
    if not address.is_unspecified:
        return address
    # One for both families is asked by IPv4, since IPv6 may be turned off.
    return ipaddress.ip_address("::1" if found.v6only else "127.0.0.1")


def _held_elsewhere(program: "Program", inodes: set[int]) -> int:
    """The process that has one of these sockets, where none of the program's has; 0 where one has, or nobody tells."""
    mine = program.pids
    held, complete = process_tree.socket_inodes(mine)
    if held & inodes:
        return 0
    standing = process.standing_in({program._machine.inode})
    # Who does not let us look may have been given one of ours. One that is just ending does not let us, either.
    if complete:
        standing = [os.getpid(), *standing]
    holders = [pid for pid in standing if pid not in mine and process_tree.socket_inodes([pid])[0] & inodes]
    if program._process.poll() is not None and any(_may_be_daemon(program, holders)):
        return 0
    return holders[0] if holders else 0


def _may_be_daemon(program: "Program", pids: Iterable[int]) -> Iterator[bool]:
    """Of each process, whether the program may have left it behind: a daemon has left its tree."""
    table = process_tree.everybody()
    others = {each.pid for other in program._machine.programs for each in other._tree.members(table)}
    return (pid in table and pid not in others and table[pid].start >= program._tree.began for pid in pids)


def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether it must be called with something."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in by_position and each.default is each.empty for each in parameters)
