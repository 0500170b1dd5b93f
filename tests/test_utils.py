"""Whole files, the log, and what a run does when its output cannot be written."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import PROCESSES

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
    write_error,
)


def test_an_error_is_one_line():
    assert str(InputError('no such\r\nfile:\n\n x\u2028y')) == 'no such file: x y'


def test_a_table_has_a_line_for_each_row():
    table = format_table([('data', 'ten\nstories'), ('', 'and a warning')])
    assert table == 'data      ten stories\n          and a warning'


# ----------------------------------------------------------------------------------- whole files


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

    def write():
        with whole_file(str(path)) as f:
            f.write('new')
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['x']


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder(tmp_path):
    folder = tmp_path / 'x'
    (folder / 'y').mkdir(parents=True)
    (tmp_path / 'file').write_text('old')
    for path in (folder, tmp_path / 'file' / 'y'):
        with pytest.raises(WriteError, match=f'cannot write {path}: '), whole_file(str(path)) as f:
            f.write('new')
    assert sorted(os.listdir(tmp_path)) == ['file', 'x']
    assert (tmp_path / 'file').read_text() == 'old'


def write_400_kb(path, kind, pipe):
    """Write where no file may become larger than 50 kB, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    try:
        with whole_file(path, 'wb') as f:
            if kind == 'bytes':
                f.write(bytes(400_000))
            elif kind == 'torch':
                torch.save(torch.zeros(100_000), f)
            else:
                np.save(f, np.zeros(100_000, np.float32))
    except WriteError as error:
        pipe.send((str(error), error.full))


@pytest.mark.parametrize(
    'kind, reason',
    [
        ('bytes', 'File too large'),
        ('torch', 'File too large'),
        ('numpy', r'100000 requested and \d+ written'),
    ],
)
def test_a_full_disk_leaves_the_old_file_alone(tmp_path, kind, reason):
    path = tmp_path / 'x'
    path.write_text('old')
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=write_400_kb, args=(str(path), kind, theirs))
    process.start()
    message, is_full = ours.recv()
    process.join()
    expected = f'cannot write {path}: {reason}; an earlier file is unchanged'
    assert re.fullmatch(expected, message)
    assert is_full == (kind != 'numpy')  # NumPy does not say why a write failed
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['x']


def test_check_writable(tmp_path):
    """A folder need not exist, and none is made. Root may write everywhere."""
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


# --------------------------------------------------------------------------------------- the log


def test_the_log_has_the_arguments_and_then_each_evaluation(tmp_path):
    """Arguments may have any name. A resumed log continues."""
    path = tmp_path / 'log' / 'x.jsonl'
    logger = ResultLogger(str(path), desc='ü\n', path='p', lines=3, tensorboard=True)
    logger.log(n_epochs=1, va_acc=50.0)
    resumed = ResultLogger(str(path), logger.lines, lr=0.2)
    resumed.log(n_epochs=2)
    first, *others = [json.loads(line) for line in path.read_text().splitlines()]
    assert abs(first.pop('time') - time.time()) < 60
    assert first == {'desc': 'ü\n', 'path': 'p', 'lines': 3, 'tensorboard': True}
    assert [list(line) for line in others] == [['n_epochs', 'va_acc', 'time'], ['n_epochs', 'time']]
    assert others[0] == logger.lines[1]


# ----------------------------------------------------------------------------------- exit status


def status_of(error, capsys, is_result=False, args=()):
    """Return the exit status of a script that raises an error, and what it prints on stderr."""

    def run(args):
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'stdout', sys.stdout)  # `exit_status` replaces them
        patch.setattr(sys, 'stderr', sys.stderr)
        status = exit_status('x.py', run, args, is_result)
    return status, capsys.readouterr().err


def told_elsewhere(error):
    error.is_told = True
    return error


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
        (told_elsewhere(InputError('x')), 2, ''),
        (told_elsewhere(Stopped(signal.SIGINT)), 130, ''),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else '',
)
def test_exit_status_of_an_error(capsys, error, status, printed):
    found, err = status_of(error, capsys)
    assert found == status
    assert err.startswith(printed) and err.count('\n') == bool(printed)


@pytest.mark.parametrize(
    'text, expected',
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", True),
        ('unable to mmap 8 bytes from file <x>: Cannot allocate memory (12)', True),
        ('could not create a primitive', True),
        ('could not execute a primitive', True),
        ('could not create a memory object', True),
        ('CUDA error: out of memory', True),
        ('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`', True),
        ('cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED', True),
        ('cuDNN error: CUDNN_STATUS_EXECUTION_FAILED', False),
        ('could not create a primitive descriptor for a matmul primitive', False),
    ],
)
def test_messages_that_mean_out_of_memory(text, expected):
    """Of PyTorch, oneDNN, CUDA, cuBLAS and cuDNN."""
    assert is_out_of_memory(RuntimeError(text)) == expected
    assert is_out_of_memory(OSError(errno.ENOMEM, text)) and not is_out_of_memory(ValueError(text))


def test_a_full_disk_suggests_to_resume(capsys):
    error = write_error('y', OSError(28, 'No space left on device'))
    status, printed = status_of(error, capsys, args=('resume',))
    assert status == 2
    assert 'cannot write y: No space left on device' in printed
    assert printed.endswith('the same command with --resume continues the run\n')
    assert '--resume' not in status_of(error, capsys, args=('lr',))[1]


def test_a_broken_pipe_and_a_bug(capsys):
    """The reader of a result has ended; or a process of a run died, which is no reader."""
    assert status_of(BrokenPipeError(), capsys, is_result=True) == (0, '')
    for error in (BrokenPipeError, ZeroDivisionError):
        with pytest.raises(error):
            status_of(error(), capsys)


# ----------------------------------------------------- scripts whose output cannot be written

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


class Script:
    """Runs a script that prints in a shell, in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, redirection, is_result=False, n_lines=5, flush=False, last='pass', **environment):
        """Return the exit status and the two outputs."""
        code = SCRIPT.format(is_result=is_result, n_lines=n_lines, flush=flush, last=last)
        (self.folder / 'x.py').write_text(code)
        # The status is that of the script, also if it is the first command of a pipeline.
        command = ['bash', '-c', f'set -o pipefail; "{sys.executable}" x.py {redirection}']
        environment = {**os.environ, 'PYTHONIOENCODING': 'utf-8', **environment}
        options = dict(cwd=self.folder, env=environment, capture_output=True, timeout=60)
        done = subprocess.run(command, **options)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    @property
    def is_done(self):
        """Whether the script reached its end."""
        return (self.folder / 'done').exists()


@pytest.fixture
def script(tmp_path):
    return Script(tmp_path)


@pytest.mark.parametrize('redirection', ['>&-', '> /dev/full', '2>&-', '2> /dev/full', '| head -1'])
def test_a_run_continues_without_its_output(script, redirection):
    for flush in (False, True):
        status, _, err = script.run(redirection, n_lines=MANY, flush=flush)
        assert script.is_done
        assert (status, err) == (0, '' if '2>' in redirection else WARNING)


@pytest.mark.parametrize('redirection', ['>&-', '> /dev/full', '| head -1'])
def test_the_status_of_a_run_without_output_tells_the_truth(script, redirection):
    last = 'raise InputError("no such file")'
    status, _, err = script.run(redirection, n_lines=MANY, last=last, RANK='1', WORLD_SIZE='')
    assert (status, err) == (2, f'{WARNING}x.py: error: no such file\n')


def test_a_result_ends_quietly_when_its_reader_has_ended(script):
    for flush in (False, True):
        assert script.run('| head -1', True, n_lines=MANY, flush=flush) == (0, LINE, '')
        assert not script.is_done


@pytest.mark.parametrize('n_lines, flush', [(5, False), (5, True), (MANY, False)])
def test_a_result_that_cannot_be_written_is_an_error_of_one_line(script, n_lines, flush):
    status, _, err = script.run('> /dev/full', is_result=True, n_lines=n_lines, flush=flush)
    message = 'x.py: error: cannot write the output: No space left on device\n'
    assert (status, err.removeprefix(WARNING)) == (2, message)


@pytest.mark.parametrize('is_result', [False, True])
def test_characters_that_the_encoding_lacks_are_replaced(script, is_result):
    """But a result is UTF-8 in every locale: a file of predictions can have any text."""
    warning = 'a warning, \\xfc\n'
    expected = (0, 'a line, \\xfc, \\u732b\n', warning)
    assert script.run('', is_result, n_lines=1, PYTHONIOENCODING='ascii') == expected
    locale = {'PYTHONIOENCODING': '', 'PYTHONUTF8': '0', 'LC_ALL': 'C'}
    expected = (0, LINE, warning) if is_result else expected
    assert script.run('', is_result, n_lines=1, **locale) == expected


def test_a_closed_input_is_an_empty_one(script):
    expected = (0, 5 * LINE, WARNING)
    assert script.run('<&-', last='assert sys.stdin.read() == ""') == expected


@pytest.mark.parametrize('name', ['SIGINT', 'SIGBREAK'])
def test_the_status_after_an_interrupt(script, name):
    """130, as the shell has it for a process that SIGINT ended, and no traceback."""
    last = f'os.kill(os.getpid(), signal.{name}); signal.pause()'
    for is_result in (False, True):
        status, _, err = script.run('> /dev/null', is_result, last=last)
        assert (status, err) == (130, WARNING)
