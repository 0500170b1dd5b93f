"""Large data sets, read and encoded, are kept on disk for the next run.

    load_data   reads and encodes a data set, or opens what an earlier run has kept

A data set is kept in one file, whose name follows from all that the result depends on: the content
of the data files and where they are, the vocabulary, the options that concern the data, and the
code that reads and encodes. So nothing has to be deleted when one of them changes, and everything
in the folder may be deleted at any time. Small data sets are not kept: to encode them takes no
longer than to start.

A file holds arrays of numbers (NumPy's .npz, with a checksum for each). Texts are JSON in arrays of
bytes. Nothing in it can run code. A file that is damaged or foreign is made again.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from datasets import kept_task, read_data, source_files
from gpt1 import ROOT
from gpt1.run.encoding import EncodedData, EncodedDataset, encode_data, make_dataset
from gpt1.tasks.task import Data, Example, Task
from gpt1.text.text_files import file_hash
from gpt1.weights.vocabulary import sorted_merges
from text_utils import TextEncoder
from utils import InputError, WriteError, remove_leftovers, whole_file

LARGE = 10_000_000  # bytes of data files; fewer are read and encoded in a few seconds
# The result depends on this code, and on these packages.
CODE = (
    'data_cache.py',
    'datasets.py',
    'data_files.py',
    'own_data.py',
    'encoding.py',
    'text_utils.py',
    'spacy2.py',
)
PACKAGES = ('ftfy', 'spacy', 'numpy', 'scikit-learn')
ARRAYS = ('ids', 'offsets', 'first_text', 'labels')  # of an EncodedDataset


class LoadedData(NamedTuple):
    """A data set as text and encoded.

    Of a large one, `text.train` is empty: nothing needs the texts of the training set.
    """

    task: Task
    text: Data
    encoded: EncodedData


def load_data(args: Namespace, encoder: TextEncoder) -> LoadedData:
    """Read and encode a data set, or open what an earlier run has kept.

    args  the options of train.py

    Raises InputError, but not if a data set cannot be kept: then a note is printed.
    """
    paths = source_files(args.dataset, args.data_dir)
    if sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) < LARGE:
        task, text = read(args)
        return LoadedData(task, text, encode_data(text, encoder, task, args.n_ctx))
    source = describe_source(args, paths, encoder)
    digest = hashlib.sha256(source).hexdigest()[:16]
    path = os.path.join(args.cache_dir, f'{args.dataset}-{digest}.npz')
    kept = open_kept(path, source, encoder.n_vocab, args.n_ctx)
    if kept is None:
        return make(args, encoder, path, source)
    print(f'encoded   already, in {path}', flush=True)
    return kept


def read(args: Namespace) -> tuple[Task, Data]:
    options = (args.n_valid, args.seed, args.regression, args.symmetric, args.positive)
    return read_data(args.dataset, args.data_dir, *options)


def make(args: Namespace, encoder: TextEncoder, path: str, source: bytes) -> LoadedData:
    """Read and encode a data set, and keep it in the file `path`."""
    started = time.monotonic()
    task, text = read(args)
    read_at = time.monotonic()
    encoded = encode_data(text, encoder, task, args.n_ctx)
    encoded_at = time.monotonic()
    arrays = pack(LoadedData(task, text, encoded))
    del text
    if is_still(source, args, encoder):
        note = keep(path, {**arrays, 'source': to_bytes(source)})
    else:
        note = 'not kept for the next run: the files have changed meanwhile'
    n_tokens = sum(len(data.ids) for data in encoded.sets.values())
    print(
        f'encoded   {n_tokens:,} tokens in {encoded_at - read_at:.1f} s, after reading for '
        f'{read_at - started:.1f} s; {note}',
        flush=True,
    )
    return unpack(arrays, encoder.n_vocab, args.n_ctx)


# ----------------------------------------------------------------------- what the result depends on


def describe_source(args: Namespace, paths: Iterable[str], encoder: TextEncoder) -> bytes:
    """Return JSON that tells all that an encoded data set depends on. Raises InputError."""
    vocabulary = [sorted(encoder.encoder.items(), key=lambda item: item[1])]
    vocabulary.append(sorted_merges(encoder))
    source = {
        'data set': args.dataset,
        'files': files_hash(paths),
        'options': [args.n_valid, args.regression, args.symmetric, args.positive],
        # Only the split of your own data depends on it.
        'seed': args.seed if args.dataset == 'custom' else None,
        'vocabulary': hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest(),
        'code': files_hash(os.path.join(ROOT, file) for file in CODE),
        # Its tables of Unicode say what is a letter, and which one is lower case.
        'Python': platform.python_version(),
        'packages': {package: version_of(package) for package in PACKAGES},
    }
    return json.dumps(source).encode()


def is_still(source: bytes, args: Namespace, encoder: TextEncoder) -> bool:
    """Whether nothing was changed meanwhile. Otherwise nobody knows what was read."""
    try:
        return describe_source(args, source_files(args.dataset, args.data_dir), encoder) == source
    except InputError:
        return False


def files_hash(paths: Iterable[str]) -> str:
    """Return a hash of the names and the content of files. Raises InputError."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(json.dumps([path, *file_hash(path, 'sha256')]).encode())
    return digest.hexdigest()


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------- to and from arrays


def pack(loaded: LoadedData) -> dict[str, np.ndarray]:
    """Return arrays from which `unpack` makes a data set, without the texts of its training set."""
    task, text, encoded = loaded
    facts = {
        'task': task.to_dict(),
        'notes': text.notes,
        'sources': text.sources,
        'valid': list(encoded.valid),
        'test': list(encoded.test),
    }
    arrays = {'facts': to_bytes(json.dumps(facts).encode())}
    sets = {'train': encoded.train}
    for kind in ('valid', 'test'):
        for split, data in getattr(encoded, kind).items():
            sets[f'{kind} {split}'] = data
            texts = [example.texts for example in getattr(text, kind)[split]]
            arrays[f'{kind} {split} texts'] = to_bytes(json.dumps(texts).encode())
    for name, data in sets.items():
        for field in ARRAYS:
            arrays[f'{name} {field}'] = getattr(data, field)
        arrays[f'{name} names'] = to_bytes(json.dumps(data.names).encode())
    return arrays


def unpack(arrays: dict[str, np.ndarray], n_vocab: int, n_ctx: int) -> LoadedData:
    """Return the data set of `pack`, cut to n_ctx. Raises an exception if it is not one."""
    facts = json.loads(bytes(arrays['facts']))
    task = kept_task(facts['task'])

    def dataset(name):
        fields = {field: arrays[f'{name} {field}'] for field in ARRAYS}
        names = json.loads(bytes(arrays[f'{name} names']))
        data = make_dataset(**fields, names=names, task=task, n_vocab=n_vocab, n_ctx=n_ctx)
        check_dataset(data)
        return data

    text = Data(notes=facts['notes'], sources=facts['sources'])
    encoded = EncodedData(dataset('train'), {}, {})
    for kind in ('valid', 'test'):
        for split in facts[kind]:
            data = dataset(f'{kind} {split}')
            getattr(encoded, kind)[split] = data
            texts = arrays[f'{kind} {split} texts']
            getattr(text, kind)[split] = StoredExamples(data, texts)
    return LoadedData(task, text, encoded)


def check_dataset(data: EncodedDataset) -> None:
    """Raise ValueError if the arrays contradict each other."""
    n = len(data.names)
    for starts, end in ((data.offsets, len(data.ids)), (data.first_text, len(data.offsets) - 1)):
        if starts[0] != 0 or starts[-1] != end or (np.diff(starts) < 0).any():
            raise ValueError('parts that do not follow each other')
    if len(data.first_text) != n + 1 or len(data.labels) != n:
        raise ValueError('numbers of examples that differ')
    if data.ids.max(initial=0) >= data.n_vocab:
        raise ValueError('a token id that is not in the vocabulary')


class StoredExamples(Sequence):
    """The examples of a set as text. They are decoded when the first one is needed."""

    def __init__(self, data: EncodedDataset, texts: np.ndarray):
        self.data, self.texts = data, texts

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index):
        return self._examples[index]

    @functools.cached_property
    def _examples(self) -> list[Example]:
        labels = self.data.labels.tolist()
        unknown = -1 if self.data.labels.dtype == np.int64 else None
        # NaN, an unknown score, is not equal to itself.
        labels = [None if label == unknown or label != label else label for label in labels]
        texts = map(tuple, json.loads(bytes(self.texts)))
        return list(map(Example, self.data.names, texts, labels))


def to_bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


# ---------------------------------------------------------------------------------------- the files


def open_kept(path: str, source: bytes, n_vocab: int, n_ctx: int) -> LoadedData | None:
    """Open a data set that was kept. Returns None if there is none, or if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if bytes(arrays['source']) != source:
            raise ValueError('made from something else')
        return unpack(arrays, n_vocab, n_ctx)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can fail in any exception
        reason = ' '.join(str(error).split())[:100]
        print(f'note      {path} is damaged or foreign ({reason}): not used', flush=True)
        return None


def keep(path: str, arrays: dict[str, np.ndarray]) -> str:
    """Write arrays to a file. Returns in words whether that was possible."""
    folder = os.path.dirname(path)
    try:
        if os.path.isdir(folder):
            remove_leftovers(folder)
        with whole_file(path, 'wb') as f:
            np.savez(f, **arrays)
    except (OSError, WriteError) as error:
        return f'not kept for the next run: {error}'
    return f'kept in {path}'
