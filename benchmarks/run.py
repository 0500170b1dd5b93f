"""Measure where the time of a whole run of train.py goes.

    python benchmarks/run.py --dataset rocstories --submit --analysis --n_gpu 8

Takes the options of train.py, runs it in this process, and prints the time of each phase: imports,
encoding, loading, the updates of each epoch, evaluation, saving, prediction, analysis. The time of
a phase within another one counts for the inner one only. For each epoch, it also prints the memory
in use after it, and the time of its first and of its last updates: neither should grow.

`--json FILE`, as the first option, writes all these figures and the seconds of each update too.
`--stop_after N`, after it or as the first option, stops the run after N updates, as a signal does.
"""

import collections
import contextlib
import functools
import json
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

START = time.perf_counter()


class Phases:
    """The seconds of each phase, without those of the phases within it."""

    def __init__(self):
        self.seconds = collections.Counter()
        self.inner = []  # for each phase in progress, the seconds of the phases within it

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self.inner.append(0)
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[name] += seconds - self.inner.pop()
            if self.inner:
                self.inner[-1] += seconds

    def wrap(self, owner: object, function: str, name: str) -> None:
        """Count the calls of owner.function as the phase `name`."""
        original = getattr(owner, function)

        @functools.wraps(original)
        def timed(*args, **kwargs):
            with self.phase(name):
                return original(*args, **kwargs)

        setattr(owner, function, timed)


class Updates:
    """The seconds of each update and the memory after each epoch. An epoch is 1, 2, ..."""

    def __init__(self, phases: Phases, train, torch, stop_after: int | None):
        self.phases, self.torch, self.stop_after = phases, torch, stop_after
        self.first = None  # seconds from the start to the first update, and those of the processor
        self.seconds = collections.defaultdict(list)  # epoch -> seconds of its updates
        self.resident = {}  # epoch -> bytes after its last evaluation
        train.Trainer.update = self.timed_update(train.Trainer.update)
        train.FineTuning.evaluate = self.noting_memory(train.FineTuning.evaluate)

    def timed_update(self, update: Callable) -> Callable:
        @functools.wraps(update)
        def timed(trainer, items):
            epoch = 1 + trainer.n_updates // trainer.updates_per_epoch
            self.first = self.first or (time.perf_counter() - START, time.process_time())
            with self.phases.phase(f'epoch {epoch}: updates'):
                start = time.perf_counter()
                figures = update(trainer, items)
                if trainer.device.type == 'cuda':
                    self.torch.cuda.synchronize()
                self.seconds[epoch].append(time.perf_counter() - start)
            if trainer.n_updates == self.stop_after:
                os.kill(os.getpid(), signal.SIGINT)
            return figures

        return timed

    def noting_memory(self, evaluate: Callable) -> Callable:
        @functools.wraps(evaluate)
        def noting(job, trainer):
            line = evaluate(job, trainer)
            self.resident[max(1, line['n_epochs'])] = memory('VmRSS')
            return line

        return noting

    def epochs(self) -> list[dict]:
        """Return the figures of each epoch: median seconds of its first and last tenth, memory."""
        epochs = []
        for epoch, seconds in self.seconds.items():
            tenth = max(1, len(seconds) // 10)
            epochs.append(
                {
                    'epoch': epoch,
                    'first_s': statistics.median(seconds[:tenth]),
                    'last_s': statistics.median(seconds[-tenth:]),
                    'resident_bytes': self.resident.get(epoch),  # None: it was stopped before
                }
            )
        return epochs


def memory(which: str) -> int:
    """Return the bytes of memory in use ('VmRSS') or the most so far ('VmHWM')."""
    with open('/proc/self/status') as f:
        for line in f:
            if line.startswith(which):
                return 1024 * int(line.split()[1])
    raise ValueError(which)


def main(argv: list[str]) -> int:
    json_path = stop_after = None
    if argv[:1] == ['--json']:
        _, json_path, *argv = argv
    if argv[:1] == ['--stop_after']:
        stop_after = int(argv[1])
        argv = argv[2:]
    phases = Phases()
    with phases.phase('imports'):
        import torch

        import train
        from gpt1.run import data_cache
    updates = Updates(phases, train, torch, stop_after)
    phases.wrap(data_cache, 'read_data', 'reading')
    phases.wrap(data_cache, 'encode_data', 'encoding')
    phases.wrap(train, 'load_data', 'opening and keeping encoded data')
    phases.wrap(train, 'make_model', 'building the model')
    phases.wrap(train, 'make_trainer', 'building the optimizer')
    phases.wrap(train, 'load_openai_pretrained_model', 'loading weights')
    phases.wrap(train.FineTuning, 'evaluate', 'evaluation')
    phases.wrap(train.Trainer, '_save', 'saving checkpoints')
    phases.wrap(train.FineTuning, 'save_best', 'saving best parameters')
    phases.wrap(train, 'finish', 'prediction')
    phases.wrap(train.analysis, 'write_report', 'analysis')
    status = train.main(argv)
    total = time.perf_counter() - START
    phases.seconds['everything else'] = total - sum(phases.seconds.values())

    print()
    for name, seconds in phases.seconds.items():
        print(f'{name:32} {seconds:8.2f} s  {100 * seconds / total:5.1f} %')
    peak = memory('VmHWM')
    # The largest of the processes that encoded
    worker_peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(
        f'{"all":32} {total:8.2f} s; at most {peak / 1e9:.2f} GB of memory, '
        f'{worker_peak / 1e9:.2f} GB in a worker process'
    )
    if updates.first:
        wall, cpu = updates.first
        print(f'the first update began after {wall:.2f} s, {cpu:.2f} s of the processor')
    epochs = updates.epochs()
    for row in epochs:
        line = (
            f'epoch {row["epoch"]}: an update takes {row["first_s"]:.3f} s at the beginning and '
            f'{row["last_s"]:.3f} s at the end'
        )
        if row['resident_bytes']:
            line += f'; {row["resident_bytes"] / 1e9:.2f} GB after it'
        print(line)
    if json_path:
        figures = {
            'seconds': phases.seconds,
            'total': total,
            'peak_bytes': peak,
            'worker_peak_bytes': worker_peak,
            'first_update': updates.first,
            'updates': [s for seconds in updates.seconds.values() for s in seconds],
            'epochs': epochs,
            'argv': argv,
        }
        with open(json_path, 'w', encoding='utf-8') as f:
            json.dump(figures, f, indent=1)
            f.write('\n')
    return status


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
