"""The table of tasks, where data are found, targets, metrics and submissions."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from small_files import OWN_TEXTS, as_csv, error_of, put, read, stories

import datasets
from datasets import (
    TASKS,
    find_data,
    kept_task,
    make_sample,
    make_samples,
    read_data,
    rocstories,
)
from gpt1.tasks.metrics import METRICS
from gpt1.tasks.rocstories import FILES
from gpt1.tasks.task import decode, soft_targets, write_submission


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of the repository in which nothing is but a sample of stories."""
    sample = {f'data/sample/{FILES[which][0]}': as_csv(stories(5)) for which in FILES}
    put(tmp_path / 'clone', {'data/README.md': '', **sample})
    monkeypatch.setattr(datasets, 'ROOT', str(tmp_path / 'clone'))
    monkeypatch.setattr(datasets, 'SAMPLE', str(tmp_path / 'clone' / 'data' / 'sample'))
    monkeypatch.chdir(tmp_path / 'clone')
    return tmp_path / 'clone'


def test_the_sample_is_the_default_on_a_fresh_clone_and_elsewhere(clone, tmp_path, monkeypatch):
    assert find_data('rocstories') == ('data/sample/', True)
    assert find_data('rocstories', 'data/') == ('data/', False)
    assert find_data('rocstories', str(clone / 'data/sample')) == (str(clone / 'data/sample'), True)
    assert '--data_dir' in error_of(find_data, 'custom')
    monkeypatch.chdir(tmp_path)
    folder, is_sample = find_data('rocstories')
    assert is_sample and len(rocstories(folder, 2)[0]) == 3


@pytest.mark.parametrize('name, folder', [('race', 'RACE'), ('dprd', 'DPRD')])
def test_looking_writes_nothing_and_the_sample_is_made_once(clone, name, folder):
    assert find_data(name) == find_data(name, 'data/', or_sample=True) == ('data/sample/', True)
    assert not (clone / 'data/sample' / folder).exists()
    make_samples(['rocstories', name], None)
    made = os.stat(clone / 'data/sample' / folder).st_ino
    make_sample(name, f'data/sample/{folder}')
    make_sample(name, 'data/')  # not the sample
    assert os.stat(clone / 'data/sample' / folder).st_ino == made
    assert sorted(os.listdir('data')) == ['README.md', 'sample']
    assert name == 'dprd' or read(name, 'data/sample').notes == []


@pytest.mark.parametrize('name', [*TASKS, 'dprd'])
def test_every_file_that_is_read_is_found(clone, name):
    """In data/ and in a folder that is named; the folder of all tasks does not count."""
    put(clone, {'data/glue/AX/diagnostic.tsv': 'x'})
    assert find_data(name, 'data/', or_sample=True) == ('data/sample/', True)
    paths = [f'cloze_test_{which}__spring2016 (1).CSV' for which in FILES]
    if name != 'rocstories':
        archive = datasets.ARCHIVES[name]
        paths = [*archive.all_names(), f'glue_data/{archive.folders[0].lower()}/x']
        if name == 'mrpc':
            paths.append('msr_paraphrase_train.txt')
    for path in paths:
        put(clone, {f'data/{path}': 'x'})
        assert find_data(name) == find_data(name, 'data/', or_sample=True) == ('data/', False)
        os.unlink(clone / 'data' / path)


@pytest.mark.parametrize('name', ['cloze (1).csv', 'stories.CSV', 'Book1.xlsx', 'rocstories.zip'])
def test_unknown_data_in_the_default_folder_stops_the_default(clone, name):
    """Files of other tasks do not."""
    others = ['snli_1.0.zip', 'AX.tsv', 'msr_paraphrase_test.txt', '.DS_Store', 'mine/train.csv']
    put(clone, {f'data/{file}': 'x' for file in others})
    assert find_data('rocstories')[1]
    assert '"snli_1.0.zip"; expected the folder "snli_1.0"' in error_of(find_data, 'snli')
    put(clone, {f'data/{name}': 'x'})
    message = error_of(find_data, 'rocstories')
    for part in (f'"{name}"', f'"{FILES["val"][0]}"', f'"{FILES["test"][0]}"', '--data_dir'):
        assert part in message
    assert find_data('rocstories', 'data/sample')[1]


ROW = """
[[task]]
name = 'news'
title = 'News'
layout = 'text'
labels = ['dull', 'good']
[task.archive]
folders = ['News']
address = 'https://n.example'
texts = ['sentence']
"""


def test_a_new_task_is_one_row(tmp_path):
    """The program needs no other edit to offer it, to read its files and to train on them."""
    for name in os.listdir(ROOT):
        if name.endswith('.py'):
            shutil.copy(os.path.join(ROOT, name), tmp_path)
    for name in ('gpt1', os.path.join('model', 'sample')):
        shutil.copytree(os.path.join(ROOT, name), tmp_path / name)
    with open(tmp_path / 'gpt1' / 'tasks' / 'tasks.toml', 'a') as f:
        f.write(ROW)

    def run(*options):
        command = [sys.executable, 'train.py', '--dataset', 'news', *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.stdout + done.stderr

    problem = 'data/ has no News, and there is no made-up data for it: get it from https://n.exam'
    assert problem in run()
    rows = [['index', 'sentence', 'label'], *([str(i), f'a {i}', 'good'] for i in range(8))]
    put(tmp_path, {f'data/news/{split}.tsv': rows for split in ('train', 'dev', 'test')})
    sizes = '--n_layer 1 --n_embd 4 --n_head 2 --n_transfer -1 --n_iter 1 --n_gpu 1 --device cpu'
    assert 'News: 8 training' in run('--submit', '--analysis', *sizes.split())
    assert len((tmp_path / 'submission' / 'News.tsv').read_text().splitlines()) == 9


def own_tasks(tmp_path):
    choices = 'context,choice1,choice2,label\na,b,c,1\na,b,c,2\n'
    regression = 'text,label\na,1\nb,2\nc,4\n'
    for i, (rows, options) in enumerate(
        [(OWN_TEXTS, {}), (choices, {}), (regression, {'regression': True})]
    ):
        yield read_data('custom', put(tmp_path / str(i), {'train.csv': rows}), **options)[0]


def test_tasks_survive_json(tmp_path):
    for task in [*TASKS.values(), *own_tasks(tmp_path)]:
        record = json.loads(json.dumps(task.to_dict()))
        again = kept_task(record)
        assert again == task and again.archive is task.archive
        del record['positive']  # as earlier versions wrote it
        assert kept_task(record).positive == 1


@pytest.mark.parametrize(
    'name, changes',
    [
        ('snli', {'name': ['other', ['snli'], None], 'layout': ['text', []], 'n_context': [2],
                  'labels': [['a', 'a'], ['neutral', 'entailment', 'contradiction'], None, 'ab'],
                  'soft_labels': [True]}),
        ('custom', {'layout': ['circle', [], 'choices'], 'labels': [[1, 2], None, 3],
                    'metrics': [[], ['loss'], None], 'regression': [True, 'x'], 'std': [0, 'x'],
                    'mean': [float('nan'), None], 'positive': [3, 'x']}),
    ],
)  # fmt: skip
def test_damaged_tasks(tmp_path, name, changes):
    task = next(own_tasks(tmp_path)) if name == 'custom' else TASKS[name]
    record = json.loads(json.dumps(task.to_dict()))
    for key, values in changes.items():
        for value in values:
            message = error_of(kept_task, {**record, key: value}, 'save/x/settings.json')
            assert message.startswith('save/x/settings.json: damaged task')
    del record['layout']
    for damaged in (record, None, [], 'snli'):
        assert 'damaged task' in error_of(kept_task, damaged)


def test_soft_targets_are_the_originals_and_predictions_decoded():
    assert soft_targets([3.6, 5.0, 0.0]) == pytest.approx(
        np.array([[0, 0, 0, 0.4, 0.6, 0], [0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0]])
    )
    assert np.isnan(soft_targets([np.nan, 1.0])).tolist() == [[True] * 6, [False] * 6]
    scores = np.arange(0, 5.01, 0.13)  # the expected class is the score again
    with np.errstate(divide='ignore'):
        logits = np.log(soft_targets(scores))
    assert decode(TASKS['stsb'], logits) == pytest.approx(scores, abs=1e-9)
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 2.0, -np.inf]])
    assert all(decode(TASKS[name], logits).tolist() == [1, 0] for name in ('snli', 'race'))


def test_metrics_are_those_of_the_paper():
    """Times 100. MRPC's test set: all ones give F1 79.9 (1,147 of 1,725 are paraphrases)."""
    y, p = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    expected = {'accuracy': 60, 'f1': 200 / 3, 'matthews': 100 / 6}
    assert {name: METRICS[name](y, p) for name in expected} == pytest.approx(expected)
    assert METRICS['f1'](y, p, positive=None) == pytest.approx((200 / 3 + 50) / 2)
    assert METRICS['f1'](np.arange(1725) < 1147, np.ones(1725)) == pytest.approx(79.9, abs=0.05)
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 10.0])
    assert METRICS['pearson'](a, b) == pytest.approx(1400 / 250**0.5)
    assert METRICS['spearman'](a, b) == pytest.approx(100)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('name', ['f1', 'matthews', 'pearson', 'spearman'])
def test_metrics_of_constant_predictions_are_zero(name):
    y, zeros = np.array([0, 1, 1, 0]), np.zeros(4, int)
    pairs = [(y, zeros), (zeros, y), (zeros[:1], zeros[:1])]
    if name in ('pearson', 'spearman'):
        pairs += [(y, np.array([0.1, number, 1, 2])) for number in (np.nan, np.inf)]
    assert [METRICS[name](*pair) for pair in pairs] == [0] * len(pairs)


@pytest.mark.parametrize(
    'name, predictions, expected',
    [
        ('snli', [0, 2, 1], ['entailment', 'contradiction', 'neutral']),
        ('rte', [0, 1], ['entailment', 'not_entailment']),
        ('scitail', [0, 1], ['entails', 'neutral']),
        ('cola', np.array([0, 1]), ['0', '1']),
        ('rocstories', [0, 1], ['0', '1']),
        ('race', [0, 3], ['A', 'D']),
        ('classes', [0, 1], ['neg', 'pos']),
        ('choices', [0, 1], ['1', '2']),
        ('numbers', [0, 1.5], ['0', '1.5']),
        ('stsb', np.array([3.6934, -0.2, 5.7, 5]), ['3.693', '0.000', '5.000', '5.000']),
    ],
)
def test_submissions_have_the_format_of_glue(tmp_path, name, predictions, expected):
    own = dict(zip(('classes', 'choices', 'numbers'), own_tasks(tmp_path)))
    f = io.StringIO()
    write_submission(f, {**TASKS, **own}[name], predictions)
    rows = ''.join(f'{i}\t{text}\n' for i, text in enumerate(expected))
    assert f.getvalue() == 'index\tprediction\n' + rows


def test_the_table_is_that_of_glue():
    names = {name for task in TASKS.values() for name in task.submission.values()}
    glue = 'CoLA SST-2 MRPC STS-B QQP MNLI-m MNLI-mm QNLI RTE WNLI AX'.split()
    assert names >= {f'{name}.tsv' for name in glue}
    first = {name: task.metrics[0] for name, task in TASKS.items()}  # selects the parameters
    others = {'qqp': 'f1', 'mrpc': 'f1', 'cola': 'matthews', 'stsb': 'pearson'}
    assert first == dict.fromkeys(TASKS, 'accuracy') | others


def test_published_scores_hold_together():
    """The paper's GLUE score is the plain mean of nine tasks, two metrics averaged first."""
    scores = {}
    for task in TASKS.values():
        splits = {'test', 'valid', 'all', *task.submission}
        for p in task.published:
            assert p.metric in METRICS and p.on in ('test', 'valid') and p.split in splits
            if p.who in ('paper', "GLUE's leaderboard") or 'version 1' in p.who:
                scores.setdefault(task.name, {})[p.split, p.metric] = p.value
    del scores['mnli']['diagnostic', 'matthews']
    names = ('cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte', 'wnli')
    means = [np.mean(list(scores[name].values())) for name in names]
    assert round(np.mean(means), 1) == 72.8


def test_importing_loads_no_large_library():
    code = "import sys, datasets; print({'pandas', 'sklearn', 'scipy', 'torch'} & set(sys.modules))"
    output = subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, text=True)
    assert output.strip() == 'set()'
