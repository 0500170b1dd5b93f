"""Every reader gives any bytes a right result or an InputError of one line, in bounded memory."""

import functools
import io
import json
import os
import pickle
import random
import re
import resource
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_readers import READERS, SECONDS, Hostile, rebuilt, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils import InputError

MEMORY = 2 << 30  # bytes a reader may map beyond what it begins with

# -------------------------------------------------------------------------------------- any bytes

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
    chosen = draw(
        st.sampled_from([n for n in names if n.endswith('.pkl')]) | st.sampled_from(names)
    )
    return rebuilt(archive, lambda name, data: draw(splices(data)) if name == chosen else data)


ANY_BYTES = st.binary() | st.text(st.characters(exclude_categories=[])).map(
    lambda text: text.encode('utf-8', 'surrogatepass')
)


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


# ------------------------------------------------------------------------------------- made by hand

HEADERS = [  # of an array of numbers: its type and its shape
    *(("'<f4'", shape) for shape in ('(10000000000000,)', '(-1,)', '()', '(' * 1000, '("a",)')),
    *((descr, '(5011,)') for descr in ("'>f4'", "'|O'", '[]', "'<f4", "'" + ',f4' * 2000 + "'")),
]
SHAPES = [
    *([[shape] * 14 for shape in ([2147483647] * 3, [1] * 70, [-1, -1], [True], [0], None)]),
    *([[2147483647] * 100_000] * 2, [[10**30]] * 14, [], {}, 'x', None),
]


@pytest.mark.filterwarnings('ignore')
def test_headers_and_shapes_of_weights(readers):
    shard, shapes = readers('params_3.npy'), readers('params_shapes.json')
    for descr, shape in HEADERS:
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
        size = len(header).to_bytes(2, 'little')
        data = b'\x93NUMPY\x01\x00' + size + header + shard.whole[128:]
        assert shard.attempt(data) == 'refused', (descr, shape)
    for some in SHAPES:
        assert shapes.attempt(json.dumps(some).encode()) == 'refused', some


def test_a_flipped_bit_is_noticed(readers):
    """PyTorch does not check the checksums. Nor is a file accepted that was cut off."""
    reader, rng = readers('best_params'), random.Random(2)
    with zipfile.ZipFile(io.BytesIO(reader.whole)) as archive:
        entries = archive.infolist()
    for entry in entries:
        data = bytearray(reader.whole)
        start = data.index(entry.filename.encode(), entry.header_offset) + len(entry.filename)
        extra = data[entry.header_offset + 28 : entry.header_offset + 30]
        start += int.from_bytes(extra, 'little')
        data[start + rng.randrange(entry.file_size)] ^= 1 << rng.randrange(8)
        assert reader.attempt(bytes(data)) == 'refused', entry.filename
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
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', bytes(100_000_000))
    reader = readers('checkpoint')
    reader.path.write_bytes(bomb.getvalue())
    with pytest.raises(InputError, match='larger than the file'):
        reader.read(str(reader.path))


GONE = object()
WRONG_NUMBERS = [None, -1, 101, 1 << 70, 'x', [], [7], float('nan')]
WRONG_TENSORS = [
    torch.zeros(3), torch.zeros(4).double(), torch.zeros(1).expand(4), torch.zeros(4).to_sparse(),
    torch.zeros(1).expand(1 << 40), torch.zeros(4, device='meta'), [0.0] * 4, None,
]  # fmt: skip
CHANGES = [  # the parts of a checkpoint, and what stands in their place
    *(((key,), [None, 7, '', [7], {}, GONE]) for key in ('model', 'opt', 'run')),
    *((('run', k), WRONG_NUMBERS) for k in ('n_updates', 'evaluated', 'losses', 'log', 'identity')),
    (('run', 'job'), [*WRONG_NUMBERS, {'best_score': None}]),
    (('run', 'identity'), [{}]),
    (('model', 'transformer.h.0.ln_1.g'), WRONG_TENSORS),
    *((('opt', 'state', 0, moment), WRONG_TENSORS) for moment in ('step', 'exp_avg', 'exp_avg_sq')),
    (('opt', 'state', 99), [{}]),
    (('opt', 'state', 0), [GONE]),
    (('opt', 't'), [3, GONE]),
]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('keys, values', CHANGES)
def test_a_checkpoint_with_a_wrong_part(readers, keys, values):
    """The file is whole, but it is not what this program writes."""
    reader = readers('checkpoint')
    *before, key = keys
    for value in values:
        state = torch.load(io.BytesIO(reader.whole), weights_only=True)
        state['run'] = json.loads(state['run'])
        part = functools.reduce(lambda d, k: d[k], before, state)
        if value is GONE:
            del part[key]
        else:
            part[key] = value
        if keys != ('run',):
            state['run'] = json.dumps(state['run'])
        assert reader.attempt(saved(state)) == 'refused', value
