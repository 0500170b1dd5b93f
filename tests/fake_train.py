"""Stands in for train.py in the tests of paper.py: it sleeps, and writes what the real one does.

The environment says how long an epoch takes (FAKE_SECONDS), where to note each epoch that is begun
(FAKE_RECORD), and which run fails (FAKE_FAIL).
"""

import json
import os
import signal
import sys
import time

from filelock import FileLock, Timeout

from datasets import TASKS
from gpt1.parsing import parse_train_args
from gpt1.report.log import log_name
from gpt1.run import record
from utils import Held


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f'{path}.part', 'w') as f:
        f.write(text)
    os.replace(f'{path}.part', path)


def read(path):
    with open(path) as f:
        return json.load(f)


def train(args, folder, stop):
    """Do the epochs that are left. Returns whether all are done."""
    about = record.of_training(args)
    checkpoint = os.path.join(folder, 'checkpoint')
    lines = read(checkpoint) if args.resume and os.path.exists(checkpoint) else []
    if not lines:
        record.set_aside(args.desc, args.log_dir, args.save_dir, args.analysis_dir)
    run = record.begin(folder, about, lines)
    lines = lines or [{**vars(args), 'id': run['id'], 'time': time.time()}]
    task = TASKS[args.dataset]
    names = ['cost', *map(log_name, task.metrics)]
    while len(lines) <= args.n_iter:
        epoch = len(lines)
        with open(os.environ['FAKE_RECORD'], 'a') as f:
            f.write(f'{args.desc} {epoch} {os.getpid()}\n')
        time.sleep(float(os.environ['FAKE_SECONDS']))
        line = {'n_epochs': epoch, 'n_updates': epoch, 'time': time.time()}
        line |= {f'{kind}_{name}': 50 + epoch for kind in ('tr', 'va') for name in names}
        lines.append(line)
        path = os.path.join(args.log_dir, f'{args.desc}.jsonl')
        write(path, ''.join(json.dumps(line) + '\n' for line in lines))
        write(checkpoint, json.dumps(lines))
        if stop:
            return False
    scores = [['valid', 'valid', metric, 100.0] for metric in task.metrics]
    noise = [[*row[:3], 1.0, 50.0] for row in scores]
    facts = {'sizes': {'training': 2}, 'device': 'cpu', 'sample': ['made up'], 'best': lines[-1]}
    record.write(folder, {**run, **facts, 'finished': True, 'scores': scores, 'noise': noise})
    return True


def main():
    args = parse_train_args(sys.argv[1:])
    if os.environ.get('FAKE_FAIL') == args.desc:
        print('train.py: error: something is wrong')
        return 2
    folder = os.path.join(args.save_dir, args.desc)
    os.makedirs(folder, exist_ok=True)
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    try:
        with FileLock(os.path.join(folder, 'lock'), timeout=0):
            return 0 if train(args, folder, stop) else 130
    except Timeout:
        return Held.status


if __name__ == '__main__':
    sys.exit(main())
