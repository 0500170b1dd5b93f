"""The whole paper from one command: its tables 2 to 5 and its figure 2.

    python paper.py
    python paper.py --tables 5 --figures 2 --datasets mnli race --seeds 1 2 3
    python paper.py --list

runs train.py, pretrain.py and zero_shot.py as often as the tables and figures need, and writes
report.md, report.json and pictures to --out. Stopped at any moment and started again, it goes on.
Runs that are there are not done again, and a run that another process does is left to it.

--list prints the commands, one a line, with their states. What a shell need not run, because it is
done or must wait for another one, is a comment. So they can be given to other programs, on several
machines that share the folder:

    python paper.py --list | xargs -d '\\n' -n 1 -P 4 sh -c

Without real data and weights everything is done in miniature: with made-up data, and with a small
transformer and a small LSTM that come with the program, pre-trained on made-up text. The logs of
their pre-training have the right half of figure 2. With real weights, the LSTM and the right half
of figure 2 need --text, a text to pre-train on.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

from datasets import make_samples
from gpt1.options import PRETRAIN, TRAIN, number
from gpt1.paper import plan as paper_plan
from gpt1.paper.plan import (
    ALL_DATASETS,
    TABLES,
    Run,
    Setup,
    State,
    check_options,
    find_setup,
    format_seconds,
    make_plan,
    print_list,
    progress_of,
    read_lines_of,
    record_of,
    seconds_left,
    state_of,
    states_of,
    with_resume,
)
from gpt1.paper.published import ZERO_SHOT_TITLES
from gpt1.parsing import Parser, check_paths
from gpt1.text.workers import APART, INTERRUPT, available_cores
from utils import Held, InputError, Stopped, check_writable, exit_status, whole_file

REMOVED = ('checkpoint', 'best_params')  # of a run that is done


def parse_args(argv=None):
    """Parse the command line. Ends the process if something is wrong."""
    parser = Parser(prog='paper.py', usage='python paper.py [options]', description=__doc__)
    group = parser.add_argument_group('what to do')
    group.add_argument(
        '--tables',
        nargs='*',
        type=int,
        choices=tuple(TABLES),
        help='which tables (default: all; with --figures alone: none)',
    )
    group.add_argument(
        '--figures',
        nargs='*',
        type=int,
        choices=(2,),
        help='which figures (default: all; with --tables alone: none)',
    )
    group.add_argument(
        '--datasets',
        nargs='+',
        choices=ALL_DATASETS,
        metavar='NAME',
        help='which data sets (default: those in --data_dir; if none is there, all, made up): '
        + ', '.join(ALL_DATASETS),
    )
    group.add_argument(
        '--seeds', nargs='+', type=number(int, 0, 2**32 - 1), default=[42], help='a run for each'
    )
    group.add_argument('--list', action='store_true', help='print the commands; run nothing')
    group.add_argument('--report', action='store_true', help='write the report; run nothing')
    group = parser.add_argument_group('with what')
    group.add_argument('--data_dir', help='folder of the data (default: data/, or made-up data)')
    group.add_argument('--model_dir', help='folder of the weights (default: model/, or our sample)')
    group.add_argument(
        '--text',
        nargs='+',
        default=[],
        help='text files or folders to pre-train the LSTM and the transformer of figure 2 on '
        '(default: none; the sample models are pre-trained already)',
    )
    group.add_argument(
        '--train_options',
        default='',
        metavar='WORDS',
        help='more options for every train.py, for example "--n_gpu 1 --n_batch 32"',
    )
    group.add_argument(
        '--pretrain_options', default='', metavar='WORDS', help='the same for every pretrain.py'
    )
    group = parser.add_argument_group('how')
    group.add_argument(
        '--jobs',
        type=number(int, 1, 1000),
        help='runs at a time (default: 1 with a GPU; else one on each core)',
    )
    group.add_argument('--out', default='paper/', metavar='DIR', help='for everything written')
    group.add_argument(
        '--keep', action='store_true', help='keep the parameters of runs that are done'
    )
    args = parser.parse_args(argv)
    all_of_it = args.tables is None and args.figures is None
    args.tables = list(TABLES) if all_of_it else args.tables or []
    args.figures = [2] if all_of_it else args.figures or []
    check_paths(parser, data_dir=args.data_dir, model_dir=args.model_dir)
    for path in args.text:
        check_paths(parser, text=path)
    return args


ARGS = parse_args() if __name__ == '__main__' else None  # before other modules, slow to import


# ---------------------------------------------------------------------------------- the running


class Runner:
    """Does the runs of a plan, some at a time, in processes of their own.

    After `work`: `failed` has a line for each run that failed, by name, and `held` those that
    another process does.
    """

    def __init__(self, plan: Sequence[Run], setup: Setup, jobs: int, keep: bool = False):
        self.plan, self.setup, self.jobs, self.keep = plan, setup, jobs, keep
        self.states = states_of(plan, setup)
        self.waiting = [run for run in plan if self.states[run.desc].kind != 'done']
        self.failed: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.running: dict[str, Run] = {}
        self.processes: dict[str, subprocess.Popen] = {}
        self.changed = threading.Condition()
        self.signals: list[int] = []  # received

    # Every method below holds the lock of `changed` while it reads or writes the attributes.

    def work(self) -> None:
        """Do all that can be done. Raises Stopped after a signal, when the runs have stopped."""
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            with ThreadPoolExecutor(self.jobs) as pool:
                workers = [pool.submit(self._worker) for _ in range(self.jobs)]
                self._watch(workers)
                for worker in workers:
                    worker.result()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.signals:
            raise Stopped(self.signals[0], 'the same command continues')

    def _on_signal(self, number, _):
        """Note a signal; `_watch` passes it on. A handler must not wait for a lock."""
        self.signals.append(number)

    def _watch(self, workers):
        """Show the progress and pass signals on until all workers have ended."""
        from tqdm import tqdm

        n_done = len(self.plan) - len(self.waiting)
        n_passed_on = 0
        with tqdm(
            total=len(self.plan),
            initial=n_done,
            bar_format='{n_fmt} of {total_fmt} runs |{bar}| {desc}',
            dynamic_ncols=True,
            disable=None,
        ) as bar:
            while not all(worker.done() for worker in workers):
                with self.changed:
                    self.changed.wait(0.1)  # a signal does not end this
                    if len(self.signals) > n_passed_on:
                        n_passed_on = len(self.signals)
                        for process in self.processes.values():
                            process.send_signal(INTERRUPT)
                    for desc, run in self.running.items():
                        found = record_of(run, self.setup)
                        if found and not found['finished']:
                            self.states[desc] = progress_of(run, self.setup, found)
                    n_running = len(self.running)
                    ended = len(self.plan) - len(self.waiting) - n_running
                    left = seconds_left(self.plan, self.states)
                known = [seconds for seconds in left.values() if seconds is not None]
                text = f'{n_running} running'
                if known and len(known) == len(left):
                    text += f', about {format_seconds(sum(known) / self.jobs)} left'
                bar.set_description_str(text, refresh=False)
                bar.update(ended - bar.n)
                bar.refresh()

    def _worker(self):
        while run := self._next():
            state = State('missing')
            message, whose = '', self.failed
            try:
                message = self._do(run)
                state = state_of(run, self.setup)
            except Held as error:
                message, whose = str(error), self.held
            except InputError as error:
                message = str(error)
            except Exception as error:  # of this run alone: the others go on
                message = f'{type(error).__name__}: {error}'
            with self.changed:
                del self.running[run.desc]
                self.processes.pop(run.desc, None)
                self.states[run.desc] = state
                if message and (whose is self.held or not self.signals):
                    whose[run.desc] = message
                self.changed.notify_all()

    def _next(self) -> Run | None:
        """Take the next run whose needs are done. Waits while others may still do them."""
        with self.changed:
            while not self.signals:
                for run in list(self.waiting):
                    lost = [n for n in run.needs if n in self.failed or n in self.held]
                    if lost:
                        self.waiting.remove(run)
                        whose = self.held if lost[0] in self.held else self.failed
                        whose[run.desc] = f'it needs {lost[0]}, which is not done'
                for run in self.waiting:
                    if all(self.states[name].kind == 'done' for name in run.needs):
                        self.waiting.remove(run)
                        self.running[run.desc] = run
                        return run
                if not self.waiting:
                    return None
                self.changed.wait(0.5)
        return None

    def _do(self, run: Run) -> str:
        """Do a run. Returns '' if it is done, else one line that says why not. Raises Held."""
        from gpt1.run.checkpoint import only_run

        folder = self.setup.path('runs', run.desc)
        with only_run(folder):
            state = state_of(run, self.setup)
            if state.kind == 'done':  # by another process meanwhile
                return ''
            if run.script == PRETRAIN and state.kind == 'missing':
                self._set_aside(run)
            return self._run_process(run, folder)

    def _set_aside(self, run):
        """Rename the folder of a pre-training with other options; pretrain.py refuses to use it."""
        from gpt1.run.checkpoint import only_run

        place = self.setup.pretrained[run.variant]
        if record_of(run, self.setup):
            with only_run(os.path.join(place, 'work')):
                pass
            new = next(n for n in map(f'{place}.{{}}'.format, count(1)) if not os.path.exists(n))
            os.rename(place, new)
            print(f'the earlier {run.desc} is now {new}', flush=True)

    def _run_process(self, run, folder):
        command = [sys.executable, os.path.join(paper_plan.SCRIPTS, run.script), *run.argv]
        command = with_resume(run, self.setup, command)
        environment = dict(os.environ)
        if self.jobs > 1:
            environment.setdefault('OMP_NUM_THREADS', '1')
        attempt = {'command': shlex.join(command[1:]), 'started': time.time()}
        output = os.path.join(folder, 'output.txt')
        with open(output, 'ab') as f:
            f.write(f'$ {shlex.join(command)}\n'.encode())
            f.flush()
            with self.changed:
                if self.signals:
                    return ''
                # A session of its own: a Ctrl-C reaches it once, from here.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=f,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    **APART,
                )
                self.processes[run.desc] = process
            status = process.wait()
        attempt |= {'ended': time.time(), 'status': status}
        attempt['id'] = record_of(run, self.setup).get('id')
        write_attempt(folder, attempt)
        if status == Held.status:
            raise Held(last_line(output))
        state = state_of(run, self.setup)
        if status == 0 and state.kind == 'done':
            if run.script == 'train.py' and not self.keep:
                for name in REMOVED:
                    path = self.setup.path('save', run.desc, name)
                    if os.path.exists(path):
                        os.unlink(path)
            return ''
        why = last_line(output) if status else state.text
        return f'status {status}: {why}'


def write_attempt(folder: str, attempt: dict) -> None:
    """Add what is known of an attempt at a run to attempts.jsonl in its folder."""
    path = os.path.join(folder, 'attempts.jsonl')
    lines = read_lines_of(path)
    with whole_file(path) as f:
        f.writelines(json.dumps(line) + '\n' for line in [*lines, attempt])


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

    if torch.cuda.is_available():
        return 1
    return available_cores()


# -------------------------------------------------------------------------------------------- run


def run(args: Namespace) -> None:
    """Do what the options ask for. Raises InputError if a run failed, and Stopped."""
    check_writable(args.out)
    setup = find_setup(args)
    plan = make_plan(setup, args.tables, args.figures, args.seeds)
    check_options(plan, setup)
    if args.list:
        print_list(plan, setup)
        return
    from gpt1.paper.tables import write_report

    reads_more = any(run.script != TRAIN for run in plan)
    make_samples((*setup.data, *(ZERO_SHOT_TITLES if reads_more else ())), args.data_dir)
    jobs = 1 if args.report else args.jobs or default_jobs()
    runner = Runner(plan, setup, jobs, args.keep)
    if not args.report:
        runner.work()
    print(write_report(plan, setup, args.tables, args.figures))
    for desc, message in runner.held.items():
        print(f'left to another process: {desc} ({message})')
    for desc, message in runner.failed.items():
        print(f'failed: {desc}: {message}', file=sys.stderr)
    if runner.failed:
        raise InputError(
            f'{len(runner.failed)} of {len(plan)} runs failed; their outputs are in '
            f'{setup.path("runs")}; the same command tries them again'
        )


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    args = parse_args(argv) if ARGS is None else ARGS
    return exit_status('paper.py', run, args)


if __name__ == '__main__':
    sys.exit(main())
