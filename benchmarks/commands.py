"""How long do whole commands take, and how much memory: alone, and while other programs run?

    python benchmarks/commands.py                  # all three
    python benchmarks/commands.py full_size        # one of them
    python benchmarks/commands.py --busy           # also beside one busy process on each core
    python benchmarks/commands.py full_size --options --precision bf16 --share_context

sample     one epoch of train.py on the sample
full_size  train.py with a model and a vocabulary of the published sizes and random weights: four
           updates of 8 stories, and evaluations of 16
pretrain   pretrain.py, one epoch of a small model on the sample's stories

A core that two programs share does half as much for each of
them, so a ratio of 2 is the least that can be expected from a command that uses all cores.
"""

import argparse
import contextlib
import importlib
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

import torch

from benchmarks.measuring import clock, machine_name, peak_bytes
from gpt1.files import ENCODER_FILE, MERGES_FILE, SAMPLE_MODEL
from gpt1.run.training import Trainer
from gpt1.tasks.rocstories import FILES, find_csv
from gpt1.text.workers import available_cores

N_VOCAB = 40478
TRAIN = 'train.py --dataset rocstories --n_iter 1 --log_dir F/log --save_dir F/save'
COMMANDS = {  # F is a folder, see `prepare`
    'sample': TRAIN,
    'full_size': f'{TRAIN} --data_dir F --model_dir F --n_valid 16 --n_gpu 1 --n_transfer -1',
    'pretrain': 'pretrain.py --text F/text.txt --out F/model --n_merges 500 --n_iter 1 '
    '--n_layer 4 --n_head 4 --n_embd 128 --n_ctx 64 --n_windows 16 --warmup_updates 50',
}


def prepare(folder: str, n_stories: int = 48, n_vocab: int = N_VOCAB) -> None:
    """Write the sample's first stories, a text of them, and a vocabulary of n_vocab symbols.

    The vocabulary is the sample's with symbols that no text has.
    """
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


def run_here(script: str, *argv: str) -> int:
    """Run a script in this process. Writes the seconds of its updates and its peak memory."""
    seconds, update, device = [], Trainer.update, torch.device('cpu')

    def timed(trainer, items):
        nonlocal device
        result, device = [], trainer.device
        seconds.append(clock(device, lambda: result.append(update(trainer, items)))[0])
        return result[0]

    Trainer.update = timed
    status = importlib.import_module(script.removesuffix('.py')).main(list(argv))
    print(json.dumps([seconds, peak_bytes(device)]))
    return status


def run(*words: str) -> tuple[float, list[float], int]:
    """Run a script. Returns its seconds in all, those of its updates, and its peak memory.

    Raises RuntimeError if it fails.
    """
    command = [sys.executable, os.path.abspath(__file__), '--run', *words]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{words[0]}: status {done.returncode}: {done.stderr[-500:]}')
    return time.perf_counter() - start, *json.loads(done.stdout.splitlines()[-1])


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


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ['--run']:
        return run_here(*argv[1:])
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('commands', nargs='*', help='some of ' + ', '.join(COMMANDS))
    parser.add_argument('--busy', action='store_true', help='also beside one process a core')
    parser.add_argument('--options', nargs=argparse.REMAINDER, default=[], help='more, of it')
    args = parser.parse_args(argv)
    print(f'{machine_name(torch.device("cpu"))}, {available_cores()} cores; seconds')
    for name in args.commands or COMMANDS:
        seconds = {}
        for busy in [False, True][: 1 + args.busy]:
            with tempfile.TemporaryDirectory() as folder, load(available_cores() if busy else 0):
                prepare(folder)
                words = [word.replace('F/', f'{folder}/') for word in COMMANDS[name].split()]
                words = [folder if word == 'F' else word for word in words]
                seconds[busy], updates, peak = run(*words, *args.options)
            line = f'{name:10} {"busy" if busy else "alone"} {seconds[busy]:.1f} in all, '
            line += f'{statistics.median(updates):.2f} an update, {peak / 2**30:.2f} GiB'
            if busy:
                line += f', {seconds[True] / seconds[False]:.2f} times'
            print(line, flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
