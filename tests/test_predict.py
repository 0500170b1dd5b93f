"""predict.py predicts as train.py does, for every kind of task, from what train.py keeps."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import GOLDEN, ROOT
from tiny_models import MODEL_DIR, SOME_TASKS, TEXTS, save_finetuned

import predict
import train
from gpt1.run.checkpoint import only_run
from gpt1.run.encoding import encode_dataset
from gpt1.run.parallel import predict as predict_dataset
from gpt1.tasks.rocstories import COLUMNS, find_csv
from gpt1.tasks.task import Example, decode
from gpt1.weights.open import open_model

DATA_DIR = os.path.join(GOLDEN, 'data')


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    """The folder of a run of train.py: log/, save/, submission/, analysis/."""
    out = tmp_path_factory.mktemp('run')
    folders = [f'--{name}_dir={out / name}' for name in ('log', 'save', 'submission', 'analysis')]
    options = '--dataset rocstories --submit --n_iter 1 --n_valid 32 --n_gpu 1'
    sizes = '--device cpu --n_embd 32 --n_head 4 --n_layer 2'
    data = ['--data_dir', DATA_DIR, '--model_dir', MODEL_DIR]
    assert train.main([*options.split(), *sizes.split(), *data, *folders]) == 0
    return out


@pytest.fixture
def params(kept):
    return ['--params', str(kept / 'save' / 'rocstories' / 'best_params'), '--device', 'cpu']


def run(capsys, *argv):
    assert predict.main([*argv]) == 0
    return capsys.readouterr()


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_same_as_in_training(kept, params, tmp_path, capsys, monkeypatch):
    """Every number of the run's own predictions.csv; nothing beside the moved folder is needed."""
    printed = run(capsys, find_csv(DATA_DIR, 'test'), *params)
    found = rows(printed.out)
    wanted = rows((kept / 'analysis' / 'rocstories' / 'predictions.csv').read_text())
    assert len(found) == len(wanted) == 40
    for a, b in zip(found, wanted):
        for name in ('id', 'prediction', 'label'):
            assert a[name] == b[name]
        for name in ('score_1', 'score_2', 'probability'):
            assert float(a[name]) == pytest.approx(float(b[name]), abs=1e-5)
    accuracy = 100 * np.mean([row['prediction'] == row['label'] for row in wanted])
    assert '40 examples in' in printed.err and f'accuracy {accuracy:.2f}' in printed.err
    shutil.copytree(kept / 'save' / 'rocstories', tmp_path / 'moved')
    monkeypatch.chdir(tmp_path)
    for path in ('moved', 'moved/best_params'):
        argv = [find_csv(DATA_DIR, 'test'), '--params', path, '--device', 'cpu']
        assert run(capsys, *argv).out == printed.out


def test_the_parameters_kept_last(kept, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ['Ella was sad.', 'She smiled.', 'She threw it.', '--device', 'cpu']
    assert predict.main(argv) == 2
    assert 'no parameters in save/: fine-tune first' in capsys.readouterr().err
    for age, name in enumerate(['new', 'old']):
        shutil.copytree(kept / 'save' / 'rocstories', tmp_path / 'save' / name)
        os.utime(tmp_path / 'save' / name / 'best_params', (1e9 - age, 1e9 - age))
    newest = f'parameters: {os.path.join("save", "new", "best_params")}\n'
    assert newest in run(capsys, *argv).err
    save_finetuned(tmp_path / 'save' / 'old', SOME_TASKS['sst2'])  # of another task
    assert predict.main(argv) == 2
    assert 'are of different tasks: name one with --params' in capsys.readouterr().err
    other = f'parameters: {os.path.join("save", "old", "best_params")}\n'
    assert other in run(capsys, argv[0], '--device', 'cpu').err  # no story has a single text
    assert newest in run(capsys, find_csv(DATA_DIR, 'test'), '--device', 'cpu').err
    with only_run(str(tmp_path / 'save' / 'old')):  # still trains
        assert newest in run(capsys, *argv).err
        with only_run(str(tmp_path / 'save' / 'new')):
            assert predict.main(argv) == 2
    assert 'only parameters of runs that still train' in capsys.readouterr().err


def test_evaluation_of_a_file(kept, params, tmp_path, capsys):
    """Scores and a report as of a run's test set, without training; the run's own is left alone."""
    file = tmp_path / 'new.csv'
    shutil.copy(find_csv(DATA_DIR, 'test'), file)
    with open(file, 'a') as f:
        f.write('new,a,b,c,d,e,f,\n')
    out = tmp_path / 'reports'
    argv = ['--evaluate', '--analysis_dir', str(out), *params]
    printed = run(capsys, str(file), *argv).out
    wanted = rows((kept / 'analysis' / 'rocstories' / 'predictions.csv').read_text())
    right = sum(row['prediction'] == row['label'] for row in wanted)
    assert f'{right} of 40 examples' in printed and '95 % interval' in printed
    assert '- 40 of 41 examples have a label.' in printed
    folder = out / 'new-rocstories'
    assert f'report: {folder / "report.md"}, or' in printed
    report = (folder / 'report.md').read_text()
    assert f'{right} of 40 examples' in report and str(kept) in report
    assert (folder / 'report.html').exists()
    found = rows((folder / 'predictions.csv').read_text())
    assert [row['id'] for row in found] == [*(row['id'] for row in wanted), 'new']
    assert {row['label'] for row in found} == {'1', '2', ''}
    (folder / 'run.json').write_text('{"id": "x"}')  # as if it were that of a run
    assert predict.main([str(file), *argv]) == 2
    assert 'is of a run of train.py' in capsys.readouterr().err
    lines = [re.sub(',[12]$', ',', line) for line in file.read_text().splitlines()]
    file.write_text('\n'.join(lines) + '\n')
    assert predict.main([str(file), *argv]) == 2
    error = capsys.readouterr().err
    assert 'has no labels; without --evaluate it is predicted' in error and error.count('\n') == 1
    printed = run(capsys, str(file), *params)
    assert {row['label'] for row in rows(printed.out)} == {''}
    assert 'accuracy' not in printed.err


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """The folder of a fine-tuned model for each of `SOME_TASKS`."""
    folders = {}
    for name, task in SOME_TASKS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        save_finetuned(folders[name], task)
    return folders


@torch.no_grad()
@pytest.mark.parametrize('name', SOME_TASKS)
def test_texts_on_the_command_line(models, capsys, name):
    folder = str(models[name])
    printed = run(capsys, *TEXTS[name], '--params', folder, '--device', 'cpu').out
    opened = open_model(folder)
    task, examples = opened.task, [Example('1', TEXTS[name], None)]
    logits = predict_dataset(opened.model, encode_dataset(examples, opened.encoder, task, 60))
    [value] = decode(task, logits.numpy()).tolist()
    if task.layout == 'choices':
        lines = printed.splitlines()
        assert [line[8:] for line in lines] == list(TEXTS[name][task.n_context :])
        shares = [float(line.split('%')[0]) / 100 for line in lines]
        assert shares == pytest.approx(logits[0].softmax(0).tolist(), abs=1e-3)
    elif task.labels is not None:
        label, share, *rest = printed.strip().split('  ')
        assert label == task.labels[value]
        wanted = logits[0].softmax(0).max().item()
        assert float(share.rstrip('%')) / 100 == pytest.approx(wanted, abs=1e-3)
        assert rest == list(TEXTS[name]) if task.layout == 'text' else rest == []
    else:
        assert float(printed.split()[0]) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(
    'name, texts',
    [('mnli', 'a'), ('mnli', 'abc'), ('rocstories', 'ab'), ('race', 'abc')],
)
def test_a_wrong_number_of_texts(models, capsys, name, texts):
    assert predict.main([*texts, '--params', str(models[name]), '--device', 'cpu']) == 2
    error = capsys.readouterr().err
    assert 'texts given; expected those of an example of' in error and error.count('\n') == 1


@pytest.mark.parametrize('name', SOME_TASKS)
def test_typed_examples(models, capsys, monkeypatch, name):
    """A text on each line; an empty line between examples is left out and named."""
    argv = ['--params', str(models[name]), '--device', 'cpu']
    wanted = run(capsys, *TEXTS[name], *argv).out
    lines = '\n'.join(TEXTS[name])
    monkeypatch.setattr('sys.stdin', io.StringIO(f'{lines}\n \n{lines}\n\n'))
    printed = run(capsys, '-', *argv)
    assert printed.out == wanted * 2
    assert f'line {len(TEXTS[name]) + 1} of standard input is empty: left out' in printed.err
    lines = '\n'.join(TEXTS[name] * 2)
    monkeypatch.setattr('sys.stdin', io.StringIO(lines))
    assert run(capsys, *argv).out == wanted * 2
    if len(TEXTS[name]) > 1:
        monkeypatch.setattr('sys.stdin', io.StringIO(lines.rpartition('\n')[0]))
        assert predict.main(argv) == 2
        printed = capsys.readouterr()
        assert printed.out == wanted and 'the last example is not complete' in printed.err


def test_what_is_typed_ends_with_an_empty_line(models, capsys, monkeypatch):
    texts = ['It was fun.', 'Ella had no tape.']
    argv = ['--params', str(models['sst2']), '--device', 'cpu']
    alone = [run(capsys, text, *argv).out for text in texts]
    terminal = io.StringIO(f'{texts[0]}\n{texts[1]}\n\nnot read\n')
    terminal.isatty = lambda: True
    monkeypatch.setattr('sys.stdin', terminal)
    assert run(capsys, *argv).out.replace('text: ', '') == ''.join(alone)
    assert run(capsys, *texts, *argv).out == ''.join(alone)  # several at once
    printed = run(capsys, 'It is in my.csv', *argv)
    assert 'It is in my.csv' in printed.out and 'there is no file "It is in my.csv"' in printed.err
    monkeypatch.setattr('sys.stdin', io.StringIO('premise\n\n'))  # an empty text in an example
    printed = run(capsys, '--params', str(models['mnli']), '--device', 'cpu')
    assert printed.out and 'line 2 of standard input: text2 is empty' in printed.err


@pytest.mark.parametrize(
    'name, file, content, warning',
    [
        ('rocstories', 'x.csv', (',1\n', ',3\n'), "x.csv, row 2: the label is '3'"),
        ('sst2', 'x.tsv', ('a\t', ' \t'), 'x.tsv, line 2: sentence is empty'),
        ('race', 'x.txt', ('"A"', '"E"'), "question 1: the label is 'E'"),
        ('regression', 'x.csv', ('a,1', ',1'), 'x.csv, row 2: text is empty'),
    ],
)
def test_a_row_that_is_not_right_does_not_stop_the_others(
    models, tmp_path, capsys, name, file, content, warning
):
    header = ','.join(COLUMNS)
    good = {
        'rocstories': f'{header}\ns1,a,b,c,d,e,f,1\ns2,a,b,c,d,e,f,2\n',
        'sst2': 'sentence\tlabel\na\t1\nb\t0\n',
        'race': '{"article": "a", "questions": ["b", "c"], "answers": ["A", "B"], '
        '"options": [["d", "e"], ["f", "g"]]}',
        'regression': 'text,label\na,1\nb,2\n',
    }[name]
    (tmp_path / file).write_text(good.replace(*content))
    printed = run(capsys, str(tmp_path / file), '--params', str(models[name]), '--device', 'cpu')
    assert len(rows(printed.out)) == 2 and f'warning: {tmp_path}' in printed.err
    assert warning in printed.err
    if 'label is' in warning:
        assert 'on the 1 whose label is known' in printed.err


@pytest.mark.parametrize('name', SOME_TASKS)
def test_examples_that_are_longer_than_the_model(models, capsys, name):
    """They are cut to the positions of the model, and their number is printed."""
    opened = open_model(str(models[name]))
    n_positions = opened.model.config.n_ctx
    long = tuple(text * 30 for text in TEXTS[name])
    encoded = predict.encode([Example('1', long, None), Example('2', TEXTS[name], None)], opened)
    assert encoded.longest == n_positions and encoded.n_cut == 1
    assert torch.isfinite(predict_dataset(opened.model, encoded)).all()
    printed = capsys.readouterr().err
    assert f'1 of 2 examples are cut: the model can read {n_positions} tokens' in printed
    assert ('of each text the first 254 tokens are read' in printed) == (name == 'rocstories')


def test_a_text_is_cut_at_its_end(models):
    opened = open_model(str(models['sst2']))
    room = opened.model.config.n_ctx - 2
    assert len(opened.encoder.encode('a')) == 1

    def logits(n):
        example = Example('1', ('a ' * n,), None)
        return predict_dataset(opened.model, predict.encode([example], opened))

    torch.testing.assert_close(logits(room), logits(room + 5), atol=0, rtol=0)
    assert not torch.equal(logits(room), logits(room - 1))


def test_parameters_without_settings(kept, tmp_path, params, capsys):
    """Ours carry them. In files of an earlier port, the options tell what the shapes do not."""
    texts = ['Ella was sad.', 'She smiled.', 'She threw it.']
    wanted = run(capsys, *texts, *params).out
    bare = ['--params', str(tmp_path / 'best_params'), '--device', 'cpu']
    os.link(params[1], tmp_path / 'best_params')
    assert run(capsys, *texts, *bare, '--model_dir', MODEL_DIR).out == wanted
    state = torch.load(params[1], weights_only=True)
    os.unlink(tmp_path / 'best_params')
    torch.save(dict(state), tmp_path / 'best_params')
    assert run(capsys, *texts, *bare, '--model_dir', MODEL_DIR, '--n_head', '4').out == wanted


@pytest.mark.parametrize(
    'argv, error',
    [
        (['nowhere.csv'], 'no such file or folder: nowhere.csv'),
        (['a', 'b', 'c', '--params', 'nowhere'], '--params nowhere: no such file'),
        (['a', 'b', 'c', '--params', MODEL_DIR, '--n_head', '4'], 'is a pre-trained model'),
        ([os.path.join(ROOT, 'LICENSE')], 'LICENSE'),
        (['a', 'b', 'c', '--device', 'tpu'], '--device tpu'),
        (['a', '--evaluate'], '--evaluate: name a file with labels'),
    ],
)
def test_errors(params, capsys, argv, error):
    try:
        status = predict.main([*params, *argv])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    printed = capsys.readouterr().err
    assert printed.startswith('predict.py: error: ')
    assert error in printed and printed.count('\n') == 1


def test_an_unreadable_line_of_input(models, monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(b'\xff\xfe\n'), encoding='utf-8')
    monkeypatch.setattr('sys.stdin', stdin)
    assert predict.main(['--params', str(models['sst2']), '--device', 'cpu']) == 2
    assert 'not UTF-8' in capsys.readouterr().err


@pytest.mark.parametrize('script', ['predict.py', 'generate.py', 'convert.py'])
def test_mistakes_are_answered_without_pytorch(tmp_path, script):
    """A module named torch that cannot be imported stands in the way.

    Python's safe path (-P) leaves the scripts to find their own modules.
    """
    (tmp_path / 'torch.py').write_text('raise SystemExit("PyTorch was imported")')
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    for command, status in (('--help', 0), ('--nothing', 2), ('--params nowhere', 2)):
        argv = [sys.executable, '-P', os.path.join(ROOT, script), *command.split()]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert 'PyTorch was imported' not in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize('rest, status', [('| head -1', 0), ('> /dev/full', 2)])
def test_output_that_cannot_be_written(kept, params, rest, status):
    argv = [sys.executable, os.path.join(ROOT, 'predict.py'), find_csv(DATA_DIR, 'test'), *params]
    line = 'set -o pipefail; ' + ' '.join(map("'{}'".format, argv)) + ' ' + rest
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert 'Traceback' not in done.stderr
    assert ('No space left' in done.stderr) == (status == 2)
