"""Whole files, the log, tables, and what a run does when its output cannot be written."""

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
    open_log,
    whole_file,
    write_error,
)

# -------------------------------------------------------------------------------------- messages


def test_an_error_is_one_line():
    assert str(InputError('no such\r\nfile:\n\n x\u2028y')) == 'no such file: x y'


@pytest.mark.parametrize('is_terminal, width', [(True, 40), (False, 1000)])
def test_a_table_fits_a_terminal(monkeypatch, is_terminal, width):
    monkeypatch.setenv('COLUMNS', '40')
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: is_terminal)
    text = 'ten thousand stories, ' * 6
    lines = format_table([('data', text), ('', 'and a note')]).split('\n')
    assert max(map(len, lines)) <= width
    assert (len(lines) > 2) == is_terminal
    assert lines[0].startswith('data      ten thousand')
    assert lines[-1] == ' ' * 10 + 'and a note'
    assert ' '.join(' '.join(lines[:-1]).split()) == f'data {text.strip()}'


# ----------------------------------------------------------------------------------- whole files


def test_a_whole_file_makes_folders_and_replaces(tmp_path):
    path = tmp_path / 'a' / 'b' / 'x'
    for text in ('one\n', 'two\r\n'):
        with whole_file(str(path)) as f:
            f.write(text)
        assert path.read_bytes() == text.encode()
    with whole_file(str(path), 'wb') as f:
        f.write(b'\x00\xff')
    assert path.read_bytes() == b'\x00\xff'
    assert os.listdir(path.parent) == ['x']


def test_a_whole_file_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with whole_file('x') as f:
        f.write('ü')
    assert os.listdir(tmp_path) == ['x']
    assert (tmp_path / 'x').read_bytes() == 'ü'.encode()


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


def test_a_folder_where_the_file_should_be(tmp_path):
    path = tmp_path / 'x'
    (path / 'y').mkdir(parents=True)
    with pytest.raises(WriteError, match=f'cannot write {path}: '), whole_file(str(path)) as f:
        f.write('new')
    assert os.listdir(tmp_path) == ['x']


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / 'x').write_text('old')
    path = str(tmp_path / 'x' / 'y')
    with pytest.raises(WriteError, match=f'cannot write {path}: '), whole_file(path):
        pass
    assert (tmp_path / 'x').read_text() == 'old'


def write_400_kb(path, kind, file_size, pipe):
    """Write where no file may become larger than `file_size`, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    try:
        with whole_file(path, 'wb') as f:
            if kind == 'bytes':
                f.write(bytes(400_000))
            elif kind == 'torch':
                torch.save(torch.zeros(100_000), f)
            else:
                np.save(f, np.zeros(100_000, np.float32))
            f.flush()
            pipe.send('written')
            time.sleep(60)
    except WriteError as error:
        pipe.send((str(error), error.full))


def start_writing(path, kind, file_size):
    path.write_text('old')
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=write_400_kb, args=(str(path), kind, file_size, theirs))
    process.start()
    return process, ours.recv()


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
    process, (message, is_full) = start_writing(path, kind, 50_000)
    process.join()
    expected = f'cannot write {path}: {reason}; an earlier file is unchanged'
    assert re.fullmatch(expected, message)
    assert is_full == (kind != 'numpy')  # NumPy does not say why a write failed
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['x']


def test_a_process_that_is_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x'
    process, answer = start_writing(path, 'torch', 1_000_000)
    assert answer == 'written'
    process.kill()
    process.join()
    assert path.read_text() == 'old'
    others = [name for name in os.listdir(tmp_path) if name != 'x']
    assert all(name.endswith('.part') for name in others)  # `checkpoint.only_run` removes it


def test_check_writable_creates_nothing(tmp_path):
    check_writable(str(tmp_path / 'not' / 'yet' / 'there'))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('below', [(), ('below',)])
def test_check_writable_refuses_a_file(tmp_path, below):
    (tmp_path / 'file').touch()
    folder = tmp_path.joinpath('file', *below)
    with pytest.raises(InputError, match=f'cannot write to {folder}: {tmp_path / "file"} is not'):
        check_writable(str(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_check_writable_refuses_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match='cannot write to'):
        check_writable(str(tmp_path / 'x'))


# --------------------------------------------------------------------------------------- the log


def read_json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_has_the_arguments_and_then_each_evaluation(tmp_path):
    path = tmp_path / 'log' / 'x.jsonl'
    logger = ResultLogger(str(path), lr=0.1, desc='ü\n')
    logger.log(n_epochs=1, va_acc=50.0)
    first, second = read_json_lines(path)
    assert list(first) == ['lr', 'desc', 'time']
    assert first['desc'] == 'ü\n'
    assert list(second) == ['n_epochs', 'va_acc', 'time']
    assert abs(second['time'] - time.time()) < 60


def test_the_log_can_have_arguments_of_any_name(tmp_path):
    path = tmp_path / 'x.jsonl'
    open_log(str(path), [], False, path='p', lines=3, tensorboard=False)
    (line,) = read_json_lines(path)
    assert (line['path'], line['lines'], line['tensorboard']) == ('p', 3, False)


def test_a_resumed_log_continues(tmp_path):
    path = tmp_path / 'x.jsonl'
    logger = ResultLogger(str(path), lr=0.1)
    logger.log(n_epochs=1)
    resumed = ResultLogger(str(path), logger.lines, lr=0.2)
    resumed.log(n_epochs=2)
    lines = read_json_lines(path)
    assert lines[:2] == logger.lines
    assert [line.get('n_epochs') for line in lines] == [None, 1, 2]


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


@pytest.mark.parametrize(
    'error, status, printed',
    [
        (InputError('no such file: y'), 2, 'x.py: error: no such file: y\n'),
        (KeyboardInterrupt(), 130, ''),
        (MemoryError('no room'), 2, 'x.py: error: out of memory: no room\n'),
        (torch.OutOfMemoryError('no room'), 2, 'x.py: error: out of memory: no room\n'),
        (
            FileNotFoundError(2, "No usable temporary directory found in ['x']"),
            2,
            'x.py: error: there is no folder for temporary files: set TMPDIR to one that you may '
            'write to\n',
        ),
        (
            Stopped(signal.SIGTERM),
            143,
            'stopped; the same command with --resume continues the run\n',
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else '',
)
def test_exit_status_of_an_error(capsys, error, status, printed):
    assert status_of(error, capsys) == (status, printed)


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
        ('cuDNN error: CUDNN_STATUS_ALLOC_FAILED', True),
        ('cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED', True),
        ('cuDNN error: CUDNN_STATUS_EXECUTION_FAILED', False),
        ('could not create a primitive descriptor for a matmul primitive', False),
        ('shape mismatch', False),
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


def test_a_broken_pipe_of_a_result_is_its_reader_that_has_ended(capsys):
    assert status_of(BrokenPipeError(), capsys, is_result=True) == (0, '')


def test_a_broken_pipe_of_a_run_is_a_process_that_died(capsys):
    with pytest.raises(BrokenPipeError):
        status_of(BrokenPipeError(), capsys)


def test_a_bug_keeps_its_traceback(capsys):
    with pytest.raises(ZeroDivisionError):
        status_of(ZeroDivisionError(), capsys)


def test_an_error_that_another_process_reports(capsys):
    for error, status in ((InputError('x'), 2), (Stopped(signal.SIGINT), 130)):
        error.is_told = True
        assert status_of(error, capsys) == (status, '')


# ----------------------------------------------------- scripts whose output cannot be written

SCRIPT = """
import os, signal, sys
from utils import InputError, exit_status

signal.SIGBREAK = signal.SIGUSR1  # of Windows
def run(args):
    for _ in range({n_lines}):
        print('a line, ü, 猫', flush={flush})
    print('a note, ü', file=sys.stderr)
    open('done', 'w').close()
    {last}

sys.exit(exit_status('x.py', run, (), is_result={is_result}))
"""


class Script:
    """Runs a script that prints in a shell, in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, redirection, is_result=False, n_lines=5, flush=False, last='pass', **environment):
        """Return the exit status and the two outputs."""
        code = SCRIPT.format(is_result=is_result, n_lines=n_lines, flush=flush, last=last)
        (self.folder / 'x.py').write_text(code)
        # The status is that of the script, also if it is the first command of a pipeline.
        command = f'set -o pipefail; "{sys.executable}" x.py {redirection}'
        environment = {**os.environ, 'PYTHONIOENCODING': 'utf-8', **environment}
        done = subprocess.run(
            ['bash', '-c', command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            timeout=60,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    @property
    def is_done(self):
        """Whether the script reached its end."""
        return (self.folder / 'done').exists()


@pytest.fixture
def script(tmp_path):
    return Script(tmp_path)


MANY = 100_000  # lines: more than a pipe holds


def test_an_open_output_has_all_lines(script):
    for is_result in (False, True):
        status, out, err = script.run('', is_result)
        assert (status, out.count('a line, ü, 猫\n'), err) == (0, 5, 'a note, ü\n')


@pytest.mark.parametrize('flush', [False, True])
@pytest.mark.parametrize('redirection', ['>&-', '> /dev/full', '2>&-', '>&- 2>&-', '2> /dev/full'])
def test_a_run_continues_without_its_output(script, redirection, flush):
    status, _, err = script.run(redirection, flush=flush)
    assert script.is_done
    assert status == 0
    assert 'Traceback' not in err and 'Exception' not in err


@pytest.mark.parametrize('flush', [False, True])
def test_a_run_continues_when_its_reader_has_ended(script, flush):
    status, out, err = script.run('| head -1', n_lines=MANY, flush=flush)
    assert script.is_done
    assert (status, out, err) == (0, 'a line, ü, 猫\n', 'a note, ü\n')


@pytest.mark.parametrize('redirection', ['>&-', '> /dev/full', '| head -1'])
def test_the_status_of_a_run_without_output_tells_the_truth(script, redirection):
    status, _, err = script.run(redirection, n_lines=MANY, last='raise InputError("no such file")')
    assert (status, err) == (2, 'a note, ü\nx.py: error: no such file\n')


def test_a_rank_does_not_silence_an_error(script):
    _, _, err = script.run('', last='raise InputError("no such file")', RANK='1', WORLD_SIZE='')
    assert err.endswith('x.py: error: no such file\n')


@pytest.mark.parametrize('flush', [False, True])
def test_a_result_ends_quietly_when_its_reader_has_ended(script, flush):
    status, out, err = script.run('| head -1', is_result=True, n_lines=MANY, flush=flush)
    assert not script.is_done
    assert (status, out, err) == (0, 'a line, ü, 猫\n', '')


@pytest.mark.parametrize('n_lines, flush', [(5, False), (5, True), (MANY, False)])
def test_a_result_that_cannot_be_written_is_an_error_of_one_line(script, n_lines, flush):
    status, _, err = script.run('> /dev/full', is_result=True, n_lines=n_lines, flush=flush)
    assert status == 2
    message = 'x.py: error: cannot write the output: No space left on device\n'
    assert err.removeprefix('a note, ü\n') == message


@pytest.mark.parametrize('is_result', [False, True])
def test_characters_that_the_encoding_lacks_are_replaced(script, is_result):
    status, out, err = script.run('', is_result, n_lines=1, PYTHONIOENCODING='ascii')
    assert (status, out, err) == (0, 'a line, \\xfc, \\u732b\n', 'a note, \\xfc\n')


def test_a_result_is_utf8_in_every_locale(script):
    """A file of predictions can have any text. On Windows, the encoding was that of the country."""
    locale = {'PYTHONIOENCODING': '', 'PYTHONUTF8': '0', 'LC_ALL': 'C'}
    status, out, err = script.run('', True, n_lines=1, **locale)
    assert (status, out, err) == (0, 'a line, ü, 猫\n', 'a note, \\xfc\n')


def test_a_closed_input_is_an_empty_one(script):
    assert script.run('<&-', last='assert sys.stdin.read() == ""')[0] == 0


@pytest.mark.parametrize('is_result', [False, True])
@pytest.mark.parametrize('redirection', ['', '> /dev/null'])
@pytest.mark.parametrize('name', ['SIGINT', 'SIGBREAK'])
def test_the_status_after_an_interrupt(script, is_result, redirection, name):
    """130, as the shell has it for a process that SIGINT ended, and no traceback."""
    last = f'os.kill(os.getpid(), signal.{name}); signal.pause()'
    status, _, err = script.run(redirection, is_result, last=last)
    assert (status, err) == (130, 'a note, ü\n')
