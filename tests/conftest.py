"""What tests of whole runs share: a small data set, small weights, and runs in processes."""

import ctypes
import functools
import importlib
import json
import multiprocessing
import os
import signal
import sys

# Tests run side by side, on small tensors: more threads only wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # a thread that waits leaves its core

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOLDEN = os.path.join(ROOT, 'tests', 'golden', 'rocstories-tiny')
sys.path.insert(0, ROOT)
os.environ['PYTHONPATH'] = os.pathsep.join(
    filter(None, [ROOT, os.environ.get('PYTHONPATH')])
)  # for processes that tests start

from utils import leave  # noqa: E402

ON_LINUX = pytest.mark.skipif(sys.platform != 'linux', reason='of Linux alone')
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
PROCESSES = multiprocessing.get_context('spawn' if sys.platform == 'win32' else 'forkserver')
if sys.platform != 'win32':  # it forks a process that has imported all
    PROCESSES.set_forkserver_preload(
        'train pretrain ftfy scipy.special spacy.lang.en torch._dynamo tokenizers '
        'torch.nn.parallel.distributed matplotlib.figure matplotlib.backends.backend_agg'.split()
    )


def child(script, argv, output, environment, patch=None):
    """Call `patch`, and run `script argv` as a process: output to a file."""
    # The run starts workers as it does outside of the tests, not with a fork server of its own.
    multiprocessing.set_start_method(None, force=True)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(environment)
    if patch:
        patch()
    leave(importlib.import_module(script).main(argv))


def as_on_windows():
    """A `patch` for `Command.start`: what Windows lacks is gone, and no mapped file is replaced."""
    del os.fork, os.sched_getaffinity, signal.SIGHUP, signal.SIGKILL
    multiprocessing.set_start_method('spawn', force=True)
    load, replace = ctypes.CDLL.__init__, os.replace

    def load_by_name(self, name, *args, **kwargs):
        if name is None:
            raise TypeError
        load(self, name, *args, **kwargs)

    def replace_if_not_mapped(source, target):
        with open('/proc/self/maps') as f:
            if os.path.realpath(target) in f.read():
                raise PermissionError(13, 'Access is denied', target)
        replace(source, target)

    ctypes.CDLL.__init__, os.replace = load_by_name, replace_if_not_mapped


def run(folder, script, *argv, status=0):
    """Run a script in a process, in `folder`. Returns what it printed."""
    output = folder / 'output'
    output.write_text('')
    words = [str(word) for word in argv]
    enter = functools.partial(os.chdir, folder)
    process = PROCESSES.Process(target=child, args=(script, words, str(output), {}, enter))
    process.start()
    process.join()
    assert process.exitcode == status, output.read_text()
    return output.read_text()


class Command:
    """Runs of a script that write below `folder`: by default train.py on the small data set."""

    script = 'train'
    options = '--dataset rocstories --submit --device cpu --n_valid 32 --n_gpu 1 --lr 1e-3'.split()
    options += '--n_layer 2 --n_head 4 --n_embd 32 --n_ctx 64'.split()
    options += [f'--{name}_dir={os.path.join(GOLDEN, name)}' for name in ('data', 'model')]

    def __init__(self, folder):
        self.folder = folder

    def argv(self, *options):
        names = ('log', 'save', 'submission', 'analysis')
        folders = [f'--{name}_dir={self.folder / name}' for name in names]
        return [*self.options, *folders, *map(str, options)]

    def start(self, *options, patch=None, **environment):
        output = str(self.folder / 'output')
        args = (self.script, self.argv(*options), output, environment, patch)
        process = PROCESSES.Process(target=child, args=args)
        process.start()
        return process

    def run(self, *options, status=0, **start):
        """Run to the end. Returns what it printed."""
        before = len(self.output)
        process = self.start(*options, **start)
        process.join()
        assert process.exitcode == status, self.output[before:]
        return self.output[before:]

    @property
    def output(self):
        path = self.folder / 'output'
        return path.read_text() if path.exists() else ''

    def log(self, desc='rocstories', progress=False):
        """The start record and evaluations, or the progress lines, without folders and times."""
        lines = map(json.loads, self.read('log', f'{desc}.jsonl').splitlines())
        return [
            {k: v for k, v in line.items() if k != 'time' and not k.endswith('_dir')}
            for line in lines
            if ('grad_norm' in line) == progress
        ]

    def read(self, *path):
        return self.folder.joinpath(*path).read_bytes()


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures are not drawn: they take most of the time of a report."""
    monkeypatch.setattr('gpt1.report.pictures.draw', lambda *_: None)


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path)


@pytest.fixture
def other_command(tmp_path_factory):
    return Command(tmp_path_factory.mktemp('other'))
