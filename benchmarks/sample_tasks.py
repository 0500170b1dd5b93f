"""Measure what pre-training adds on the sample data: every task with it and without, over seeds.

    python benchmarks/sample_tasks.py
    python benchmarks/sample_tasks.py --datasets rocstories --seeds 1 2 3 4 5 \
        --picture benchmarks/sample.png

Runs `python train.py --dataset NAME --submit --n_gpu 8` on the sample data for each seed, once as
it stands and once with `--n_transfer -1`. Prints the first metric of each task with the best
parameters, on the test set if it has labels, else on the validation set. Options after `--` are
those of train.py.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import gpt1.startup  # noqa: F401 (before the import of any library)

from datasets import TASKS
from gpt1.report.log import log_name

VARIANTS = {'pre-trained': [], 'from scratch': ['--n_transfer', '-1']}


def one_run(dataset: str, options: list[str]) -> tuple[str, float, list[float]]:
    """Run train.py. Returns what its score is of, the score, and that of each epoch in validation.

    Scores are times 100.
    """
    command = f'train.py --dataset {dataset} --submit --n_gpu 8 --data_dir data/sample'.split()
    with tempfile.TemporaryDirectory() as folder:
        for name in ('log', 'save', 'submission', 'analysis'):
            command += [f'--{name}_dir', os.path.join(folder, name)]
        command += ['--model_dir', 'model/sample', *options]
        subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        with open(os.path.join(folder, 'save', dataset, 'run.json'), encoding='utf-8') as f:
            scores = json.load(f)['scores']
        with open(os.path.join(folder, 'log', f'{dataset}.jsonl'), encoding='utf-8') as f:
            lines = [json.loads(line) for line in f]
    metric = TASKS[dataset].metrics[0]
    found = {split: value for split, _, name, value in reversed(scores) if name == metric}
    split = 'test' if 'test' in found else 'valid'
    epochs = [line[f'va_{log_name(metric)}'] for line in lines if 'n_epochs' in line]
    return f'{split} {metric}', found[split], epochs


def draw(dataset: str, curves: dict[str, list[list[float]]], path: str) -> None:
    """Draw the metric on the validation set of all runs by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    for (name, runs), color in zip(curves.items(), ('#0b6bcb', '#9aa5b1')):
        label = f'{name}, {len(runs)} seeds'
        for epochs in runs:
            x = range(1, len(epochs) + 1)
            axes.plot(x, epochs, color=color, alpha=0.8, marker='.', label=label)
            label = None  # one entry in the legend
    task = TASKS[dataset]
    title = f'{task.title}, sample data: validation set'
    axes.set(
        xlabel='epoch', ylabel=f'{task.metrics[0]} in %', ylim=(40, 101), xticks=x, title=title
    )
    axes.grid(alpha=0.3)
    # Below the axes: the curve of a seed may be anywhere in them.
    axes.legend(frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.14), ncols=3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    names = [name for name in TASKS if name != 'custom']
    parser.add_argument('--datasets', nargs='+', choices=names, default=names, metavar='NAME')
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3])
    parser.add_argument('--picture', help='PNG file for the curves of the first data set')
    parser.add_argument('options', nargs='*', help='options of train.py, after --')
    args = parser.parse_args(argv)
    print(f'{"":12}{"metric":>20}  {"pre-trained, of each seed":36}from scratch')
    for dataset in args.datasets:
        means, scores, curves = [], [], {}
        for name, options in VARIANTS.items():
            more = [*options, *args.options]
            runs = [one_run(dataset, [f'--seed={seed}', *more]) for seed in args.seeds]
            metrics, values, curves[name] = zip(*runs)
            means.append(statistics.mean(values))
            scores.append(' '.join(f'{value:.2f}' for value in values))
        cells = [f'{mean:.2f} ({each})' for mean, each in zip(means, scores)]
        gain = means[0] - means[1]
        print(f'{dataset:12}{metrics[0]:>20}  {cells[0]:36}{cells[1]}; gain {gain:.2f}', flush=True)
        if args.picture and dataset == args.datasets[0]:
            draw(dataset, curves, args.picture)


if __name__ == '__main__':
    main()
