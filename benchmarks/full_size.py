"""One epoch of a few dozen stories at full size: how long loading takes, and how much memory the command needs.

    python benchmarks/full_size.py --vocab FOLDER

`--vocab` holds OpenAI's vocabulary (`python download.py` fetches it). Writes weights of the published shape with random content and two small CSV files to a
temporary folder, runs train.py on them through `benchmarks/run.py`, and prints the time of each phase and the peak memory of the process.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile

from make_shards import make_shards

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from datasets import FILES, find_csv

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE = os.path.join(os.path.dirname(HERE), 'data', 'sample')


def main():
    parser = argparse.ArgumentParser(
        description='Time and memory of train.py at full size, on weights of random content.'
    )
    parser.add_argument(
        '--vocab',
        required=True,
        help="folder with OpenAI's encoder_bpe_40000.json and vocab_40000.bpe",
    )
    parser.add_argument(
        '--stories',
        type=int,
        default=48,
        help='in each of the two files; 16 of the first are for validation',
    )
    parser.add_argument('options', nargs='*', help='for train.py, after --')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f'{make_shards(args.vocab, folder):,} floats in ten shards')
        for which in FILES:
            with (
                open(find_csv(SAMPLE, which), encoding='utf-8') as source,
                open(os.path.join(folder, FILES[which][1]), 'w', encoding='utf-8') as target,
            ):
                target.writelines(line for line, _ in zip(source, range(args.stories + 1)))
        outputs = [
            f'--{name}_dir={os.path.join(folder, name)}'
            for name in ('log', 'save', 'submission', 'analysis')
        ]
        subprocess.run(
            [
                sys.executable,
                os.path.join(HERE, 'run.py'),
                '--dataset',
                'rocstories',
                '--submit',
                '--data_dir',
                folder,
                '--model_dir',
                folder,
                '--n_valid',
                '16',
                '--n_iter',
                '1',
                '--n_gpu',
                '1',
                *outputs,
                *args.options,
            ],
            check=True,
        )
        print(
            f'peak memory of the process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20:.2f} GiB'
        )


if __name__ == '__main__':
    main()
