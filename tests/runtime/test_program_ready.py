"""``popen(ready=...)`` and `Program.wait_ready`: back once the program can be used, or with what was seen last."""

import asyncio
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

import pytest

from netwarren import Cluster, Pod, Program, all_of, http, log, port
from netwarren.errors import ConfigurationError, ProgramError
from netwarren.kernel.sockdiag import SocketInfo
from netwarren.runtime.ready import NotYet, Probe, until
from tests.runtime.conftest import eventually

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    tries = 0
    def do_GET(self):
        Handler.tries += 1
        good = self.path == "/good" or (self.path == "/third" and Handler.tries >= 3)
        self.send_response(200 if good else 503)
        self.end_headers()
server = http.server.HTTPServer((sys.argv[1] if len(sys.argv) > 1 else "", 80), Handler)
print("about to serve", flush=True)
server.serve_forever()
"""
UDP = "import socket, signal; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 53)); signal.pause()"


def server(*arguments: str) -> list[str]:
    return [sys.executable, "-c", SERVER, *arguments]


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_popen_returns_once_a_port_is_listened_on(pod: Pod) -> None:
    program = pod.popen(server(), ready=port(80))
    with pod.socket() as client:
        client.connect((pod.ip, 80))
    assert "ready" in program.describe()


def test_a_udp_port_is_a_port(pod: Pod) -> None:
    pod.popen(python(UDP), ready=port(53, "udp"))
    with pytest.raises(ProgramError, match="nothing listens on 53/tcp"):
        pod.popen(python(UDP.replace("53", "54")), ready=port(53), ready_timeout=0.05)


def test_nobody_connects_to_find_out(pod: Pod) -> None:
    script = "import socket; s = socket.create_server(('', 80)); s.settimeout(0.3); s.accept()"
    program = pod.popen(python(script), ready=port(80), may_exit=True)
    assert program.wait(30) == 1
    assert "TimeoutError" in program.output


def test_a_port_of_another_address_does_not_count(pod: Pod) -> None:
    pod.popen(server("127.0.0.1"), ready=port(80, address="127.0.0.1"))
    with pytest.raises(ProgramError, match=f"nothing listens on 80/tcp of {pod.ip}"):
        pod.programs[-1].wait_ready(port(80, address=pod.ip), 0.05)


def found(address: str, v6only: bool = False) -> SocketInfo:
    from ipaddress import ip_address

    return SocketInfo("tcp", ip_address(address), 80, ip_address("0.0.0.0"), 0, "listen", 1, 0, v6only, b"")


@pytest.mark.parametrize(
    ("bound", "asked", "reached"),
    [
        (found("0.0.0.0"), "10.0.1.2", True),
        (found("::"), "10.0.1.2", True),
        (found("::", v6only=True), "10.0.1.2", False),
        (found("::"), "fd00::1", True),
        (found("0.0.0.0"), "fd00::1", False),
        (found("10.0.1.2"), "10.0.1.2", True),
        (found("10.0.1.3"), "10.0.1.2", False),
        (found("10.0.1.3"), None, True),
    ],
)
def test_a_socket_counts_where_what_is_sent_to_the_address_gets_to_it(
    bound: SocketInfo, asked: str | None, reached: bool
) -> None:
    assert port(80, address=asked).matches(bound) is reached
    assert port(81, address=asked).matches(bound) is False


def test_a_port_that_another_program_has_does_not_count(pod: Pod) -> None:
    first = pod.popen(server(), ready=port(80))
    with pytest.raises(ProgramError, match=f"80/tcp is held by process {first.pid}"):
        pod.popen(["sleep", "1000"], ready=port(80), ready_timeout=0.05)


@pytest.mark.parametrize("ready", [port(80), http("/good"), http("/good", address="127.0.0.1")], ids=str)
def test_a_program_that_found_its_port_taken_is_told_with_what_it_wrote(pod: Pod, ready: Probe) -> None:
    first = pod.popen(server(), ready=port(80))
    with pytest.raises(ProgramError, match="has exited 1 too early") as raised:
        pod.popen(server(), ready=ready, ready_timeout=60)
    assert "Address already in use" in raised.value.output
    assert raised.value.returncode == 1
    assert first.state == "running"


def test_a_udp_port_that_is_taken_is_told_too(pod: Pod) -> None:
    pod.popen(python(UDP), ready=port(53, "udp"))
    with pytest.raises(ProgramError, match="has exited 1 too early"):
        pod.popen(python(UDP), ready=port(53, "udp"), ready_timeout=60)


def test_a_function_that_holds_does_not_hold_for_a_program_that_failed(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo no such option; exit 1"])
    assert program.wait(30) == 1
    with pytest.raises(ProgramError, match="last seen: that, but of a program that has ended"):
        program.wait_ready(lambda: True)


def test_a_line_of_a_program_that_failed_does_not_count(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "echo up; exit 1"])
    assert program.wait(30) == 1
    with pytest.raises(ProgramError, match="has exited 1 too early"):
        program.wait_ready(log("up"))


def test_a_port_that_code_in_the_pod_has_does_not_count(pod: Pod) -> None:
    def listen(ready: Callable[[], None], stop: threading.Event) -> None:
        with socket.create_server(("", 80)):
            ready()
            stop.wait()

    pod.start(listen)
    for probe in (port(80), http()):
        with pytest.raises(
            ProgramError, match="80/tcp is held by this process itself, which this program did"
        ):
            pod.popen(["sleep", "1000"], ready=probe, ready_timeout=0.05)


@pytest.mark.parametrize("ended", ["true", "(setsid sleep 1000 &)"])
def test_a_port_that_another_has_does_not_count_for_one_that_went_to_the_background(
    pod: Pod, ended: str
) -> None:
    first = pod.popen(server(), ready=port(80))
    program = pod.popen(["/bin/sh", "-c", ended], may_exit=True)
    assert program.wait(30) == 0
    with pytest.raises(ProgramError, match=f"80/tcp is held by process {first.pid}.*it is exited 0"):
        program.wait_ready(port(80), 0.05)


def test_the_daemon_of_another_program_does_not_count(pod: Pod) -> None:
    daemon = ["/bin/sh", "-c", '(setsid "$0" -c "$1" & )', sys.executable, SERVER]
    pod.popen(daemon, ready=port(80), may_exit=True).wait(30)
    # What is later than the daemon by the kernel's clock, which ticks a hundred times a second.
    ticks = os.sysconf("SC_CLK_TCK")
    begin = int(time.clock_gettime(time.CLOCK_BOOTTIME) * ticks)
    eventually(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) * ticks > begin + 1)
    with pytest.raises(ProgramError, match="80/tcp is held by process"):
        pod.popen(["true"], ready=port(80), ready_timeout=0.05, may_exit=True)


def test_a_port_that_a_child_of_the_program_has_counts(pod: Pod) -> None:
    pod.popen(["/bin/sh", "-c", 'setsid "$0" -c "$1" & wait', sys.executable, SERVER], ready=port(80))


def test_a_port_of_the_same_number_in_another_pod_does_not_count(pod: Pod, other: Pod) -> None:
    other.popen(server(), ready=port(80))
    with pytest.raises(ProgramError, match="nothing listens"):
        pod.popen(["sleep", "1000"], ready=port(80), ready_timeout=0.05)


def test_popen_returns_once_a_line_was_written(pod: Pod) -> None:
    script = (
        "import sys, signal; print('starting'); print('ready to accept', file=sys.stderr); signal.pause()"
    )
    program = pod.popen(python(script), ready=log("^ready to acc.pt$"))
    assert "ready to accept" in program.output


def test_a_line_is_asked_for_where_output_is_kept_only(pod: Pod) -> None:
    with (
        open("/dev/null", "w") as nowhere,
        pytest.raises(ConfigurationError, match="is not kept"),
    ):
        pod.popen(["sleep", "1000"], ready=log("x"), stdout=nowhere, stderr=nowhere)
    assert pod.programs[-1].state == "killed by SIGKILL"


@pytest.mark.parametrize("bound", ["", "127.0.0.1", "10.0.1.2"])
def test_popen_returns_once_http_is_answered(pod: Pod, bound: str) -> None:
    program = pod.popen(server(bound), ready=http("/third"))
    eventually(lambda: program.output.count("GET /third") == 3)


def test_the_last_answer_is_told(pod: Pod) -> None:
    with pytest.raises(ProgramError) as raised:
        pod.popen(server(), ready=http("/bad"), ready_timeout=0.5)
    error = raised.value
    assert "is not ready within 0.5 s: waited for GET /bad on port 80 to answer 200" in str(error)
    assert "last seen: status 503; it is running" in str(error)
    assert "about to serve" in error.output
    assert error.returncode is None
    assert pod.programs[-1].state == "killed by SIGKILL"


def test_a_refused_connection_is_told(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="connection refused: nothing listens on port 80"):
        pod.popen(["sleep", "1000"], ready=http(), ready_timeout=0.05)
    with pytest.raises(ProgramError, match="Connection refused"):
        pod.popen(["sleep", "1000"], ready=http(address="127.0.0.1"), ready_timeout=0.05)


def test_a_server_that_accepts_and_does_not_answer_is_told(pod: Pod) -> None:
    script = "import socket, signal; s = socket.create_server(('', 80)); signal.pause()"
    with pytest.raises(ProgramError, match="last seen: timed out"):
        pod.popen(python(script), ready=http(timeout=0.05), ready_timeout=1)


TRICKLE = """
import socket, sys, time
server = socket.create_server(("", 80))
while True:
    client, _address = server.accept()
    try:
        client.sendall(b"HTTP/1.1 200 OK\\r\\nX: ")
        while True:
            client.sendall(b"y")
            time.sleep(0.05)
    except OSError:
        pass
"""


def test_a_server_that_answers_without_end_has_the_time_of_one_try(pod: Pod) -> None:
    program = pod.popen(python(TRICKLE), ready=port(80))
    begin = time.monotonic()
    seen = http(timeout=0.2).look(program)
    assert time.monotonic() - begin < 5
    assert seen is not None
    assert seen.seen == "timed out"


@pytest.mark.parametrize(
    "script", [TRICKLE, "import socket, signal; s = socket.create_server(('', 80)); signal.pause()"]
)
def test_a_try_ends_with_the_wait_for_readiness(pod: Pod, script: str) -> None:
    program = pod.popen(python(script), ready=port(80))
    begin = time.monotonic()
    with pytest.raises(ProgramError, match=r"is not ready within 0\.1 s: .*last seen: timed out"):
        program.wait_ready(http(timeout=60), 0.1)
    assert time.monotonic() - begin < 30


def test_only_a_try_that_had_hardly_any_time_was_in_haste(pod: Pod) -> None:
    script = "import socket, signal; s = socket.create_server(('', 80)); signal.pause()"
    program = pod.popen(python(script), ready=port(80))
    for timeout, seconds, in_haste in ((60, 0.2, False), (60, 0.05, True), (0.01, 0.05, False)):
        seen = http(timeout=timeout).look(program, seconds)
        assert seen is not None
        assert (seen.seen, seen.in_haste) == ("timed out", in_haste)


def test_a_try_that_had_no_time_does_not_hide_what_was_seen_before(pod: Pod) -> None:
    seen = iter([NotYet("status 503"), NotYet("timed out", in_haste=True)])
    program = pod.popen(["sleep", "1000"])
    with pytest.raises(ProgramError, match="last seen: status 503"):
        until(
            program,
            lambda: next(seen),
            time.monotonic() + 0.001,
            "is late",
            "something",
            by_output=False,
            given_up=lambda: False,
        )


@pytest.mark.usefixtures("_netwarren_sandbox")
def test_http_works_in_a_cluster_of_ipv6() -> None:
    web = [sys.executable, "-m", "http.server", "--bind", "::", "80"]
    with Cluster(families="ipv6") as cluster:
        assert cluster.add_pod("pod").popen(web, ready=http("/")).state == "running"


def test_a_function_is_called_in_the_pod_until_it_is_true(pod: Pod) -> None:
    seen: list[int] = []

    def connects(program: Program) -> bool:
        seen.append(program.pid)
        socket.create_connection(("127.0.0.1", 80)).close()  # refused is not yet
        return True

    program = pod.popen(server(), ready=connects)
    assert set(seen) == {program.pid}


def test_a_function_without_parameters_is_one_too(pod: Pod) -> None:
    answers = iter([False, None, 1])
    pod.popen(["sleep", "1000"], ready=lambda: next(answers))
    assert list(answers) == []


def test_a_function_that_has_to_be_awaited_is_refused(pod: Pod, recwarn: pytest.WarningsRecorder) -> None:
    async def asks() -> bool:
        return False

    with pytest.raises(
        ConfigurationError, match=r"ready=asks returns something to await.*give a plain function"
    ):
        pod.popen(["sleep", "1000"], ready=asks)
    assert pod.programs[-1].state == "killed by SIGKILL"
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


def test_what_a_function_raised_last_is_told(pod: Pod) -> None:
    def broken() -> bool:
        raise ValueError("no such table")

    with pytest.raises(ProgramError, match=r"waited for broken\(\) .*ValueError: no such table") as raised:
        pod.popen(["sleep", "1000"], ready=broken, ready_timeout=0.05)
    assert isinstance(raised.value.__cause__, ValueError)


def test_all_of_several_are_waited_for(pod: Pod) -> None:
    program = pod.popen(server(), ready=all_of(log("about to serve"), all_of(port(80)), http("/good")))
    assert "GET /good" in program.output or program.state == "running"
    with pytest.raises(ProgramError, match="waited for GET /bad"):
        program.wait_ready(all_of(log("about to serve"), http("/bad")), 0.1)


def test_a_program_that_ends_before_is_told_at_once(pod: Pod) -> None:
    begin = time.monotonic()
    with pytest.raises(ProgramError, match="has exited 3 too early: waited for a socket") as raised:
        pod.popen(["/bin/sh", "-c", "echo no such database; exit 3"], ready=port(80), ready_timeout=60)
    assert time.monotonic() - begin < 30
    assert raised.value.returncode == 3
    assert raised.value.output == "no such database\n"


def test_a_line_written_just_before_the_end_counts_as_written(pod: Pod) -> None:
    for _time in range(10):
        pod.popen(["echo", "up"], ready=log("up"), may_exit=True)


def test_a_program_that_goes_to_the_background_says_what_to_do(pod: Pod) -> None:
    with pytest.raises(ProgramError, match="stay in the foreground, or start it with may_exit=True"):
        pod.popen(["true"], ready=port(80))


def test_a_daemon_may_be_waited_for(pod: Pod) -> None:
    command = ["/bin/sh", "-c", '(setsid "$0" -c "$1" & )', sys.executable, SERVER]
    program = pod.popen(command, ready=all_of(port(80), http("/good")), may_exit=True)
    assert program.wait(30) == 0


def test_waiting_may_come_later(pod: Pod) -> None:
    program = pod.popen(server())
    program.wait_ready(http("/good"))
    with pytest.raises(ProgramError, match="status 503"):
        program.wait_ready(http("/bad"), 0.2)
    assert program.state == "running"  # it is the caller's to end


def test_what_is_no_probe_is_refused(pod: Pod) -> None:
    wrong: list[Callable[[], object]] = [
        lambda: port(0),
        lambda: port("80"),  # type: ignore[arg-type]
        lambda: http(port="80"),  # type: ignore[arg-type]
        lambda: port(80, "sctp"),
        lambda: port(80, address="localhost"),
        lambda: log("("),
        lambda: all_of(80),  # type: ignore[arg-type]
        lambda: pod.popen(["sleep", "1000"], ready=80),  # type: ignore[arg-type]
    ]
    for make in wrong:
        with pytest.raises(ConfigurationError):
            make()


def test_a_thread_in_the_hosts_network_can_wait_as_well(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(server())
    thread = threading.Thread(target=program.wait_ready, args=(all_of(http("/good"), lambda: True),))
    thread.start()
    thread.join(30)
    assert "ready" in program.describe()


def test_the_end_of_the_pod_ends_the_waiting(cluster: Cluster, pod: Pod) -> None:
    program = pod.popen(["sleep", "1000"])
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            program.wait_ready(port(80), 60)
        except ProgramError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    cluster.remove_pod(pod)
    thread.join(30)
    assert "killed by SIGKILL too early" in str(failures[0])


async def test_a_task_waits_without_holding_the_loop(pod: Pod) -> None:
    async with pod:
        listening = await asyncio.start_server(lambda _reader, writer: writer.close(), port=81)
    script = f"import socket; socket.create_connection(({pod.ip!r}, 81)).recv(1);" + SERVER
    program = pod.popen(python(script))  # which needs the loop to get ready
    async with listening:
        await program.wait_ready_async(http("/good"))
    assert program.state == "running"


async def test_a_task_is_told_the_same(pod: Pod) -> None:
    program = pod.popen(["/bin/sh", "-c", "sleep 0.05; exit 3"])
    with pytest.raises(ProgramError, match="has exited 3 too early"):
        await program.wait_ready_async(port(80))


async def test_a_task_that_waits_can_be_cancelled(pod: Pod) -> None:
    program = pod.popen(["sleep", "1000"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(program.wait_ready_async(port(80), 60), 0.05)
    assert program.state == "running"


def test_a_task_of_trio_waits_as_well(pod: Pod) -> None:
    trio = pytest.importorskip("trio")
    program = pod.popen(server())

    async def main() -> None:
        await program.wait_ready_async(http("/good"))
        with trio.move_on_after(0.05):
            await program.wait_for_output_async("never")

    trio.run(main)
