"""Every way to weights: shards, Hugging Face folders, files of parameters, vocabularies."""

import collections
import copy
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_models import MODEL_DIR, SOME_TASKS, encoder, random_model, save_finetuned

from gpt1.run.checkpoint import Saver
from gpt1.settings import read_settings
from gpt1.weights.export import save_huggingface
from gpt1.weights.open import open_model
from gpt1.weights.openai import load_openai_pretrained_model
from gpt1.weights.parameters import load_parameters, read_parameters
from gpt1.weights.pretrained import open_weights, save_pretrained_settings
from gpt1.weights.vocabulary import (
    fingerprint_vocabulary,
    known_merges,
    open_encoder,
    read_vocabulary_of,
    save_vocabulary,
    vocabulary_facts,
)
from model_pytorch import Config, LMModel, special_rows
from utils import LFS_POINTER, InputError

POINTER = LFS_POINTER.decode() + 'v1\noid sha256:abc\nsize 467\n'


@pytest.fixture(scope='module')
def finetuned(tmp_path_factory):
    """The folder of a fine-tuned model for stories."""
    folder = tmp_path_factory.mktemp('save')
    save_finetuned(folder, SOME_TASKS['rocstories'])
    return folder


@pytest.fixture
def huggingface(tmp_path):
    """A Hugging Face folder of the golden model."""
    opened = open_model(MODEL_DIR, n_head=4)
    folder = tmp_path / 'hf'
    save_huggingface(opened, str(folder))
    return folder


def parameters(model):
    return {name: p for name, p in model.named_parameters() if not name.startswith('task_head')}


def assert_same_parameters(model, other):
    a, b = parameters(model), parameters(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=0, rtol=0)


# OpenAI's shards


def test_loading_fills_the_embedding_and_the_first_layers():
    weights = open_weights(MODEL_DIR)
    special = special_rows(32, np.random.RandomState(1))
    model = LMModel(Config(weights.n_vocab, 20, 32, 4, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7)
    loaded = load_openai_pretrained_model(model, weights, special, 1)
    positions, tokens = weights.read(0, 2)
    embed = model.transformer.embed.weight.detach().numpy()
    np.testing.assert_array_equal(embed[: weights.n_vocab], tokens)
    np.testing.assert_array_equal(embed[weights.n_vocab : weights.n_vocab + 3], special)
    np.testing.assert_array_equal(embed[weights.n_vocab + 3 :], positions[:20])
    assert len(loaded) == 13
    assert all((p == 7).all() for p in model.transformer.h[1].parameters())
    assert not any((p == 7).all() for p in model.transformer.h[0].parameters())
    assert load_openai_pretrained_model(model, weights, special, -1) == []
    model = LMModel(Config(weights.n_vocab, 513, 32, 4, 2))
    with pytest.raises(InputError, match='513 positions are needed.*lower --n_ctx'):
        load_openai_pretrained_model(model, weights, special, 2)


@pytest.mark.parametrize(
    'sizes, words',
    [
        ((260, 32, 3), '--n_transfer 3: the weights in'),
        ((260, 16, 2), '--n_embd 16: the weights in'),
        ((261, 32, 2), 'belongs to another model'),
    ],
)
def test_sizes_that_the_weights_do_not_have(sizes, words, huggingface):
    for folder in (MODEL_DIR, str(huggingface)):
        with pytest.raises(InputError, match=words):
            open_weights(folder).check(*sizes)
        open_weights(folder).check(260, 32, 2)


@pytest.mark.parametrize(
    'name', ['params_shapes.json', 'params_4.npy', 'encoder_bpe_40000.json', 'settings.json']
)
def test_a_git_lfs_pointer_is_named(tmp_path, name):
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    (tmp_path / 'model' / name).write_text(POINTER)
    with pytest.raises(InputError, match=f'{name} is a Git LFS pointer'):
        open_model(str(tmp_path / 'model'), n_head=4)


def npy(content, shape, dtype='<f4'):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + content


@pytest.mark.parametrize(
    'file, content, words',
    [
        ('params_shapes.json', b'[[2, 3], [4]]', 'shapes of the embeddings'),
        ('params_shapes.json', b'[[2, 3], [4, 3], [1]]', '2 and 12 for each layer'),
        ('params_shapes.json', b'[[2, 0]]', 'positive integers'),
        ('params_shapes.json', b'{}', 'a JSON list'),
        ('params_shapes.json', None, 'python download.py'),
        ('params_3.npy', None, 'cannot read'),
        ('params_3.npy', b'', 'incomplete or not a NumPy file'),
        ('params_3.npy', npy(bytes(8), '(1 << 62,)'), 'incomplete or not a NumPy file'),
        ('params_3.npy', npy(bytes(8), '(4611686018427387904,)'), 'floats announced'),
        ('params_3.npy', npy(bytes(16), '(2,)', '<f8'), 'expected a flat float32 array'),
        ('params_3.npy', npy(bytes(8), '(2,)'), 'the shards hold'),
    ],
)
def test_damaged_shards(tmp_path, file, content, words):
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    path = tmp_path / 'model' / file
    path.write_bytes(content or b'')
    if content is None:
        path.unlink()
    with pytest.raises(InputError, match=words):
        open_weights(str(tmp_path / 'model'))


def test_shapes_and_numbers_of_shards_are_checked(tmp_path):
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    path = tmp_path / 'model' / 'params_shapes.json'
    shapes = json.loads(path.read_text())
    path.write_text(json.dumps([*shapes[:-1], [33]]))
    with pytest.raises(InputError, match='array 25 is'):
        open_weights(str(tmp_path / 'model'))
    path.write_text(json.dumps(shapes))
    shard = tmp_path / 'model' / 'params_0.npy'
    shard.write_bytes(shard.read_bytes()[:-4] + b'\x00\x00\xc0\x7f')  # NaN
    with pytest.raises(InputError, match='NaN or infinity'):
        open_model(str(tmp_path / 'model'), n_head=4)


# Hugging Face folders


def rewrite(folder, change, file='model.safetensors'):
    """Write the tensors of a folder again, after `change(tensors)`, to `file`."""
    tensors = safetensors.torch.load_file(folder / 'model.safetensors')
    os.unlink(folder / 'model.safetensors')
    tensors = change(tensors) or tensors
    if file.endswith('.safetensors'):
        safetensors.torch.save_file(tensors, folder / file)
    else:
        torch.save(tensors, folder / file)


@pytest.mark.parametrize(
    'file, prefix, kind',
    [
        ('model.safetensors', '', torch.bfloat16),
        ('pytorch_model.bin', 'transformer.', torch.float32),
        ('pytorch_model.bin', '', torch.float32),
    ],
)
def test_names_and_types_of_all_versions(huggingface, file, prefix, kind):
    rewrite(
        huggingface,
        lambda tensors: {
            prefix + name.removeprefix('transformer.'): p.to(kind) for name, p in tensors.items()
        },
        file,
    )
    tolerance = 0 if kind == torch.float32 else 0.01
    wanted = parameters(open_model(MODEL_DIR, n_head=4).model)
    for name, p in parameters(open_model(str(huggingface)).model).items():
        torch.testing.assert_close(p, wanted[name], atol=tolerance, rtol=tolerance)


def test_the_tied_matrix_under_its_other_name(huggingface):
    def rename(tensors):
        tensors['lm_head.weight'] = tensors.pop('transformer.tokens_embed.weight')

    rewrite(huggingface, rename)
    assert_same_parameters(
        open_model(str(huggingface)).model, open_model(MODEL_DIR, n_head=4).model
    )


def test_weights_in_several_files(huggingface):
    tensors = safetensors.torch.load_file(huggingface / 'model.safetensors')
    os.unlink(huggingface / 'model.safetensors')
    names, weight_map = sorted(tensors), {}
    for i in range(2):
        file = f'pytorch_model-0000{i + 1}-of-00002.bin'
        weight_map.update(dict.fromkeys(names[i::2], file))
        torch.save({name: tensors[name] for name in names[i::2]}, huggingface / file)
    index = huggingface / 'pytorch_model.bin.index.json'
    index.write_text(json.dumps({'metadata': {}, 'weight_map': weight_map}))
    assert_same_parameters(
        open_model(str(huggingface)).model, open_model(MODEL_DIR, n_head=4).model
    )
    for wrong in ('../secret', '', '/etc/passwd', 7, None, 'nowhere.bin', weight_map[names[1]]):
        index.write_text(json.dumps({'weight_map': {**weight_map, names[0]: wrong}}))
        with pytest.raises(InputError):
            open_model(str(huggingface))


@pytest.mark.parametrize(
    'file, content, words',
    [
        ('model.safetensors', POINTER, 'model.safetensors is a Git LFS pointer'),
        ('model.safetensors', None, 'no weights; expected model.safetensors'),
        ('model.safetensors', 'x' * 100, 'not a safetensors file'),
        ('config.json', '[]', 'expected a JSON object'),
        ('config.json', '{}', 'n_positions'),
        ('config.json', POINTER, 'Git LFS pointer'),
        ('vocab.json', '{}', 'vocab.json'),
        ('tokenizer.json', '{}', None),  # not read, since the two other files are there
        ('merges.txt', None, 'merges.txt'),
        ('merges.txt', POINTER, 'Git LFS pointer'),
    ],
)
def test_damaged_hugging_face_folders(huggingface, file, content, words):
    if content is None:
        os.unlink(huggingface / file)
    else:
        (huggingface / file).write_text(content)
    if words is None:
        open_model(str(huggingface))
        return
    with pytest.raises(InputError, match=words):
        open_model(str(huggingface))


@pytest.mark.parametrize(
    'damage', ['missing', 'shape', 'nan', 'integers', 'sparse', 'expanded', 'list']
)
def test_damaged_tensors(huggingface, damage):
    name = 'transformer.h.1.ln_2.weight'

    def change(tensors):
        p = tensors[name]
        changed = {
            'shape': torch.zeros(33),
            'nan': p * torch.nan,
            'integers': p.int(),
            'sparse': p.to_sparse(),
            'expanded': torch.zeros(1).expand(1 << 40),
            'list': [1.0] * 32,
        }
        if damage == 'missing':
            del tensors[name]
        else:
            tensors[name] = changed[damage]

    file = 'pytorch_model.bin' if damage in ('sparse', 'expanded', 'list') else 'model.safetensors'
    rewrite(huggingface, change, file)
    with pytest.raises(InputError, match='ln_2.weight'):
        open_model(str(huggingface))


def test_a_tokenizer_file_alone(huggingface):
    symbols, merges, _ = read_vocabulary_of(str(huggingface))
    pairs = [list(pair) for pair in merges]
    for name in ('vocab.json', 'merges.txt'):
        os.unlink(huggingface / name)
    path = huggingface / 'tokenizer.json'
    for written in (pairs, [' '.join(pair) for pair in pairs]):
        model = {'type': 'BPE', 'vocab': symbols, 'merges': written}
        path.write_text(json.dumps({'model': model, 'added_tokens': []}))
        found = open_encoder(str(huggingface))
        assert found.encode('Ella had no tape.') == encoder().encode('Ella had no tape.')
    for model in ({}, {'vocab': {'a': 1}, 'merges': []}, {'vocab': symbols, 'merges': [['a']]}):
        path.write_text(json.dumps({'model': model}))
        with pytest.raises(InputError, match='holds no byte pairs'):
            open_encoder(str(huggingface))


# Files of parameters


def earlier_port(state, prefix=''):
    """The same parameters as the earlier PyTorch port saved them."""
    masks = {
        f'transformer.h.{i}.attn.b': torch.ones(60, 60).tril().view(1, 1, 60, 60) for i in range(2)
    }
    state = {**state, **masks, 'lm_head.decoder.weight': state['transformer.embed.weight']}
    return collections.OrderedDict((prefix + name, p) for name, p in state.items())


@pytest.mark.parametrize('prefix, zipped', [('', True), ('module.', False)])
def test_files_of_the_earlier_port(tmp_path, finetuned, prefix, zipped):
    """They have no settings: the options tell what the shapes do not."""
    state = torch.load(finetuned / 'best_params', weights_only=True)
    path = str(tmp_path / 'params')
    torch.save(earlier_port(state, prefix), path, _use_new_zipfile_serialization=zipped)
    found = read_parameters(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    opened = open_model(path, MODEL_DIR, n_head=4)
    assert opened.finetuned and opened.task.name == 'rocstories'
    assert opened.model.config.n_ctx == 60 and opened.model.config.n_layer == 2
    assert not opened.model.training
    with pytest.raises(InputError, match='no vocabulary beside it.*--model_dir'):
        open_model(path, n_head=4)
    with pytest.raises(InputError, match='not divisible by --n_head 12'):
        open_model(path, MODEL_DIR)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ('exploded',)


BIAS = 'transformer.h.0.ln_1.b'
DAMAGED = {
    'code': lambda state: {BIAS: Bomb()},
    'list': lambda state: list(state.values()),
    'empty': lambda state: {},
    'unexpected': lambda state: {**state, 'x': torch.ones(1)},
    'missing': lambda state: {name: p for name, p in state.items() if name != BIAS},
    'no head': lambda state: {n: p for n, p in state.items() if not n.startswith('task_head')},
    'shape': lambda state: {**state, BIAS: torch.ones(31)},
    'nan': lambda state: {**state, BIAS: state[BIAS] / 0 * 0},
    'half': lambda state: {**state, BIAS: state[BIAS].half()},
    'huge': lambda state: {**state, BIAS: torch.ones(1).expand(1 << 40)},
    'sparse': lambda state: {**state, BIAS: state[BIAS].to_sparse()},
    'meta': lambda state: {**state, BIAS: state[BIAS].to('meta')},
    'no tensors': lambda state: dict.fromkeys(state, 1),
}


@pytest.mark.parametrize('case', [*DAMAGED, 'text', 'cut', 'packed', 'pointer', 'folder', 'absent'])
def test_files_that_hold_no_parameters(tmp_path, monkeypatch, finetuned, case):
    monkeypatch.chdir(tmp_path)
    whole = (finetuned / 'best_params').read_bytes()
    path = tmp_path / 'params'
    if case in DAMAGED:
        state = torch.load(finetuned / 'best_params', weights_only=True)
        torch.save(DAMAGED[case](state), path)
    elif case == 'text':
        path.write_text('no parameters')
    elif case == 'cut':
        path.write_bytes(whole[:-1000])
    elif case == 'packed':
        with (
            zipfile.ZipFile(finetuned / 'best_params') as plain,
            zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as packed,
        ):
            for entry in plain.infolist():
                packed.writestr(entry.filename, plain.read(entry))
    elif case == 'pointer':
        path.write_text(POINTER)
    elif case == 'folder':
        path.mkdir()
    with pytest.raises(InputError) as error:
        read_parameters(str(path))
    assert '\n' not in str(error.value) and 'params' in str(error.value)
    assert not os.path.exists('exploded')


@pytest.mark.parametrize('kind', ['pytorch', 'safetensors'])
def test_too_little_memory_is_not_damage(tmp_path, kind):
    path, state = str(tmp_path / 'params'), {'a': torch.zeros(50_000_000)}
    if kind == 'safetensors':
        path += '.safetensors'
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    script = f"""
import resource, sys, torch
from gpt1.weights.huggingface import TensorFile
from utils import exit_status
pages = int(open('/proc/self/statm').read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 10**8,) * 2)
sys.exit(exit_status('x.py', lambda args: TensorFile({path!r}).read('a'), ()))
"""
    run = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith('x.py: error: out of memory: ')
    assert run.stderr.count('\n') == 1


def test_parameters_of_another_model(finetuned):
    model = random_model(SOME_TASKS['rocstories'], n_ctx=61)
    with pytest.raises(InputError, match='holds the parameters of another model'):
        load_parameters(model, str(finetuned / 'best_params'))


# open_model


@pytest.mark.parametrize('name', SOME_TASKS)
def test_a_fine_tuned_folder_opens_wherever_it_is_moved(tmp_path, monkeypatch, name):
    task = SOME_TASKS[name]
    (tmp_path / 'first').mkdir()
    model = save_finetuned(tmp_path / 'first', task)
    shutil.move(tmp_path / 'first', tmp_path / 'second')
    monkeypatch.chdir(tmp_path / 'second')
    for path in ('.', 'best_params'):
        opened = open_model(path)
        assert opened.finetuned and opened.task == task
        assert opened.task.n_out == task.n_out
        assert opened.encoder.encode('Ella had no tape.') == encoder().encode('Ella had no tape.')
        assert opened.settings['lr'] == 1e-4 and opened.settings['n_iter'] == 7
        assert opened.model.config.embd_pdrop == 0.25
        state, wanted = opened.model.state_dict(), model.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)
        assert all(p.requires_grad for p in opened.model.parameters())


def test_opened_parameters_can_be_trained(tmp_path):
    """They are mapped from the file, which training does not change."""
    save_finetuned(tmp_path, SOME_TASKS['sst2'])
    before = (tmp_path / 'best_params').read_bytes()
    opened = open_model(str(tmp_path))
    with torch.no_grad():
        for p in opened.model.parameters():
            p.add_(1)
    assert (tmp_path / 'best_params').read_bytes() == before


def test_a_pre_trained_model(tmp_path):
    opened, again = (open_model(MODEL_DIR, n_head=4, afn='relu') for _ in range(2))
    assert not opened.finetuned and opened.task is None
    assert_same_parameters(opened.model, again.model)  # the special tokens are drawn alike
    assert opened.model.config.afn == 'relu' and opened.model.config.n_ctx == 512
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    values = {'n_head': 2, 'afn': 'swish', 'lr': 0.5}
    save_pretrained_settings(str(tmp_path / 'model'), values, encoder())
    config = open_model(str(tmp_path / 'model')).model.config
    assert (config.n_head, config.afn) == (2, 'swish')
    assert open_model(str(tmp_path / 'model'), n_head=8).model.config.n_head == 8
    with pytest.raises(InputError, match='not divisible by --n_head 5'):
        open_model(str(tmp_path / 'model'), n_head=5)


@pytest.mark.parametrize(
    'settings, words',
    [
        (None, 'task'),
        ({}, 'task'),
        ({'task': {'name': 'sst2'}}, 'task'),
        ({'n_head': 4, 'task': SOME_TASKS['mnli'].to_dict()}, '2 outputs, but MNLI has 3'),
    ],
)
def test_a_task_that_is_not_known_or_not_that_of_the_parameters(tmp_path, settings, words):
    model = save_finetuned(tmp_path, SOME_TASKS['sst2'])
    torch.save(dict(model.state_dict()), tmp_path / 'best_params')  # as in earlier versions
    if settings is None:
        os.unlink(tmp_path / 'settings.json')
    else:
        (tmp_path / 'settings.json').write_text(json.dumps(settings))
    with pytest.raises(InputError, match=words):
        open_model(str(tmp_path), n_head=4)


# The vocabulary of another model


def other_vocabulary(folder, n_more):
    """Write a vocabulary with `n_more` more or fewer symbols, or with two exchanged."""
    other = copy.copy(encoder())
    n_vocab = other.n_vocab + n_more
    other.encoder = {symbol: i for symbol, i in other.encoder.items() if i < n_vocab}
    other.encoder.update({f'new{i}': other.n_vocab + i for i in range(n_more)})
    if not n_more:
        a, b = list(other.encoder)[5:7]
        other.encoder[a], other.encoder[b] = other.encoder[b], other.encoder[a]
    os.makedirs(folder, exist_ok=True)
    save_vocabulary(other, str(folder))


@pytest.mark.parametrize('n_more', [0, 1])
@pytest.mark.parametrize('kind', ['openai', 'pre-trained', 'fine-tuned', 'hugging face', 'named'])
def test_the_vocabulary_of_another_model_is_refused(tmp_path, kind, n_more):
    folder, other = tmp_path / 'model', tmp_path / 'other'
    if kind in ('openai', 'pre-trained'):
        shutil.copytree(MODEL_DIR, folder)
        if kind == 'pre-trained':
            save_pretrained_settings(str(folder), {'n_head': 4}, encoder())
        elif not n_more:  # OpenAI's folder has no fingerprint: only the sizes tell
            return
    else:
        folder.mkdir()
        save_finetuned(folder, SOME_TASKS['rocstories'])
    if kind == 'hugging face':
        opened = open_model(str(folder))
        folder = tmp_path / 'hf'
        save_huggingface(opened, str(folder))
    is_beside = kind not in ('hugging face', 'named')
    other_vocabulary(folder if is_beside else other, n_more)
    with pytest.raises(InputError, match='belongs to another model'):
        open_model(str(folder), None if is_beside else str(other), n_head=4)


def test_a_file_of_parameters_tells_its_settings_and_vocabulary(tmp_path):
    model = save_finetuned(tmp_path, SOME_TASKS['mnli'])
    settings = read_settings(str(tmp_path))
    (tmp_path / 'settings.json').unlink()
    saver = Saver(background=True)
    saver.save(str(tmp_path / 'best_params'), model.state_dict())
    saver.save(str(tmp_path / 'checkpoint'), {'model': model.state_dict(), 'run': ''})
    saver.wait()
    other_vocabulary(tmp_path / 'small', -9)
    for name in ('best_params', 'checkpoint'):
        opened = open_model(str(tmp_path / name))
        assert opened.settings == settings and opened.task == SOME_TASKS['mnli']
        assert opened.model.config.n_head == 4
        with pytest.raises(InputError, match='belongs to another model'):
            open_model(str(tmp_path / name), str(tmp_path / 'small'))


@pytest.mark.parametrize(
    'name, value, refused',
    [
        ('n_head', 2, 'n_head'),
        ('afn', 'relu', 'afn'),
        ('task', SOME_TASKS['race'].to_dict(), 'n_context'),
        ('task', SOME_TASKS['sst2'].to_dict(), 'layout'),
        ('task', {**SOME_TASKS['rocstories'].to_dict(), 'title': 'Mine'}, False),
        ('vocabulary', 'f' * 16, 'vocabulary'),
        ('lr', 1.0, False),
    ],
)
def test_the_settings_of_another_model_are_refused(tmp_path, name, value, refused):
    save_finetuned(tmp_path, SOME_TASKS['rocstories'])
    path = tmp_path / 'settings.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    if refused:
        with pytest.raises(InputError, match=f'settings.json belongs to another.* {refused} is'):
            open_model(str(tmp_path))
    else:
        assert open_model(str(tmp_path)).settings[name] == value


@pytest.mark.parametrize('with_settings', [False, True])
def test_other_merges_than_those_of_the_weights_are_refused(tmp_path, with_settings):
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    if with_settings:
        save_pretrained_settings(str(tmp_path / 'model'), {'n_head': 4}, encoder())
    other = tmp_path / 'other.bpe'
    lines = (tmp_path / 'model' / 'vocab_40000.bpe').read_text().splitlines()
    other.write_text('\n'.join([lines[0], *lines[:0:-1], '']))
    folder = str(tmp_path / 'model')
    with pytest.raises(InputError, match='other.bpe belongs to another model'):
        open_encoder(folder, bpe_path=str(other))
    open_encoder(folder, bpe_path=str(other), transfers=False)
    open_encoder(folder, bpe_path=os.path.join(folder, 'vocab_40000.bpe'))


# Vocabularies


def test_a_fingerprint_differs_where_the_vocabulary_differs(tmp_path):
    first = fingerprint_vocabulary(encoder())
    assert len(first) == 16 and first == fingerprint_vocabulary(encoder())
    other = copy.copy(encoder())
    pair = known_merges(other)[0]
    other.bpe_ranks = {**other.bpe_ranks, pair: 10**6}  # a merge takes another place
    assert fingerprint_vocabulary(other) != first
    facts = vocabulary_facts(encoder())
    assert facts == {'n_vocab': encoder().n_vocab, 'vocabulary': first}
