"""A yardstick: a bridge with as many hosts as a cluster has pods, made and stopped by Mininet, timed.
Rules: the JSON of floor.c; a network namespace of its own, so that the host's interfaces are left alone; run by
the Python that Mininet is installed for (Debian: /usr/bin/python3), so nothing of ours is imported.
Not here: nodes with routes between them. Mininet's hosts hang on one bridge, which is less than the others build.

    python3 bench/mininet_network.py --clusters 5 --pods 3

Exits with 77 (skip) where Mininet is not installed or the caller is not root.
"""

import argparse
import ctypes
import json
import os
import shutil
import sys
import time

SKIP = 77  # what automake and meson take for "skipped"
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000


def missing() -> str:
    """What keeps Mininet from running here, and how to get it; empty where nothing does."""
    try:
        import mininet  # noqa: F401
    except ImportError:
        return f"Mininet is not installed for {sys.executable} (Debian: apt-get install mininet bridge-utils)"
    if shutil.which("brctl") is None:
        return "Mininet's LinuxBridge needs brctl (Debian: apt-get install bridge-utils)"
    if os.geteuid() != 0:
        return "Mininet needs root; run `make bench` as root to have it compared"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Time a bridge with hosts, made by Mininet.")
    parser.add_argument("--clusters", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=1, help="ignored: there is one bridge")
    parser.add_argument("--pods", type=int, default=3, help="hosts on the bridge")
    options = parser.parse_args()
    reason = missing()
    if reason:
        print(f"mininet_network: skipped: {reason}", file=sys.stderr)
        return SKIP

    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.nodelib import LinuxBridge
    from mininet.topo import SingleSwitchTopo

    setLogLevel("error")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS):
        reason = os.strerror(ctypes.get_errno())
        print(
            f"mininet_network: skipped: root may not make a network namespace here: {reason}", file=sys.stderr
        )
        return SKIP
    build_ms, total_ms = [], []
    for _ in range(options.clusters):
        start = time.monotonic()
        network = Mininet(
            topo=SingleSwitchTopo(options.pods), switch=LinuxBridge, controller=None, waitConnected=False
        )
        network.start()
        build_ms.append(round((time.monotonic() - start) * 1e3, 3))
        network.stop()
        total_ms.append(round((time.monotonic() - start) * 1e3, 3))
    shape = {"clusters": options.clusters, "nodes": 1, "pods": options.pods}
    print(json.dumps({**shape, "build_ms": build_ms, "total_ms": total_ms}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
