"""Where does the time of a whole run go?

    python benchmarks/run.py --dataset rocstories --data_dir data/sample --model_dir model/ --submit --analysis

Takes the options of train.py, runs it in this process, and prints what each phase took: imports, encoding, loading, the updates of each epoch,
evaluation, saving, prediction, analysis. A phase that another calls is counted once, in the inner one. After each epoch it also prints the memory held and
how long the first and the last updates of the epoch took: neither may grow. `--json FILE` (first) writes all that too.
"""

import collections
import contextlib
import functools
import json
import os
import statistics
import sys
import time

START = time.perf_counter()
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Phases:
    """Seconds of each phase, inner ones taken out of the outer."""

    def __init__(self):
        self.seconds = collections.Counter()
        self.inner = []  # seconds of the phases within each phase that is under way

    @contextlib.contextmanager
    def phase(self, name):
        start = time.perf_counter()
        self.inner.append(0)
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[name] += seconds - self.inner.pop()
            if self.inner:
                self.inner[-1] += seconds

    def wrap(self, owner, function, name):
        """Count the calls of owner.function to the phase `name`, or to what name(self) says."""
        original = getattr(owner, function)

        @functools.wraps(original)
        def timed(*args, **kwargs):
            with self.phase(name if isinstance(name, str) else name(*args)):
                return original(*args, **kwargs)

        setattr(owner, function, timed)


def resident_bytes(which='VmRSS'):
    """Memory held now, or (`VmHWM`) the most so far."""
    with open('/proc/self/status') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(which))


def main(argv):
    json_path = None
    if argv[:1] == ['--json']:
        _, json_path, *argv = argv
    phases = Phases()
    with phases.phase('imports'):
        import torch

        import train
    device_seconds = []

    def synchronized(update):
        """The time of an update is known when the device is done with it."""

        @functools.wraps(update)
        def timed(tuning, stories):
            start = time.perf_counter()
            figures = update(tuning, stories)
            if tuning.devices[0].type == 'cuda':
                torch.cuda.synchronize()
            device_seconds.append((tuning.n_epochs, time.perf_counter() - start))
            return figures

        return timed

    train.FineTuning.update = synchronized(train.FineTuning.update)
    memory = {}
    evaluate = train.FineTuning.evaluate

    def evaluate_and_note_memory(tuning, logger):
        evaluate(tuning, logger)
        memory[tuning.n_epochs] = resident_bytes()

    train.FineTuning.evaluate = evaluate_and_note_memory

    for owner, function, name in (
        (train, 'read_stories', 'reading and encoding'),
        (train, 'fill_model', 'loading weights'),
        (train, 'DoubleHeadModel', 'building the model'),
        (train.FineTuning, 'update', lambda tuning, _: f'epoch {tuning.n_epochs + 1}: updates'),
        (train.FineTuning, 'evaluate', 'evaluation'),
        (train.FineTuning, 'save_checkpoint', 'saving checkpoints'),
        (train.FineTuning, 'save_best', 'saving best parameters'),
        (train.FineTuning, 'predict_best', 'prediction'),
        (train.analysis, 'rocstories', 'analysis'),
        (train.analysis, 'write_report', 'analysis'),
    ):
        phases.wrap(owner, function, name)
    status = train.main(argv)
    total = time.perf_counter() - START
    phases.seconds['everything else'] = total - sum(phases.seconds.values())

    print()
    for name, seconds in phases.seconds.items():
        print(f'{name:26} {seconds:8.2f} s  {100 * seconds / total:5.1f} %')
    print(f'{"all":26} {total:8.2f} s; at most {resident_bytes("VmHWM") / 1e9:.2f} GB resident')
    epochs = []
    for epoch in sorted({epoch for epoch, _ in device_seconds}):
        seconds = [value for of, value in device_seconds if of == epoch]
        tenth = max(1, len(seconds) // 10)
        first, last = statistics.median(seconds[:tenth]), statistics.median(seconds[-tenth:])
        epochs.append(
            dict(epoch=epoch + 1, first_s=first, last_s=last, resident_bytes=memory[epoch + 1])
        )
        print(
            f'epoch {epoch + 1}: an update {first:.3f} s at the beginning, {last:.3f} s at the end; {memory[epoch + 1] / 1e9:.2f} GB resident after it'
        )
    if json_path:
        with open(json_path, 'w', encoding='utf-8') as f:
            json.dump(
                dict(
                    seconds=phases.seconds,
                    total=total,
                    peak_bytes=resident_bytes('VmHWM'),
                    epochs=epochs,
                    argv=argv,
                ),
                f,
                indent=1,
            )
            f.write('\n')
    return status


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
