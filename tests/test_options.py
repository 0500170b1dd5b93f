"""Options: each is declared once, and everything else follows from the table."""

import argparse
import functools
import json
import math
import operator
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import GOLDEN, ROOT

import model_pytorch
import opt
from gpt1 import settings
from gpt1.files import ENCODER_FILE, MERGES_FILE, SAMPLE_MODEL
from gpt1.options import ALL, PRETRAIN, SETTINGS, TRAIN, Number, accepts, options_of
from gpt1.parsing import parse_pretrain_args, parse_train_args
from gpt1.settings import (
    check_settings,
    find_model_dir,
    is_sample_model,
    model_settings,
    read_settings,
)
from gpt1.tasks import metrics
from utils import InputError

RTE = ['--dataset', 'rte']
TEXT = ['--text', ROOT, '--out', 'x']


def train_args(*argv):
    model = os.path.join(GOLDEN, 'model')
    return parse_train_args(['--dataset', 'rocstories', '--model_dir', model, *argv])


def pretrain_args(*argv):
    return parse_pretrain_args([*TEXT, *argv])


def refused(parse, argv, capsys):
    """The one line that refuses `argv`."""
    with pytest.raises(SystemExit) as stop:
        parse(argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count('\n') == 1, error
    assert re.match(r'(train|pretrain)\.py: error: \S', error)
    return error


def test_the_table_fits_the_modules_that_it_must_not_import():
    kinds = {option.name: option.kind for option in ALL}
    helps = {option.name: option.help for option in ALL}
    assert len(kinds) == len(ALL)
    assert set(kinds['afn']) == set(model_pytorch.ACT_FNS)
    assert all(opt.schedule_factor(name, 0.5, 0.1) > 0 for name in kinds['lr_schedule'])
    assert set(kinds['metric']) == set(metrics.METRICS)
    for name in ('lr_schedule', 'metric'):
        assert ', '.join(kinds[name]) in helps[name]
    for name, file in {'encoder_path': ENCODER_FILE, 'bpe_path': MERGES_FILE}.items():
        assert file in helps[name] and file in helps['vocabulary']


def test_the_defaults_are_those_of_the_original_program_and_of_the_paper():
    names = 'lr n_iter n_batch n_gpu lm_coef l2 b1 b2 e lr_warmup max_grad_norm clf_pdrop n_valid'
    expected = 6.25e-5, 3, 8, 4, 0.5, 0.01, 0.9, 0.999, 1e-8, 0.002, 1, 0.1, 374
    assert operator.attrgetter(*names.split())(train_args()) == expected
    names = 'n_merges n_windows n_iter lr n_ctx n_embd n_head n_layer embd_pdrop attn_pdrop'
    expected = 40000, 64, 100, 2.5e-4, 512, 768, 12, 12, 0.1, 0.1
    assert operator.attrgetter(*names.split())(pretrain_args()) == expected


def test_what_a_resumed_run_may_change():
    scripts = TRAIN, PRETRAIN
    train, pretrain = ({o.name for o in options_of(script) if o.free} for script in scripts)
    assert {'desc', 'data_dir', 'model_dir', 'n_batch', 'n_gpu', 'device', 'save_every'} <= train
    assert not train & {'lr', 'seed', 'n_iter', 'dataset', 'precision', 'schedule_t', 'n_ctx'}
    assert {'text', 'out', 'init', 'n_batch', 'eval_every', 'save_every'} <= pretrain
    assert not pretrain & {'lr', 'seed', 'n_windows', 'n_merges', 'coverage', 'warmup_updates'}


@pytest.mark.parametrize('option', [o for o in ALL if isinstance(o.kind, Number)])
def test_both_ends_of_every_numeric_option(option):
    """What lies in the range is accepted; what lies beyond is refused."""
    kind = option.kind
    for value in map(kind.kind, (kind.low, kind.high)):
        assert accepts(kind, value) == (value not in kind.but)
        if value not in kind.but:
            assert kind(str(value)) == value
    beyond = [kind.low - 1, kind.high * 2 + 1, 10**400, math.nan, math.inf, -math.inf, *kind.but]
    for value in [*beyond, '', 'x', '0x10', '9' * 5000, '1 2']:
        with pytest.raises(argparse.ArgumentTypeError, match=f'given, expected {kind}$'):
            kind(str(value))


def test_settings_of_the_model_come_before_defaults_and_after_what_was_typed(tmp_path):
    found = {'n_head': 4, 'n_embd': 32, 'lr': 0.5, 'n_iter': 7, 'n_ctx': 64, 'embd_pdrop': 0}
    assert read_settings(str(tmp_path)) == {}
    facts = {'n_vocab': 260, 'vocabulary': 'abc', 'task': {'name': 'rte'}}
    (tmp_path / 'settings.json').write_text(json.dumps(found | facts))
    assert read_settings(str(tmp_path)) == found | facts
    argv = [*RTE, '--model_dir', str(tmp_path), '--lr', '0.25', '--n_layer', '2', '--n_iter', '3']
    args = parse_train_args(argv)
    assert args.n_valid is None  # the default is the task's
    assert (args.n_head, args.n_embd, args.embd_pdrop) == (4, 32, 0)
    assert (args.lr, args.n_iter, args.b2, args.n_transfer) == (0.25, 3, 0.999, 2)
    args = pretrain_args('--init', str(tmp_path))  # takes the sizes, but not the advice
    assert (args.n_head, args.n_embd, args.lr, args.n_iter) == (4, 32, 2.5e-4, 100)


def test_a_hugging_face_folder_gives_its_sizes(tmp_path):
    config = {'model_type': 'openai-gpt', 'n_positions': 128, 'afn': 'gelu_new'}
    config.update(summary_first_dropout=0.2, vocab_size=99, gpt1={'lr': 0.5})
    (tmp_path / 'config.json').write_text(json.dumps(config))
    args = parse_train_args([*RTE, '--model_dir', str(tmp_path)])
    assert (args.n_ctx, args.afn, args.clf_pdrop, args.lr) == (128, 'gelu', 0.2, 0.5)


def test_settings_for_finetuning(capsys):
    args = pretrain_args('--settings', 'n_iter=5', 'afn=relu', 'lr=1e-4')
    assert args.settings == {'n_iter': 5, 'afn': 'relu', 'lr': 1e-4}
    for word in ('n_iter', 'n_iter=x', 'n_iter=0', 'seed=1', 'task={}', '='):
        assert '--settings' in refused(lambda w: pretrain_args('--settings', w), word, capsys)


@pytest.mark.parametrize(
    'parse, argv, words',
    [
        (parse_train_args, [], 'which data set'),
        (functools.partial(parse_train_args, datasets=('rte',)), ['--dataset', 'glue'], 'invalid'),
        (parse_train_args, [*RTE, '--n_embd', '10'], 'not divisible'),
        (parse_train_args, [*RTE, '--n_layer', '2', '--n_transfer', '3'], 'more than --n_layer'),
        (parse_train_args, [*RTE, '--analysis'], 'give both'),
        (parse_train_args, [*RTE, '--desc', 'a/b'], 'without folders'),
        (parse_train_args, [*RTE, '--desc', 'x' * 201], 'too long'),
        (parse_train_args, [*RTE, '--desc', 'a\udcffb'], 'not UTF-8 text; see'),
        (parse_train_args, [*RTE, '--regression'], '--dataset custom'),
        (parse_train_args, [*RTE, '--model_dir', 'no\nwhere'], 'no such file or folder'),
        (parse_train_args, [*RTE, '--data_dir', 'nowhere'], '--data_dir nowhere: no such'),
        (parse_train_args, [*RTE, '--nothing'], 'unrecognized'),
        (parse_pretrain_args, ['--out', 'x'], '--text'),
        (parse_pretrain_args, [*TEXT, '--warmup_updates', '0.5'], "'0.5' given, expected a whole"),
        (parse_pretrain_args, ['--text', 'nowhere', '--out', 'x'], '--text nowhere: no such'),
        (parse_pretrain_args, [*TEXT, '--init', ROOT, '--vocabulary', ROOT], 'its own'),
    ],
)
def test_wrong_options(parse, argv, words, capsys):
    assert words in refused(parse, argv, capsys)


def test_options_are_answered_without_pytorch():
    code = (
        'import contextlib, sys\nfrom gpt1.parsing import parse_train_args\n'
        'for argv in (["--help"], ["--model_dir", "nowhere"]):\n'
        '    with contextlib.suppress(SystemExit):\n        parse_train_args(argv)\n'
        'assert not {"torch", "pandas", "numpy"} & set(sys.modules)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count('\n') == 1, done.stderr


def test_model_settings_are_what_check_settings_accepts():
    found = model_settings(train_args())
    lstm = model_settings(train_args('--model', 'lstm', '--n_transfer', '-1'))
    assert found.keys() == SETTINGS.keys() - {'model', 'lstm_units'}
    assert lstm.keys() == SETTINGS.keys() - {'n_head', 'n_layer', 'afn', 'attn_pdrop'}
    assert 'lr' not in model_settings(train_args(), kinds=['model'])
    check_settings(found, 'x')


@pytest.mark.parametrize(
    'file, content, words',
    [
        ('settings', {'n_ctx': 512.0}, 'a whole number'),
        ('settings', {'n_head': True}, 'n_head'),
        ('settings', {'afn': []}, 'one of relu, swish, gelu'),
        ('settings', {'x' * 1000: 1}, 'not a setting'),
        ('settings', {'task': 'rte'}, 'task'),
        ('settings', '[' * 10**5, 'not a JSON file'),
        ('settings', '{"lr": 1e999}', 'lr'),
        ('config', {'model_type': 'gpt2'}, 'openai-gpt'),
        ('config', {'n_positions': None}, 'n_ctx'),
        ('config', {'gpt1': []}, 'gpt1'),
    ],
)
def test_settings_that_are_refused(tmp_path, file, content, words):
    content = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / f'{file}.json').write_text(content)
    with pytest.raises(InputError, match=words) as error:
        read_settings(str(tmp_path))
    message = str(error.value)
    assert f'{file}.json' in message and len(message) < 500 and '\n' not in message


def test_which_model_is_used_where_none_is_named(tmp_path, monkeypatch):
    """That of the working folder, that beside the scripts, or the sample."""
    scripts, work = tmp_path / 'scripts', tmp_path / 'work'
    shutil.copytree(SAMPLE_MODEL, scripts / 'model' / 'sample')
    monkeypatch.setattr(settings, 'ROOT', str(scripts))
    monkeypatch.setattr(settings, 'SAMPLE_MODEL', str(scripts / 'model' / 'sample'))
    (work / 'model').mkdir(parents=True)
    monkeypatch.chdir(scripts)
    assert find_model_dir() == os.path.join('model', 'sample')
    assert parse_train_args(RTE).n_embd == 128
    monkeypatch.chdir(work)
    assert find_model_dir() == str(scripts / 'model' / 'sample')
    (scripts / 'model' / 'params_3.npy').touch()
    assert is_sample_model(str(scripts / 'model' / 'sample'))
    assert find_model_dir() == str(scripts / 'model')
    (work / 'model' / 'model.safetensors').touch()
    assert find_model_dir() == 'model' and not is_sample_model('model')
