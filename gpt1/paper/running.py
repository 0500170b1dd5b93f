"""The runs of a plan, some at a time, in processes of their own."""

import contextlib
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
from gpt1.text.workers import available_cores
from utils import Held, InputError, Stopped

# For `subprocess.Popen`: a process that the terminal's Ctrl-C does not reach, and what interrupts
# it. Windows can send a single process nothing but a break, see `utils.exit_status`.
if sys.platform == 'win32':
    APART = {'creationflags': subprocess.CREATE_NEW_PROCESS_GROUP}
    INTERRUPT = signal.CTRL_BREAK_EVENT
else:
    APART = {'start_new_session': True}
    INTERRUPT = signal.SIGINT


class Runner:
    """Does the runs of a plan; each has a folder for its output below `folder`.

    jobs  runs at a time (None: one with a GPU, else one on each core)

    After `work`: `failed` has a line for each run that failed, by name, and `held` those that
    another process does.
    """

    def __init__(
        self, plan: Sequence[PlannedRun], folder: str, jobs: int | None, keep: bool = False
    ):
        self.plan, self.folder, self.keep = plan, folder, keep
        self.jobs = jobs or (1 if torch.cuda.is_available() else available_cores())
        self.processes: list[subprocess.Popen] = []
        self.failed: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.left: set[str] = set()  # runs that have not ended
        self.signals: list[int] = []  # received
        self.starting = threading.RLock()

    def work(self) -> None:
        """Do all that can be done. Raises Stopped after a signal, when the runs have stopped.

        Runs that need others start when all others have ended.
        """
        numbers = signal.SIGINT, signal.SIGTERM
        handlers = [signal.signal(number, self._stop) for number in numbers]
        states = states_of(self.plan)
        self.left = {run.desc for run in self.plan if states[run.desc].kind != 'done'}
        runs = [run for run in self.plan if run.desc in self.left]
        try:
            for group in ([r for r in runs if not r.needs], [r for r in runs if r.needs]):
                with ThreadPoolExecutor(self.jobs) as pool:
                    pending = [pool.submit(self._follow, run) for run in group]
                    while pending:  # Windows delivers no signal to a thread that waits for good
                        pending = wait(pending, timeout=0.1).not_done
        finally:
            for number, handler in zip(numbers, handlers):
                signal.signal(number, handler)
        if self.signals:
            raise Stopped(self.signals[0], 'the same command continues')

    def _stop(self, number: int, _):
        self.signals.append(number)
        with self.starting:
            for process in self.processes:
                process.send_signal(INTERRUPT)

    def _follow(self, run: PlannedRun):
        """Do a run and note how it ends; the other runs go on."""
        try:
            for name in self.held.keys() & run.needs:
                raise Held(f'it needs {name}, which is not done')
            for name in self.failed.keys() & run.needs:
                raise InputError(f'it needs {name}, which is not done')
            if not self.signals:
                self._do(run)
        except Held as error:
            self.held[run.desc] = str(error)
        except InputError as error:
            self.failed[run.desc] = str(error)
        except (Exception, SystemExit) as error:
            self.failed[run.desc] = f'{type(error).__name__}: {error}'
        if not self.signals:
            self.left.discard(run.desc)
            n_ended = len(self.plan) - len(self.left)
            print(f'{n_ended} of {len(self.plan)} runs: {run.desc}', flush=True)

    def _do(self, run: PlannedRun):
        """Do a run unless it is done. Raises InputError if it fails, and Held."""
        folder = os.path.join(self.folder, run.desc)
        output = os.path.join(folder, 'output.txt')
        with only_run(folder):
            state = state_of(run)
            if state.kind == 'done':  # by another process meanwhile
                return
            if run.script == PRETRAIN and state.kind == 'missing' and record_of(run):
                place, name = os.path.split(os.path.dirname(run.record))
                with only_run(os.path.join(place, name, 'work')):
                    pass
                record.set_aside(name, place, place, place)  # pretrain.py refuses to use it
            with self.starting:
                if self.signals:
                    return
                process = self._begin(run, output)
                self.processes.append(process)
            status = process.wait()
            state = state_of(run)
            if status or state.kind != 'done':
                with open(output, encoding='utf-8', errors='replace') as f:
                    last_line = f.read().strip().rpartition('\n')[2].strip()[:300]
                if status == Held.status:
                    raise Held(last_line)
                raise InputError(f'status {status}: {last_line if status else state.text}')
            if run.script == TRAIN and not self.keep:
                for name in ('checkpoint', 'best_params'):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(os.path.dirname(run.record), name))

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
