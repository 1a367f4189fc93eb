"""Blocks of work on all cores, each with BLAS on one.

BLAS' own threads share one product; what lies between products (gathering, adding, the activation) would be
left to one core. So whole blocks go to threads, as many as BLAS would use, and BLAS is held to one meanwhile.
Where it cannot be held (another library than OpenBLAS), blocks run one after the other and BLAS threads them.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import importlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

__all__ = ["MOST_PARTS", "Blas", "blas", "run"]

#: A call is cut in at most so many parts: cores that are held up by others share the rest.
MOST_PARTS = 8

#: How OpenBLAS' functions are called: plain, with 64-bit integers, and in NumPy's own wheels.
_SPELLINGS = ("scipy_openblas_{}64_", "openblas_{}64_", "scipy_openblas_{}", "openblas_{}")


class Blas(NamedTuple):
    """What can be asked of OpenBLAS."""

    get_num_threads: Callable[[], int]
    set_num_threads: Callable[[int], None]
    get_corename: Callable[[], bytes]


@functools.cache
def blas() -> Blas | None:
    """The OpenBLAS that NumPy has loaded, None where there is none to be found."""
    try:
        library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    except (ImportError, OSError):
        return None
    for spelling in _SPELLINGS:
        with contextlib.suppress(AttributeError):
            found = Blas(*(getattr(library, spelling.format(name)) for name in Blas._fields))
            found.get_corename.restype = ctypes.c_char_p  # type: ignore[attr-defined]
            return found
    return None


_lock = threading.Lock()
_holders = 0
_threads = 1
_pool: ThreadPoolExecutor | None = None


def _hold() -> int:
    """Hold BLAS to one thread, and say how many it had: that many blocks may run side by side."""
    global _holders, _threads
    library = blas()
    if library is None:
        return 1
    with _lock:
        if not _holders:
            _threads = library.get_num_threads()
            library.set_num_threads(1)
        _holders += 1
        return _threads


def _release() -> None:
    global _holders
    library = blas()
    if library is None:
        return
    with _lock:
        _holders -= 1
        if not _holders:
            library.set_num_threads(_threads)


def run(tasks: Sequence[Callable[[], None]], *, apart: bool) -> None:
    """Run the tasks, on threads of their own if `apart`. Which thread ran a task never shows in a result."""
    threads = _hold()
    try:
        helpers = min(threads, len(tasks)) - 1 if apart else 0
        if helpers > 0:
            _share(tasks, threads, helpers)
        else:
            for task in tasks:
                task()
    finally:
        _release()


def _share(tasks: Sequence[Callable[[], None]], threads: int, helpers: int) -> None:
    waiting = deque(tasks)

    def work() -> None:
        while True:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            task()

    futures: list[Future[None]] = []
    try:
        # An interpreter that is shutting down starts no more threads: this one does all.
        with contextlib.suppress(RuntimeError):
            # The caller's settings, NumPy's errstate among them, hold in the helpers too.
            contexts = [contextvars.copy_context() for _ in range(helpers)]
            futures.extend(_workers(threads).submit(context.run, work) for context in contexts)
        work()
    finally:
        waiting.clear()
        # One that has not begun, the pool being busy for another call, finds nothing left to do.
        started = [future for future in futures if not future.cancel()]
        errors = [future.exception() for future in started]
    for error in filter(None, errors):
        raise error


def _workers(threads: int) -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            # The caller works too.
            _pool = ThreadPoolExecutor(max(threads, os.cpu_count() or 1) - 1, thread_name_prefix="gpuconv")
        return _pool


def _forget() -> None:
    """After a fork the child has the pool, but none of its threads."""
    global _pool, _lock, _holders
    library = blas()
    if _holders and library is not None:
        library.set_num_threads(_threads)
    _pool, _lock, _holders = None, threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
