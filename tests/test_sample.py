"""The made-up data: the same on every machine, read like the real data, not solved by counting."""

import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from scipy.sparse import vstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from datasets import SAMPLE, TASKS, read_task
from gpt1.tasks.rocstories import read_cloze_test
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
    assert len(data.train) == tasks.MADE[name].sizes['train'] and data.valid and data.test
    if task.labels is not None:
        counts = np.bincount([example.label for example in data.train])
        assert counts.min() >= len(data.train) / len(task.labels) / 2
    seen = {example.texts for example in data.train}
    for examples in (*data.valid.values(), *data.test.values()):
        assert not seen & {example.texts for example in examples}


def test_processes_may_make_the_same_data_at_once(tmp_path):
    command = [sys.executable, os.path.join(ROOT, 'data', 'sample_tasks.py'), '--task', 'dprd']
    processes = [subprocess.Popen([*command, '--out', str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert hash_of(tmp_path) == HASHES['dprd']


def test_every_task_has_made_up_data():
    assert {*HASHES, 'rocstories'} == {*TASKS, 'dprd'} == {*tasks.MADE, 'rocstories'}


def test_a_task_without_made_up_data():
    with pytest.raises(InputError, match="no made-up data for 'news'"):
        tasks.make('news', 'nowhere')


# -------------------------------------------------------------------------------------- the stories


def columns(name):
    """Contexts, endings 1, endings 2 and labels of a file of the sample, in lists."""
    examples = read_cloze_test(os.path.join(SAMPLE, name))
    return *map(list, zip(*(e.texts for e in examples))), [e.label for e in examples]


def test_the_committed_stories_are_those_of_the_generator(tmp_path):
    stories.write_sample(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(stories.FILES)
    for name in stories.FILES:
        with open(os.path.join(SAMPLE, name), 'rb') as committed:
            assert (tmp_path / name).read_bytes() == committed.read(), 'data/sample_stories.py'


def test_the_stories_are_in_good_form_and_none_is_told_twice():
    contexts = []
    for name in stories.FILES:
        context, first, second, labels = columns(name)
        assert len(labels) == 1871 and abs(2 * sum(labels) - 1871) == 1
        contexts += context
        for told in context + first + second:
            assert re.fullmatch(r"""["A-Z][A-Za-z0-9 ,.'"-]*[."]""", told), told
            assert '  ' not in told and 'a/an' not in told
    assert len(set(contexts)) == 2 * 1871


def test_schemas_are_balanced():
    """One sentence is the clue; both variants have as many phrasings, a happy ending and another.

    With pairs of stories that share both endings, every ending is right as often as wrong.
    """
    schemas = stories.read_schemas()
    assert len(schemas) == 41
    for schema in schemas:
        *context, endings = schema.phrasings
        [clue] = [sentence for sentence in context if sentence['a'] != sentence['b']]
        for sentence in (clue, endings):
            assert len(sentence['a']) == len(sentence['b']) >= 4
            assert not set(sentence['a']) & set(sentence['b'])
        assert sorted(schema.moods) == ['a', 'b'] and set(schema.moods.values()) == {'+', '-'}
    for rows in stories.sample_files().values():
        right = [row[4 + row[7]] for row in rows]
        wrong = [row[7 - row[7]] for row in rows]
        openings = [sum(ending.split()[0] == 'Luckily,' for ending in s) for s in (right, wrong)]
        assert abs(openings[0] - openings[1]) < 60


def difference_of_endings(context, first, second):
    return (first, second)


def context_and_ending(context, first, second):
    return tuple([f'{c} {e}' for c, e in zip(context, endings)] for endings in (first, second))


@pytest.mark.parametrize('texts_of', [difference_of_endings, context_and_ending])
def test_bags_of_words_do_not_solve_it(texts_of):
    """A logistic regression on words and pairs of words scores each ending; the likelier one wins.

    `texts_of` says what it sees: the endings alone, or the story with them.
    """
    (*train, label), (*test, test_label) = map(columns, stories.FILES)
    label, test_label = np.array(label), np.array(test_label)
    texts, test_texts = texts_of(*train), texts_of(*test)
    words = CountVectorizer(ngram_range=(1, 2)).fit([t for part in texts for t in part])
    model = LogisticRegression(solver='liblinear')
    x = vstack([words.transform(part) for part in texts])
    model.fit(x, np.concatenate([label == 0, label == 1]))
    scores = [model.decision_function(words.transform(part)) for part in test_texts]
    measured = np.mean((scores[1] > scores[0]) == test_label)
    print(f'{texts_of.__name__}: {measured:.4f}')
    assert measured < CHANCE_AT_MOST


# ----------------------------------------------------------------------------- text to pre-train on


def test_text_of_a_seed(tmp_path):
    lines = list(text.lines(2000, 7))
    assert lines[:100] == list(text.lines(100, 7)) != list(text.lines(100, 8))
    digest = hashlib.sha256('\n'.join(lines).encode()).hexdigest()
    assert digest.startswith('0d8c18d775db02d1')
    verdicts = [verdict for phrasings in text.VERDICTS.values() for verdict in phrasings]
    whole = '\n'.join(lines) + '\n'
    parts = [*text.GUESS, *text.END, *(f'. {v}\n' for v in verdicts), 'very positive', ' because ']
    assert all(part in whole for part in parts)
    contexts = [' '.join(row[1:5]) for rows in stories.sample_files().values() for row in rows]
    for line in text.lines(2000, stories.SEED):
        assert not line.startswith(tuple(contexts))


def test_commands(tmp_path, capsys):
    """They run from anywhere; what is wrong is one line."""
    out = str(tmp_path / 'text.txt')
    command = [sys.executable, os.path.join(ROOT, 'data', 'sample_text.py'), '--n', '50']
    subprocess.run([*command, '--out', out], cwd=tmp_path, check=True)
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
