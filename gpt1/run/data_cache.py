"""The token ids of large data sets are kept on disk for the next run.

The name of a file follows from all that the ids depend on: the texts, the vocabulary, the packages
that split them, and `CACHE_VERSION`. So nothing has to be deleted when one of them changes, and
everything in the folder may be deleted at any time. A file holds arrays of numbers (NumPy's .npz,
with a checksum for each), and nothing in it can run code. One that is damaged is made again.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from argparse import Namespace
from collections.abc import Sequence

import numpy as np

from datasets import DATA_OPTIONS, read_data
from gpt1.run.encoding import CHUNK, EncodedData, encode_data, encode_texts
from gpt1.tasks.task import Data, Task
from gpt1.weights.vocabulary import sorted_merges
from text_utils import TextEncoder
from utils import WriteError, remove_leftovers, whole_file

CACHE_VERSION = 2  # to be raised with every change of the ids that a text gets
LARGE = 10_000_000  # characters; fewer are encoded in a few seconds
PACKAGES = ('ftfy', 'spacy')  # that ids depend on, beside Python's tables of Unicode


def load_data(args: Namespace, encoder: TextEncoder) -> tuple[Task, Data, EncodedData]:
    """Read the data set of train.py's options, and encode it or take the ids that are kept.

    The texts of the training set, which may be large, are not returned: nothing needs them.
    Raises InputError, but not if ids cannot be kept: then it says so.
    """
    options = {name: getattr(args, name) for name in DATA_OPTIONS}
    task, text = read_data(args.dataset, args.data_dir, **options)

    def encode(texts, encoder):
        if sum(map(len, texts)) < LARGE:
            return encode_texts(texts, encoder)
        path = os.path.join(args.cache_dir, f'{args.dataset}-{cache_key(texts, encoder)}.npz')
        return open_kept(path) or encode_and_keep(texts, encoder, path)

    encoded = encode_data(text, encoder, task, args.n_ctx, encode)
    text.train = []
    return task, text, encoded


def cache_key(texts: Sequence[str], encoder: TextEncoder) -> str:
    """32 hexadecimal digits that tell all that the ids of texts depend on."""
    versions = [importlib.metadata.version(package) for package in PACKAGES]
    about = [CACHE_VERSION, platform.python_version(), versions]
    digest = hashlib.sha256(json.dumps([about, encoder.encoder, sorted_merges(encoder)]).encode())
    for i in range(0, len(texts), CHUNK):
        digest.update(json.dumps(texts[i : i + CHUNK]).encode())
    return digest.hexdigest()[:32]


def open_kept(path: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Ids and offsets that were kept, see `EncodedDataset`; None if there are none."""
    try:
        with np.load(path, allow_pickle=False) as file:  # it reads to the end: checksums are tested
            kept = file['ids'], file['offsets']
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged file can fail in any exception
        reason = ' '.join(str(error).split())[:100]
        print(f'note      {path} is damaged or foreign ({reason}): not used', flush=True)
        return None
    print(f'encoded   already, in {path}', flush=True)
    return kept


def encode_and_keep(texts: Sequence[str], encoder: TextEncoder, path: str) -> tuple:
    started = time.monotonic()
    ids, offsets = encode_texts(texts, encoder)
    seconds = time.monotonic() - started
    kept = f'kept in {path}'
    try:
        with contextlib.suppress(OSError):
            remove_leftovers(os.path.dirname(path))
        with whole_file(path, 'wb') as f:
            np.savez(f, ids=ids, offsets=offsets)
    except WriteError as error:
        kept = f'not kept for the next run: {error}'
    print(f'encoded   {len(ids):,} tokens in {seconds:.1f} s; {kept}', flush=True)
    return ids, offsets
