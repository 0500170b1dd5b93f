"""Large data sets, read and encoded, are kept on disk for the next run.

    load_data   reads and encodes a data set, or opens what an earlier run has kept

A data set is kept in one file, whose name follows from all that the result depends on: the content
of the data files and where they are, the vocabulary, the options that concern the data, and
`CACHE_VERSION`. So nothing has to be deleted when one of them changes, and everything in the folder
may be deleted at any time. Small data sets are not kept: to encode them takes no longer than to
start.

A file holds arrays of numbers (NumPy's .npz, with a checksum for each). Texts are JSON in arrays of
bytes. Nothing in it can run code. A file that is damaged or foreign is made again.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import time
import zipfile
from argparse import Namespace
from typing import NamedTuple

import numpy as np

from datasets import DATA_OPTIONS, kept_task, read_data, source_files
from gpt1.run.encoding import EncodedData, encode_data, make_dataset
from gpt1.run.record import content_hash
from gpt1.tasks.task import Data, Example, Task
from gpt1.weights.vocabulary import sorted_merges
from text_utils import TextEncoder
from utils import WriteError, remove_leftovers, whole_file

# To be raised with every change of what is read from a file of data, of the ids that a text gets,
# or of what a cache file holds: what earlier versions have kept is then made again.
CACHE_VERSION = 1
LARGE = 10_000_000  # bytes of data files; fewer are read and encoded in a few seconds
# The result depends on these packages, and on Python's tables of Unicode.
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

    Raises InputError, but not if a data set cannot be kept: then it says so.
    """
    paths = source_files(args.dataset, args.data_dir)
    if sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) < LARGE:
        task, text = read(args)
        return LoadedData(task, text, encode_data(text, encoder, task, args.n_ctx))
    key = cache_key(args, encoder)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = os.path.join(args.cache_dir, f'{args.dataset}-{digest}.npz')
    kept = open_kept(path, key, encoder.n_vocab, args.n_ctx)
    if kept is None:
        return make(args, encoder, path, key)
    print(f'encoded   already, in {path}', flush=True)
    return kept


def cache_key(args: Namespace, encoder: TextEncoder) -> str:
    """Return JSON that tells all that an encoded data set depends on. Raises InputError."""
    paths = source_files(args.dataset, args.data_dir)
    vocabulary = json.dumps([encoder.encoder, sorted_merges(encoder)])
    key = {
        'version': CACHE_VERSION,
        'data set': args.dataset,
        'files': [*paths, content_hash(paths)],
        'options': [getattr(args, name) for name in DATA_OPTIONS if name != 'seed'],
        # Only the split of your own data, and a part of the training set, depend on it.
        'seed': args.seed if args.dataset == 'custom' or args.n_train else None,
        'vocabulary': hashlib.sha256(vocabulary.encode()).hexdigest(),
        'Python': platform.python_version(),
        'packages': [importlib.metadata.version(package) for package in PACKAGES],
    }
    return json.dumps(key)


def read(args: Namespace) -> tuple[Task, Data]:
    options = {name: getattr(args, name) for name in DATA_OPTIONS}
    return read_data(args.dataset, args.data_dir, **options)


def make(args: Namespace, encoder: TextEncoder, path: str, key: str) -> LoadedData:
    """Read and encode a data set, and keep it in the file `path`."""
    started = time.monotonic()
    task, text = read(args)
    read_at = time.monotonic()
    encoded = encode_data(text, encoder, task, args.n_ctx)
    encoded_at = time.monotonic()
    if cache_key(args, encoder) == key:
        kept = keep(path, pack(key, task, text, encoded))
    else:
        kept = 'not kept for the next run: the files have changed meanwhile'
    n_tokens = sum(len(data.ids) for data in encoded.sets.values())
    print(
        f'encoded   {n_tokens:,} tokens in {encoded_at - read_at:.1f} s, after reading for '
        f'{read_at - started:.1f} s; {kept}',
        flush=True,
    )
    text.train = []
    return LoadedData(task, text, encoded)


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


def open_kept(path: str, key: str, n_vocab: int, n_ctx: int) -> LoadedData | None:
    """Open a data set that was kept. Returns None if there is none, or if it is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip():
                raise ValueError('a checksum is wrong')
        with np.load(path, allow_pickle=False) as file:
            return unpack(dict(file), key, n_vocab, n_ctx)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can fail in any exception
        reason = ' '.join(str(error).split())[:100]
        print(f'note      {path} is damaged or foreign ({reason}): not used', flush=True)
        return None


# ------------------------------------------------------------------------------- to and from arrays


def pack(key: str, task: Task, text: Data, encoded: EncodedData) -> dict[str, np.ndarray]:
    """Return arrays from which `unpack` makes a data set, without the texts of its training set."""
    facts = {
        'key': key,
        'task': task.to_dict(),
        'notes': text.notes,
        'sources': text.sources,
        'train': encoded.train.names,
        'valid': text.valid,
        'test': text.test,
    }
    arrays = {'facts': np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    sets = {'train': encoded.train}
    for kind in ('valid', 'test'):
        sets |= {f'{kind} {split}': data for split, data in getattr(encoded, kind).items()}
    for name, data in sets.items():
        arrays |= {f'{name} {field}': getattr(data, field) for field in ARRAYS}
    return arrays


def unpack(arrays: dict[str, np.ndarray], key: str, n_vocab: int, n_ctx: int) -> LoadedData:
    """Return the data set of `pack`, cut to n_ctx. Raises an exception if it is not one."""
    facts = json.loads(bytes(arrays['facts']))
    if facts['key'] != key:
        raise ValueError('made from something else')
    task = kept_task(facts['task'])

    def dataset(name, names):
        fields = {field: arrays[f'{name} {field}'] for field in ARRAYS}
        return make_dataset(**fields, names=names, task=task, n_vocab=n_vocab, n_ctx=n_ctx)

    text = Data(notes=facts['notes'], sources=facts['sources'])
    encoded = EncodedData(dataset('train', facts['train']), {}, {})
    for kind in ('valid', 'test'):
        for split, rows in facts[kind].items():
            examples = [Example(id, tuple(texts), label) for id, texts, label in rows]
            getattr(text, kind)[split] = examples
            names = [example.id for example in examples]
            getattr(encoded, kind)[split] = dataset(f'{kind} {split}', names)
    return LoadedData(task, text, encoded)
