"""What pre-training is worth on the sample: test accuracy with it and without, over seeds.

    python benchmarks/sample_seeds.py

Runs `python train.py --dataset rocstories --submit --analysis --n_gpu 8` for each seed on the sample's stories, as it stands and with
`--n_transfer -1`, writing to a temporary folder, and prints a table. Options after `--` go to train.py.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def accuracies(folder, *options):
    """Validation and test accuracy in %, and seconds, of one run."""
    start = time.perf_counter()
    command = [sys.executable, os.path.join(ROOT, 'train.py'), '--dataset', 'rocstories', '--submit', '--analysis', '--n_gpu', '8',
               '--data_dir', 'data/sample', '--model_dir', 'model/sample',
               *(f'--{name}_dir={os.path.join(folder, name)}' for name in ('log', 'save', 'submission', 'analysis')), *options]
    printed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    valid, test = (float(re.search(f'ROCStories {name} Accuracy: +([0-9.]+)', printed).group(1)) for name in ('Valid', 'Test'))
    return valid, test, time.perf_counter() - start


def main(argv):
    parser = argparse.ArgumentParser(description='Test accuracy on the sample with and without pre-training.')
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3, 4, 5])
    parser.add_argument('options', nargs='*', help='for train.py, after --')
    args = parser.parse_args(argv)
    means = {}
    print(f'{"":26}{"seed":>4}{"valid %":>9}{"test %":>8}{"seconds":>9}')
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (('pre-trained', []), ('from scratch', ['--n_transfer', '-1'])):
            results = []
            for seed in args.seeds:
                results.append(accuracies(folder, '--seed', str(seed), *options, *args.options))
                print(f'{name:26}{seed:4}{results[-1][0]:9.2f}{results[-1][1]:8.2f}{results[-1][2]:9.0f}', flush=True)
            valid, test, seconds = (list(column) for column in zip(*results))
            means[name] = statistics.mean(test)
            print(f'{name + ", mean":30}{statistics.mean(valid):9.2f}{means[name]:8.2f}{statistics.mean(seconds):9.0f}', flush=True)
    print(f'{"gain":30}{"":9}{means["pre-trained"] - means["from scratch"]:8.2f} points')


if __name__ == '__main__':
    main(sys.argv[1:])
