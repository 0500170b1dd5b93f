"""A run that was stopped in any way and resumed ends like one that was not stopped."""

import ctypes
import errno
import functools
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from conftest import GOLDEN, ON_LINUX, PROCESSES, Command, as_on_windows

import model_pytorch
import train
from gpt1.run import training
from gpt1.run.checkpoint import Saver

RUN = ('--n_iter', 2, '--save_every', 3)  # dropout is on


def assert_same_end(command, undisturbed):
    """The same lines in the log, the same best parameters and predictions, bit for bit."""
    assert command.log()[1:] == undisturbed.log()[1:]
    assert command.log(progress=True) == undisturbed.log(progress=True) != []
    for path in (('submission', 'ROCStories.tsv'), ('save', 'rocstories', 'best_params')):
        assert command.read(*path) == undisturbed.read(*path)


def load(command, name):
    """A file of parameters or the checkpoint of a run."""
    return torch.load(command.folder / 'save' / 'rocstories' / name, weights_only=True)


def checkpoint_of(command):
    return command.folder / 'save' / 'rocstories' / 'checkpoint'


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    command = Command(tmp_path_factory.mktemp('undisturbed'))
    server = PROCESSES.Process()  # the first waits for the imports
    server.start()
    server.join()
    start = time.monotonic()
    command.run(*RUN)
    command.seconds = time.monotonic() - start
    return command


def wait_for(condition, process=None):
    end = time.monotonic() + 60
    while not condition():
        assert (not process or process.is_alive()) and time.monotonic() < end
        time.sleep(0.002)


def test_the_same_seed_gives_the_same_bytes(command, undisturbed):
    """Another seed does not. A run that is resumed after its end repeats its predictions."""
    keep = (*RUN, '--keep_checkpoint')
    assert train.main(command.argv(*keep)) == 0
    assert_same_end(command, undisturbed)
    shutil.rmtree(command.folder / 'submission')
    assert train.main(command.argv(*keep, '--resume')) == 0
    assert_same_end(command, undisturbed)
    assert train.main(command.argv(*RUN, '--seed', 43)) == 0
    path = ('save', 'rocstories', 'best_params')
    assert command.read(*path) != undisturbed.read(*path)


@pytest.mark.parametrize('path', ['plain', 'cpu'])
def test_two_threads_add_in_one_order(command, other_command, monkeypatch, path):
    """The arrays are large enough for both threads; many terms belong to one row of them.

    Forty choices have the same parent, tokens and positions occur often.
    """
    monkeypatch.setenv('GPT1_PATH', path)
    words, draw = 'Ella had no tape at night and went to the store'.split(), random.Random(0)
    sizes, rows = {'context': 4, **{f'choice{i + 1}': 2 for i in range(40)}}, []
    for i in range(24):
        texts = {name: ' '.join(draw.choices(words, k=n)) for name, n in sizes.items()}
        rows.append(json.dumps({**texts, 'label': i % 2 + 1}))
    data = command.folder / 'train.jsonl'
    data.write_text('\n'.join(rows))
    options = f'--dataset custom --data_dir {data.parent} --desc rocstories --n_transfer -1'.split()
    options += '--n_embd 192 --n_layer 1 --n_ctx 512 --n_batch 3 --share_context'.split()
    try:
        for one in (command, other_command):
            torch.set_num_threads(2)
            assert train.main(one.argv(*options, '--n_valid', 3, '--n_iter', 1)) == 0
    finally:
        torch.set_num_threads(1)
    assert command.log()[1:] == other_command.log()[1:]
    path = ('save', 'rocstories', 'best_params')
    assert command.read(*path) == other_command.read(*path)


@pytest.mark.parametrize('seed', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_random_moments(command, undisturbed, seed):
    """SIGKILL, four times: while reading, training, evaluating, writing, predicting."""
    random.seed(seed)
    killed = 0
    while killed < 4:
        process = command.start(*RUN, '--resume')
        process.join(random.uniform(0.2, 1.0) * undisturbed.seconds)
        if process.is_alive():
            process.kill()
            killed += 1
        else:  # the next one starts from the beginning: a finished run would end too soon again
            shutil.rmtree(command.folder / 'save')
        process.join()
    command.run(*RUN, '--resume')
    assert_same_end(command, undisturbed)


def _killed_at(owner, method, call):
    """Kill the process when a method is called for the `call`-th time."""
    original, calls = getattr(owner, method), iter(range(1, 1000))

    def killing(self, *args):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args)

    setattr(owner, method, killing)


def test_killed_between_two_files(command, undisturbed):
    """The best parameters newer than the checkpoint; the last checkpoint without predictions."""
    for place in ((training.Trainer, '_save', 4), (train.FineTuning, 'load_best', 1)):
        kill = functools.partial(_killed_at, *place)
        command.run(*RUN, '--resume', patch=kill, status=-signal.SIGKILL)
        best = command.folder / 'save' / 'rocstories' / 'best_params'
        is_newer = best.stat().st_mtime_ns > checkpoint_of(command).stat().st_mtime_ns
        assert is_newer == ('_save' in place)
    assert not (command.folder / 'submission').exists()
    command.run(*RUN, '--resume')
    assert_same_end(command, undisturbed)


def test_resume_without_the_best_parameters(command, capsys):
    """The error comes at once, not when they are needed: gone, cut off, or of another model."""
    assert train.main(command.argv('--n_iter', 1, '--keep_checkpoint')) == 0
    best = command.folder / 'save' / 'rocstories' / 'best_params'
    state = load(command, 'best_params')
    state['transformer.embed.weight'] = state['transformer.embed.weight'][1:].clone()
    cut_off = best.read_bytes()[:-1000]
    damages = [best.unlink, lambda: best.write_bytes(cut_off), lambda: torch.save(state, best)]
    for damage in damages:
        damage()
        capsys.readouterr()
        assert train.main(command.argv('--n_iter', 1, '--resume')) == 2
        out, err = capsys.readouterr()
        assert str(best) in err and 'it held the best parameters so far' in err
        assert err.count('\n') == 1 and out == ''


def test_killed_inside_the_write_of_a_checkpoint(command, undisturbed):
    """Where Linux can act like Windows, it is resumed there."""
    process = command.start(*RUN)
    folder = command.folder / 'save' / 'rocstories'
    wait_for(lambda: (folder / 'checkpoint').exists() and any(folder.glob('.checkpoint*')), process)
    process.kill()
    process.join()
    load(command, 'checkpoint')  # whole
    patch = as_on_windows if sys.platform == 'linux' else None
    assert 'resumed after' in command.run(*RUN, '--resume', patch=patch)
    assert_same_end(command, undisturbed)
    assert not list(folder.glob('.*'))  # nothing half-written is left


def test_signal_then_resume(command, undisturbed):
    process = command.start(*RUN)
    wait_for(checkpoint_of(command).exists, process)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    assert '--resume' in command.output.splitlines()[-1]
    assert 'resumed after update' in command.run(*RUN, '--resume')
    assert_same_end(command, undisturbed)


def _hang():
    """The fifth update never ends, outside of Python: it locks a mutex twice."""
    update = training.Trainer.update

    def hanging(self, items):
        if self.n_updates == 4:
            print('hangs', flush=True)
            libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)
        return update(self, items)

    training.Trainer.update = hanging


def test_second_signal_ends_at_once(command):
    """Also in a hanging call. A signal within a second is the same one, passed on by torchrun."""
    process = command.start(*RUN, patch=_hang)
    wait_for(lambda: 'hangs' in command.output, process)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        wait_for(lambda: 'a second signal stops at once' in command.output, process)
    process.join(1.2)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(5)
    assert process.exitcode == 143
    load(command, 'checkpoint')
    assert command.output.count('a second signal stops at once') == 1


def signal_at_the_last_update(patch, where):
    """Send a signal to this process in a method of the trainer, after the last update."""
    method = getattr(training.Trainer, where)

    def with_signal(self, *args):
        if self.n_updates == self.n_updates_total:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        return method(self, *args)

    patch.setattr(training.Trainer, where, with_signal)


@pytest.mark.parametrize('where', ['_evaluate', '_save'])
def test_a_signal_after_the_last_update(command, undisturbed, monkeypatch, where):
    """In the last evaluation, or while the last checkpoint is written."""
    with monkeypatch.context() as patch:
        signal_at_the_last_update(patch, where)
        assert train.main(command.argv(*RUN)) == 143
    assert not (command.folder / 'submission').exists()
    assert train.main(command.argv(*RUN, '--resume')) == 0
    assert_same_end(command, undisturbed)


def test_resume_of_another_run_refuses(command, tmp_path, capsys):
    """With other hyperparameters, data or weights. Without a checkpoint, a run begins."""
    options = ('--n_iter', 1, '--resume', '--keep_checkpoint')
    assert train.main(command.argv(*options)) == 0
    assert 'there is no checkpoint to resume' in capsys.readouterr().out
    before = checkpoint_of(command).read_bytes()
    for name in ('data', 'model'):
        shutil.copytree(os.path.join(GOLDEN, name), tmp_path / name)
    path = next((tmp_path / 'data').glob('*val*'))
    path.write_text(path.read_text().replace('garden', 'house', 1))
    shard = np.load(tmp_path / 'model' / 'params_7.npy')
    shard[3] += 1
    np.save(tmp_path / 'model' / 'params_7.npy', shard)
    for name, value, what in [
        ('lr', '2e-3', 'lr'),
        ('n_batch', 16, 'n_batch * n_gpu'),
        ('data_dir', tmp_path / 'data', 'the examples or their encoding'),
        ('model_dir', tmp_path / 'model', 'the weights at the start'),
    ]:
        assert train.main(command.argv(*options, f'--{name}', value)) == 2
        out, err = capsys.readouterr()
        assert err.count('\n') == 1 and out == '' and f'{what} was ' in err
    assert checkpoint_of(command).read_bytes() == before


def test_two_runs_of_one_name(command, capsys):
    """The lock ends with its process."""
    process = command.start('--n_iter', 500)
    wait_for((command.folder / 'save' / 'rocstories' / 'running').exists, process)
    (command.folder / 'link').symlink_to(command.folder / 'save')
    for options in ([], ['--save_dir', command.folder / 'link']):
        assert train.main(command.argv('--n_iter', 1, *options)) == 75
        assert f'process {process.pid} on ' in capsys.readouterr().err
    process.kill()
    process.join()
    assert train.main(command.argv('--n_iter', 1)) == 0


@pytest.fixture(scope='module')
def short(tmp_path_factory):
    command = Command(tmp_path_factory.mktemp('short'))
    assert train.main(command.argv('--n_iter', 1)) == 0
    return command


FILES = ['log/{}.jsonl', 'save/{}/best_params', 'save/{}/checkpoint', 'submission/ROCStories.tsv']


@ON_LINUX
@pytest.mark.parametrize('name', FILES)
def test_a_full_disk_at_any_file(command, short, monkeypatch, capsys, name):
    """It shows when the file is synced; parameters are written in a thread, as with a GPU.

    There is one line and nothing half-written, and the run can be resumed.
    """
    path, fsync = command.folder / name.format('rocstories'), os.fsync

    def full(fd):
        if os.path.basename(os.readlink(f'/proc/self/fd/{fd}')).startswith(f'.{path.name}.'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    monkeypatch.setattr(training, 'Saver', lambda background: Saver(background=True))
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        assert train.main(command.argv('--n_iter', 1, '--analysis')) == 2
    assert capsys.readouterr().err == (
        f'train.py: error: cannot write {path}: No space left on device; an earlier file is '
        'unchanged; once there is room, the same command with --resume continues the run\n'
    )
    assert not path.exists() and not list(command.folder.rglob('.*'))
    assert train.main(command.argv('--n_iter', 1, '--analysis', '--resume')) == 0
    assert path.exists() == (path.name != 'checkpoint') and command.log()[1:] == short.log()[1:]
    best = ('save', 'rocstories', 'best_params')
    assert command.read(*best) == short.read(*best)


NO_DROPOUT = [f'--{name}_pdrop=0' for name in ('embd', 'attn', 'resid', 'clf')]


def patch_forward(monkeypatch, most, training=True):
    """Make the forward pass run out of memory with more than `most` examples a step.

    PyTorch on a GPU, PyTorch on a CPU and Python say it in their ways.
    """
    forward = model_pytorch.DoubleHeadModel.forward
    cpu = RuntimeError('could not create a primitive')
    errors = itertools.cycle([torch.OutOfMemoryError('made to fail'), cpu, MemoryError()])

    def failing(self, batch, lm=True):
        if self.training == training and len(batch.clf) > most:
            raise next(errors)
        return forward(self, batch, lm)

    monkeypatch.setattr(model_pytorch.DoubleHeadModel, 'forward', failing)


def test_out_of_memory_halves_the_steps(command, other_command, monkeypatch, capsys):
    """In the updates and in the evaluations; with one example, nothing smaller is possible."""
    assert train.main(other_command.argv('--n_iter', 1, *NO_DROPOUT)) == 0
    capsys.readouterr()
    patch_forward(monkeypatch, 2)
    patch_forward(monkeypatch, 9, training=False)
    assert train.main(command.argv('--n_iter', 1, *NO_DROPOUT)) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if 'out of memory' in line]
    assert lines == [
        f'out of memory: continuing with steps of {n} examples; the {same}'
        for n, same in [
            *((n, 'update stays the same') for n in (4, 2)),
            *((n, 'results are the same') for n in (32, 16, 8)),
        ]
    ]
    assert command.log()[1] == pytest.approx(other_command.log()[1], abs=1e-6)
    path = ('submission', 'ROCStories.tsv')
    assert command.read(*path) == other_command.read(*path)
    patch_forward(monkeypatch, 0)
    assert train.main(command.argv('--n_iter', 1)) == 2
    assert 'out of memory with 1 of the examples at a time' in capsys.readouterr().err


def test_not_finite_stops_and_keeps_the_checkpoint(command, short, monkeypatch, capsys):
    shutil.copytree(short.folder / 'save', command.folder / 'save')
    update = training.Trainer.update

    def broken_update(self, items):
        figures = update(self, items)
        if self.n_updates == 5:
            figures[3] = float('nan')
        return figures

    monkeypatch.setattr(training.Trainer, 'update', broken_update)
    assert train.main(command.argv('--n_iter', 1, '--save_every', 2)) == 2
    assert 'update 5: the loss is nan (examples ' in capsys.readouterr().err
    checkpoint = load(command, 'checkpoint')
    assert json.loads(checkpoint['run'])['n_updates'] == 4
    best = command.read('save', 'rocstories.1', 'best_params')  # of the earlier run
    assert best == short.read('save', 'rocstories', 'best_params')
