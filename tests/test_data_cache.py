"""Token ids that are kept for the next run."""

import json
import os
import pickle
import random
from argparse import Namespace

import numpy as np
import pytest
from small_files import put
from tiny_models import encoder

from datasets import DATA_OPTIONS, TASKS
from gpt1.report.log import plain
from gpt1.run import data_cache
from gpt1.run.encoding import encode_texts
from text_utils import TextEncoder

WORDS = 'Ella had no tape and she went to the store at night with a happy dog'.split()
PARTS = ('train', 'dev', 'test')


def snli(n=24):
    """Rows of different lengths, with characters that JSON and UTF-8 write in several ways."""
    rng = random.Random(0)
    labels = [*TASKS['snli'].labels, '-']
    ends = ['.', ' "so".', ' né\u2028.', ' \\n.']
    files = {}
    for split in PARTS:
        rows = []
        for i in range(n):
            a, b = (' '.join(rng.choices(WORDS, k=rng.randint(1, 9))) + ends[i % 4] for _ in 'ab')
            row = {'gold_label': labels[i % 4], 'sentence1': a, 'sentence2': b, 'pairID': f'{i}#é'}
            rows.append(json.dumps(row))
        files[f'snli_1.0/snli_1.0_{split}.jsonl'] = rows
    return files


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(data_cache, 'LARGE', 0)
    data = {'dataset': 'snli', 'data_dir': put(tmp_path / 'data', snli()), 'n_ctx': 40}
    rest = dict.fromkeys(DATA_OPTIONS) | {'seed': 42}
    return Namespace(cache_dir=str(tmp_path / 'cache'), **data, **rest)


def kept_files(options):
    names = sorted(os.listdir(options.cache_dir))
    return [os.path.join(options.cache_dir, name) for name in names]


@pytest.fixture
def load(capsys):
    """A function that loads, and returns what, as words, and how many sets were kept before."""

    def load(options, encoder=encoder()):  # noqa: B008 (the same one for all)
        loaded = data_cache.load_data(options, encoder)
        return repr(loaded), capsys.readouterr().out.count('encoded   already')

    return load


def test_what_is_kept_is_what_is_encoded(options, load, monkeypatch):
    expected, n_kept = load(options)
    assert n_kept == 0 and len(kept_files(options)) == 3
    monkeypatch.setattr(data_cache, 'encode_texts', None)
    assert load(options) == (expected, 3)
    options.n_ctx = 12  # what is kept is not cut
    _, _, encoded = data_cache.load_data(options, encoder())
    assert encoded.train.n_cut > 0 and encoded.longest == 12


# -------------------------------------------------------------------------- what ids depend on

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


def other_text(options, monkeypatch):
    for split in PARTS:
        path = os.path.join(options.data_dir, 'snli_1.0', f'snli_1.0_{split}.jsonl')
        with open(path) as f:
            text = f.read()
        with open(path, 'w') as f:
            f.write(text.replace('tape', 'dogs', 1))


def other_symbols(*_):
    symbols = dict(encoder().encoder)
    symbols['t'], symbols['e'] = symbols['e'], symbols['t']
    return TextEncoder.from_vocabulary(symbols, encoder().bpe_ranks)


def other_merges(*_):
    merges = dict(encoder().bpe_ranks)
    merges.popitem()
    return TextEncoder.from_vocabulary(encoder().encoder, merges)


def other_library(_, monkeypatch):
    monkeypatch.setattr('importlib.metadata.version', lambda package: '0')


@pytest.mark.parametrize('change', [other_text, other_symbols, other_merges, other_library])
def test_a_change_is_noticed(options, load, monkeypatch, change):
    load(options)
    other = change(options, monkeypatch) or encoder()
    loaded, n_kept = load(options, other)
    assert n_kept == 0 and len(kept_files(options)) == 6
    assert load(options, other) == (loaded, 3)


# ------------------------------------------------------------------- damaged, or not to be written


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ('was_here',)


DAMAGES = {
    'empty': lambda path: os.truncate(path, 0),
    'cut off': lambda path: os.truncate(path, os.path.getsize(path) * 2 // 3),
    'of other texts': lambda path: np.savez(path, ids=np.arange(3), offsets=np.array([0, 3])),
    'without an array': lambda path: np.savez(path, ids=np.arange(3)),
    'pickled': lambda path: pickle.dump(RunsCode(), open(path, 'wb')),  # noqa: SIM115
    'pickled array': lambda path: np.savez(path, ids=np.array([RunsCode()], dtype=object)),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_made_again(tmp_path, options, capsys, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    expected = repr(data_cache.load_data(options, encoder()))
    for path in kept_files(options):
        DAMAGES[damage](path)
    capsys.readouterr()
    for n_damaged, n_kept in ((3, 0), (0, 3)):
        assert repr(data_cache.load_data(options, encoder())) == expected
        printed = capsys.readouterr().out
        assert printed.count('is damaged or foreign (') == n_damaged
        assert printed.count('encoded   already') == n_kept
    assert not os.path.exists('was_here')


def test_any_damaged_byte_is_noticed_or_changes_nothing(options, load):
    expected, _ = load(options)
    path = max(kept_files(options), key=os.path.getsize)
    with open(path, 'rb') as f:
        whole = f.read()
    rng = random.Random(0)
    for place in rng.choices(range(len(whole)), k=40):
        with open(path, 'wb') as f:
            f.write(whole[:place] + bytes([rng.randrange(256)]) + whole[place + 1 :])
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


# --------------------------------------------------------------------------------------- whole runs


def all_large():
    data_cache.LARGE = 0


def test_a_run_with_kept_ids_is_the_same(command, other_command):
    results = []
    for run, patch, printed in (
        (other_command, None, 'device'),
        (command, all_large, 'kept in'),
        (command, all_large, 'encoded   already'),
    ):
        folders = ['--data_dir', put(run.folder / 'data', snli(40))]
        folders += ['--cache_dir', run.folder / 'cache']
        options = ['--dataset', 'snli', '--n_iter', 1, '--analysis', *folders]
        assert printed in run.run(*options, patch=patch)
        report = run.read('analysis/snli/report.md').decode().replace(plain(str(run.folder)), '')
        paths = ('submission/SNLI.tsv', 'analysis/snli/predictions.csv')
        results.append([report, run.log('snli')[1:], *map(run.read, paths)])
    assert results[0] == results[1] == results[2]
    assert not (other_command.folder / 'cache').exists()
