"""ip_commands: the benchmark's topology by `ip` processes, as a person would script it, timed.
Rules: the cluster and the JSON of floor.c; a sandbox of its own, so the host's /run/netns is left alone.
Not here: `ip -batch` or any other way to be faster than a script of plain commands.

    python bench/ip_commands.py --clusters 20 --nodes 1 --pods 3

total_ms includes the `ip netns del` of every namespace. Exits with 77 (skip) where there is no `ip`.
"""

import argparse
import ctypes
import json
import os
import shutil
import sys
import time

SKIP = 77  # what automake and meson take for "skipped"
FIRST = 100  # our interface indexes start here, as in floor.c
NUMBER = 2  # the first node's and the first pod's number: .1 is the bridge's and the node's own address
MOST = 253

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000

POD_SYSCTLS = {"net.ipv6.conf.default.addr_gen_mode": 1}
ROUTER_SYSCTLS = POD_SYSCTLS | {
    "net.ipv4.ip_forward": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
}


def enter_sandbox() -> None:
    """`unshare --user --map-root-user --mount --net`, with an empty /run for the names of `ip netns`."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()

    def check(step: str, result: int) -> None:
        if result:
            sys.exit(f"ip_commands: {step}: {os.strerror(ctypes.get_errno())}")

    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET
    check("unshare(NEWUSER|NEWNS|NEWNET)", libc.unshare(flags))
    for file, text in ("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"):
        with open(f"/proc/self/{file}", "w") as control:
            control.write(text)
    check("mount --make-rprivate /", libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    run = os.path.realpath("/var/run").encode()  # `ip` says /var/run; mostly a link to /run
    check("mount -t tmpfs on /run", libc.mount(b"tmpfs", run, b"tmpfs", 0, None))


class Commands:
    """Runs programs one after the other; the first that fails ends the benchmark with its command line."""

    def __init__(self, ip: str, sysctl: str | None) -> None:
        self._ip = ip
        self._sysctl = sysctl

    def ip(self, command: str) -> None:
        self._run([self._ip, *command.split()])

    def sysctl(self, netns: str, settings: dict[str, int]) -> None:
        if self._sysctl:
            program = [self._sysctl, "-qw", *(f"{name}={value}" for name, value in settings.items())]
        else:
            script = (
                f"echo {value} > /proc/sys/{name.replace('.', '/')}" for name, value in settings.items()
            )
            program = ["/bin/sh", "-ec", "\n".join(script)]
        self._run([self._ip, "netns", "exec", netns, *program])

    def _run(self, argv: list[str]) -> None:
        # posix_spawn, not subprocess: the yardstick is what `ip` costs, not what Python adds.
        _, status = os.waitpid(os.posix_spawn(argv[0], argv, os.environ), 0)
        if status:
            sys.exit(f"ip_commands: exit status {os.waitstatus_to_exitcode(status)}: {' '.join(argv)}")


# Of each node, by its number, the numbers of its pods.
Layout = dict[int, range]


def layout(nodes: int, pods: int) -> Layout:
    """``pods`` pods dealt out to ``nodes`` nodes in turn, as in floor.c."""
    counts = (pods // nodes + (k < pods % nodes) for k in range(nodes))
    return {NUMBER + k: range(NUMBER, NUMBER + count) for k, count in enumerate(counts)}


def names(nodes: Layout) -> list[str]:
    return ["root"] + [
        name for n, pods in nodes.items() for name in (f"node-{n}", *(f"pod-{n}-{p}" for p in pods))
    ]


def build(run: Commands, nodes: Layout) -> None:
    routers = ["root", *(f"node-{n}" for n in nodes)]
    for netns in names(nodes):
        run.ip(f"netns add {netns}")
        run.sysctl(netns, ROUTER_SYSCTLS if netns in routers else POD_SYSCTLS)
        run.ip(f"-n {netns} link set lo up")

    run.ip(f"-n root link add br0 index {FIRST} type bridge")
    run.ip("-n root address add 172.18.0.1/16 dev br0")
    run.ip("-n root link set br0 up")
    for n in nodes:
        add_veth(run, "root", FIRST + n, f"node-{n}", "master br0")
        run.ip(f"-n node-{n} address add 172.18.0.{n}/16 dev eth0")
        run.ip(f"-n node-{n} route add default via 172.18.0.1")
        run.ip(f"-n node-{n} route add unreachable 10.0.{n}.0/24")
        run.ip(f"-n root route add 10.0.{n}.0/24 via 172.18.0.{n}")
    for n, pods in nodes.items():
        for m in nodes:
            if m != n:
                run.ip(f"-n node-{n} route add 10.0.{m}.0/24 via 172.18.0.{m}")
        for p in pods:
            node, pod, ip, gateway = f"node-{n}", f"pod-{n}-{p}", f"10.0.{n}.{p}", f"10.0.{n}.1"
            add_veth(run, node, FIRST + p, pod)
            run.ip(f"-n {node} address add {gateway}/32 dev veth{FIRST + p}")
            run.ip(f"-n {node} route add {ip}/32 dev veth{FIRST + p}")
            run.ip(f"-n {pod} address add {ip}/24 dev eth0 noprefixroute")
            run.ip(f"-n {pod} route add {gateway} dev eth0 scope link src {ip}")
            run.ip(f"-n {pod} route add 10.0.{n}.0/24 via {gateway} src {ip}")
            run.ip(f"-n {pod} route add default via {gateway}")


def add_veth(run: Commands, netns: str, index: int, peer: str, options: str = "") -> None:
    one = "numtxqueues 1 numrxqueues 1"
    run.ip(
        f"-n {netns} link add veth{index} index {index} {one} type veth"
        f" peer name eth0 index {FIRST} {one} netns {peer}"
    )
    run.ip(f"-n {netns} link set veth{index} {options} up")
    run.ip(f"-n {peer} link set eth0 up")


def remove(run: Commands, nodes: Layout) -> None:
    for netns in names(nodes):
        run.ip(f"netns del {netns}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the benchmark's topology, built by `ip` processes.")
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--pods", type=int, default=3, help="pods on each node")
    parser.add_argument("--spread", type=int, help="pods of all nodes together, instead")
    options = parser.parse_args()
    if options.clusters < 1 or not 1 <= options.nodes <= MOST or not 1 <= options.pods <= MOST:
        parser.error(f"at least one of each, and at most {MOST} nodes and {MOST} pods on each")

    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # where a user's PATH does not look
    ip = shutil.which("ip", path=path)
    if ip is None:
        print("ip_commands: skipped: there is no `ip` on this machine (package iproute2)", file=sys.stderr)
        return SKIP

    enter_sandbox()
    run = Commands(ip, shutil.which("sysctl", path=path))
    spread = options.nodes * options.pods if options.spread is None else options.spread
    nodes = layout(options.nodes, spread)
    build_ms, total_ms = [], []
    for _ in range(options.clusters):
        start = time.monotonic()
        build(run, nodes)
        build_ms.append(round((time.monotonic() - start) * 1e3, 3))
        remove(run, nodes)
        total_ms.append(round((time.monotonic() - start) * 1e3, 3))
    shape = {"clusters": options.clusters, "nodes": options.nodes, "pods": spread, "release": "now"}
    print(json.dumps(shape | {"build_ms": build_ms, "total_ms": total_ms}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
