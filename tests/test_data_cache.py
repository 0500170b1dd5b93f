"""Token ids that are kept for the next run."""

import os
import pickle
import random
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from small_files import WORDS, put, snli_json
from tiny_models import encoder

from datasets import DATA_OPTIONS
from gpt1.run import data_cache
from gpt1.run.encoding import encode_texts
from text_utils import TextEncoder


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(data_cache, 'LARGE', 0)
    sizes = {'train': 6, 'dev': 4, 'test': 3}
    files = {f'snli_1.0_{part}.jsonl': snli_json(WORDS * n) for part, n in sizes.items()}
    data = {'dataset': 'snli', 'data_dir': put(tmp_path / 'data', files), 'n_ctx': 40}
    rest = dict.fromkeys(DATA_OPTIONS) | {'seed': 42}
    return Namespace(cache_dir=str(tmp_path / 'cache'), **data, **rest)


def kept_files(options):
    names = sorted(os.listdir(options.cache_dir))
    return [os.path.join(options.cache_dir, name) for name in names]


@pytest.fixture
def load(capsys):
    """A function that loads; it returns what, as words, and how many sets were kept or damaged."""

    def load(options):
        loaded = repr(data_cache.load_data(options, encoder()))
        printed = capsys.readouterr().out
        return loaded, *map(printed.count, ('encoded   already', 'is damaged or foreign ('))

    return load


def test_what_is_kept_is_what_is_encoded(options, load, monkeypatch):
    expected, *counts = load(options)
    assert counts == [0, 0] and len(kept_files(options)) == 3
    monkeypatch.setattr(data_cache, 'encode_texts', None)
    assert load(options) == (expected, 3, 0)
    options.n_ctx = 10  # what is kept is not cut
    _, _, encoded = data_cache.load_data(options, encoder())
    assert encoded.train.n_cut > 0 and encoded.longest == 10


PINNED = {2: [91, 27, 42]}
TEXTS = [
    "Tom couldn't go -- he'd won $1,000!\nIt rained in May. R&amp;b…",
    "“cause” :) see www.example.com/a_b?c=d, cafÃ©; 58m. or c'mon",
]


def test_a_change_of_the_ids_raises_the_version():
    """Who changes a rule raises CACHE_VERSION, and writes it and the new numbers to PINNED."""
    ids = encode_texts(TEXTS, encoder())[0].tolist()
    found = [len(ids), sum(ids) % 100, sum(i * n for n, i in enumerate(ids)) % 100]
    assert {data_cache.CACHE_VERSION: found} == PINNED


def test_a_change_of_what_ids_depend_on_gives_another_key(monkeypatch):
    """Of the texts, the symbols, the merges or a library."""
    symbols, merges, fewer = encoder().encoder, encoder().bpe_ranks, dict(encoder().bpe_ranks)
    swapped = symbols | {'t': symbols['e'], 'e': symbols['t']}
    fewer.popitem()
    encoders = [encoder(), TextEncoder(swapped, merges), TextEncoder(symbols, fewer)]
    keys = [data_cache.cache_key(TEXTS, each) for each in encoders]
    assert data_cache.cache_key(TEXTS, encoder()) == keys[0]
    keys.append(data_cache.cache_key(TEXTS[:1], encoder()))
    monkeypatch.setattr('importlib.metadata.version', lambda package: '0')
    keys.append(data_cache.cache_key(TEXTS, encoder()))
    assert len(set(keys)) == 5


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ('was_here',)


DAMAGES = {
    'empty': lambda path: os.truncate(path, 0),
    'cut off': lambda path: os.truncate(path, os.path.getsize(path) * 2 // 3),
    'pickled': lambda path: pickle.dump(RunsCode(), open(path, 'wb')),  # noqa: SIM115
    'pickled array': lambda path: np.savez(path, ids=np.array([RunsCode()], dtype=object)),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_made_again(tmp_path, options, load, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    expected, *_ = load(options)
    for path in kept_files(options):
        DAMAGES[damage](path)
    assert load(options) == (expected, 0, 3)
    assert load(options) == (expected, 3, 0)
    assert not os.path.exists('was_here')


def test_any_damaged_byte_is_noticed_or_changes_nothing(options, load):
    expected, *_ = load(options)
    path = Path(kept_files(options)[0])
    whole, rng = path.read_bytes(), random.Random(0)
    for place in rng.choices(range(len(whole)), k=40):
        path.write_bytes(whole[:place] + bytes([rng.randrange(256)]) + whole[place + 1 :])
        assert load(options)[0] == expected


def test_half_written_files_go_and_a_folder_that_cannot_be_written_is_no_error(options, capsys):
    os.mkdir(options.cache_dir)
    open(os.path.join(options.cache_dir, f'.snli-1.npz.{2**31 - 1}.part'), 'wb').close()
    data_cache.load_data(options, encoder())
    assert all(path.endswith('.npz') for path in kept_files(options))
    options.cache_dir = os.path.join(kept_files(options)[0], 'cache')
    _, _, encoded = data_cache.load_data(options, encoder())
    assert 'not kept for the next run: cannot write' in capsys.readouterr().out
    assert len(encoded.train) == 18
