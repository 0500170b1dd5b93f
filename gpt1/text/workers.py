"""Processes that share the slow work: encoding text for pre-training and for fine-tuning."""

import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from utils import InputError

AHEAD = 4  # items for each process that are taken before they are needed
_shared = None  # in a worker process: what all calls need


def available_cores() -> int:
    """The number of cores that this process may use: in a container, those of its quota."""
    import joblib  # takes a fifth of a second

    return joblib.cpu_count()


def map_in_order(
    function: Callable, items: Iterable, shared: object = None, n: int | None = None
) -> Iterator:
    """Yield `function(shared, item)` for each item, in order; a few items are taken ahead.

    shared  what all calls need, such as a vocabulary: it goes to each process once
    n       the number of processes; None: one on each core; 1: this process does the work

    An exception in `function` is raised here. Raises InputError if a process was killed.
    """
    n = n or available_cores()
    if sys.platform == 'win32':
        n = min(n, 61)  # the most that an executor can wait for
    pool = _open_pool(n, shared) if n > 1 else None
    if not pool:
        yield from (function(shared, item) for item in items)
        return
    items, pending = iter(items), deque()
    try:
        while True:
            for item in itertools.islice(items, AHEAD * n - len(pending)):
                pending.append(pool.submit(_work, function, item))
            if not pending:
                return
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise InputError(
            f'a worker process was killed: is there too little memory for {n} of them?'
        ) from error
    finally:
        _close(pool)


def _open_pool(n: int, shared: object) -> ProcessPoolExecutor | None:
    pool = None
    try:
        pool = ProcessPoolExecutor(n, initializer=_start, initargs=(shared,))
        pool.submit(int)  # where processes are forked, this starts all of them
        return pool
    except OSError as error:  # too many processes, or a container without shared memory
        if pool:
            _close(pool)
        reason = error.strerror or error
        print(f'warning: one process does the work: {reason}', file=sys.stderr, flush=True)
        return None


def _close(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _work(function: Callable, item: object) -> object:
    return function(_shared, item)


def _start(shared: object) -> None:
    global _shared
    _shared = shared
    # A garbage collection would write to all objects of the parent, and so copy their memory.
    gc.freeze()
    # Ctrl-C is for the parent process. When the parent ends, however it ends, the worker ends too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'SIGBREAK'):  # Windows
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
