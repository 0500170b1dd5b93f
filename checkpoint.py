"""A run's work is not lost: one run at a time in a folder, signals that wait for the update, checkpoints that appear whole."""

import contextlib
import os
import pickletools
import re
import signal
import socket
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import torch
from filelock import FileLock, Timeout
from torch.utils._pytree import tree_map_only

from model_pytorch import Config, DoubleHeadModel, read_settings
from utils import SPECIAL_TOKENS, InputError, whole_file


@contextlib.contextmanager
def only_run(folder, *more):
    """Hold `folder` for this process, and clear away what a killed one left half-written there and in the folders `more`, which are its own too.

    Raises InputError naming the process that holds it. A process that dies, however it dies, lets go.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        lock = FileLock(os.path.join(folder, 'lock'))
        lock.acquire(timeout=0)
    except Timeout:
        who = 'it has just begun'
        with (
            contextlib.suppress(OSError),
            open(os.path.join(folder, 'running'), encoding='utf-8', errors='replace') as f,
        ):
            who = f.read(200)
        raise InputError(
            f'a run that writes to {folder} is going on: {who.strip()}; wait for it, or choose another name'
        ) from None
    except OSError as error:
        raise InputError(f'cannot write to {folder}: {error.strerror}') from error
    try:
        for place in (folder, *more):
            for name in os.listdir(place):
                if name.endswith('.part'):
                    os.unlink(os.path.join(place, name))
        with whole_file(os.path.join(folder, 'running')) as f:
            f.write(
                f'process {os.getpid()} on {socket.gethostname()}, since {time.strftime("%Y-%m-%d %H:%M:%S")}\n'
            )
        yield
    finally:
        lock.release()


class StopSignals:
    """Within it, SIGINT and SIGTERM are noted in `received`, for the run to stop after its update; a second one ends the process at once.

    A thread notes them: Python runs a signal's handler between two of its own steps, and one of those may be a whole backward pass, or a wait for
    another process that has died.
    """

    def __enter__(self):
        self.received, self.when = 0, 0
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.fd_before = signal.set_wakeup_fd(self.theirs.fileno(), warn_on_full_buffer=False)
        self.before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        threading.Thread(target=self._watch, args=(ours,), daemon=True).start()
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.fd_before)
        self.theirs.close()

    def _watch(self, ours):
        with ours:
            while number := ours.recv(1):  # until `theirs` is closed
                if number[0] in self.before:
                    self._note(number[0])

    def _note(self, number):
        if not self.received:
            self.received, self.when = number, time.monotonic()
            with contextlib.suppress(OSError):  # what reads it may be gone
                print(
                    f'\n{signal.Signals(number).name}: finishing this update and writing a checkpoint; once more to stop at once',
                    file=sys.stderr,
                )
        elif (
            time.monotonic() - self.when > 1
        ):  # torchrun passes on a signal that the terminal has sent already
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
            self.writing = self.thread.submit(
                self._write,
                path,
                tree_map_only(torch.Tensor, lambda tensor: tensor.to('cpu', copy=True), state),
            )
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
        zipped = zipfile.is_zipfile(path)  # before PyTorch 1.6 they were not
        check_archive(path) if zipped else check_pickles(path)
        return torch.load(path, map_location='cpu', weights_only=True, mmap=zipped)
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror or error}') from error
    except Exception as error:  # torch.load promises no exceptions of its own: a damaged file can fail in any of them
        raise InputError(
            f'{path} is damaged, or no file of parameters: {str(error)[:100] or type(error).__name__}'
        ) from error


def check_archive(path):
    """Raise an exception unless `path` is a zip archive whose checksums hold (PyTorch does not look), and no larger in memory than on disk."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(
            entry.file_size for entry in entries
        ) > os.path.getsize(path):
            raise ValueError('its parts are larger than the file')
        if damaged := archive.testzip():
            raise ValueError(f'the checksum of {damaged} is wrong')
        for entry in entries:
            if entry.filename.endswith('.pkl'):
                check_pickle(archive.read(entry))


def check_pickles(path):
    """The same for a file of the old format: five pickles, and the numbers."""
    with open(path, 'rb') as f:
        for _ in range(5):
            check_pickle(f)


def check_pickle(pickle):
    """Raise an exception at more tuples than any model has: Python crashes when it hashes one in one in one ... a million deep."""
    for number, _ in enumerate(
        opcode for opcode, *_ in pickletools.genops(pickle) if opcode.name.startswith('TUPLE')
    ):
        if number > 100_000:
            raise ValueError('it has more tuples than any model')


def read_parameters(path):
    """The parameters in a `best_params`, in a checkpoint to resume from, or in a file of the earlier PyTorch port: name -> tensor.

    That port's files may also hold the masks of its attention, a second name for the embedding, and `module.` before each name.
    All are checked: the names and shapes of a `DoubleHeadModel`, float32, finite. Raises InputError.
    """
    state, size = load_checkpoint(path), os.path.getsize(path)
    if isinstance(state, dict) and isinstance(state.get('model'), dict):
        state = state['model']
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(p, torch.Tensor) for name, p in state.items()
    ):
        raise InputError(f'{path} is no file of parameters: expected a dict from names to tensors')
    state = {name.removeprefix('module.'): p.detach() for name, p in state.items()}
    state = {
        name: p
        for name, p in state.items()
        if name != 'lm_head.decoder.weight'
        and not re.fullmatch(r'transformer\.h\.\d+\.attn\.b', name)
    }
    for name, p in state.items():
        if (
            p.layout != torch.strided
            or p.device.type != 'cpu'
            or p.dtype != torch.float32
            or 4 * p.numel() > size
            or not torch.isfinite(p).all()
        ):
            raise InputError(f'{path}: {name} is not an array of finite float32 numbers')
    embed = state.get('transformer.embed.weight', torch.empty(0))
    if embed.dim() != 2 or len(embed) < 2 + len(SPECIAL_TOKENS) or not embed.shape[1]:
        raise InputError(
            f'{path} does not hold the parameters of a GPT: it has no embedding, transformer.embed.weight'
        )
    with torch.device(
        'meta'
    ):  # draws no random numbers: a run that goes on reads its parameters, too
        like = DoubleHeadModel(
            Config(
                n_vocab=len(embed) - len(SPECIAL_TOKENS) - 1,
                n_ctx=1,
                n_embd=embed.shape[1],
                n_head=1,
                n_layer=1,
            )
        )
    n_layer = sum(name.endswith('.ln_1.g') for name in state)
    wanted = {
        name.replace('.h.0.', f'.h.{i}.'): p.shape
        for i in range(n_layer)
        for name, p in like.named_parameters()
    }
    for name in sorted(wanted.keys() ^ state.keys()):
        raise InputError(
            f'{path} does not hold the parameters of a GPT with a classifier: it has {"no" if name in wanted else "a stray"} {name}'
        )
    for name, shape in wanted.items():
        if state[name].shape != shape:
            raise InputError(f'{path}: {name} is {list(state[name].shape)}, expected {list(shape)}')
    return state


def load_parameters(model, path):
    """Load a file of parameters (`best_params`) into `model`. Raises InputError."""
    try:
        model.load_state_dict(read_parameters(path))
    except RuntimeError as error:
        raise InputError(
            f'{path} does not hold the parameters of this model ({str(error).splitlines()[-1].strip()[:100]})'
        ) from error


def same_form(value, like):
    """Whether `value` is built as `like`: dicts of the same keys, tensors of the same shape and type with all their numbers, objects of one type."""
    if isinstance(like, dict):
        return (
            isinstance(value, dict)
            and value.keys() == like.keys()
            and all(same_form(value[key], like[key]) for key in like)
        )
    if isinstance(like, torch.Tensor):
        return (
            type(value) is torch.Tensor
            and (value.shape, value.dtype, value.layout) == (like.shape, like.dtype, torch.strided)
            and not value.is_meta
            and value.is_contiguous()
        )
    return type(value) is type(like)


def load_finetuned_model(path, n_vocab, n_head=None, afn=None):
    """A `DoubleHeadModel` with the parameters of a file (see `read_parameters`), for evaluation. The file is mapped, not copied.

    n_vocab      size of the vocabulary it was trained with; with it, the other sizes follow from the shapes
    n_head, afn  where settings.json beside the file does not tell: 12 and gelu
    Raises InputError.
    """
    state, settings = read_parameters(path), read_settings(os.path.dirname(path))
    n_head, afn = n_head or settings.get('n_head', 12), afn or settings.get('afn', 'gelu')
    rows, n_embd = state['transformer.embed.weight'].shape
    n_ctx = rows - n_vocab - len(SPECIAL_TOKENS)
    if n_ctx < 1:
        raise InputError(
            f"{path} has an embedding of {rows:,} rows, too few for the vocabulary's {n_vocab:,} symbols: it was trained with another"
        )
    if n_embd % n_head:
        raise InputError(f'{path} has states of width {n_embd}, not divisible by --n_head {n_head}')
    n_layer = sum(name.endswith('.ln_1.g') for name in state)
    model = DoubleHeadModel(
        Config(n_vocab=n_vocab, n_ctx=n_ctx, n_embd=n_embd, n_head=n_head, n_layer=n_layer, afn=afn)
    )
    model.load_state_dict(state, assign=True)
    return model.requires_grad_().eval()
