"""One run at a time in a folder, signals, and checkpoints that appear whole."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
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


def test_a_second_run_is_refused_and_the_first_one_named(tmp_path, holder):
    process, _ = holder
    expected = f'another run is writing to {tmp_path / "run"}: process {process.pid} on .+; wait'
    with pytest.raises(InputError, match=expected), only_run(str(tmp_path / 'run')):
        pass
    assert f'process {process.pid} ' in (tmp_path / 'run' / 'running').read_text()


def test_a_run_that_has_ended_releases_its_folder(tmp_path, holder):
    process, pipe = holder
    pipe.send('end')
    process.join()
    assert_can_be_held(tmp_path / 'run')
    assert_can_be_held(tmp_path / 'run')


def test_a_run_that_was_killed_releases_its_folder(tmp_path, holder):
    process, _ = holder
    process.kill()
    process.join()
    assert_can_be_held(tmp_path / 'run')


def fail():
    raise ValueError


def test_a_run_that_failed_releases_its_folder(tmp_path):
    with pytest.raises(ValueError), only_run(str(tmp_path)):
        fail()
    assert_can_be_held(tmp_path)


def test_a_first_run_whose_name_is_not_there_yet(tmp_path, holder):
    (tmp_path / 'run' / 'running').unlink()
    with pytest.raises(InputError, match='it has just begun'), only_run(str(tmp_path / 'run')):
        pass


def test_runs_in_different_folders_do_not_disturb_each_other(tmp_path, holder):
    assert_can_be_held(tmp_path / 'other')


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
    assert set(os.listdir(run)) - {'lock', 'running'} == set(kept)
    assert len(os.listdir(shared)) == len(kept) + len(dead)


def test_a_second_run_removes_nothing(tmp_path, holder):
    part = tmp_path / 'run' / '.checkpoint.7.part'
    part.write_text('x')
    with pytest.raises(InputError), only_run(str(tmp_path / 'run')):
        pass
    assert part.exists()


@ON_LINUX
def test_a_name_that_is_not_utf8(tmp_path):
    """As under another locale."""
    path = str(tmp_path / os.fsdecode(b'na\xefve'))
    Saver(background=False).save(path, {'a': torch.ones(2)})
    assert find_checkpoint(path, resume=True)['a'].tolist() == [1, 1]


def fail_to_lock(monkeypatch, number):
    """Make the lock of the system fail with an error number, as file systems without locks do."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, 'flock', flock)


NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, 524]


@pytest.mark.parametrize('number', NO_LOCKS)
def test_a_file_system_without_locks_is_warned_about(tmp_path, monkeypatch, capsys, number):
    fail_to_lock(monkeypatch, number)
    part = tmp_path / f'.x.{2**31 - 1}.part'
    part.write_text('x')
    assert_can_be_held(tmp_path)
    assert not part.exists()
    expected = f'warning: the file system of {tmp_path} has no locks: .+\n'
    assert re.fullmatch(expected, capsys.readouterr().err)


@pytest.mark.parametrize('number', NO_LOCKS)
def test_a_file_system_without_locks_keeps_none_of_a_killed_run(tmp_path, monkeypatch, number):
    """Another machine cannot know that the process is dead. Here it is even alive."""
    fail_to_lock(monkeypatch, number)
    with only_run(str(tmp_path)):
        assert_can_be_held(tmp_path)


def test_a_system_without_a_function_for_locks_is_warned_about(tmp_path, monkeypatch, capsys):
    def acquire(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, 'acquire', acquire)
    assert_can_be_held(tmp_path)
    assert 'has no locks' in capsys.readouterr().err


def test_a_lock_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch):
    fail_to_lock(monkeypatch, errno.EIO)
    expected = f'cannot write to {tmp_path}: Input/output error'
    with pytest.raises(InputError, match=expected), only_run(str(tmp_path)):
        pass


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    path = tmp_path / 'run'
    path.write_text('x')
    with pytest.raises(InputError, match=f'cannot write to {path}'), only_run(str(path)):
        pass


# ------------------------------------------------------------------------------------------ signals


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError('it did not happen')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted(number, capsys):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received == 0
        os.kill(os.getpid(), number)
        wait_until(lambda: signals.received)
        assert signals.received == number
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.startswith(f'\n{number.name}: finishing this update')


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


def test_a_platform_without_terminals_to_lose(monkeypatch):
    monkeypatch.delattr(signal, 'SIGHUP')
    with StopSignals():
        pass


def test_the_same_signal_twice_at_almost_the_same_time_counts_once(monkeypatch):
    """Both the terminal and torchrun can send it."""
    monkeypatch.setattr('gpt1.run.checkpoint.GRACE', 600.0)  # seconds; this machine may be slow
    with StopSignals() as signals:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            wait_until(lambda: signals.received)
        time.sleep(0.05)
        assert signals.received == signal.SIGINT


def test_afterwards_a_signal_acts_as_before():
    with StopSignals():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_the_thread_that_notes_signals_ends():
    n_threads = threading.active_count()
    for _ in range(3):
        with StopSignals():
            pass
    wait_until(lambda: threading.active_count() <= n_threads)


BUSY = """
import hashlib
from gpt1.run import checkpoint

checkpoint.GRACE = 0.2
with checkpoint.StopSignals():
    print('busy', flush=True)
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)  # one step of Python, like a backward pass
"""


@pytest.fixture
def busy_process():
    with subprocess.Popen(
        [sys.executable, '-c', BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == 'busy\n'
        yield process
        process.kill()


def test_a_second_signal_ends_a_process_that_is_busy(busy_process):
    busy_process.send_signal(signal.SIGINT)
    assert busy_process.stderr.readline() == '\n'
    assert busy_process.stderr.readline().startswith('SIGINT: finishing this update')
    time.sleep(0.3)
    busy_process.send_signal(signal.SIGTERM)
    assert busy_process.wait(20) == 128 + signal.SIGTERM


# --------------------------------------------------------------------------------------- the saver


@pytest.fixture(params=[False, True], ids=['foreground', 'background'])
def saver(request):
    return Saver(request.param)


def load(path):
    return torch.load(path, weights_only=True)


def test_a_saved_file_can_be_loaded(tmp_path, saver):
    path = str(tmp_path / 'a' / 'checkpoint')
    for value in (1.0, 2.0):
        saver.save(path, {'model': {'w': torch.full((3,), value)}, 'run': '{}'})
    saver.wait()
    saved = load(path)
    assert saved['run'] == '{}'
    assert saved['model']['w'].tolist() == [2, 2, 2]
    assert os.listdir(tmp_path / 'a') == ['checkpoint']


def test_a_change_after_saving_does_not_reach_the_file(tmp_path, saver):
    w = torch.zeros(100_000)
    saver.save(str(tmp_path / 'x'), {'w': w})
    w.fill_(1)
    saver.wait()
    assert (load(tmp_path / 'x')['w'] == 0).all()


def test_waiting_without_a_file_does_nothing(saver):
    saver.wait()
    saver.wait()


def save_until_it_fails(saver, path):
    for _ in range(2):
        saver.save(path, {'w': torch.zeros(1000)})
    saver.wait()


def test_a_failing_disk_is_an_error_and_leaves_the_old_file(tmp_path, saver, monkeypatch):
    """In the background, the next call reports it."""
    path = tmp_path / 'x'
    path.write_text('old')

    def no_room(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', no_room)
    with pytest.raises(WriteError, match=f'cannot write {path}: No space left on device') as info:
        save_until_it_fails(saver, str(path))
    assert info.value.full
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['x']
    monkeypatch.undo()
    saver.wait()  # an error is reported once
    save_until_it_fails(saver, str(path))
    assert len(load(path)['w']) == 1000


def test_in_the_background_a_failure_appears_at_the_next_call(tmp_path):
    (tmp_path / 'file').touch()
    saver = Saver(background=True)
    saver.save(str(tmp_path / 'file' / 'x'), {})
    with pytest.raises(WriteError):
        saver.save(str(tmp_path / 'y'), {})
    assert not (tmp_path / 'y').exists()


# ---------------------------------------------------------------------------- an earlier checkpoint


@pytest.fixture
def checkpoint_path(tmp_path):
    path = tmp_path / 'checkpoint'
    torch.save({'w': torch.ones(3)}, path)
    return path


def test_a_checkpoint_is_read_to_resume(checkpoint_path):
    assert find_checkpoint(str(checkpoint_path), resume=True)['w'].tolist() == [1, 1, 1]
    assert checkpoint_path.exists()


@pytest.mark.parametrize('resume', [False, True])
def test_without_a_checkpoint_a_run_starts_at_the_beginning(tmp_path, capsys, resume):
    assert find_checkpoint(str(tmp_path / 'checkpoint'), resume) is None
    assert ('no checkpoint to resume' in capsys.readouterr().out) == resume


def test_an_option_that_an_earlier_version_did_not_have():
    check_identity({'lr': 1}, {'lr': 1, 'positive': None}, 'checkpoint')
    with pytest.raises(InputError, match='positive was None, now it is x'):
        check_identity({'lr': 1}, {'lr': 1, 'positive': 'x'}, 'checkpoint')


def test_a_damaged_checkpoint_is_an_error(checkpoint_path):
    checkpoint_path.write_bytes(checkpoint_path.read_bytes()[:100])
    with pytest.raises(InputError, match=str(checkpoint_path)):
        find_checkpoint(str(checkpoint_path), resume=True)


# ------------------------------------------------------------------------------------ the same form

LIKE = {'t': 0, 'run': '', 'state': {0: {'w': torch.zeros(2, 3), 'step': torch.zeros(())}}}


def state(**change):
    values = {'w': torch.ones(2, 3), 'step': torch.ones(()), **change}
    return {'t': 5, 'run': 'x', 'state': {0: values}}


def test_another_state_of_the_same_form():
    assert same_form(LIKE, LIKE)
    assert same_form(state(), LIKE)


@pytest.mark.parametrize(
    'w',
    [
        torch.ones(3, 2),
        torch.ones(6),
        torch.ones(2, 3, dtype=torch.float64),
        torch.ones(3, 2).t(),
        torch.ones(1, 3).expand(2, 3),
        torch.ones(2, 3).to_sparse(),
        torch.ones(2, 3, device='meta'),
        torch.nn.Parameter(torch.ones(2, 3)),
        [[1.0] * 3] * 2,
        None,
    ],
    ids=[
        'shape',
        'dimensions',
        'type',
        'transposed',
        'expanded',
        'sparse',
        'meta',
        'parameter',
        'list',
        'None',
    ],
)
def test_a_tensor_of_another_form(w):
    assert not same_form(state(w=w), LIKE)


@pytest.mark.parametrize(
    'value',
    [
        state(more=torch.ones(())),
        {**state(), 't': 5.0},
        {**state(), 't': True},
        {**state(), 'run': None},
        {**state(), 'state': {}},
        {**state(), 'state': {'0': state()['state'][0]}},
        {**state(), 'state': [state()['state'][0]]},
        {'t': 5, 'run': 'x'},
        [],
        None,
    ],
    ids=[
        'a key more',
        'a float',
        'a bool',
        'None',
        'an empty dict',
        'a string as key',
        'a list',
        'a key less',
        'an empty list',
        'nothing',
    ],
)
def test_a_value_of_another_form(value):
    assert not same_form(value, LIKE)
