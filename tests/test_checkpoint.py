"""One run at a time in a folder, signals, and checkpoints that appear whole."""

import errno
import os
import re
import signal
import threading
import time

import pytest
import torch
from conftest import ON_LINUX, PROCESSES
from filelock import FileLock

from gpt1.run.checkpoint import (
    Saver,
    StopSignals,
    check_identity,
    find_checkpoint,
    only_run,
    same_form,
)
from utils import InputError, WriteError

# -------------------------------------------------------------------------------- one run at a time


def hold(folder, pipe):
    with only_run(folder):
        pipe.send('holding')
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `run`, and a pipe: what it receives lets the folder go."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=hold, args=(str(tmp_path / 'run'), theirs))
    process.start()
    assert ours.recv() == 'holding'
    yield process, ours
    process.kill()
    process.join()


def assert_can_be_held(folder):
    with only_run(str(folder)):
        assert (folder / 'running').read_text().startswith(f'process {os.getpid()} on ')
    assert not (folder / 'running').exists()  # nothing looks alive


def refused(folder, expected):
    with pytest.raises(InputError, match=expected), only_run(str(folder)):
        pass


def test_a_second_run_is_refused_and_the_first_one_named(tmp_path, holder):
    """It removes nothing, and does not disturb runs in other folders."""
    process, _ = holder
    run = tmp_path / 'run'
    part = run / '.checkpoint.7.part'
    part.write_text('x')
    refused(run, f'another run is writing to {run}: process {process.pid} on .+; wait')
    assert f'process {process.pid} ' in (run / 'running').read_text()
    assert part.exists()
    assert_can_be_held(tmp_path / 'other')
    (run / 'running').unlink()
    refused(run, 'it has just begun')


@pytest.mark.parametrize('killed', [False, True])
def test_a_run_that_has_ended_releases_its_folder(tmp_path, holder, killed):
    process, pipe = holder
    process.kill() if killed else pipe.send('end')
    process.join()
    assert_can_be_held(tmp_path / 'run')
    with pytest.raises(ZeroDivisionError), only_run(str(tmp_path / 'run')):
        raise ZeroDivisionError
    assert_can_be_held(tmp_path / 'run')


def test_half_written_files_of_dead_processes_are_removed(tmp_path):
    """In the run's folder and in others that belong to it, and nothing of other programs."""
    dead = [f'.checkpoint.{number}.part' for number in (os.getpid(), 2**31 - 1, 10**30)]
    kept = [f'.a.{os.getppid()}.part', '.a.7.part.txt', 'a.7.part', 'params_0.npy.part', 'part']
    folders = [tmp_path / name for name in ('run', 'log', 'shared')]
    for folder in folders:
        folder.mkdir()
        for name in (*dead, *kept):
            (folder / name).write_text('x')
    run, log, shared = folders
    with only_run(str(run), str(log)):
        pass
    assert sorted(os.listdir(log)) == sorted(kept)
    assert set(os.listdir(run)) - {'lock'} == set(kept)
    assert len(os.listdir(shared)) == len(kept) + len(dead)


@ON_LINUX
def test_a_name_that_is_not_utf8(tmp_path):
    """As under another locale."""
    path = str(tmp_path / os.fsdecode(b'na\xefve'))
    Saver(background=False).save(path, {'a': torch.ones(2)})
    assert find_checkpoint(path, resume=True)['a'].tolist() == [1, 1]


@pytest.mark.parametrize('error', [OSError(errno.ENOLCK, 'No locks'), NotImplementedError()])
def test_a_file_system_without_locks_is_warned_about(tmp_path, monkeypatch, capsys, error):
    """Another machine cannot know that a process is dead: here the first one is even alive."""

    def acquire(*_, **__):
        raise error

    path = tmp_path / 'file'
    path.write_text('x')
    refused(path, f'cannot write to {path}')
    monkeypatch.setattr(FileLock, 'acquire', acquire)
    part = tmp_path / f'.x.{2**31 - 1}.part'
    part.write_text('x')
    with only_run(str(tmp_path)):
        assert not part.exists()
        expected = f'warning: the file system of {tmp_path} has no locks: .+\n'
        assert re.fullmatch(expected, capsys.readouterr().err)
        assert_can_be_held(tmp_path)


# ------------------------------------------------------------------------------------------ signals


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError('it did not happen')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted(number, capsys):
    """Afterwards a signal acts as before, and the thread that notes them has ended."""
    before, n_threads = signal.getsignal(number), threading.active_count()
    with StopSignals() as signals:
        assert signals.received == 0
        os.kill(os.getpid(), number)
        wait_until(lambda: signals.received)
        assert signals.received == number
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.startswith(f'\n{number.name}: finishing this update')
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    wait_until(lambda: threading.active_count() <= n_threads)


@pytest.mark.parametrize('handler', [signal.SIG_DFL, signal.SIG_IGN])
def test_a_lost_terminal_is_noted_unless_that_is_ignored(handler):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with StopSignals() as signals:
            for number in (signal.SIGHUP, signal.SIGINT):
                os.kill(os.getpid(), number)
            wait_until(lambda: signals.received)
            ignored = handler == signal.SIG_IGN
            assert signals.received == (signal.SIGINT if ignored else signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


# --------------------------------------------------------------------------------------- the saver


@pytest.fixture(params=[False, True], ids=['foreground', 'background'])
def saver(request):
    return Saver(request.param)


def load(path):
    return torch.load(path, weights_only=True)


def test_a_saved_file_can_be_loaded(tmp_path, saver):
    """A change after saving does not reach the file."""
    path = str(tmp_path / 'a' / 'checkpoint')
    saver.wait()  # for nothing
    for value in (1.0, 2.0):
        w = torch.full((100_000,), value)
        saver.save(path, {'model': {'w': w}, 'run': '{}'})
        w.fill_(7)
    saver.wait()
    saved = load(path)
    assert saved['run'] == '{}'
    assert (saved['model']['w'] == 2).all()
    assert os.listdir(tmp_path / 'a') == ['checkpoint']


def test_a_failing_disk_is_an_error_and_leaves_the_old_file(tmp_path, saver, monkeypatch):
    """In the background, the next call reports it. An error is reported once."""
    path = tmp_path / 'x'
    path.write_text('old')

    def no_room(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    def save(name):
        saver.save(str(tmp_path / name), {'w': torch.zeros(1000)})

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', no_room)
        in_background = saver.thread is not None
        if in_background:
            save('x')
        with pytest.raises(WriteError, match=f'cannot write {path}: No space left') as info:
            save('y' if in_background else 'x')
    assert info.value.full
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['x']
    saver.wait()
    save('x')
    saver.wait()
    assert len(load(path)['w']) == 1000


# ---------------------------------------------------------------------------- an earlier checkpoint


def test_an_option_that_an_earlier_version_did_not_have():
    check_identity({'lr': 1}, {'lr': 1, 'positive': None}, 'checkpoint')
    with pytest.raises(InputError, match='positive was None, now it is x'):
        check_identity({'lr': 1}, {'lr': 1, 'positive': 'x'}, 'checkpoint')


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    path = tmp_path / 'checkpoint'
    torch.save({'w': torch.ones(3)}, path)
    path.write_bytes(path.read_bytes()[:100])
    assert find_checkpoint(str(path), resume=False) is None
    with pytest.raises(InputError, match=str(path)):
        find_checkpoint(str(path), resume=True)


LIKE = {'t': 0, 'run': '', 'state': {0: {'w': torch.zeros(2, 3), 'step': torch.zeros(())}}}


def state(**change):
    values = {'w': torch.ones(2, 3), 'step': torch.ones(()), **change}
    return {'t': 5, 'run': 'x', 'state': {0: values}}


@pytest.mark.parametrize(
    'value',
    [
        state(w=torch.ones(3, 2)),
        state(w=torch.ones(2, 3, dtype=torch.float64)),
        state(w=torch.ones(3, 2).t()),
        state(w=torch.ones(2, 3).to_sparse()),
        state(w=torch.ones(2, 3, device='meta')),
        state(w=torch.nn.Parameter(torch.ones(2, 3))),
        state(w=[[1.0] * 3] * 2),
        state(more=torch.ones(())),
        {**state(), 't': 5.0},
        {**state(), 't': True},
        {**state(), 'state': {'0': state()['state'][0]}},
        {**state(), 'state': [state()['state'][0]]},
        {'t': 5, 'run': 'x'},
        None,
    ],
)
def test_a_state_of_another_form(value):
    assert same_form(state(), LIKE)
    assert not same_form(value, LIKE)
