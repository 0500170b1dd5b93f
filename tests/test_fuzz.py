"""Every reader gives any bytes a right result or an InputError of one line, in bounded memory.

`fuzz_readers.py` does more of it.
"""

import io
import json
import os
import pickle
import random
import resource
import zipfile

import fuzz_readers
import numpy as np
import pytest
import torch
from fuzz_readers import READERS, Hostile, attempt, bounds, pickles, rebuilt, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt1.weights.openai import OpenAIShards
from gpt1.weights.safe_load import load_file
from utils import InputError

COUNTS = {  # inputs of each reader; of the others, 200
    'text': 30,
    'tokens.json': 15,
    'checkpoint, resumed': 50,
    'pretraining, resumed': 50,
    'fine-tuned settings': 20,
    'config.json': 20,
    'model.safetensors': 20,
    'index.json': 20,
    'pytorch_model.bin': 20,
    'tokenizer.json': 30,
    'best_params': 100,
}


@pytest.fixture(scope='module', autouse=True)
def bounded():
    with bounds():
        yield


@pytest.fixture(scope='module')
def readers(tmp_path_factory):
    made = {}

    def reader(name):
        if name not in made:
            made[name] = READERS[name](str(tmp_path_factory.mktemp('reader')))
        return made[name]

    return reader


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', READERS)
def test_damaged_files(readers, name):
    reader, rng = readers(name), random.Random(1)
    for _ in range(COUNTS.get(name, 200)):
        data = reader.make(rng)
        assert attempt(reader, data) in ('accepted', 'refused'), data


@pytest.mark.parametrize('name', READERS)
def test_any_bytes(readers, name):
    reader = readers(name)

    @settings(
        max_examples=min(40, COUNTS.get(name, 40)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        data=st.one_of(
            st.binary(),
            st.text(st.characters(exclude_categories=[])).map(
                lambda text: text.encode('utf-8', 'surrogatepass')
            ),
        )
    )
    def check(data):
        assert attempt(reader, data) in ('accepted', 'refused')

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
        # A text may be anything, and tokens.json is made again.
        expected = 'accepted' if name in ('text', 'tokens.json') else 'refused'
        assert attempt(readers(name), data) == expected
    assert not os.path.exists(Hostile.marker)


# Shards


@pytest.mark.parametrize(
    'descr, shape',
    [
        ("'<f4'", '(10000000000000,)'),
        ("'<f4'", '(-1,)'),
        ("'<f4'", '(4611686018427387904, 4)'),
        ("'<f4'", '(1' + '0' * 400 + ',)'),
        ("'<f4'", '()'),
        ("'<f4'", '(5011, 1)'),
        ("'<f4'", '(5010,)'),
        ("'<f4'", '(0,)'),
        ('[]', '(-1,)'),
        ('{}', '(-1,)'),
        ("'>f4'", '(5011,)'),
        ("'<f8'", '(2505,)'),
        ("'|O'", '(5011,)'),
        ('[]', '(5011,)'),
        ("'|V0'", '(5011,)'),
        ("[('a', '<f4')]", '(5011,)'),
        ("'<f4", '(5011,)'),
        ('7', '(5011,)'),
        ("'<f4'", '(' * 1000),
        ("'<f4'", '("a",)'),
        ("'<f4'", '__import__("os").abort()'),
    ],
)
@pytest.mark.filterwarnings('ignore')
def test_npy_headers(readers, descr, shape):
    reader = readers('shard (.npy)')
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    data = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + reader.seeds[0][128:]
    assert attempt(reader, data) == 'refused'


@pytest.mark.parametrize(
    'shapes',
    [
        [[2147483647] * 3] * 14,
        [[2147483647] * 100_000] * 2,
        [[1] * 70] * 14,
        [[-1, -1]] * 14,
        [[True]] * 14,
        [[1.0]] * 14,
        [[10**30]] * 14,
        [[0]] * 14,
        [[]] * 14,
        [],
        [[1]],
        {},
        'x',
        7,
        None,
        [None] * 14,
    ],
)
def test_shapes(readers, shapes):
    reader = readers('params_shapes.json')
    assert attempt(reader, json.dumps(shapes).encode()) == 'refused'


def test_shards_that_are_other_things(tmp_path):
    with pytest.raises(InputError, match='cannot read'):
        OpenAIShards(str(tmp_path))
    (tmp_path / 'params_shapes.json').mkdir()
    with pytest.raises(InputError, match='cannot read'):
        OpenAIShards(str(tmp_path))


# Checkpoints


def test_a_whole_checkpoint_and_whole_parameters_are_accepted(readers):
    for name in ('checkpoint, resumed', 'best_params'):
        assert attempt(readers(name), readers(name).whole) == 'accepted'


def test_a_flipped_bit_is_noticed(readers):
    """PyTorch does not check the checksums."""
    reader, rng = readers('best_params'), random.Random(2)
    with zipfile.ZipFile(io.BytesIO(reader.whole)) as archive:
        entries = archive.infolist()
    for entry in entries:
        data = bytearray(reader.whole)
        start = data.index(entry.filename.encode(), entry.header_offset) + len(entry.filename)
        start += int.from_bytes(
            data[entry.header_offset + 28 : entry.header_offset + 30], 'little'
        )  # the extra field
        data[start + rng.randrange(entry.file_size)] ^= 1 << rng.randrange(8)
        assert attempt(reader, bytes(data)) == 'refused', entry.filename


def test_a_cut_off_file_is_noticed(readers):
    reader, rng = readers('checkpoint, resumed'), random.Random(3)
    for _ in range(30):
        assert attempt(reader, reader.whole[: rng.randrange(len(reader.whole))]) == 'refused'


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('number', range(len(pickles())))
def test_pickles_that_ask_for_too_much(readers, number):
    reader = readers('best_params')
    data = rebuilt(
        reader.whole, lambda name, data: pickles()[number] if name.endswith('data.pkl') else data
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert attempt(reader, data) == 'refused'
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_an_archive_that_grows(tmp_path):
    path = tmp_path / 'bomb'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', bytes(100_000_000))
    with pytest.raises(InputError, match='larger than the file'):
        load_file(str(path))


def edit(**changes):
    """Return a change of a checkpoint's part that is JSON."""

    def change(state):
        state['run'] = json.dumps({**json.loads(state['run']), **changes})

    return change


def put(value, *keys):
    """Return a change that puts a value into a checkpoint."""

    def change(state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


WRONG_TENSORS = [
    torch.zeros(3),
    torch.zeros(5),
    torch.zeros(4).double(),
    torch.zeros(1).expand(4),
    torch.zeros(1).expand(1 << 40),
    torch.zeros(4, device='meta'),
    torch.zeros(4).to_sparse(),
    [0.0] * 4,
    None,
]
CHANGES = [
    *(put(value, key) for key in ('model', 'opt', 'run') for value in (None, 7, '', [7], {})),
    *(
        edit(**{key: value})
        for key in ('n_updates', 'evaluated', 'losses', 'log', 'identity', 'job')
        for value in (None, -1, 101, 1 << 70, 'x', [], [7], float('nan'))
    ),
    edit(job={'best_score': None}),
    edit(identity={}),
    *(put(wrong, 'model', 'transformer.h.0.ln_1.g') for wrong in WRONG_TENSORS),
    *(
        put(wrong, 'opt', 'state', 0, moment)
        for moment in ('step', 'exp_avg', 'exp_avg_sq')
        for wrong in WRONG_TENSORS
    ),
    put({}, 'opt', 'state', 99),
    put(3, 'opt', 't'),
    lambda state: state.pop('run'),
    lambda state: state['opt']['state'].pop(0),
    lambda state: state['opt'].pop('t'),
]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('change', CHANGES)
def test_a_checkpoint_with_a_wrong_part(readers, change):
    """The file is whole, but it is not what this program writes."""
    reader = readers('checkpoint, resumed')
    state = torch.load(io.BytesIO(reader.whole), weights_only=True)
    change(state)
    with pytest.raises(InputError, match=f'{reader.path} (is damaged|cannot be resumed)') as error:
        reader.read(saved(state))
    assert len(str(error.value).splitlines()) == 1


def test_the_fuzzer_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        'sys.argv',
        [
            'fuzz_readers.py',
            '--seconds',
            '1',
            '--readers',
            'log',
            'merges',
            '--keep',
            str(tmp_path),
        ],
    )
    assert fuzz_readers.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ['reader', 'log', 'merges'] and all(
        line.endswith(' 0') for line in lines[1:]
    )
