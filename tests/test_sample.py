"""The made-up data: the same on every machine, read like the real data, not solved by counting."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from scipy.sparse import vstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from datasets import DPRD, SAMPLE, TASKS, read_examples, read_task
from gpt1.tasks.sample import stories, tasks, text
from utils import InputError

CHANCE_AT_MOST = 0.56  # chance is 0.5, with a standard deviation of 0.012 on 1,871 stories
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
    'dprd': '6e26c61a3d672e95',
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


# ---------------------------------------------------------------------------------- the other tasks


@pytest.mark.parametrize('name', HASHES)
def test_the_data_are_the_same_everywhere_and_the_ordinary_reader_reads_them(name, tmp_path):
    tasks.make(name, str(tmp_path))
    assert hash_of(tmp_path) == HASHES[name]
    if name == 'dprd':  # test_zero_shot.py reads it
        return
    task = TASKS[name]
    data = read_task(task, str(tmp_path))
    assert data.train and data.valid and data.test
    seen = {example.texts for example in data.train}
    for examples in (*data.valid.values(), *data.test.values()):
        assert not seen & {example.texts for example in examples}


def test_processes_may_make_the_same_data_at_once(tmp_path):
    command = [sys.executable, os.path.join(ROOT, 'data', 'sample_tasks.py'), '--task', 'dprd']
    processes = [subprocess.Popen([*command, '--out', str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert hash_of(tmp_path) == HASHES['dprd']


def test_the_table_says_which_data_are_made_up():
    archives = {**{name: task.archive for name, task in TASKS.items()}, 'dprd': DPRD}
    made = {name: archive for name, archive in archives.items() if archive.made_up}
    assert {*HASHES, 'rocstories'} == {*tasks.MADE, 'rocstories'} == {*made}
    with pytest.raises(InputError, match="no made-up data for 'news'"):
        tasks.make('news', 'nowhere')


# -------------------------------------------------------------------------------------- the stories


def columns(name):
    """Contexts, endings 1, endings 2 and labels of a file of the sample, in lists."""
    examples = read_examples(os.path.join(SAMPLE, name), TASKS['rocstories'])
    return *map(list, zip(*(e.texts for e in examples))), [e.label for e in examples]


def test_the_committed_stories_are_those_of_the_generator(tmp_path):
    stories.write_sample(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(stories.FILES)
    for name in stories.FILES:
        with open(os.path.join(SAMPLE, name), 'rb') as committed:
            assert (tmp_path / name).read_bytes() == committed.read(), 'data/sample_stories.py'


@pytest.mark.parametrize('sees', ['the endings', 'the story too'])
def test_bags_of_words_do_not_solve_it(sees):
    """A logistic regression on words and pairs of words scores both endings."""

    def texts_of(name):
        context, first, second, label = columns(name)
        if sees == 'the story too':
            first, second = (
                [f'{c} {e}' for c, e in zip(context, ends)] for ends in (first, second)
            )
        return (first, second), np.array(label)

    (train, label), (test, test_label) = map(texts_of, stories.FILES)
    words = CountVectorizer(ngram_range=(1, 2)).fit([t for part in train for t in part])
    model = LogisticRegression(solver='liblinear')
    x = vstack([words.transform(part) for part in train])
    model.fit(x, np.concatenate([label == 0, label == 1]))
    scores = [model.decision_function(words.transform(part)) for part in test]
    measured = np.mean((scores[1] > scores[0]) == test_label)
    print(f'{sees}: {measured:.4f}')
    assert measured < CHANCE_AT_MOST


# ----------------------------------------------------------------------------- text to pre-train on


def test_text_of_a_seed(tmp_path):
    lines = list(text.lines(2000, 7))
    assert lines[:100] == list(text.lines(100, 7)) != list(text.lines(100, 8))
    digest = hashlib.sha256('\n'.join(lines).encode()).hexdigest()
    assert digest.startswith('0d8c18d775db02d1')
    contexts = [' '.join(row[1:5]) for rows in stories.sample_files().values() for row in rows]
    for line in text.lines(2000, stories.SEED):
        assert not line.startswith(tuple(contexts))


def test_commands(tmp_path, capsys):
    """They run from anywhere; what is wrong is one line."""
    out = str(tmp_path / 'text.txt')
    assert text.main(['--n', '50', '--out', out]) == 0
    assert (tmp_path / 'text.txt').read_text().splitlines() == list(text.lines(50, 7))
    for main, wrong in (
        (text.main, []),
        (text.main, ['--n', '0', '--out', out]),
        (text.main, ['--n', '1', '--out', str(tmp_path)]),
        (tasks.main, ['--task', 'news']),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2 and 'error' in capsys.readouterr().err
    assert tasks.main(['--task', 'cola', '--out', out]) == 2
    assert os.listdir(tmp_path) == ['text.txt']
    assert tasks.main(['--task', 'cola', '--out', str(tmp_path)]) == 0
    assert sorted(os.listdir(tmp_path)) == ['CoLA', 'text.txt']
