"""options.py: each option is declared once, and everything else follows from the table."""

import argparse
import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import GOLDEN, ROOT
from hypothesis import given
from hypothesis import strategies as st

from gpt1 import options, settings
from gpt1.files import MODEL_FILES, SAMPLE_MODEL
from gpt1.options import (
    OPTIONS,
    PRETRAIN,
    SETTINGS,
    TRAIN,
    Number,
    free_on_resume,
    number,
    options_of,
)
from gpt1.parsing import Parser, parse_pretrain_args, parse_train_args
from gpt1.settings import (
    check_settings,
    find_model_dir,
    is_sample_model,
    model_settings,
    read_settings,
)
from utils import InputError

GOLDEN_MODEL = os.path.join(GOLDEN, 'model')


@pytest.fixture
def text(tmp_path):
    path = tmp_path / 'text.txt'
    path.write_text('some text\n')
    return str(path)


def train_args(*argv):
    return parse_train_args(['--dataset', 'rocstories', '--model_dir', GOLDEN_MODEL, *argv])


def refused(parse, argv, capsys):
    """The one line that refuses `argv`."""
    with pytest.raises(SystemExit) as stop:
        parse(argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count('\n') == 1, error
    assert re.match(r'(train|pretrain)\.py: error: \S', error)
    return error


# The table


def test_each_option_stands_in_the_table_once():
    names = [option.name for options_ in OPTIONS.values() for option in options_]
    assert len(names) == len(set(names))


def test_literal_choices_are_those_of_the_modules():
    import model_pytorch
    import opt

    assert set(options.ACTIVATIONS) == set(model_pytorch.ACT_FNS)
    assert set(options.SCHEDULES) == set(opt.SCHEDULES)


def test_default_values_are_accepted():
    for script in (TRAIN, PRETRAIN):
        for option in options_of(script):
            default = option.default(script)
            if default not in (None, (), False):
                assert option.accepts(default), option.name


def test_the_original_program_has_the_same_defaults():
    """Section 8 of the reference of OpenAI's program."""
    args = train_args()
    expected = dict(
        seed=42, n_iter=3, n_batch=8, max_grad_norm=1, lr=6.25e-5, lr_warmup=0.002, n_ctx=512,
        n_embd=768, n_head=12, n_layer=12, embd_pdrop=0.1, attn_pdrop=0.1, resid_pdrop=0.1,
        clf_pdrop=0.1, l2=0.01, vector_l2=False, n_gpu=4, opt='adam', afn='gelu',
        lr_schedule='warmup_linear', n_transfer=12, lm_coef=0.5, b1=0.9, b2=0.999, e=1e-8,
        n_valid=374, desc='rocstories', submit=False, analysis=False, log_dir='log/',
        save_dir='save/', submission_dir='submission/', schedule_t='before',
    )  # fmt: skip
    assert {name: getattr(args, name) for name in expected} == expected


def test_the_paper_has_the_same_defaults_for_pretraining(text):
    args = parse_pretrain_args(['--text', text, '--out', 'x'])
    expected = dict(
        n_merges=40000, n_ctx=512, n_windows=64, n_batch=8, n_iter=100, lr=2.5e-4,
        warmup_updates=2000, l2=0.01, embd_pdrop=0.1, coverage=0.9995, init=None, settings={},
    )  # fmt: skip
    assert {name: getattr(args, name) for name in expected} == expected


def test_what_a_resumed_run_may_change():
    train, pretrain = free_on_resume(TRAIN), free_on_resume(PRETRAIN)
    assert {'desc', 'data_dir', 'model_dir', 'n_batch', 'n_gpu', 'device', 'save_every'} <= train
    assert not train & {'lr', 'seed', 'n_iter', 'dataset', 'precision', 'schedule_t', 'n_ctx'}
    assert {'text', 'out', 'init', 'n_batch', 'eval_every', 'save_every'} <= pretrain
    assert not pretrain & {'lr', 'seed', 'n_windows', 'n_merges', 'coverage', 'warmup_updates'}


# Numbers


def numeric_options():
    for script in (TRAIN, PRETRAIN):
        for option in options_of(script):
            if isinstance(option.kind, Number):
                yield pytest.param(script, option, id=f'{script} --{option.name}')


@pytest.mark.parametrize('script, option', list(numeric_options()))
def test_both_ends_of_every_numeric_option(script, option, text, capsys):
    """What lies in the range is accepted; what lies beyond is refused in one line."""
    kind = option.kind

    def parse(value):
        value = f'--{option.name}={value!r}' if not isinstance(value, str) else value
        if script == PRETRAIN:
            return parse_pretrain_args(['--text', text, '--out', 'x', '--n_head=1', value])
        return train_args('--n_head=1', '--n_layer=1000', '--n_transfer=1', value)

    ends = [kind.low, kind.high]
    if kind.kind is float:
        ends += [math.nextafter(kind.low, 1), math.nextafter(kind.high, 0)]
    for value in ends:
        value = kind.kind(value)
        if value in kind.but:
            refused(parse, value, capsys)
        elif option.name == 'n_head' and value > 1:
            assert 'not divisible' in refused(parse, value, capsys)
        elif option.name == 'n_layer':
            assert getattr(parse(value), option.name) == value
        else:
            assert getattr(parse(value), option.name) == value
    beyond = [kind.low - 1, kind.high * 2 + 1, 10**400, -(10**400), math.nan, math.inf, -math.inf]
    for value in beyond:
        refused(parse, value, capsys)
    for word in ('', 'x', '1e', '0x10', '9' * 5000, '--1', '1 2'):
        refused(parse, f'--{option.name}={word}', capsys)


@pytest.mark.parametrize('script, option', list(numeric_options()))
def test_every_upper_end_is_finite(script, option):
    assert option.kind.high < math.inf


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none()))
def test_a_number_accepts_no_other_type(value):
    whole, real = number(int, 0, 10), number(float, 0, 10, but=[0])
    is_int, is_float = type(value) is int, type(value) is float
    assert whole.accepts(value) == (is_int and 0 <= value <= 10)
    assert real.accepts(value) == ((is_int or is_float) and 0 < value <= 10)


def test_a_number_says_what_it_accepts():
    assert str(number(int, 1, 5)) == 'a whole number from 1 to 5'
    assert str(number(float, 0, 1, but=[1])) == 'a number from 0 to 1, but not 1'
    assert str(number(int, 2)) == 'a whole number from 2'


# Parsing


def test_settings_of_the_model_come_before_defaults_and_after_what_was_typed(tmp_path):
    shutil.copytree(GOLDEN_MODEL, tmp_path / 'model')
    settings = {'n_head': 4, 'n_embd': 32, 'lr': 0.5, 'n_iter': 7, 'embd_pdrop': 0}
    (tmp_path / 'model' / 'settings.json').write_text(json.dumps(settings))
    argv = ['--dataset', 'sst2', '--model_dir', str(tmp_path / 'model')]
    args = parse_train_args([*argv, '--lr', '0.25'])
    assert (args.n_head, args.n_embd, args.n_iter, args.embd_pdrop) == (4, 32, 7, 0)
    assert args.lr == 0.25
    assert args.b2 == 0.999


def test_a_value_equal_to_the_default_counts_as_typed(tmp_path):
    (tmp_path / 'settings.json').write_text('{"n_iter": 7}')
    args = parse_train_args(
        ['--dataset', 'rte', '--model_dir', str(tmp_path), '--n_iter', '3', '--n_layer', '2']
    )
    assert args.n_iter == 3
    assert args.n_transfer == 2


def test_init_gives_pretraining_its_sizes_but_not_its_advice(tmp_path, text):
    settings = {'n_head': 4, 'n_embd': 32, 'n_ctx': 64, 'attn_pdrop': 0, 'lr': 0.5, 'n_iter': 7}
    (tmp_path / 'settings.json').write_text(json.dumps(settings))
    args = parse_pretrain_args(['--text', text, '--out', 'x', '--init', str(tmp_path)])
    assert (args.n_head, args.n_embd, args.n_ctx, args.attn_pdrop) == (4, 32, 64, 0)
    assert (args.lr, args.n_iter) == (2.5e-4, 100)


def test_a_hugging_face_folder_gives_its_sizes(tmp_path):
    config = {'model_type': 'openai-gpt', 'n_positions': 128, 'n_embd': 32, 'n_head': 4}
    config.update(n_layer=2, afn='gelu_new', summary_first_dropout=0.2, vocab_size=99)
    config['gpt1'] = {'lr': 0.5, 'n_batch': 2}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    args = parse_train_args(['--dataset', 'rte', '--model_dir', str(tmp_path)])
    assert (args.n_ctx, args.n_embd, args.n_head, args.n_layer) == (128, 32, 4, 2)
    assert (args.afn, args.clf_pdrop, args.lr, args.n_batch) == ('gelu', 0.2, 0.5, 2)


def test_settings_for_finetuning(text, capsys):
    argv = ['--text', text, '--out', 'x', '--settings']
    args = parse_pretrain_args([*argv, 'n_iter=5', 'afn=relu', 'lr=1e-4'])
    assert args.settings == {'n_iter': 5, 'afn': 'relu', 'lr': 1e-4}
    for words in (['n_iter'], ['n_iter=x'], ['n_iter=0'], ['seed=1'], ['task={}'], ['=']):
        assert '--settings' in refused(parse_pretrain_args, [*argv, *words], capsys)


def test_custom_data_sets_a_tenth_aside():
    argv = ['--dataset', 'custom', '--model_dir', GOLDEN_MODEL]
    assert parse_train_args(argv).n_valid is None
    assert parse_train_args([*argv, '--n_valid', '374']).n_valid == 374


@pytest.mark.parametrize(
    'argv, words',
    [
        ([], 'which data set'),
        (['--dataset', 'glue'], 'invalid choice'),
        (['--dataset', 'rte', '--n_embd', '10'], 'not divisible'),
        (['--dataset', 'rte', '--n_layer', '2', '--n_transfer', '3'], 'more than --n_layer'),
        (['--dataset', 'rte', '--analysis'], 'give both'),
        (['--dataset', 'rte', '--desc', 'a/b'], 'without folders'),
        (['--dataset', 'rte', '--desc', ''], 'without folders'),
        (['--dataset', 'rte', '--desc', '..'], 'without folders'),
        (['--dataset', 'rte', '--desc', 'x' * 201], 'too long'),
        (['--dataset', 'rte', '--desc', 'a\udcffb'], 'not UTF-8 text; see'),
        (['--dataset', 'rte', '--regression'], '--dataset custom'),
        (['--dataset', 'rte', '--symmetric'], '--dataset custom'),
        (['--dataset', 'rte', '--positive', 'x'], '--dataset custom'),
        (['--dataset', 'rte', '--model_dir', 'no\nwhere'], 'no such file or folder'),
        (['--dataset', 'rte', '--data_dir', 'nowhere'], '--data_dir nowhere: no such'),
        (['--dataset', 'rte', '--nothing'], 'unrecognized'),
        (['--dataset', 'rte', '--lr_schedule', 'up'], 'invalid choice'),
    ],
)
def test_wrong_options_of_train(argv, words, capsys):
    parse = functools.partial(parse_train_args, datasets=('rte',))
    assert words in refused(parse, argv, capsys)


@pytest.mark.parametrize(
    'argv, words',
    [
        (['--out', 'x'], '--text'),
        (['--text', 'nowhere', '--out', 'x'], '--text nowhere: no such'),
        (['--text', ROOT, '--out', 'x', '--n_micro', '8'], 'unrecognized'),
        (['--text', ROOT, '--out', 'x', '--n_head', '7'], 'not divisible'),
        (['--text', ROOT, '--out', 'x', '--init', ROOT, '--vocabulary', ROOT], 'its own'),
        (['--text', ROOT, '--out', 'x', '--warmup_updates', '0.5'], 'a whole number'),
    ],
)
def test_wrong_options_of_pretrain(argv, words, capsys):
    assert words in refused(parse_pretrain_args, argv, capsys)


@pytest.mark.parametrize(
    'parse, script', [(parse_train_args, TRAIN), (parse_pretrain_args, PRETRAIN)]
)
def test_help_shows_every_option_and_its_default(parse, script, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(['--help'])
    assert stop.value.code == 0
    text = ' '.join(capsys.readouterr().out.split())
    for option in options_of(script):
        assert f'--{option.name}' in text
        if isinstance(option.kind, Number) and option.default(script) is not None:
            assert f'(default: {option.default(script)})' in text


def test_a_parser_fills_paragraphs_and_keeps_indented_lines():
    parser = Parser(description='one\ntwo\n\n    kept   as it is\n\nthree', usage='x')
    assert 'one two\n\n    kept   as it is\n\nthree' in parser.format_help()


@pytest.mark.parametrize('argv', [['--help'], ['--nothing'], ['--model_dir', 'nowhere']])
def test_options_are_answered_without_pytorch(argv):
    code = (
        'import sys, options\n'
        'try:\n'
        f'    parse_train_args({argv!r})\n'
        'finally:\n'
        '    assert "torch" not in sys.modules and "pandas" not in sys.modules\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'Traceback' not in done.stderr, done.stderr


# Settings of a model


def test_model_settings_are_what_check_settings_accepts():
    settings = model_settings(train_args())
    lstm = model_settings(train_args('--model', 'lstm', '--n_transfer', '-1'))
    assert settings.keys() == SETTINGS.keys() - {'model', 'lstm_units'}
    assert lstm.keys() == SETTINGS.keys() - {'n_head', 'n_layer', 'afn', 'attn_pdrop'}
    check_settings(settings, 'x')
    assert 'lr' not in model_settings(train_args(), kinds=['model'])


@pytest.mark.parametrize(
    'settings, words',
    [
        ({'n_ctx': 3}, 'n_ctx'),
        ({'n_ctx': 5}, 'from 6'),
        ({'n_ctx': 512.0}, 'a whole number'),
        ({'n_head': True}, 'n_head'),
        ({'n_head': '4'}, 'n_head'),
        ({'lr': 1e300}, 'lr'),
        ({'lr': math.nan}, 'lr'),
        ({'embd_pdrop': 1}, 'embd_pdrop'),
        ({'afn': []}, 'one of relu, swish, gelu'),
        ({'afn': 'tanh'}, 'one of relu, swish, gelu'),
        ({'seed': 1}, 'not a setting'),
        ({'encoder_path': 'x'}, 'not a setting'),
        ({'task': {}}, 'not a setting'),
        ({'x' * 1000: 1}, 'not a setting'),
    ],
)
def test_settings_that_are_refused(settings, words):
    with pytest.raises(InputError, match=re.escape(words)) as error:
        check_settings(settings, 'settings.json')
    message = str(error.value)
    assert message.startswith('settings.json: "') and len(message) < 400 and '\n' not in message


def test_the_command_line_and_settings_agree(capsys):
    """A number is a setting exactly if it can be typed."""
    for option in SETTINGS.values():
        if not isinstance(option.kind, Number):
            continue
        for value in (0, 1, 5, 6, 0.5, 0.99, 1000, 1000.5, 10**7):
            try:
                typed = option.kind(str(value)) is not None
            except argparse.ArgumentTypeError:
                typed = False
            assert option.accepts(value) == typed, (option.name, value)


@pytest.mark.parametrize('content', ['', '[]', '{', '\0', '[' * 10**5, '7', '{"lr": 1e999}'])
def test_damaged_settings(tmp_path, content):
    (tmp_path / 'settings.json').write_text(content)
    with pytest.raises(InputError, match='settings.json'):
        read_settings(str(tmp_path))


def test_no_settings(tmp_path):
    assert read_settings(str(tmp_path)) == {}
    assert read_settings(GOLDEN_MODEL) == {}


def test_settings_may_hold_facts(tmp_path):
    facts = {'n_vocab': 260, 'vocabulary': 'abc', 'task': {'name': 'rte'}, 'n_head': 4}
    (tmp_path / 'settings.json').write_text(json.dumps(facts))
    assert read_settings(str(tmp_path)) == facts
    for wrong in ({'task': 'rte'}, {'n_vocab': 0}, {'vocabulary': 7}):
        (tmp_path / 'settings.json').write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=next(iter(wrong))):
            read_settings(str(tmp_path))


@pytest.mark.parametrize(
    'config, words',
    [
        ({'model_type': 'gpt2'}, 'openai-gpt'),
        ({'layer_norm_epsilon': 1e-6}, 'layer_norm_epsilon'),
        ({'n_embd': 10**12}, 'n_embd'),
        ({'n_positions': None}, 'n_ctx'),
        ({'afn': 'tanh'}, 'afn'),
        ({'afn': ['gelu']}, 'afn'),
        ({'gpt1': []}, 'gpt1'),
        ({'gpt1': {'x': 1}}, 'not a setting'),
    ],
)
def test_configs_that_are_refused(tmp_path, config, words):
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match=words):
        read_settings(str(tmp_path))


# The default model


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder away from the scripts, which have only the sample beside them."""
    scripts = tmp_path / 'scripts'
    shutil.copytree(SAMPLE_MODEL, scripts / 'model' / 'sample')
    monkeypatch.setattr(settings, 'ROOT', str(scripts))
    monkeypatch.setattr(settings, 'SAMPLE_MODEL', str(scripts / 'model' / 'sample'))
    (tmp_path / 'work').mkdir()
    monkeypatch.chdir(tmp_path / 'work')
    return tmp_path


def test_the_sample_is_found_from_any_folder(elsewhere, monkeypatch):
    folder = find_model_dir()
    assert folder == str(elsewhere / 'scripts' / 'model' / 'sample')
    assert is_sample_model(folder)
    monkeypatch.chdir(elsewhere / 'scripts')
    assert find_model_dir() == os.path.join('model', 'sample')
    assert parse_train_args(['--dataset', 'rte']).n_embd == 128


def test_weights_in_the_working_folder_come_before_those_beside_the_scripts(elsewhere):
    (elsewhere / 'scripts' / 'model' / 'params_3.npy').touch()
    assert find_model_dir() == str(elsewhere / 'scripts' / 'model')
    (elsewhere / 'work' / 'model').mkdir()
    assert find_model_dir() == str(elsewhere / 'scripts' / 'model')
    (elsewhere / 'work' / 'model' / 'config.json').write_text('{}')
    assert find_model_dir() == 'model'
    assert not is_sample_model('model')


@pytest.mark.parametrize(
    'name', ['params_0 (1).npy', 'model.safetensors', 'gpt.pt', 'encoder.json', 'gpt1.tar.gz']
)
def test_unrecognized_weights_stop_the_default(elsewhere, name, capsys):
    (elsewhere / 'work' / 'model').mkdir()
    (elsewhere / 'work' / 'model' / 'README.md').touch()
    assert is_sample_model(find_model_dir())
    (elsewhere / 'work' / 'model' / name).touch()
    error = refused(parse_train_args, ['--dataset', 'rte'], capsys)
    assert name in error and MODEL_FILES[2] in error and '--model_dir' in error
