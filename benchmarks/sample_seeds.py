"""What pre-training is worth on the sample: test accuracy with it and without, over seeds.

    python benchmarks/sample_seeds.py --picture benchmarks/sample.png

Runs `python train.py --dataset rocstories --submit --analysis --n_gpu 8` for each seed on the sample's stories, as it stands and with
`--n_transfer -1`, turn by turn, writing to a temporary folder; prints a table, and draws the accuracy on the validation stories by epoch.
Options after `--` go to train.py.
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

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VARIANTS = {'pre-trained': [], 'from scratch': ['--n_transfer', '-1']}


def one_run(folder, *options):
    """Test accuracy in %, seconds, and the validation accuracy after each epoch, of one run."""
    start = time.perf_counter()
    command = [
        sys.executable,
        os.path.join(ROOT, 'train.py'),
        '--dataset',
        'rocstories',
        '--submit',
        '--analysis',
        '--n_gpu',
        '8',
        '--data_dir',
        'data/sample',
        '--model_dir',
        'model/sample',
        *(
            f'--{name}_dir={os.path.join(folder, name)}'
            for name in ('log', 'save', 'submission', 'analysis')
        ),
        *options,
    ]
    printed = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    seconds = time.perf_counter() - start
    with open(os.path.join(folder, 'log', 'rocstories.jsonl')) as f:
        epochs = [line['va_acc'] for line in map(json.loads, list(f)[1:])]
    return (
        float(re.search('ROCStories Test Accuracy: +([0-9.]+)', printed).group(1)),
        seconds,
        epochs,
    )


def draw(curves, path):
    """curves: {variant: the validation accuracies of each run}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    for (name, runs), color in zip(curves.items(), ('#0b6bcb', '#9aa5b1')):
        for i, epochs in enumerate(runs):
            axes.plot(
                range(1, len(epochs) + 1),
                epochs,
                color=color,
                alpha=0.8,
                marker='.',
                label=None if i else f'{name}, {len(runs)} seeds',
            )
    axes.axhline(50, color='black', linewidth=0.8, linestyle=':', label='chance')
    axes.set(
        xlabel='epoch',
        ylabel='accuracy in %',
        ylim=(40, 100),
        xticks=range(1, len(epochs) + 1),
        title='The sample: 374 validation stories',
    )
    axes.grid(alpha=0.3)
    axes.legend(
        frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.14), ncols=3
    )  # below: a seed's curve may be anywhere
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(argv):
    parser = argparse.ArgumentParser(
        description='Test accuracy on the sample with and without pre-training.'
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3, 4, 5])
    parser.add_argument('--picture', help='a PNG file, for the curves')
    parser.add_argument('options', nargs='*', help='for train.py, after --')
    args = parser.parse_args(argv)
    results = {name: [] for name in VARIANTS}
    print(f'{"":14}{"seed":>5}{"test %":>8}{"seconds":>9}')
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for name, options in VARIANTS.items():
                accuracy, seconds, epochs = one_run(
                    os.path.join(folder, f'{name} {seed}'),
                    '--seed',
                    str(seed),
                    *options,
                    *args.options,
                )
                results[name].append((accuracy, seconds, epochs))
                print(f'{name:14}{seed:>5}{accuracy:>8.2f}{seconds:>9.0f}', flush=True)
    means = {
        name: [statistics.mean(column) for column in list(zip(*runs))[:2]]
        for name, runs in results.items()
    }
    for name, (accuracy, seconds) in means.items():
        print(f'{name:14}{"mean":>5}{accuracy:>8.2f}{seconds:>9.0f}')
    print(f'{"gain":19}{means["pre-trained"][0] - means["from scratch"][0]:>8.2f} points')
    if args.picture:
        draw(
            {name: [epochs for *_, epochs in runs] for name, runs in results.items()}, args.picture
        )


if __name__ == '__main__':
    main(sys.argv[1:])
