"""The made-up data of the other tasks: the same on every machine, and read like the real data."""

import hashlib
import os
import sys

import pytest

from datasets import TASKS, read_task

DATA_DIR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data')
sys.path.insert(0, DATA_DIR)
import sample_tasks

NAMES = [name for name in TASKS if name != 'rocstories']
HASHES = {
    'snli': '265c52053f08c353',
    'mnli': '73195c2eef826017',
    'qnli': 'f5a4ea949e09d442',
    'scitail': 'c8a9f715db020c68',
    'rte': '58d82fe737ba5a4b',
    'race': '2fb16ec198f71698',
    'qqp': '1e93887ef6c89de8',
    'mrpc': '20a250f55465fdab',
    'stsb': '6f409ba7796f46bb',
    'cola': 'b08e48bd02efb527',
    'sst2': '4325581b22963c5e',
    'wnli': 'cf4eaa9b869a1354',
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
    data = read_task(task, str(tmp_path))
    assert len(data.train) == sample_tasks.MADE[name].sizes['train']
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
