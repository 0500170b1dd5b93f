"""The worker processes."""

import multiprocessing
import os
import signal
import subprocess
import time

import pytest

from gpt1.text.workers import Workers, available_cores
from utils import InputError


def double(item):
    if item == 'error':
        raise InputError('made to fail')
    if item == 'killed':
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item, os.getpid()


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
    assert len({process for _, process in results}) == n


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
    with (
        pytest.raises(InputError, match='worker process ended with status -9'),
        Workers(2) as workers,
    ):
        list(workers.map(double, [1, 'killed', *range(20)]))
    assert not any(process.is_alive() for process in workers.processes)


def test_workers_end_when_the_block_is_left():
    start = time.monotonic()
    with Workers(2) as workers:
        next(workers.map(time.sleep, [0, 100, 100, 100]))
    assert not any(process.is_alive() for process in workers.processes)
    assert time.monotonic() - start < 30


def start_workers_and_wait(connection):
    workers = Workers(2)
    connection.send([process.pid for process in workers.processes])
    list(workers.map(time.sleep, [100, 100]))


def test_workers_end_with_a_killed_parent():
    ours, theirs = multiprocessing.Pipe()
    parent = multiprocessing.Process(target=start_workers_and_wait, args=(theirs,))
    parent.start()
    pids = ours.recv()
    parent.kill()
    parent.join()
    end = time.monotonic() + 30
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid):
    status = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True)
    return status.stdout.strip() not in ('', 'Z', 'Zs', 'Zl', 'Zsl')


def test_shared_memory_is_not_needed(monkeypatch):
    """In containers, /dev/shm may be missing, full or read-only."""

    def fail(*_):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('multiprocessing.synchronize._multiprocessing.SemLock', fail)
    with pytest.raises(PermissionError):
        multiprocessing.Lock()
    with Workers(2) as workers:
        assert len({process for _, process in workers.map(double, range(50))}) == 2


@pytest.mark.parametrize('n_started', [0, 1])
def test_without_processes_this_one_does_the_work(monkeypatch, capsys, n_started):
    start = multiprocessing.Process.start
    calls = []

    def start_few(process):
        calls.append(process)
        if len(calls) > n_started:
            raise BlockingIOError(11, 'Resource temporarily unavailable')
        start(process)

    monkeypatch.setattr(multiprocessing.Process, 'start', start_few)
    with Workers(4) as workers:
        results = list(workers.map(double, range(30)))
    assert [value for value, _ in results] == [2 * i for i in range(30)]
    assert ({os.getpid()} == {process for _, process in results}) == (n_started == 0)
    line = 'note      cannot start a process on each core (Resource temporarily unavailable): '
    assert capsys.readouterr().out == line + 'the work is done in 1\n'


def join(shared, item):
    return shared + item, os.getpid()


@pytest.mark.parametrize('n', [1, 2])
def test_what_all_calls_need_is_shared(n):
    with Workers(n, 'a') as workers:
        results = list(workers.map(join, 'bcdefgh'))
    assert [text for text, _ in results] == ['ab', 'ac', 'ad', 'ae', 'af', 'ag', 'ah']
    assert len({process for _, process in results}) == n


@pytest.mark.parametrize(
    'quota, n', [('250000 100000', 3), ('100000 100000', 1), ('max 100000', 8), ('', 8)]
)
def test_the_cores_of_a_container(tmp_path, monkeypatch, quota, n):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(8), raising=False)
    path = tmp_path / 'cpu.max'
    path.write_text(quota + '\n')
    assert available_cores(str(path)) == n
    assert available_cores(str(tmp_path / 'none')) == 8
