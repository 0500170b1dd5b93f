"""The made-up data of the other tasks: the same on every machine, and read like the real data."""

import hashlib
import os
import sys

import pytest

from datasets import TASKS

DATA_DIR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data')
sys.path.insert(0, DATA_DIR)
import sample_tasks

NAMES = [name for name in TASKS if name != 'rocstories']
HASHES = {
    'snli': '770361043f86c56c',
    'mnli': '8343c263cf7063d7',
    'qnli': '1118428c14086bc9',
    'scitail': '9d601f670ea9642e',
    'rte': '9bf174417a4a7595',
    'race': '2dcdb94293dad9fe',
    'qqp': '4c3221d275926989',
    'mrpc': 'de1c7571cfdaad99',
    'stsb': '60504707aabfac95',
    'cola': 'fc94f23b4346c8ca',
    'sst2': 'e6e21619eadc26fb',
    'wnli': 'abbe2e6c1120fe22',
}


def hash_of(folder):
    """Return a hash of all files below a folder, names included."""
    digest = hashlib.sha256()
    for place, folders, files in sorted(os.walk(folder)):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            digest.update(os.path.relpath(path, folder).encode())
            with open(path, 'rb') as f:
                digest.update(f.read())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize('name', NAMES)
def test_the_data_are_the_same_everywhere(name, tmp_path):
    sample_tasks.make(name, str(tmp_path))
    assert hash_of(tmp_path) == HASHES[name]


@pytest.mark.parametrize('name', NAMES)
def test_the_ordinary_reader_reads_them(name, tmp_path):
    sample_tasks.make(name, str(tmp_path))
    task = TASKS[name]
    data = task.read(str(tmp_path))
    assert len(data.train) >= 600
    assert data.valid
    assert data.test
    labels = [example.label for example in data.train]
    if task.labels is not None:
        counts = [labels.count(label) for label in range(len(task.labels))]
        assert min(counts) >= len(labels) / len(counts) / 2


def test_no_example_is_in_two_splits(tmp_path):
    sample_tasks.make('cola', str(tmp_path))
    data = TASKS['cola'].read(str(tmp_path))
    train = {example.texts for example in data.train}
    for examples in (*data.valid.values(), *data.test.values()):
        assert not train & {example.texts for example in examples}
