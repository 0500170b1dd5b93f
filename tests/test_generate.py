"""generate.py and sampling.py: the cached pass, what is drawn, and how the text is printed."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import MODEL_DIR, SOME_TASKS, encoder, save_finetuned

import generate
from gpt1.ops import sampling
from gpt1.ops.batches import collate_windows
from gpt1.weights.open import open_model
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
    wanted = [plain_logits(model, row.tolist()) for row in rows]
    cached, done = sampling.CachedModel(model, 3), 0
    for piece in pieces:
        logits = cached(rows[:, done : done + piece])
        done += piece
        for row in range(3):
            torch.testing.assert_close(
                logits[row, :50], wanted[row][done - 1], atol=1e-5, rtol=1e-5
            )
    with pytest.raises(ValueError, match='16 positions'):
        cached(rows[:, :1])


def test_each_token_is_read_once(model):
    """The beginning goes through the layers once, then one token at a time."""
    seen = []
    hook = model.transformer.h[0].mlp.c_fc.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    list(sampling.generate(model, [1, 2, 3, 4], length=10))
    hook.remove()
    assert seen == [4] + [1] * 9


def test_longer_than_the_positions(model):
    """When the positions are full, it continues from their second half."""
    ids = list(range(1, 11))
    out = [token for [token] in sampling.generate(model, ids, length=30, temperature=0)]
    assert len(out) == 30
    read, text = [], list(ids)
    for token in out:
        window = text[-16:] if len(text) <= 16 else read
        if len(window) > 16:
            window = text[-9:]
        logits = plain_logits(model, window)[-1]
        logits[0] = -torch.inf
        assert logits.argmax() == token
        text.append(token)
        read = window + [token]
    assert len(list(sampling.generate(model, [3] * 100, length=3))) == 3


# Drawing


def test_only_words_are_drawn(model):
    rows = sampling.generate(model, [1], length=20, n_samples=200, temperature=50.0)
    drawn = {token for row in rows for token in row}
    assert drawn == set(range(1, 50))  # neither <unk> nor special or position rows


def test_a_fine_tuned_model_ends_its_text(model):
    """`_delimiter_` (51) and `_classify_` (52) are drawn, `_start_` (50) is not."""
    drawn = list(
        sampling.generate(model, [50, 1], length=300, n_samples=4, temperature=3.0, special=True)
    )
    samples = list(zip(*drawn))
    assert {token for row in drawn for token in row} == set(range(1, 53)) - {50}
    assert max(sample.index(52) for sample in samples) + 1 == len(drawn) < 300


def shares(n=4000, **options):
    """How often each of four tokens with the probabilities 0.1, 0.4, 0.2, 0.3 is drawn."""
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    options = {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0, **options}
    generator = torch.Generator().manual_seed(0)
    tokens = sampling.choose(logits.expand(n, -1), generator=generator, **options)
    assert tokens.shape == (n, 1)
    return (tokens.view(-1).bincount(minlength=4) / n).tolist()


@pytest.mark.parametrize(
    'options, wanted',
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({'temperature': 0}, [0, 1, 0, 0]),
        ({'temperature': 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        ({'temperature': 1000.0}, [0.25, 0.25, 0.25, 0.25]),
        ({'top_k': 1}, [0, 1, 0, 0]),
        ({'top_k': 2}, [0, 4 / 7, 0, 3 / 7]),
        ({'top_k': 9}, [0.1, 0.4, 0.2, 0.3]),
        ({'top_k': 10**6}, [0.1, 0.4, 0.2, 0.3]),
        ({'top_p': 0}, [0, 1, 0, 0]),
        ({'top_p': 0.35}, [0, 1, 0, 0]),
        ({'top_p': 0.65}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_temperature_top_k_and_top_p(options, wanted):
    assert shares(**options) == pytest.approx(wanted, abs=0.04)


@pytest.mark.parametrize('temperature', [1e-3, 1e-39, 5e-324])
def test_a_tiny_temperature_takes_the_likeliest(model, temperature):
    assert shares(temperature=temperature) == [0, 1, 0, 0]

    def draw(t):
        return list(sampling.generate(model, [1, 2], length=12, temperature=t))

    assert draw(temperature) == draw(0)


def test_seed(model):
    def draw(seed):
        return list(sampling.generate(model, [1, 2], length=12, n_samples=3, seed=seed))

    assert draw(1) == draw(1) != draw(2)
    assert draw(2**63 - 1)
    assert len(set(zip(*draw(1)))) > 1  # the samples differ


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
    'a <unk> b': 'a <unk> b',
    'a - b': 'a - b',
}


@pytest.mark.parametrize('words', WORDS)
def test_detokenize(words):
    assert detokenize(words.split()) == WORDS[words]


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(['a', 's', '"', "'", '.', "n't", '\n', '(', ')', '/', '<unk>', 'gon', 'na'])
    ),
    st.integers(0, 20),
)
def test_detokenize_never_looks_ahead(words, n):
    """So a text can be printed while it is drawn."""
    assert detokenize(words).startswith(detokenize(words[:n]))


def test_decode():
    for text in ('ella had no tape. "she didn\'t!" she\'s at home, (again).', ''):
        assert encoder().decode(encoder().encode(text)) == text
    assert encoder().decode(encoder().encode('a ☃ b')) == 'a <unk> b'


# The command line


def run(capsys, *argv):
    assert generate.main([*argv]) == 0
    return capsys.readouterr().out


def test_many_samples(capsys):
    """They are drawn in groups; a seed draws the same again."""
    options = ['Ella had no tape.', *TINY, '--length', '3', '--n_samples', '37', '--seed', '1']
    first = run(capsys, *options)
    assert '--- 37 ---' in first and run(capsys, *options) == first
    samples = [part.split('---\n')[1] for part in first.split('\n--- ')[1:]]
    assert len(samples) == 36 and len(set(samples)) > 10
    assert all(sample.startswith('Ella had no tape.') for sample in samples)  # as it was typed


def test_greedy_is_the_models_likeliest(capsys):
    model = open_model(MODEL_DIR, n_head=4).model
    ids = encoder().encode('ella had no tape.')
    for _ in range(6):
        logits = plain_logits(model, ids)[-1]
        logits[0] = -torch.inf
        ids.append(logits.argmax().item())
    printed = run(capsys, 'ella had no tape.', *TINY, '--length', '6', '--temperature', '0')
    assert printed == encoder().decode(ids) + '\n'


class Terminal(io.StringIO):
    """Standard output that is a terminal and remembers each flush."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def isatty(self):
        return True

    def flush(self):
        if self.getvalue() not in self.shown:
            self.shown.append(self.getvalue())


def test_a_terminal_sees_each_word_as_it_is_drawn(capsys, monkeypatch):
    options = ['Ella had no tape.', *TINY, '--length', '20', '--seed', '3']
    wanted = run(capsys, *options)
    terminal = Terminal()
    monkeypatch.setattr(sys, 'stdout', terminal)
    assert generate.main(options) == 0
    assert terminal.getvalue() == wanted
    assert terminal.shown[0] == 'Ella had no tape.'
    assert len(terminal.shown) > 5
    assert all(wanted.startswith(text) for text in terminal.shown)


@pytest.mark.parametrize('stream', [False, True])
def test_what_is_printed_ends_before_classify(capsys, stream):
    start, delimiter, classify = range(encoder().n_vocab, encoder().n_vocab + 3)
    ids, ending, more = map(encoder().encode, ('ella had no tape.', 'the store.', 'night'))
    sample = iter([delimiter, *ending, classify, *more])
    generate.print_text('Ella had no tape.', ids, sample, encoder(), stream)
    assert capsys.readouterr().out == 'Ella had no tape. the store.\n'
    assert len(list(sample)) == len(more)  # not drawn


def test_the_text_of_a_fine_tuned_model_follows_start(tmp_path, capsys, monkeypatch):
    save_finetuned(tmp_path, SOME_TASKS['mnli'])
    read = []
    call = sampling.CachedModel.__call__
    monkeypatch.setattr(
        sampling.CachedModel,
        '__call__',
        lambda self, ids: read.extend(ids[0].tolist()) or call(self, ids),
    )
    printed = run(capsys, 'Ella', '--params', str(tmp_path), '--device', 'cpu', '--length', '5')
    assert printed.startswith('Ella')
    ids = encoder().encode('Ella')
    assert read[: len(ids) + 1] == [encoder().n_vocab, *ids]


def test_standard_input(capsys, monkeypatch):
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'Ella had no tape.\n')))
    assert run(capsys, *TINY, '--length', '3').startswith('Ella had no tape.')
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'\xff\xfe'), encoding='utf-8'))
    assert generate.main(TINY) == 2
    assert 'not UTF-8' in capsys.readouterr().err


@pytest.mark.parametrize(
    'argv, error',
    [
        ([' ', *TINY], 'no text'),
        (['x', '--model_dir', 'nowhere'], '--model_dir nowhere: no such file'),
        (['x', '--params', 'nowhere'], '--params nowhere: no such file'),
        (['x', '--model_dir', MODEL_DIR], '--n_head 12'),
        (['x', '--model_dir', ROOT], 'params_shapes.json'),
        (['x', '--temperature', '-1'], 'a number from 0'),
        (['x', '--top_p', '2'], 'a number from 0 to 1'),
        (['x', '--length', '0'], 'a whole number from 1'),
        (['x', '--n_samples', 'many'], 'a whole number from 1 to 1000'),
    ],
)
def test_errors(capsys, argv, error):
    try:
        status = generate.main(argv)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    printed = capsys.readouterr().err
    assert printed.startswith('generate.py: error: ')
    assert error in printed and printed.count('\n') == 1


def test_the_scripts_find_their_modules_with_a_safe_path(tmp_path):
    argv = [sys.executable, '-P', os.path.join(ROOT, 'generate.py'), 'Ella', *TINY, '--length', '3']
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith('Ella'), done.stderr
