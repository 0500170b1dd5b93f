"""What survives a stop: one run at a time in a folder, signals, checkpoints that appear whole."""

import contextlib
import copy
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from filelock import FileLock, Timeout

from gpt1.weights.safe_load import load_file
from utils import Held, InputError, remove_leftovers, whole_file

GRACE = 1.0  # seconds; torchrun passes on a signal that the terminal has sent already


@contextlib.contextmanager
def only_run(folder: str, *more: str) -> Iterator[None]:
    """Hold `folder` for this process, and remove a killed run's partial files there and in `more`.

    A process that dies, in whatever way, releases the folder. Its file `running` says who holds it,
    and goes with the run. Raises Held.
    """
    running = os.path.join(folder, 'running')
    # FileLock's fallback, a file that exists, would stay behind when a process dies.
    lock = FileLock(os.path.join(folder, 'lock'), fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)  # makes the folder
    except Timeout:
        owner = 'it has just begun'
        with contextlib.suppress(OSError), open(running, errors='replace') as f:
            owner = f.readline(200).strip()
        text = f'another run is writing to {folder}: {owner}; wait for it, or choose another name'
        raise Held(text) from None
    except (OSError, NotImplementedError) as error:
        if not os.path.isdir(folder) or isinstance(error, PermissionError):
            raise InputError(f'cannot write to {folder}: {error.strerror}') from error
        text = f'the file system of {folder} has no locks: do not start a second run there'
        print(f'warning: {text}', file=sys.stderr)
    try:
        for place in (folder, *more):
            remove_leftovers(place)
        with whole_file(running) as f:
            since = time.strftime('%Y-%m-%d %H:%M:%S')
            f.write(f'process {os.getpid()} on {socket.gethostname()}, since {since}\n')
            f.write('If that process is gone, the run was killed: nothing works here any more.\n')
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(running)
        lock.release()


def is_held(folder: str) -> bool:
    """Return whether a run that still works holds a folder, see `only_run`."""
    path = os.path.join(folder, 'lock')
    if not os.path.exists(path):
        return False
    try:
        with FileLock(path, fallback_to_soft=False).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # no locks there, or not for us
        return False


class StopSignals:
    """A context in which signals are noted in `received`, for the run to stop soon.

    They are SIGINT, SIGTERM and, unless it is ignored, SIGHUP: the terminal is lost. A second one
    of the first two ends the process at once. A thread notes the signals: Python runs a signal
    handler only between two of its own steps, and one of these may be a whole backward pass, or a
    wait for another process that has died.
    """

    def __init__(self, several: bool = False):
        """Of several processes only a second SIGINT ends one: torchrun sends SIGTERM by itself."""
        self.second = 'Ctrl-C' if several else 'signal'
        self.final = {signal.SIGINT} if several else {signal.SIGINT, signal.SIGTERM}
        self.received, self.when = 0, 0.0

    def __enter__(self) -> 'StopSignals':
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.fd_before = signal.set_wakeup_fd(self.theirs.fileno(), warn_on_full_buffer=False)
        numbers = [signal.SIGINT, signal.SIGTERM]
        hangup = getattr(signal, 'SIGHUP', None)  # not on Windows
        if hangup and signal.getsignal(hangup) != signal.SIG_IGN:  # as under nohup
            numbers.append(hangup)
        self.before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        threading.Thread(target=self._watch, args=(ours,), daemon=True).start()
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.fd_before)
        self.theirs.close()

    def _watch(self, ours):
        with ours:
            while noted := ours.recv(1):  # until `theirs` is closed
                number = noted[0]
                if number in self.before and not self.received:
                    self.received, self.when = number, time.monotonic()
                    name = signal.Signals(number).name
                    text = f'{name}: finishing this update and writing a checkpoint'
                    print(f'\n{text}; a second {self.second} stops at once', file=sys.stderr)
                elif number in self.final and time.monotonic() - self.when > GRACE:
                    os._exit(128 + number)


class Saver:
    """Writes PyTorch files whole.

    background  write a copy in host memory, in a thread, so that a CUDA device need not wait
    """

    def __init__(self, background: bool):
        self.thread = ThreadPoolExecutor(1) if background else None
        self.writing = None

    def save(self, path: str, state: dict) -> None:
        """Write a file. Raises WriteError; in the background, the next call raises it."""
        self.wait()
        if self.thread:
            self.writing = self.thread.submit(_write, path, _on_host(state))
        else:
            _write(path, state)

    def wait(self) -> None:
        """Wait until the last file is written."""
        writing, self.writing = self.writing, None
        if writing:
            writing.result()


def _on_host(value):
    if isinstance(value, torch.Tensor):
        return value.to('cpu', copy=True)
    if isinstance(value, dict):
        result = copy.copy(value)  # a `state_dict` keeps its attribute `_metadata`
        result.update((key, _on_host(value[key])) for key in value)
        return result
    return value


def _write(path, state):
    with whole_file(path, 'wb') as f:
        torch.save(state, f)


def same_form(value, like) -> bool:
    """Return whether `value` has the structure of `like`: keys, shapes and types."""
    if isinstance(like, dict):
        if not isinstance(value, dict) or value.keys() != like.keys():
            return False
        return all(same_form(value[key], like[key]) for key in like)
    if isinstance(like, torch.Tensor):
        return (
            type(value) is torch.Tensor
            and (value.shape, value.dtype) == (like.shape, like.dtype)
            and value.layout == torch.strided
            and not value.is_meta
            and value.is_contiguous()
        )
    return type(value) is type(like)


def check_identity(before: dict, now: dict, path: str) -> None:
    """Raise InputError if the checkpoint in `path` is that of another run: name -> value."""
    for name in [*now, *before]:  # an option that one of them does not know is like None
        was, value = before.get(name), now.get(name)
        if was != value:
            shown = str(was)[:100]
            raise InputError(f'{path} cannot be resumed: {name} was {shown}, now it is {value}')


def find_checkpoint(path: str, resume: bool) -> dict | None:
    """Return the checkpoint to resume, or None."""
    if resume and os.path.exists(path):
        return load_file(path)
    if resume:
        print('there is no checkpoint to resume: starting at the beginning', flush=True)
    return None
