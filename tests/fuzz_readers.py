"""Feed every reader damaged and hostile files.

Each must give a right result or an InputError of one line, soon and in little memory.

    python tests/fuzz_readers.py --seconds 60

prints how many inputs each reader was given, accepted, refused, and failed on. An input that made
a reader fail is kept in --keep. `test_fuzz.py` does a little of it.
"""

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import os
import pickle
import random
import re
import resource
import signal
import sys
import tempfile
import time
import types
import unittest.mock
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from conftest import GOLDEN, Command  # first: it sets the path to the modules
from safetensors.torch import load_file as load_safetensors
from test_text_utils import SlowEncoder
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
from gpt1.tasks.rocstories import FILES, find_csv, read_cloze_test
from gpt1.tasks.task import Example
from gpt1.text import workers
from gpt1.weights.huggingface import save_huggingface
from gpt1.weights.open import load_parameters, open_model
from gpt1.weights.openai import OpenAIShards
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import open_encoder, read_vocabulary_of
from model_pytorch import Config, DoubleHeadModel, LMModel, init_weights
from text_utils import TextEncoder, read_merges, read_vocabulary
from utils import InputError, whole_file

SECONDS = 20  # one input may take, on a busy machine
MEMORY = 2 << 30  # bytes one reader may map beyond what it begins with
TOKENS = [
    b'',
    b'\x00',
    b'\xff\xfe',
    b'\xef\xbb\xbf',
    b'\n',
    b'\r',
    b'"',
    b'""',
    b',',
    b'\t',
    b'-1',
    b'0',
    b'1e999',
    b'NaN',
    b'Infinity',
    b'null',
    b'true',
    b'{}',
    b'[]',
    b'9' * 30,
    b'9' * 5000,
    b'[' * 3000,
    b'{"a":' * 3000,
    b'\\ud800',
    b'\xed\xa0\x80',
    b'\xe2\x80\xa8',
    b'x' * 200_000,
    b'2147483648',
    b'(',
    b"'",
    b'None',
    b'1j',
    b'0x10',
]
GOLDEN_MODEL = os.path.join(GOLDEN, 'model')


def mutate(data, rng):
    """Return a damaged copy: bits flipped, pieces cut, moved, or exchanged for others."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        i, n = rng.randrange(len(data) + 1), min(len(data), int(2 ** rng.uniform(0, 12)))
        kind = rng.randrange(8)
        if kind == 0 and i < len(data):
            data[i] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[i:]
        elif kind == 2:
            del data[i : i + n]
        elif kind == 3:
            j = rng.randrange(len(data) + 1)
            data[i:i] = data[j : j + n]
        elif kind == 4:
            data[i : i + rng.choice([0, 1, 4])] = rng.choice(TOKENS)
        elif kind == 5 and (numbers := list(re.finditer(rb'\d+', data[:100_000]))):
            number = rng.choice(numbers)
            data[number.start() : number.end()] = rng.choice(
                [
                    b'-1',
                    b'0',
                    b'1',
                    b'3',
                    b'%d' % (int(number.group()[:9]) + 1),
                    b'99999999999999999999',
                    b'4294967296',
                    b'1.5',
                    b'1e9',
                ]
            )
        elif kind == 6:
            data[i : i + 4] = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1]).to_bytes(
                4, rng.choice(['little', 'big'])
            )
        elif kind == 7:
            data[i : i + n] = rng.randbytes(n)
    return bytes(data)


def read_bytes(*path):
    with open(os.path.join(*path), 'rb') as f:
        return f.read()


class Reader:
    """How to make an input (bytes) and how to read it.

    `read` raises InputError or returns; AssertionError if what it returns is wrong.
    """

    def __init__(self, folder):
        self.path = os.path.join(folder, 'input')

    def make(self, rng):
        return mutate(rng.choice(self.seeds), rng)

    def read(self, data):
        with open(self.path, 'wb') as f:
            f.write(data)
        self.read_file(self.path)


class Text(Reader):
    """Ids must be those of the slow encoder."""

    def __init__(self, folder):
        super().__init__(folder)
        paths = (
            os.path.join(GOLDEN_MODEL, 'encoder_bpe_40000.json'),
            os.path.join(GOLDEN_MODEL, 'vocab_40000.bpe'),
        )
        self.encoder, self.slow = TextEncoder(*paths), SlowEncoder(*paths)
        self.seeds = [
            text.encode()
            for text in (
                'He couldn\'t go -- "why?"\nOh… it\'s 5$ at http://a.b/c?d=e_f.',
                'Ã©tÃ© &amp; 漢字 o.O :x <3 U.S. 10km²',
                "'s n't e.g. ..",
                '%€#' * 300,
                "doin' 're:Xx the ' 's.D : x.'ll",
            )
        ]

    def read(self, data):
        try:
            text = data.decode('utf-8', 'surrogatepass')
        except UnicodeDecodeError:
            text = data.decode('latin-1')
        ids = self.encoder.encode(text)
        assert len(text) > 5000 or ids == self.slow.encode(text)


class StoryCloze(Reader):
    seeds = [
        b'\n'.join(read_bytes(GOLDEN, 'data', name[0]).split(b'\n')[:12]) for name in FILES.values()
    ]

    def read_file(self, path):
        for need_labels in (True, False):
            stories = read_cloze_test(path, need_labels)
            labels = {story.label for story in stories}
            assert labels and labels <= ({0, 1} if need_labels else {None, 0, 1})
            assert all(len(story.texts) == 3 for story in stories)


class Examples(Reader):
    """A file to predict, in the format of some task."""

    files = {
        'sst2': (b'.tsv', b'sentence\tlabel\nit was fun .\t1\nit was " dull\t0\n'),
        'mnli': (b'.jsonl', b'{"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}\n' * 2),
        'stsb': (b'.tsv', b'index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.6\n1\tc\td\t5\n'),
        'race': (
            b'.txt',
            b'{"answers": ["A"], "options": [["a", "b", "c", "d"]], "questions": ["q _ ?"], '
            b'"article": "x\\ny", "id": "high1.txt"}',
        ),
        'custom': (b'.csv', b'text,label\n"a, b",1.5\nc,\n'),
    }

    def __init__(self, folder):
        self.folder = folder
        self.seeds = [name.encode() + b'\0' + seed for name, (_, seed) in self.files.items()]

    def make(self, rng):
        name, _, seed = rng.choice(self.seeds).partition(b'\0')
        return name + b'\0' + mutate(seed, rng)

    def read(self, data):
        name, _, content = data.partition(b'\0')
        name = name.decode('latin-1')
        name = name if name in self.files else 'custom'
        ending, _ = self.files[name]
        path = os.path.join(self.folder, 'input' + ending.decode())
        with open(path, 'wb') as f:
            f.write(content)
        task = REGRESSION if name == 'custom' else TASKS[name]
        for example in read_examples(path, task):
            assert all(isinstance(text, str) for text in example.texts)
            assert example.label is None or math.isfinite(example.label)


class Vocabulary(Reader):
    seeds = [
        read_bytes(GOLDEN_MODEL, 'encoder_bpe_40000.json'),
        b'{"a": 0, "b": 1, "\\u00e9</w>": 2}',
    ]

    def read_file(self, path):
        encoder = read_vocabulary(path)
        assert sorted(encoder.values()) == list(range(len(encoder)))


class Merges(Reader):
    seeds = [read_bytes(GOLDEN_MODEL, 'vocab_40000.bpe')]

    def read_file(self, path):
        assert all(len(pair) == 2 for pair in read_merges(path))


class Shapes(Reader):
    """params_shapes.json beside whole shards."""

    file, seeds = 'params_shapes.json', [read_bytes(GOLDEN_MODEL, 'params_shapes.json')]

    def __init__(self, folder):
        self.folder, self.path = folder, os.path.join(folder, self.file)
        for name in os.listdir(GOLDEN_MODEL):
            os.symlink(os.path.join(GOLDEN_MODEL, name), os.path.join(folder, name))
        os.unlink(self.path)

    def read_file(self, path):
        shards = OpenAIShards(self.folder)
        shards.check(len(json.loads(Vocabulary.seeds[0])), 32, 2)
        for shape, array in zip(shards.shapes, shards.read(0, len(shards.shapes))):
            assert (
                list(array.shape) == shape
                and array.dtype == np.float32
                and np.isfinite(array).all()
            )


class Shard(Shapes):
    """One shard among whole ones: damaged, or with a header that NumPy's format allows."""

    file, seeds = 'params_3.npy', [read_bytes(GOLDEN_MODEL, 'params_3.npy')]

    def make(self, rng):
        if rng.random() < 0.5:
            return super().make(rng)
        n = (len(self.seeds[0]) - 128) // 4
        descr = rng.choice(
            [
                "'<f4'",
                "'<f4'",
                "'>f4'",
                "'|O'",
                "'<f8'",
                "'<c8'",
                "'<U9'",
                "'|V4'",
                "[('a', '<f4')]",
                "[('a', '<f4', (3,)), ('b', '|O')]",
                "'f4,f4'",
                '[]',
                'None',
                '7',
                "'<M8[s]'",
                "('<f4', (2,))",
                "'|S4'",
                "'x'",
                '{}',
                '[[]]',
                "[('a',)]",
                "'" + ',f4' * 2000 + "'",
                "'<f4",
            ]
        )
        shape = rng.choice(
            [
                f'({n},)',
                f'({n},)',
                f'({n}, 1)',
                '()',
                '(0,)',
                f'({n + 1},)',
                f'({n - 1},)',
                f'{n}',
                '(-1,)',
                '(-5, -5)',
                f'({2**62}, 4)',
                f'({2**63},)',
                f'({10**30},)',
                '(True,)',
                f'({n}.0,)',
                "('a',)",
                f'({n},) * 9',
                '(' * 90 + ')' * 90,
                f'({"1," * 70})',
                f'[{n}]',
                'None',
                f'({n}L,)',
                '{}',
                f'({2**31}, {2**31}, {2**2})',
            ]
        )
        order = rng.choice(['False', 'True', '0', 'None'])
        header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
        version = rng.choice([1, 1, 1, 2, 3, 0, 9])
        size = (len(header) if rng.random() < 0.9 else rng.choice([0, 2**16 - 1])).to_bytes(
            2 if version == 1 else 4, 'little'
        )
        return b'\x93NUMPY' + bytes([version, 0]) + size + header.encode() + self.seeds[0][128:]

    def __init__(self, folder):
        super().__init__(folder)
        npz, pickled, objects = io.BytesIO(), pickle.dumps(np.zeros(3)), io.BytesIO()
        np.savez(npz, a=np.zeros(5000, dtype=np.float32))
        np.save(objects, np.array([Hostile()], dtype=object))
        self.seeds = [
            *self.seeds,
            npz.getvalue(),
            pickled,
            objects.getvalue(),
            pickle.dumps(Hostile()),
        ]


class Hostile:
    """Pickled, it would write a file when it is loaded."""

    marker = os.path.join(tempfile.gettempdir(), f'fuzz_readers_{os.getpid()}_ran')

    def __reduce__(self):
        return open, (self.marker, 'w')


LOG = [{'desc': 'x', 'time': 1.0}]


def tiny_run(folder):
    """Return the `Trainer` of a run on a few stories, as small as possible."""
    argv = ['--n_embd', 4, '--n_head', 2, '--n_layer', 1, '--n_transfer', -1, '--n_batch', 2]
    with tiny_data(folder) as data_dir:
        options = [*argv, '--n_valid', 2, '--n_iter', 2, '--data_dir', data_dir]
        args = train.parse_args(Command(Path(folder)).argv(*options))
        inputs = train.read_inputs(args)
    ranks = Ranks([torch.device('cpu')])
    model = train.make_model(args, inputs, ranks)
    job = train.FineTuning(args, inputs, model, ranks)
    return train.make_trainer(args, job, inputs)


@contextlib.contextmanager
def tiny_data(folder):
    """The first six stories of each file."""
    path = os.path.join(folder, 'data')
    os.makedirs(path)
    for which in FILES:
        source = find_csv(os.path.join(GOLDEN, 'data'), which)
        with open(source) as f, open(os.path.join(path, os.path.basename(source)), 'w') as copy:
            copy.writelines(list(f)[:7])
    yield path


def rebuilt(archive, change):
    """Return a zip archive with each entry changed by `change(name, bytes)`; its checksums hold."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(out, 'w') as target:
        for entry in source.infolist():
            target.writestr(entry.filename, change(entry.filename, source.read(entry)))
    return out.getvalue()


def saved(state):
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def pickles():
    """Return pickles that ask for what no checkpoint needs."""

    def call(module, name, *arguments):
        return f'c{module}\n{name}\n('.encode() + b''.join(arguments) + b'tR.'

    def number(n):
        return b'\x8a\x09' + n.to_bytes(9, 'little', signed=True)

    huge = number(10**13)
    return [
        b'\x80\x02' + body
        for body in (
            b'}'
            + b')'
            + b'\x85' * 1_000_000
            + b'K\x01s.',  # a key so deep that Python's stack ends before its hash is known
            b']' * 300_000 + b'a' * 299_999 + b'.',
            *(
                call(module, name, huge)
                for module, name in [
                    ('__builtin__', 'bytearray'),
                    ('torch.storage', 'UntypedStorage'),
                    ('torch', 'Tensor'),
                    ('torch', 'FloatTensor'),
                ]
            ),
            call(
                'torch._utils',
                '_rebuild_meta_tensor_no_storage',
                b'ctorch\nfloat32\n',
                huge + b'\x85',
                b'K\x01\x85',
                b'\x89',
            ),
            call('os', 'system', b'X\x04\x00\x00\x00true'),
            call('builtins', 'eval', b'X\x01\x00\x00\x001'),
        )
    ]


class Checkpoint(Reader):
    """`load_file` and `Trainer.resume`, and an update after it."""

    def __init__(self, folder):
        super().__init__(folder)
        self.trainer = self.start(folder)
        self.items = next(self.trainer.job.batches(0))
        self.trainer.update(self.items)
        self.path = os.path.join(folder, 'checkpoint')
        self.trainer._save(self.path, types.SimpleNamespace(lines=LOG))
        self.whole = read_bytes(self.path)
        self.state = torch.load(self.path, weights_only=True)
        self.hostile = [
            rebuilt(
                self.whole,
                lambda name, data, body=body: body if name.endswith('data.pkl') else data,
            )
            for body in pickles()
        ]
        self.hostile += [
            saved(Hostile()),
            pickle.dumps(Hostile()),
            pickle.dumps({'model': 1}),
            saved({'a': 1}),
            saved(torch.zeros(3)),
        ]
        compressed = io.BytesIO()
        with zipfile.ZipFile(compressed, 'w', zipfile.ZIP_DEFLATED) as target:
            for name in ('data.pkl', 'data/0', 'version', 'byteorder'):
                target.writestr(f'archive/{name}', bytes(200_000_000 if name == 'data/0' else 10))
        self.hostile.append(compressed.getvalue())

    def start(self, folder):
        return tiny_run(folder)

    def make(self, rng):
        kind = rng.random()
        if kind < 0.3:
            return mutate(self.whole, rng)
        if kind < 0.5:  # damaged inside, with checksums that hold
            names = zipfile.ZipFile(io.BytesIO(self.whole)).namelist()
            chosen = rng.choice(
                [name for name in names if rng.random() < 0.5 or name.endswith('data.pkl')]
            )
            return rebuilt(
                self.whole, lambda name, data: mutate(data, rng) if name == chosen else data
            )
        if kind < 0.55:
            return rng.choice(self.hostile)
        return saved(self.changed(self.state, rng, depth=0))

    def changed(self, state, rng, depth):
        """Return a copy in which one thing has another form."""
        others = [
            None,
            0,
            -1,
            1 << 40,
            1.5,
            float('nan'),
            '',
            'x',
            b'x',
            [],
            {},
            (),
            [0] * 5,
            torch.zeros(()),
            torch.zeros(3),
            torch.zeros(1).expand(1 << 40),
            torch.zeros(0),
            torch.zeros(5, dtype=torch.uint8),
            torch.empty(3, device='meta'),
            torch.sparse_coo_tensor([[0]], [1.0], (1 << 40,)),
            True,
        ]
        if isinstance(state, dict) and state and (depth == 0 or rng.random() < 0.9):
            state, key = dict(state), rng.choice(list(state))
            what = rng.random()
            if what < 0.1:
                del state[key]
            elif what < 0.2:
                state[rng.choice(['x', 0, 1 << 40, None, 'model.x'])] = state[key]
            else:
                state[key] = self.changed(state[key], rng, depth + 1)
            return state
        if isinstance(state, str) and depth == 1 and rng.random() < 0.9:  # the part that is JSON
            run = json.loads(state)
            if rng.random() < 0.3:
                return mutate(state.encode(), rng).decode('utf-8', 'replace')
            key = rng.choice([*run, 'log', 'losses', 'job'])
            if isinstance(run[key], list) and run[key] and rng.random() < 0.8:
                run[key][rng.randrange(len(run[key]))] = rng.choice(
                    [
                        None,
                        -1,
                        0,
                        1 << 40,
                        1.5,
                        'x',
                        [],
                        {},
                        [0] * 5,
                        float('nan'),
                        float('inf'),
                    ]
                )
            else:
                run[key] = rng.choice(
                    [None, -1, 0, 1, 2, 100, 1 << 40, 10**400, 1.5, 'x', [], {}, True, float('nan')]
                )
            return json.dumps(run)
        if isinstance(state, torch.Tensor) and rng.random() < 0.7:
            return rng.choice(
                [
                    state.double(),
                    state.half(),
                    state.to(torch.int64),
                    state[None],
                    torch.zeros(()).expand(state.shape),
                    state.flatten()[:1],
                    state.to('meta'),
                    state.to(torch.complex64),
                    torch.nn.Parameter(state.float()),
                    state.t().contiguous().t() if state.dim() == 2 else state.flatten()[:0],
                    state.to_sparse() if state.dim() else state,
                ]
            )
        if isinstance(state, list) and state and rng.random() < 0.5:
            return [self.changed(state[0], rng, depth + 1), *state[1:]]
        return rng.choice(others)

    def read_file(self, path):
        lines = self.trainer.resume(load_file(path), path)
        assert lines and all(isinstance(line, dict) for line in lines)
        json.dumps(lines)
        self.trainer.update(self.items)


class PreTrainingCheckpoint(Checkpoint):
    """The same for pretrain.py, and the curve that a run draws from its log."""

    def start(self, folder):
        sizes = '--n_ctx 6 --n_embd 4 --n_head 2 --n_layer 1 --n_windows 2 --n_iter 3'
        argv = ['--text', folder, '--out', folder, '--warmup_updates', '1', *sizes.split()]
        args = parse_pretrain_args(argv)
        torch.manual_seed(1)
        model = LMModel(Config(8, 6, 4, 2, 1))
        init_weights(model)
        tokens = np.arange(60, dtype=np.uint16) % 8
        job = pretrain.PreTraining(args, model, tokens, Ranks([torch.device('cpu')]))
        return pretrain.make_trainer(args, job, '')


class Parameters(Checkpoint):
    """`load_parameters` of best_params. What is accepted must be what was saved."""

    def __init__(self, folder):
        super().__init__(folder)
        self.model = self.trainer.job.model
        self.state = self.model.state_dict()
        self.whole = saved(self.state)
        self.expected = {name: tensor.clone() for name, tensor in self.state.items()}

    def make(self, rng):
        if rng.random() < 0.5:
            return mutate(self.whole, rng)
        return super().make(rng)

    def read_file(self, path):
        load_parameters(self.model, path)
        data = read_bytes(path)
        n_changed = sum(a != b for a, b in zip(data, self.whole))
        if len(data) == len(self.whole) and n_changed < 40:  # damaged after it was written
            for name, tensor in self.model.state_dict().items():
                assert torch.equal(tensor, self.expected[name])


class FineTunedSettings(Reader):
    """settings.json beside best_params: the sizes, the vocabulary and the task."""

    def __init__(self, folder):
        self.folder = folder
        save_finetuned(folder, TASKS['sst2'])
        self.path = os.path.join(folder, 'settings.json')
        self.seeds = [read_bytes(self.path)]

    def read_file(self, path):
        opened = open_model(self.folder)
        assert opened.task.n_out == 2 and opened.finetuned


class Tokens(Reader):
    """tokens.json beside whole ids: what is not as `prepare` left it is made again."""

    def __init__(self, folder):
        self.folder, self.text = folder, os.path.join(folder, 'text.txt')
        with open(self.text, 'w') as f:
            f.write('a b a b c\n' * 3)
        self.prepare()
        self.path = os.path.join(folder, 'tokens.json')
        self.seeds = [read_bytes(self.path)]
        self.whole = read_bytes(folder, 'tokens.bin')

    def prepare(self):
        with (
            contextlib.redirect_stdout(io.StringIO()),
            unittest.mock.patch.object(workers, 'available_cores', return_value=1),
        ):
            corpus.prepare([self.text], self.folder, self.folder, 3)

    def read_file(self, path):
        self.prepare()
        tokens, tokens_hash = corpus.open_tokens(self.folder)
        assert tokens.tobytes() == self.whole


class Settings(Reader):
    """settings.json"""

    seeds = [
        b'{"n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 2, "afn": "gelu", "embd_pdrop": 0.1, '
        b'"attn_pdrop": 0.1, "lr": 7.5e-4, "n_vocab": 7, "vocabulary": "x", "task": {}}'
    ]

    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, 'settings.json')

    def read_file(self, path):
        assert read_settings(self.folder).keys() <= {*SETTINGS, *FACTS}


class HuggingFace(Reader):
    """A Hugging Face folder, one of its files damaged."""

    file = 'config.json'

    def __init__(self, folder):
        self.source = os.path.join(folder, 'source')
        encoder = open_encoder(GOLDEN_MODEL)
        task = TASKS['sst2']
        model = DoubleHeadModel(Config(encoder.n_vocab, 6, 4, 2, 1), task.layout, task.n_out)
        init_weights(model)
        save_huggingface(model, encoder, {'lr': 0.5}, task, self.source)
        self.prepare(encoder)
        self.path = os.path.join(self.source, self.file)
        self.seeds = [read_bytes(self.path)]

    def prepare(self, encoder):
        """Write the file that will be damaged, where it is not there."""

    def read_file(self, path):
        opened = open_model(self.source)
        assert opened.model.config.n_layer == 1
        assert all(torch.isfinite(p).all() for p in opened.model.parameters())


class SafeTensors(HuggingFace):
    file = 'model.safetensors'


class Index(HuggingFace):
    """The index of weights in several files."""

    file = 'pytorch_model.bin.index.json'

    def prepare(self, encoder):
        path = os.path.join(self.source, 'model.safetensors')
        names = list(load_safetensors(path))
        os.rename(path, os.path.join(self.source, 'part.safetensors'))
        with open(os.path.join(self.source, self.file), 'w') as f:
            json.dump({'weight_map': dict.fromkeys(names, 'part.safetensors')}, f)


class TorchFile(HuggingFace):
    """pytorch_model.bin, without model.safetensors."""

    file, changed = 'pytorch_model.bin', Checkpoint.changed

    def prepare(self, encoder):
        path = os.path.join(self.source, 'model.safetensors')
        self.state = load_safetensors(path)
        torch.save(self.state, os.path.join(self.source, self.file))
        os.unlink(path)

    def make(self, rng):
        if rng.random() < 0.3:
            return super().make(rng)
        return saved(self.changed(self.state, rng, depth=0))


class Tokenizer(HuggingFace):
    """tokenizer.json, without vocab.json and merges.txt."""

    file = 'tokenizer.json'

    def prepare(self, encoder):
        merges = [f'{left} {right}' for left, right in encoder.bpe_ranks]
        for name in ('vocab.json', 'merges.txt'):
            os.unlink(os.path.join(self.source, name))
        with open(os.path.join(self.source, self.file), 'w') as f:
            json.dump({'model': {'vocab': encoder.encoder, 'merges': merges}}, f)

    def read_file(self, path):
        symbols, merges = read_vocabulary_of(self.source)
        assert sorted(symbols.values()) == list(range(len(symbols)))
        assert TextEncoder.from_vocabulary(symbols, merges).encode('a')


class Log(Reader):
    """The log of train.py, as analysis.py reads it."""

    def __init__(self, folder):
        super().__init__(folder)
        evaluation = dict(tr_cost=0.5, va_cost=0.6, tr_acc=75.0, va_acc=60.0, time=2.0)
        lines = [{'desc': 'x', 'lr': 1e-5, 'data_dir': 'data/', 'time': 1.0}]
        lines += [{'n_epochs': i, 'n_updates': i, **evaluation} for i in range(3)]
        self.seeds = [b''.join(json.dumps(line).encode() + b'\n' for line in lines)]

    def read_file(self, path):
        _, evaluations = read_log(path)
        assert evaluations and all(abs(line['va_cost']) < 1e30 for line in evaluations)


class Predictions(Reader):
    """predictions.csv"""

    task = TASKS['rocstories']

    def __init__(self, folder):
        super().__init__(folder)
        examples = [Example(name, ('x', 'y', 'z'), i % 2) for i, name in enumerate('abc')]
        logits = np.array([[0.5, 1], [3, -2], [1e-3, 7]])
        with whole_file(self.path) as f:
            write_predictions(f, self.task, examples, logits)
        self.seeds = [read_bytes(self.path)]

    def read_file(self, path):
        names, logits, _ = read_predictions(path, self.task)
        assert len(names) == len(logits) and np.isfinite(logits.max(1, initial=-1)).all()


READERS = {
    'text': Text,
    'stories (CSV)': StoryCloze,
    'examples': Examples,
    'vocabulary': Vocabulary,
    'merges': Merges,
    'params_shapes.json': Shapes,
    'shard (.npy)': Shard,
    'checkpoint, resumed': Checkpoint,
    'best_params': Parameters,
    'log': Log,
    'predictions.csv': Predictions,
    'settings.json': Settings,
    'fine-tuned settings': FineTunedSettings,
    'pretraining, resumed': PreTrainingCheckpoint,
    'tokens.json': Tokens,
    'config.json': HuggingFace,
    'model.safetensors': SafeTensors,
    'index.json': Index,
    'pytorch_model.bin': TorchFile,
    'tokenizer.json': Tokenizer,
}


def attempt(reader, data):
    """Return 'accepted', 'refused', or what went wrong."""
    signal.alarm(SECONDS)
    try:
        reader.read(data)
        outcome = 'accepted'
    except InputError as error:
        outcome = (
            'refused'
            if len(str(error).splitlines()) == 1
            else f'a message of several lines: {error!r}'
        )
    except BaseException as error:
        outcome = f'{type(error).__name__}: {error}'
    finally:
        signal.alarm(0)
    return 'it ran code' if os.path.exists(Hostile.marker) else outcome


@contextlib.contextmanager
def bounds():
    """A context in which this process can map MEMORY bytes more than it has.

    What takes longer than SECONDS after a `signal.alarm(SECONDS)` fails.
    """

    def too_slow(*_):
        raise TimeoutError(f'more than {SECONDS} s')

    with open('/proc/self/statm') as f:
        mapped = int(f.read().split()[0]) * resource.getpagesize()
    before, handler = (
        resource.getrlimit(resource.RLIMIT_AS),
        signal.signal(signal.SIGALRM, too_slow),
    )
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    signal.signal(signal.SIGALRM, handler)


def work(name, seed, seconds, keep, counts):
    """Body of a process: inputs for one reader, until the time is up."""
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        reader = READERS[name](folder)
        with bounds():
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                data = reader.make(rng)
                with open(
                    os.path.join(keep, f'last {name.split()[0]}'), 'wb'
                ) as f:  # what is left if the process dies
                    f.write(data)
                counts[0] += 1
                outcome = attempt(reader, data)
                counts[1 if outcome == 'accepted' else 2 if outcome == 'refused' else 3] += 1
                if outcome not in ('accepted', 'refused'):
                    path = os.path.join(keep, f'{name.split()[0]} {counts[3]}')
                    with open(path, 'wb') as f:
                        f.write(data)
                    print(f'{name}: {outcome[:300]!r}: {path}', file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=60, help='for all readers together')
    parser.add_argument('--readers', nargs='+', choices=READERS, default=list(READERS))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--keep',
        default=tempfile.mkdtemp(prefix='fuzz_readers_'),
        help='folder for the inputs that failed',
    )
    args = parser.parse_args()
    os.makedirs(args.keep, exist_ok=True)
    failed = 0
    print(f'{"reader":22}{"tried":>10}{"accepted":>10}{"refused":>10}{"failed":>10}')
    for name in args.readers:
        counts, seed, end = (
            multiprocessing.Array('q', 4),
            args.seed,
            time.monotonic() + args.seconds / len(args.readers),
        )
        while (left := end - time.monotonic()) > 0:
            process = multiprocessing.Process(
                target=work, args=(name, seed, left, args.keep, counts)
            )
            process.start()
            process.join()
            if process.exitcode:
                counts[3] += 1
                print(
                    f'{name}: its process died ({process.exitcode}): '
                    f'{args.keep}/last {name.split()[0]}',
                    file=sys.stderr,
                )
            seed += 1
        failed += counts[3]
        print(f'{name:22}' + ''.join(f'{n:10,}' for n in counts), flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
