"""Sockets made in pods: where they are, what they carry, and that the thread which made them is home again."""

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from netwarren import ClosedError, Cluster, KernelError, SteppingError
from netwarren.cluster.members import Pod
from netwarren.errors import MeshError
from netwarren.kernel import netns, syscall, sysctl
from netwarren.kernel.syscall import capget, capset
from netwarren.mesh.inpod.sockets import PodSockets, check_capabilities, is_transparent, socket_address
from netwarren.runtime import standing
from tests.mesh.inpod.listening import SECONDS, at, outcome


@pytest.fixture
def pod() -> Iterator[Pod]:
    with Cluster(families="dual") as cluster:
        yield cluster.add_pod("application")


@pytest.fixture
def pod_sockets(pod: Pod) -> Iterator[PodSockets]:
    with PodSockets(pod.namespace_fd, pod.label) as made:
        yield made


def on_a_thread_of_its_own(function: Callable[[], object]) -> None:
    """Threads that are lost are not used again; what the function raises is raised here."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result(SECONDS)


def without_network_capabilities() -> None:
    """From now on, this thread may enter pods and nothing more."""
    standing.live_in(standing.home())
    effective, permitted, inheritable = capget()
    capset(effective & ~(1 << 12 | 1 << 13), permitted, inheritable)  # CAP_NET_ADMIN, CAP_NET_RAW


def mark(made: socket.socket) -> int:
    return made.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)


def kinds(pods: PodSockets) -> list[socket.socket]:
    return [
        pods.listen(at("::", 15001)),
        pods.listen(at("127.0.0.1", 15053)),
        pods.stream(socket.AF_INET),
        pods.stream(socket.AF_INET6, source=ip_address("fd00::1")),
        pods.datagram(None, socket.AF_INET6),
        pods.datagram(at("::1", 15053), socket.AF_INET6),
    ]


def test_every_socket_is_marked_and_waits_for_nobody(pod_sockets: PodSockets) -> None:
    for made in kinds(pod_sockets):
        with made:
            assert mark(made) == 0x539
            assert made.gettimeout() == 0
            assert not os.get_inheritable(made.fileno())


def test_without_a_mark_there_is_none(pod: Pod) -> None:
    with PodSockets(pod.namespace_fd, mark=None) as pods:
        for made in kinds(pods):
            with made:
                assert mark(made) == 0


def test_tcp_sockets_do_not_wait_for_more_and_ask_after_their_peers(pod_sockets: PodSockets) -> None:
    with pod_sockets.listen(at("::", 15001)) as listening, pod_sockets.stream(socket.AF_INET) as stream:
        for made in (listening, stream):
            options = (socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [made.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [1, 180, 180, 9]
            assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_an_accepted_socket_has_the_listeners_mark(pod: Pod, pod_sockets: PodSockets) -> None:
    with pod_sockets.listen(at("::", 15001)) as listening, pod.socket() as near:
        listening.settimeout(SECONDS)
        assert outcome(near, pod.ip, 15001) == "connected"
        accepted, _ = listening.accept()
        with accepted:
            assert mark(accepted) == 0x539


def test_only_what_is_bound_may_be_bound_by_another_proxy_too(pod_sockets: PodSockets) -> None:
    shared = [
        bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)) for each in _closed(kinds(pod_sockets))
    ]
    assert shared == [True, True, False, False, False, True]


def test_two_proxies_listen_at_one_port(pod: Pod, pod_sockets: PodSockets) -> None:
    with PodSockets(pod.namespace_fd) as other:
        with pod_sockets.listen(at("::", 15001)) as one, other.listen(at("::", 15001)) as two:
            assert one.getsockname()[:2] == two.getsockname()[:2] == ("::", 15001)
        with other.datagram(at("127.0.0.1", 15053), socket.AF_INET) as one:
            assert one.getsockname() == ("127.0.0.1", 15053)


def test_a_port_an_application_has_is_told_by_name(pod: Pod, pod_sockets: PodSockets) -> None:
    with pod.socket() as application:
        application.bind(("0.0.0.0", 15008))
        application.listen()
        with pytest.raises(
            KernelError, match=r"listen at \[::\]:15008 in pod 'application': EADDRINUSE"
        ) as caught:
            pod_sockets.listen(at("::", 15008))
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(("asked", "had"), [(True, True), (None, True), (False, False)])
@pytest.mark.parametrize("address", ["::", "0.0.0.0", "::1"])
def test_a_listener_is_transparent_where_that_was_asked_for(
    pod_sockets: PodSockets, asked: bool | None, had: bool, address: str
) -> None:
    with pod_sockets.listen(at(address, 15006), transparent=asked) as made:
        assert is_transparent(made) is had


def test_transparency_that_cannot_be_had_matters_where_it_must_be(pod: Pod) -> None:
    def listen() -> None:
        without_network_capabilities()
        with PodSockets(pod.namespace_fd, mark=None) as pods:
            with pods.listen(at("::", 15006), transparent=None) as made:
                assert not is_transparent(made)
            with pytest.raises(KernelError, match="EPERM"):
                pods.listen(at("::", 15006), transparent=True)

    on_a_thread_of_its_own(listen)


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
def test_a_stream_speaks_from_an_address_that_is_not_the_pods(pod_sockets: PodSockets, source: str) -> None:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with pod_sockets.stream(family, source=ip_address(source)) as made:
        assert made.getsockname()[0] == source
        assert made.getsockname()[1] > 0


def test_a_source_that_cannot_be_had_is_a_warning(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    def speak() -> None:
        without_network_capabilities()
        with (
            PodSockets(pod.namespace_fd, pod.label, mark=None) as pods,
            pods.stream(socket.AF_INET, source=ip_address("192.0.2.7")) as made,
        ):
            assert made.getsockname() == ("0.0.0.0", 0)

    on_a_thread_of_its_own(speak)
    assert "in pod 'application', cannot speak from 192.0.2.7: Operation not permitted" in caplog.text


def test_ipv6_is_what_lo_in_the_pod_has(pod: Pod, pod_sockets: PodSockets) -> None:
    assert pod_sockets.ipv6_enabled
    with PodSockets(pod.namespace_fd, ipv6=False) as without:
        assert not without.ipv6_enabled
    with pod:
        sysctl.write("net.ipv6.conf.lo.disable_ipv6", 1)
    assert not pod_sockets.ipv6_enabled


def test_the_thread_is_where_it_was(pod_sockets: PodSockets) -> None:
    before = netns.inode_of()
    for made in kinds(pod_sockets):
        made.close()
    with pytest.raises(KernelError):
        pod_sockets.listen(at("192.0.2.1", 80), transparent=False)
    assert netns.inode_of() == before


def test_from_inside_another_pod_it_is_made_in_its_own(pod: Pod, pod_sockets: PodSockets) -> None:
    other = pod.node.add_pod("other")
    with other:
        with pod_sockets.listen(at(pod.ip, 15001)) as made:
            assert made.getsockname()[0] == pod.ip
        assert netns.inode_of() == other.inode


def test_on_a_loop_the_next_callback_runs_at_home(pod: Pod) -> None:
    import asyncio

    async def make() -> list[int]:
        seen = [netns.inode_of()]
        loop = asyncio.get_running_loop()
        with PodSockets(pod.namespace_fd) as pods:
            loop.call_soon(lambda: seen.append(netns.inode_of()))
            with pods.stream(socket.AF_INET):
                seen.append(netns.inode_of())
                await asyncio.sleep(0)
        return seen

    def run() -> None:
        standing.live_in(standing.home())
        assert set(asyncio.run(make())) == {standing.home().inode}

    on_a_thread_of_its_own(run)


def test_a_thread_that_cannot_be_brought_home_is_not_used_again(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        standing.live_in(standing.home())
        home = standing.home().fd
        real = syscall.setns

        def refused(fd: int, flags: int) -> None:
            if fd == home and threading.current_thread() is mine:
                raise OSError(errno.EPERM, "refused")
            real(fd, flags)

        mine = threading.current_thread()
        monkeypatch.setattr(standing, "setns", refused)
        with PodSockets(pod.namespace_fd) as pods:
            with pytest.raises(SteppingError, match="is lost"):
                pods.stream(socket.AF_INET)
            monkeypatch.undo()
            with pytest.raises(SteppingError, match="use another thread"):
                pods.stream(socket.AF_INET)

    on_a_thread_of_its_own(lose)


def test_sockets_outlive_the_maker_and_the_namespace_outlives_the_descriptor(pod: Pod) -> None:
    mine = os.dup(pod.namespace_fd)
    pods = PodSockets(mine, pod.label)
    os.close(mine)
    made = pods.listen(at(pod.ip, 15001))
    pods.close()
    pods.close()
    with made, pod.socket() as near:
        assert outcome(near, pod.ip, 15001) == "connected"
    with pytest.raises(ClosedError, match="pod 'application' was let go"):
        pods.stream(socket.AF_INET)


def test_what_is_no_network_namespace_is_told() -> None:
    with (
        socket.socket() as wrong,
        PodSockets(wrong.fileno(), "the pod 'wrong'") as pods,
        pytest.raises(SteppingError, match="cannot step into the pod 'wrong'"),
    ):
        pods.stream(socket.AF_INET)


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (("::ffff:10.0.1.2", 80, 0, 0), at("10.0.1.2", 80)),
        (("10.0.1.2", 80), at("10.0.1.2", 80)),
        (("fd00::2", 80, 0, 0), at("fd00::2", 80)),
        (("fe80::1%eth0", 80, 0, 2), at("fe80::1", 80)),
    ],
)
def test_an_address_is_told_unwrapped(told: tuple[object, ...], meant: object) -> None:
    assert socket_address(told) == meant


# --- what is possible -------------------------------------------------------------------------------


def test_in_the_sandbox_all_is_possible() -> None:
    check_capabilities()
    on_a_thread_of_its_own(lambda: check_capabilities(mark=None, transparent=False))


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        (1 << 21, "enter pods"),  # CAP_SYS_ADMIN
        (1 << 12 | 1 << 13, r"mark its packets \(SO_MARK"),  # CAP_NET_ADMIN, CAP_NET_RAW
    ],
)
def test_a_lacking_capability_is_told_in_one_error(missing: int, what: str) -> None:
    def check() -> None:
        standing.live_in(standing.home())
        effective, permitted, inheritable = capget()
        capset(effective & ~missing, permitted, inheritable)
        with pytest.raises(MeshError, match=what + r".*CAP_SYS_ADMIN and CAP_NET_ADMIN"):
            check_capabilities()

    on_a_thread_of_its_own(check)


def _closed(made: list[socket.socket]) -> Iterator[socket.socket]:
    for each in made:
        with each:
            yield each
