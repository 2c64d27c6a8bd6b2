"""Following a file of revocation lists, on a clock that the test moves."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.identity.crl import Revocations
from netwarren.mesh.identity.watch import DEBOUNCE, LOOK_INTERVAL, RevocationFile
from tests.mesh.identity.peers import CLIENT, ManualClock

AUTHORITY = Authority()
FIRST = AUTHORITY.revoke(AUTHORITY.issue(CLIENT))
SECOND = AUTHORITY.revoke(AUTHORITY.issue(CLIENT))


class Followed:
    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.reloads: list[Revocations] = []
        self.file = RevocationFile(path, self.reloads.append, clock=self.clock)
        self.file.start()

    def rest(self) -> None:
        """As long as a change takes to be noticed and to count as finished."""
        self.clock.advance(DEBOUNCE + 2 * LOOK_INTERVAL)


def replace(path: Path, data: bytes) -> None:
    """Write as editors and configuration tools do: another file, then its name."""
    (path.parent / "new").write_bytes(data)
    os.replace(path.parent / "new", path)


def test_a_file_is_read_at_the_start_without_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(FIRST)
    followed = Followed(path)
    assert followed.file.revocations == Revocations.read(FIRST)
    followed.rest()
    assert followed.reloads == []


def test_a_change_is_read_two_seconds_after_it_and_told_once(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(FIRST)
    followed = Followed(path)
    replace(path, SECOND)
    followed.clock.advance(DEBOUNCE)
    assert followed.reloads == []
    followed.clock.advance(2 * LOOK_INTERVAL)
    assert followed.reloads == [Revocations.read(SECOND)]
    followed.rest()
    assert followed.reloads == [followed.file.revocations]


def test_changes_that_follow_each_other_are_read_when_the_last_has_come_to_rest(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(b"")
    followed = Followed(path)
    for size in (100, 200, 300):  # a slow writer: none of this is a list yet
        path.write_bytes(FIRST[:size])
        followed.clock.advance(DEBOUNCE - LOOK_INTERVAL)
    path.write_bytes(FIRST)
    followed.clock.advance(DEBOUNCE - LOOK_INTERVAL)
    assert followed.reloads == []
    followed.rest()
    assert followed.reloads == [Revocations.read(FIRST)]


def test_a_file_that_was_missing_counts_from_when_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "not yet" / "crl.pem"
    followed = Followed(path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    followed.rest()
    assert followed.file.revocations == Revocations()
    path.parent.mkdir()
    path.write_bytes(FIRST)
    followed.rest()
    assert followed.reloads == [Revocations.read(FIRST)]


def test_a_file_that_vanishes_leaves_the_lists_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(FIRST)
    followed = Followed(path)
    path.unlink()
    followed.rest()
    assert (followed.file.revocations, followed.reloads) == (Revocations.read(FIRST), [])
    path.write_bytes(SECOND)
    followed.rest()
    assert followed.reloads == [Revocations.read(SECOND)]


def test_kubernetes_links_are_followed(tmp_path: Path) -> None:
    for name, data in (("..1", FIRST), ("..2", SECOND)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "crl.pem").write_bytes(data)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "crl.pem").symlink_to("..data/crl.pem")
    followed = Followed(tmp_path / "crl.pem")
    assert followed.file.revocations == Revocations.read(FIRST)
    (tmp_path / "..next").symlink_to("..2")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    followed.rest()
    assert followed.reloads == [Revocations.read(SECOND)]


def test_a_file_that_does_not_parse_at_the_start_turns_revocation_off(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(b"not a valid CRL")
    followed = Followed(path)
    assert str(path) in str(followed.file.error)
    assert followed.clock.pending == []
    replace(path, FIRST)
    followed.rest()
    assert (followed.file.revocations, followed.reloads) == (Revocations(), [])


def test_a_file_that_does_not_parse_later_leaves_the_lists_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(FIRST)
    followed = Followed(path)
    replace(path, FIRST[:300])
    followed.rest()
    assert (followed.file.revocations, followed.reloads) == (Revocations.read(FIRST), [])
    assert "stay as they were" in caplog.text
    replace(path, SECOND)
    followed.rest()
    assert followed.reloads == [Revocations.read(SECOND)]


def test_a_file_that_was_emptied_revokes_nothing_any_more(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(FIRST)
    followed = Followed(path)
    path.write_bytes(b"")
    followed.rest()
    assert followed.reloads == [Revocations()]


def test_writing_the_same_again_is_no_reload(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(FIRST)
    followed = Followed(path)
    replace(path, FIRST)
    followed.rest()
    assert followed.reloads == []


def test_nothing_is_due_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    followed = Followed(path)
    followed.file.start()
    assert len(followed.clock.pending) == 1
    followed.file.close()
    followed.file.close()
    assert followed.clock.pending == []


async def test_it_follows_on_the_loops_own_clock(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    reloaded = asyncio.get_running_loop().create_future()
    file = RevocationFile(path, reloaded.set_result, debounce=0, interval=0.001)
    file.start()
    path.write_bytes(FIRST)
    async with asyncio.timeout(30):
        assert await reloaded == Revocations.read(FIRST)
    file.close()
