"""The worker processes."""

import multiprocessing
import os
import signal
import subprocess
import time

import pytest

from gpt1.text.workers import Workers
from utils import InputError


def double(item):
    if item == 'error':
        raise InputError('made to fail')
    if item == 'killed':
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item, os.getpid()


def wait(seconds):
    time.sleep(seconds)
    return os.getpid()


def is_running(pid):
    status = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True)
    return status.stdout.strip()[:1] not in ('', 'Z')


def assert_ended(pids):
    end = time.monotonic() + 30
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def use_start_method(monkeypatch, method):
    context = multiprocessing.get_context(method)
    monkeypatch.setattr(multiprocessing.context._default_context, '_actual_context', context)


@pytest.mark.parametrize('n', [1, 2, 3])
def test_workers_keep_the_order_and_take_few_items_ahead(n):
    n_taken = 0

    def items():
        nonlocal n_taken
        for i in range(200):
            n_taken += 1
            yield i

    with Workers(n) as workers:
        results = []
        for result in workers.map(double, items()):
            results.append(result)
            assert n_taken <= len(results) + Workers.AHEAD * n
    assert [value for value, _ in results] == [2 * i for i in range(200)]
    pids = {process for _, process in results}
    assert len(pids) <= n and (os.getpid() in pids) == (n == 1)


def test_large_items_and_results_do_not_block_each_other():
    items = [bytes([i]) * (4 << 20) for i in range(10)]
    with Workers(2) as workers:
        assert [value for value, _ in workers.map(double, items)] == [2 * item for item in items]


@pytest.mark.parametrize('n', [1, 2])
def test_an_exception_in_a_worker_is_raised(n):
    with Workers(n) as workers:
        with pytest.raises(InputError, match='made to fail'):
            list(workers.map(double, [1, 'error', 2]))
        assert [value for value, _ in workers.map(double, [3])] == [6]
        with pytest.raises(TypeError):
            list(workers.map(double, [1, None]))


def test_a_killed_worker_is_an_error():
    with Workers(2) as workers:
        pids = {process for _, process in workers.map(double, range(20))}
        with pytest.raises(InputError, match='a worker process was killed: .* memory for 2'):
            list(workers.map(double, [1, 'killed', *range(20)]))
    assert_ended(pids)


def test_workers_end_when_the_block_is_left():
    with Workers(2) as workers:
        pid = next(workers.map(wait, [0, 100, 100, 100]))
    assert_ended([pid])


def start_workers_and_wait(connection):
    with Workers(2) as workers:
        waiting = workers.map(wait, [1, 1, 100, 100])
        connection.send([next(waiting), next(waiting)])
        next(waiting)


@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(signum):
    ours, theirs = multiprocessing.Pipe()
    parent = multiprocessing.Process(target=start_workers_and_wait, args=(theirs,))
    parent.start()
    pids = ours.recv()
    os.kill(parent.pid, signum)
    parent.join()
    assert_ended(pids)


@pytest.mark.parametrize('n_started', [None, 0, 1])
def test_where_processes_cannot_be_started_this_one_does_the_work(monkeypatch, capfd, n_started):
    """A user may have too many processes. In containers, there may be no /dev/shm."""
    start = multiprocessing.process.BaseProcess.start
    started = []

    def fail(*_):
        raise PermissionError(13, 'Permission denied')

    def start_few(process):
        if len(started) == n_started:
            fail()
        start(process)
        started.append(process)

    if n_started is None:
        monkeypatch.setattr('multiprocessing.synchronize._multiprocessing.SemLock', fail)
    else:
        monkeypatch.setattr(multiprocessing.process.BaseProcess, 'start', start_few)
        use_start_method(monkeypatch, 'fork')
    with Workers(4) as workers:
        assert {process for _, process in workers.map(double, range(9))} == {os.getpid()}
    assert capfd.readouterr().err == 'warning: one process does the work: Permission denied\n'
    assert not any(process.is_alive() for process in started)


def join(shared, item):
    return shared + item


@pytest.mark.parametrize('n', [1, 2])
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_what_all_calls_need_is_shared(n, method, monkeypatch):
    use_start_method(monkeypatch, method)
    with Workers(n, 'a') as workers:
        assert list(workers.map(join, 'bcdefgh')) == ['ab', 'ac', 'ad', 'ae', 'af', 'ag', 'ah']
