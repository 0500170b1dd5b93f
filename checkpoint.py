"""A run's work is not lost: one run at a time in a folder, signals that wait for the update, checkpoints that appear whole."""
import contextlib
import os
import pickletools
import signal
import socket
import sys
import time
import zipfile
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
        check_archive(path)
        return torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror or error}') from error
    except Exception as error:  # torch.load promises no exceptions of its own: a damaged file can fail in any of them
        raise InputError(f'{path} is damaged, or no file of parameters: {str(error)[:100] or type(error).__name__}') from error


def check_archive(path):
    """Raise an exception unless `path` is a zip archive whose checksums hold, as PyTorch does not see to, and that is no larger in memory than on disk."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(entry.file_size for entry in entries) > os.path.getsize(path):
            raise ValueError('its parts are larger than the file')
        if damaged := archive.testzip():
            raise ValueError(f'the checksum of {damaged} is wrong')
        for entry in entries:
            if entry.filename.endswith('.pkl'):  # Python crashes when it hashes a tuple in a tuple in a tuple ... a million deep
                opcodes = pickletools.genops(archive.read(entry))
                if sum(opcode.name.startswith('TUPLE') for opcode, *_ in opcodes) > 100_000:
                    raise ValueError('it has more tuples than any model')


def load_parameters(model, path):
    """Load a file of parameters (`best_params`) into `model`. Raises InputError."""
    parameters = load_checkpoint(path)
    try:
        model.load_state_dict(parameters)
    except Exception as error:  # whatever the file holds in their place
        raise InputError(f'{path} does not hold the parameters of this model ({str(error)[-100:]})') from error


def same_form(value, like):
    """Whether `value` is built as `like`: dicts of the same keys, tensors of the same shape and type with all their numbers in memory, objects of one type."""
    if isinstance(like, dict):
        return isinstance(value, dict) and value.keys() == like.keys() and all(same_form(value[key], like[key]) for key in like)
    if isinstance(like, torch.Tensor):
        return (type(value) is torch.Tensor and (value.shape, value.dtype, value.layout) == (like.shape, like.dtype, torch.strided)
                and not value.is_meta and value.is_contiguous())
    return type(value) is type(like)
