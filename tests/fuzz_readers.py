"""The readers that `test_fuzz.py` feeds: how to make a whole file, and how to read it."""

import functools
import io
import json
import math
import os
import shutil
import signal
import tempfile
import types
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from conftest import GOLDEN, Command
from safetensors.torch import load_file as load_safetensors
from tiny_models import REGRESSION, save_finetuned

import train
from datasets import TASKS, read_examples
from gpt1.report.log import read_log
from gpt1.report.predictions import read_predictions, write_predictions
from gpt1.run.parallel import Ranks
from gpt1.tasks.rocstories import FILES, find_csv
from gpt1.tasks.task import Example
from gpt1.weights.export import save_huggingface
from gpt1.weights.open import OpenedModel, open_model
from gpt1.weights.openai import OpenAIShards
from gpt1.weights.parameters import load_parameters
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import open_encoder, read_vocabulary_of
from model_pytorch import Config, DoubleHeadModel, init_weights
from text_utils import TextEncoder, read_merges, read_vocabulary
from utils import InputError

SECONDS = 20  # one input may take, on a busy machine
GOLDEN_MODEL = os.path.join(GOLDEN, 'model')


class Hostile:
    """Pickled, it would write a file when it is loaded."""

    marker = os.path.join(tempfile.gettempdir(), f'test_fuzz_{os.getpid()}_ran')

    def __reduce__(self):
        return open, (self.marker, 'w')


def saved(state):
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def rebuilt(archive, change):
    """Return a zip archive with each entry changed by `change(name, bytes)`; its checksums hold."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(out, 'w') as target:
        for entry in source.infolist():
            target.writestr(entry.filename, change(entry.filename, source.read(entry)))
    return out.getvalue()


@dataclass
class Reader:
    """A file that a program reads.

    path    where it lies, whole when this is made
    read    raises InputError; AssertionError if what it returns is wrong
    n       inputs to try
    """

    path: Path
    read: Callable[[str], None]
    n: int = 40

    def __post_init__(self):
        self.whole = self.path.read_bytes()

    def attempt(self, data):
        """Return 'accepted', 'refused', or what went wrong."""
        self.path.write_bytes(data)
        signal.alarm(SECONDS)
        try:
            self.read(str(self.path))
            outcome = 'accepted'
        except InputError as error:
            is_line = len(str(error).splitlines()) == 1
            outcome = 'refused' if is_line else f'a message of several lines: {error!r}'
        except BaseException as error:
            outcome = f'{type(error).__name__}: {error}'
        finally:
            signal.alarm(0)
        return 'it ran code' if os.path.exists(Hostile.marker) else outcome


# ---------------------------------------------------------------------------- a reader each

VAL = Path(find_csv(os.path.join(GOLDEN, 'data'), 'val')).read_text()
EXAMPLES = {  # a file to predict, in the format of some task
    'sst2': ('x.tsv', 'sentence\tlabel\nit was fun .\t1\nit was " dull\t0\n'),
    'mnli': ('x.jsonl', '{"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}\n' * 2),
    'stsb': ('x.tsv', 'index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.6\n1\tc\td\t5\n'),
    'cola': ('x.tsv', 'gj04\t1\t\tA cat sat.\ngj04\t0\t*\tsat cat\n'),
    'mrpc': ('x.txt', '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t2\t3\ta\tb\r\n'),
    'race': (
        'x.txt',
        '{"answers": ["A"], "options": [["a", "b", "c", "d"]], "questions": ["q _ ?"], '
        '"article": "x\\ny", "id": "high1.txt"}',
    ),
    'rocstories': ('x.csv', VAL[: VAL.rindex('\n', 0, 2000)]),
    'csv': ('x.csv', 'text,label\n"a, b",1.5\n"two\nlines",2\nc,3\n'),
    'tsv': ('x.tsv', 'text\tlabel\n"a ""b"""\t1.5\nc\t2\n'),
    'jsonl': ('x.jsonl', '{"text": "a\\ud83d\\ude00", "label": 1}\n{"text": "b", "label": 2}\n'),
}


def examples_of(name, folder):
    file, whole = EXAMPLES[name]
    task = TASKS.get(name, REGRESSION)

    def read(path):
        for warnings in (None, []):
            for example in read_examples(path, task, warnings):
                assert all(text.encode() is not None for text in example.texts)
                assert example.label is None or math.isfinite(example.label)
                assert task is REGRESSION or example.label is None or 0 <= example.label <= 5

    (folder / file).write_text(whole, newline='')
    return Reader(folder / file, read, 100)


def vocabulary(folder):
    def read(path):
        encoder = read_vocabulary(path)
        assert sorted(encoder.values()) == list(range(len(encoder)))

    (folder / 'x').write_text('{"a": 0, "b": 1, "\\u00e9</w>": 2}')
    return Reader(folder / 'x', read)


def merges(folder):
    def read(path):
        assert all(len(pair) == 2 for pair in read_merges(path))

    shutil.copy(os.path.join(GOLDEN_MODEL, 'vocab_40000.bpe'), folder / 'x')
    return Reader(folder / 'x', read)


def shards(file, folder):
    """A file of OpenAI's weights beside whole ones."""
    shutil.copytree(GOLDEN_MODEL, folder, dirs_exist_ok=True)
    n_vocab = len(json.loads((folder / 'encoder_bpe_40000.json').read_text()))

    def read(path):
        opened = OpenAIShards(str(folder))
        opened.check(n_vocab, 32, 2)
        for shape, array in zip(opened.shapes, opened.read(0, len(opened.shapes))):
            assert list(array.shape) == shape and array.dtype == np.float32
            assert np.isfinite(array).all()

    return Reader(folder / file, read)


def finetuning(folder):
    """Return the `Trainer` of a run on a few stories, as small as possible."""
    (folder / 'data').mkdir()
    for which in FILES:
        source = Path(find_csv(os.path.join(GOLDEN, 'data'), which))
        lines = source.read_text().splitlines(keepends=True)[:7]
        (folder / 'data' / source.name).write_text(''.join(lines))
    sizes = '--n_embd 4 --n_head 2 --n_layer 1 --n_transfer -1 --n_batch 2 --n_valid 2 --n_iter 2'
    args = train.parse_args(Command(folder).argv(*sizes.split(), '--data_dir', folder / 'data'))
    inputs = train.read_inputs(args)
    ranks = Ranks([torch.device('cpu')])
    model = train.make_model(args, inputs, ranks)
    return train.make_trainer(args, train.FineTuning(args, inputs, model, ranks), inputs)


def checkpoint(folder):
    """`load_file` and `Trainer.resume`, and an update after it."""
    trainer = finetuning(folder)
    items = next(trainer.job.batches(0))
    trainer.update(items)
    trainer._save(str(folder / 'x'), types.SimpleNamespace(lines=[{'desc': 'x', 'time': 1.0}]))

    def read(path):
        lines = trainer.resume(load_file(path), path)
        assert lines and all(isinstance(line, dict) for line in lines)
        json.dumps(lines)
        trainer.update(items)

    return Reader(folder / 'x', read)


def best_params(folder):
    """What is accepted must be what was saved."""
    model = finetuning(folder).job.model
    whole = saved(model.state_dict())
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def read(path):
        load_parameters(model, path)
        if os.path.getsize(path) == len(whole):  # damaged after it was written
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, expected[name])

    (folder / 'x').write_bytes(whole)
    return Reader(folder / 'x', read, 100)


def finetuned_settings(folder):
    """settings.json beside best_params: the sizes, the vocabulary and the task."""
    save_finetuned(folder, TASKS['sst2'])

    def read(path):
        opened = open_model(str(folder))
        assert opened.task.n_out == 2 and opened.finetuned

    return Reader(folder / 'settings.json', read, 20)


def huggingface(file, folder):
    """A Hugging Face folder, one of its files damaged."""
    encoder = open_encoder(GOLDEN_MODEL)
    task = TASKS['sst2']
    model = DoubleHeadModel(Config(encoder.n_vocab, 6, 4, 2, 1), task.layout, task.n_out)
    init_weights(model)
    source = folder / 'source'
    save_huggingface(OpenedModel(model, encoder, {'lr': 0.5}, task, ''), str(source))
    weights = source / 'model.safetensors'
    if file == 'pytorch_model.bin.index.json':  # of weights in several files
        names = dict.fromkeys(load_safetensors(weights), 'part.safetensors')
        (source / file).write_text(json.dumps({'weight_map': names}))
        weights.rename(source / 'part.safetensors')
    if file == 'pytorch_model.bin':
        torch.save(load_safetensors(weights), source / file)
        weights.unlink()

    def read(path):
        opened = open_model(str(source))
        assert opened.model.config.n_layer == 1
        assert all(torch.isfinite(p).all() for p in opened.model.parameters())

    return Reader(source / file, read, 20)


def tokenizer(folder):
    """Without vocab.json and merges.txt."""
    encoder = open_encoder(GOLDEN_MODEL)
    pairs = [f'{left} {right}' for left, right in encoder.bpe_ranks]
    whole = json.dumps({'model': {'vocab': encoder.encoder, 'merges': pairs}})
    (folder / 'tokenizer.json').write_text(whole)

    def read(path):
        symbols, merges, _ = read_vocabulary_of(str(folder))
        assert sorted(symbols.values()) == list(range(len(symbols)))
        assert TextEncoder.from_vocabulary(symbols, merges).encode('a')

    return Reader(folder / 'tokenizer.json', read, 30)


def log(folder):
    evaluation = dict(tr_cost=0.5, va_cost=0.6, tr_acc=75.0, va_acc=60.0, time=2.0)
    lines = [{'desc': 'x', 'lr': 1e-5, 'data_dir': 'data/', 'time': 1.0}]
    lines += [{'n_epochs': i, 'n_updates': i, **evaluation} for i in range(3)]

    def read(path):
        _, evaluations = read_log(path)[:2]
        assert evaluations and all(abs(line['va_cost']) < 1e30 for line in evaluations)

    (folder / 'x').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return Reader(folder / 'x', read)


def predictions(folder):
    task = TASKS['rocstories']
    examples = [Example(name, ('x', 'y', 'z'), i % 2) for i, name in enumerate('abc')]
    with open(folder / 'x', 'w') as f:
        write_predictions(f, task, examples, np.array([[0.5, 1], [3, -2], [1e-3, 7]]))

    def read(path):
        names, logits, _ = read_predictions(path, task)
        assert len(names) == len(logits) and np.isfinite(logits.max(1, initial=-1)).all()

    return Reader(folder / 'x', read)


READERS = {  # name -> function of a folder that returns a Reader
    **{f'examples of {name}': functools.partial(examples_of, name) for name in EXAMPLES},
    **{name: functools.partial(shards, name) for name in ('params_shapes.json', 'params_3.npy')},
    **{
        name: functools.partial(huggingface, name)
        for name in (
            'config.json', 'model.safetensors', 'pytorch_model.bin.index.json', 'pytorch_model.bin',
        )
    },
    'vocabulary': vocabulary,
    'merges': merges,
    'checkpoint': checkpoint,
    'best_params': best_params,
    'fine-tuned settings': finetuned_settings,
    'tokenizer.json': tokenizer,
    'log': log,
    'predictions.csv': predictions,
}  # fmt: skip
