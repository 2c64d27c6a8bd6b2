"""The machine: what it is, how quiet it is, and whether the kernel has cleaned up after the last one.

Rules: says, and waits; changes nothing.
Does not belong here: what is measured on it.
"""

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field

from bench.figures import percentile

WORK = 400_000
"""Turns of a loop that takes some 10 ms and does nothing but compute."""

NOISY = 1.5
"""From this spread on, figures are not to be relied on."""


@dataclass
class Noise:
    """How far from quiet the machine was: the same computation over and over, loads, time stolen by others."""

    work_ms: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    stolen: float = 0.0

    def look(self, times: int = 5) -> None:
        """Compute the same thing ``times`` times, and note how long it took and the load (proc_loadavg(5))."""
        for _ in range(times):
            start = time.perf_counter()
            total = 0
            for turn in range(WORK):
                total += turn
            self.work_ms.append((time.perf_counter() - start) * 1e3)
        self.loads.append(os.getloadavg()[0])

    @property
    def spread(self) -> float:
        """How many times as long as the fastest the computation took at the 95th percentile; 1 is silence."""
        return percentile(self.work_ms, 0.95) / min(self.work_ms)


def in_a_word(spread: float) -> str:
    """What a `Noise.spread` means: quiet, not quite quiet, noisy."""
    return "quiet" if spread < 1.15 else "not quite quiet" if spread < NOISY else "noisy"


def describe() -> dict[str, str]:
    """The machine in words, by heading."""
    return {
        "Kernel": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Processors": f"{os.cpu_count()}, {_processor()}",
        "Memory": f"{_meminfo()['MemTotal'] / 1024 / 1024:.1f} GiB",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "User": "root" if os.geteuid() == 0 else "an ordinary user",
    }


def kernel_memory() -> int:
    """What the kernel uses for itself now, in kB: slabs and memory for each processor (proc_meminfo(5))."""
    info = _meminfo()
    return info["Slab"] + info.get("Percpu", 0)


def stolen_seconds() -> float:
    """Processor time that the hypervisor gave to others so far, in seconds over all processors; proc_stat(5)."""
    with open("/proc/stat") as stat:
        words = stat.readline().split()
    return int(words[8]) / os.sysconf("SC_CLK_TCK") if len(words) > 8 else 0.0


def settle(seconds: float = 60.0) -> None:
    """Wait until the kernel has cleaned up after the last one, so that the next does not pay for it.

    A namespace that is made while others are cleaned up waits for that; so one is made until it is quick.
    """
    code = (
        "import ctypes, time\n"
        "for _ in range(3):\n"
        "    start = time.perf_counter(); ctypes.CDLL(None).unshare(0x50000000)\n"
        "    print(time.perf_counter() - start); time.sleep(0.05)"
    )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, check=True)
        if max(map(float, done.stdout.split())) < 0.005:
            return
        time.sleep(0.1)


def _meminfo() -> dict[str, int]:
    with open("/proc/meminfo") as meminfo:
        return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in meminfo)}


def _processor() -> str:
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or "of a kind that /proc/cpuinfo does not tell"
