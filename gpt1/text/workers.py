"""Processes that share the slow work: encoding text for pre-training and for fine-tuning."""

import contextlib
import gc
import itertools
import math
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from utils import InputError

# For `subprocess.Popen`: a process that the terminal's Ctrl-C does not reach, and what interrupts
# it. Windows can send a single process nothing but a break, see `utils.exit_status`.
if sys.platform == 'win32':
    APART = {'creationflags': subprocess.CREATE_NEW_PROCESS_GROUP}
    INTERRUPT = signal.CTRL_BREAK_EVENT
else:
    APART = {'start_new_session': True}
    INTERRUPT = signal.SIGINT


class Workers:
    """Processes that apply a function to many items, one process on each core.

    >>> with Workers() as workers:
    ...     results = list(workers.map(function, items))

    A pipe leads to each process, and a thread of this process waits for its results. Unlike
    `multiprocessing.Pool`, this needs no shared memory (/dev/shm), and does not wait forever for a
    process that was killed. If no process can be started, this process does the work, and says so.

    n       the number of processes; None: one on each core; 1: this process does the work
    shared  what all calls need, such as a vocabulary: it goes to each process once, and is the
            first argument of the functions. None: they have no such argument
    """

    AHEAD = 4  # items for each process that are taken before they are needed

    def __init__(self, n: int | None = None, shared: object = None):
        self.n = n or available_cores()
        self.shared = shared
        self.processes = []
        self.idle = queue.SimpleQueue()  # of (process, connection)
        if self.n > 1:
            self._start()
        self.threads = ThreadPoolExecutor(self.n)

    def _start(self):
        try:
            for _ in range(self.n):
                ours, theirs = multiprocessing.Pipe()
                with theirs:
                    process = multiprocessing.Process(
                        target=serve, args=(theirs, self.shared), daemon=True
                    )
                    process.start()
                self.processes.append(process)
                self.idle.put((process, ours))
        except OSError as error:
            self.n = max(len(self.processes), 1)
            print(
                f'note      cannot start a process on each core ({error.strerror or error}): '
                f'the work is done in {self.n}',
                flush=True,
            )

    def map(self, function: Callable, items: Iterable) -> Iterator:
        """Yield `function(item)`, or `function(shared, item)`, for each item, in order.

        The function, the items and the results must be picklable. Only a few items are taken ahead
        of the results. An exception in `function` is raised here. Raises InputError if a process
        was killed.
        """
        if not self.processes:
            for item in items:
                yield call(function, self.shared, item)
            return
        items = iter(items)
        pending = deque()
        while True:
            for item in itertools.islice(items, self.AHEAD * self.n - len(pending)):
                pending.append(self.threads.submit(self._call, function, item))
            if not pending:
                return
            yield pending.popleft().result()

    def _call(self, function, item):
        """Let an idle process do the work. Runs in a thread."""
        process, connection = self.idle.get()
        try:
            connection.send((function, item))
            result, error = connection.recv()
        except (EOFError, OSError) as lost:
            process.join()
            raise InputError(
                f'a worker process ended with status {process.exitcode}: was it killed, '
                f'because there is too little memory for {self.n} of them?'
            ) from lost
        finally:
            self.idle.put((process, connection))
        if error:
            raise error
        return result

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()
        self.threads.shutdown(cancel_futures=True)


def available_cores(quota: str = '/sys/fs/cgroup/cpu.max') -> int:
    """The number of cores that this process may use: in a container, those of its `quota`."""
    n = os.cpu_count() or 1
    if hasattr(os, 'sched_getaffinity'):
        n = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        with open(quota, encoding='ascii') as f:
            microseconds, period = f.read().split()  # or: max 100000
        n = min(n, math.ceil(int(microseconds) / int(period)))
    return n


def call(function, shared, item):
    """Apply a function of `Workers.map` to an item."""
    return function(item) if shared is None else function(shared, item)


def serve(connection, shared):
    """The loop of a worker process: receive a function and an item, send the result."""
    # A garbage collection would write to all objects of the parent, and so copy their memory.
    gc.freeze()
    # Ctrl-C is for the parent process. When the parent ends, however it ends, the worker ends too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'SIGBREAK'):  # Windows
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, item = connection.recv()
            try:
                answer = call(function, shared, item), None
            except Exception as error:
                error.add_note(traceback.format_exc())  # shown if nothing catches the error
                answer = None, error
            connection.send(answer)


def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
