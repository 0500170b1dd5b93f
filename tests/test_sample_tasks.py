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
    'snli': '0df55734f4abe305',
    'mnli': '05c8b3c4b1f88b9f',
    'qnli': '953bde055013889a',
    'scitail': '34910b0ea8c5a27f',
    'rte': 'bdf28411b49ecb7c',
    'race': '1f0a9a108f99311e',
    'qqp': '6d9cb4bf1d3d67c4',
    'mrpc': 'e33d15c0cc1d6a68',
    'stsb': 'c506b08f913f2c9c',
    'cola': 'c91dbd839557e1e9',
    'sst2': 'a6534a7e7b867206',
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
