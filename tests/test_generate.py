"""generate.py and sampling.py: the cached pass, what is drawn, and how the text is printed."""

import io

import numpy as np
import pytest
import torch
from conftest import ROOT
from tiny_models import MODEL_DIR, SOME_TASKS, encoder, save_finetuned

import generate
from gpt1.ops import sampling
from gpt1.ops.batches import collate_windows
from model_pytorch import Config, DoubleHeadModel, init_weights
from text_utils import detokenize

TINY = ['--model_dir', MODEL_DIR, '--n_head', '4', '--device', 'cpu']


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    model = DoubleHeadModel(Config(n_vocab=50, n_ctx=16, n_embd=24, n_head=3, n_layer=3)).eval()
    init_weights(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return model


def plain_logits(model, ids):
    """Logits after each of ids, by one pass of the model itself: [tokens, n_vocab]."""
    batch = collate_windows(np.array([ids]), model.config.first_position)
    with torch.no_grad():
        h, _ = model.transformer(batch)
        return (h @ model.transformer.embed.weight.t())[:, : model.config.n_vocab]


# The cached pass


@pytest.mark.parametrize('pieces', [[1] * 16, [16], [5, 1, 1, 4, 5]])
def test_cached_logits_equal_plain_ones(model, pieces):
    rows = torch.randint(50, (3, 16), generator=torch.Generator().manual_seed(1))
    wanted = torch.stack([plain_logits(model, row.tolist()) for row in rows])
    cached, done = sampling.CachedModel(model, 3), 0
    for piece in pieces:
        logits = cached(rows[:, done : done + piece])
        done += piece
        torch.testing.assert_close(logits[:, :50], wanted[:, done - 1], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match='16 positions'):
        cached(rows[:, :1])


def test_longer_than_the_positions(model):
    """Each token is read once; when the positions are full, it continues from their second half."""
    seen = []
    hook = model.transformer.h[0].mlp.c_fc.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    ids = list(range(1, 11))
    out = [token for [token] in sampling.generate(model, ids, length=30, temperature=0)]
    hook.remove()
    assert seen == [10, *[1] * 6, *[9, *[1] * 7] * 2, *[9, *[1] * 6]]
    window = ids
    for token in out:
        if len(window) > 16:
            window = window[-9:]
        logits = plain_logits(model, window)[-1]
        logits[0] = -torch.inf
        assert logits.argmax() == token
        window = [*window, token]
    assert len(list(sampling.generate(model, [3] * 100, length=3))) == 3


# Drawing


def test_what_may_be_drawn(model):
    """Words; of a fine-tuned model also `_delimiter_` (51) and `_classify_` (52), its end."""
    rows = sampling.generate(model, [1], length=20, n_samples=200, temperature=50.0)
    drawn = {token for row in rows for token in row}
    assert drawn == set(range(1, 50))  # neither <unk> nor special or position rows
    options = dict(length=300, n_samples=4, temperature=3.0, special=True)
    rows = list(sampling.generate(model, [50, 1], **options))
    assert {token for row in rows for token in row} == set(range(1, 53)) - {50}
    assert max(sample.index(52) for sample in zip(*rows)) + 1 == len(rows) < 300


@pytest.mark.parametrize(
    'options, wanted',
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({'temperature': 0}, [0, 1, 0, 0]),
        ({'temperature': 5e-324}, [0, 1, 0, 0]),
        ({'temperature': 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        ({'temperature': 1000.0}, [0.25, 0.25, 0.25, 0.25]),
        ({'top_k': 2}, [0, 4 / 7, 0, 3 / 7]),
        ({'top_p': 0}, [0, 1, 0, 0]),
        ({'top_p': 0.65}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_temperature_top_k_and_top_p(options, wanted):
    """How often each of four tokens with the probabilities 0.1, 0.4, 0.2, 0.3 is drawn."""
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log().expand(4000, -1)
    options = {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0, **options}
    tokens = sampling.choose(logits, generator=torch.Generator().manual_seed(0), **options)
    assert tokens.shape == (4000, 1)
    shares = (tokens.view(-1).bincount(minlength=4) / 4000).tolist()
    assert shares == pytest.approx(wanted, abs=0.04 if max(wanted) < 1 else 0)


# Tokens to text (text_utils.detokenize)

WORDS = {
    'He said , " I ca n\'t go . " She nodded .': 'He said, "I can\'t go." She nodded.',
    "rick 's dogs ' tails ; they 're \" ok \" .": "rick's dogs' tails; they're \"ok\".",
    "' hello , ' he said . ' bye . '": "'hello,' he said. 'bye.'",
    "rock ' n ' roll": "rock 'n' roll",
    'it cost $ 5 ( or 10 % off ) and / or # 3': 'it cost $5 (or 10% off) and/or #3',
    "well ... what ? no ! ! she 'd 've known": "well... what? no!! she'd've known",
    'one " two " three " four " five': 'one "two" three "four" five',
    "gon na c'm on y' all": "gonna c'mon y'all",
    'a - <unk> b': 'a - <unk> b',
}


def test_detokenize():
    """It never looks ahead, so a text can be printed while it is drawn."""
    for text, wanted in WORDS.items():
        words = text.split()
        assert detokenize(words) == wanted
        assert all(wanted.startswith(detokenize(words[:n])) for n in range(len(words)))


# The command line


def run(capsys, *argv):
    assert generate.main([*argv]) == 0
    return capsys.readouterr().out


def test_many_samples(capsys):
    """They are drawn in groups; a seed draws the same again, another seed does not."""
    options = ['Ella had no tape.', *TINY, '--length', '3', '--n_samples', '37', '--seed']
    first, again, other = (run(capsys, *options, str(seed)) for seed in (1, 1, 2**63 - 1))
    assert '--- 37 ---' in first and again == first != other
    samples = [part.split('---\n')[1] for part in first.split('\n--- ')[1:]]
    assert len(samples) == 36 and len(set(samples)) > 10
    assert all(sample.startswith('Ella had no tape.') for sample in samples)  # as it was typed


def test_each_word_is_printed_as_it_is_drawn(capsys, monkeypatch):
    """From standard input."""
    shown, sampling_generate = [], sampling.generate

    def draw(*args, **options):
        for token in sampling_generate(*args, **options):
            shown.append(capsys.readouterr().out)
            yield token

    monkeypatch.setattr(sampling, 'generate', draw)
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'Ella had no tape.\n')))
    shown.append(run(capsys, *TINY, '--length', '20', '--seed', '3'))
    assert shown[0] == 'Ella had no tape.' and shown[-1].endswith('\n')
    assert sum(map(bool, shown)) > 5
    monkeypatch.undo()
    text = run(capsys, 'Ella had no tape.', *TINY, '--length', '20', '--seed', '3')
    assert ''.join(shown) == text


def test_a_fine_tuned_model(tmp_path, capsys, monkeypatch):
    """It reads `_start_` first. What follows `_classify_` is not drawn, and no such token shown."""
    save_finetuned(tmp_path, SOME_TASKS['mnli'])
    start, delimiter, classify = range(encoder().n_vocab, encoder().n_vocab + 3)
    ids, ending, more = map(encoder().encode, ('ella ☃ no tape.', 'the store.', 'night'))
    sample = iter([delimiter, *ending, classify, *more])
    given = {'length': 9, 'temperature': 0.5, 'top_k': 3, 'top_p': 0.2, 'seed': 4}

    def draw(model, read, **options):
        assert read == [start, *ids] and options == {**given, 'n_samples': 1, 'special': True}
        return ([token] for token in sample)

    monkeypatch.setattr(sampling, 'generate', draw)
    argv = ['Ella ☃ no tape.', '--params', str(tmp_path), '--device', 'cpu']
    assert generate.main([*argv, *(f'--{name}={value}' for name, value in given.items())]) == 0
    printed = capsys.readouterr()
    assert printed.out == 'Ella ☃ no tape. the store.\n'
    assert '1 of 15 characters are not in the vocabulary' in printed.err
    assert len(list(sample)) == len(more)


@pytest.mark.parametrize(
    'argv, error',
    [
        ([' ', *TINY], 'no text'),
        (TINY, 'not UTF-8'),
        (['x', '--model_dir', MODEL_DIR], '--n_head 12'),
        (['x', '--model_dir', ROOT], 'params_shapes.json'),
    ],
)
def test_errors(capsys, monkeypatch, argv, error):
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'\xff\xfe'), encoding='utf-8'))
    try:
        status = generate.main(argv)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    printed = capsys.readouterr().err
    assert printed.startswith('generate.py: error: ')
    assert error in printed and printed.count('\n') == 1
