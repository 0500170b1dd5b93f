"""How long do whole commands take, and how much memory: alone, and while other programs run?

    python benchmarks/commands.py                  # all three
    python benchmarks/commands.py full_size        # one of them
    python benchmarks/commands.py --busy           # also beside one busy process on each core
    python benchmarks/commands.py full_size --options --precision bf16 --share_context

sample     one epoch of train.py on the sample
full_size  train.py with a model and a vocabulary of the published sizes and random weights: four
           updates of 8 stories, and evaluations of 16
pretrain   pretrain.py, one epoch of a small model on the sample's stories

A core that two programs share does half as much for each of them, so a ratio of 2 is the least that
can be expected from a command that uses all cores.
"""

import argparse
import contextlib
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRONMENT = dict(os.environ)  # of the commands, which set for themselves how threads wait
sys.path.insert(0, ROOT)
import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np
import torch

from benchmarks.measuring import machine_name
from gpt1.files import ENCODER_FILE, MERGES_FILE, SAMPLE_MODEL
from gpt1.tasks.rocstories import FILES, find_csv
from gpt1.text.workers import available_cores

TRAIN = 'train.py --dataset rocstories --n_iter 1 --log_dir FOLDER/log --save_dir FOLDER/save'
COMMANDS = {  # FOLDER: see `prepare`
    'sample': TRAIN,
    'full_size': f'{TRAIN} --data_dir FOLDER --model_dir FOLDER --n_valid 16 --n_gpu 1 '
    '--n_transfer -1',
    'pretrain': 'pretrain.py --text FOLDER/text.txt --out FOLDER/model --n_merges 500 --n_iter 1 '
    '--n_layer 4 --n_head 4 --n_embd 128 --n_ctx 64 --n_windows 16 --warmup_updates 50',
}


def prepare(folder: str, n_stories: int = 48, n_vocab: int = 40478) -> None:
    """Write the sample's first stories, a text, and the vocabulary with symbols no text has."""
    for which, names in FILES.items():
        with open(find_csv(os.path.join(ROOT, 'data', 'sample'), which), encoding='utf-8') as f:
            lines = f.readlines()
        with open(os.path.join(folder, names[1]), 'w', encoding='utf-8') as f:
            f.writelines(lines[: n_stories + 1])  # with the header
    with open(os.path.join(folder, 'text.txt'), 'w', encoding='utf-8') as f:
        f.writelines(lines)
    shutil.copy(os.path.join(SAMPLE_MODEL, MERGES_FILE), folder)
    with open(os.path.join(SAMPLE_MODEL, ENCODER_FILE), encoding='utf-8') as f:
        symbols = json.load(f)
    symbols |= {f'<{i}>': i for i in range(len(symbols), n_vocab)}
    with open(os.path.join(folder, ENCODER_FILE), 'w', encoding='utf-8') as f:
        json.dump(symbols, f)


def run(words: list[str], folder: str) -> tuple[float, float, float]:
    """Run a script that writes its log below a folder. Ends this process if it fails.

    Returns its seconds in all, the median of those of its updates but the first, and the most GiB
    that it has held.
    """
    start = time.perf_counter()
    command = [sys.executable, *words, '--log_every', '1']
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f'error: {words[0]} failed')
    [log] = glob.glob(f'{folder}/**/*.jsonl', recursive=True)
    with open(log) as f:
        times = [line['time'] for line in map(json.loads, f) if 'grad_norm' in line]
    return seconds, statistics.median(np.diff(times)), usage.ru_maxrss / 2**20


@contextlib.contextmanager
def load(n: int):
    """Keep n cores busy, at most for as long as this process lives."""
    code = 'import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass'
    processes = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('commands', nargs='*', help='some of ' + ', '.join(COMMANDS))
    parser.add_argument('--busy', action='store_true', help='also beside one process a core')
    parser.add_argument('--options', nargs=argparse.REMAINDER, default=[], help='more, of it')
    args = parser.parse_args(argv)
    print(f'{machine_name(torch.device("cpu"))}, {available_cores()} cores; seconds')
    for name in args.commands or COMMANDS:
        alone = None
        for busy in (False, True) if args.busy else (False,):
            with tempfile.TemporaryDirectory() as folder, load(available_cores() if busy else 0):
                prepare(folder)
                words = COMMANDS[name].replace('FOLDER', folder).split()
                seconds, update, peak = run([*words, *args.options], folder)
            alone = alone or seconds
            line = f'{name:10} {"busy" if busy else "alone"} {seconds:.1f} in all, '
            line += f'{update:.2f} an update, {peak:.2f} GiB'
            print(f'{line}, {seconds / alone:.2f} times' if busy else line, flush=True)


if __name__ == '__main__':
    main()
