"""Measure what pre-training adds on the sample: test accuracy with it and without, over seeds.

    python benchmarks/sample_seeds.py --picture benchmarks/sample.png

Runs `python train.py --dataset rocstories --submit --analysis --n_gpu 8` on the sample's stories
for each seed, once as it stands and once with `--n_transfer -1`. The runs write to a temporary
folder. Prints a table, and draws the accuracy on the validation stories by epoch. Options after
`--` are those of train.py.
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
OPTIONS = (
    '--dataset rocstories --submit --analysis --n_gpu 8 '
    '--data_dir data/sample --model_dir model/sample'
)
VARIANTS = {'pre-trained': [], 'from scratch': ['--n_transfer', '-1']}


class Run(NamedTuple):
    accuracy: float  # on the test stories, in percent
    seconds: float
    epochs: list[float]  # accuracy on the validation stories after each epoch


def one_run(folder: str, options: list[str]) -> Run:
    """Run train.py once; it writes to `folder`."""
    start = time.perf_counter()
    command = [sys.executable, 'train.py', *OPTIONS.split()]
    for name in ('log', 'save', 'submission', 'analysis'):
        command += [f'--{name}_dir', os.path.join(folder, name)]
    result = subprocess.run(
        command + options, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.perf_counter() - start
    accuracy = re.search('ROCStories Test Accuracy: +([0-9.]+)', result.stdout).group(1)
    with open(os.path.join(folder, 'log', 'rocstories.jsonl'), encoding='utf-8') as f:
        lines = [json.loads(line) for line in f]
    return Run(float(accuracy), seconds, [line['va_acc'] for line in lines[1:]])


def draw(results: dict[str, list[Run]], path: str) -> None:
    """Draw the validation accuracy of all runs by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    for (name, runs), color in zip(results.items(), ('#0b6bcb', '#9aa5b1')):
        label = f'{name}, {len(runs)} seeds'
        for run in runs:
            x = range(1, len(run.epochs) + 1)
            axes.plot(x, run.epochs, color=color, alpha=0.8, marker='.', label=label)
            label = None  # one entry in the legend
    axes.axhline(50, color='black', linewidth=0.8, linestyle=':', label='chance')
    axes.set(
        xlabel='epoch',
        ylabel='accuracy in %',
        ylim=(40, 100),
        xticks=x,
        title='The sample: 374 validation stories',
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
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[1, 2, 3, 4, 5], help='one run of each kind a seed'
    )
    parser.add_argument('--picture', help='PNG file for the curves')
    parser.add_argument('options', nargs='*', help='options of train.py, after --')
    args = parser.parse_args(argv)
    results = {name: [] for name in VARIANTS}
    print(f'{"":14}{"seed":>5}{"test %":>8}{"seconds":>9}')
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for name, options in VARIANTS.items():
                path = os.path.join(folder, f'{name} {seed}')
                run = one_run(path, ['--seed', str(seed), *options, *args.options])
                results[name].append(run)
                print(f'{name:14}{seed:>5}{run.accuracy:>8.2f}{run.seconds:>9.0f}', flush=True)
    means = {}
    for name, runs in results.items():
        means[name] = statistics.mean(run.accuracy for run in runs)
        seconds = statistics.mean(run.seconds for run in runs)
        print(f'{name:14}{"mean":>5}{means[name]:>8.2f}{seconds:>9.0f}')
    print(f'{"gain":19}{means["pre-trained"] - means["from scratch"]:>8.2f} points')
    if args.picture:
        draw(results, args.picture)


if __name__ == '__main__':
    main()
