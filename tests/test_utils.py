"""Whole files, the log, and what a run does when its output cannot be written."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from utils import (
    InputError,
    ResultLogger,
    WriteError,
    check_writable,
    exit_status,
    is_out_of_memory,
    whole_file,
)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_whole_file_makes_folders_and_replaces(tmp_path):
    path = tmp_path / 'a' / 'b' / 'x'
    for text in ('one\n', 'two\r\n', 'ü'):
        with whole_file(str(path)) as f:
            f.write(text)
        assert path.read_bytes() == text.encode()
    os.chdir(path.parent)
    with whole_file('x', 'wb') as f:
        f.write(b'\x00\xff')
    assert path.read_bytes() == b'\x00\xff'
    assert os.listdir(path.parent) == ['x']


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    """torch.save reports a failed write as a RuntimeError. See test_resume.py for whole runs."""
    path = tmp_path / 'x'
    path.write_text('old')
    for error in (ValueError, RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), whole_file(str(path)) as f:
            raise error(f.write('new'))
    full = RuntimeError('unexpected pos')
    full.__context__ = OSError(errno.ENOSPC, 'No space left on device')
    with pytest.raises(WriteError) as caught, whole_file(str(path), 'wb'):
        raise full
    expected = f'cannot write {path}: No space left on device; an earlier file is unchanged'
    assert str(caught.value) == expected and caught.value.full
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['x']


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / 'folder' / 'y').mkdir(parents=True)
    file = tmp_path / 'file'
    file.write_text('old')
    for path in (tmp_path / 'folder', file / 'y'):
        with pytest.raises(WriteError, match=f'cannot write {path}: '), whole_file(str(path)) as f:
            f.write('new')
    for folder in (file, file / 'below'):
        expected = f'cannot write to {folder}: {file} is not a folder'
        with pytest.raises(InputError, match=expected):
            check_writable(str(folder))
    check_writable(str(tmp_path / 'not' / 'yet' / 'there'))
    assert sorted(os.listdir(tmp_path)) == ['file', 'folder'] and file.read_text() == 'old'


def test_the_log_of_a_resumed_run_goes_on(tmp_path):
    path = tmp_path / 'log' / 'x.jsonl'
    logger = ResultLogger(str(path), desc='ü\n', path='p', lines=3)
    ResultLogger(str(path), logger.lines, lr=0.2).add(n_epochs=2)
    [first] = map(json.loads, path.read_text().splitlines())
    assert abs(first.pop('time') - time.time()) < 60
    assert first == {'desc': 'ü\n', 'path': 'p', 'lines': 3}


def status_of(error, capsys, is_result=False):
    def run(args):
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'stdout', sys.stdout)  # `exit_status` replaces them
        patch.setattr(sys, 'stderr', sys.stderr)
        status = exit_status('x.py', run, (), is_result)
    return status, capsys.readouterr().err


def test_the_exit_status_of_an_error(capsys):
    """A broken pipe: the reader of a result has ended; or a process of a run, which is a bug."""
    error = InputError('no such\r\nfile:\n\n x\u2028y')
    assert status_of(error, capsys) == (2, 'x.py: error: no such file: x y\n')
    error.is_told = True  # by another process of the run
    assert status_of(error, capsys) == (2, '')
    no_folder = FileNotFoundError(2, 'No usable temporary directory found')
    assert 'set TMPDIR' in status_of(no_folder, capsys)[1]
    assert status_of(KeyboardInterrupt(), capsys) == (130, '')
    assert status_of(BrokenPipeError(), capsys, is_result=True) == (0, '')
    for error in (BrokenPipeError, ZeroDivisionError):
        with pytest.raises(error):
            status_of(error(), capsys)


NO_MEMORY = {  # of PyTorch, oneDNN, CUDA, cuBLAS and cuDNN
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes": True,
    'unable to mmap 8 bytes from file <x>: Cannot allocate memory (12)': True,
    'could not create a primitive': True,
    'could not create a memory object': True,
    'could not create a primitive descriptor for a matmul primitive': False,
    'CUDA error: out of memory': True,
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`': True,
    'cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED': True,
    'cuDNN error: CUDNN_STATUS_EXECUTION_FAILED': False,
}


def test_messages_that_mean_out_of_memory():
    assert {text: is_out_of_memory(RuntimeError(text)) for text in NO_MEMORY} == NO_MEMORY
    assert is_out_of_memory(OSError(errno.ENOMEM, '')) and not is_out_of_memory(ValueError('x'))


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


@pytest.mark.parametrize('is_result', [False, True])
def test_characters_that_the_encoding_lacks_are_replaced(is_result):
    """But a result is UTF-8 in every locale: a file of predictions can have any text."""
    replaced = (0, 'a line, \\xfc, \\u732b\n', 'a warning, \\xfc\n')
    assert in_shell('', is_result, n_lines=1, PYTHONIOENCODING='ascii') == replaced
    locale = {'PYTHONIOENCODING': '', 'PYTHONUTF8': '0', 'LC_ALL': 'C'}
    expected = (0, LINE, replaced[2]) if is_result else replaced
    assert in_shell('', is_result, n_lines=1, **locale) == expected


def test_the_status_after_an_interrupt_on_windows():
    last = 'assert sys.stdin.read() == ""; os.kill(os.getpid(), signal.SIGBREAK); signal.pause()'
    status, _, err = in_shell('> /dev/null <&-', last=last)  # a closed input is empty
    assert (status, err) == (130, WARNING)
