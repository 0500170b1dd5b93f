"""Processes that share the slow work: encoding text for pre-training and for fine-tuning."""

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from utils import InputError

# For `subprocess.Popen`: a process that the terminal's Ctrl-C does not reach, and what interrupts
# it. Windows can send a single process nothing but a break, see `utils.exit_status`.
if sys.platform == 'win32':
    APART = {'creationflags': subprocess.CREATE_NEW_PROCESS_GROUP}
    INTERRUPT = signal.CTRL_BREAK_EVENT
else:
    APART = {'start_new_session': True}
    INTERRUPT = signal.SIGINT

_shared = None  # in a worker process: what all calls need


def available_cores() -> int:
    """The number of cores that this process may use: in a container, those of its quota."""
    import joblib  # takes a fifth of a second

    return joblib.cpu_count()


class Workers:
    """Processes that apply a function to many items.

    n       the number of processes; None: one on each core; 1: this process does the work
    shared  what all calls need, such as a vocabulary: it goes to each process once
    """

    AHEAD = 4  # items for each process that are taken before they are needed

    def __init__(self, n: int | None = None, shared: object = None):
        self.n = n or available_cores()
        if sys.platform == 'win32':
            self.n = min(self.n, 61)  # the most that an executor can wait for
        self.shared, self.pool = shared, None

    def __enter__(self):
        if self.n > 1:
            try:
                self.pool = ProcessPoolExecutor(self.n, initializer=_start, initargs=(self.shared,))
                self.pool.submit(int)  # where processes are forked, this starts all of them
            except OSError as error:  # too many processes, or a container without shared memory
                self.__exit__()
                reason = error.strerror or error
                print(f'warning: one process does the work: {reason}', file=sys.stderr, flush=True)
        return self

    def __exit__(self, *_):
        if self.pool:
            processes = list((self.pool._processes or {}).values())
            self.pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
        self.pool = None

    def map(self, function: Callable, items: Iterable) -> Iterator:
        """Yield `function(shared, item)` for each item, in order; a few items are taken ahead.

        An exception in `function` is raised here. Raises InputError if a process was killed.
        """
        if not self.pool:
            yield from (function(self.shared, item) for item in items)
            return
        items = iter(items)
        pending = deque()
        try:
            while True:
                for item in itertools.islice(items, self.AHEAD * self.n - len(pending)):
                    pending.append(self.pool.submit(_work, function, item))
                if not pending:
                    return
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise InputError(
                f'a worker process was killed: is there too little memory for {self.n} of them?'
            ) from error


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
