"""Stands in for train.py in the tests of paper.py: it sleeps, and writes what the real one does.

The environment says how long an epoch takes (FAKE_SECONDS), where to note each epoch that is begun
(FAKE_RECORD), and which run fails (FAKE_FAIL).
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from datasets import TASKS
from gpt1.parsing import parse_train_args
from gpt1.report.log import log_name
from gpt1.run import record
from utils import Held, whole_file


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(str(path)) as f:
        f.write(text)


def train(args, folder, stop):
    """Do the epochs that are left. Returns whether all are done."""
    about = record.of_training(args)
    checkpoint = folder / 'checkpoint'
    lines = json.loads(checkpoint.read_text()) if args.resume and checkpoint.exists() else []
    if not lines:
        record.set_aside(args.desc, args.log_dir, args.save_dir, args.analysis_dir)
    run = record.begin(str(folder), about, lines)
    lines = lines or [{**vars(args), 'id': run['id'], 'time': time.time()}]
    task = TASKS[args.dataset]
    names = ['cost', *map(log_name, task.metrics)]
    for epoch in range(len(lines), args.n_iter + 1):
        with open(os.environ['FAKE_RECORD'], 'a') as f:
            f.write(f'{args.desc} {epoch} {os.getpid()}\n')
        time.sleep(float(os.environ['FAKE_SECONDS']))
        line = {'n_epochs': epoch, 'n_updates': epoch, 'time': time.time()}
        lines.append(
            line | {f'{part}_{name}': 50 + epoch for part in ('tr', 'va') for name in names}
        )
        log = ''.join(json.dumps(line) + '\n' for line in lines)
        write(Path(args.log_dir, f'{args.desc}.jsonl'), log)
        write(checkpoint, json.dumps(lines))
        if stop:
            return False
    scores = [['valid', 'valid', metric, 100.0] for metric in task.metrics]
    noise = [[*row[:3], 1.0, 50.0] for row in scores]
    facts = {'sizes': {'training': 2}, 'device': 'cpu', 'sample': ['made up'], 'best': lines[-1]}
    record.write(str(folder), {**run, **facts, 'finished': True, 'scores': scores, 'noise': noise})
    return True


def main():
    args = parse_train_args(sys.argv[1:])
    if os.environ.get('FAKE_FAIL') == args.desc:
        print('train.py: error: something is wrong')
        return 2
    folder = Path(args.save_dir, args.desc)
    folder.mkdir(parents=True, exist_ok=True)
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    try:
        with FileLock(folder / 'lock', timeout=0):
            return 0 if train(args, folder, stop) else 130
    except Timeout:
        return Held.status


if __name__ == '__main__':
    sys.exit(main())
