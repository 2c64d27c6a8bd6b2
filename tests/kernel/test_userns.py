"""Id maps as data, and writing them."""

import os
import subprocess
import sys

import pytest

from netwarren.kernel import capability, userns
from netwarren.kernel.userns import Extent, around


@pytest.mark.parametrize(
    ("own", "start", "count", "expected"),
    [
        (1000, 100000, 65536, ["1000 1000 1", "0 100000 1000", "1001 101000 64536"]),
        (0, 100000, 65536, ["0 0 1", "1 100000 65536"]),
        (1000, 100000, 1000, ["1000 1000 1", "0 100000 1000"]),
        (1000, 100000, 1001, ["1000 1000 1", "0 100000 1000", "1001 101000 1"]),
        (1000, 100000, 10, ["1000 1000 1", "0 100000 10"]),
        (70000, 100000, 65536, ["70000 70000 1", "0 100000 65536"]),
        (1, 5, 1, ["1 1 1", "0 5 1"]),
    ],
)
def test_own_id_stays_and_a_range_fills_the_others(
    own: int, start: int, count: int, expected: list[str]
) -> None:
    assert [str(extent) for extent in around(own, start, count, map_root=False)] == expected


def test_own_id_becomes_0_and_a_range_fills_the_others() -> None:
    extents = around(1000, 100000, 65536, map_root=True)
    assert extents == (Extent(0, 1000, 1), Extent(1, 100000, 65536))


@pytest.mark.parametrize("own", [0, 1, 999, 1000, 65535, 65536, 70000])
@pytest.mark.parametrize("count", [1, 1000, 1001, 65536])
@pytest.mark.parametrize("map_root", [True, False])
def test_extents_never_overlap_and_spend_the_range_at_most_once(own: int, count: int, map_root: bool) -> None:
    start = 1 << 20
    extents = around(own, start, count, map_root=map_root)
    inside = [i for e in extents for i in range(e.inside, e.inside + e.count)]
    outside = [i for e in extents for i in range(e.outside, e.outside + e.count)]
    assert len(set(inside)) == len(inside)
    assert sorted(outside) == [own, *range(start, start + count)]
    assert dict(zip(outside, inside, strict=True))[own] == (0 if map_root else own)


def test_the_map_of_an_ordinary_user_is_its_own_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability, "has", lambda *_: False)
    uid, gid = os.geteuid(), os.getegid()
    assert userns.own_map() == userns.IdMap((Extent(uid, uid, 1),), (Extent(gid, gid, 1),), "self")
    assert userns.own_map(map_root=True) == userns.IdMap((Extent(0, uid, 1),), (Extent(0, gid, 1),), "self")


def test_the_map_of_somebody_with_capabilities_is_every_known_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability, "has", lambda *_: True)
    mapped = userns.own_map()
    assert mapped.by == "parent"
    with open("/proc/self/uid_map") as lines:
        known = [line.split() for line in lines]
    assert [(e.inside, e.count) for e in mapped.uids] == [
        (int(first), int(count)) for first, _, count in known
    ]
    assert all(e.inside == e.outside for e in mapped.uids)


def test_there_is_no_subordinate_map_without_the_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert userns.subordinate_map() is None


def test_a_process_with_threads_is_refused_and_told_so() -> None:
    script = """
import threading
from netwarren.errors import KernelError
from netwarren.kernel import userns
end = threading.Event()
threading.Thread(target=end.wait, daemon=True).start()
try:
    userns.enter(0, userns.own_map())
except KernelError as error:
    print(error.operation, error.errno)
"""
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert printed == "create a user namespace 22\n"


def test_a_map_that_the_kernel_refuses_is_told_by_the_helper_too() -> None:
    script = """
from netwarren.errors import KernelError
from netwarren.kernel import userns
for by in ("parent", "self"):
    bad = userns.IdMap((userns.Extent(5, 6, 0),), (userns.Extent(5, 6, 0),), by)
    import os
    child = os.fork()
    if child == 0:
        try:
            userns.enter(0, bad)
        except KernelError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    lines = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert lines[0].startswith("write the id maps: EINVAL")
    assert "write the uid map" in lines[0]
    assert lines[1].startswith("write the uid map: EINVAL")
