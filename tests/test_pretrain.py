"""Pre-training: updates against a plain version, and whole runs, also stopped and resumed."""

import csv
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GOLDEN, Command
from plain_model import plain_model
from test_parallel import join_ranks, rank_environments, start_ranks
from test_resume import wait_for

import pretrain
import train
from gpt1.files import ENCODER_FILE, MERGES_FILE, MODEL_FILES
from gpt1.ops.batches import Tree
from gpt1.parsing import parse_pretrain_args
from gpt1.run import record, training
from gpt1.run.depends import of_pretraining
from gpt1.run.parallel import Ranks
from gpt1.weights.openai import OpenAIShards, load_openai_pretrained_model
from gpt1.weights.safe_load import load_file
from model_pytorch import Config, DoubleHeadModel, LMModel, init_weights, special_rows
from utils import ResultLogger

NAMES = ('work/tokens.bin', *MODEL_FILES, 'settings.json')


@pytest.fixture(scope='session')
def text(tmp_path_factory):
    """Half of the stories of the golden recording, one a line."""
    lines = []
    for path in sorted(Path(GOLDEN, 'data').glob('*.csv')):
        rows = csv.reader(path.read_text('utf-8').splitlines())
        lines += [' '.join(row[1:6]) for row in rows][1:]
    path = tmp_path_factory.mktemp('text') / 'stories.txt'
    path.write_text('\n'.join(lines[::2]) + '\n', encoding='utf-8')
    return path


class Pretrain(Command):
    """`pretrain.py` on the small text, writing to `folder/out`."""

    script = 'pretrain'
    options = """--device cpu --n_merges 100 --n_ctx 16 --n_embd 16 --n_head 2 --n_layer 2
        --n_iter 2 --n_windows 20 --n_batch 5 --lr 3e-3 --warmup_updates 10 --eval_every 15
        --save_every 7 --settings n_batch=4""".split()

    def __init__(self, folder, text):
        super().__init__(folder)
        self.text, self.out = text, folder / 'out'

    def argv(self, *options):
        return [*self.options, *map(str, ('--text', self.text, '--out', self.out, *options))]

    def files(self):
        return {name: (self.out / name).read_bytes() for name in NAMES}

    def log(self, progress=False):
        """The evaluations, or the progress lines, without what depends on the clock."""
        lines = [json.loads(line) for line in (self.out / 'log.jsonl').read_text().splitlines()]
        clock = ('time', 'tokens_per_second')
        return [
            {k: v for k, v in line.items() if k not in clock}
            for line in lines[1:]
            if ('grad_norm' in line) == progress
        ]

    def do(self, *options, status=0):
        """Run in this process."""
        assert pretrain.main(self.argv(*options)) == status


def assert_same_end(command, undisturbed):
    assert command.files() == undisturbed.files() and command.log() == undisturbed.log()
    assert command.log(progress=True) == undisturbed.log(progress=True) != []


@pytest.fixture
def command(tmp_path, text):
    return Pretrain(tmp_path, text)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, text):
    """A whole run, dropout on."""
    command = Pretrain(tmp_path_factory.mktemp('undisturbed'), text)
    command.printed = command.run('--keep_checkpoint')
    return command


def take_encoding(command, undisturbed):
    """Let a run begin with the vocabulary and the encoded text of another."""
    (command.out / 'work').mkdir(parents=True)
    work = [f'work/{name}' for name in ('vocabulary.json', 'tokens.json', 'tokens.bin')]
    for name in (ENCODER_FILE, MERGES_FILE, *work):
        shutil.copy(undisturbed.out / name, command.out / name)
    return command


@pytest.fixture
def encoded(command, undisturbed):
    return take_encoding(command, undisturbed)


# ----------------------------------------------------------------------------------------- training

CONFIG = Config(
    n_vocab=30, n_ctx=8, n_embd=12, n_head=2, n_layer=2, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0
)


def make_training(folder):
    options = '--n_ctx 8 --n_embd 12 --n_head 2 --n_layer 2 --n_windows 5 --n_batch 2 --n_iter 3'
    argv = ['--text', __file__, '--out', str(folder), *options.split()]  # any text
    args = pretrain.parse_pretrain_args([*argv, '--lr', '0.01', '--warmup_updates', '4'])
    torch.manual_seed(0)
    model = LMModel(CONFIG)
    init_weights(model)
    tokens = np.random.RandomState(0).randint(0, 30, 200).astype(np.uint16)
    ranks = Ranks([torch.device('cpu')])
    job = pretrain.PreTraining(args, model.double(), tokens, ranks)
    return pretrain.make_trainer(args, job, '')


def plain_losses(p, ids):
    """The mean loss of each window, [windows], from parameters by name; ids [windows, 8]."""
    parameters = {f'transformer.{name}': value for name, value in p.items()}
    parameters['task_head.linear.weight'] = torch.zeros(1, 12, dtype=torch.float64)
    parameters['task_head.linear.bias'] = torch.zeros(1, dtype=torch.float64)
    windows = [Tree(window[:1], (window[1:],)) for window in ids.numpy()]
    _, losses = plain_model(parameters, CONFIG, 'text', windows)
    return torch.cat(losses)


def test_the_first_updates_are_the_plain_versions(tmp_path):
    """Losses, norms and parameters of two epochs: windows, order, clipping, schedule, decay."""
    training = make_training(tmp_path)
    job, module = training.job, training.module
    assert (job.n_train, job.heldout) == (24, range(24, 25))
    assert (job.updates_per_epoch, training.n_updates_total) == (4, 12)
    p = {
        name.removeprefix('transformer.'): value.detach().clone().requires_grad_()
        for name, value in module.named_parameters()
    }
    m, v = ({name: torch.zeros_like(value) for name, value in p.items()} for _ in range(2))
    windows_of = torch.from_numpy(job.tokens.astype(np.int64)).view(25, 8)
    assert job.heldout_loss() == pytest.approx(plain_losses(p, windows_of[24:]).item(), rel=1e-6)
    for t in range(1, 9):
        epoch, i = divmod(t - 1, 4)
        order = np.arange(24)
        np.random.RandomState([42, epoch]).shuffle(order)
        windows = order[5 * i : 5 * i + 5]
        losses = plain_losses(p, windows_of[windows])
        grads = dict(zip(p, torch.autograd.grad(losses.mean(), p.values())))
        found = training.update(windows)
        torch.testing.assert_close(found[:5].double(), losses.detach(), rtol=0, atol=1e-6)
        norm = math.sqrt(sum((g**2).sum().item() for g in grads.values()))
        assert found[5].item() == pytest.approx(norm, rel=1e-5)
        schedule = t / 4 if t <= 4 else (1 + math.cos(math.pi * (t - 4) / (12 - 4))) / 2
        lr = 0.01 * schedule * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        with torch.no_grad():
            for name, value in p.items():
                g = grads[name] / max(norm, 1)
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g * g
                value -= lr * (m[name] / (v[name].sqrt() + 1e-8) + 0.01 * (value.dim() > 1) * value)
        for name, value in module.named_parameters():
            if not name.endswith('c_attn.b'):  # the gradient of the keys' third is rounding noise
                expected = p[name.removeprefix('transformer.')]
                torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('owner, name', [(ResultLogger, 'write'), (pretrain.PreTraining, 'report')])
def test_nothing_comes_between_a_score_and_its_checkpoint(tmp_path, monkeypatch, owner, name):
    path = str(tmp_path / 'checkpoint')
    logger = ResultLogger(str(tmp_path / 'log'))
    monkeypatch.setattr(owner, name, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_training(tmp_path).run(logger, path)
    lines = make_training(tmp_path).resume(load_file(path), path)
    assert lines == logger.lines and 'va_loss' in lines[-1]


# --------------------------------------------------------------------------------------- whole runs


def test_what_a_run_writes(undisturbed):
    assert {path.name for path in undisturbed.out.iterdir()} == {
        name for name in NAMES if '/' not in name
    } | {'log.jsonl', 'perplexity.png', 'run.json', 'work'}
    out = undisturbed.out
    found, args = record.read(out), parse_pretrain_args(undisturbed.argv())
    assert record.differences(found, of_pretraining(args)) == [] and found['finished']
    assert found['id'] == json.loads((out / 'log.jsonl').read_text().splitlines()[0])['id']
    settings = json.loads((out / 'settings.json').read_text())
    assert settings.pop('n_vocab') == len(json.loads((out / ENCODER_FILE).read_text()))
    assert len(settings.pop('vocabulary')) == 16
    dropout = dict(embd_pdrop=0.1, attn_pdrop=0.1, resid_pdrop=0.1)
    sizes = dict(n_ctx=16, n_embd=16, n_head=2, n_layer=2, afn='gelu')
    assert settings == sizes | dropout | {'lr': 3e-3 / 4, 'n_batch': 4}
    log = undisturbed.log()
    assert [line['n_updates'] for line in log] == [15, 30, 34]
    assert log[-1]['va_perplexity'] == pytest.approx(math.exp(log[-1]['va_loss']))
    assert log[-1]['va_perplexity'] < log[0]['va_perplexity']
    assert log[-1]['n_epochs'] == 2 and log[-1]['lr'] == pytest.approx(0, abs=1e-12)
    assert (out / 'perplexity.png').read_bytes().startswith(b'\x89PNG')
    lines = [line for line in undisturbed.printed.splitlines() if ' left' not in line]
    heads = 'learned encoded text model batch device n_updates 15 30 34 written to'
    assert [line.split()[0] for line in lines[:12]] == heads.split()
    between = undisturbed.log(progress=True)
    assert [line['n_updates'] for line in between] == list(range(1, 35))
    losses = [line['loss'] for line in between[15:30]]
    assert log[1]['tr_loss'] == pytest.approx(np.mean(losses)) and log[1]['lr'] == between[29]['lr']


def test_the_shards_are_the_model(undisturbed):
    state = torch.load(undisturbed.out / 'work' / 'checkpoint', weights_only=True)['model']
    n_vocab = len(json.loads((undisturbed.out / ENCODER_FILE).read_text()))
    model = DoubleHeadModel(Config(n_vocab=n_vocab, n_ctx=16, n_embd=16, n_head=2, n_layer=2))
    special = special_rows(16, np.random.RandomState(0))
    load_openai_pretrained_model(model, OpenAIShards(str(undisturbed.out)), special, 2)
    for name, value in model.state_dict().items():
        if name.startswith('transformer.'):
            expected = state[name].clone()
            if name == 'transformer.embed.weight':
                expected[n_vocab : n_vocab + 3] = torch.from_numpy(special)
            assert torch.equal(value, expected), name


def test_train_takes_the_folder(undisturbed, tmp_path, capsys):
    options = '--dataset rocstories --submit --device cpu --n_valid 32 --n_iter 1 --n_gpu 1'.split()
    folders = [f'--{name}_dir={tmp_path / name}' for name in 'log save submission analysis'.split()]
    data = [f'--data_dir={GOLDEN}/data', f'--model_dir={undisturbed.out}']
    argv = [*options, *folders, *data]
    assert not train.main(argv)
    printed = capsys.readouterr().out
    assert 'embedding and 2 of 2 layers' in printed
    assert 'n_embd 16, n_head 2, n_layer 2' in printed
    assert f'from {undisturbed.out}/settings.json' in printed
    args = train.parse_args([*argv, '--lr', '0.5'])
    assert (args.n_ctx, args.n_embd, args.n_transfer, args.lr, args.n_batch) == (16, 16, 2, 0.5, 4)


def test_killed_at_random_moments(command, undisturbed):
    """SIGKILL while counting words, while encoding, and twice in training."""
    random.seed(3)
    delays = [('lock', 0.1), ('vocabulary.json', 0.05)]
    for name, delay in [*delays, ('checkpoint', 0.05), ('checkpoint', 0.5)]:
        path, start = command.out / 'work' / name, time.time()
        process = command.start('--resume')
        wait_for(lambda p=path, s=start: p.exists() and p.stat().st_mtime >= s, process)
        process.join(random.uniform(0, delay))
        process.kill()
        process.join()
    assert 'resumed ' in command.run('--resume')
    assert_same_end(command, undisturbed)
    assert not list(command.out.rglob('*.part'))
    assert not (command.out / 'work' / 'checkpoint').exists()


def test_resuming_with_other_settings_or_text(encoded, text, tmp_path, capfd):
    options = ('--n_iter', 1, '--keep_checkpoint')

    def error_of(*more):
        capfd.readouterr()
        encoded.do(*options, *more, status=2)
        return capfd.readouterr().err

    encoded.do(*options)
    assert 'lr was 0.003, now it is 0.5' in error_of('--lr', 0.5, '--resume')
    assert '--resume to continue it' in error_of()
    encoded.text = tmp_path / 'other.txt'
    encoded.text.write_text(text.read_text(encoding='utf-8')[:-100], encoding='utf-8')
    before = encoded.files()
    assert 'another text' in error_of('--resume')
    assert encoded.files() == before
    encoded.text = text
    (encoded.out / 'work' / 'checkpoint').write_bytes(b'PK\3\4')
    assert 'damaged' in error_of('--resume')


def signal_in_update(patch, *numbers):
    """Send a signal to this process in the updates after these."""
    update = training.Trainer.update

    def with_signal(self, items):
        if self.n_updates in numbers:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        return update(self, items)

    patch.setattr(training.Trainer, 'update', with_signal)


def assert_close_logs(command, other, **within):
    for line, expected in zip(command.log(), other.log(), strict=True):
        assert line == pytest.approx(expected, **within)


def test_a_dead_process_ends_the_others_and_all_resume_together(encoded, undisturbed, monkeypatch):
    """Before, there was one process: a step draws its masks from its place in the batch."""
    checkpoint = encoded.out / 'work' / 'checkpoint'
    with monkeypatch.context() as patch:
        signal_in_update(patch, 9)
        encoded.do(status=143)
    stopped = checkpoint.stat().st_mtime_ns
    processes = start_ranks(encoded, 2, '--resume', '--save_every', 1)
    wait_for(lambda: checkpoint.stat().st_mtime_ns > stopped, processes[0])
    processes[1].kill()
    join_ranks(processes[:1], 2)
    assert 'another process of this run ended' in encoded.output.splitlines()[-1]
    environments = rank_environments(2)
    environments[0]['TORCHELASTIC_RESTART_COUNT'] = '1'  # the first one decides
    join_ranks([encoded.start(**environment) for environment in environments], 0)
    assert encoded.output.count('resumed ') == encoded.output.count('batch  ') == 2
    assert_close_logs(encoded, undisturbed, abs=1e-4)


def test_out_of_memory_halves_what_a_device_takes(
    encoded, undisturbed, text, tmp_path_factory, monkeypatch, capsys
):
    options = '--embd_pdrop 0 --attn_pdrop 0 --resid_pdrop 0 --n_iter 1'.split()
    other = take_encoding(Pretrain(tmp_path_factory.mktemp('other'), text), undisturbed)
    other.do(*options)
    forward = LMModel.forward

    def failing(self, batch):
        if batch.rows > 2:
            raise torch.OutOfMemoryError('made to fail')
        return forward(self, batch)

    monkeypatch.setattr(LMModel, 'forward', failing)
    encoded.do(*options)
    errors = [line for line in capsys.readouterr().err.splitlines() if 'memory' in line]
    assert [re.search(r'steps of (\d) windows', line).group(1) for line in errors[:2]] == ['3', '2']
    assert_close_logs(encoded, other, abs=1e-5, rel=1e-6)


def test_the_speed_counts_the_time_before_a_stop(encoded, monkeypatch):
    """Also where the run stops at an evaluation. Here an update takes a second."""
    clock = types.SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(training, 'time', clock)
    signal_in_update(monkeypatch, 9, 14)
    for status in (143, 143, 0):
        encoded.do('--resume', status=status)
    lines = map(json.loads, (encoded.out / 'log.jsonl').read_text().splitlines())
    speeds = [line['tokens_per_second'] for line in lines if 'tokens_per_second' in line]
    assert speeds == [20 * 16] * 3


def test_init_continues_pre_training(command, undisturbed):
    """It begins with an evaluation: the held-out loss is that of the initial model. It falls."""
    command.do('--init', undisturbed.out)
    first, *_, last = command.log()
    start = undisturbed.log()[-1]['va_loss']
    assert first['n_updates'] == 0
    assert list(first) == ['n_epochs', 'n_updates', 'va_loss', 'va_perplexity']
    # The rows of the special tokens are new.
    assert first['va_loss'] == pytest.approx(start, abs=0.02)
    assert last['va_loss'] < start - 0.01
    assert (command.out / MERGES_FILE).read_bytes() == (undisturbed.out / MERGES_FILE).read_bytes()


def test_a_finished_model_is_refused(undisturbed, text, tmp_path, capsys):
    """Also without its folder `work`. With --resume, it is said that it is finished."""
    command = Pretrain(tmp_path, text)
    shutil.copytree(undisturbed.out, command.out)
    shutil.rmtree(command.out / 'work')
    before = {path.name: path.read_bytes() for path in command.out.iterdir()}
    for options, status, expected in (
        ([], 2, 'finished model'),
        (['--resume'], 0, 'is finished: there is nothing to resume'),
        (['--resume', '--n_iter', 3], 2, 'its checkpoint is removed (n_iter was 2, is 3)'),
    ):
        command.do(*options, status=status)
        assert expected in ''.join(capsys.readouterr())
    assert {path.name: path.read_bytes() for path in command.out.iterdir()} == before


def test_bf16_and_a_given_vocabulary(command, undisturbed):
    given = ('--vocabulary', undisturbed.out, '--n_merges', 7)
    command.do('--precision', 'bf16', '--n_iter', 1, *given)
    assert (command.out / MERGES_FILE).read_bytes() == (undisturbed.out / MERGES_FILE).read_bytes()
    assert command.log()[-1]['va_loss'] == pytest.approx(undisturbed.log()[1]['va_loss'], abs=0.3)


def test_the_default_options_train_on_two_megabytes(encoded, text, capsys):
    """A warm-up of 2,000 updates has no room: it is a tenth of all, which the run says."""
    args = parse_pretrain_args(['--text', str(text), '--out', 'x'])
    assert pretrain.count_windows(args, 454_733) == (879, 9)  # 2 MB of the King James Bible
    assert [pretrain.warm_up(args, n) for n in (1300, 1999, 2000)] == [130, 199, 2000]
    encoded.do('--warmup_updates', 2000, '--n_iter', 1)
    assert 'updates are the warm-up: the text is small' in capsys.readouterr().out


@pytest.mark.parametrize(
    'options, message',
    [
        (['--text', '{tmp}/latin.txt'], 'not UTF-8'),
        (['--text', '{tmp}/short.txt'], 'too few: expected at least one window'),
        (['--n_windows', '5000'], 'too few for one update'),
        (['--out', '{tmp}/short.txt'], 'cannot write'),
        (['--out', '{tmp}/openai'], 'finished model'),
        (['--out', '{tmp}/tuned'], 'fine-tuned model'),
        (['--out', '{tmp}/words'], 'did not write there'),
        (['--vocabulary', '{tmp}/openai'], 'cannot read the vocabulary'),
        (['--device', 'tpu'], 'expected auto'),
        (['--lr', '1000', '--l2', '1000', '--max_grad_norm', '-1'], 'A lower --lr may help'),
    ],
)
def test_bad_input_is_one_line(command, tmp_path, capfd, options, message):
    folders = dict(openai='params_0.npy', tuned='best_params', words='vocab_40000.bpe')
    for folder, name in folders.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    (tmp_path / 'latin.txt').write_bytes(b'caf\xe9\n')
    (tmp_path / 'short.txt').write_text('Only a few words.')
    status = pretrain.main(command.argv(*(option.format(tmp=tmp_path) for option in options)))
    error = capfd.readouterr().err
    assert status == 2 and error.count('\n') == 1 and message in error, error
    assert not Path(command.out, 'params_shapes.json').exists()


def test_a_second_run_is_refused(command, capsys):
    with pretrain.only_run(str(command.out / 'work')):
        assert pretrain.main(command.argv()) == 75
    assert 'another run is writing' in capsys.readouterr().err
