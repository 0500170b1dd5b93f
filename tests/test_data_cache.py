"""Encoded data sets that are kept for the next run."""

import hashlib
import json
import os
import pickle
import shutil
from argparse import Namespace

import numpy as np
import pytest
from test_datasets import put
from test_parallel import run_ranks
from test_resume import NO_DROPOUT
from tiny_models import encoder

from datasets import TASKS, read_data, source_files
from gpt1.report.log import plain
from gpt1.run import data_cache
from gpt1.run.encoding import encode_data
from text_utils import TextEncoder

WORDS = 'Ella had no tape and she went to the store at night with a happy dog'.split()


def sentences(n, seed=0):
    """Sentences of different lengths, with characters that JSON and UTF-8 write in several ways."""
    random = np.random.RandomState(seed)
    ends = ['.', ' "so".', ' né\u2028.', ' \\n.']
    return [' '.join(random.choice(WORDS, random.randint(1, 9))) + ends[i % 4] for i in range(n)]


def snli(n=24, test=True):
    files = {}
    labels = [*TASKS['snli'].labels, '-']
    for split in ('train', 'dev', 'test')[: 3 if test else 2]:
        rows = zip(sentences(n), sentences(n, seed=1))
        files[f'snli_1.0/snli_1.0_{split}.jsonl'] = [
            json.dumps(
                {'gold_label': labels[i % 4], 'sentence1': a, 'sentence2': b, 'pairID': f'{i}#é'}
            )
            for i, (a, b) in enumerate(rows)
        ]
    return files


def mnli():
    header = ['index', 'sentence1', 'sentence2', 'gold_label']
    rows = [[str(i), a, a[::2], TASKS['mnli'].labels[i % 3]] for i, a in enumerate(sentences(6))]
    splits = 'train', 'dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched'
    files = {f'MNLI/{split}.tsv': [header, *rows] for split in splits}
    return files | {'MNLI/diagnostic.tsv': [header[:3], *(row[:3] for row in rows)]}


def race():
    files = {}
    for split in ('train', 'dev', 'test'):
        for level in ('middle', 'high'):
            for i, article in enumerate(sentences(3)):
                passage = {
                    'article': article,
                    'id': f'{level}{i}.txt',
                    'questions': ['Who had a dog?', 'Where?'],
                    'options': [['a', 'Ella', 'the store', 'no'], ['at night', 'a', 'b', 'c']],
                    'answers': ['B', 'A'],
                }
                files[f'RACE/{split}/{level}/{i}.txt'] = json.dumps(passage)
    return files


def choices():
    """Choices whose number varies, and a test set without labels."""
    rows = [
        {'context': a, 'choice1': 'a dog', 'choice2': 'tape', 'choice3': '', 'label': 2}
        for a in sentences(20)
    ]
    rows[3]['choice3'] = 'the night'
    test = [{key: value for key, value in row.items() if key != 'label'} for row in rows]
    return {'train.jsonl': list(map(json.dumps, rows)), 'test.jsonl': list(map(json.dumps, test))}


def numbers():
    rows = [f'{a!r};{i / 7}' for i, a in enumerate(sentences(20))]
    return {'train.csv': ['text;label', *rows], 'valid.csv': ['text;label', *rows[::2]]}


DATA_SETS = {
    'snli': ('snli', snli, {}),
    'mnli': ('mnli', mnli, {}),
    'race': ('race', race, {}),
    'choices': ('custom', choices, {}),
    'numbers': ('custom', numbers, {'regression': True}),
}


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(data_cache, 'LARGE', 0)


@pytest.fixture
def options(tmp_path):
    """The options of a run on a small SNLI."""
    return arguments(tmp_path, 'snli')


def arguments(folder, kind, **more):
    name, files, changed = DATA_SETS[kind]
    return Namespace(
        dataset=name,
        data_dir=put(folder / 'data', files()),
        cache_dir=str(folder / 'cache'),
        n_ctx=40,
        **{'n_valid': None, 'seed': 42, 'regression': False, 'symmetric': False, 'positive': None}
        | {'metric': None, 'n_train': None}
        | changed
        | more,
    )


def kept_files(options):
    return sorted(os.listdir(options.cache_dir)) if os.path.exists(options.cache_dir) else []


@pytest.fixture
def load(monkeypatch, capsys):
    """A function that loads, and returns the data and whether they were kept before."""

    def load(options, encoder=encoder()):  # noqa: B008 (the same one for all)
        loaded = data_cache.load_data(options, encoder)
        printed = capsys.readouterr().out
        assert ('encoded   already' in printed) != ('after reading' in printed)
        return loaded, 'already' in printed

    return load


def assert_same(loaded, expected):
    assert contents(loaded) == contents(expected)


def contents(loaded):
    """All that a data set holds, but for the texts of its training set."""
    text = loaded.text
    sets = {
        name: {
            field: (value.dtype, value.tolist()) if isinstance(value, np.ndarray) else value
            for field, value in vars(part).items()
        }
        for name, part in loaded.encoded.sets.items()
    }
    # As words, since NaN, an unknown score, is not equal to itself.
    return repr((loaded.task, text.notes, text.sources, text.valid, text.test, sets))


# ----------------------------------------------------------------------------------------- the same


@pytest.mark.parametrize('kind', DATA_SETS)
def test_what_is_kept_is_what_is_read(tmp_path, kind, load):
    options = arguments(tmp_path, kind)
    task, text = read_data(
        options.dataset, options.data_dir, None, 42, options.regression, options.symmetric
    )
    expected = data_cache.LoadedData(task, text, encode_data(text, encoder(), task, 40))
    for was_kept in (False, True, True):
        loaded, found = load(options)
        assert found == was_kept
        assert_same(loaded, expected)
    assert len(kept_files(options)) == 1
    assert set(source_files(options.dataset, options.data_dir)) >= {
        path for path in text.sources if os.path.isfile(path)
    }


def test_nothing_is_read_a_second_time_even_with_another_n_ctx(options, load, monkeypatch):
    load(options)
    monkeypatch.setattr(data_cache, 'read_data', None)
    monkeypatch.setattr(data_cache, 'encode_data', None)
    options.n_ctx = 12
    loaded, found = load(options)
    assert found and loaded.encoded.train.n_cut > 0 and loaded.encoded.longest == 12
    assert loaded.encoded.train.lengths.sum(1).max() == 9


def test_small_data_sets_are_not_kept(options, monkeypatch, capsys):
    monkeypatch.setattr(data_cache, 'LARGE', 1 << 20)
    assert data_cache.load_data(options, encoder()).text.train
    assert capsys.readouterr().out == '' and kept_files(options) == []
    for name in ('rocstories', 'mrpc', 'stsb'):
        assert source_files(name, '.') == []


# ------------------------------------------------------------------------------- what it depends on

PINNED = {1: 'a6f3a7f05843feae'}
TEXTS = [
    "Tom couldn't go -- he'd won $1,000!\nIt rained in May. R&amp;b…",
    "“cause” :) see www.example.com/a_b?c=d, cafÃ©; 58m. or c'mon",
]


def test_a_change_of_what_is_read_or_encoded_raises_the_version(tmp_path):
    """Who changes a rule raises CACHE_VERSION, and writes it and the new hash to PINNED."""
    found = [encoder().encode_all(TEXTS)]
    for kind in DATA_SETS:
        options = arguments(tmp_path / kind, kind)
        task, text, encoded = data_cache.load_data(options, encoder())
        found += [text.valid, text.test, encoded.train.names, encoded.train.labels.tolist()]
        found += [[part.ids.tolist(), part.lengths.tolist()] for part in encoded.sets.values()]
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    assert {data_cache.CACHE_VERSION: digest} == PINNED


def change_data(options, monkeypatch):
    path = os.path.join(options.data_dir, 'snli_1.0', 'snli_1.0_dev.jsonl')
    with open(path) as f:
        text = f.read()
    with open(path, 'w') as f:
        f.write(text.replace('tape', 'dogs', 1))


def move(options, monkeypatch):
    """The notes name the files."""
    os.rename(options.data_dir, options.data_dir + '2')
    options.data_dir += '2'


CHANGES = {
    'data': change_data,
    'no test set': lambda options, _: os.unlink(
        os.path.join(options.data_dir, 'snli_1.0', 'snli_1.0_test.jsonl')
    ),
    'place': move,
    'n_valid': lambda options, _: setattr(options, 'n_valid', 5),
    'library': lambda _, patch: patch.setattr('importlib.metadata.version', lambda package: '0'),
    'version': lambda _, patch: patch.setattr(data_cache, 'CACHE_VERSION', 0),
}


@pytest.mark.parametrize('change', CHANGES)
def test_a_change_is_noticed(options, load, monkeypatch, change):
    load(options)
    CHANGES[change](options, monkeypatch)
    loaded, found = load(options)
    assert not found and len(kept_files(options)) == 2
    assert load(options)[1]
    assert_same(load(options)[0], loaded)


@pytest.mark.parametrize('change', ['symbols', 'merges'])
def test_another_vocabulary_is_noticed(options, load, change):
    load(options)
    symbols, merges = dict(encoder().encoder), dict(encoder().bpe_ranks)
    if change == 'symbols':
        symbols['t'], symbols['e'] = symbols['e'], symbols['t']
    else:
        merges.popitem()
    other = TextEncoder.from_vocabulary(symbols, merges)
    assert not load(options, other)[1]
    assert load(options, other)[1] and load(options)[1]


@pytest.mark.parametrize('kind, is_used', [('snli', True), ('choices', False)])
def test_only_the_split_of_own_data_depends_on_the_seed(tmp_path, load, kind, is_used):
    load(arguments(tmp_path, kind))
    assert load(arguments(tmp_path, kind, seed=43))[1] == is_used


def test_files_that_change_while_they_are_read_are_not_kept(options, monkeypatch, capsys):
    def read_and_change(*args):
        data = read_data(*args)
        change_data(options, monkeypatch)
        return data

    monkeypatch.setattr(data_cache, 'read_data', read_and_change)
    data_cache.load_data(options, encoder())
    assert 'the files have changed meanwhile' in capsys.readouterr().out
    assert kept_files(options) == []


# --------------------------------------------------------------------------------- damaged, foreign


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ('was_here',)


def pickled(path, other):
    with open(path, 'wb') as f:
        pickle.dump(RunsCode(), f)


def pickled_array(path, other):
    np.savez(path, facts=np.array([RunsCode()], dtype=object))


def single_array(path, other):
    with open(path, 'wb') as f:
        np.save(f, np.arange(3))


def without_an_array(path, other):
    with np.load(path) as file:
        arrays = dict(file)
    del arrays['valid valid ids']
    np.savez(path, **arrays)


DAMAGES = {
    'empty': lambda path, other: os.truncate(path, 0),
    'cut off': lambda path, other: os.truncate(path, os.path.getsize(path) * 2 // 3),
    'of other data': lambda path, other: os.replace(other, path),
    'pickled': pickled,
    'pickled array': pickled_array,
    'single array': single_array,
    'without an array': without_an_array,
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_is_made_again(tmp_path, options, load, capsys, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    expected, _ = load(options)
    [name] = kept_files(options)
    path = os.path.join(options.cache_dir, name)
    change_data(options, monkeypatch)
    load(options)
    [other] = {*kept_files(options)} - {name}
    put(tmp_path / 'data', snli())
    DAMAGES[damage](path, os.path.join(options.cache_dir, other))
    loaded = data_cache.load_data(options, encoder())
    printed = capsys.readouterr().out
    assert f'{path} is damaged or foreign (' in printed and 'after reading' in printed
    assert_same(load(options)[0], loaded)
    np.testing.assert_array_equal(loaded.encoded.train.ids, expected.encoded.train.ids)
    assert load(options)[1]
    assert not os.path.exists('was_here')


def test_any_damaged_byte_is_noticed_or_changes_nothing(options, load, capsys):
    expected, _ = load(options)
    [name] = kept_files(options)
    path = os.path.join(options.cache_dir, name)
    shutil.copy(path, path + '.whole')
    random = np.random.RandomState(0)
    for place in random.randint(os.path.getsize(path), size=40):
        shutil.copy(path + '.whole', path)
        with open(path, 'r+b') as f:
            f.seek(place)
            f.write(bytes([random.randint(256)]))
        loaded = data_cache.load_data(options, encoder())
        capsys.readouterr()
        assert_same(loaded, expected)


# ------------------------------------------------------------------------ where nothing can be kept


def test_half_written_files_of_dead_processes_are_removed(options, load):
    os.mkdir(options.cache_dir)
    open(os.path.join(options.cache_dir, f'.snli-1.npz.{2**31 - 1}.part'), 'wb').close()
    load(options)
    [name] = kept_files(options)
    assert name.endswith('.npz')


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, options, capsys):
    (tmp_path / 'file').touch()
    options.cache_dir = str(tmp_path / 'file' / 'cache')
    loaded = data_cache.load_data(options, encoder())
    assert 'not kept for the next run: cannot write' in capsys.readouterr().out
    assert len(loaded.encoded.train) == 18


# --------------------------------------------------------------------------------------- whole runs


def all_large():
    data_cache.LARGE = 0


def of_snli(command):
    data_dir = put(command.folder / 'data', snli(40))
    folders = ['--data_dir', data_dir, '--cache_dir', command.folder / 'cache']
    return ['--dataset', 'snli', '--n_iter', 2, '--analysis', *folders]


def results(command):
    """The log and the files of a run. Its report names the data files."""
    report = (
        command.read('analysis/snli/report.md').decode().replace(plain(str(command.folder)), '')
    )
    paths = ('submission/SNLI.tsv', 'analysis/snli/predictions.csv')
    return [report, command.log('snli')[1:], *map(command.read, paths)]


def test_a_run_with_kept_data_is_the_same(command, other_command):
    assert 'encoded   ' not in other_command.run(*of_snli(other_command))
    assert not (other_command.folder / 'cache').exists()
    for line in ('after reading', 'encoded   already'):
        assert line in command.run(*of_snli(command), patch=all_large)
        assert results(command) == results(other_command)


def test_ranks_use_kept_data(command):
    options = [*of_snli(command), *NO_DROPOUT]
    assert 'after reading' in command.run(*options, patch=all_large)
    alone = command.log('snli')[1:]
    before = len(command.output)
    run_ranks(command, 2, *options, patch=all_large)
    assert command.output[before:].count('encoded   already') == 1
    for line, other in zip(command.log('snli')[1:], alone, strict=True):
        assert line == pytest.approx(other, abs=1e-5)
