"""A run's work is not lost: one run at a time in a folder, signals that wait for the update, checkpoints that appear whole."""
import contextlib
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch
from filelock import FileLock, Timeout
from torch.utils._pytree import tree_map_only

from utils import InputError, whole_file


@contextlib.contextmanager
def only_run(folder):
    """Hold `folder` for this process, and clear away what a killed one left half-written there.

    Raises InputError naming the process that holds it. A process that dies, however it dies, lets go.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        lock = FileLock(os.path.join(folder, 'lock'))
        lock.acquire(timeout=0)
    except Timeout:
        with open(os.path.join(folder, 'running'), encoding='utf-8') as f:
            raise InputError(f'a run that writes to {folder} is going on: {f.read().strip()}; wait for it, or choose another name') from None
    except OSError as error:
        raise InputError(f'cannot write to {folder}: {error.strerror}') from error
    try:
        for name in os.listdir(folder):
            if name.endswith('.part'):
                os.unlink(os.path.join(folder, name))
        with whole_file(os.path.join(folder, 'running')) as f:
            f.write(f'process {os.getpid()} on {socket.gethostname()}, since {time.strftime("%Y-%m-%d %H:%M:%S")}\n')
        yield
    finally:
        lock.release()


class StopSignals:
    """Within it, SIGINT and SIGTERM are noted in `received`, for the run to stop after its update; a second one ends the process at once."""

    def __enter__(self):
        self.received, self.when = 0, 0
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        if not self.received:
            self.received, self.when = number, time.monotonic()
            print(f'\n{signal.Signals(number).name}: finishing this update and writing a checkpoint; once more to stop at once', file=sys.stderr)
        elif time.monotonic() - self.when > 1:  # torchrun passes on a signal that the terminal has sent already
            os._exit(128 + number)


class Saver:
    """Writes PyTorch files whole. `background`: from a copy in host memory, in a thread of its own, so that a CUDA device need not wait."""

    def __init__(self, background):
        self.thread = ThreadPoolExecutor(1) if background else None
        self.writing = None

    def save(self, path, state):
        """Raises InputError if it cannot be written (in the background: at the next call)."""
        self.wait()
        if self.thread:
            self.writing = self.thread.submit(self._write, path, tree_map_only(torch.Tensor, lambda tensor: tensor.to('cpu', copy=True), state))
        else:
            self._write(path, state)

    def wait(self):
        if self.writing:
            writing, self.writing = self.writing, None
            writing.result()

    @staticmethod
    def _write(path, state):
        with whole_file(path, 'wb') as f:
            torch.save(state, f)


def load_checkpoint(path):
    """What `Saver` wrote, its tensors mapped from the file. Runs no code from it. Raises InputError."""
    try:
        return torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror or error}') from error
    except Exception as error:  # torch.load promises no exceptions of its own: a damaged file can fail in any of them
        raise InputError(f'{path} is damaged, or no file of parameters: {str(error).splitlines()[0][:100] if str(error) else type(error).__name__}') from error


def load_parameters(model, path):
    """Load a file of parameters (`best_params`) into `model`. Raises InputError."""
    try:
        model.load_state_dict(load_checkpoint(path))
    except (AttributeError, TypeError, RuntimeError) as error:
        raise InputError(f'{path} does not hold the parameters of this model ({str(error).splitlines()[-1].strip()[:100]})') from error
