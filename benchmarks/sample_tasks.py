"""Measure what pre-training adds on the sample data: every task with it and without, over seeds.

    python benchmarks/sample_tasks.py
    python benchmarks/sample_tasks.py --datasets rocstories --seeds 1 2 3 4 5 \
        --picture benchmarks/sample.png

Runs `python train.py --dataset NAME --submit --analysis --n_gpu 8` on the sample data for each
seed, once as it stands and once with `--n_transfer -1`. The runs write to a temporary folder.
Prints the first metric of each task with the best parameters, on the test set if it has labels,
else on the validation set. Options after `--` are those of train.py.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import gpt1.startup  # noqa: F401 (before the import of any library)

from datasets import TASKS
from gpt1.report.log import METRIC_NAMES, log_name, split_log

VARIANTS = {'pre-trained': [], 'from scratch': ['--n_transfer', '-1']}


class Run(NamedTuple):
    """What a run of train.py gave."""

    metric: float  # times 100
    measured_on: str  # 'Test' or 'Valid'
    seconds: float
    epochs: list[float]  # the metric on the validation set after each epoch


def one_run(folder: str, dataset: str, options: list[str]) -> Run:
    """Run train.py once; it writes to `folder`."""
    command = [sys.executable, 'train.py', '--dataset', dataset]
    command += '--submit --analysis --n_gpu 8 --data_dir data/sample'.split()
    command += ['--model_dir', 'model/sample']
    for name in ('log', 'save', 'submission', 'analysis'):
        command += [f'--{name}_dir', os.path.join(folder, name)]
    start = time.perf_counter()
    result = subprocess.run(
        command + options, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.perf_counter() - start
    metric = TASKS[dataset].metrics[0]
    line = re.compile(rf'(Test|Valid) {METRIC_NAMES[metric]}[^:]*: +(-?[0-9.]+)')
    found = {on: float(value) for on, value in reversed(line.findall(result.stdout))}
    on = 'Test' if 'Test' in found else 'Valid'
    with open(os.path.join(folder, 'log', f'{dataset}.jsonl'), encoding='utf-8') as f:
        log = split_log([json.loads(line) for line in f])
    epochs = [line[f'va_{log_name(metric)}'] for line in log.evaluations]
    return Run(found[on], on, seconds, epochs)


def draw(dataset: str, results: dict[str, list[Run]], path: str) -> None:
    """Draw the metric on the validation set of all runs by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    for (name, runs), color in zip(results.items(), ('#0b6bcb', '#9aa5b1')):
        label = f'{name}, {len(runs)} seeds'
        for run in runs:
            x = range(1, len(run.epochs) + 1)
            axes.plot(x, run.epochs, color=color, alpha=0.8, marker='.', label=label)
            label = None  # one entry in the legend
    task = TASKS[dataset]
    axes.set(
        xlabel='epoch',
        ylabel=f'{METRIC_NAMES[task.metrics[0]].lower()} in %',
        ylim=(40, 101),
        xticks=x,
        title=f'{task.title}, sample data: validation set',
    )
    axes.grid(alpha=0.3)
    # Below the axes: the curve of a seed may be anywhere in them.
    axes.legend(frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.14), ncols=3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    names = [name for name in TASKS if name != 'custom']
    parser.add_argument('--datasets', nargs='+', choices=names, default=names, metavar='NAME')
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3])
    parser.add_argument('--picture', help='PNG file for the curves of the first data set')
    parser.add_argument('options', nargs='*', help='options of train.py, after --')
    args = parser.parse_args(argv)
    print(f'{"":12}{"metric":>20}{"pre-trained":>13}{"scratch":>9}{"gain":>7}{"seconds":>9}')
    with tempfile.TemporaryDirectory() as folder:
        for dataset in args.datasets:
            results = {name: [] for name in VARIANTS}
            for name, options in VARIANTS.items():
                for seed in args.seeds:
                    path = os.path.join(folder, f'{dataset} {name} {seed}')
                    run = one_run(path, dataset, ['--seed', str(seed), *options, *args.options])
                    results[name].append(run)
            print_row(dataset, results)
            if args.picture and dataset == args.datasets[0]:
                draw(dataset, results, args.picture)


def print_row(dataset: str, results: dict[str, list[Run]]) -> None:
    """Print the means over the seeds, and below them the scores of each seed."""
    runs = [run for some in results.values() for run in some]
    means = [statistics.mean(run.metric for run in some) for some in results.values()]
    metric = f'{runs[0].measured_on.lower()} {TASKS[dataset].metrics[0]}'
    seconds = statistics.mean(run.seconds for run in runs)
    print(
        f'{dataset:12}{metric:>20}{means[0]:>13.2f}{means[1]:>9.2f}{means[0] - means[1]:>7.2f}'
        f'{seconds:>9.0f}'
    )
    for name, some in results.items():
        print(f'{"":12}{name}: {", ".join(f"{run.metric:.2f}" for run in some)}', flush=True)


if __name__ == '__main__':
    main()
