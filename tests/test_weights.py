"""Every way to weights: shards, Hugging Face folders, files of parameters, vocabularies."""

import copy
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from small_files import error_of
from tiny_models import MODEL_DIR, REGRESSION, SOME_TASKS, encoder, random_model, save_finetuned

from gpt1.run.checkpoint import Saver
from gpt1.settings import read_settings
from gpt1.weights.export import save_huggingface
from gpt1.weights.huggingface import open_weights
from gpt1.weights.open import open_model
from gpt1.weights.openai import load_openai_pretrained_model
from gpt1.weights.parameters import load_state, read_parameters, save_settings
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import open_encoder, save_vocabulary
from model_pytorch import Config, LMModel, special_rows
from utils import LFS_POINTER, OutOfMemory

POINTER = LFS_POINTER.decode() + 'v1\noid sha256:abc\nsize 467\n'


@pytest.fixture
def openai(tmp_path):
    """A copy of the golden model."""
    return shutil.copytree(MODEL_DIR, tmp_path / 'model')


@pytest.fixture
def finetuned(tmp_path):
    """The folder of a fine-tuned model for stories."""
    (tmp_path / 'save').mkdir()
    save_finetuned(tmp_path / 'save', SOME_TASKS['rocstories'])
    return tmp_path / 'save'


@pytest.fixture
def huggingface(tmp_path):
    """A Hugging Face folder of the golden model."""
    save_huggingface(open_model(MODEL_DIR, n_head=4), str(tmp_path / 'hf'))
    return tmp_path / 'hf'


# OpenAI's shards


def test_loading_fills_the_embedding_and_the_first_layers():
    weights = open_weights(MODEL_DIR)
    special = special_rows(32, np.random.RandomState(1))
    model = LMModel(Config(weights.n_vocab, 20, 32, 4, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7)
    loaded = load_openai_pretrained_model(model, weights, special, 1)
    positions, tokens, *_ = weights.read()
    embed = model.transformer.embed.weight.detach().numpy()
    np.testing.assert_array_equal(embed[: weights.n_vocab], tokens)
    np.testing.assert_array_equal(embed[weights.n_vocab : weights.n_vocab + 3], special)
    np.testing.assert_array_equal(embed[weights.n_vocab + 3 :], positions[:20])
    assert len(loaded) == 13
    assert all((p == 7).all() for p in model.transformer.h[1].parameters())
    assert not any((p == 7).all() for p in model.transformer.h[0].parameters())
    assert load_openai_pretrained_model(model, weights, special, -1) == []
    model = LMModel(Config(weights.n_vocab, 513, 32, 4, 2))
    error = error_of(load_openai_pretrained_model, model, weights, special, 2)
    assert '513 positions are needed' in error and 'lower --n_ctx' in error


def test_sizes_that_the_weights_do_not_have(huggingface):
    for weights in map(open_weights, (MODEL_DIR, str(huggingface))):
        weights.check(260, 32, 2)
        assert '--n_transfer 3: the weights in' in error_of(weights.check, 260, 32, 3)
        assert '--n_embd 16: the weights in' in error_of(weights.check, 260, 16, 2)
        assert 'belongs to another model' in error_of(weights.check, 261, 32, 2)
    for name in os.listdir(huggingface):  # now the vocabulary is elsewhere: each row is a symbol's
        if name not in ('config.json', 'model.safetensors'):
            os.unlink(huggingface / name)
    open_weights(str(huggingface)).check(weights.n_rows, 32, 2)


# Hugging Face folders


def rewrite(path, change):
    """Write a file again after `change` of its tensors. Others than safetensors may be new."""
    source = path if path.exists() else path.with_name('model.safetensors')
    tensors = change(load_file(str(source)))
    source.unlink()
    (safetensors.torch.save_file if path.suffix == '.safetensors' else torch.save)(tensors, path)


@pytest.mark.parametrize(
    'file, prefix, embedding, kind',
    [
        ('model.safetensors', '', 'tokens_embed.weight', torch.bfloat16),
        ('model.safetensors', 'transformer.', 'lm_head.weight', torch.float32),  # it is tied
        ('pytorch_model.bin', '', 'tokens_embed.weight', torch.float32),
    ],
)
def test_names_and_types_of_all_versions(huggingface, file, prefix, embedding, kind):
    def change(tensors):
        names = {name: prefix + name.removeprefix('transformer.') for name in tensors}
        if embedding == 'lm_head.weight':
            names['transformer.tokens_embed.weight'] = embedding
        return {names[name]: p.to(kind) for name, p in tensors.items()}

    rewrite(huggingface / file, change)
    tolerance = 0 if kind == torch.float32 else 0.01
    found, wanted = open_model(str(huggingface)).model, open_model(MODEL_DIR, n_head=4).model
    for p, q in zip(found.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=tolerance, rtol=tolerance)


def test_a_tokenizer_file_alone(tmp_path):
    """test_convert.py has those of the library."""
    symbols = {'a': 0, 'b</w>': 1, 'ab</w>': 2}
    for merges in (['a b</w>'], [['a', 'b</w>']]):
        model = {'type': 'BPE', 'vocab': symbols, 'merges': merges}
        (tmp_path / 'tokenizer.json').write_text(json.dumps({'model': model}))
        assert open_encoder(str(tmp_path)).encode('ab') == [2]
    for model in ({}, {'vocab': {'a': 1}, 'merges': []}, {'vocab': symbols, 'merges': [['a']]}):
        (tmp_path / 'tokenizer.json').write_text(json.dumps({'model': model}))
        assert 'holds no byte pairs' in error_of(open_encoder, str(tmp_path))


# Files of parameters


@pytest.mark.parametrize('prefix, zipped', [('', True), ('module.', False)])
def test_files_of_the_earlier_port(tmp_path, finetuned, prefix, zipped):
    """They have no settings: the options tell what the shapes do not."""
    state = torch.load(finetuned / 'best_params', weights_only=True)
    port = {**state, 'lm_head.decoder.weight': state['transformer.embed.weight']}
    port['transformer.h.0.attn.b'] = torch.ones(60, 60).tril().view(1, 1, 60, 60)  # of attention
    path = str(tmp_path / 'params')
    port = {prefix + name: p for name, p in port.items()}
    torch.save(port, path, _use_new_zipfile_serialization=zipped)
    found, _ = read_parameters(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    opened = open_model(path, MODEL_DIR, n_head=4)
    assert opened.task.name == 'rocstories' and not opened.model.training
    assert opened.model.config.n_ctx == 60 and opened.model.config.n_layer == 2
    error = error_of(open_model, path, n_head=4)
    assert 'no vocabulary beside it' in error and '--model_dir' in error
    assert 'not divisible by --n_head 12' in error_of(open_model, path, MODEL_DIR)
    other = random_model(SOME_TASKS['rocstories'], n_ctx=61)
    assert 'holds the parameters of another model' in error_of(load_state, other, found, path)
    for path in (tmp_path, tmp_path / 'absent'):
        assert 'cannot read' in error_of(read_parameters, str(path))


def test_too_little_memory_is_not_damage(finetuned, monkeypatch):
    def load(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, 'load', load)
    with pytest.raises(OutOfMemory, match='cannot load .*best_params'):
        load_file(str(finetuned / 'best_params'))


# Damaged files of every format, each with its message; test_fuzz.py has any bytes


def npy(content, shape, dtype='<f4'):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + content


def ending(end, n):
    """Replace the last `n` bytes of a file."""
    return lambda path: path.write_bytes(path.read_bytes()[:-n] + end)


def put(name, change):
    """Put `change(tensor)` in the place of a tensor; None takes the tensor away."""

    def put_in(state):
        changed = {} if change is None else {name: change(state.get(name))}
        return {**{n: p for n, p in state.items() if n != name}, **changed}

    return lambda path: rewrite(path, put_in)


SHAPES, SHARD, BIN = 'params_shapes.json', 'params_3.npy', 'pytorch_model.bin'
GAIN, BIAS = 'transformer.h.1.ln_2.weight', 'transformer.h.0.ln_1.b'
HEAD, HUGE = 'task_head.linear.weight', torch.zeros(1).expand(1 << 40)
NOT_A_SHARD, NO_NUMBERS = 'incomplete or not a NumPy file', 'is not an array of numbers'
NO_PARAMETERS, ANOTHER = 'not a file of parameters', 'the parameters of another model'
DAMAGE = [  # the file, what is in its place or happens to it, words of the message
    *((file, POINTER, f'{file} is a Git LFS pointer') for file in (
        SHAPES, SHARD, 'encoder_bpe_40000.json', 'model.safetensors', 'merges.txt', 'config.json',
        'settings.json', 'best_params',
    )),
    *((SHAPES, shapes, 'expected a list of shapes') for shapes in (
        '[]', '[[2, 0]]', '[[2, 3], [4, 3], [1]]',
    )),
    (SHAPES, None, 'python download.py'),
    (SHARD, None, 'cannot read'),
    *((SHARD, content, NOT_A_SHARD) for content in (
        '', npy(bytes(8), '(4611686018427387904,)'), npy(bytes(16), '(2,)', '<f8'),
    )),
    (SHARD, npy(bytes(8), '(2,)'), 'the shards hold'),
    (SHARD, ending(b'\x00\x00\xc0\x7f', 4), 'NaN or infinity'),
    ('model.safetensors', None, 'no weights; expected model.safetensors'),
    ('model.safetensors', 'x' * 100, 'is damaged'),
    *((BIN, put(GAIN, change), words) for change, words in (
        (None, 'ln_2.weight is missing'), (lambda p: torch.zeros(33), 'the shape of h.1.ln_2'),
        (lambda p: p * torch.nan, 'NaN or infinity'), (torch.Tensor.int, NO_NUMBERS),
        (lambda p: [1.0] * 32, 'ln_2.weight is missing'),
    )),
    ('config.json', '{}', 'n_positions'),
    ('vocab.json', '{}', 'vocab.json'),
    ('merges.txt', None, 'merges.txt'),
    *(('best_params', put(BIAS, change), words) for change, words in (
        (None, ANOTHER), (lambda p: torch.ones(31), ANOTHER), (lambda p: 1, NO_PARAMETERS),
        (lambda p: p / 0 * 0, 'NaN or infinity'), (lambda p: HUGE, NO_NUMBERS),
        (torch.Tensor.to_sparse, NO_NUMBERS), (lambda p: p.to('meta'), NO_NUMBERS),
    )),
    ('best_params', put('x', lambda p: torch.ones(1)), ANOTHER),
    ('best_params', put(HEAD, None), f'no {HEAD}'),
    ('best_params', lambda path: rewrite(path, lambda state: [*state.values()]), 'expected a dict'),
    ('best_params', ending(b'', 1000), NO_PARAMETERS),
]  # fmt: skip


@pytest.mark.parametrize('file, damage, words', DAMAGE)
def test_damaged_files(request, file, damage, words):
    kind = 'finetuned' if file == 'best_params' else 'huggingface'
    if file in (SHAPES, SHARD, 'encoder_bpe_40000.json', 'settings.json'):
        kind = 'openai'
    folder = request.getfixturevalue(kind)
    path = folder / file
    if damage is None:
        path.unlink()
    elif callable(damage):
        damage(path)
    else:
        path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert words in error_of(open_model, str(folder), n_head=4)


# open_model


def test_a_fine_tuned_folder_opens_wherever_it_is_moved(tmp_path, monkeypatch):
    (tmp_path / 'first').mkdir()
    wanted = save_finetuned(tmp_path / 'first', REGRESSION).state_dict()
    shutil.move(tmp_path / 'first', tmp_path / 'second')
    monkeypatch.chdir(tmp_path / 'second')
    for path in ('.', 'best_params'):
        opened = open_model(path)
        assert opened.finetuned and opened.task == REGRESSION
        assert opened.encoder.encode('Ella had no tape.') == encoder().encode('Ella had no tape.')
        assert opened.settings['lr'] == 1e-4 and opened.model.config.embd_pdrop == 0.25
        state = opened.model.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)
        with torch.no_grad():  # the second time, the file is as before
            for p in opened.model.parameters():
                assert p.requires_grad
                p.add_(1)


def test_a_pre_trained_model(openai):
    opened, again = (open_model(MODEL_DIR, n_head=4, afn='relu') for _ in range(2))
    assert not opened.finetuned and opened.model.config.n_ctx == 512
    for p, q in zip(opened.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q)  # the special tokens are drawn alike
    save_settings(str(openai), {'n_head': 2, 'afn': 'swish', 'lr': 0.5}, encoder())
    config = open_model(str(openai)).model.config
    assert (config.n_head, config.afn) == (2, 'swish')
    assert open_model(str(openai), n_head=8).model.config.n_head == 8
    assert '--n_head 5' in error_of(open_model, str(openai), n_head=5)


def test_a_task_that_is_not_known_or_not_that_of_the_parameters(tmp_path):
    model = save_finetuned(tmp_path, SOME_TASKS['sst2'])
    torch.save(dict(model.state_dict()), tmp_path / 'best_params')  # as in earlier versions
    for settings, words in (
        ({'task': {'name': 'sst2'}}, 'task'),
        ({'n_head': 4, 'task': SOME_TASKS['mnli'].to_dict()}, '2 outputs, but MNLI has 3'),
        ({}, 'which task'),
    ):
        (tmp_path / 'settings.json').write_text(json.dumps(settings))
        assert words in error_of(open_model, str(tmp_path), n_head=4)


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


@pytest.mark.parametrize('kind', ['openai', 'pre-trained', 'fine-tuned', 'named', 'hugging face'])
def test_the_vocabulary_of_another_model_is_refused(tmp_path, request, kind):
    fixtures = {'openai': 'openai', 'pre-trained': 'openai', 'hugging face': 'huggingface'}
    folder, other = request.getfixturevalue(fixtures.get(kind, 'finetuned')), tmp_path / 'other'
    if kind == 'pre-trained':
        save_settings(str(folder), {'n_head': 4}, encoder())
    is_beside = kind not in ('hugging face', 'named')
    # OpenAI's folder has no fingerprint: only the sizes tell.
    other_vocabulary(folder if is_beside else other, n_more=int(kind == 'openai'))
    error = error_of(open_model, str(folder), None if is_beside else str(other), n_head=4)
    assert 'belongs to another model' in error


def test_a_file_of_parameters_tells_its_settings_and_vocabulary(tmp_path):
    """What is beside it cannot make it another model."""
    model = save_finetuned(tmp_path, SOME_TASKS['mnli'])
    settings = read_settings(str(tmp_path))
    saver = Saver(background=True)
    saver.save(str(tmp_path / 'best_params'), model.state_dict())
    saver.save(str(tmp_path / 'checkpoint'), {'model': model.state_dict(), 'run': ''})
    saver.wait()
    other_vocabulary(tmp_path / 'small', -9)
    path = tmp_path / 'settings.json'
    others = {'n_head': 2, 'task': SOME_TASKS['race'].to_dict()}
    for beside in (json.dumps({**settings, **others}), None):
        path.unlink() if beside is None else path.write_text(beside)
        for name in ('best_params', 'checkpoint'):
            opened = open_model(str(tmp_path / name))
            assert opened.settings == settings and opened.task == SOME_TASKS['mnli']
            assert opened.model.config.n_head == 4
            error = error_of(open_model, str(tmp_path / name), str(tmp_path / 'small'))
            assert 'belongs to another model' in error


def test_other_merges_than_those_of_the_weights_are_refused(tmp_path, openai):
    folder, other = str(openai), tmp_path / 'other.bpe'
    lines = (openai / 'vocab_40000.bpe').read_text().splitlines()
    other.write_text('\n'.join([lines[0], *lines[:0:-1], '']))
    for _ in range(2):
        error = error_of(open_encoder, folder, bpe_path=str(other))
        assert 'other.bpe belongs to another model' in error
        open_encoder(folder, bpe_path=str(other), transfers=False)
        open_encoder(folder, bpe_path=os.path.join(folder, 'vocab_40000.bpe'))
        save_settings(folder, {'n_head': 4}, encoder())
