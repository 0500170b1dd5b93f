"""The made-up data: the same on every machine, and read like the real data."""

import hashlib
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from datasets import DPRD, SAMPLE, TASKS, read_examples, read_task
from gpt1.tasks.rocstories import FILES
from gpt1.tasks.sample import ARCHIVE, unpack
from utils import WriteError

STORIES = [os.path.join(SAMPLE, names[0]) for names in FILES.values()]  # validation and test


def start(*command):
    return subprocess.Popen([sys.executable, *map(str, command)], stderr=subprocess.PIPE, text=True)


def hash_of(path):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()[:16]


def test_the_committed_data_are_those_that_scores_were_measured_on():
    found = [hash_of(path) for path in (*STORIES, ARCHIVE)]
    assert found == ['7c1ed6590dbfeb85', '40cc060212e1154d', 'a58b252d50833fdb']


def test_the_ordinary_reader_reads_the_data_of_the_tasks(tmp_path):
    """And no example is both trained on and tested."""
    tasks = [task for task in TASKS.values() if task.archive.made_up and task.name != 'rocstories']
    assert len(tasks) == 12 and DPRD.made_up  # test_zero_shot.py reads DPRD
    for task in tasks:
        unpack(task.archive.folders[0], str(tmp_path))
        data = read_task(task, str(tmp_path))
        assert data.train and data.valid and data.test
        seen = {example.texts for example in data.train}
        for examples in (*data.valid.values(), *data.test.values()):
            assert not seen & {example.texts for example in examples}


def test_processes_may_unpack_the_same_data_at_once(tmp_path):
    code = f"from gpt1.tasks.sample import unpack; unpack('DPRD', {str(tmp_path)!r})"
    assert [process.wait() for process in [start('-c', code) for _ in range(3)]] == [0, 0, 0]
    assert os.listdir(tmp_path) == ['DPRD']
    assert sorted(os.listdir(tmp_path / 'DPRD')) == ['test.c.txt', 'train.c.txt']
    with pytest.raises(WriteError, match='cannot write'):
        unpack('CoLA', str(tmp_path / 'DPRD' / 'test.c.txt'))


def test_text_to_pre_train_on(tmp_path):
    """The same bytes everywhere. No line has the four sentences of a story that is committed."""
    path = tmp_path / 'text.txt'
    script = os.path.join(ROOT, 'data', 'sample_text.py')
    assert not start(script, '--n', 3000, '--out', path).wait()
    assert hash_of(path) == 'cae4123a98967bdf'
    stories = [example for name in STORIES for example in read_examples(name, TASKS['rocstories'])]
    contexts = tuple(example.texts[0] for example in stories)
    assert not any(line.startswith(contexts) for line in path.read_text().splitlines())
    process = start(script, '--n', 1, '--out', tmp_path)
    assert process.wait() == 2 and len(process.stderr.readlines()) == 1
