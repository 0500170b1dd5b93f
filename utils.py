"""What all scripts share: errors that a person can fix, whole files, the log, the exit status."""

import contextlib
import errno
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NoReturn

# A progress bar of tqdm that leaves room for the bar itself in 80 columns
BAR = '{desc} {percentage:3.0f}%|{bar}| {remaining} left, {rate_fmt}{postfix}'
SPECIAL_TOKENS = ('_start_', '_delimiter_', '_classify_')  # they follow the vocabulary, in order
LFS_POINTER = b'version https://git-lfs.github.com/spec/'


class InputError(Exception):
    """Something the user gave is wrong. The message is one line: what, where, what to do."""

    status = 2  # of the process
    is_told = False  # whether another process of the run says so

    def __init__(self, message: str):
        super().__init__(' '.join(message.split()))  # file names can contain line breaks


class Held(InputError):
    """Another process writes to the same folder: later, the same command may do its work."""

    status = 75  # EX_TEMPFAIL of sysexits.h


class OutOfMemory(InputError):
    """The memory of a device is too small. With several processes, this may concern one of them."""


class WriteError(InputError):
    """A file could not be written; `full`: the disk is full, with room the run can be resumed."""

    def __init__(self, message: str, full: bool = False):
        super().__init__(message)
        self.full = full


class Stopped(Exception):
    """A signal asked the run to stop, and it has written its checkpoint."""

    is_told = False

    def __init__(self, signum: int, hint: str = 'the same command with --resume continues the run'):
        super().__init__(signal.Signals(signum).name)
        self.hint = hint
        self.status = 128 + signum  # the shell's convention


class _Console:
    """Standard output or error of a run that must not end because nobody reads what it prints.

    When writing fails (the reader ended, the disk is full), the output goes to the null device.
    """

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt('write', text)
        return len(text)

    def flush(self) -> None:
        self._attempt('flush')

    def _attempt(self, method, *args):
        try:
            getattr(self._stream, method)(*args)
        except (OSError, ValueError):
            self._stream = open(os.devnull, 'w')  # noqa: SIM115 (open as long as the process)


def protect_output(is_result: bool) -> None:
    """Make sure that what a script prints cannot end it with a traceback, see `exit_status`.

    A result that goes to a file or to another program is UTF-8, with the line ends that it was
    given. Characters that a terminal's encoding lacks are replaced.
    """
    for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
        if getattr(sys, name) is None:  # closed by the shell: `>&-`
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for name in ('stdout', 'stderr'):
        stream, options = getattr(sys, name), {'errors': 'backslashreplace'}
        has_result = is_result and name == 'stdout'
        if has_result and not stream.isatty():
            encoding = None if os.environ.get('PYTHONIOENCODING') else 'utf-8'
            options |= {'newline': '', 'encoding': encoding}
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a notebook has others
            stream.reconfigure(**options)
        if not has_result:
            setattr(sys, name, _Console(stream))


def _close_output():
    """Flush the outputs: Python would end with status 120 if it failed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def exit_status(name: str, run: Callable, args, is_result: bool = False) -> int:
    """Run a script and return its exit status: 0, that of an error, 128 + the number of a signal.

    is_result  whether the output of the script is its result; otherwise it is progress: when it
               cannot be written, the run continues
    """
    protect_output(is_result)
    if hasattr(signal, 'SIGBREAK'):  # Windows, where paper.py can send nothing else
        signal.signal(signal.SIGBREAK, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        run(args)
        if is_result:
            sys.stdout.flush()
        return 0
    except InputError as error:
        can_resume = isinstance(error, WriteError) and error.full and 'resume' in args
        hint = '; once there is room, the same command with --resume continues the run'
        if not error.is_told:
            print(f'{name}: error: {error}{hint if can_resume else ""}', file=sys.stderr)
        return error.status
    except Stopped as stopped:
        if not stopped.is_told:
            print(f'stopped; {stopped.hint}', file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        if not is_result:  # a process that this one started has died
            raise
        return 0  # the reader, such as `head`, has seen enough
    except Exception as error:
        message = _known_failure(error, is_result)
        if not message:
            raise
        print(f'{name}: error: {message}', file=sys.stderr)
        return 2
    finally:
        _close_output()


def leave(status: int) -> NoReturn:
    """End the process; one of several without clean-up, in which PyTorch's threads may abort it."""
    if os.environ.get('WORLD_SIZE', '') not in ('', '1'):
        _close_output()
        os._exit(status)
    sys.exit(status)


# Of the computer; of oneDNN, which does not say why; of CUDA, cuBLAS and cuDNN
_NO_MEMORY = re.compile(
    r"can(?:'|no)t allocate memory|could not (?:create|execute) a (?:memory|primitive)(?! desc)|"
    r'out of memory|_ALLOC(?:ATION)?_FAILED',
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the computer's memory is too small."""
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError':
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def _known_failure(error: Exception, is_result: bool) -> str | None:
    """One line about an exception that is the machine's, not a bug."""
    text = ' '.join(str(error).split())
    if is_out_of_memory(error):
        return f'out of memory: {text[:200]}'
    if isinstance(error, FileNotFoundError) and 'No usable temporary directory' in text:
        return 'there is no folder for temporary files: set TMPDIR to one that you may write to'
    if is_result and isinstance(error, OSError):
        return f'cannot write the output: {error.strerror}'
    return None


def format_table(pairs: Sequence[tuple[str, str]]) -> str:
    return '\n'.join(f'{name:10}{" ".join(text.split())}' for name, text in pairs)


@contextlib.contextmanager
def whole_file(path: str, mode: str = 'w') -> Iterator[IO]:
    """Open `path` for writing so that it appears whole or not at all.

    The file is written beside its place, flushed, synced and renamed. Raises WriteError if that
    fails (a full disk, for instance); an earlier file is then unchanged.
    """
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f'.{name}.{os.getpid()}.part')
    text = {} if 'b' in mode else {'encoding': 'utf-8', 'newline': ''}
    try:
        os.makedirs(folder or '.', exist_ok=True)
        with open(beside, mode, **text) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        # torch.save reports a failed write as a RuntimeError
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, OSError):
            raise
        is_full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = f'{cause.strerror or cause}; an earlier file is unchanged'
        raise WriteError(f'cannot write {path}: {reason}', is_full) from error


def remove_leftovers(folder: str) -> None:
    """Remove what `whole_file` left half-written in processes that do not run on this machine."""
    for name in os.listdir(folder):
        found = re.fullmatch(r'\..+\.(\d+)\.part', name)
        if found and not _is_running(int(found[1])):
            with contextlib.suppress(OSError):  # on Windows, somebody may write it
                os.unlink(os.path.join(folder, name))


def _is_running(pid: int) -> bool:
    if pid == os.getpid() or os.name == 'nt':  # there, a signal of 0 would stop the process
        return False
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, PermissionError)  # it is somebody else's
    return True


def check_not_pointer(path: str) -> None:
    """Raise InputError if `path` is a Git LFS pointer: a small text in place of a large file."""
    with contextlib.suppress(OSError), open(path, 'rb') as f:
        if f.read(len(LFS_POINTER)) == LFS_POINTER:
            hint = 'run "git lfs pull" in its folder, or download the file again'
            raise InputError(f'{path} is a Git LFS pointer, not the file itself: {hint}')


def check_writable(folder: str) -> None:
    """Raise InputError if files cannot be written to `folder`, which need not exist. Makes none."""
    place = os.path.abspath(folder)
    while not os.path.lexists(place) and os.path.dirname(place) != place:  # a drive may be missing
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f'cannot write to {folder}: {place} is not a folder that you may write to')


class ResultLogger:
    """A log in JSON lines, the format of the original: the arguments, then each evaluation.

    Each line also has its `time`. The file, which is short, is written whole after the checkpoint,
    which has all lines too: a run that is resumed writes what a stop has kept from it.

    lines        those of an interrupted run, which this log continues
    tensorboard  whether TensorBoard shows the scores too, see `check_tensorboard`
    """

    def __init__(
        self, path: str, lines: Sequence[dict] = (), tensorboard: bool = False, /, **arguments
    ):
        self.path, self.lines = path, list(lines)
        self.tensorboard, self.writer, self.n_shown = tensorboard, None, len(lines)
        if not self.lines:
            self.add(**arguments)
        self.write()

    def add(self, **values) -> None:
        self.lines.append({**values, 'time': time.time()})

    def write(self) -> None:
        """Write the file. Raises WriteError. A failure of TensorBoard is a warning."""
        with whole_file(self.path) as f:
            f.writelines(json.dumps(line) + '\n' for line in self.lines)
        if self.tensorboard:
            try:
                self._show()
            except Exception as error:  # of a foreign library
                reason = ' '.join(str(error).split())
                print(f'warning: TensorBoard does not get the scores: {reason}', file=sys.stderr)

    def _show(self):
        new, self.n_shown = self.lines[self.n_shown :], len(self.lines)
        if not self.writer:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(os.path.splitext(self.path)[0])
        for values in new:
            for name, value in values.items() if 'n_updates' in values else ():
                if name.startswith(('tr_', 'va_', 'zs_')) or name in ('loss', 'lr', 'grad_norm'):
                    self.writer.add_scalar(name, value, values['n_updates'])
        self.writer.flush()


def check_tensorboard(folder: str) -> None:
    """Raise InputError if TensorBoard cannot be used, or cannot write to `folder`."""
    check_writable(folder)
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except Exception as error:  # a foreign package of that name can fail in any exception
        hint = 'type: pip install tensorboard'
        raise InputError(f'--tensorboard: it cannot be imported ({error}); {hint}') from error
