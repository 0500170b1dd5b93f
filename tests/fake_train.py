"""Stands in for train.py in the tests of paper.py: it sleeps, and writes what the real one does.

The environment says how long an epoch takes (FAKE_SECONDS), where to note each epoch that is begun
(FAKE_RECORD), and which run fails (FAKE_FAIL).
"""

import json
import os
import signal
import sys
import time

import numpy as np
from filelock import FileLock, Timeout

import analysis
import datasets

N_ITER = 3


def parse(words):
    """Options as the log has them."""
    args = {'n_iter': N_ITER, 'sample': ['made up'], 'n_layer': 2, 'n_transfer': 2}
    for word in words:
        if word.startswith('--'):
            name = word[2:]
            args[name] = True
        else:
            args[name] = int(word) if word.lstrip('-').isdigit() else word
    return args


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
    task, data = datasets.read_data(args['dataset'], args['data_dir'])
    checkpoint = os.path.join(folder, 'checkpoint')
    lines = [{**args, 'time': time.time()}]
    if args.get('resume') and os.path.exists(checkpoint):
        lines = read(checkpoint)
    names = ['cost', *map(analysis.log_name, task.metrics)]
    while len(lines) <= N_ITER:
        epoch = len(lines)
        with open(os.environ['FAKE_RECORD'], 'a') as f:
            f.write(f'{args["desc"]} {epoch} {os.getpid()}\n')
        time.sleep(float(os.environ['FAKE_SECONDS']))
        line = {'n_epochs': epoch, 'n_updates': epoch, 'time': time.time()}
        line |= {f'{kind}_{name}': 50 + epoch for kind in ('tr', 'va') for name in names}
        lines.append(line)
        path = os.path.join(args['log_dir'], f'{args["desc"]}.jsonl')
        write(path, ''.join(json.dumps(line) + '\n' for line in lines))
        write(checkpoint, json.dumps(lines))
        if stop:
            return False

    def predicted(sets):
        """All labels that are known are predicted right."""
        scores = np.eye(max(task.n_out, 2))
        return {name: (part, scores[[e.label or 0 for e in part]]) for name, part in sets.items()}

    folder = os.path.join(args['analysis_dir'], args['desc'])
    analysis.save_predictions(folder, task, predicted(data.test), predicted(data.valid))
    return True


def main():
    args = parse(sys.argv[1:])
    if os.environ.get('FAKE_FAIL') == args['desc']:
        print('train.py: error: something is wrong')
        return 2
    folder = os.path.join(args['save_dir'], args['desc'])
    os.makedirs(folder, exist_ok=True)
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    try:
        with FileLock(os.path.join(folder, 'lock'), timeout=0):
            return 0 if train(args, folder, stop) else 130
    except Timeout:
        print(f'train.py: error: another run is writing to {folder}: process 1')
        return 2


if __name__ == '__main__':
    sys.exit(main())
