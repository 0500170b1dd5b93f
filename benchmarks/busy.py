"""How much slower is a run while other programs keep every core busy?

    python benchmarks/busy.py
    python benchmarks/busy.py --repeats 3    # turns; the medians are printed

Three whole commands run in turns, first alone, then beside one busy process on each core:

sample      one epoch of train.py on the sample
full size   train.py with a model of the paper's size and random weights: two updates, and the
            evaluation of eight stories before and after them
pretrain    pretrain.py, one epoch of a small model on the sample's stories

A core that two programs share does half as much for each of them, so a ratio of 2 is the least
that can be expected from a command that uses all cores. The load is a Python loop.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRONMENT = dict(os.environ)  # of the commands, which set for themselves how threads wait
sys.path.insert(0, ROOT)
import gpt1.startup  # noqa: F401 (before the import of any library)

from benchmarks.full_size import SAMPLE, copy_stories
from benchmarks.measuring import cpu_name
from gpt1.tasks.rocstories import find_csv
from gpt1.text.workers import available_cores

FULL_SIZE = '--n_layer 12 --n_head 12 --n_embd 768 --n_transfer -1 --n_batch 8 --n_gpu 1'
TRAIN = 'train.py --dataset rocstories --n_iter 1 --log_dir FOLDER/log --save_dir FOLDER/save'
COMMANDS = {
    'sample': TRAIN,
    'full size': f'{TRAIN} --data_dir FOLDER/stories --n_valid 8 {FULL_SIZE}',
    'pretrain': 'pretrain.py --text FOLDER/text.txt --out FOLDER/model --n_merges 500 --n_iter 1 '
    '--n_layer 4 --n_head 4 --n_embd 128 --n_ctx 64 --n_windows 16 --warmup_updates 50',
}
N_STORIES = 24  # 8 of them are for validation
N_LINES = 500  # of the text for pre-training


@contextlib.contextmanager
def load(n: int) -> Iterator[None]:
    """Keep n cores busy."""
    processes = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def make_input(folder: str) -> None:
    """Write a few stories and a text."""
    stories = os.path.join(folder, 'stories')
    os.mkdir(stories)
    copy_stories(stories, N_STORIES)
    with open(find_csv(SAMPLE, 'test'), encoding='utf-8') as stories_of_sample:
        lines = stories_of_sample.readlines()[:N_LINES]
    with open(os.path.join(folder, 'text.txt'), 'w', encoding='utf-8') as text:
        text.writelines(lines)


def seconds(command: str, folder: str) -> float:
    """Run a command. Returns its time."""
    words = [word.replace('FOLDER', folder) for word in command.split()]
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    if process.returncode:
        sys.exit(f'{command}: status {process.returncode}\n{process.stdout}{process.stderr}')
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--repeats', type=int, default=2, help='turns (default: 2)')
    args = parser.parse_args(argv)
    n_cores = available_cores()
    print(f'{cpu_name()}, {n_cores} cores', flush=True)
    print(f'{"command":<12}{"quiet s":>9}{"busy s":>9}{"ratio":>7}')
    for name, command in COMMANDS.items():
        times = [], []
        for _ in range(args.repeats):
            for busy in False, True:
                with tempfile.TemporaryDirectory() as folder:
                    make_input(folder)
                    with load(n_cores if busy else 0):
                        times[busy].append(seconds(command, folder))
        quiet, busy = map(statistics.median, times)
        print(f'{name:<12}{quiet:9.1f}{busy:9.1f}{busy / quiet:7.2f}', flush=True)


if __name__ == '__main__':
    main()
