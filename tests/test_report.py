"""The report of a run: scores that can be checked by hand, files, pictures, a page."""

import io
import math
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from browser import NEEDS_CHROMIUM, Browser
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import read_log, read_predictions
from datasets import TASKS
from gpt1.report import pictures
from gpt1.report.html import write_html
from gpt1.report.intervals import Score, interval, noise_of
from gpt1.report.log import MAX_TEXT, Log, is_real, log_name, plain
from gpt1.report.predictions import predictions_for, write_predictions
from gpt1.report.report import (
    N_MISTAKES,
    calibrate,
    describe,
    markdown_table,
    print_metrics,
    write_report,
)
from gpt1.tasks.metrics import METRICS
from gpt1.tasks.task import Example, Task
from utils import InputError

CUSTOM = Task('custom', 'Custom', 'text', ('red', 'green'), ('accuracy', 'f1'), {})
MACRO = replace(CUSTOM, labels=('a', 'b', 'c'), positive=None)
REGRESSION = replace(
    CUSTOM, labels=None, metrics=('pearson', 'spearman'), regression=True, mean=2.0, std=1.5
)
CHOICES = replace(CUSTOM, layout='choices', labels=None, metrics=('accuracy',), first_label='1')
MANY = replace(CUSTOM, labels=tuple(f'class {i}' for i in range(30)), metrics=('accuracy',))
KINDS = {**TASKS, 'classes': CUSTOM, 'regression': REGRESSION, 'choices': CHOICES, 'many': MANY}
SPLITS = {'mnli': ('matched', 'mismatched'), 'race': ('middle', 'high')}


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


def make_report(folder, task, labels=True, valid=False, notes=(), progress=(), **start):
    """Write a report on made-up data. Returns its text."""
    splits = SPLITS.get(task.name, ('test',))
    test = {name: make_set(task, labels=labels, seed=i) for i, name in enumerate(splits)}
    validated = {}
    if valid:
        validated = {name.replace('test', 'valid'): make_set(task) for name in splits}
    log = Log({'desc': 'mine', **start}, make_evaluations(task, splits), list(progress))
    write_report(folder, log, task, test, validated, notes)
    return (folder / 'report.md').read_text(encoding='utf-8')


def pictures_in(folder):
    """The names of the pictures in a folder, each of which must be a PNG file."""
    names = {name for name in os.listdir(folder) if name.endswith('.png')}
    for name in names:
        assert (folder / name).read_bytes().startswith(b'\x89PNG\r\n\x1a\n')
    return names


def score_on(task, metric, **options):
    predictions = predictions_for(task, *make_set(task, **options))
    value = task.score(metric, predictions.labels, predictions.values)
    return Score('test', metric, value, predictions, task)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
@pytest.mark.filterwarnings('ignore:A single label')
def test_scores_of_classes_are_those_of_scikit_learn(pairs):
    labels, predictions = np.array(pairs).T
    score, options = sklearn.metrics.f1_score, {'zero_division': 0}
    expected = {i: score(labels == i, predictions == i, **options) for i in range(4)}
    expected[None] = score(labels, predictions, average='macro', **options)
    for positive, value in expected.items():
        found = METRICS['f1'](labels, predictions, positive=positive)
        assert found == pytest.approx(100 * value)
    expected = 100 * sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert METRICS['matthews'](labels, predictions) == pytest.approx(expected)


@pytest.mark.parametrize(
    'task, metric',
    [(TASKS['mrpc'], 'f1'), (MACRO, 'f1'), (TASKS['cola'], 'matthews'), (REGRESSION, 'spearman')],
)
def test_intervals_are_those_of_scipy_s_bootstrap(task, metric):
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
    assert interval(score) == interval(score) == pytest.approx(tuple(expected), abs=2)


def test_the_noise_of_a_score():
    """Its standard error, and what the same prediction for all examples would have."""
    error, guess = noise_of(score_on(TASKS['snli'], 'accuracy', n=300, right=240))
    assert (error, guess) == pytest.approx((100 * math.sqrt(0.8 * 0.2 / 300), 100 / 3), abs=0.05)
    assert noise_of(score_on(TASKS['mrpc'], 'f1', n=300, right=240))[1] == pytest.approx(200 / 3)


def test_predictions_that_are_all_the_same_have_no_correlation():
    predictions = predictions_for(REGRESSION, make_set(REGRESSION)[0], np.full((60, 1), 0.3))
    constant = Score('test', 'pearson', 0.0, predictions, REGRESSION)
    assert describe([constant])[0].endswith('95 % interval (bootstrap) not defined.')
    assert noise_of(constant) == (100 / math.sqrt(60), 0)


def test_calibration():
    bins = calibrate(np.array([0.88, 0.81, 0.86, 0.7, 1.0]), np.array([1, 1, 0, 1, 1], bool))
    np.testing.assert_allclose(bins[:, :2], [[70, 100], [85, 200 / 3], [100, 100]])
    assert bins[:, 4].tolist() == [1, 3, 1] and bins[1, 2] == pytest.approx(20.77, abs=0.01)


def write(task, examples, logits):
    f = io.StringIO()
    write_predictions(f, task, examples, logits)
    return f.getvalue()


STORIES = TASKS['rocstories']


def test_predictions_of_rocstories():
    examples = [Example('a,b', ('x', 'y', 'z'), 0), Example('c"d', ('\r\n', '', ''), None)]
    assert write(STORIES, examples, np.float32([[0.1, 0.2], [-3e-9, -1e9]])) == (
        'id,context,choice1,choice2,score_1,score_2,probability,prediction,label\n'
        '"a,b",x,y,z,0.100000001,0.200000003,0.524979,2,1\n'
        '"c""d","\n",,,-3.00000003e-09,-1e+09,1.000000,1,\n'
    )


@pytest.mark.parametrize(
    'task, first, last',
    [
        ('snli', 'text1,text2,score_entailment,score_neutral,', ',entailment'),
        ('race', 'context,question,choice1,choice2,score_A,score_B,', ',A'),
        ('classes', 'text,score_red,score_green,probability,prediction,label', ',red'),
        ('stsb', 'text1,text2,score_0,score_1,', ',0'),
        ('regression', 'text,score,prediction,label', ',0'),
    ],
)
def test_predictions_of_each_kind(task, first, last):
    header, row, *_ = write(KINDS[task], *make_set(KINDS[task])).splitlines()
    assert header.startswith(f'id,{first}')
    assert row.startswith('id0,Text 0 of *0* <tag>,') and row.endswith(last)


texts = st.text(st.characters(exclude_categories=['Cs']), max_size=8)
scores = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(list(KINDS.values())), st.data())
def test_predictions_survive_their_file(tmp_path_factory, task, data):
    n_scores = 4 if task.layout == 'choices' else task.n_out
    row = st.tuples(texts, st.lists(scores, min_size=n_scores, max_size=n_scores))
    rows = data.draw(st.lists(row, max_size=5))
    logits = np.array([row for _, row in rows], dtype=np.float32).reshape(-1, n_scores)
    n_texts = {'text': 1, 'choices': task.n_context + n_scores}.get(task.layout, 2)
    examples = [Example(name, (name,) * n_texts, None) for name, _ in rows]
    if task.layout == 'choices' and len(rows):
        logits[0, 1:] = -np.inf  # an example with fewer choices
        examples[0] = examples[0]._replace(texts=examples[0].texts[: task.n_context + 1])
        share = predictions_for(task, examples, logits).shares[0]
        np.testing.assert_array_equal(share, [1, 0, 0, 0])
    path = tmp_path_factory.mktemp('file') / 'predictions.csv'
    path.write_text(write(task, examples, logits), encoding='utf-8', newline='')
    found = read_predictions(path, task, examples)
    np.testing.assert_array_equal(found, logits)


HEAD = 'id,score_1,score_2,probability,prediction,label\n'


@pytest.mark.parametrize(
    'text, where',
    [
        ('', 'row 1'),
        ('id,score_red,score_blue,probability,prediction,label\n', 'row 1'),
        ('score_1,score_2\n', 'row 1'),
        (HEAD + 'a,x,2,0.5,1,1\n', 'row 2'),
        (HEAD + 'a,1,2,0.5,1,1\na,nan,2,0.5,1,1\n', 'row 3'),
        (HEAD + 'a,1e400,2,0.5,1,1\n', 'row 2'),
        (HEAD + 'a,,,0.5,1,1\n', 'row 2'),
        (HEAD + 'a\n', 'row 2'),
        (HEAD + '\xff', 'train.py writes it'),
        ('id,score_red,score_green,probability,prediction,label\na,1,,0.5,1,1\n', 'row 2'),
    ],
)
def test_wrong_predictions(tmp_path, text, where):
    path = tmp_path / 'predictions.csv'
    path.write_bytes(text.encode('latin-1'))
    task = CUSTOM if '_red' in text else STORIES
    with pytest.raises(InputError, match=f'predictions.csv.*{where}'):
        read_predictions(path, task, [])


EVALUATION = '{}\n{"n_epochs": 1, "n_updates": 1, "tr_cost": 1, "va_cost": %s, "va_acc": 1}\n'


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{}\n',
        '[]\n[]\n',
        '{}\n{"n_epochs": 1}\n',
        '{}\nnot JSON\n',
        '\xff',
        '{}\n' + '[' * 10**5,
    ]
    + [EVALUATION % value for value in ('"1"', 'NaN', 'true')],
)
def test_wrong_logs(tmp_path, text):
    (tmp_path / 'log.jsonl').write_bytes(text.encode('latin-1'))
    with pytest.raises(InputError, match='log.jsonl'):
        read_log(tmp_path / 'log.jsonl')


def test_lines_of_several_metrics_and_sets(capsys):
    race = TASKS['race']
    test = {'middle': make_set(race, n=20, right=10), 'high': make_set(race, n=60, right=60)}
    test['more'] = make_set(race, labels=False)
    print_metrics(race, make_evaluations(race, ('middle', 'high')), test)
    assert capsys.readouterr().out.splitlines() == [
        'RACE Valid Accuracy: 78.50',
        'RACE Valid Accuracy, middle: 73.25',
        'RACE Valid Accuracy, high: 73.25',
        'RACE Test Accuracy:  87.50',
        'RACE Test Accuracy, middle:  50.00',
        'RACE Test Accuracy, high:  100.00',
        'RACE Test Accuracy, more:  not known: the test file has no labels',
    ]


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
    kind = 'test' if labels else 'validation'
    assert (f'The sections below analyse the {kind} set' in report) == bool(sections)
    assert not sections or sections[-1] in ('The surest mistakes', 'The largest errors')
    assert ('confusion.png' in report) == (
        (labels or valid) and KINDS[name].labels is not None and name != 'many'
    )
    items = re.findall(r'^(\d+\. )Example.*\n((?: +- .*\n)+)', report, re.M)
    assert len(items) == (N_MISTAKES if sections else 0)
    for number, texts in items:  # Markdown wants them below the first word
        assert {len(line) - len(line.lstrip()) for line in texts.splitlines()} == {len(number)}


@pytest.mark.parametrize('name, more', [('snli', {'confidence', 'confusion'}), ('stsb', set())])
def test_pictures_of_a_report(tmp_path, capsys, name, more):
    progress = [{'n_updates': i, 'loss': 1 / i} for i in range(1, 30)]
    report = make_report(tmp_path, TASKS[name], valid=True, progress=progress)
    assert set(re.findall(r'\((\w+)\.png\)', report)) == {'training', *more}
    assert pictures_in(tmp_path) == {f'{name}.png' for name in {'training', *more}}
    assert not capsys.readouterr().err


def test_pictures_show_the_interval_and_no_curve_of_one_point(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(
        pictures, 'draw', lambda *args: drawn.append([Figure().subplots(), args[3:]])
    )
    make_report(tmp_path, CUSTOM, valid=True)
    (axes, (_, score)), *_, (calibration, (_, sizes)) = drawn
    score(axes)
    low, high = axes.get_ylim()
    assert low < 62.77 and high > 84.22  # Wilson's, of 45 of 60
    sizes(calibration)
    assert sum(bar.get_height() for bar in calibration.patches) == 60
    drawn.clear()
    log = Log({}, make_evaluations(CUSTOM, n_epochs=1), [])
    write_report(tmp_path, log, CUSTOM, {'test': make_set(CUSTOM, labels=False)})
    assert not drawn and 'training.png' not in (tmp_path / 'report.md').read_text()


def test_the_smoothed_curve_of_a_line_is_the_line():
    np.testing.assert_allclose(pictures.smooth(np.full(41, 2.0)), 2)
    np.testing.assert_allclose(pictures.smooth(np.arange(41.0))[2:-2], np.arange(2, 39))


def test_the_scores_of_a_report(tmp_path, no_pictures):
    report = make_report(tmp_path, STORIES, notes=['QNLI *version* 2'], sample=['made-up sample'])
    assert report.startswith('# mine\n\n**made-up sample**\n\n- Data: QNLI \\*version\\* 2\n')
    assert '**75.00 %** (45 of 60 examples); 95 % interval (Wilson) 62.77 to 84.22.' in report
    assert '**78.50 %**, after epoch 3 (update 30)' in report
    assert 'paper' not in report and ' 86.5 % (paper).' in make_report(tmp_path, STORIES)
    mistakes = report.split('## The surest mistakes')[1]
    assert '15 of 60 predictions are wrong' in mistakes
    assert mistakes.count('(right)') == N_MISTAKES
    assert r'of \*5' in mistakes and r'\<tag\>' in mistakes  # shown, not interpreted
    shares = [float(share) for share in re.findall(r'predicted \d \(([\d.]+) %\)', mistakes)]
    assert shares == sorted(shares, reverse=True) and min(shares) >= 50


def test_mistakes_show_classes_and_probabilities(tmp_path, no_pictures):
    report = make_report(tmp_path, TASKS['snli'])
    assert re.search(r'predicted (\w+) \([\d.]+ %\), right is (\w+) \([\d.]+ %\)', report)
    assert '| entailment      |       20 |' in report
    assert '| mean (macro F1) ' in report
    report = make_report(tmp_path, TASKS['stsb'])
    assert re.search(r'predicted [\d.]+, right is [\d.]+\n', report)
    report = make_report(tmp_path, TASKS['race'], n_ctx=512, n_cut={'training': 1200, 'test': 3})
    assert re.search(r'predicted B \([\d.]+ %\), right is A', report)
    assert 'middle and high together' in report
    rule = '509 tokens of an example are read; the context loses its end'
    assert f'- Cut: 1,200 training, 3 test examples are longer: {rule}.\n' in report


@pytest.mark.parametrize('task', [STORIES, CUSTOM, REGRESSION])
@pytest.mark.parametrize('n, right', [(1, 0), (5, 5)])
def test_small_and_perfect_runs_before_the_end_of_an_epoch(tmp_path, capsys, task, n, right):
    """With the costs of a run that diverged."""
    lines = make_evaluations(task, n_epochs=2)
    lines[0] |= {'n_epochs': 0, 'n_updates': 4, 'tr_cost': math.nan, 'va_cost': math.inf}
    some = {'test': make_set(task, n=n, right=right)}
    write_report(tmp_path, Log({}, lines, []), task, some, some)
    all_right = 'There are none.' in (tmp_path / 'report.md').read_text()
    assert all_right == (right == n and not is_real(task))
    assert 'training.png' in pictures_in(tmp_path) and not capsys.readouterr().err


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_shown_as_it_is(text):
    shown = plain(text)
    assert ISOLATE.sub('', re.sub(r'\\(.)', r'\1', shown)) == ISOLATE.sub(
        '', ' '.join(text.split())
    )
    assert '\n' not in shown and not re.search(r'(?<!\\)(\\\\)*[*_<>|#`$&\[\]~]', shown)
    assert len(plain(text * 1000)) < 2 * MAX_TEXT + 10  # cut


@pytest.mark.parametrize('positive, title, value', [(0, 'F1 of red', 0), (1, 'F1 of green', 94.74)])
def test_a_class_that_is_never_predicted(tmp_path, capsys, no_pictures, positive, title, value):
    task = replace(CUSTOM, positive=positive)
    examples = [Example(str(i), ('text',), int(i > 1)) for i in range(20)]
    test = {'test': (examples, np.array([[0.0, 1.0]] * 20))}
    write_report(tmp_path, Log({}, make_evaluations(task), []), task, test)
    print_metrics(task, make_evaluations(task), {}, test)
    warning = "warning: the class 'red' is never predicted, but right for 2 of 20 examples of the "
    report, printed = (tmp_path / 'report.md').read_text(), capsys.readouterr()
    assert f'**{warning}test set**' in report and f'- Test {title}: **{value:.2f}**' in report
    assert printed.err == f'{warning}validation set\n'
    assert f'Custom Valid {title}: ' in printed.out and f'validation {title}' in report


TEXTS = [  # what would be markup, or turn the line around
    '<script>document.title = "hacked"</script>',
    '<img src=http://example.com/a.png onerror=alert(1)>',
    '| a | `b` | *c* __d__ ~~e~~ [f](http://example.com) ![g](a.png) $h$ \\',
    '&amp; &lt;i&gt; "quoted" <!-- hidden -->',
    '# שלום (5)',
    'مرحبا\u202e abc',
    '😀 👩‍👩‍👧',
    'two\n\nlines',
    'x' * 300,
]
ISOLATE = re.compile('[\u2068\u2069]')


def write_page(folder):
    """A page with the texts as title, in a table and in a list, and with a wide picture."""
    shown = [plain(text) for text in TEXTS]
    lines = [f'# {shown[0]}', '', *markdown_table(['class', *shown[:3]], [[t] * 4 for t in shown])]
    lines += ['', '![A line](line.png)', '', '![Lost](lost.png)', '']
    lines += [f'1. Example {text}: right\n   - text: {text}' for text in shown]
    pictures.draw(str(folder / 'line.png'), 9, 4, lambda axes: axes.plot([1, 2]))
    (folder / 'report.md').write_text('\n'.join(lines), encoding='utf-8')
    write_html(folder / 'report.md')
    return folder / 'report.html'


@NEEDS_CHROMIUM
def test_a_browser_shows_the_report_as_it_is(tmp_path):
    path = write_page(tmp_path)
    with Browser(tmp_path / 'browser') as page:
        for width, scheme in [(390, 'light'), (1200, 'dark')]:
            page.open(path, width, scheme)
            rows = page.value('[...document.querySelectorAll("tbody tr")].map(r => r.innerText)')
            items = page.value('[...document.querySelectorAll("li li")].map(i => i.innerText)')
            for text, row, item in zip(TEXTS, rows, items, strict=True):
                text = ' '.join(text.split())
                assert ISOLATE.sub('', row) == '\t'.join([text] * 4)
                assert ISOLATE.sub('', item) == f'text: {text}'
            assert page.value('document.title') == TEXTS[0]
            assert page.value('[...document.images].map(i => i.naturalWidth)') == [1080]
            assert page.value('document.scrollingElement.scrollWidth') <= width
        dark = page.value('getComputedStyle(document.body).backgroundColor')
        assert max(map(int, re.findall(r'\d+', dark))) < 50
    told = {event['method'] for event in page.events}
    assert not told & {'Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded'}
    requests = [e for e in page.events if e['method'] == 'Network.requestWillBeSent']
    addresses = {e['params']['request']['url'].split(':')[0] for e in requests}
    assert addresses == {'file', 'data'}


def test_what_no_run_needs_fails_with_a_warning(tmp_path, capsys, monkeypatch):
    """And an earlier picture or page does not stand for it."""
    (tmp_path / 'a.png').write_text('an earlier one')
    pictures.draw(str(tmp_path / 'a.png'), 2, 2, lambda axes: axes.plot([1], [2, 3]))
    (tmp_path / 'b.md').write_text('# A\n')
    monkeypatch.setitem(sys.modules, 'markdown_it', None)
    write_html(tmp_path / 'b.md')
    monkeypatch.undo()
    (tmp_path / 'b.html').mkdir()
    write_html(tmp_path / 'b.md')
    for name, line in zip(['a.png', 'b.html', 'b.html'], capsys.readouterr().err.splitlines()):
        assert line.startswith(f'warning: {tmp_path / name} was not made: ')
    assert not (tmp_path / 'a.png').exists()
