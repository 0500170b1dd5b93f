"""One record of each run: what it was asked for, what it has read, how it ended.

train.py writes it as `run.json` to its folder in --save_dir and beside its predictions, pretrain.py
to --out, and zero_shot.py as a part of its result. It has the `id` of the run, which its log has
too; all that the results depend on (WHAT): the options after parsing, hashes of the content of the
files; the `commits` of the program; and whether the run is `finished`: only then there are scores.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import secrets
import subprocess
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence

from datasets import read_data, source_files
from gpt1 import ROOT
from gpt1.files import ENCODER_FILE, MERGES_FILE, RECORD_FILE, SHAPES_FILE
from gpt1.options import TRAIN, options_of
from utils import InputError, whole_file

WHAT = ('script', 'options', 'data', 'vocabulary', 'weights')  # what two equal runs have in common
VOCABULARIES = (ENCODER_FILE, MERGES_FILE, 'vocab.json', 'merges.txt', 'tokenizer.json')
OF_PROCESS = {'lock', 'running'}  # in a folder that this process holds: they stay


def read(folder: str) -> dict:
    """Return the record in a folder; {} if there is none or it is damaged."""
    return read_file(os.path.join(folder, RECORD_FILE))


def read_file(path: str) -> dict:
    """Return the JSON object in a file; {} if there is none or it is damaged."""
    record = None
    with contextlib.suppress(OSError, ValueError, RecursionError), open(path, 'rb') as f:
        record = json.loads(f.read())
    return record if isinstance(record, dict) else {}


def write(folder: str, record: dict) -> None:
    """Write a record to a folder. Raises WriteError."""
    with whole_file(os.path.join(folder, RECORD_FILE)) as f:
        json.dump(record, f, indent=1)


def begin(folder: str, about: dict, lines: Sequence[dict] = ()) -> dict:
    """Write the record of a run that starts or is resumed to its folder, and return it.

    lines  the log of the run that is resumed. One of before there were records has no id
    """
    before, record = read(folder), {**finished(about), 'finished': False}
    if lines:
        record['id'] = lines[0].get('id')
    if before.get('id') == record['id']:
        record['commits'] = sorted({*before.get('commits', []), *record['commits']})
    write(folder, record)
    return record


def finished(about: dict) -> dict:
    """Return the record of a run that has ended already."""
    return {'id': secrets.token_hex(8), **about, 'commits': commits(), 'finished': True}


def is_finished(folder: str, checkpoint: str, about: Callable[[], dict]) -> bool:
    """Return whether the run that is asked for is finished, and its checkpoint removed."""
    found = read(folder)
    if not found.get('finished') or os.path.exists(checkpoint):
        return False
    others = differences(found, about())
    if others:
        raise InputError(
            f'the run in {folder} is finished, and its checkpoint is removed ({others[0]}): start '
            'another one without --resume; --keep_checkpoint keeps what could be resumed'
        )
    print(f'the run in {folder} is finished: there is nothing to resume', flush=True)
    return True


def commits() -> list[str]:
    """Return the commit of the program, with a + if files were changed since; [] if not known."""
    command = ['git', '-C', ROOT, 'describe', '--always', '--exclude=*', '--dirty=+']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


def differences(there: dict, asked: dict) -> list[str]:
    """Return in words how a record differs from what a run was asked for; [] if it does not."""
    asked = json.loads(json.dumps(asked))
    before, now = there.get('options', {}), asked['options']
    names = [name for name in now if before.get(name) != now[name]]
    texts = [f'{name} was {before.get(name)}, is {now[name]}' for name in names]
    others = [key for key in WHAT if key != 'options' and there.get(key) != asked[key]]
    return texts + [f'other {key}' for key in others]


def determining(args: Namespace, script: str) -> dict:
    """Return the options that decide about an update."""
    values = {o.name: getattr(args, o.name) for o in options_of(script) if not o.free}
    if script == TRAIN:
        values['n_batch * n_gpu'] = args.n_batch * args.n_gpu
    return values


def of_training(args: Namespace) -> dict:
    """Return all that the results of train.py depend on."""
    return {
        'script': TRAIN,
        'options': determining(args, TRAIN),
        'data': data_hash(args.dataset, args.data_dir, args.n_valid),
        'vocabulary': vocabulary_hash(args.model_dir, args.encoder_path, args.bpe_path),
        'weights': weights_hash(args.model_dir) if args.n_transfer >= 0 else None,
    }


def data_hash(name: str, data_dir: str, n_valid: int | None = None) -> str:
    """Return a hash of the content of all files of a data set."""
    paths = source_files(name, data_dir) or read_data(name, data_dir, n_valid)[1].sources
    return content_hash(paths)


def vocabulary_hash(folder: str, *paths: str | None) -> str:
    """Return a hash of the vocabulary in a folder, or of those files that take its place."""
    there = [os.path.join(folder, name) for name in VOCABULARIES]
    return content_hash([*filter(os.path.isfile, there), *filter(None, paths)])


def weights_hash(folder: str) -> str:
    """Return a hash of the pre-trained weights in a folder, or of a file of parameters."""
    if os.path.isfile(folder):
        return content_hash([folder])
    endings = ('.safetensors', '.bin')
    if os.path.exists(os.path.join(folder, SHAPES_FILE)):
        endings = (SHAPES_FILE, '.npy')
    names = sorted(name for name in os.listdir(folder) if name.endswith(endings))
    return content_hash(os.path.join(folder, name) for name in names)


def examples_hash(examples: Iterable) -> str:
    """Return a hash of the texts of examples, without their labels."""
    return digest([[example.id, *example.texts] for example in examples])


def content_hash(paths: Iterable[str]) -> str:
    """Return a hash of the content of files in their order; not of their names and places."""
    return digest([file_hash(path) for path in paths])


def file_hash(path: str) -> list:
    """Return the size of a file in bytes, and the hash of its content (BLAKE2b)."""
    try:
        found = os.stat(path)
        return _file_hash(path, found.st_size, found.st_mtime_ns, found.st_ino)
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error


@functools.cache  # the numbers change when the file is written
def _file_hash(path: str, size: int, *_: int) -> list:
    with open(path, 'rb') as f:
        return [size, hashlib.file_digest(f, 'blake2b').hexdigest()]


def digest(values: Sequence) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def set_aside(desc: str, log_dir: str, save_dir: str, analysis_dir: str) -> None:
    """Rename all that an earlier run of this name has left: `desc` becomes `desc`.1, or .2, ...

    What is left of a run without any result is written over.
    """

    def places(name):
        folders = (log_dir, save_dir, analysis_dir)  # in log_dir, the folder is TensorBoard's
        log = os.path.join(log_dir, f'{name}.jsonl')
        return [log, *(os.path.join(folder, name) for folder in folders)]

    log, _, save, analysis = old = places(desc)
    if not _has_results(log, save, analysis):
        return
    names = (f'{desc}.{number}' for number in itertools.count(1))
    new = next(name for name in names if not any(map(os.path.lexists, places(name))))
    moves = {a: b for a, b in zip(old, places(new)) if os.path.lexists(a)}  # some may be the same
    try:
        for pair in moves.items():
            _rename(*pair)
    except OSError as error:
        raise InputError(f'cannot set the earlier run {desc} aside: {error}') from error
    print(f'the earlier run {desc} is now {new}: {", ".join(moves.values())}', flush=True)


def _has_results(log, save, analysis):
    kept = [os.path.join(save, name) for name in ('best_params', 'checkpoint')]
    if any(map(os.path.lexists, kept)) or (os.path.isdir(analysis) and os.listdir(analysis)):
        return True
    with contextlib.suppress(OSError), open(log, 'rb') as f:
        return b'"n_epochs"' in f.read()  # an evaluation
    return False


def _rename(old, new):
    names = set(os.listdir(old)) if os.path.isdir(old) else set()
    if not names & OF_PROCESS:
        os.rename(old, new)
        return
    os.makedirs(new)
    for name in names - OF_PROCESS:
        os.rename(os.path.join(old, name), os.path.join(new, name))
