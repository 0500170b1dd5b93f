"""The runs of a plan, some at a time, in processes of their own."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count

from gpt1 import ROOT
from gpt1.options import PRETRAIN, TRAIN
from gpt1.paper.plan import (
    PlannedRun,
    Setup,
    record_of,
    state_of,
    states_of,
    words_of,
)
from gpt1.run.checkpoint import only_run
from gpt1.text.workers import APART, INTERRUPT, available_cores
from utils import Held, InputError, Stopped

REMOVED = ('checkpoint', 'best_params')  # of a run that is done


class Runner:
    """Does the runs of a plan.

    After `work`: `failed` has a line for each run that failed, by name, and `held` those that
    another process does.
    """

    def __init__(self, plan: Sequence[PlannedRun], setup: Setup, jobs: int, keep: bool = False):
        self.plan, self.setup, self.jobs, self.keep = plan, setup, jobs, keep
        self.states = states_of(plan, setup)
        self.waiting = [run for run in plan if self.states[run.desc].kind != 'done']
        self.running: dict[str, tuple[PlannedRun, Iterator]] = {}
        self.processes: dict[str, subprocess.Popen] = {}
        self.failed: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.signals: list[int] = []  # received

    def work(self) -> None:
        """Do all that can be done. Raises Stopped after a signal, when the runs have stopped."""
        before = {
            number: signal.signal(number, lambda received, _: self.signals.append(received))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self._loop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.signals:
            raise Stopped(self.signals[0], 'the same command continues')

    def _loop(self):
        n_passed_on = 0
        while self.running or (self.waiting and not self.signals):
            if not self.signals:
                self._start()
            for desc, (run, work) in list(self.running.items()):
                if self._has_ended(run, work):
                    del self.running[desc]
                    n_left = len(self.waiting) + len(self.running)
                    print(f'{len(self.plan) - n_left} of {len(self.plan)} runs: {desc}', flush=True)
            for _ in self.signals[n_passed_on:]:
                n_passed_on += 1
                for process in self.processes.values():
                    process.send_signal(INTERRUPT)
            time.sleep(0.1)

    def _start(self):
        """Start the next runs whose needs are done. Those whose needs are lost are lost, too."""
        for run in list(self.waiting):
            lost = [name for name in run.needs if name in self.failed or name in self.held]
            if lost:
                self.waiting.remove(run)
                whose = self.held if lost[0] in self.held else self.failed
                whose[run.desc] = f'it needs {lost[0]}, which is not done'
            is_ready = all(self.states[name].kind == 'done' for name in run.needs)
            if is_ready and len(self.running) < self.jobs:
                self.waiting.remove(run)
                self.running[run.desc] = run, self._do(run)

    def _has_ended(self, run: PlannedRun, work: Iterator) -> bool:
        """Go on with a run. Returns whether it has ended, and notes how."""
        message, whose = '', self.failed
        try:
            next(work)
            return False
        except StopIteration as end:
            message = end.value
        except Held as error:
            message, whose = str(error), self.held
        except InputError as error:
            message = str(error)
        except Exception as error:  # the other runs go on
            message = f'{type(error).__name__}: {error}'
        self.processes.pop(run.desc, None)
        if message and (whose is self.held or not self.signals):
            whose[run.desc] = message
        return True

    def _do(self, run: PlannedRun) -> Iterator[None]:
        """Do a run, in steps. Returns '' if it is done, else one line that says why not.

        Raises Held.
        """
        folder = self.setup.path('runs', run.desc)
        output = os.path.join(folder, 'output.txt')
        with only_run(folder):
            state = self.states[run.desc] = state_of(run, self.setup)
            if state.kind == 'done':  # by another process meanwhile
                return ''
            if run.script == PRETRAIN and state.kind == 'missing':
                self._set_aside(run)
            process = self.processes[run.desc] = self._begin(run, output)
            while process.poll() is None:
                yield
            if process.returncode == Held.status:
                raise Held(last_line(output))
            state = self.states[run.desc] = state_of(run, self.setup)
            if process.returncode or state.kind != 'done':
                why = last_line(output) if process.returncode else state.text
                return f'status {process.returncode}: {why}'
            if run.script == TRAIN and not self.keep:
                for name in REMOVED:
                    path = self.setup.path('save', run.desc, name)
                    if os.path.exists(path):
                        os.unlink(path)
            return ''

    def _set_aside(self, run):
        """Rename the folder of a pre-training with other options; pretrain.py refuses to use it."""
        place = self.setup.pretrained[run.variant]
        if record_of(run, self.setup):
            with only_run(os.path.join(place, 'work')):
                pass
            new = next(n for n in map(f'{place}.{{}}'.format, count(1)) if not os.path.exists(n))
            os.rename(place, new)
            print(f'the earlier {run.desc} is now {new}', flush=True)

    def _begin(self, run, output) -> subprocess.Popen:
        """Start the process of a run, which adds to the file `output`."""
        command = [sys.executable, *words_of(run, self.setup)]
        paths = [ROOT, os.environ.get('PYTHONPATH')]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}
        if self.jobs > 1:
            environment.setdefault('OMP_NUM_THREADS', '1')
        with open(output, 'ab') as f:
            f.write(f'$ {shlex.join(command)}\n'.encode())
            f.flush()
            # A session of its own: a Ctrl-C reaches it once, from here.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=f,
                stderr=subprocess.STDOUT,
                env=environment,
                **APART,
            )


def last_line(path: str) -> str:
    """Return the last line of a file that is not empty, at most 300 characters of it."""
    with open(path, encoding='utf-8', errors='replace') as f:
        lines = [line.strip() for line in f.read()[-5000:].splitlines() if line.strip()]
    return lines[-1][:300] if lines else ''


def default_jobs() -> int:
    """Return how many runs to do at a time: one with a GPU, else one on each core.

    The threads of one run wait for each other; runs side by side do not.
    """
    import torch

    return 1 if torch.cuda.is_available() else available_cores()
