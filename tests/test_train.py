"""Whole runs of train.py on a small data set and small weights."""

import csv
import json
import os
import re
import shutil
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import GOLDEN
from test_resume import NO_DROPOUT

import analysis
import predict
import train
from datasets import TASKS
from gpt1.report.log import best_evaluation
from gpt1.run import parallel, progress, record

VAL = 'cloze_test_val__spring2016 - cloze_test_ALL_val.csv'
TEST = 'cloze_test_test__spring2016 - cloze_test_ALL_test.csv'


def run(command, *options, status=0):
    """Run in this process."""
    assert train.main(command.argv(*options)) == status


def test_a_run_writes_its_files(command, monkeypatch, capsys):
    """And says what it does: a header over the evaluations, and at the end how to go on."""
    event_accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    monkeypatch.setattr(progress, 'FIRST', 1000)  # a short run says nothing of its time
    options = ('--n_iter', 2, '--desc', 'mine', '--log_every', 5)
    run(command, '--analysis', '--tensorboard', *options)
    out, err = capsys.readouterr()
    assert err == ''  # no progress bars if stderr is not a terminal
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == 'data model options batch device'.split()
    assert 'ROCStories: 80 training, 32 validation, 40 test examples' in lines[0]
    assert '52 tokens' in lines[0] and '10 updates an epoch, 20 in all' in lines[3]

    log = command.log('mine')
    assert log[0]['desc'] == 'mine' and log[0]['lr'] == 1e-3 and log[0]['n_iter'] == 2
    assert log[0]['n_cut'] == {'training': 80, 'validation': 32, 'test': 40}
    assert '152 examples are cut: of each text the first 30 tokens are read' in lines[0]
    assert [(line['n_epochs'], line['n_updates']) for line in log[1:]] == [(1, 10), (2, 20)]
    names = 'n_epochs n_updates tr_cost va_cost tr_acc va_acc'.split()
    assert [list(line) for line in log[1:]] == [names, names]
    form = '{n_epochs} {n_updates} {tr_cost:.3f} {va_cost:.3f} {tr_acc:.2f} {va_acc:.2f}'
    table = [line.split() for line in lines[5:8]]
    assert table == [names, *(form.format(**line).split() for line in log[1:])]

    between = command.log('mine', progress=True)
    assert [line['n_updates'] for line in between] == [5, 10, 15, 20]
    assert all(list(line)[1:] == ['loss', 'lr', 'grad_norm'] for line in between)
    events = event_accumulator.EventAccumulator(str(command.folder / 'log' / 'mine')).Reload()
    for name, expected in (('va_acc', log[1:]), ('loss', between), ('grad_norm', between)):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(line['n_updates'], pytest.approx(line[name])) for line in expected]

    submission = pd.read_csv(command.folder / 'submission' / 'ROCStories.tsv', sep='\t')
    assert submission['index'].tolist() == list(range(40))
    with open(os.path.join(GOLDEN, 'data', TEST), newline='') as f:
        labels = [int(row['AnswerRightEnding']) - 1 for row in csv.DictReader(f)]
    accuracy = 100 * np.mean(submission['prediction'] == labels)
    save, report = command.folder / 'save' / 'mine', command.folder / 'analysis' / 'mine'
    assert lines[8:10] == [
        f'ROCStories Valid Accuracy: {max(line["va_acc"] for line in log[1:]):.2f}',
        f'ROCStories Test Accuracy:  {accuracy:.2f}',
    ]
    assert lines[10] == f'report    {report}/report.md, or report.html for a browser'
    assert f'kept      {save}/best_params' in lines
    words = next(line for line in lines if 'predict.py' in line).split()[4:]
    assert words[:4] == ['predict.py', 'FILE', '--params', str(save)]
    assert predict.main(['--params', words[3], 'a', 'b', 'c']) == 0

    # Nothing looks alive or takes room, and the finished run says so.
    assert not {'checkpoint', 'running'} & set(os.listdir(save))
    capsys.readouterr()
    before = command.read('log', 'mine.jsonl')
    run(command, *options, '--resume')
    assert 'is finished: there is nothing to resume' in capsys.readouterr().out
    run(command, *options, '--n_iter', 3, '--resume', status=2)
    error = capsys.readouterr().err
    assert 'its checkpoint is removed (n_iter was 2, is 3)' in error and error.count('\n') == 1
    assert command.read('log', 'mine.jsonl') == before


def test_progress_between_evaluations(command, other_command, monkeypatch, capsys):
    """A line of the log has the mean loss since the last one. Standard error gets others."""
    options = ('--n_iter', 1)
    monkeypatch.setattr(progress, 'FIRST', 0)
    monkeypatch.setattr(progress, 'PAUSE', 0)
    run(command, *options, '--log_every', 1)
    lines = capsys.readouterr().err.splitlines()
    form = r'update {} of 10: loss \d\.\d{{3}}, [\d,]+ examples/s, 0\d:\d\d left'
    assert len(lines) == 10
    assert all(re.fullmatch(form.format(n), line) for n, line in enumerate(lines, 1))
    run(other_command, *options, '--log_every', 4)
    single, means = (c.log(progress=True) for c in (command, other_command))
    assert [line['n_updates'] for line in means] == [4, 8]
    for line in means:
        n = line['n_updates']
        losses = [one['loss'] for one in single[n - 4 : n]]
        assert line == {**single[n - 1], 'loss': pytest.approx(np.mean(losses), rel=1e-12)}


def test_a_new_run_sets_all_of_an_earlier_one_aside(command, capsys):
    """What belongs together carries one id, and no report mixes two runs."""
    folder = command.folder
    run(command, '--n_iter', 1)
    first = command.log()[0]['id']
    settings = json.loads(command.read('save', 'rocstories', 'settings.json'))
    ids = [record.read(folder / place / 'rocstories')['id'] for place in ('save', 'analysis')]
    assert [settings['run'], *ids] == 3 * [first]
    files = [('analysis', 'rocstories', 'predictions.csv'), ('save', 'rocstories', 'best_params')]
    before = [command.read(*path) for path in files]

    run(command, '--n_gpu', 1000, status=2)  # nothing is set aside before the input is checked
    run(command, '--n_iter', 1, '--resume')
    assert command.log()[0]['id'] == first and not (folder / 'save' / 'rocstories.1').exists()
    argv = [word for word in command.argv('--n_iter', 1, '--seed', 7) if word != '--submit']
    capsys.readouterr()
    assert train.main(argv) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if 'earlier' in line]
    assert line.startswith('the earlier run rocstories is now rocstories.1: ')
    assert [command.read(a, 'rocstories.1', name) for a, _, name in files] == before
    assert not any(folder.joinpath(*path).exists() for path in files)
    assert record.read(folder / 'save' / 'rocstories')['finished']

    def error_of(script, *words):
        assert script.main(list(map(str, words))) == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1
        return error

    options = [f'--{name}_dir={folder / name}' for name in ('log', 'analysis')]
    assert analysis.main(['--desc', 'rocstories.1', *options]) == 0
    assert 'no predictions' in error_of(analysis, '--desc', 'rocstories', *options)
    save = folder / 'save' / 'rocstories'
    assert 'has not kept any' in error_of(predict, '--params', save, 'a', 'b', 'c')
    log = folder / 'log' / 'rocstories.1.jsonl'
    log.write_text(log.read_text().replace(first, 'another'))
    assert 'of another run than' in error_of(analysis, '--desc', 'rocstories.1', *options)
    shutil.copytree(folder / 'save' / 'rocstories.1', save, dirs_exist_ok=True)
    (save / 'run.json').write_text('{"id": "another"}')
    assert predict.main(['--params', str(save), 'a', 'b', 'c']) == 0
    assert 'is of another run' in capsys.readouterr().err


def test_a_model_of_one_s_own_is_not_compared_with_the_paper(command, tmp_path):
    shutil.copytree(os.path.join(GOLDEN, 'model'), tmp_path / 'model')
    argv = command.argv('--model_dir', tmp_path / 'model')
    assert train.parse_args(argv).sample == []  # as far as one can see, OpenAI's
    (tmp_path / 'model' / 'settings.json').write_text('{"n_ctx": 64}')  # as pretrain.py does
    [note] = train.parse_args(argv).sample
    assert note == "own model, not OpenAI's weights: do not compare with the paper"
    assert train.parse_args([*argv, '--n_transfer', '-1']).sample == []


def test_without_submit_and_from_scratch(command, monkeypatch, capsys):
    """Nothing is kept, no weights are needed, and only the first epoch is evaluated within.

    A TensorBoard that fails is a warning; the environment's path is told.
    """
    module = SimpleNamespace(SummaryWriter=lambda folder: None)  # it does nothing that is expected
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', module)
    monkeypatch.setattr(train, 'EVALUATE_AFTER', (4, 14))
    monkeypatch.setenv('GPT1_PATH', 'plain')
    vocabulary = command.folder / 'vocabulary'
    vocabulary.mkdir()
    for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe'):
        shutil.copy(os.path.join(GOLDEN, 'model', name), vocabulary)
    argv = command.argv('--n_iter', 2, '--n_transfer', -1, '--model_dir', vocabulary)
    argv = [*argv, '--tensorboard', '--keep_checkpoint']
    assert train.main([option for option in argv if option != '--submit']) == 0
    out, err = capsys.readouterr()
    assert 'warning: TensorBoard does not get the scores: ' in err
    assert 'path      GPT1_PATH is plain' in out and 'no parameters: --submit' in out
    shutil.rmtree(vocabulary)
    names = {path.name for path in command.folder.rglob('*') if path.is_file()}
    assert names == {'rocstories.jsonl', 'checkpoint', 'run.json', 'lock'}
    found = [(line['n_epochs'], line['n_updates']) for line in command.log()[1:]]
    assert found == [(0, 4), (1, 10), (2, 20)]


NAN = float('nan')


@pytest.mark.parametrize(
    'scores, stop',
    [((-3.0, -1.0, -1.0), False), ((0.0, -2.0, 0.0), True), ((NAN, -5.0, NAN), True)],
)
def test_the_best_epoch_of_the_report_is_the_one_that_is_kept(command, monkeypatch, scores, stop):
    states, measured = [], iter(scores)

    def measure(job, sets):
        score = 0.0 if 'train' in sets else next(measured)
        return {'cost': 1.0, 'acc': score}

    def report(job, line, log):
        states.append({name: x.clone() for name, x in job.model.state_dict().items()})
        if stop and len(states) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train.FineTuning, 'measure', measure)
    monkeypatch.setattr(train.FineTuning, 'report', report)
    if stop:
        run(command, '--n_iter', 3, status=128 + signal.SIGTERM)
    run(command, '--n_iter', 3, '--resume')
    kept = torch.load(command.folder / 'save' / 'rocstories' / 'best_params', weights_only=True)
    best = best_evaluation(command.log()[1:], TASKS['rocstories'])
    expected = states[best['n_epochs'] - 1]
    assert [torch.equal(kept[name], expected[name]) for name in expected] == [True] * len(expected)
    scores = np.nan_to_num(scores, nan=-9)
    assert best['n_epochs'] == 1 + np.argmax(scores)


@pytest.mark.parametrize('score, expected', [(0.0, None), (75.5, 75.5)])
def test_a_checkpoint_of_an_earlier_version_knows_what_was_kept(score, expected):
    job = train.FineTuning.__new__(train.FineTuning)
    job.load_state({'best_score': score})
    assert job.best_score == expected


def test_options_that_change_nothing_without_dropout(command, monkeypatch, capsys):
    """n_batch * n_gpu examples make an update on whatever hardware; shared rows. But --lm_coef."""
    monkeypatch.setattr(parallel, 'WORK_OF_A_STEP', 0)  # steps of n_batch, as on a GPU
    logs = []
    for n_gpu, n_batch, *more in ((1, 40), (5, 8), (5, 8, '--lm_coef', 0)):
        run(command, '--n_gpu', n_gpu, '--n_batch', n_batch, '--n_iter', 1, *more, *NO_DROPOUT)
        expected = f'40 examples an update, in steps of {n_batch}, shared rows'
        assert expected in capsys.readouterr().out
        logs.append(command.log()[1])
    assert logs[1] == pytest.approx(logs[0], abs=1e-5)
    assert logs[2]['va_cost'] != logs[0]['va_cost']


@pytest.mark.parametrize(
    'options',
    [
        '--n_transfer 0 --afn swish --lr_schedule warmup_constant --vector_l2',
        '--n_transfer 1 --lr_schedule warmup_cosine --lm_coef 0 --deterministic',
        '--afn relu --max_grad_norm -1 --precision bf16 --share_context',
    ],
)
def test_options_run(command, options):
    run(command, '--n_iter', 1, *options.split())
    torch.use_deterministic_algorithms(False)
    line = command.log()[1]
    assert 0.5 < line['va_cost'] < 1 and line['n_updates'] == 10


def test_in_another_folder_with_a_test_file_without_labels(command, tmp_path, monkeypatch, capsys):
    shutil.copytree(os.path.join(GOLDEN, 'data'), tmp_path / 'data')
    with open(tmp_path / 'data' / TEST, newline='') as f:
        rows = [row[:-1] for row in csv.reader(f)]
    with open(tmp_path / 'data' / TEST, 'w', newline='') as f:
        csv.writer(f).writerows(rows)
    monkeypatch.chdir(tmp_path)
    run(command, '--n_iter', 1, '--analysis', '--data_dir', 'data')
    printed = capsys.readouterr().out
    assert 'the test file has no labels' in printed
    assert 'ROCStories Valid Accuracy: ' in printed


def assert_one_line(command, capsys, words):
    out, err = capsys.readouterr()
    assert out == '' and err.count('\n') == 1 and err.startswith('train.py: error: ')
    assert words in err
    folders = [command.folder / name for name in ('log', 'save', 'submission', 'analysis')]
    assert not any(folder.is_dir() for folder in folders)  # nothing written


# The readers of these files have tests of their own: what matters here is that nothing is written.
@pytest.mark.parametrize(
    'name, words',
    [
        ('data', 'no such file or folder'),
        (f'data/{VAL}', VAL),
        ('model/params_4.npy', 'No such file'),
    ],
)
def test_broken_files(command, tmp_path, name, words, capsys):
    for folder in ('data', 'model'):
        shutil.copytree(os.path.join(GOLDEN, folder), tmp_path / folder)
    (tmp_path / name).rename(tmp_path / 'elsewhere')
    folders = ['--data_dir', tmp_path / 'data', '--model_dir', tmp_path / 'model']
    if name == 'data':  # found while parsing
        with pytest.raises(SystemExit, match='2'):
            train.main(command.argv(*folders))
    else:
        run(command, *folders, status=2)
    assert_one_line(command, capsys, words)


@pytest.mark.parametrize(
    'options, words',
    [
        ('--n_valid 108', '4 training examples, too few for one batch of n_batch * n_gpu = 8'),
        ('--n_embd 64', 'width 32'),
        ('--n_layer 3', '2 layers'),
        ('--device cuda:7', 'the number of CUDA devices'),
        ('--tensorboard', 'pip install tensorboard'),
        ('--desc x --save_dir {}/models', 'finished model'),
    ],
)
def test_options_that_do_not_fit(command, monkeypatch, options, words, capsys):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    folder = command.folder / 'models' / 'x'
    folder.mkdir(parents=True)
    (folder / 'params_shapes.json').write_text('[]')
    run(command, *options.format(command.folder).split(), status=2)
    assert_one_line(command, capsys, words)
    assert os.listdir(folder) == ['params_shapes.json']


@pytest.mark.parametrize('name', ['log', 'save', 'submission', 'analysis'])
def test_output_that_cannot_be_written(command, monkeypatch, capsys, name):
    """A file is in place of a folder, or of the run's folder in it. Nothing is read before."""
    monkeypatch.setattr(train, 'load_data', None)
    place = command.folder / name
    if name != 'submission':
        place.mkdir()
        place /= 'rocstories'
    place.write_text('not a folder')
    run(command, '--tensorboard', status=2)
    out, err = capsys.readouterr()
    assert out == '' and f'error: cannot write to {place}' in err and err.count('\n') == 1
