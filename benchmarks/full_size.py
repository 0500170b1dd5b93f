"""Measure one epoch of a few dozen stories at full size: the time of each phase and the memory.

    python benchmarks/full_size.py --vocab FOLDER

`--vocab` is a folder with OpenAI's vocabulary (`python download.py` fetches it). Weights of the
published shape with random content and two small CSV files are written to a temporary folder, and
train.py runs on them through `benchmarks/run.py`. Printed are the time of each phase and the peak
memory of the process. Options after `--` are those of train.py.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

from make_shards import make_shards

from gpt1.tasks.rocstories import FILES, find_csv

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE = os.path.join(os.path.dirname(HERE), 'data', 'sample')
OPTIONS = '--dataset rocstories --submit --n_valid 16 --n_iter 1 --n_gpu 1'


def copy_stories(folder: str, n: int) -> None:
    """Write the first n stories of each of the sample's two files to `folder`."""
    for which, names in FILES.items():
        with open(find_csv(SAMPLE, which), encoding='utf-8') as source:
            lines = source.readlines()[: n + 1]  # with the header
        with open(os.path.join(folder, names[1]), 'w', encoding='utf-8') as target:
            target.writelines(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--vocab', required=True, help="folder with OpenAI's vocabulary")
    parser.add_argument(
        '--stories',
        type=int,
        default=48,
        help='number in each of the two files; 16 of the first are for validation',
    )
    parser.add_argument('options', nargs='*', help='options of train.py, after --')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f'{make_shards(args.vocab, folder):,} parameters in ten shards', flush=True)
        copy_stories(folder, args.stories)
        command = [sys.executable, os.path.join(HERE, 'run.py'), *OPTIONS.split()]
        command += ['--data_dir', folder, '--model_dir', folder]
        for name in ('log', 'save', 'submission', 'analysis'):
            command += [f'--{name}_dir', os.path.join(folder, name)]
        subprocess.run([*command, *args.options], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f'peak memory of the process: {peak / 2**20:.2f} GiB')


if __name__ == '__main__':
    main()
