"""The readers that `test_fuzz.py` feeds: how to make a whole file, and how to read it."""

import contextlib
import functools
import io
import json
import math
import os
import signal
import tempfile
import types
import unittest.mock
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from conftest import GOLDEN, Command
from safetensors.torch import load_file as load_safetensors
from tiny_models import REGRESSION, save_finetuned

import pretrain
import train
from datasets import TASKS, read_examples
from gpt1.options import SETTINGS
from gpt1.parsing import parse_pretrain_args
from gpt1.report.log import read_log
from gpt1.report.predictions import read_predictions, write_predictions
from gpt1.run import corpus
from gpt1.run.parallel import Ranks
from gpt1.settings import FACTS, read_settings
from gpt1.tasks.rocstories import FILES, find_csv
from gpt1.tasks.task import Example
from gpt1.text import workers
from gpt1.weights.export import save_huggingface
from gpt1.weights.open import OpenedModel, open_model
from gpt1.weights.openai import OpenAIShards
from gpt1.weights.parameters import load_parameters
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import open_encoder, read_vocabulary_of
from model_pytorch import Config, DoubleHeadModel, LMModel, init_weights
from text_utils import TextEncoder, read_merges, read_vocabulary
from utils import InputError

SECONDS = 20  # one input may take, on a busy machine
GOLDEN_MODEL = os.path.join(GOLDEN, 'model')


class Hostile:
    """Pickled, it would write a file when it is loaded."""

    marker = os.path.join(tempfile.gettempdir(), f'test_fuzz_{os.getpid()}_ran')

    def __reduce__(self):
        return open, (self.marker, 'w')


def read_bytes(*path):
    with open(os.path.join(*path), 'rb') as f:
        return f.read()


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


# ------------------------------------------------------------------------------------ the readers


@dataclass
class Reader:
    """A file that a program reads.

    read    raises InputError; AssertionError if what it returns is wrong
    whole   the file as it should be
    n       inputs to try
    """

    path: str
    read: Callable[[str], None]
    whole: bytes
    n: int = 40

    def attempt(self, data):
        """Return 'accepted', 'refused', or what went wrong."""
        with open(self.path, 'wb') as f:
            f.write(data)
        signal.alarm(SECONDS)
        try:
            self.read(self.path)
            outcome = 'accepted'
        except InputError as error:
            is_line = len(str(error).splitlines()) == 1
            outcome = 'refused' if is_line else f'a message of several lines: {error!r}'
        except BaseException as error:
            outcome = f'{type(error).__name__}: {error}'
        finally:
            signal.alarm(0)
        return 'it ran code' if os.path.exists(Hostile.marker) else outcome


READERS = {}  # name -> function of a folder that returns a Reader


def reader(name, n=40):
    """Return a decorator for a function of a folder that returns path, read, whole."""

    def register(make):
        READERS[name] = lambda folder: Reader(*make(folder), n)
        return make

    return register


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
    'rocstories': ('x.csv', Path(find_csv(os.path.join(GOLDEN, 'data'), 'val')).read_text()[:2000]),
    'csv': ('x.csv', 'text,label\n"a, b",1.5\n"two\nlines",2\nc,3\n'),
    'tsv': ('x.tsv', 'text\tlabel\n"a ""b"""\t1.5\nc\t2\n'),
    'jsonl': ('x.jsonl', '{"text": "a\\ud83d\\ude00", "label": 1}\n{"text": "b", "label": 2}\n'),
}


def examples_of(name, folder):
    file, whole = EXAMPLES[name]
    task = TASKS.get(name, REGRESSION)
    if name == 'rocstories':
        whole = whole[: whole.rindex('\n')]

    def read(path):
        for warnings in (None, []):
            for example in read_examples(path, task, warnings):
                assert all(text.encode() is not None for text in example.texts)
                assert example.label is None or math.isfinite(example.label)
                assert task is REGRESSION or example.label is None or 0 <= example.label <= 5

    return os.path.join(folder, file), read, whole.encode()


for _name in EXAMPLES:
    reader(f'examples of {_name}', 100)(functools.partial(examples_of, _name))


@reader('vocabulary')
def vocabulary(folder):
    def read(path):
        encoder = read_vocabulary(path)
        assert sorted(encoder.values()) == list(range(len(encoder)))

    whole = b'{"a": 0, "b": 1, "\\u00e9</w>": 2}'
    return os.path.join(folder, 'x'), read, whole


@reader('merges')
def merges(folder):
    def read(path):
        assert all(len(pair) == 2 for pair in read_merges(path))

    return os.path.join(folder, 'x'), read, read_bytes(GOLDEN_MODEL, 'vocab_40000.bpe')


def shards(file, folder):
    """A file of OpenAI's weights beside whole ones."""
    for name in os.listdir(GOLDEN_MODEL):
        if name != file:
            os.symlink(os.path.join(GOLDEN_MODEL, name), os.path.join(folder, name))
    n_vocab = len(json.loads(read_bytes(GOLDEN_MODEL, 'encoder_bpe_40000.json')))

    def read(path):
        opened = OpenAIShards(folder)
        opened.check(n_vocab, 32, 2)
        for shape, array in zip(opened.shapes, opened.read(0, len(opened.shapes))):
            assert list(array.shape) == shape and array.dtype == np.float32
            assert np.isfinite(array).all()

    return os.path.join(folder, file), read, read_bytes(GOLDEN_MODEL, file)


reader('params_shapes.json')(functools.partial(shards, 'params_shapes.json'))
reader('shard (.npy)')(functools.partial(shards, 'params_3.npy'))


def finetuning(folder):
    """Return the `Trainer` of a run on a few stories, as small as possible."""
    data_dir = os.path.join(folder, 'data')
    os.makedirs(data_dir)
    for which in FILES:
        source = find_csv(os.path.join(GOLDEN, 'data'), which)
        lines = Path(source).read_text().splitlines(keepends=True)[:7]
        Path(data_dir, os.path.basename(source)).write_text(''.join(lines))
    sizes = '--n_embd 4 --n_head 2 --n_layer 1 --n_transfer -1 --n_batch 2 --n_valid 2 --n_iter 2'
    argv = Command(Path(folder)).argv(*sizes.split(), '--data_dir', data_dir)
    args = train.parse_args(argv)
    inputs = train.read_inputs(args)
    ranks = Ranks([torch.device('cpu')])
    model = train.make_model(args, inputs, ranks)
    job = train.FineTuning(args, inputs, model, ranks)
    return train.make_trainer(args, job, inputs)


def pretraining(folder):
    sizes = '--n_ctx 6 --n_embd 4 --n_head 2 --n_layer 1 --n_windows 2 --n_iter 3'
    argv = ['--text', folder, '--out', folder, '--warmup_updates', '1', *sizes.split()]
    args = parse_pretrain_args(argv)
    torch.manual_seed(1)
    model = LMModel(Config(8, 6, 4, 2, 1))
    init_weights(model)
    tokens = np.arange(60, dtype=np.uint16) % 8
    job = pretrain.PreTraining(args, model, tokens, Ranks([torch.device('cpu')]))
    return pretrain.make_trainer(args, job, '')


def checkpoint(start, folder):
    """`load_file` and `Trainer.resume`, and an update after it."""
    trainer = start(folder)
    items = next(trainer.job.batches(0))
    trainer.update(items)
    path = os.path.join(folder, 'checkpoint')
    trainer._save(path, types.SimpleNamespace(lines=[{'desc': 'x', 'time': 1.0}]))

    def read(path):
        lines = trainer.resume(load_file(path), path)
        assert lines and all(isinstance(line, dict) for line in lines)
        json.dumps(lines)
        trainer.update(items)

    return path, read, read_bytes(path)


reader('checkpoint, resumed')(functools.partial(checkpoint, finetuning))
reader('pretraining, resumed')(functools.partial(checkpoint, pretraining))


@reader('best_params', 100)
def best_params(folder):
    """What is accepted must be what was saved."""
    model = finetuning(folder).job.model
    whole = saved(model.state_dict())
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def read(path):
        load_parameters(model, path)
        if len(read_bytes(path)) == len(whole):  # damaged after it was written
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, expected[name])

    return os.path.join(folder, 'best_params'), read, whole


@reader('fine-tuned settings', 20)
def finetuned_settings(folder):
    """settings.json beside best_params: the sizes, the vocabulary and the task."""
    save_finetuned(folder, TASKS['sst2'])
    path = os.path.join(folder, 'settings.json')

    def read(path):
        opened = open_model(folder)
        assert opened.task.n_out == 2 and opened.finetuned

    return path, read, read_bytes(path)


@reader('settings.json')
def model_settings(folder):
    def read(path):
        assert read_settings(folder).keys() <= {*SETTINGS, *FACTS}

    whole = (
        b'{"n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 2, "afn": "gelu", "embd_pdrop": 0.1, '
        b'"attn_pdrop": 0.1, "lr": 7.5e-4, "n_vocab": 7, "vocabulary": "x", "task": {}}'
    )
    return os.path.join(folder, 'settings.json'), read, whole


@reader('tokens.json', 15)
def tokens_json(folder):
    """Beside whole ids: what is not as `prepare` left it is made again."""
    text = os.path.join(folder, 'text.txt')
    Path(text).write_text('a b a b c\n' * 3)

    def prepare():
        with (
            contextlib.redirect_stdout(io.StringIO()),
            unittest.mock.patch.object(workers, 'available_cores', return_value=1),
        ):
            corpus.prepare([text], folder, folder, 3)

    prepare()
    path, whole = os.path.join(folder, 'tokens.json'), read_bytes(folder, 'tokens.bin')

    def read(path):
        prepare()
        assert corpus.open_tokens(folder)[0].tobytes() == whole

    return path, read, read_bytes(path)


def huggingface(file, folder):
    """A Hugging Face folder, one of its files damaged."""
    source = os.path.join(folder, 'source')
    encoder = open_encoder(GOLDEN_MODEL)
    task = TASKS['sst2']
    model = DoubleHeadModel(Config(encoder.n_vocab, 6, 4, 2, 1), task.layout, task.n_out)
    init_weights(model)
    save_huggingface(OpenedModel(model, encoder, {'lr': 0.5}, task, ''), source)
    path, weights = os.path.join(source, file), os.path.join(source, 'model.safetensors')
    if file == 'pytorch_model.bin.index.json':  # of weights in several files
        names = list(load_safetensors(weights))
        os.rename(weights, os.path.join(source, 'part.safetensors'))
        Path(path).write_text(json.dumps({'weight_map': dict.fromkeys(names, 'part.safetensors')}))
    if file == 'pytorch_model.bin':
        torch.save(load_safetensors(weights), path)
        os.unlink(weights)

    def read(path):
        opened = open_model(source)
        assert opened.model.config.n_layer == 1
        assert all(torch.isfinite(p).all() for p in opened.model.parameters())

    return path, read, read_bytes(path)


for _name in (
    'config.json', 'model.safetensors', 'pytorch_model.bin.index.json', 'pytorch_model.bin',
):  # fmt: skip
    reader(_name, 20)(functools.partial(huggingface, _name))


@reader('tokenizer.json', 30)
def tokenizer(folder):
    """Without vocab.json and merges.txt."""
    path, _, _ = huggingface('tokenizer.json', folder)
    source = os.path.dirname(path)
    encoder = open_encoder(GOLDEN_MODEL)
    for name in ('vocab.json', 'merges.txt'):
        os.unlink(os.path.join(source, name))
    pairs = [f'{left} {right}' for left, right in encoder.bpe_ranks]
    whole = json.dumps({'model': {'vocab': encoder.encoder, 'merges': pairs}}).encode()

    def read(path):
        symbols, merges, _ = read_vocabulary_of(source)
        assert sorted(symbols.values()) == list(range(len(symbols)))
        assert TextEncoder.from_vocabulary(symbols, merges).encode('a')

    return path, read, whole


@reader('log')
def log(folder):
    evaluation = dict(tr_cost=0.5, va_cost=0.6, tr_acc=75.0, va_acc=60.0, time=2.0)
    lines = [{'desc': 'x', 'lr': 1e-5, 'data_dir': 'data/', 'time': 1.0}]
    lines += [{'n_epochs': i, 'n_updates': i, **evaluation} for i in range(3)]

    def read(path):
        _, evaluations, _ = read_log(path)
        assert evaluations and all(abs(line['va_cost']) < 1e30 for line in evaluations)

    whole = b''.join(json.dumps(line).encode() + b'\n' for line in lines)
    return os.path.join(folder, 'x'), read, whole


@reader('predictions.csv')
def predictions(folder):
    task = TASKS['rocstories']
    examples = [Example(name, ('x', 'y', 'z'), i % 2) for i, name in enumerate('abc')]
    f = io.StringIO()
    write_predictions(f, task, examples, np.array([[0.5, 1], [3, -2], [1e-3, 7]]))

    def read(path):
        names, logits, _ = read_predictions(path, task)
        assert len(names) == len(logits) and np.isfinite(logits.max(1, initial=-1)).all()

    return os.path.join(folder, 'x'), read, f.getvalue().encode()
