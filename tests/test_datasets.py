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
from datasets import TASKS, find_data, kept_task, make_sample, make_samples, rocstories
from gpt1.tasks.metrics import METRICS
from gpt1.tasks.own_data import custom_task
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
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    folder, is_sample = find_data('rocstories')
    assert is_sample and len(rocstories(folder, 2)[0]) == 3


@pytest.mark.parametrize('name, folder', [('cola', 'CoLA'), ('race', 'RACE'), ('dprd', 'DPRD')])
def test_looking_writes_nothing_and_the_sample_is_made_once(clone, name, folder):
    assert find_data(name) == find_data(name, 'data/', or_sample=True) == ('data/sample/', True)
    assert not (clone / 'data/sample' / folder).exists()
    make_samples(['rocstories', name], None)
    made = os.stat(clone / 'data/sample' / folder).st_ino
    make_sample(name, f'data/sample/{folder}')
    make_sample(name, 'data/')  # not the sample
    assert os.stat(clone / 'data/sample' / folder).st_ino == made
    assert sorted(os.listdir('data')) == ['README.md', 'sample']
    if name != 'dprd':
        assert read(name, 'data/sample').notes == []


@pytest.mark.parametrize('name', [*TASKS, 'dprd'])
def test_every_file_that_is_read_is_found(clone, name):
    """In data/ and in a folder that is named; the folder of all tasks does not count."""
    put(clone, {'data/glue/AX/diagnostic.tsv': 'x'})
    assert find_data(name, 'data/', or_sample=True) == ('data/sample/', True)
    paths = [f'cloze_test_{which}__spring2016 (1).CSV' for which in FILES]
    if name != 'rocstories':
        archive = datasets._archive(name)
        paths = [*archive.all_names(), f'glue_data/{archive.folders[0].lower()}/x']
        if name == 'mrpc':
            paths.append('msr_paraphrase_train.txt')
    for path in paths:
        put(clone, {f'data/{path}': 'x'})
        assert find_data(name) == find_data(name, 'data/', or_sample=True) == ('data/', False)
        os.unlink(clone / 'data' / path)


@pytest.mark.parametrize(
    'name', ['cloze (1).csv', 'stories.CSV', 'val.tsv', 'new.jsonl', 'Book1.xlsx', 'rocstories.zip']
)
def test_unknown_data_in_the_default_folder_stops_the_default(clone, name):
    put(clone, {f'data/{name}': 'x', 'data/.DS_Store': 'x', 'data/mine/train.csv': 'x'})
    message = error_of(find_data, 'rocstories')
    for part in (f'"{name}"', f'"{FILES["val"][0]}"', f'"{FILES["test"][0]}"', '--data_dir'):
        assert part in message
    assert find_data('rocstories', 'data/sample')[1]


def test_files_of_other_tasks_do_not_stop_the_default(clone):
    put(clone, {'data/snli_1.0.zip': 'x', 'data/AX.tsv': 'x', 'data/msr_paraphrase_test.txt': 'x'})
    assert find_data('rocstories')[1]
    assert '"snli_1.0.zip"; expected the folder "snli_1.0"' in error_of(find_data, 'snli')


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
    table = tmp_path / 'gpt1' / 'tasks' / 'tasks.toml'
    table.write_text(table.read_text() + ROW)

    def run(script, *options, status=0):
        command = [sys.executable, str(tmp_path / script), *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert ' news, ' in run('train.py', '--help')
    assert 'news' not in run('paper.py', '--list')  # neither real nor made-up data
    problem = 'data/ has no News, and there is no made-up data for it: get it from https://n.exam'
    assert problem in run('train.py', '--dataset', 'news', status=2)
    rows = [['index', 'sentence', 'label'], *([str(i), f'a {i}', 'good'] for i in range(8))]
    put(tmp_path, {f'data/news/{split}.tsv': rows for split in ('train', 'dev', 'test')})
    sizes = '--n_layer 1 --n_embd 4 --n_head 2 --n_transfer -1 --n_iter 1 --n_gpu 1 --device cpu'
    printed = run('train.py', '--dataset', 'news', '--submit', '--analysis', *sizes.split())
    assert 'News: 8 training' in printed
    assert len((tmp_path / 'submission' / 'News.tsv').read_text().splitlines()) == 9


def own_tasks(tmp_path):
    choices = 'context,choice1,choice2,label\na,b,c,1\na,b,c,2\n'
    regression = 'text,label\na,1\nb,2\nc,4\n'
    for i, (rows, options) in enumerate(
        [(OWN_TEXTS, {}), (choices, {}), (regression, {'regression': True})]
    ):
        yield custom_task(put(tmp_path / str(i), {'train.csv': rows}), **options)[0]


def test_tasks_survive_json(tmp_path):
    for task in [*TASKS.values(), *own_tasks(tmp_path)]:
        again = kept_task(json.loads(json.dumps(task.to_dict())))
        assert again == task
        assert again.archive is task.archive and again.published == task.published
    record = TASKS['mrpc'].to_dict()
    del record['positive']  # as earlier versions wrote it
    assert kept_task(record) == TASKS['mrpc']


@pytest.mark.parametrize(
    'change',
    [
        {'name': 'other'}, {'name': ['snli']}, {'title': ''}, {'layout': 'circle'}, {'layout': []},
        {'labels': ['a', 'a']}, {'labels': 'ab'}, {'labels': [1, 2]}, {'labels': None},
        {'metrics': []}, {'metrics': ['loss']}, {'submission': {'test': '../x.tsv'}},
        {'submission': []}, {'submission': {}}, {'first_label': 3}, {'n_context': True},
        {'pooled': 1}, {'soft_labels': True}, {'std': 0}, {'mean': float('nan')}, {'more': 1},
        {'positive': 3}, {'positive': True}, {'positive': -1},
    ],
)  # fmt: skip
def test_damaged_tasks(change):
    record = TASKS['snli'].to_dict()
    message = error_of(kept_task, {**record, **change}, 'save/x/settings.json')
    assert message.startswith('save/x/settings.json: damaged task')
    del record['layout']
    for damaged in (record, None, [], 'snli'):
        assert 'damaged task' in error_of(kept_task, damaged)


# ---------------------------------------------------------- targets, metrics, submission files


def test_soft_targets_are_the_originals():
    assert soft_targets([3.6, 5.0, 0.0, 2.0, 4.25]) == pytest.approx(
        np.array(
            [
                [0, 0, 0, 0.4, 0.6, 0],
                [0, 0, 0, 0, 0, 1],
                [1, 0, 0, 0, 0, 0],
                [0, 0, 1, 0, 0, 0],
                [0, 0, 0, 0, 0.75, 0.25],
            ]
        )
    )
    assert np.isnan(soft_targets([np.nan, 1.0])).tolist() == [[True] * 6, [False] * 6]
    scores = np.arange(0, 5.01, 0.13)  # the expected class is the score again
    with np.errstate(divide='ignore'):
        logits = np.log(soft_targets(scores))
    assert decode(TASKS['stsb'], logits) == pytest.approx(scores, abs=1e-9)


def test_decode_takes_the_best_class_or_choice():
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 2.0, -np.inf]])
    assert decode(TASKS['snli'], logits).tolist() == [1, 0]
    assert decode(TASKS['race'], logits).tolist() == [1, 0]


def test_metrics_are_those_of_the_paper():
    """Times 100. MRPC's test set: all ones give F1 79.9 (1,147 of 1,725 are paraphrases)."""
    y, p = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    expected = {'accuracy': 60, 'f1': 200 / 3, 'matthews': 100 / 6}
    assert {name: METRICS[name](y, p) for name in expected} == pytest.approx(expected)
    assert METRICS['f1'](y, p, positive=None) == pytest.approx((200 / 3 + 50) / 2)
    assert METRICS['f1'](np.arange(1725) < 1147, np.ones(1725)) == pytest.approx(79.9, abs=0.05)
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 10.0])
    assert METRICS['pearson'](a, b) == pytest.approx(100 * np.corrcoef(a, b)[0, 1])
    assert METRICS['spearman'](a, b) == pytest.approx(100)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('name', ['f1', 'matthews', 'pearson', 'spearman'])
def test_metrics_of_constant_predictions_are_zero(name):
    y = np.array([0, 1, 1, 0])
    assert METRICS[name](y, np.zeros(4, int)) == 0
    assert METRICS[name](np.zeros(4, int), y) == 0
    assert METRICS[name](np.array([0]), np.array([0])) == 0
    if name in ('pearson', 'spearman'):
        assert METRICS[name](y, np.array([0.1, np.nan, 1, 2])) == 0
        assert METRICS[name](y, np.array([0.1, np.inf, 1, 2])) == 0


@pytest.mark.parametrize(
    'name, predictions, expected',
    [
        ('snli', [0, 2, 1], ['entailment', 'contradiction', 'neutral']),
        ('rte', [0, 1], ['entailment', 'not_entailment']),
        ('qnli', [1], ['not_entailment']),
        ('scitail', [0, 1], ['entails', 'neutral']),
        ('cola', np.array([0, 1]), ['0', '1']),
        ('wnli', [1], ['1']),
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
    outputs = {name: task.n_out for name, task in TASKS.items()}
    others = {'rocstories': 1, 'race': 1, 'stsb': 6, 'snli': 3, 'mnli': 3}
    assert outputs == dict.fromkeys(TASKS, 2) | others


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
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == 'set()'
