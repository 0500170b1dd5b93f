"""Measure a few updates of train.py at full size: the seconds of each, and the peak memory.

    python benchmarks/full_size.py
    python benchmarks/full_size.py --stories 100 -- --precision bf16 --share_context

Weights and a vocabulary of the published sizes with random content and two small CSV files of the
sample's stories are written to a temporary folder, so nothing has to be fetched. train.py runs on
them in a process of its own. Options after `--` are those of train.py.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import gpt1.startup  # noqa: F401 (before the import of any library)

import train
from benchmarks.measuring import clock, peak_bytes
from benchmarks.others import make_weights
from benchmarks.pretrain import SIZES, Size
from gpt1.files import ENCODER_FILE, MERGES_FILE, SAMPLE_MODEL
from gpt1.run.training import Trainer
from gpt1.tasks.rocstories import FILES, find_csv
from gpt1.weights.openai import save_openai_shards
from model_pytorch import Config, LMModel

SAMPLE = os.path.join(ROOT, 'data', 'sample')
OPTIONS = '--dataset rocstories --submit --n_valid 16 --n_iter 1 --n_gpu 1'
FOLDERS = ('log', 'save', 'submission', 'analysis')  # that a run of train.py writes


def copy_stories(folder: str, n: int) -> None:
    """Write the first n stories of each of the sample's two files to `folder`."""
    for which, names in FILES.items():
        with open(find_csv(SAMPLE, which), encoding='utf-8') as source:
            lines = source.readlines()[: n + 1]  # with the header
        with open(os.path.join(folder, names[1]), 'w', encoding='utf-8') as target:
            target.writelines(lines)


def write_model(folder: str, size: Size) -> int:
    """Write random weights, and the sample's vocabulary with symbols that no text has.

    Returns the number of parameters.
    """
    shutil.copy(os.path.join(SAMPLE_MODEL, MERGES_FILE), folder)
    with open(os.path.join(SAMPLE_MODEL, ENCODER_FILE), encoding='utf-8') as f:
        symbols = json.load(f)
    for i in range(len(symbols), size.n_vocab):
        symbols[f'<{i}>'] = i
    with open(os.path.join(folder, ENCODER_FILE), 'w', encoding='utf-8') as f:
        json.dump(symbols, f)
    config = Config(
        n_vocab=len(symbols),
        n_ctx=512,
        n_embd=size.n_embd,
        n_head=size.n_head,
        n_layer=size.n_layer,
    )
    model = LMModel(config)
    model.load_state_dict(make_weights(LMModel, config))
    save_openai_shards(model, folder)
    return sum(p.numel() for p in model.parameters())


class TrainRun(NamedTuple):
    """What a run of train.py needed, and what it wrote to stderr."""

    seconds: float  # from the start to the end of its process
    updates: list[float]  # the seconds of each
    peak_bytes: int
    errors: str


def _train(argv, errors, before, connection):
    """Run train.py in this process, with its errors in a file and no other output."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    seconds, device = [], None
    update = Trainer.update

    def timed(trainer, items):
        nonlocal device
        result, device = [], trainer.device
        wall, _ = clock(device, lambda: result.append(update(trainer, items)))
        seconds.append(wall)
        return result[0]

    Trainer.update = timed
    if before:
        before()
    status = train.main(argv)
    if device is not None:
        connection.send((seconds, peak_bytes(device)))
    sys.exit(status)


def run_train(argv: list[str], before: Callable | None = None, method: str = 'spawn') -> TrainRun:
    """Run train.py in a process of its own. Raises RuntimeError if it fails.

    before  a function that the process calls first
    method  how the process starts, see `multiprocessing`
    """
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    updates, peak = [], 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'stderr')
        process = context.Process(target=_train, args=(argv, path, before, theirs))
        start = time.perf_counter()
        process.start()
        theirs.close()
        with contextlib.suppress(EOFError):  # it ended without a result
            updates, peak = ours.recv()
        process.join()
        seconds = time.perf_counter() - start
        with open(path, encoding='utf-8') as f:
            errors = f.read()
    if process.exitcode:
        raise RuntimeError(f'train.py ended with {process.exitcode}: {errors[-500:]}')
    return TrainRun(seconds, updates, peak, errors)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        '--stories',
        type=int,
        default=48,
        help='number in each of the two files; 16 of the first are for validation',
    )
    parser.add_argument('options', nargs='*', help='options of train.py, after --')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        size = SIZES['full']
        print(f'{write_model(folder, size):,} parameters', flush=True)
        copy_stories(folder, args.stories)
        options = [*OPTIONS.split(), '--data_dir', folder, '--model_dir', folder]
        for name in FOLDERS:
            options += [f'--{name}_dir', os.path.join(folder, name)]
        run = run_train(options + args.options)
    print('seconds of each update:', ' '.join(f'{seconds:.2f}' for seconds in run.updates))
    print(f'{statistics.median(run.updates):.2f} s an update, {run.seconds:.1f} s in all')
    print(f'peak memory of the process: {run.peak_bytes / 2**30:.2f} GiB')


if __name__ == '__main__':
    main()
