"""Every reader, on any bytes: a right result, or an InputError of one line, within bounded time and memory. `fuzz_readers.py` does more of it."""

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

from checkpoint import load_checkpoint
from model_pytorch import OpenAIShards
from utils import InputError

COUNTS = {
    'text': 30,
    'checkpoint, resumed': 50,
    'pretraining, resumed': 50,
    'config.json': 50,
    'model.safetensors': 50,
    'tokenizer.json': 50,
    'pytorch_model.bin': 50,
    'best_params': 100,
}  # of the others, 200


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
        assert attempt(reader, data) in ('taken', 'refused'), data


@pytest.mark.parametrize('name', READERS)
def test_any_bytes(readers, name):
    reader = readers(name)

    @settings(
        max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
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
        assert attempt(reader, data) in ('taken', 'refused')

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
        assert attempt(readers(name), data) == (
            'taken' if name in ('text', 'tokens.json') else 'refused'
        )  # what is wrong in the latter is made again
    assert not os.path.exists(Hostile.marker)


# --------------------------------------------------------------------------------------------------------------- shards


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


# ---------------------------------------------------------------------------------------------------------- checkpoints


def test_a_whole_checkpoint_and_whole_parameters_are_taken(readers):
    for name in ('checkpoint, resumed', 'best_params'):
        assert attempt(readers(name), readers(name).whole) == 'taken'


def test_a_flipped_bit_is_noticed(readers):
    """PyTorch does not look at the checksums."""
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
        load_checkpoint(str(path))


def edit(run, **changes):
    return json.dumps({**json.loads(run), **changes})


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'change',
    [
        *(lambda state, key=key: state.pop(key) for key in ('model', 'opt', 'run', 'torch_states')),
        *(
            lambda state, key=key, value=value: state.update({key: value})
            for key in ('model', 'opt', 'run', 'torch_states')
            for value in (None, 7, '', [7], {}, {'x': 7}, torch.zeros(3))
            if not (key == 'torch_states' and value == [])
        ),
        *(
            lambda state, key=key, value=value: state.update(run=edit(state['run'], **{key: value}))
            for key in ('n_epochs', 'n_updates', 'best_score', 'numpy_state', 'log', 'settings')
            for value in (None, -1, 101, 1 << 70, 'x', [], {}, [7], float('nan'))
        ),
        *(
            lambda state, position=position: state.update(
                run=edit(state['run'], numpy_state=['MT19937', [1] * 624, position, 0, 0.0])
            )
            for position in (-1, 625, 10**6, 1 << 40, 'x')
        ),
        lambda state: state.update(
            run=edit(state['run'], numpy_state=['MT19937', [1 << 40] * 624, 0, 0, 0.0])
        ),
        lambda state: state.update(
            run=edit(state['run'], numpy_state=['PCG64', [1] * 624, 0, 0, 0.0])
        ),
        lambda state: state['torch_states'][0].update(cpu=torch.zeros(5056, dtype=torch.uint8)),
        lambda state: state['torch_states'][0].update(cpu=torch.zeros(9, dtype=torch.uint8)),
        *(
            lambda state, wrong=wrong: state['model'].update({'transformer.h.0.ln_1.g': wrong})
            for wrong in (
                torch.zeros(3),
                torch.zeros(5),
                torch.zeros(4).double(),
                torch.zeros(1).expand(4),
                torch.zeros(4, device='meta'),
                torch.zeros(4).to_sparse(),
                [0.0] * 4,
                None,
            )
        ),
        *(
            lambda state, moment=moment, wrong=wrong: state['opt']['state'][0].update(
                {moment: wrong}
            )
            for moment in ('step', 'exp_avg', 'exp_avg_sq')
            for wrong in (
                torch.zeros(3),
                torch.zeros(1).expand(20, 4),
                torch.zeros(1).expand(1 << 40),
                torch.zeros(20, 4).double(),
                1.0,
                None,
            )
        ),
        lambda state: state['opt']['state'].pop(0),
        lambda state: state['opt']['state'].update({99: {}}),
        lambda state: state['opt'].update(t=3),
        lambda state: state['opt'].pop('t'),
    ],
)
def test_a_checkpoint_with_a_wrong_part(readers, change):
    """Whole as a file, but not what this program writes: refused by name, whatever is wrong."""
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
            'submission',
            '--keep',
            str(tmp_path),
        ],
    )
    assert fuzz_readers.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ['reader', 'log', 'submission'] and all(
        line.endswith(' 0') for line in lines[1:]
    )
