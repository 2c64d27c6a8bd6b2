"""Redirection by packets: who is caught and who is not, in pods of a cluster; and nothing left afterwards."""

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface

import pytest

from netwarren import Cluster, KernelError
from netwarren.cluster.members import Pod
from netwarren.kernel import address as kernel_address
from netwarren.kernel import nft_expressions, nftables, route, rule, sysctl
from netwarren.kernel.netlink import NETLINK_NETFILTER, Netlink, Request
from netwarren.mesh.inpod import redirection
from netwarren.mesh.inpod.sockets import PodSockets, original_destination, socket_address
from tests.mesh.inpod.listening import SHORT, at, connecting, family, listening, outcome, proxy

FAMILIES = [0, 1]  # of a dual cluster's addresses: IPv4, IPv6


@pytest.fixture
def dual() -> Iterator[Cluster]:
    with Cluster(families="dual") as cluster:
        cluster.add_pod("client")
        cluster.add_pod("server")
        yield cluster


@pytest.fixture
def client(dual: Cluster) -> Pod:
    return dual.pod("client")


@pytest.fixture
def server(dual: Cluster) -> Pod:
    return dual.pod("server")


# --- out of a pod -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", FAMILIES)
def test_what_a_pod_opens_goes_to_the_proxy_which_knows_where_it_was_for(
    client: Pod, server: Pod, which: int
) -> None:
    redirection.apply(client.namespace_fd, client.label)
    with proxy(client, 15001) as (outbound,), connecting(client, server.ips[which], 8080) as near:
        accepted, peer = outbound.accept()
        with accepted:
            assert original_destination(accepted) == at(server.ips[which], 8080)
            assert socket_address(peer) == at(client.ips[which], near.getsockname()[1])


@pytest.mark.parametrize("which", FAMILIES)
def test_what_the_proxy_opens_goes_where_it_is_for(client: Pod, server: Pod, which: int) -> None:
    redirection.apply(client.namespace_fd, client.label)
    with (
        listening(server, server.ips[which], 8080) as application,
        PodSockets(client.namespace_fd) as pods,
        pods.stream(family(server.ips[which])) as marked,
    ):
        assert outcome(marked, server.ips[which], 8080) == "connected"
        accepted, peer = application.accept()
        accepted.close()
        assert peer[0] == client.ips[which]


@pytest.mark.parametrize("which", FAMILIES)
def test_without_a_proxy_a_redirected_pod_is_refused(client: Pod, server: Pod, which: int) -> None:
    redirection.apply(client.namespace_fd, client.label)
    with listening(server, server.ips[which], 8080), client.socket(family(server.ips[which])) as near:
        assert outcome(near, server.ips[which], 8080) == "ECONNREFUSED"


@pytest.mark.parametrize("own", ["127.0.0.1", "::1", "first", "second"])
def test_a_pod_that_calls_itself_is_not_redirected(client: Pod, own: str) -> None:
    address = {"first": client.ips[0], "second": client.ips[1]}.get(own, own)
    redirection.apply(client.namespace_fd, client.label)
    with (
        proxy(client, 15001, 15006),
        listening(client, address, 8080) as application,
        connecting(client, address, 8080),
    ):
        accepted, peer = application.accept()
        with accepted:
            assert peer[0] == address
            assert original_destination(accepted) == at(address, 8080)


def test_a_socket_nobody_redirected_was_meant_for_its_own_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        assert original_destination(made) == socket_address(made.getsockname())


def test_a_probes_address_is_called_directly(client: Pod, server: Pod) -> None:
    probes = "169.254.7.127"
    _give(server, probes)
    redirection.apply(client.namespace_fd, client.label)
    with (
        proxy(client, 15001),
        listening(server, probes, 8080) as application,
        connecting(client, probes, 8080),
    ):
        application.accept()[0].close()


# --- into a pod -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", FAMILIES)
@pytest.mark.parametrize("port", [8080, 15001, 15006, 15053])
def test_what_is_opened_to_a_pod_goes_to_the_proxy(client: Pod, server: Pod, which: int, port: int) -> None:
    redirection.apply(server.namespace_fd, server.label)
    with proxy(server, 15001, 15006) as (_, inbound), connecting(client, server.ips[which], port) as near:
        accepted, peer = inbound.accept()
        with accepted:
            assert original_destination(accepted) == at(server.ips[which], port)
            assert socket_address(peer) == at(client.ips[which], near.getsockname()[1])


@pytest.mark.parametrize("which", FAMILIES)
def test_port_15008_is_reached_as_it_is(client: Pod, server: Pod, which: int) -> None:
    redirection.apply(server.namespace_fd, server.label)
    with (
        proxy(server, 15006, 15008) as (_, tunnels),
        connecting(client, server.ips[which], 15008),
    ):
        accepted, _ = tunnels.accept()
        with accepted:
            assert socket_address(accepted.getsockname()) == at(server.ips[which], 15008)


@pytest.mark.parametrize("which", FAMILIES)
def test_the_application_sees_the_clients_address_and_its_answers_go_by_the_proxy(
    client: Pod, server: Pod, which: int
) -> None:
    redirection.apply(server.namespace_fd, server.label)
    mine, theirs = server.ips[which], client.ips[which]
    with (
        PodSockets(server.namespace_fd) as pods,
        listening(server, mine, 8080) as application,
        pods.stream(family(mine), source=ip_address(theirs)) as spoofing,
    ):
        assert outcome(spoofing, mine, 8080) == "connected"
        accepted, peer = application.accept()
        with accepted:
            assert peer[0] == theirs
            accepted.sendall(b"to whom?")
            assert spoofing.recv(100) == b"to whom?"


@pytest.mark.parametrize("which", FAMILIES)
def test_without_the_policy_rule_those_answers_leave_the_pod(client: Pod, server: Pod, which: int) -> None:
    redirection.apply(server.namespace_fd, server.label)
    mine = server.ips[which]
    with server, Netlink("server") as netlink:
        netlink.commit([
            rule.delete_rule(
                family=family(mine),
                priority=redirection.PRIORITY,
                fwmark=0x111,
                fwmask=0xFFF,
                table=redirection.ROUTES,
            )
        ])  # fmt: skip
    with (
        PodSockets(server.namespace_fd) as pods,
        listening(server, mine, 8080),
        pods.stream(family(mine), source=ip_address(client.ips[which])) as spoofing,
    ):
        assert outcome(spoofing, mine, 8080, SHORT) == "ETIMEDOUT"


def test_a_probe_is_not_redirected(client: Pod, server: Pod) -> None:
    probes = "169.254.7.127"
    _give(client, probes)
    redirection.apply(server.namespace_fd, server.label)
    with (
        proxy(server, 15006),
        listening(server, server.ip, 8080) as application,
        client.socket() as probing,
    ):
        probing.bind((probes, 0))
        assert outcome(probing, server.ip, 8080) == "connected"
        accepted, peer = application.accept()
        accepted.close()
        assert peer[0] == probes


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", FAMILIES)
def test_a_question_by_udp_goes_to_the_proxy_and_the_answer_seems_to_come_from_who_was_asked(
    client: Pod, server: Pod, which: int
) -> None:
    redirection.apply(client.namespace_fd, client.label)
    loopback = "127.0.0.1" if which == 0 else "::1"
    asked = server.ips[which], 53
    with (
        PodSockets(client.namespace_fd) as pods,
        pods.datagram(at(loopback, 15053), family(loopback)) as names,
        client.socket(family(loopback), socket.SOCK_DGRAM) as asking,
    ):
        names.settimeout(5)
        asking.settimeout(5)
        asking.sendto(b"who?", asked)
        question, who = names.recvfrom(100)
        assert (question, who[0]) == (b"who?", client.ips[which])
        names.sendto(b"me", who)
        answer, by = asking.recvfrom(100)
        assert (answer, by[:2]) == (b"me", asked)


@pytest.mark.parametrize("which", FAMILIES)
def test_a_question_by_tcp_goes_to_the_proxy(client: Pod, server: Pod, which: int) -> None:
    redirection.apply(client.namespace_fd, client.label)
    loopback = "127.0.0.1" if which == 0 else "::1"
    with (
        PodSockets(client.namespace_fd) as pods,
        pods.listen(at(loopback, 15053)) as names,
        connecting(client, server.ips[which], 53),
    ):
        names.settimeout(5)
        names.accept()[0].close()


@pytest.mark.parametrize("which", FAMILIES)
def test_a_question_of_the_proxys_own_goes_to_who_is_asked(client: Pod, server: Pod, which: int) -> None:
    redirection.apply(client.namespace_fd, client.label)
    address = server.ips[which]
    with (
        PodSockets(client.namespace_fd) as pods,
        pods.datagram(None, family(address)) as asking,
        server.socket(family(address), socket.SOCK_DGRAM) as names,
    ):
        names.settimeout(5)
        names.bind((address, 53))
        asking.sendto(b"who?", (address, 53))
        question, who = names.recvfrom(100)
        assert (question, who[0]) == (b"who?", client.ips[which])


# --- dedicated --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", FAMILIES)
def test_a_dedicated_proxy_gets_what_is_opened_to_others_and_nothing_else(
    client: Pod, server: Pod, which: int
) -> None:
    redirection.apply(client.namespace_fd, client.label, mode="dedicated")
    address = client.ips[which]
    with proxy(client, 15001, 15006) as (outbound, _), connecting(client, server.ips[which], 8080):
        outbound.accept()[0].close()
        with listening(client, address, 8080) as application, connecting(server, address, 8080):
            application.accept()[0].close()


# --- coming and going -------------------------------------------------------------------------------


def test_what_is_applied_is_read_back(client: Pod) -> None:
    redirection.apply(client.namespace_fd, client.label)
    found = redirection.read(client.namespace_fd, client.label)
    assert found.is_that_of("shared", (4, 6))
    assert not found.is_that_of("shared", (4,))
    assert not found.is_that_of("dedicated", (4, 6))
    assert [str(each) for each in found.policies] == ["32764: from all fwmark 0x111/0xfff lookup 100"] * 2
    assert str(found.routes[0]) == "local default dev 1 table 100 scope host"


def test_applied_twice_it_is_there_once(client: Pod) -> None:
    redirection.apply(client.namespace_fd, client.label)
    once = redirection.read(client.namespace_fd, client.label)
    redirection.apply(client.namespace_fd, client.label)
    again = redirection.read(client.namespace_fd, client.label)
    assert again.is_that_of("shared", (4, 6))
    assert len(again.rules) == len(once.rules)


def test_one_mode_replaces_the_other(client: Pod) -> None:
    redirection.apply(client.namespace_fd, client.label)
    redirection.apply(client.namespace_fd, client.label, mode="dedicated")
    assert redirection.read(client.namespace_fd, client.label).is_that_of("dedicated", (4, 6))
    redirection.apply(client.namespace_fd, client.label, families=(4,))
    assert redirection.read(client.namespace_fd, client.label).is_that_of("shared", (4,))


def test_removed_it_is_gone_and_may_be_removed_again(client: Pod) -> None:
    redirection.remove(client.namespace_fd, client.label)
    redirection.apply(client.namespace_fd, client.label)
    redirection.remove(client.namespace_fd, client.label)
    redirection.remove(client.namespace_fd, client.label)
    assert redirection.read(client.namespace_fd, client.label) == ((), (), (), ())
    with client, Netlink("client", NETLINK_NETFILTER) as netlink:
        assert nftables.tables(netlink) == []


def test_what_others_have_in_the_pod_stays_theirs(client: Pod) -> None:
    theirs = [
        nftables.add_table("ip", "ztunnel"),
        nftables.add_base_chain("ip", "ztunnel", "out", hook="output"),
        nftables.add_rule("ip", "ztunnel", "out", nft_expressions.match_protocol("udp")),
    ]
    other = route.add_route(_network("192.0.2.1"), index=1, kind="local", table=redirection.ROUTES)
    with client, Netlink("client", NETLINK_NETFILTER) as netlink, Netlink("client") as netlink_of_routes:

        def all_there_is() -> tuple[object, ...]:
            # The kernel adds some of its own in its own time, like those for multicast.
            routes = [
                each for each in route.routes(netlink_of_routes, table=None) if each.protocol != "kernel"
            ]
            return nftables.rules(netlink), routes, rule.rules(netlink_of_routes)

        nftables.commit(netlink, theirs)
        netlink_of_routes.commit([other])
        before = all_there_is()
        redirection.apply(client.namespace_fd, client.label)
        redirection.apply(client.namespace_fd, client.label)
        redirection.remove(client.namespace_fd, client.label)
        assert all_there_is() == before


def test_where_the_rules_are_refused_the_routes_are_taken_back(
    client: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> tuple[Request, ...]:
        return (nftables.add_table("ip", "mine"), nftables.delete_chain("ip", "mine", "none"))

    monkeypatch.setattr(redirection, "_requests", refused)
    with pytest.raises(KernelError, match="delete chain ip mine none in pod 'client': ENOENT"):
        redirection.apply(client.namespace_fd, client.label)
    assert redirection.read(client.namespace_fd, client.label) == ((), (), (), ())


def test_a_pod_whose_lo_has_no_ipv6_gets_ipv4_rules(client: Pod) -> None:
    with client:
        sysctl.write("net.ipv6.conf.lo.disable_ipv6", 1)
    redirection.apply(client.namespace_fd, client.label)
    assert redirection.read(client.namespace_fd, client.label).is_that_of("shared", (4,))


def test_a_descriptor_that_is_closed_is_told() -> None:
    last = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096) - 1
    gone = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, last)  # a number that nobody else is given meanwhile
    os.close(gone)
    with pytest.raises(KernelError, match="hold the network namespace of pod 'gone'"):
        redirection.apply(gone, "pod 'gone'")


def _network(address: str) -> kernel_address.IPNetwork:
    return ip_interface(address).network


def _give(pod: Pod, address: str) -> None:
    """Have the pod be reached at one more address."""
    with pod, Netlink(pod.label) as netlink:
        index = _way(netlink, pod.node.ip)
        netlink.commit([kernel_address.add_address(index, ip_interface(address))])
    with pod.node, Netlink(pod.node.label) as netlink:
        netlink.commit([route.add_route(_network(address), index=_way(netlink, pod.ip))])


def _way(netlink: Netlink, address: str) -> int:
    index = route.lookup(netlink, ip_address(address)).index
    assert index is not None
    return index
