"""Waiting for what another thread changes."""

import asyncio
import os
import signal
import threading

from netwarren.mesh.telemetry.changes import Changes


class _Box:
    def __init__(self) -> None:
        self.changes = Changes()
        self.value = 0

    def put(self, value: int) -> None:
        with self.changes.lock:
            self.value = value
        self.changes.notify()

    def at_least(self, value: int) -> int | None:
        return self.value if self.value >= value else None


def _waiting(box: _Box) -> int:
    return len(box.changes.wakers)


def test_what_is_there_already_is_not_waited_for() -> None:
    box = _Box()
    box.put(3)
    assert box.changes.wait(lambda: box.at_least(3), 0) == 3


def test_a_thread_is_woken_by_the_change() -> None:
    box = _Box()
    looked = threading.Event()

    def find() -> int | None:
        looked.set()
        return box.at_least(2)

    def change() -> None:
        looked.wait()
        box.put(1)
        box.put(2)

    thread = threading.Thread(target=change)
    thread.start()
    assert box.changes.wait(find, 60) == 2
    thread.join()


async def test_a_coroutine_is_woken_by_a_change_on_another_thread() -> None:
    box = _Box()
    looked = threading.Event()

    def find() -> int | None:
        looked.set()
        return box.at_least(1000)

    def change() -> None:
        looked.wait()
        for value in range(1001):
            box.put(value)

    thread = threading.Thread(target=change)
    thread.start()
    assert await box.changes.wait_async(find, 60) == 1000
    thread.join()


async def test_nothing_is_given_after_the_deadline_and_nobody_stays_behind() -> None:
    box = _Box()
    assert box.changes.wait(lambda: box.at_least(1), 0.01) is None
    assert await box.changes.wait_async(lambda: box.at_least(1), 0.01) is None
    assert _waiting(box) == 0


async def test_a_waiter_that_is_cancelled_is_forgotten() -> None:
    box = _Box()
    task = asyncio.create_task(box.changes.wait_async(lambda: box.at_least(1), 60))
    await asyncio.sleep(0)
    assert _waiting(box) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert _waiting(box) == 0
    box.put(1)


def test_a_child_of_a_fork_finds_the_lock_free() -> None:
    box = _Box()
    taken, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with box.changes.lock:
            taken.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    threading.Timer(0.01, leave.set).start()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if box.changes.wait(lambda: box.at_least(0), 0) == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()


def test_all_waiters_are_woken() -> None:
    box = _Box()
    found: list[int | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(box.changes.wait(lambda: box.at_least(1), 60)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    box.put(1)
    for thread in threads:
        thread.join()
    assert found == [1] * 8
