"""What the results of pretrain.py and zero_shot.py depend on, for their records: see `record`."""

import os
from argparse import Namespace

from datasets import find_data, find_dprd
from gpt1.options import PRETRAIN
from gpt1.run import record
from gpt1.settings import read_settings
from gpt1.text.text_files import find_texts

ZERO_SHOT_SETS = ('cola', 'sst2', 'race')  # and pronouns, which are one file


def of_pretraining(args: Namespace) -> dict:
    """Return all that the results of pretrain.py depend on."""
    texts = [[name, *record.file_hash(path)] for name, path in find_texts(args.text)[0]]
    zero_shot = zero_shot_hash(args.zero_shot_data) if args.zero_shot else None
    vocabulary = args.vocabulary or args.init
    more = {'zero_shot': args.zero_shot, 'settings': args.settings}
    return {
        'script': PRETRAIN,
        'options': record.determining(args, PRETRAIN) | more,
        'data': {'text': record.digest(texts), 'zero-shot': zero_shot},
        'vocabulary': record.vocabulary_hash(vocabulary) if vocabulary else None,
        'weights': record.weights_hash(args.init) if args.init else None,
    }


def of_zero_shot(args: Namespace, model: str) -> dict:
    """Return all that the results of zero_shot.py depend on. `model` is a folder or a file."""
    folder = model if os.path.isdir(model) else os.path.dirname(model) or '.'
    settings = read_settings(folder)
    options = {name: getattr(args, name) for name in ('n_examples', 'precision')}
    options['words'] = list(args.words)
    for name, usual in (('n_head', 12), ('afn', 'gelu')):
        options[name] = getattr(args, name) or settings.get(name, usual)
    return {
        'script': 'zero_shot.py',
        'options': options,
        'data': zero_shot_hash(args.data_dir),
        'vocabulary': record.vocabulary_hash(folder),
        'weights': record.weights_hash(model),
    }


def zero_shot_hash(data_dir: str | None) -> str:
    """Return a hash of the data sets of zero_shot.py. Raises InputError."""
    folders = {name: find_data(name, data_dir, or_sample=True)[0] for name in ZERO_SHOT_SETS}
    hashes = [record.data_hash(name, folder) for name, folder in folders.items()]
    return record.digest([*hashes, record.content_hash([find_dprd(data_dir)[0]])])
