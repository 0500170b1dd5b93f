"""predict.py scores as train.py does, from what train.py keeps."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
import torch

import predict
import train
from datasets import Stories, find_csv, read_cloze_test
from utils import InputError

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'golden', 'rocstories-tiny')
DATA_DIR, MODEL_DIR = os.path.join(GOLDEN, 'data'), os.path.join(GOLDEN, 'model')


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    """The folder of a run of train.py: log/, save/, submission/, analysis/."""
    out = tmp_path_factory.mktemp('run')
    assert not train.main(
        [
            '--dataset',
            'rocstories',
            '--submit',
            '--analysis',
            '--n_iter',
            '1',
            '--n_valid',
            '32',
            '--n_gpu',
            '1',
            '--device',
            'cpu',
            '--n_embd',
            '32',
            '--n_head',
            '4',
            '--n_layer',
            '2',
            '--data_dir',
            DATA_DIR,
            '--model_dir',
            MODEL_DIR,
            *(f'--{name}_dir={out / name}' for name in ('log', 'save', 'submission', 'analysis')),
        ]
    )
    return out


@pytest.fixture
def params(kept):
    return ['--params', str(kept / 'save' / 'rocstories' / 'best_params'), '--device', 'cpu']


def test_the_same_as_in_training(kept, params, capsys):
    """Every figure of the run's own predictions.csv, to rounding; no option says what the model is like."""
    assert predict.main([find_csv(DATA_DIR, 'test'), *params]) is None
    printed = capsys.readouterr()
    found = list(csv.DictReader(io.StringIO(printed.out)))
    with open(kept / 'analysis' / 'rocstories' / 'predictions.csv', newline='') as f:
        wanted = list(csv.DictReader(f))
    assert len(found) == len(wanted) == 40
    for a, b in zip(found, wanted):
        assert {name: a[name] for name in ('id', 'prediction', 'label')} == {
            name: b[name] for name in ('id', 'prediction', 'label')
        }
        assert [float(a[name]) for name in ('score1', 'score2', 'probability')] == pytest.approx(
            [float(b[name]) for name in ('score1', 'score2', 'probability')], abs=1e-5
        )
    right = 100 * np.mean([row['prediction'] == row['label'] for row in wanted])
    assert f'{right:.2f} % right' in printed.err


def test_without_labels(tmp_path, params, capsys):
    with open(find_csv(DATA_DIR, 'test'), newline='') as f:
        rows = [row[:7] for row in csv.reader(f)]
    with open(tmp_path / 'new.csv', 'w', newline='') as f:
        csv.writer(f).writerows(rows)
    assert predict.main([str(tmp_path / 'new.csv'), *params]) is None
    printed = capsys.readouterr()
    assert {row['label'] for row in csv.DictReader(io.StringIO(printed.out))} == {''}
    assert 'right' not in printed.err


def test_one_story_and_typed_stories(params, capsys, monkeypatch):
    test = read_cloze_test(find_csv(DATA_DIR, 'test'))
    assert predict.main([find_csv(DATA_DIR, 'test'), *params]) is None
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    texts = [(test.story[i], test.ending1[i], test.ending2[i]) for i in range(2)]
    assert predict.main([*texts[0], *params]) is None
    first = capsys.readouterr().out
    shares = [float(line.split('%')[0]) / 100 for line in first.splitlines()]
    assert sum(shares) == pytest.approx(1, abs=1e-3) and max(shares) == pytest.approx(
        float(rows[0]['probability']), abs=1e-3
    )
    assert shares.index(max(shares)) == int(rows[0]['prediction'])
    assert first.splitlines()[1].endswith(test.ending2[0])

    monkeypatch.setattr('sys.stdin', io.StringIO('\n'.join(sum(texts, ())) + '\n\nnot read\n'))
    assert predict.main(params) is None
    typed = capsys.readouterr().out
    assert typed.startswith(first) and len(typed.splitlines()) == 4

    monkeypatch.setattr('sys.stdin', io.StringIO('\n'.join(sum(texts, ())[:5])))
    assert predict.main(params) == 2
    printed = capsys.readouterr()
    assert printed.out == first and 'the last story has not two endings' in printed.err


def test_the_parameters_kept_last(kept, tmp_path, params, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ['Ella was sad.', 'She smiled.', 'She threw it.']
    assert predict.main([*texts, '--device', 'cpu']) == 2
    assert 'no parameters in save/: fine-tune first' in capsys.readouterr().err
    for age, name in enumerate(['new', 'old']):
        shutil.copytree(kept / 'save' / 'rocstories', tmp_path / 'save' / name)
        os.utime(tmp_path / 'save' / name / 'best_params', (1e9 - age, 1e9 - age))
    assert predict.main([*texts, '--device', 'cpu']) is None
    assert f'parameters: {os.path.join("save", "new", "best_params")}\n' in capsys.readouterr().err


def test_longer_than_the_model(params, capsys):
    """The positions of the parameters bound what is seen; it says so, and goes on."""
    model, encoder, _ = predict.open_model(predict.parse_args(params), params[1])
    n_ctx = model.config.n_ctx
    for texts in (
        ['tape ' * 500, 'tape', 'night'],
        ['tape', 'night ' * 500, 'tape'],
        ['tape ' * 500, 'tape ' * 500, 'night ' * 600],
    ):
        logits, n_cut = predict.score(
            model, encoder, Stories(['1'], *([text] for text in texts), [-1])
        )
        assert n_cut == 1 and torch.isfinite(logits).all()
    # Cut as train.py cuts: what stands after the end is not seen
    room = n_ctx - 3 - 1
    ids = encoder.encode('night tape ' * 500)
    assert len(encoder.encode('a')) == 1
    logits = [
        predict.score(
            model, encoder, Stories(['1'], [encoder.decode(ids[:n])], ['a'], ['.'], [-1])
        )[0]
        for n in (room - 1, room, room + 5)
    ]
    torch.testing.assert_close(logits[1], logits[2])
    assert not torch.equal(logits[0], logits[1])
    assert predict.main(['tape ' * 500, 'tape', 'night', *params]) is None
    assert '1 story is longer' in capsys.readouterr().err


def test_parameters_without_settings(kept, tmp_path, params, capsys):
    """Those of an earlier port, say: the options tell what the shapes do not."""
    os.link(params[1], tmp_path / 'best_params')
    texts = ['Ella was sad.', 'She smiled.', 'She threw it.']
    assert predict.main([*texts, *params]) is None
    wanted = capsys.readouterr().out
    bare = ['--params', str(tmp_path / 'best_params'), '--device', 'cpu']
    assert predict.main([*texts, *bare, '--model_dir', MODEL_DIR, '--n_head', '4']) is None
    assert capsys.readouterr().out == wanted
    assert predict.main([*texts, *bare, '--model_dir', MODEL_DIR]) == 2
    assert '--n_head 12' in capsys.readouterr().err


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[]',
        '{"n_head": 0}',
        '{"n_head": "4"}',
        '{"afn": []}',
        '{"encoder_path": 3}',
        '{"n_ctx": 1e99}',
        '\0',
        '[' * 10**5,
    ],
)
def test_damaged_settings(tmp_path, text):
    (tmp_path / 'settings.json').write_text(text)
    with pytest.raises(InputError, match='settings.json'):
        predict.read_settings(tmp_path)


@pytest.mark.parametrize(
    'argv, error',
    [
        (['nowhere.csv'], 'nowhere.csv'),
        (['a', 'b', 'c', '--params', 'nowhere'], 'no such file: nowhere'),
    ],
)
def test_errors(params, capsys, argv, error):
    assert predict.main([*params, *argv]) == 2
    printed = capsys.readouterr().err
    assert (
        printed.startswith('predict.py: error: ') and error in printed and printed.count('\n') == 1
    )


def test_two_texts_are_no_story():
    with pytest.raises(SystemExit) as stop:
        predict.parse_args(['a story', 'one ending'])
    assert stop.value.code == 2


def test_the_log_loads_with_pandas(kept):
    pandas = pytest.importorskip('pandas')
    with open(kept / 'log' / 'rocstories.jsonl') as f:
        arguments = json.loads(next(f))
        log = pandas.read_json(f, lines=True)
    assert arguments['n_head'] == 4 and log.n_epochs.tolist() == [1]
    assert set(log) == {'n_epochs', 'n_updates', 'tr_cost', 'va_cost', 'tr_acc', 'va_acc', 'time'}
