"""Load tensors from files of PyTorch and of safetensors that may come from anywhere.

Nothing in them can run code or ask for more memory than the file has bytes. What is damaged raises
`InputError` with one line.
"""

import os
import pickletools
import zipfile

import torch

from utils import InputError, OutOfMemory, check_not_pointer, is_out_of_memory


def load_file(path: str) -> object:
    """Load what `torch.save` wrote to `path`, or the tensors of a `.safetensors`, by name."""
    check_not_pointer(path)
    try:
        if path.endswith('.safetensors'):
            import safetensors.torch

            with open(path, 'rb'):  # says in a few words why a file cannot be read
                return safetensors.torch.load_file(path)
        zipped = zipfile.is_zipfile(path)  # files from before PyTorch 1.6 are not
        if zipped:
            _check_archive(path)
        else:
            with open(path, 'rb') as f:
                for _ in range(5):  # five pickles, then the numbers
                    _check_pickle(f)
        mapped = zipped and path.isascii()  # PyTorch maps no file whose name is not UTF-8
        return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror or error}') from error
    except Exception as error:  # a damaged file can raise any exception
        if is_out_of_memory(error):
            size = os.path.getsize(path) / 1e6
            raise OutOfMemory(f'out of memory: cannot load {path} ({size:,.1f} MB)') from error
        reason = str(error)[:100] or type(error).__name__
        raise InputError(f'{path} is damaged, or not a file of parameters: {reason}') from error


def read_numbers(p: torch.Tensor, name: str, path: str) -> torch.Tensor:
    """Return a tensor as float32. Raises InputError unless it has finite numbers from its file."""
    plain = p.layout == torch.strided and p.device.type == 'cpu' and p.is_floating_point()
    if not plain or p.numel() > os.path.getsize(path):
        raise InputError(f'{path}: {name} is not an array of numbers')
    p = p.detach().float()
    if not torch.isfinite(p).all():
        raise InputError(f'{path}: {name} contains NaN or infinity')
    return p


def _check_archive(path: str) -> None:
    """Raise an exception for what PyTorch does not check: damage, and parts that are too large."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > os.path.getsize(path):
            raise ValueError('its parts are larger than the file')
        damaged = archive.testzip()
        if damaged:
            raise ValueError(f'the checksum of {damaged} is wrong')
        for entry in entries:
            if entry.filename.endswith('.pkl'):
                _check_pickle(archive.read(entry))


def _check_pickle(pickle) -> None:
    # Python's stack overflows when it hashes a tuple that is nested a million times.
    n_tuples = sum(opcode.name.startswith('TUPLE') for opcode, *_ in pickletools.genops(pickle))
    if n_tuples > 100_000:
        raise ValueError('it has more tuples than any model')
