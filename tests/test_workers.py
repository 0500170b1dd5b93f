"""The worker processes."""

import multiprocessing
import os
import signal
import subprocess
import time
from contextlib import closing

import pytest
from tiny_models import encoder

from gpt1.text import workers
from gpt1.text.workers import map_in_order
from utils import InputError


def double(_, item):
    if item == 'error':
        raise InputError('made to fail')
    if item == 'killed':
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item, os.getpid()


def wait(_, seconds):
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


@pytest.mark.parametrize('n', [1, 3])
def test_results_keep_the_order_and_few_items_are_taken_ahead(n):
    n_taken = 0

    def items():
        nonlocal n_taken
        for i in range(200):
            n_taken += 1
            yield bytes([i]) * (100_000 if i < 40 else 1)  # more than a pipe holds

    results = []
    for result in map_in_order(double, items(), n=n):
        results.append(result)
        assert n_taken <= len(results) + workers.AHEAD * n
    assert [value[0] for value, _ in results] == list(range(200))
    pids = {process for _, process in results}
    assert len(pids) <= n and (os.getpid() in pids) == (n == 1)
    if n > 1:
        assert_ended(pids)


def test_an_exception_in_a_worker_is_raised_and_a_killed_worker_is_an_error():
    for last, message in (
        ('error', 'made to fail'),
        ('killed', 'a worker process was killed: .* memory for 2'),
    ):
        results = map_in_order(double, [*range(20), last, *range(20)], n=2)
        pids = {next(results)[1]}
        with pytest.raises(InputError, match=message):
            list(results)
        assert_ended(pids)


@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(signum):
    def start_workers_and_wait(connection):
        # Where the signal comes outside of the generator, nothing else would close it: this
        # process, which is no main one, would wait for its workers, and they for work.
        with closing(map_in_order(wait, [0.2, 0.2, 100, 100], n=2)) as waiting:
            connection.send([next(waiting), next(waiting)])
            next(waiting)

    ours, theirs = multiprocessing.Pipe()
    parent = multiprocessing.Process(target=start_workers_and_wait, args=(theirs,))
    parent.start()
    pids = ours.recv()
    os.kill(parent.pid, signum)
    parent.join()
    assert_ended(pids)


def test_where_processes_cannot_be_started_this_one_does_the_work(monkeypatch, capfd):
    start = multiprocessing.process.BaseProcess.start
    started = []

    def start_one(process):
        if started:
            raise PermissionError(13, 'Permission denied')
        start(process)
        started.append(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, 'start', start_one)
    use_start_method(monkeypatch, 'fork')
    assert {process for _, process in map_in_order(double, range(9), n=4)} == {os.getpid()}
    assert capfd.readouterr().err == 'warning: one process does the work: Permission denied\n'
    assert not started[0].is_alive()


def encode(encoder, text):
    return encoder.encode(text)


@pytest.mark.parametrize('n, method', [(1, 'fork'), (2, 'fork'), (2, 'spawn')])
def test_what_all_calls_need_is_shared(n, method, monkeypatch):
    use_start_method(monkeypatch, method)
    texts = ['Ella had no tape.', 'a\nb', '', 'the night'] * 3
    assert list(map_in_order(encode, texts, encoder(), n)) == encoder().encode_all(texts)
