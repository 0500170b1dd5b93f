"""Whole files, the log, and what a run does when its output cannot be written."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from utils import (
    InputError,
    ResultLogger,
    Stopped,
    WriteError,
    check_writable,
    exit_status,
    format_table,
    is_out_of_memory,
    whole_file,
)


def test_an_error_and_a_row_of_a_table_are_one_line():
    assert str(InputError('no such\r\nfile:\n\n x\u2028y')) == 'no such file: x y'
    table = format_table([('data', 'ten\nstories'), ('', 'and a warning')])
    assert table == 'data      ten stories\n          and a warning'


def test_a_whole_file_makes_folders_and_replaces(tmp_path, monkeypatch):
    path = tmp_path / 'a' / 'b' / 'x'
    for text in ('one\n', 'two\r\n', 'ü'):
        with whole_file(str(path)) as f:
            f.write(text)
        assert path.read_bytes() == text.encode()
    monkeypatch.chdir(path.parent)
    with whole_file('x', 'wb') as f:
        f.write(b'\x00\xff')
    assert path.read_bytes() == b'\x00\xff'
    assert os.listdir(path.parent) == ['x']


@pytest.mark.parametrize('error', [ValueError, RuntimeError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / 'x'
    path.write_text('old')
    with pytest.raises(error), whole_file(str(path)) as f:
        raise error(f.write('new'))
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['x']


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / 'folder' / 'y').mkdir(parents=True)
    (tmp_path / 'file').write_text('old')
    for path in (tmp_path / 'folder', tmp_path / 'file' / 'y'):
        with pytest.raises(WriteError, match=f'cannot write {path}: '), whole_file(str(path)) as f:
            f.write('new')
    assert sorted(os.listdir(tmp_path)) == ['file', 'folder']
    assert (tmp_path / 'file').read_text() == 'old'


def test_a_full_disk_inside_torch_is_one_too(tmp_path):
    """torch.save reports a failed write as a RuntimeError. See test_resume.py for whole runs."""
    path = tmp_path / 'x'
    cause, error = OSError(errno.ENOSPC, 'No space left on device'), RuntimeError('unexpected pos')
    error.__context__ = cause
    with pytest.raises(WriteError) as caught, whole_file(str(path), 'wb'):
        raise error
    expected = f'cannot write {path}: No space left on device; an earlier file is unchanged'
    assert str(caught.value) == expected and caught.value.full


def test_check_writable(tmp_path):
    check_writable(str(tmp_path / 'not' / 'yet' / 'there'))
    assert os.listdir(tmp_path) == []
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        expected = f'cannot write to {folder}: {tmp_path / "file"} is not a folder'
        with pytest.raises(InputError, match=expected):
            check_writable(str(folder))
    tmp_path.chmod(0o500)
    if os.geteuid():
        with pytest.raises(InputError, match='cannot write to'):
            check_writable(str(tmp_path / 'x'))


def test_the_log_has_the_arguments_and_then_each_evaluation(tmp_path):
    path = tmp_path / 'log' / 'x.jsonl'
    logger = ResultLogger(str(path), desc='ü\n', path='p', lines=3, tensorboard=True)
    logger.add(n_epochs=1, va_acc=50.0)
    logger.write()
    resumed = ResultLogger(str(path), logger.lines, lr=0.2)
    resumed.add(n_epochs=2)
    resumed.write()
    first, *others = map(json.loads, path.read_text().splitlines())
    assert abs(first.pop('time') - time.time()) < 60
    assert first == {'desc': 'ü\n', 'path': 'p', 'lines': 3, 'tensorboard': True}
    assert [list(line) for line in others] == [['n_epochs', 'va_acc', 'time'], ['n_epochs', 'time']]
    assert others[0] == logger.lines[1]


def status_of(error, capsys, is_result=False, args=()):
    def run(args):
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'stdout', sys.stdout)  # `exit_status` replaces them
        patch.setattr(sys, 'stderr', sys.stderr)
        status = exit_status('x.py', run, args, is_result)
    return status, capsys.readouterr().err


NO_TMPDIR = FileNotFoundError(2, "No usable temporary directory found in ['x']")


@pytest.mark.parametrize(
    'error, status, printed',
    [
        (InputError('no such file: y'), 2, 'x.py: error: no such file: y\n'),
        (KeyboardInterrupt(), 130, ''),
        (MemoryError('no room'), 2, 'x.py: error: out of memory: no room\n'),
        (torch.OutOfMemoryError('no room'), 2, 'x.py: error: out of memory: no room\n'),
        (NO_TMPDIR, 2, 'x.py: error: there is no folder for temporary files: set TMPDIR'),
        (Stopped(signal.SIGTERM), 143, 'stopped; the same command with --resume continues'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else '',
)
def test_exit_status_of_an_error(capsys, error, status, printed):
    found, err = status_of(error, capsys)
    assert found == status
    assert err.startswith(printed) and err.count('\n') == bool(printed)
    error.is_told = True  # by another process of the run
    if isinstance(error, (InputError, Stopped)):
        assert status_of(error, capsys) == (status, '')


NO_MEMORY = [  # of PyTorch, oneDNN, CUDA, cuBLAS and cuDNN
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
    'unable to mmap 8 bytes from file <x>: Cannot allocate memory (12)',
    'could not create a primitive',
    'could not create a memory object',
    'CUDA error: out of memory',
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
    'cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED',
]
OTHERS = [
    'cuDNN error: CUDNN_STATUS_EXECUTION_FAILED',
    'could not create a primitive descriptor for a matmul primitive',
]


def test_messages_that_mean_out_of_memory():
    for text in (*NO_MEMORY, *OTHERS):
        assert is_out_of_memory(RuntimeError(text)) == (text in NO_MEMORY), text
    assert is_out_of_memory(OSError(errno.ENOMEM, '')) and not is_out_of_memory(ValueError(text))


def test_a_full_disk_a_broken_pipe_and_a_bug(capsys):
    """A broken pipe: the reader of a result has ended; or a process of a run, which is a bug."""
    error = WriteError('cannot write y', full=True)
    for args in (('resume',), ('lr',)):
        status, printed = status_of(error, capsys, args=args)
        assert status == 2 and printed.startswith('x.py: error: cannot write y')
        assert ('the same command with --resume continues' in printed) == ('resume' in args)
    assert status_of(BrokenPipeError(), capsys, is_result=True) == (0, '')
    for error in (BrokenPipeError, ZeroDivisionError):
        with pytest.raises(error):
            status_of(error(), capsys)


SCRIPT = """
import os, signal, sys
from utils import InputError, exit_status

signal.SIGBREAK = signal.SIGUSR1  # of Windows
def run(args):
    for _ in range({n_lines}):
        print('a line, ü, 猫', flush={flush})
    print('a warning, ü', file=sys.stderr)
    open('done', 'w').close()
    {last}

sys.exit(exit_status('x.py', run, (), is_result={is_result}))
"""
LINE, WARNING = 'a line, ü, 猫\n', 'a warning, ü\n'
MANY = 100_000  # lines: more than a pipe holds


def in_shell(redirection, is_result=False, n_lines=5, flush=False, last='pass', **environment):
    code = SCRIPT.format(is_result=is_result, n_lines=n_lines, flush=flush, last=last)
    with open('x.py', 'w', encoding='utf-8') as f:
        f.write(code)
    # The status is that of the script, also if it is the first command of a pipeline.
    command = ['bash', '-c', f'set -o pipefail; "{sys.executable}" x.py {redirection}']
    environment = {**os.environ, 'PYTHONIOENCODING': 'utf-8', **environment}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    'redirection, flush',
    [('>&-', False), ('> /dev/full', True), ('2> /dev/full', True), ('| head -1', False)],
)
def test_a_run_continues_without_its_output_and_its_status_is_true(redirection, flush):
    last = 'raise InputError("no such file")'
    status, _, err = in_shell(redirection, n_lines=MANY, flush=flush, last=last)
    assert os.path.exists('done')
    message = f'{WARNING}x.py: error: no such file\n'
    assert (status, err) == (2, '' if '2>' in redirection else message)


@pytest.mark.parametrize('n_lines, flush', [(5, False), (5, True), (MANY, False)])
def test_a_result_ends_quietly_after_its_reader_and_with_an_error_on_a_full_disk(n_lines, flush):
    assert in_shell('| head -1', True, n_lines=MANY, flush=flush) == (0, LINE, '')
    assert not os.path.exists('done')
    status, _, err = in_shell('> /dev/full', is_result=True, n_lines=n_lines, flush=flush)
    message = 'x.py: error: cannot write the output: No space left on device\n'
    assert (status, err.removeprefix(WARNING)) == (2, message)


@pytest.mark.parametrize('is_result', [False, True])
def test_characters_that_the_encoding_lacks_are_replaced(is_result):
    """But a result is UTF-8 in every locale: a file of predictions can have any text."""
    warning = 'a warning, \\xfc\n'
    expected = (0, 'a line, \\xfc, \\u732b\n', warning)
    assert in_shell('', is_result, n_lines=1, PYTHONIOENCODING='ascii') == expected
    locale = {'PYTHONIOENCODING': '', 'PYTHONUTF8': '0', 'LC_ALL': 'C'}
    expected = (0, LINE, warning) if is_result else expected
    assert in_shell('', is_result, n_lines=1, **locale) == expected


@pytest.mark.parametrize('name, is_result', [('SIGINT', True), ('SIGBREAK', False)])
def test_the_status_after_an_interrupt(name, is_result):
    last = f'assert sys.stdin.read() == ""; os.kill(os.getpid(), signal.{name}); signal.pause()'
    status, _, err = in_shell('> /dev/null <&-', is_result, last=last)  # a closed input is empty
    assert (status, err) == (130, WARNING)
