"""anyio's worker threads, which go past the loop's executor and are reused by everybody.

Rules: a job of a task that lives in a namespace runs there, on a thread that is home otherwise; anyio is
not imported here, and what it loads later is caught as it is loaded.
Does not belong here: asyncio's executors (see `tasks`), trio's own threads (see `trio_tasks`).
"""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from netwarren.runtime import tasks

_BACKENDS = {"anyio._backends._asyncio": "AsyncIOBackend", "anyio._backends._trio": "TrioBackend"}
_RUN_SYNC = "run_sync_in_worker_thread"

_following = False


def follow() -> None:
    """Have ``anyio.to_thread.run_sync`` follow its task into namespaces; again is fine."""
    global _following
    if _following:
        return
    _following = True
    waiting = False
    for name in _BACKENDS:
        module = sys.modules.get(name)
        if module is not None and hasattr(module, _BACKENDS[name]):
            _wrap(module)
        else:
            waiting = True
    if waiting:
        sys.meta_path.insert(0, _Finder())


def _wrap(module: ModuleType) -> None:
    backend: Any = getattr(module, _BACKENDS[module.__name__])
    run_sync: Callable[..., Any] = getattr(backend, _RUN_SYNC).__func__

    async def run_sync_in_the_callers_pod(
        cls: type, func: Callable[..., Any], args: tuple[Any, ...], *rest: Any, **options: Any
    ) -> Any:
        namespace = tasks.current()
        if namespace is not None:
            func, args = tasks.call_in, (namespace, func, *args)
        return await run_sync(cls, func, args, *rest, **options)

    setattr(backend, _RUN_SYNC, classmethod(run_sync_in_the_callers_pod))


class _Finder:
    """Finds nothing by itself; sees to it that a backend is wrapped as soon as it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _BACKENDS:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                loader: Any = spec.loader
                execute = loader.exec_module

                def exec_module(module: ModuleType, execute: Callable[[ModuleType], None] = execute) -> None:
                    execute(module)
                    _wrap(module)

                loader.exec_module = exec_module
                return spec
        return None
