"""One run at a time in a folder, signals, and checkpoints that appear whole."""

import errno
import os
import re
import signal
import sys
import threading

import pytest
import torch
from conftest import PROCESSES
from filelock import FileLock
from test_resume import wait_for

from gpt1.run.checkpoint import (
    Saver,
    StopSignals,
    check_identity,
    find_checkpoint,
    only_run,
    same_form,
)
from utils import InputError, WriteError


def hold(folder, pipe):
    with only_run(folder):
        pipe.send('holding')
        pipe.recv()


def assert_can_be_held(folder):
    with only_run(str(folder)):
        assert (folder / 'running').read_text().startswith(f'process {os.getpid()} on ')
    assert not (folder / 'running').exists()  # nothing looks alive


def refused(folder, expected):
    with pytest.raises(InputError, match=expected), only_run(str(folder)):
        pass


@pytest.mark.parametrize('killed', [False, True])
def test_a_second_run_is_refused_until_the_first_one_has_ended(tmp_path, killed):
    """It removes nothing, and does not disturb runs in other folders."""
    run = tmp_path / 'run'
    pipe, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=hold, args=(str(run), theirs))
    process.start()
    assert pipe.recv() == 'holding'
    part = run / '.checkpoint.7.part'
    part.write_text('x')
    refused(run, f'another run is writing to {run}: process {process.pid} on .+; wait')
    assert part.exists()
    assert_can_be_held(tmp_path / 'other')
    (run / 'running').unlink()
    refused(run, 'it has just begun')
    process.kill() if killed else pipe.send('end')
    process.join()
    with pytest.raises(ZeroDivisionError), only_run(str(run)):
        raise ZeroDivisionError
    assert_can_be_held(run)


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


@pytest.mark.parametrize('handler', [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_is_noted(handler, capsys):
    """Also that the terminal is lost, unless that is ignored. Afterwards a signal acts as before,

    and the thread that notes them has ended.
    """
    n_threads, before = threading.active_count(), signal.signal(signal.SIGHUP, handler)
    try:
        with StopSignals() as signals:
            assert signals.received == 0
            for number in (signal.SIGHUP, signal.SIGINT):
                os.kill(os.getpid(), number)
            wait_for(lambda: signals.received)
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)
    expected = signal.SIGINT if handler == signal.SIG_IGN else signal.SIGHUP
    assert signals.received == expected
    assert capsys.readouterr().err.startswith(f'\n{expected.name}: finishing this update')
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    wait_for(lambda: threading.active_count() <= n_threads)


@pytest.mark.parametrize('in_background', [False, True])
def test_a_saved_file_is_whole_or_the_old_one(tmp_path, monkeypatch, in_background):
    """A change after saving does not reach it. In the background, the next call reports, once,

    that the disk is full. The name is as under another locale.
    """
    saver = Saver(in_background)
    path = tmp_path / os.fsdecode(b'na\xefve' if sys.platform == 'linux' else b'naive')

    def save(value):
        w = torch.full((100_000,), value)
        saver.save(str(path), {'model': {'w': w}, 'run': '{}'})
        w.fill_(7.0)

    def no_room(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    save(1.0)
    saver.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', no_room)
        if in_background:
            save(2.0)
        with pytest.raises(WriteError, match='cannot write .*: No space left') as info:
            saver.wait() if in_background else save(2.0)
    assert info.value.full
    saved = find_checkpoint(str(path), resume=True)
    assert saved['run'] == '{}' and (saved['model']['w'] == 1).all()
    save(3.0)
    saver.wait()
    assert (find_checkpoint(str(path), resume=True)['model']['w'] == 3).all()
    assert os.listdir(tmp_path) == [path.name]


def test_an_option_that_an_earlier_version_did_not_have():
    check_identity({'lr': 1}, {'lr': 1, 'positive': None}, 'checkpoint')
    with pytest.raises(InputError, match='positive was None, now it is x'):
        check_identity({'lr': 1}, {'lr': 1, 'positive': 'x'}, 'checkpoint')


LIKE = {'t': 0, 'run': '', 'state': {0: {'w': torch.zeros(2, 3), 'step': torch.zeros(())}}}


def state(**change):
    values = {'w': torch.ones(2, 3), 'step': torch.ones(()), **change}
    return {'t': 5, 'run': 'x', 'state': {0: values}}


def test_a_state_of_another_form():
    assert same_form(state(), LIKE)
    w = torch.ones(2, 3)
    parts = [torch.ones(3, 2), w.double(), torch.ones(3, 2).t(), w.to_sparse(), w.to('meta')]
    others = [state(w=part) for part in (*parts, torch.nn.Parameter(w), w.tolist())]
    others += [state(more=w), {**state(), 't': 5.0}, {**state(), 't': True}, {'t': 5, 'run': 'x'}]
    others += [{**state(), 'state': part} for part in ({'0': LIKE['state'][0]}, [])]
    for value in (*others, None):
        assert not same_form(value, LIKE), value
