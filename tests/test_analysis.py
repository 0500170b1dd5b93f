"""analysis.py: reports of runs, from their files."""

import csv
import json
import os

import numpy as np
import pytest
from test_report import make_evaluations, make_set, pictures_in

import analysis
from datasets import TASKS, read_data
from gpt1.report.predictions import save_predictions
from gpt1.report.report import write_report
from gpt1.run import record


def write_rocstories(folder, examples):
    """Both files of ROCStories. The validation file has made-up stories."""
    sentences = [f'InputSentence{i}' for i in range(1, 5)]
    endings = ['RandomFifthSentenceQuiz1', 'RandomFifthSentenceQuiz2']
    folder.mkdir(exist_ok=True)
    for kind in ('val', 'test'):
        with open(folder / f'cloze_test_{kind}__spring2016.csv', 'w', newline='') as f:
            writer = csv.writer(f)
            writer.writerow(['InputStoryid', *sentences, *endings, 'AnswerRightEnding'])
            for name, (story, *two), label in examples:
                answer = '' if label is None and kind == 'test' else (label or 0) + 1
                writer.writerow([name, story, 'Two.', 'Three.', 'Four.', *two, answer])


def make_run(folder, desc, n=60, right=45, labels=True, about=(), **arguments):
    """The files of a run on made-up stories. Returns options for analysis.py.

    about  more of its record
    """
    task = TASKS['rocstories']
    examples, logits = make_set(task, n, right, labels)
    write_rocstories(folder / 'data', examples)
    save_predictions(folder / 'analysis' / desc, task, {'test': (examples, logits)})
    record.write(folder / 'analysis' / desc, dict(about))
    (folder / 'log').mkdir(exist_ok=True)
    first = {'desc': desc, 'dataset': 'rocstories', 'seed': 42, 'n_valid': 10}
    first |= {'data_dir': str(folder / 'data'), **arguments}
    write_log(folder / 'log' / f'{desc}.jsonl', [first, *make_evaluations(task)])
    return [f'--log_dir={folder / "log"}', f'--analysis_dir={folder / "analysis"}']


def write_log(path, lines):
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_a_run_from_its_files(tmp_path, capsys):
    """From the files, the same bytes as train.py writes from what is in memory."""
    options = make_run(tmp_path, 'mine', sample=['our sample, not the real stories'])
    assert analysis.main(['--desc', 'mine', *options]) == 0
    folder = tmp_path / 'analysis' / 'mine'
    assert capsys.readouterr().out.splitlines() == [
        f'mine: {folder / "report.md"}',
        'ROCStories Valid Accuracy: 78.50',
        'ROCStories Test Accuracy:  75.00',
    ]
    assert '**our sample, not the real stories**' in (folder / 'report.md').read_text()
    assert pictures_in(folder) == {'training.png', 'confidence.png'}
    first = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    log, task, test, *_ = analysis.read_run(folder, tmp_path / 'log' / 'mine.jsonl')
    write_report(folder, log, task, {'test': (test['test'][0], make_set(task)[1])})
    assert first == {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def test_several_runs(tmp_path, capsys, no_pictures):
    for i, right in enumerate([45, 48, 54]):
        about = {'sizes': {'training': 500}, 'options': {'seed': i, 'lr': 1e-4}, 'data': 'x'}
        options = make_run(tmp_path, f'seed{i}', right=right, seed=i, about=about)
    assert analysis.main(['--desc', 'seed0', 'seed1', 'seed2', *options]) == 0
    output = capsys.readouterr().out
    assert 'ROCStories, accuracy' in output and 'warning' not in output
    lines = [line for line in output.splitlines() if line.startswith('|')]
    rows = {cells[1]: cells for cells in ([c.strip() for c in line.split('|')] for line in lines)}
    assert [rows[f'seed{i}'][2:4] for i in range(3)] == [[str(i), '500'] for i in range(3)]
    found = [rows[name][5] for name in ('median', 'lowest', 'highest')]
    assert found == ['80.00', '75.00', '90.00']
    deviation = float(rows['standard deviation'][5])
    assert deviation == pytest.approx(np.std([75, 80, 90], ddof=1), abs=0.01)
    written = (tmp_path / 'analysis' / 'runs.md').read_text()
    assert '\n'.join(lines) in written and 'learning_curve' not in written
    assert '<table>' in (tmp_path / 'analysis' / 'runs.html').read_text()


def test_a_learning_curve_and_runs_of_different_options(tmp_path, capsys):
    """Each number of training examples has its own median."""
    for i, (n_train, lr) in enumerate([(100, 1e-4), (400, 1e-4), (100, 2e-4)]):
        about = {'sizes': {'training': n_train}, 'options': {'n_train': n_train, 'lr': lr}}
        options = make_run(tmp_path, f'run{i}', right=40 + i, about=about | {'weights': f'{lr}'})
    assert analysis.main(['--desc', 'run0', 'run1', 'run2', *options]) == 0
    warning = 'warning: these runs differ in the weights, lr (0.0001, 0.0002)'
    assert warning in capsys.readouterr().out.splitlines()
    report = (tmp_path / 'analysis' / 'runs.md').read_text()
    names = ['run0', 'run2', 'median', 'lowest', 'highest', 'standard deviation', 'run1']
    places = [report.index(f'| {name} ') for name in names]
    assert places == sorted(places) and report.count('| median') == 1
    assert f'**{warning}**' in report and 'learning_curve_1.png' in report
    assert pictures_in(tmp_path / 'analysis') == {'learning_curve_1.png'}
    assert 'data:image/png' in (tmp_path / 'analysis' / 'runs.html').read_text()


def test_custom_data_and_a_validation_set(tmp_path, no_pictures):
    data, folder = tmp_path / 'data', tmp_path / 'analysis' / 'own'
    rows = [f'text {i},{"red" if i % 2 else "green"}' for i in range(40)]
    for path in (data, tmp_path / 'log'):
        path.mkdir()
    for name, lines in {'train': rows, 'valid': rows[:20], 'test': ['text 0,', 'text 1,']}.items():
        (data / f'{name}.csv').write_text('\n'.join(['text,label', *lines]) + '\n')
    arguments = {'dataset': 'custom', 'data_dir': str(data), 'n_valid': None, 'positive': 'green'}
    task, found = analysis.read_data_of(arguments, 'log', None)
    sets = [
        {name: (examples, np.ones((len(examples), 2))) for name, examples in split.items()}
        for split in (found.test, found.valid)
    ]
    save_predictions(folder, task, *sets)
    write_log(tmp_path / 'log' / 'own.jsonl', [arguments, *make_evaluations(task)])
    options = [f'--{name}_dir={tmp_path / name}' for name in ('log', 'analysis')]
    assert analysis.main(['--desc', 'own', *options]) == 0
    report = (folder / 'report.md').read_text()
    assert 'The sections below analyse the validation set' in report
    assert 'Validation F1 of green' in report
    names = {'predictions.csv', 'predictions_valid.csv', 'report.html', 'report.md'}
    assert set(os.listdir(folder)) == names


def test_names_of_the_files_of_several_sets(tmp_path):
    sets = {name: make_set(TASKS['mnli'], n=3) for name in ('matched', 'mismatched')}
    save_predictions(tmp_path, TASKS['mnli'], sets, sets)
    names = [f'predictions{kind}_{name}.csv' for kind in ('', '_valid') for name in sets]
    assert sorted(os.listdir(tmp_path)) == names


@pytest.mark.parametrize(
    'argv, arguments, words',
    [
        (['--desc', 'nowhere'], {}, 'nowhere'),
        (['--data_dir', 'nowhere'], {}, 'nowhere'),
        ([], {'dataset': 'unheard-of'}, "'unheard-of' is not known"),
        ([], {'dataset': ['list']}, 'is not known'),
        ([], {'dataset': 'custom'}, 'no train.csv'),
        ([], {'data_dir': None}, 'None'),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, argv, arguments, words):
    options = make_run(tmp_path, 'mine', **arguments)
    assert analysis.main(['--desc', 'mine', *options, *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith('analysis.py: error: ') and error.count('\n') == 1
    assert words in error


@pytest.mark.parametrize('change', ['texts', 'labels', 'number'])
def test_data_that_have_changed_since_the_run(tmp_path, capsys, no_pictures, change):
    first, *others = make_set(TASKS['rocstories'], 60, 45)[0]
    options = make_run(tmp_path, 'mine', id='x')
    _, data = read_data('rocstories', str(tmp_path / 'data'), 10)
    known = {'test test': record.examples_hash(data.test['test'])}
    record.write(tmp_path / 'analysis' / 'mine', {'id': 'x', 'examples': known})
    assert analysis.main(['--desc', 'mine', *options]) == 0
    changed = {
        'texts': [first._replace(texts=('Another story.', *first.texts[1:]))],
        'labels': [first._replace(label=1 - first.label)],
        'number': [],
    }
    write_rocstories(tmp_path / 'data', changed[change] + others)
    assert analysis.main(['--desc', 'mine', *options]) == 2
    assert 'has the predictions of other examples' in capsys.readouterr().err


def test_a_log_of_another_task(tmp_path, capsys):
    options = make_run(tmp_path, 'mine')
    log = tmp_path / 'log' / 'mine.jsonl'
    log.write_text(log.read_text().replace('acc', 'f1'))
    assert analysis.main(['--desc', 'mine', *options]) == 2
    assert 'no "va_acc"' in capsys.readouterr().err
