"""A cluster for people to read: the picture of the topology, and the report of a failing test.

Rules: reads, never changes, never raises; what cannot be read is said in its place.
Does not belong here: deciding when to print.
"""

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from netwarren.errors import NetwarrenError
from netwarren.kernel import address, link, route, sockdiag
from netwarren.kernel.netlink import NETLINK_SOCK_DIAG, Netlink
from netwarren.runtime import ferry
from netwarren.runtime.machine import Machine

if TYPE_CHECKING:
    from netwarren.cluster.cluster import Cluster

OUTPUT_LINES = 40
MOST_MACHINES = 40
LAST_QUERIES = 20


def picture(cluster: "Cluster") -> str:
    """The topology as a tree: root, nodes, pods, each with its addresses; then the services."""
    root_ips = " ".join(str(interface) for interface in cluster.bridge_addresses)
    lines = [f"cluster {cluster.name}", f"└─ root  br0 {root_ips}"]
    nodes = list(cluster.built_nodes.values())
    for position, node in enumerate(nodes):
        last = position == len(nodes) - 1
        ranges = " ".join(str(family.pod_range) for family in node.spec.families)
        lines.append(f"   {'└' if last else '├'}─ {node.name}  eth0 {' '.join(node.ips)}  pods {ranges}")
        pods = list(node.pods.values())
        for number, pod in enumerate(pods):
            stem = " " if last else "│"
            corner = "└" if number == len(pods) - 1 else "├"
            lines.append(f"   {stem}  {corner}─ {pod.name}  eth0 {' '.join(pod.ips)}")
    return "\n".join([*lines, *_services(cluster)])


def _services(cluster: "Cluster") -> list[str]:
    """Each service with the pods behind it; nothing where there are no services."""
    services = cluster.services
    if not services:
        return []
    from netwarren.topology.service_ports import describe_port

    lines: list[str] = []
    for name, service in services.items():
        ports = []
        for port in service.ports:
            node_port = f" (node port {port.node_port})" if port.node_port is not None else ""
            ports.append(describe_port(port) + node_port)
        lines.append(f"service {name}  {' '.join(service.ips) or 'headless'}  {', '.join(ports)}".rstrip())
        endpoints = service.endpoints
        if not endpoints:
            lines.append("   no endpoints: it selects no pod")
        for endpoint in endpoints:
            addresses = " ".join(map(str, endpoint.addresses))
            state = "ready" if endpoint.ready else "not ready"
            lines.append(f"   {endpoint.pod}  {addresses}  on {endpoint.node}, {state}")
    return lines


def report(cluster: "Cluster") -> str:
    """`picture`, each member's routes, sockets, background code and programs, and what names were asked for."""
    lines = [
        picture(cluster),
        f"step in, while this process runs (pytest --pdb): {cluster.step_in_command()}",
        *(cluster._outlet.describe() if cluster._outlet is not None else ()),
        "",
    ]
    members: list[Machine] = [cluster.root, *cluster.built_nodes.values(), *cluster.pods.values()]
    for machine in members[:MOST_MACHINES]:
        try:
            lines += ferry.roam(partial(_member, machine))
        except Exception as error:  # a report is for a test that has failed already
            lines.append(f"  cannot be read: {error!r}")
    if len(members) > MOST_MACHINES:
        lines.append(f"... and {len(members) - MOST_MACHINES} more members, not shown")
    queries = cluster.dns.queries[-LAST_QUERIES:] if cluster._name_server.used else ()
    if queries:
        lines += [f"the last {len(queries)} questions for names:", *(f"  {query}" for query in queries)]
    return "\n".join(lines)


def _member(machine: Machine) -> list[str]:
    lines = [f"{machine.label}:"]
    try:
        lines += _network(machine)
    except NetwarrenError as error:
        lines.append(f"  cannot be read: {error}")
    lines += [f"  published at {published.describe()}" for published in list(machine.published)]
    for background in machine.backgrounds:
        lines.append(f"  background {background.name}: {background.state}")
    for program in machine.programs:
        lines.append(f"  program {program.describe()}")
        with contextlib.suppress(OSError):
            text = (program.output + program.errors).splitlines()
            if len(text) > OUTPUT_LINES:
                lines.append(f"  | ... {len(text) - OUTPUT_LINES} lines before these")
            for line in text[-OUTPUT_LINES:]:
                lines.append(f"  | {line}")
    return lines


def _network(machine: Machine) -> list[str]:
    with machine._stepped():
        with Netlink(machine.label) as netlink:
            interfaces = link.links(netlink)
            held = address.addresses(netlink)
            routes = route.routes(netlink)
        with Netlink(machine.label, NETLINK_SOCK_DIAG) as netlink:
            sockets = sockdiag.sockets(netlink)
    lines = []
    for one in interfaces:
        addresses = " ".join(str(each.interface) for each in held if each.index == one.index)
        lines.append(f"  {one.name:<10} {'up' if one.up else 'down':<5} {addresses}".rstrip())
    names = {one.index: one.name for one in interfaces}
    lines += [f"  route {_named(str(each), names)}" for each in routes]
    lines += [f"  listens {socket}" for socket in sockets]
    return lines


def _named(text: str, names: dict[int, str]) -> str:
    """``dev 2`` as ``dev eth0``."""
    words = text.split(" ")
    for position, word in enumerate(words[:-1]):
        if word == "dev" and words[position + 1].isdigit():
            words[position + 1] = names.get(int(words[position + 1]), words[position + 1])
    return " ".join(words)
