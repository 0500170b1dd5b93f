"""analysis.py: figures that can be checked by hand, and reports of runs of every kind."""

import csv
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analysis
from datasets import COLUMNS, Stories
from utils import InputError

PICTURES = {'training.png', 'test.png', 'confidence.png', 'length.png'}


def make_run(folder, desc, n=60, right=45, labels=True, n_epochs=3, **arguments):
    """Write log, test file and predictions of a run that is right in `right` of `n` stories. Returns options for analysis.py."""
    data_dir = os.path.join(folder, 'data')
    for name in ('data', 'log', f'analysis/{desc}'):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    label = [i % 2 for i in range(n)]
    stories = Stories(
        [f'id{i}' for i in range(n)],
        [f'Story {i} has *stars* and <tags>.' + ' word' * (i % 7) for i in range(n)],
        [f'First {i}.' for i in range(n)],
        [f'Second {i}.' for i in range(n)],
        label if labels else [-1] * n,
    )
    with open(os.path.join(data_dir, 'cloze_test_test__spring2016.csv'), 'w', newline='') as f:
        csv.writer(f).writerows(
            [
                COLUMNS,
                *(
                    [
                        stories.id[i],
                        stories.story[i],
                        '',
                        '',
                        '',
                        stories.ending1[i],
                        stories.ending2[i],
                        label[i] + 1 if labels else '',
                    ]
                    for i in range(n)
                ),
            ]
        )
    sure = np.linspace(0.1, 4, n)[np.random.RandomState(0).permutation(n)]
    predicted = np.where(np.arange(n) < right, label, 1 - np.array(label))
    scores = np.stack([np.where(predicted == 0, sure, 0), np.where(predicted == 1, sure, 0)], 1)
    with open(os.path.join(folder, 'analysis', desc, 'predictions.csv'), 'w') as f:
        analysis.write_predictions(f, stories.id, stories.label, scores)
    with open(os.path.join(folder, 'log', f'{desc}.jsonl'), 'w') as f:
        for line in [
            {'desc': desc, 'data_dir': data_dir, 'seed': 42, **arguments},
            *(
                {
                    'n_epochs': i,
                    'n_updates': 10 * i,
                    'tr_cost': 0.5 / i,
                    'va_cost': 0.6 / i,
                    'tr_acc': 80 + i,
                    'va_acc': 75.5 + i,
                    'time': 1.5,
                }
                for i in range(1, n_epochs + 1)
            ),
        ]:
            f.write(json.dumps(line) + '\n')
    return [
        '--log_dir',
        os.path.join(folder, 'log'),
        '--analysis_dir',
        os.path.join(folder, 'analysis'),
    ]


def read(folder, desc, name='report.md'):
    with open(os.path.join(folder, 'analysis', desc, name), encoding='utf-8') as f:
        return f.read()


def png(folder, desc):
    place = os.path.join(folder, 'analysis', desc)
    pictures = {name for name in os.listdir(place) if name.endswith('.png')}
    for name in pictures:
        with open(os.path.join(place, name), 'rb') as f:
            assert f.read(8) == b'\x89PNG\r\n\x1a\n'
    return pictures


# Figures


def test_wilson():
    assert analysis.wilson(81, 263) == pytest.approx(
        (25.53, 36.62), abs=0.01
    )  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert analysis.wilson(0, 20) == pytest.approx((0, 16.11), abs=0.01)  # 0 to 0.1611
    assert analysis.wilson(1605, 1871) == pytest.approx((84.12, 87.29), abs=0.01)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_share(pair):
    right, n = pair
    low, high = analysis.wilson(right, n)
    assert -1e-9 <= low <= 100 * right / n + 1e-9 and 100 * right / n - 1e-9 <= high <= 100 + 1e-9


def test_confidence_and_bins():
    scores = np.array([[0, 0], [0, np.log(3)], [np.log(9), 0], [1000, -1000]], dtype=np.float32)
    assert analysis.confidence(scores) == pytest.approx([0.5, 0.75, 0.9, 1])
    groups = analysis.bins(np.array([0.5, 0.55, 0.99, 1.0, 0.7]), np.array([0.5, 0.6, 0.7, 1.0]))
    assert [group.tolist() for group in groups] == [[0, 1], [], [2, 3, 4]]


def test_by_length():
    stories = Stories(
        list('abcd'), ['w ' * n for n in (1, 2, 30, 40)], ['x'] * 4, ['y'] * 4, [0] * 4
    )
    groups = analysis.by_length(stories, np.array([True, False, True, True]))
    assert sum(n for *_, n in groups) == 4 and sum(right for *_, right, _ in groups) == 3
    assert groups[0][0] == 3 and groups[-1][1] == 42
    same = analysis.by_length(
        Stories(['a', 'b'], ['w', 'w'], ['x'] * 2, ['y'] * 2, [0, 0]), np.array([True, False])
    )
    assert same == [(3, 3, 1, 2)]


def test_predictions_survive_their_file(tmp_path):
    stories = Stories(['a,b', 'c"d'], ['', ''], ['', ''], ['', ''], [0, -1])
    scores = np.array([[0.1, 0.2], [-3e-9, 1e9]], dtype=np.float32)
    with open(tmp_path / 'p.csv', 'w') as f:
        analysis.write_predictions(f, stories.id, stories.label, scores)
    np.testing.assert_array_equal(analysis.read_scores(tmp_path / 'p.csv', stories), scores)
    with open(tmp_path / 'p.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert [row['prediction'] for row in rows] == ['1', '1'] and [row['label'] for row in rows] == [
        '0',
        '',
    ]
    assert float(rows[0]['probability']) == pytest.approx(0.524979, abs=1e-6)


# Reports


def test_report(tmp_path, capsys):
    options = make_run(tmp_path, 'mine')
    assert analysis.main(['--desc', 'mine', *options]) is None
    assert capsys.readouterr().out.splitlines()[1:] == [
        'ROCStories Valid Accuracy: 78.50',
        'ROCStories Test Accuracy:  75.00',
    ]
    report = read(tmp_path, 'mine')
    low, high = analysis.wilson(45, 60)
    assert f'**75.00 %** (45 of 60 stories); 95 % interval {low:.2f} to {high:.2f}' in report
    assert '**78.50 %**, after epoch 3 (update 30)' in report
    assert (
        'Not compared with published results' in report and 'paper' not in report
    )  # 60 stories are not the test set
    assert png(tmp_path, 'mine') == PICTURES - {'test.png'}
    assert all(f'({name})' in report for name in png(tmp_path, 'mine'))
    mistakes = report.split('## The surest mistakes')[1]
    assert (
        '15 predictions are wrong' in mistakes and mistakes.count('(right)') == analysis.N_MISTAKES
    )
    assert r'\*stars\* and \<tags\>' in mistakes  # shown, not obeyed
    shares = [
        float(line.split('%')[0].split('-')[1])
        for line in mistakes.splitlines()
        if '%' in line and '(right)' not in line
    ]
    assert shares == sorted(shares, reverse=True) and min(shares) >= 50


@pytest.mark.parametrize(
    'right, inside', [(1605, {84.18, 85.8, 85.84, 86.5}), (1640, {86.5}), (1750, set())]
)
def test_the_whole_test_set_is_compared_with_published_results(
    tmp_path, monkeypatch, right, inside
):
    if right != 1605:
        monkeypatch.setattr(analysis, 'draw', lambda *_: None)
    analysis.main(['--desc', 'full', *make_run(tmp_path, 'full', n=1871, right=right)])
    report = read(tmp_path, 'full')
    for value in analysis.PUBLISHED.values():
        assert f'{value} %' in report
    assert {
        float(line.split()[1]) for line in report.splitlines() if 'inside the interval' in line
    } == inside
    assert 'after epoch 3, training accuracy 92.51 %, validation accuracy 87.43 %' in report
    assert png(tmp_path, 'full') == (PICTURES if right == 1605 else set())


def test_the_sample_is_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, 'draw', lambda *_: None)
    analysis.main(
        [
            '--desc',
            'sample',
            *make_run(
                tmp_path,
                'sample',
                n=1871,
                right=1605,
                sample=['sample stories, not ROCStories: do not compare'],
            ),
        ]
    )
    report = read(tmp_path, 'sample')
    assert (
        '**sample stories, not ROCStories: do not compare**' in report
        and '86.5' not in report
        and 'test.png' not in report
    )


def test_without_labels(tmp_path, capsys):
    assert analysis.main(['--desc', 'blind', *make_run(tmp_path, 'blind', labels=False)]) is None
    assert 'Test Accuracy:  not known' in capsys.readouterr().out
    report = read(tmp_path, 'blind')
    assert (
        'the test file has no labels' in report
        and 'mistakes' not in report
        and 'calibration error' not in report
    )
    assert png(tmp_path, 'blind') == {'training.png', 'confidence.png'}


@pytest.mark.parametrize('n, right, n_epochs', [(1, 1, 1), (1, 0, 1), (5, 5, 2)])
def test_small_and_perfect_runs(tmp_path, n, right, n_epochs):
    assert (
        analysis.main(
            ['--desc', 'x', *make_run(tmp_path, 'x', n=n, right=right, n_epochs=n_epochs)]
        )
        is None
    )
    assert ('There are none.' in read(tmp_path, 'x')) == (right == n)


def test_several_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(analysis, 'draw', lambda *_: None)
    for i, right in enumerate([45, 48, 54]):
        options = make_run(tmp_path, f'seed{i}', right=right, seed=i)
    assert analysis.main(['--desc', 'seed0', 'seed1', 'seed2', *options]) is None
    rows = {
        cells[1]: cells
        for cells in (
            [cell.strip() for cell in line.split('|')]
            for line in capsys.readouterr().out.splitlines()
            if line.startswith('|')
        )
    }
    assert [rows[f'seed{i}'][2] for i in range(3)] == ['0', '1', '2']
    assert [rows[name][4] for name in ('median', 'lowest', 'highest')] == [
        '80.00',
        '75.00',
        '90.00',
    ]
    assert float(rows['standard deviation'][4]) == pytest.approx(
        np.std([75, 80, 90], ddof=1), abs=0.01
    )


def test_same_input_same_bytes(tmp_path):
    options = make_run(tmp_path, 'mine')
    before = []
    for _ in range(2):
        analysis.main(['--desc', 'mine', *options])
        before.append(
            {
                name: (tmp_path / 'analysis' / 'mine' / name).read_bytes()
                for name in os.listdir(tmp_path / 'analysis' / 'mine')
            }
        )
    assert before[0] == before[1]


def test_evaluations_within_the_first_epoch(tmp_path):
    """The first comes before an epoch has ended: n_epochs 0."""
    options = make_run(tmp_path, 'long')
    with open(tmp_path / 'log' / 'long.jsonl') as f:
        arguments, first, *rest = f.readlines()
    (tmp_path / 'log' / 'long.jsonl').write_text(
        arguments
        + first.replace('"n_epochs": 1, "n_updates": 10', '"n_epochs": 0, "n_updates": 4')
        + first
        + ''.join(rest)
    )
    assert analysis.main(['--desc', 'long', *options]) is None
    (tmp_path / 'log' / 'long.jsonl').write_text(
        arguments + first.replace('"n_epochs": 1, "n_updates": 10', '"n_epochs": 0, "n_updates": 4')
    )
    assert analysis.main(['--desc', 'long', *options]) is None


# Wrong input


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
    ],
)
def test_wrong_logs(tmp_path, text):
    (tmp_path / 'log.jsonl').write_bytes(text.encode('latin-1'))
    with pytest.raises(InputError, match='log.jsonl'):
        analysis.read_log(tmp_path / 'log.jsonl')


@pytest.mark.parametrize(
    'text',
    [
        '',
        'id\n',
        'HEADER',
        'HEADERother,1,2,0.5,1,1\n',
        'HEADERa,1,2,0.5,1,1\nb,1,2,0.5,1,1\n',
        'HEADERa,x,2,0.5,1,1\n',
        'HEADERa,nan,2,0.5,1,1\n',
        'HEADERa\n',
        'HEADER\xff',
    ],
)
def test_wrong_predictions(tmp_path, text):
    (tmp_path / 'predictions.csv').write_bytes(
        text.replace('HEADER', ','.join(analysis.COLUMNS) + '\n').encode('latin-1')
    )
    with pytest.raises(InputError, match='predictions.csv'):
        analysis.read_scores(tmp_path / 'predictions.csv', Stories(['a'], ['s'], ['1'], ['2'], [0]))


@pytest.mark.parametrize(
    'argv', [['--desc', 'nowhere'], ['--desc', 'mine', '--data_dir', 'nowhere']]
)
def test_errors(tmp_path, capsys, argv):
    assert analysis.main([*make_run(tmp_path, 'mine'), *argv]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith('analysis.py: error: ') and 'nowhere' in error and error.count('\n') == 1
    )
