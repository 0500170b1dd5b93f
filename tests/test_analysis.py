"""analysis.py: scores that can be checked by hand, and reports of runs of every kind."""

import csv
import io
import json
import math
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from datasets import TASKS, read_data
from gpt1.report import intervals, pictures
from gpt1.report.intervals import Score, format_interval, interval, noise_of
from gpt1.report.log import (
    MAX_TEXT,
    best_evaluation,
    columns_of,
    is_real,
    log_name,
    plain,
    read_log,
)
from gpt1.report.predictions import (
    predictions_for,
    probabilities,
    read_predictions,
    save_predictions,
    write_predictions,
)
from gpt1.report.report import N_MISTAKES, calibrate, can_compare, print_metrics, write_report
from gpt1.run import record
from gpt1.tasks.metrics import METRICS
from gpt1.tasks.task import Example, Task
from utils import InputError

CUSTOM = Task('custom', 'Custom', 'text', ('red', 'green'), ('accuracy', 'f1'), {})
REGRESSION = replace(
    CUSTOM, labels=None, metrics=('pearson', 'spearman'), regression=True, mean=2.0, std=1.5
)
CHOICES = replace(CUSTOM, layout='choices', labels=None, metrics=('accuracy',), first_label='1')
MANY = replace(CUSTOM, labels=tuple(f'class {i}' for i in range(30)), metrics=('accuracy',))
KINDS = {**TASKS, 'classes': CUSTOM, 'regression': REGRESSION, 'choices': CHOICES, 'many': MANY}
SPLITS = {'mnli': ('matched', 'mismatched'), 'race': ('middle', 'high')}


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures are not drawn: they take most of the time of a report."""
    monkeypatch.setattr(pictures, 'draw', lambda *_: None)


def make_set(task, n=60, right=45, labels=True, n_choices=2, seed=0):
    """Made-up examples, and logits that are right in `right` of `n`: (examples, logits)."""
    rng = np.random.default_rng(seed)
    n_classes = n_choices if task.layout == 'choices' else len(task.labels or range(6))
    real = is_real(task)
    label = [float(i % 11) / 2 if real else i % n_classes for i in range(n)]
    n_texts = {'text': 1, 'pair': 2, 'similarity': 2}.get(task.layout, task.n_context + n_choices)
    examples = []
    for i in range(n):
        words = ' word' * (i % 7)
        texts = tuple(f'Text {k} of *{i}* <tag>{words}' for k in range(n_texts))
        examples.append(Example(f'id{i}', texts, label[i] if labels else None))
    sure = np.linspace(0.1, 4, n)[rng.permutation(n)]
    if task.regression:
        noise = np.where(np.arange(n) < right, 0.1, 2) * rng.normal(size=n)
        return examples, ((np.array(label) + noise - task.mean) / task.std)[:, None]
    if task.soft_labels:
        return examples, -((np.arange(6) - np.array(label)[:, None] - rng.normal(size=(n, 1))) ** 2)
    shift = np.arange(n) >= right  # to the next class
    predicted = (np.array(label) + shift) % n_classes
    logits = np.zeros((n, n_classes))
    logits[np.arange(n), predicted] = sure
    return examples, logits.astype(np.float32)


def make_evaluations(task, splits=('valid',), n_epochs=3):
    """The lines of a log after its first one. The best scores are 1, 2, ... above 75.5."""
    lines = []
    for i in range(1, n_epochs + 1):
        line = {'n_epochs': i, 'n_updates': 10 * i, 'tr_cost': 0.5 / i, 'va_cost': 0.6 / i}
        for metric in task.metrics:
            name = log_name(metric)
            line |= {f'tr_{name}': 80.0 + i, f'va_{name}': 75.5 + i}
        for split in splits if task.pooled else splits[1:]:
            for name in ('cost', *map(log_name, task.metrics)):
                line[f'va_{name}_{split}'] = 70.25 + i
        lines.append({**line, 'time': 1.5})
    return lines


def make_report(folder, task, labels=True, valid=False, **options):
    """Write a report on made-up data. Returns its text."""
    splits = SPLITS.get(task.name, ('test',))
    test = {name: make_set(task, labels=labels, seed=i) for i, name in enumerate(splits)}
    validated = {}
    if valid:
        validated = {name.replace('test', 'valid'): make_set(task) for name in splits}
    evaluations = make_evaluations(task, splits)
    arguments = {'desc': 'mine'}
    write_report(folder, arguments, evaluations, task, test, validated, **options)
    return (folder / 'report.md').read_text(encoding='utf-8')


def pictures_in(folder):
    """The names of the pictures in a folder, each of which must be a PNG file."""
    names = {name for name in os.listdir(folder) if name.endswith('.png')}
    for name in names:
        assert (folder / name).read_bytes().startswith(b'\x89PNG\r\n\x1a\n')
    return names


# Metrics and intervals


def score_on(task, metric, **options):
    predictions = predictions_for(task, *make_set(task, **options))
    value = task.score(metric, predictions.labels, predictions.values)
    return Score('test', metric, value, predictions, task)


def test_the_interval_of_accuracy_is_wilson_s():
    """As Newcombe (1998) prints it, table I."""
    for n_right, n, expected in [(81, 263, (25.53, 36.62)), (0, 20, (0, 16.11))]:
        score = score_on(TASKS['sst2'], 'accuracy', n=n, right=n_right)
        assert interval(score) == pytest.approx(expected, abs=0.01)


pairs_of_classes = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), min_size=1, max_size=50)
)


@settings(deadline=None, max_examples=30)
@given(pairs_of_classes)
def test_scores_of_classes_are_those_of_scikit_learn(pairs):
    labels, predictions = np.array(pairs).T
    score, options = sklearn.metrics.f1_score, {'zero_division': 0}
    for positive in range(4):
        expected = score(labels == positive, predictions == positive, **options)
        assert METRICS['f1'](labels, predictions, positive=positive) == pytest.approx(
            100 * expected
        )
    expected = 100 * score(labels, predictions, average='macro', **options)
    assert METRICS['f1'](labels, predictions, positive=None) == pytest.approx(expected)
    expected = 100 * sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert METRICS['matthews'](labels, predictions) == pytest.approx(expected)


MACRO = replace(CUSTOM, labels=('a', 'b', 'c'), positive=None)


@pytest.mark.parametrize(
    'task, metric',
    [
        (TASKS['mrpc'], 'f1'),
        (TASKS['cola'], 'matthews'),
        (TASKS['snli'], 'matthews'),
        (MACRO, 'f1'),
        (REGRESSION, 'pearson'),
        (REGRESSION, 'spearman'),
    ],
)
def test_intervals_are_those_of_scipy_s_bootstrap(monkeypatch, task, metric):
    score = score_on(task, metric, n=200, right=130)
    expected = scipy.stats.bootstrap(
        (score.predictions.labels, score.predictions.values),
        lambda *pair: task.score(metric, *pair),
        paired=True,
        vectorized=False,
        method='percentile',
        n_resamples=1000,
        rng=1,
    ).confidence_interval
    assert interval(score) == pytest.approx(tuple(expected), abs=2)
    assert interval(score) == interval(score)
    monkeypatch.setattr(intervals, 'MAX_RESAMPLE', 100)  # smaller resamples, and about the same
    assert interval(score) == pytest.approx(tuple(expected), abs=2.5)


def test_the_noise_of_a_score():
    """Its standard error, and what the same prediction for all examples would have."""
    error, guess = noise_of(score_on(TASKS['snli'], 'accuracy', n=300, right=240))
    assert (error, guess) == pytest.approx((100 * math.sqrt(0.8 * 0.2 / 300), 100 / 3), abs=0.05)
    assert noise_of(score_on(TASKS['mrpc'], 'f1', n=300, right=240))[1] == pytest.approx(200 / 3)


def test_predictions_that_are_all_the_same_have_no_correlation():
    examples, _ = make_set(REGRESSION)
    predictions = predictions_for(REGRESSION, examples, np.full((60, 1), 0.3))
    constant = Score('test', 'pearson', 0.0, predictions, REGRESSION)
    assert format_interval(*interval(constant)) == 'not defined'
    assert noise_of(constant) == (100 / math.sqrt(60), 0)


def test_calibration():
    examples = [Example(str(i), ('a',), label) for i, label in enumerate([0, 0, 1, 1])]
    logits = np.log([[0.88, 0.12], [0.81, 0.19], [0.86, 0.14], [0.3, 0.7]])
    rows, error = calibrate(predictions_for(CUSTOM, examples, logits))
    # one right prediction with 0.7; two of three right with 0.85 on average
    np.testing.assert_allclose(rows, [[0.7, 1], [0.85, 2 / 3]])
    assert error == pytest.approx((0.3 + 3 * (0.85 - 2 / 3)) / 4)


def test_a_missing_choice_has_no_probability():
    shares = probabilities(CHOICES, np.array([[0, 0, -np.inf], [1, 1, 1]]))
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [1 / 3] * 3])


# predictions.csv


def write(task, examples, logits):
    f = io.StringIO()
    write_predictions(f, task, examples, logits)
    return f.getvalue()


def test_predictions_of_rocstories():
    examples = [Example('a,b', ('', '', ''), 0), Example('c"d', ('', '', ''), None)]
    logits = np.array([[0.1, 0.2], [-3e-9, -1e9]], dtype=np.float32)
    assert write(TASKS['rocstories'], examples, logits) == (
        'id,score1,score2,probability,prediction,label\n'
        '"a,b",0.100000001,0.200000003,0.524979,1,0\n'
        '"c""d",-3.00000003e-09,-1e+09,1.000000,0,\n'
    )


@pytest.mark.parametrize(
    'task, header, row',
    [
        (TASKS['snli'], 'id,score1,score2,score3,probability,prediction,label', 'entailment'),
        (TASKS['cola'], 'id,score1,score2,probability,prediction,label', 'unacceptable'),
        (TASKS['race'], 'id,score1,score2,probability,prediction,label', 'A'),
        (CHOICES, 'id,score1,score2,probability,prediction,label', '1'),
        (CUSTOM, 'id,score1,score2,probability,prediction,label', 'red'),
        (TASKS['stsb'], 'id,score1,score2,score3,score4,score5,score6,prediction,label', '0'),
        (REGRESSION, 'id,score,prediction,label', '0'),
    ],
)
def test_predictions_of_each_kind(task, header, row):
    lines = write(task, *make_set(task)).splitlines()
    assert lines[0] == header and lines[1].startswith('id0,') and lines[1].endswith(f',{row}')


texts = st.text(st.characters(exclude_categories=['Cs']), max_size=8)
scores = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(list(KINDS.values())), st.data())
def test_predictions_survive_their_file(tmp_path_factory, task, data):
    n_scores = 4 if task.layout == 'choices' else task.n_out
    rows = data.draw(
        st.lists(
            st.tuples(texts, st.lists(scores, min_size=n_scores, max_size=n_scores)), max_size=5
        )
    )
    logits = np.array([row for _, row in rows], dtype=np.float32).reshape(-1, n_scores)
    if task.layout == 'choices' and len(rows):
        logits[0, 1:] = -np.inf  # an example with fewer choices
    examples = [Example(name, ('text',) * 6, None) for name, _ in rows]
    path = tmp_path_factory.mktemp('file') / 'predictions.csv'
    path.write_text(write(task, examples, logits), encoding='utf-8', newline='')
    names, found, _ = read_predictions(path, task)
    assert names == [name.replace('\r', ' ') for name, _ in rows]
    np.testing.assert_array_equal(found, logits)


HEADER = 'id,score1,score2,probability,prediction,label\n'


@pytest.mark.parametrize(
    'text, where',
    [
        ('', 'row 1'),
        ('id\n', 'row 1'),
        ('id,score1,probability,prediction,label\n', 'row 1'),
        (HEADER + 'a,x,2,0.5,1,1\n', 'row 2'),
        (HEADER + 'a,1,2,0.5,1,1\na,nan,2,0.5,1,1\n', 'row 3'),
        (HEADER + 'a,1e400,2,0.5,1,1\n', 'row 2'),
        (HEADER + 'a,,,0.5,1,1\n', 'row 2'),
        (HEADER + 'a\n', 'row 2'),
        (HEADER + '\xff', 'not a CSV file'),
    ],
)
def test_wrong_predictions(tmp_path, text, where):
    path = tmp_path / 'predictions.csv'
    path.write_bytes(text.encode('latin-1'))
    for task in (TASKS['rocstories'], CUSTOM):
        with pytest.raises(InputError, match=f'predictions.csv.*{where}'):
            read_predictions(path, task)


def test_a_class_cannot_be_missing(tmp_path):
    path = tmp_path / 'predictions.csv'
    path.write_text(HEADER + 'a,1,,0.5,1,1\n')
    assert read_predictions(path, TASKS['rocstories'])[1].tolist() == [[1, -math.inf]]
    with pytest.raises(InputError, match='row 2: expected numbers as scores'):
        read_predictions(path, CUSTOM)


# The log


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{}\n',
        '[]\n[]\n',
        '{}\n{"n_epochs": 1}\n',
        '{}\n[]\n',
        '{}\nnot JSON\n',
        '{}\n{"n_epochs": 1, "n_updates": 1, "tr_cost": 1, "va_cost": "1", "va_acc": 1}\n',
        '{}\n{"n_epochs": 1, "n_updates": 1, "tr_cost": 1, "va_cost": NaN, "va_acc": 1}\n',
        '{}\n{"n_epochs": 1, "n_updates": true, "tr_cost": 1, "va_cost": 1, "va_acc": 1}\n',
        '\xff',
        '{}\n' + '[' * 10**5,
    ],
)
def test_wrong_logs(tmp_path, text):
    (tmp_path / 'log.jsonl').write_bytes(text.encode('latin-1'))
    with pytest.raises(InputError, match='log.jsonl'):
        read_log(tmp_path / 'log.jsonl')


def test_the_best_evaluation_is_the_first_of_equals():
    lines = [{'va_f1': 1.0, 'va_acc': 9.0, 'n': 1}, {'va_f1': 2.0, 'n': 2}, {'va_f1': 2.0, 'n': 3}]
    assert best_evaluation(lines, TASKS['mrpc'])['n'] == 2


def test_titles_of_the_columns_of_a_log():
    names = ('n_epochs', 'tr_cost', 'va_acc_mismatched', 'va_f1', 'time')
    assert {name: column.title() for name, column in columns_of(dict.fromkeys(names)).items()} == {
        'tr_cost': 'training cost',
        'va_acc_mismatched': 'validation accuracy, mismatched',
        'va_f1': 'validation F1',
    }


# What is printed


def test_lines_of_several_metrics_and_sets(capsys):
    print_metrics(TASKS['cola'], make_evaluations(TASKS['cola']), {})
    assert capsys.readouterr().out.splitlines() == [
        'CoLA Valid Matthews: 78.50',
        'CoLA Valid Accuracy: 78.50',
    ]
    race = TASKS['race']
    test = {'middle': make_set(race, n=20, right=10), 'high': make_set(race, n=60, right=60)}
    print_metrics(race, make_evaluations(race, ('middle', 'high')), test)
    assert capsys.readouterr().out.splitlines() == [
        'RACE Valid Accuracy: 78.50',
        'RACE Valid Accuracy, middle: 73.25',
        'RACE Valid Accuracy, high: 73.25',
        'RACE Test Accuracy:  87.50',
        'RACE Test Accuracy, middle:  50.00',
        'RACE Test Accuracy, high:  100.00',
    ]
    mnli = TASKS['mnli']
    test = {'matched': make_set(mnli), 'diagnostic': make_set(mnli, labels=False)}
    print_metrics(mnli, make_evaluations(mnli, ('matched', 'mismatched')), test)
    assert capsys.readouterr().out.splitlines() == [
        'MNLI Valid Accuracy: 78.50',
        'MNLI Valid Accuracy, mismatched: 73.25',
        'MNLI Test Accuracy, matched:  75.00',
        'MNLI Test Accuracy, diagnostic:  not known: the test file has no labels',
    ]


# Reports


@pytest.mark.parametrize(
    'name', 'rocstories race mnli cola mrpc stsb regression choices many'.split()
)
@pytest.mark.parametrize('labels, valid', [(True, False), (False, True), (False, False)])
def test_report_of_each_kind(tmp_path, no_pictures, name, labels, valid):
    report = make_report(tmp_path, KINDS[name], labels, valid)
    sections = re.findall('^## (.*)$', report, re.M)
    assert sections.pop(0) == 'Training'
    assert labels != ('not known, since the test file has no labels' in report)
    assert bool(sections) == ('95 % interval' in report) == (labels or valid)
    if sections:
        assert sections[-1].startswith(('The surest', 'The largest'))
    if valid:
        several = 'sets' if name in SPLITS else 'validation set)'
        assert all(several in title for title in sections)
        assert 'The sections below analyse the validation set' in report
    assert ('confusion.png' in report) == (
        (labels or valid) and KINDS[name].labels is not None and name != 'many'
    )


@pytest.mark.parametrize(
    'name, names',
    [
        ('race', {'training', 'confidence'}),
        ('snli', {'training', 'confidence', 'confusion'}),
        ('stsb', {'training'}),
    ],
)
def test_pictures_of_a_report(tmp_path, name, names):
    report = make_report(tmp_path, KINDS[name], published=True)
    assert pictures_in(tmp_path) == {f'{name}.png' for name in names}
    assert set(re.findall(r'\((\w+)\.png\)', report)) == names


def test_a_picture_that_fails_is_a_warning(tmp_path, capsys):
    """And an earlier one does not stand for it."""
    path = tmp_path / 'a.png'
    path.write_text('an earlier one')
    pictures.draw(str(path), 2, 2, lambda axes: axes.plot([1], [2, 3]))
    assert not path.exists()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f'warning: {path} was not made: x and y must have same first dimension')


def test_the_scores_of_a_report(tmp_path, no_pictures):
    report = make_report(tmp_path, TASKS['rocstories'])
    assert '**75.00 %** (45 of 60 examples); 95 % interval 62.77 to 84.22.' in report
    assert '**78.50 %**, after epoch 3 (update 30)' in report
    assert 'Not compared with published results' in report and 'paper' not in report
    mistakes = report.split('## The surest mistakes')[1]
    assert '15 of 60 predictions are wrong' in mistakes
    assert mistakes.count('(right)') == N_MISTAKES
    assert r'of \*5' in mistakes and r'\<tag\>' in mistakes  # shown, not interpreted
    lines = [line for line in mistakes.splitlines() if '%' in line and '(right)' not in line]
    shares = [float(re.search(r'([\d.]+)%', line).group(1)) for line in lines]
    assert shares == sorted(shares, reverse=True) and min(shares) >= 50


@pytest.mark.parametrize('name', ['rocstories', 'snli', 'stsb'])
def test_the_texts_of_every_mistake_belong_to_its_item(tmp_path, no_pictures, name):
    report = make_report(tmp_path, TASKS[name], valid=True)
    items = re.findall(r'^(\d+\. )Example.*\n((?: +- .*\n)+)', report, re.M)
    assert len(items) == N_MISTAKES
    for number, texts in items:  # Markdown wants them below the first word
        assert {len(line) - len(line.lstrip()) for line in texts.splitlines()} == {len(number)}


def test_the_report_says_how_many_examples_are_cut(tmp_path, no_pictures):
    arguments = {'n_ctx': 512, 'n_cut': {'training': 1200, 'test': 3}}
    for name, rule in [
        ('rocstories', 'of each text the first 254 tokens are read'),
        ('sst2', 'the first 510 tokens of a text are read'),
        ('race', '509 tokens of an example are read; the context loses its end'),
    ]:
        write_report(tmp_path, arguments, make_evaluations(TASKS[name]), TASKS[name], {})
        report = (tmp_path / 'report.md').read_text()
        assert f'- Cut: 1,200 training, 3 test examples are longer: {rule}.\n' in report


def test_scores_beside_published_ones(tmp_path, no_pictures):
    report = make_report(tmp_path, TASKS['rocstories'], published=True)
    assert '86.5 % (paper): outside the interval' in report  # it ends at 84.2
    assert 'Not compared' not in report
    report = make_report(tmp_path, TASKS['cola'], labels=False, valid=True, published=True)
    assert 'Published Matthews: 45.4 (paper)' in report
    report = make_report(tmp_path, TASKS['mnli'], labels=False, valid=True, published=True)
    assert 'Validation accuracy, matched' in report and '82.4 % (paper, figure 2' in report
    report = make_report(tmp_path, TASKS['race'], published=True)
    assert '59.0 % (paper)' in report and '62.9 % (paper)' in report


def test_notes_stand_first(tmp_path, no_pictures):
    report = make_report(
        tmp_path, TASKS['qnli'], notes=['made-up *sample*'], data_notes=['QNLI version 2']
    )
    assert report.startswith('# mine\n\n**made-up \\*sample\\***\n\n- Data: QNLI version 2\n')


@pytest.mark.parametrize(
    'task, n, arguments, comparable',
    [
        ('rocstories', 1871, {}, True),
        ('rocstories', 60, {}, False),
        ('rocstories', 1871, {'sample': ['our sample']}, False),
        ('rocstories', 1871, {'n_transfer': -1, 'n_layer': 12}, False),
        ('snli', 9824, {'n_transfer': 12, 'n_layer': 12, 'sample': []}, True),
        ('snli', 9823, {}, False),
        ('qnli', 5740, {}, True),
        ('custom', 5740, {}, False),
    ],
)
def test_what_is_compared_with_published_results(task, n, arguments, comparable):
    task = TASKS.get(task, CUSTOM)
    assert can_compare(arguments, task, {'test': ([None] * n, None)}) == comparable


def test_mistakes_show_classes_and_probabilities(tmp_path, no_pictures):
    report = make_report(tmp_path, TASKS['snli'])
    assert re.search(r'predicted (\w+) \([\d.]+%\), right is (\w+) \([\d.]+%\)', report)
    assert '| entailment    |       20 |' in report
    report = make_report(tmp_path, TASKS['stsb'])
    assert re.search(r'predicted [\d.]+, the score is [\d.]+', report)
    report = make_report(tmp_path, TASKS['race'])
    assert 'predicted B, right is A' in report and 'middle and high together' in report


@pytest.mark.parametrize('task', [TASKS['rocstories'], CUSTOM, REGRESSION])
@pytest.mark.parametrize('n, right', [(1, 0), (5, 5)])
def test_small_and_perfect_runs_before_the_end_of_an_epoch(tmp_path, capsys, task, n, right):
    """With the costs of a run that diverged."""
    [line] = make_evaluations(task, n_epochs=1)
    line |= {'n_epochs': 0, 'n_updates': 4, 'tr_cost': math.nan, 'va_cost': math.inf}
    write_report(tmp_path, {}, [line], task, {'test': make_set(task, n=n, right=right)})
    report = (tmp_path / 'report.md').read_text()
    if not is_real(task):
        assert ('There are none.' in report) == (right == n)
    assert 'training.png' in pictures_in(tmp_path) and not capsys.readouterr().err


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_shown_as_it_is(text):
    shown = plain(text)
    assert re.sub(r'\\(.)', r'\1', shown).strip('\u2068\u2069') == ' '.join(text.split())
    assert '\n' not in shown and not re.search(r'(?<!\\)(\\\\)*[*_<>|#`$&\[\]~]', shown)
    assert len(plain(text * 1000)) < 2 * MAX_TEXT + 10  # cut


@pytest.mark.parametrize('positive, title, value', [(0, 'F1 of red', 0), (1, 'F1 of green', 94.74)])
def test_a_class_that_is_never_predicted(tmp_path, capsys, no_pictures, positive, title, value):
    task = replace(CUSTOM, positive=positive)
    examples = [Example(str(i), ('text',), int(i > 1)) for i in range(20)]
    test = {'test': (examples, np.array([[0.0, 1.0]] * 20))}
    write_report(tmp_path, {}, make_evaluations(task), task, test)
    print_metrics(task, make_evaluations(task), {}, test)
    warning = "warning: the class 'red' is never predicted, but right for 2 of 20 examples of the "
    report, printed = (tmp_path / 'report.md').read_text(), capsys.readouterr()
    assert f'**{warning}test set**' in report and f'- Test {title}: **{value:.2f}**' in report
    assert printed.err == f'{warning}validation set\n'
    assert f'Custom Valid {title}: ' in printed.out and f'validation {title}' in report


def test_macro_f1(tmp_path, no_pictures):
    task = replace(MANY, metrics=('accuracy', 'f1'), positive=None)
    report = make_report(tmp_path, task)
    low, high = map(float, re.search(r'macro F1: .* (\S+) to (\S+)\.$', report, re.M).groups())
    assert 50 < low < 75 < high < 90


# Whole runs from their files


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


def make_run(folder, desc, n=60, right=45, labels=True, **arguments):
    """The files of a run on made-up stories. Returns options for analysis.py."""
    task = TASKS['rocstories']
    examples, logits = make_set(task, n, right, labels)
    write_rocstories(folder / 'data', examples)
    save_predictions(folder / 'analysis' / desc, task, {'test': (examples, logits)})
    (folder / 'log').mkdir(exist_ok=True)
    first = {'desc': desc, 'dataset': 'rocstories', 'seed': 42, 'n_valid': 10}
    first |= {'data_dir': str(folder / 'data'), **arguments}
    write_log(folder / 'log' / f'{desc}.jsonl', [first, *make_evaluations(task)])
    return [f'--log_dir={folder / "log"}', f'--analysis_dir={folder / "analysis"}']


def write_log(path, lines):
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_a_run_from_its_files(tmp_path, capsys):
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


def test_the_complete_test_set_is_compared(tmp_path, no_pictures):
    options = make_run(tmp_path, 'full', n=1871, right=1605)
    assert analysis.main(['--desc', 'full', *options]) == 0
    report = (tmp_path / 'analysis' / 'full' / 'report.md').read_text()
    assert '86.5 % (paper): inside the interval' in report


def test_the_report_is_that_of_train_py(tmp_path):
    """From the files, the same bytes as from what is in memory."""
    options = make_run(tmp_path, 'mine')
    folder = tmp_path / 'analysis' / 'mine'
    analysis.main(['--desc', 'mine', *options])
    first = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    run = analysis.read_run(folder, tmp_path / 'log' / 'mine.jsonl')
    examples, _ = run.test['test']
    _, logits = make_set(run.task)
    test = {'test': (examples, logits)}
    write_report(folder, run.arguments, run.evaluations, run.task, test)
    assert first == {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def test_several_runs(tmp_path, capsys, no_pictures):
    for i, right in enumerate([45, 48, 54]):
        options = make_run(tmp_path, f'seed{i}', right=right, seed=i)
    assert analysis.main(['--desc', 'seed0', 'seed1', 'seed2', *options]) == 0
    output = capsys.readouterr().out
    assert 'ROCStories, accuracy' in output
    lines = [line for line in output.splitlines() if line.startswith('|')]
    rows = {cells[1]: cells for cells in ([c.strip() for c in line.split('|')] for line in lines)}
    assert [rows[f'seed{i}'][2] for i in range(3)] == ['0', '1', '2']
    assert [rows[name][4] for name in ('median', 'lowest', 'highest')] == [
        '80.00',
        '75.00',
        '90.00',
    ]
    deviation = float(rows['standard deviation'][4])
    assert deviation == pytest.approx(np.std([75, 80, 90], ddof=1), abs=0.01)


def test_custom_data_and_a_validation_set(tmp_path, capsys, no_pictures):
    data, folder = tmp_path / 'data', tmp_path / 'analysis' / 'own'
    data.mkdir()
    rows = [f'text {i},{"red" if i % 2 else "green"}' for i in range(40)]
    (data / 'train.csv').write_text('text,label\n' + '\n'.join(rows) + '\n')
    (data / 'valid.csv').write_text('text,label\n' + '\n'.join(rows[:20]) + '\n')
    (data / 'test.csv').write_text('text\n' + '\n'.join(f'text {i}' for i in range(9)) + '\n')
    arguments = {'dataset': 'custom', 'data_dir': str(data), 'n_valid': None, 'seed': 1}
    arguments['positive'] = 'green'
    task, found = analysis.read_data_of(arguments, 'log', None)
    rng = np.random.default_rng(0)
    sets = {
        kind: {
            name: (examples, rng.normal(size=(len(examples), 2)))
            for name, examples in split.items()
        }
        for kind, split in (('test', found.test), ('valid', found.valid))
    }
    save_predictions(folder, task, sets['test'], sets['valid'])
    (tmp_path / 'log').mkdir()
    write_log(tmp_path / 'log' / 'own.jsonl', [arguments, *make_evaluations(task)])
    options = [f'--log_dir={tmp_path / "log"}', f'--analysis_dir={tmp_path / "analysis"}']
    assert analysis.main(['--desc', 'own', *options]) == 0
    report = (folder / 'report.md').read_text()
    assert '## Classes (validation set)' in report and '| green' in report
    assert 'Validation F1 of green' in report
    assert sorted(os.listdir(folder)) == [
        'predictions.csv',
        'predictions_valid.csv',
        'report.html',
        'report.md',
    ]


def test_names_of_the_files_of_several_sets(tmp_path):
    task = TASKS['mnli']
    sets = {name: make_set(task, n=3) for name in ('matched', 'mismatched')}
    save_predictions(tmp_path, task, sets, sets)
    assert sorted(os.listdir(tmp_path)) == [
        'predictions_matched.csv',
        'predictions_mismatched.csv',
        'predictions_valid_matched.csv',
        'predictions_valid_mismatched.csv',
    ]


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


def test_predictions_of_other_examples(tmp_path, capsys):
    options = make_run(tmp_path, 'mine')
    write_rocstories(tmp_path / 'data', make_set(TASKS['rocstories'], n=59)[0])
    assert analysis.main(['--desc', 'mine', *options]) == 2
    assert 'has the predictions of other examples' in capsys.readouterr().err


@pytest.mark.parametrize('change', ['texts', 'labels'])
def test_data_that_have_changed_since_the_run(tmp_path, capsys, no_pictures, change):
    options = make_run(tmp_path, 'mine', id='x')
    examples, _ = make_set(TASKS['rocstories'], 60, 45)
    _, data = read_data('rocstories', str(tmp_path / 'data'), 10)
    known = {'test test': record.examples_hash(data.test['test'])}
    record.write(tmp_path / 'analysis' / 'mine', {'id': 'x', 'examples': known})
    assert analysis.main(['--desc', 'mine', *options]) == 0
    first, *others = examples
    texts = ('Another story.', *first.texts[1:])
    changed = {'texts': texts} if change == 'texts' else {'label': 1 - first.label}
    write_rocstories(tmp_path / 'data', [first._replace(**changed), *others])
    assert analysis.main(['--desc', 'mine', *options]) == 2
    assert 'has the predictions of other examples' in capsys.readouterr().err


def test_a_log_of_another_task(tmp_path, capsys):
    options = make_run(tmp_path, 'mine')
    lines = map(json.loads, (tmp_path / 'log' / 'mine.jsonl').read_text().splitlines())
    lines = [{name.replace('acc', 'f1'): value for name, value in line.items()} for line in lines]
    write_log(tmp_path / 'log' / 'mine.jsonl', lines)
    assert analysis.main(['--desc', 'mine', *options]) == 2
    assert 'no "va_acc"' in capsys.readouterr().err
