"""The runs of a plan, some at a time, in processes of their own."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from gpt1 import ROOT
from gpt1.options import PRETRAIN, TRAIN
from gpt1.paper.plan import PlannedRun, record_of, state_of, states_of, words_of
from gpt1.run import record
from gpt1.run.checkpoint import only_run
from gpt1.text.workers import APART, INTERRUPT, available_cores
from utils import Held, InputError, Stopped


class Runner:
    """Does the runs of a plan, `jobs` at a time; each has a folder for its output below `folder`.

    After `work`: `failed` has a line for each run that failed, by name, and `held` those that
    another process does.
    """

    def __init__(self, plan: Sequence[PlannedRun], folder: str, jobs: int, keep: bool = False):
        self.plan, self.folder, self.jobs, self.keep = plan, folder, jobs, keep
        self.processes: list[subprocess.Popen] = []
        self.failed: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.signals: list[int] = []  # received
        self.starting = threading.Lock()
        self.ended: dict[str, threading.Event] = {}

    def work(self) -> None:
        """Do all that can be done. Raises Stopped after a signal, when the runs have stopped."""
        handlers = {
            number: signal.signal(number, lambda received, _: self.signals.append(received))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        states = states_of(self.plan)
        left = [run for run in self.plan if states[run.desc].kind != 'done']
        self.ended = {run.desc: threading.Event() for run in left}
        n_passed_on = 0
        try:
            with ThreadPoolExecutor(self.jobs) as pool:
                pending = [pool.submit(self._follow, run) for run in left]
                while pending:
                    pending = wait(pending, timeout=0.1).not_done
                    with self.starting:
                        for _ in self.signals[n_passed_on:]:
                            n_passed_on += 1
                            for process in self.processes:
                                process.send_signal(INTERRUPT)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.signals:
            raise Stopped(self.signals[0], 'the same command continues')

    def _follow(self, run: PlannedRun):
        """Do a run after those that it needs, and note how it ends."""
        whose, message = self.failed, ''
        for name in self.ended.keys() & run.needs:
            self.ended[name].wait()
            if name in self.failed or name in self.held:
                whose = self.held if name in self.held else self.failed
                message = f'it needs {name}, which is not done'
        try:
            if not message and not self.signals:
                message = self._do(run)
        except Held as error:
            whose, message = self.held, str(error)
        except InputError as error:
            message = str(error)
        except (Exception, SystemExit) as error:  # the other runs go on
            message = f'{type(error).__name__}: {error}'
        if message and (whose is self.held or not self.signals):
            whose[run.desc] = message
        self.ended[run.desc].set()
        n_left = sum(not event.is_set() for event in self.ended.values())
        if not self.signals:
            print(f'{len(self.plan) - n_left} of {len(self.plan)} runs: {run.desc}', flush=True)

    def _do(self, run: PlannedRun) -> str:
        """Do a run unless it is done. Returns '', or one line that says why it failed.

        Raises Held.
        """
        folder = os.path.join(self.folder, run.desc)
        output = os.path.join(folder, 'output.txt')
        with only_run(folder):
            state = state_of(run)
            if state.kind == 'done':  # by another process meanwhile
                return ''
            if run.script == PRETRAIN and state.kind == 'missing' and record_of(run):
                place, name = os.path.split(os.path.dirname(run.record))
                with only_run(os.path.join(place, name, 'work')):
                    pass
                record.set_aside(name, place, place, place)  # pretrain.py refuses to use it
            with self.starting:
                if self.signals:
                    return ''
                process = self._begin(run, output)
                self.processes.append(process)
            status = process.wait()
            if status == Held.status:
                raise Held(last_line(output))
            state = state_of(run)
            if status or state.kind != 'done':
                return f'status {status}: {last_line(output) if status else state.text}'
            if run.script == TRAIN and not self.keep:
                for name in ('checkpoint', 'best_params'):
                    path = os.path.join(os.path.dirname(run.record), name)
                    if os.path.exists(path):
                        os.unlink(path)
            return ''

    def _begin(self, run: PlannedRun, output: str) -> subprocess.Popen:
        """Start the process of a run, which adds to the file `output`."""
        command = [sys.executable, *words_of(run)]
        paths = [ROOT, os.environ.get('PYTHONPATH')]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}
        if self.jobs > 1:
            environment.setdefault('OMP_NUM_THREADS', '1')
        with open(output, 'a', encoding='utf-8') as f:
            print('$', shlex.join(command), file=f, flush=True)
            # A session of its own: a Ctrl-C reaches it once, from here.
            options = {'stdin': subprocess.DEVNULL, 'stderr': subprocess.STDOUT, **APART}
            return subprocess.Popen(command, stdout=f, env=environment, **options)


def last_line(path: str) -> str:
    """Return the last line of a file, at most 300 characters of it."""
    with open(path, encoding='utf-8', errors='replace') as f:
        return f.read().strip().rpartition('\n')[2].strip()[:300]


def default_jobs() -> int:
    """Return how many runs to do at a time: one with a GPU, else one on each core."""
    return 1 if torch.cuda.is_available() else available_cores()
