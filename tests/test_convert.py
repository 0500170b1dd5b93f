"""convert.py: both libraries compute the same from the same weights, and what goes there and back is unchanged."""

import collections
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch

import convert
from checkpoint import load_finetuned_model, read_parameters
from datasets import Stories
from model_pytorch import Config, DoubleHeadModel, init_weights, load_pretrained_model
from predict import score
from text_utils import TextEncoder
from utils import InputError, collate, transform_roc

MODEL_DIR = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), 'golden', 'rocstories-tiny', 'model'
)  # 2 layers, 4 heads, width 32
STORY = (
    'Ella had no tape. She went to the store at night.',
    'She took tape home.',
    'The piano was happy.',
)


@pytest.fixture(scope='module')
def encoder():
    return TextEncoder(
        os.path.join(MODEL_DIR, 'encoder_bpe_40000.json'),
        os.path.join(MODEL_DIR, 'vocab_40000.bpe'),
    )


@pytest.fixture(scope='module')
def finetuned(encoder, tmp_path_factory):
    """Parameters as train.py keeps them, with their settings."""
    folder = tmp_path_factory.mktemp('save')
    torch.manual_seed(0)
    model = DoubleHeadModel(
        Config(n_vocab=encoder.n_vocab, n_ctx=60, n_embd=32, n_head=4, n_layer=2)
    )
    init_weights(model)
    with torch.no_grad():  # biases and gains that matter
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    torch.save(model.state_dict(), folder / 'best_params')
    (folder / 'settings.json').write_text(
        json.dumps(
            {
                'n_head': 4,
                'afn': 'gelu',
                'encoder_path': os.path.join(MODEL_DIR, 'encoder_bpe_40000.json'),
                'bpe_path': os.path.join(MODEL_DIR, 'vocab_40000.bpe'),
            }
        )
    )
    return folder


def ours(model, stories, encoder):
    """Classifier's logits [stories, 2], and LM logits of each *separate* row: a list of [tokens, rows of the embedding]."""
    model.eval()
    batch = collate(stories, encoder.n_vocab + 3, share_context=False)
    with torch.no_grad():
        h, we = model.transformer(batch)
        logits, _ = model(batch, lm=False)
    lengths = [len(story.trunk) + len(branch) for story in stories for branch in story.branches]
    return logits, (h[: sum(lengths)] @ we.t()).split(lengths)


def test_openai_to_huggingface_logits(tmp_path, encoder):
    transformers = pytest.importorskip('transformers')
    assert convert.main([MODEL_DIR, str(tmp_path / 'hf'), '--n_head', '4']) is None
    theirs = transformers.OpenAIGPTLMHeadModel.from_pretrained(tmp_path / 'hf').eval()
    model = load_pretrained_model(MODEL_DIR, n_head=4)
    ids = encoder.encode(STORY[0])
    [story] = transform_roc([ids], [[]], [[]], [0], ['1'], encoder.n_vocab, 100)
    story = story._replace(
        trunk=np.array(ids), branches=(story.branches[0][:0],) * 2
    )  # no special tokens: the pre-trained model has none
    _, (logits, _) = ours(model, [story._replace(branches=(np.array([5]), np.array([6])))], encoder)
    with torch.no_grad():
        wanted = theirs(torch.tensor([[*ids, 5]])).logits[0]
    assert theirs.config.vocab_size == encoder.n_vocab
    torch.testing.assert_close(logits[:, : encoder.n_vocab], wanted, atol=1e-4, rtol=0)


def test_finetuned_to_huggingface_logits(tmp_path, encoder, finetuned):
    transformers = pytest.importorskip('transformers')
    assert convert.main([str(finetuned / 'best_params'), str(tmp_path / 'hf')]) is None
    theirs = transformers.OpenAIGPTDoubleHeadsModel.from_pretrained(tmp_path / 'hf').eval()
    model = load_finetuned_model(finetuned / 'best_params', encoder.n_vocab, n_head=4)
    stories = transform_roc(
        *([encoder.encode(text)] for text in STORY), [0], ['1'], encoder.n_vocab, 100
    )
    clf, lm = ours(model, stories, encoder)
    for k, branch in enumerate(stories[0].branches):
        ids = torch.from_numpy(np.concatenate([stories[0].trunk, branch]))[None, None]
        with torch.no_grad():
            out = theirs(ids, mc_token_ids=torch.tensor([[ids.shape[-1] - 1]]))
        torch.testing.assert_close(out.mc_logits[0, 0], clf[0, k], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            out.logits[0, 0], lm[k][:, : encoder.n_vocab + 3], atol=1e-4, rtol=0
        )
    np.testing.assert_allclose(
        score(model, encoder, Stories(['1'], *([text] for text in STORY), [0]))[0], clf, atol=1e-5
    )

    tokenizer = transformers.OpenAIGPTTokenizer.from_pretrained(tmp_path / 'hf')
    assert len(tokenizer) == encoder.n_vocab + 3
    text = '_start_ the store at night _delimiter_ she took tape _classify_'
    ids = tokenizer.encode(text)
    assert (ids[0], ids[-1]) == (
        encoder.n_vocab,
        encoder.n_vocab + 2,
    ) and encoder.n_vocab + 1 in ids
    assert ids[1 : ids.index(encoder.n_vocab + 1)] == encoder.encode('the store at night')


def test_there_and_back(tmp_path):
    """Byte for byte."""
    assert convert.main([MODEL_DIR, str(tmp_path / 'hf'), '--n_head', '4']) is None
    assert convert.main([str(tmp_path / 'hf'), str(tmp_path / 'back')]) is None
    for name in [
        *(f'params_{i}.npy' for i in range(10)),
        'params_shapes.json',
        'encoder_bpe_40000.json',
    ]:
        with (
            open(os.path.join(MODEL_DIR, name), 'rb') as a,
            open(tmp_path / 'back' / name, 'rb') as b,
        ):
            assert a.read() == b.read(), name
    assert (
        json.loads((tmp_path / 'back' / 'settings.json').read_text())['n_head'] == 4
    )  # so it need not be given again
    assert load_pretrained_model(tmp_path / 'back', n_head=4).config.n_layer == 2


@pytest.mark.parametrize('prefix', ['', 'transformer.'])
def test_from_files_that_transformers_wrote(tmp_path, prefix):
    """model.safetensors and tokenizer.json of a current version; pytorch_model.bin, vocab.json, merges.txt, with their names, of an early one."""
    transformers = pytest.importorskip('transformers')
    vocabulary = {
        symbol: i
        for i, symbol in enumerate(
            ['<unk>', 'a', 'b', 'c', 'a</w>', 'b</w>', 'c</w>', 'ab', 'abc</w>']
        )
    }
    config = transformers.OpenAIGPTConfig(
        vocab_size=9, n_positions=12, n_embd=8, n_layer=2, n_head=2, afn='gelu'
    )
    theirs = transformers.OpenAIGPTLMHeadModel(config).eval()
    hf = tmp_path / 'hf'
    theirs.save_pretrained(hf)
    merges = [('a', 'b'), ('ab', 'c</w>')]
    if prefix:
        transformers.OpenAIGPTTokenizer(vocab=vocabulary, merges=merges).save_pretrained(hf)
        assert os.path.exists(hf / 'model.safetensors')
    else:
        os.unlink(hf / 'model.safetensors')
        state = {
            name.removeprefix('transformer.'): p
            for name, p in theirs.state_dict().items()
            if not name.startswith('lm_head')
        }
        state['h.0.attn.bias'] = torch.ones(1, 1, 12, 12)
        torch.save(state, hf / 'pytorch_model.bin')
        (hf / 'vocab.json').write_text(json.dumps(vocabulary))
        (hf / 'merges.txt').write_text('#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges))
    assert convert.main([str(hf), str(tmp_path / 'openai')]) is None
    encoder = TextEncoder(
        tmp_path / 'openai' / 'encoder_bpe_40000.json', tmp_path / 'openai' / 'vocab_40000.bpe'
    )
    assert encoder.encode('ABC c') == [8, 6]
    model = load_pretrained_model(tmp_path / 'openai', n_head=2)
    ids = [1, 4, 8, 0, 3]
    [story] = transform_roc([[]], [[]], [[]], [0], ['1'], 9, 9)
    _, (logits, _) = ours(
        model,
        [story._replace(trunk=np.array(ids[:4]), branches=(np.array(ids[4:]), np.array([1])))],
        encoder,
    )
    with torch.no_grad():
        torch.testing.assert_close(
            logits[:, :9], theirs(torch.tensor([ids])).logits[0], atol=1e-4, rtol=0
        )


@pytest.mark.parametrize(
    'damage', ['config', 'sizes', 'cut', 'shape', 'missing', 'nan', 'vocabulary', 'no weights']
)
def test_damaged_folders(tmp_path, capsys, damage):
    from safetensors.torch import load_file, save_file

    hf = tmp_path / 'hf'
    convert.main([MODEL_DIR, str(hf), '--n_head', '4'])
    weights = load_file(hf / 'model.safetensors')
    name = 'transformer.h.1.ln_2.weight'
    config = json.loads((hf / 'config.json').read_text())
    if damage == 'config':
        (hf / 'config.json').write_text('[]')
    elif damage == 'sizes':
        (hf / 'config.json').write_text(json.dumps({**config, 'n_embd': 10**12}))
    elif damage == 'cut':
        (hf / 'model.safetensors').write_bytes((hf / 'model.safetensors').read_bytes()[:-7])
    elif damage == 'no weights':
        os.unlink(hf / 'model.safetensors')
    elif damage == 'vocabulary':
        vocabulary = json.loads((hf / 'vocab.json').read_text())
        (hf / 'vocab.json').write_text(json.dumps({**vocabulary, 'new': len(vocabulary)}))
    else:
        changed = {'shape': torch.zeros(33), 'nan': torch.full((32,), torch.nan)}.get(damage)
        save_file(
            {**weights, name: changed}
            if changed is not None
            else {n: p for n, p in weights.items() if n != name},
            hf / 'model.safetensors',
        )
    capsys.readouterr()
    assert convert.main([str(hf), str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert error.startswith('convert.py: error: ') and error.count('\n') == 1
    assert not os.path.exists(tmp_path / 'out')
    assert damage not in ('shape', 'missing', 'nan') or name in error


def test_nothing_is_overwritten(tmp_path, capsys):
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    convert.main([MODEL_DIR, str(tmp_path / 'hf'), '--n_head', '4'])
    assert convert.main([str(tmp_path / 'hf'), str(tmp_path / 'model')]) == 2
    assert 'is there already' in capsys.readouterr().err
    assert convert.main([str(tmp_path / 'nothing'), str(tmp_path / 'x')]) == 2
    assert 'neither' in capsys.readouterr().err


# Checkpoints (checkpoint.read_parameters)


def earlier_port(state, prefix=''):
    """The same parameters as an earlier PyTorch port saved them."""
    masks = {
        f'transformer.h.{i}.attn.b': torch.ones(60, 60).tril().view(1, 1, 60, 60) for i in range(2)
    }
    state = {**state, **masks, 'lm_head.decoder.weight': state['transformer.embed.weight']}
    return collections.OrderedDict((prefix + name, p) for name, p in state.items())


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('zipped', [True, False])
def test_checkpoints_of_the_earlier_port(tmp_path, encoder, finetuned, prefix, zipped):
    state = torch.load(finetuned / 'best_params', weights_only=True)
    torch.save(
        earlier_port(state, prefix), tmp_path / 'params', _use_new_zipfile_serialization=zipped
    )
    found = read_parameters(tmp_path / 'params')
    assert found.keys() == state.keys() and all(
        torch.equal(found[name], state[name]) for name in state
    )
    model = load_finetuned_model(tmp_path / 'params', encoder.n_vocab, n_head=4)
    assert model.config.n_ctx == 60 and model.config.n_layer == 2 and not model.training


class Bomb:
    def __reduce__(self):
        return os.mkdir, ('exploded',)


@pytest.mark.parametrize(
    'case',
    [
        'code',
        'text',
        'cut',
        'packed',
        'list',
        'empty',
        'stray',
        'missing',
        'shape',
        'nan',
        'half',
        'huge',
        'sparse',
        'meta',
        'folder',
        'nowhere',
    ],
)
def test_files_that_hold_no_parameters(tmp_path, monkeypatch, finetuned, case):
    monkeypatch.chdir(tmp_path)
    state = torch.load(finetuned / 'best_params', weights_only=True)
    b = 'transformer.h.0.ln_1.b'
    changed = {
        'code': {b: Bomb()},
        'list': None,
        'empty': {},
        'stray': {**state, 'x': torch.ones(1)},
        'missing': {n: p for n, p in state.items() if n != b},
        'shape': {**state, b: torch.ones(31)},
        'nan': {**state, b: state[b] / 0 * 0},
        'half': {**state, b: state[b].half()},
        'huge': {**state, b: torch.ones(1).expand(1 << 40)},
        'sparse': {**state, b: state[b].to_sparse()},
        'meta': {**state, b: state[b].to('meta')},
    }
    if case == 'text':
        (tmp_path / 'params').write_text('no parameters')
    elif case == 'cut':
        (tmp_path / 'params').write_bytes((finetuned / 'best_params').read_bytes()[:-1000])
    elif case == 'packed':
        with (
            zipfile.ZipFile(finetuned / 'best_params') as plain,
            zipfile.ZipFile(tmp_path / 'params', 'w', zipfile.ZIP_DEFLATED) as packed,
        ):
            for entry in plain.infolist():
                packed.writestr(entry.filename, plain.read(entry))
    elif case == 'folder':
        (tmp_path / 'params').mkdir()
    elif case != 'nowhere':
        torch.save(changed[case] if case != 'list' else list(state.values()), tmp_path / 'params')
    with pytest.raises(InputError) as error:
        read_parameters(tmp_path / 'params')
    assert '\n' not in str(error.value) and 'params' in str(error.value)
    assert not os.path.exists(tmp_path / 'exploded')


def test_sizes_that_do_not_fit(encoder, finetuned):
    with pytest.raises(InputError, match='too few for the vocabulary'):
        load_finetuned_model(finetuned / 'best_params', 40478, n_head=4)
    with pytest.raises(InputError, match='not divisible by --n_head'):
        load_finetuned_model(finetuned / 'best_params', encoder.n_vocab, n_head=12)
