"""Every reader gives any bytes a right result or an InputError of one line, in bounded memory."""

import functools
import io
import json
import math
import os
import pickle
import random
import re
import resource
import shutil
import signal
import tempfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GOLDEN, Command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_files import as_csv, passage, stories
from tiny_models import REGRESSION

import train
from datasets import TASKS, read_examples
from gpt1.run.parallel import Ranks
from gpt1.tasks.rocstories import FILES, find_csv
from gpt1.weights.export import save_huggingface
from gpt1.weights.open import OpenedModel, open_model
from gpt1.weights.openai import OpenAIShards
from gpt1.weights.parameters import load_state, read_parameters
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import open_encoder
from model_pytorch import Config, DoubleHeadModel, init_weights
from text_utils import read_merges, read_vocabulary
from utils import InputError

SECONDS = 20  # one input may take, on a busy machine
MEMORY = 2 << 30  # bytes a reader may map beyond what it begins with
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


class Reader:
    """A file that a program reads: `read` raises InputError, AssertionError if it reads wrongly."""

    def __init__(self, path: Path, read: Callable[[str], None], n: int = 40):
        self.path, self.read, self.n = path, read, n  # n inputs are tried
        self.whole = path.read_bytes()

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


EXAMPLES = {  # a file to predict, in the format of some task
    'mnli': ('x.jsonl', '{"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}\n' * 2),
    'stsb': ('x.tsv', 'index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.6\n1\tc\td\t5\n'),
    'race': ('x.txt', passage()),
    'rocstories': ('x.csv', as_csv(stories(3)).decode()),
    'csv': ('x.csv', 'text,label\n"a, b",1.5\n"two\nlines",2\nc,3\n'),
    'tsv': ('x.tsv', 'text\tlabel\n"a ""b"""\t1.5\nc\t2\n'),
    'jsonl': ('x.jsonl', '{"text": "a\\ud83d\\ude00", "label": 1}\n{"text": "b", "label": 2}\n'),
}


def check_examples(name, path):
    task = TASKS.get(name, REGRESSION)
    for warnings in (None, []):
        for example in read_examples(path, task, warnings):
            assert all(text.encode() is not None for text in example.texts)
            assert example.label is None or math.isfinite(example.label)
            assert task is REGRESSION or example.label is None or 0 <= example.label <= 5


def check_vocabulary(path):
    ids = read_vocabulary(path).values()
    assert sorted(ids) == list(range(len(ids)))


ALONE = {  # files that are read by themselves: name, content, the function that reads them
    **{
        f'examples of {name}': (*file, functools.partial(check_examples, name))
        for name, file in EXAMPLES.items()
    },
    'vocabulary': ('x', '{"a": 0, "b": 1, "\\u00e9</w>": 2}', check_vocabulary),
    'merges': ('x', Path(GOLDEN_MODEL, 'vocab_40000.bpe').read_text(), read_merges),
}


def alone(name, folder):
    file, content, read = ALONE[name]
    (folder / file).write_text(content, newline='')
    return Reader(folder / file, read, 100)


def shards(file, folder):
    """A file of OpenAI's weights beside whole ones."""
    shutil.copytree(GOLDEN_MODEL, folder, dirs_exist_ok=True)
    n_vocab = len(json.loads((folder / 'encoder_bpe_40000.json').read_text()))

    def read(path):
        opened = OpenAIShards(str(folder))
        opened.check(n_vocab, 32, 2)
        for shape, array in zip(opened.shapes, opened.read()):
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
        load_state(model, read_parameters(path)[0], path)
        if os.path.getsize(path) == len(whole):  # damaged after it was written
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, expected[name])

    (folder / 'x').write_bytes(whole)
    return Reader(folder / 'x', read, 100)


def huggingface(file, folder):
    """A Hugging Face folder, one of its files damaged."""
    encoder, task = open_encoder(GOLDEN_MODEL), TASKS['sst2']
    model = DoubleHeadModel(Config(encoder.n_vocab, 6, 4, 2, 1), task.layout, task.n_out)
    init_weights(model)
    source = folder / 'source'
    save_huggingface(OpenedModel(model, encoder, {'lr': 0.5}, task, ''), str(source))

    def read(path):
        opened = open_model(str(source))
        assert opened.model.config.n_layer == 1
        assert all(torch.isfinite(p).all() for p in opened.model.parameters())

    return Reader(source / file, read, 20)


READERS = {  # name -> function of a folder that returns a Reader
    **{name: functools.partial(alone, name) for name in ALONE},
    **{name: functools.partial(shards, name) for name in ('params_shapes.json', 'params_3.npy')},
    **{name: functools.partial(huggingface, name) for name in ('config.json', 'model.safetensors')},
    'checkpoint': checkpoint,
    'best_params': best_params,
}

TOKENS = [
    b'', b'\x00', b'\xff\xfe', b'\xef\xbb\xbf', b'\n', b'\r', b'"', b'""', b',', b'\t', b'\\ud800',
    b'-1', b'0', b'1', b'3', b'1.5', b'1e999', b'4294967296', b'9' * 30, b'9' * 5000, b'NaN', b'1j',
    b'Infinity', b'null', b'true', b'{}', b'[]', b'[' * 3000, b'{"a":' * 3000, b'x' * 200_000,
    b'\xed\xa0\x80', b'\xe2\x80\xa8', b'(', b"'", b'None', b'\xff\xff\xff\xff', b'\x00\x00\x00\x80',
]  # fmt: skip


@st.composite
def splices(draw, whole):
    """A file of which some pieces, often numbers, are others or gone."""
    data = whole
    for _ in range(draw(st.sampled_from([1, 1, 2, 5]))):
        spans = [found.span() for found in re.finditer(rb'\d+', data[:100_000])]
        if spans and draw(st.booleans()):
            at, end = draw(st.sampled_from(spans))
        else:
            at = draw(st.integers(0, len(data)))
            end = at + draw(st.sampled_from([0, 1, 4, 30, len(data)]))
        data = data[:at] + draw(st.binary(max_size=4) | st.sampled_from(TOKENS)) + data[end:]
    return data


@st.composite
def inner_splices(draw, archive):
    """A zip archive of which an entry is damaged, with checksums that hold."""
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    pickles = [name for name in names if name.endswith('.pkl')]
    chosen = draw(st.sampled_from(pickles) | st.sampled_from(names))
    return rebuilt(archive, lambda name, data: draw(splices(data)) if name == chosen else data)


ANY_TEXT = st.text(st.characters(exclude_categories=[]))
ANY_BYTES = st.binary() | ANY_TEXT.map(lambda text: text.encode('utf-8', 'surrogatepass'))


@pytest.fixture(scope='module', autouse=True)
def bounded():
    """This process can map MEMORY bytes more than it has; what takes longer than SECONDS fails."""

    def too_slow(*_):
        raise TimeoutError(f'more than {SECONDS} s')

    mapped = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    signal.signal(signal.SIGALRM, handler)


@pytest.fixture(scope='module')
def readers(tmp_path_factory):
    return functools.cache(lambda name: READERS[name](tmp_path_factory.mktemp('reader')))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', READERS)
def test_damaged_files(readers, name):
    reader = readers(name)
    assert reader.attempt(reader.whole) == 'accepted'
    damaged = ANY_BYTES | splices(reader.whole)
    if zipfile.is_zipfile(io.BytesIO(reader.whole)):
        damaged |= inner_splices(reader.whole)

    @settings(
        max_examples=reader.n,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged)
    def check(data):
        assert reader.attempt(data) in ('accepted', 'refused')

    check()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', READERS)
def test_what_is_loaded_runs_no_code(readers, name):
    assert pickle.dumps(Hostile())  # it would write `Hostile.marker`
    with_objects = io.BytesIO()
    np.save(with_objects, np.array([Hostile()], dtype=object))
    for data in (
        pickle.dumps(Hostile()),
        saved(Hostile()),
        saved({'model': Hostile(), 'run': Hostile()}),
        with_objects.getvalue(),
    ):
        assert readers(name).attempt(data) == 'refused'
    assert not os.path.exists(Hostile.marker)


def test_a_flipped_bit_is_noticed(readers):
    """PyTorch does not check the checksums. Nor is a file accepted that was cut off."""
    reader, rng = readers('best_params'), random.Random(2)
    outcomes = []
    for _ in range(200):
        data = bytearray(reader.whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        outcomes.append(reader.attempt(bytes(data)))  # accepted: with the same numbers
    assert set(outcomes) <= {'accepted', 'refused'} and outcomes.count('refused') > 50
    whole = readers('checkpoint').whole
    for _ in range(10):
        assert readers('checkpoint').attempt(whole[: rng.randrange(len(whole))]) == 'refused'


def call(module, name, *arguments):
    return f'c{module}\n{name}\n('.encode() + b''.join(arguments) + b'tR.'


HUGE = b'\x8a\x09' + (10**13).to_bytes(9, 'little', signed=True)  # a number
PICKLES = [  # what no checkpoint needs
    # a key so deep that Python's stack ends before its hash is known
    b'}' + b')' + b'\x85' * 1_000_000 + b'K\x01s.',
    b']' * 300_000 + b'a' * 299_999 + b'.',
    *(call(*where, HUGE) for where in (('torch', 'Tensor'), ('torch.storage', 'UntypedStorage'))),
    call('torch._utils', '_rebuild_meta_tensor_no_storage', b'ctorch\nfloat32\n', HUGE + b'\x85',
         b'K\x01\x85', b'\x89'),
    call('os', 'system', b'X\x04\x00\x00\x00true'),
]  # fmt: skip


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('number', range(len(PICKLES)))
def test_pickles_that_ask_for_too_much(readers, number):
    def change(name, data):
        return b'\x80\x02' + PICKLES[number] if name.endswith('data.pkl') else data

    reader = readers('best_params')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reader.attempt(rebuilt(reader.whole, change)) == 'refused'
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_an_archive_that_grows(readers):
    with zipfile.ZipFile(bomb := io.BytesIO(), 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', bytes(100_000_000))
    readers('checkpoint').path.write_bytes(bomb.getvalue())
    with pytest.raises(InputError, match='larger than the file'):
        load_file(str(readers('checkpoint').path))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('key', ['n_updates', 'evaluated', 'losses', 'log', 'identity', 'job'])
def test_a_checkpoint_with_a_wrong_record_of_the_run(readers, key):
    """The file is whole, but it is not what this program writes."""
    reader = readers('checkpoint')
    for value in (None, -2, 1 << 70, 'x', [], [7], float('nan')):
        state = torch.load(io.BytesIO(reader.whole), weights_only=True)
        state['run'] = json.dumps({**json.loads(state['run']), key: value})
        assert reader.attempt(saved(state)) == 'refused', value
