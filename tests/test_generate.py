"""generate.py: the cached pass equals the plain one, the draw is what the options say, and the text reads as text."""

import io
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import generate
from model_pytorch import Config, DoubleHeadModel, init_weights, load_pretrained_model
from text_utils import TextEncoder, detokenize
from utils import Batch

MODEL_DIR = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), 'golden', 'rocstories-tiny', 'model'
)
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
    n, none = len(ids), torch.empty(0, dtype=torch.long)
    batch = Batch(
        ids=torch.tensor(ids),
        positions=model.config.first_position + torch.arange(n),
        slots=torch.arange(n),
        lm_parent=none,
        lm_target=none,
        lm_weight=none.float(),
        lm_row=none,
        rows=1,
        length=n,
    )
    with torch.no_grad():
        h, we = model.transformer(batch)
        return (h @ we.t())[:, : model.config.n_vocab]


@pytest.mark.parametrize('pieces', [[1] * 16, [16], [5, 1, 1, 4, 5]])
def test_cached_logits_equal_plain_ones(model, pieces):
    rows = torch.randint(50, (3, 16), generator=torch.Generator().manual_seed(1))
    wanted = [plain_logits(model, row.tolist()) for row in rows]
    cached, done = generate.CachedModel(model, 3), 0
    for piece in pieces:
        logits = cached(rows[:, done : done + piece])
        done += piece
        for row in range(3):
            torch.testing.assert_close(
                logits[row, :50], wanted[row][done - 1], atol=1e-5, rtol=1e-5
            )


def test_each_token_is_read_once(model):
    """Cost: the prefix goes through the layers once, then one token at a time."""
    seen = []
    hook = model.transformer.h[0].mlp.c_fc.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    list(generate.generate(model, [1, 2, 3, 4], length=10))
    hook.remove()
    assert seen == [4] + [1] * 9


def test_longer_than_the_positions(model):
    """Full at 16: it goes on from the last half, and draws what the plain pass over that half draws."""
    ids = list(range(1, 11))
    out = [token for [token] in generate.generate(model, ids, length=30, temperature=0)]
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
    assert (
        len(list(generate.generate(model, [3] * 100, length=3))) == 3
    )  # a text that is too long from the start


def test_never_draws_what_is_no_word(model):
    drawn = {
        token
        for row in generate.generate(model, [1], length=20, n_samples=200, temperature=50.0)
        for token in row
    }
    assert drawn == set(range(1, 50))  # neither <unk> nor special or position rows


def test_a_fine_tuned_model_ends_its_story(model):
    """With `special`, `_delimiter_` (51) and `_classify_` (52) are drawn, `_start_` (50) is not; when every sample has ended, nothing more is drawn."""
    drawn = list(
        generate.generate(model, [50, 1], length=300, n_samples=4, temperature=3.0, special=True)
    )
    samples = list(zip(*drawn))
    assert {token for row in drawn for token in row} == set(range(1, 53)) - {50}
    assert max(sample.index(52) for sample in samples) + 1 == len(drawn) < 300


def test_temperature_top_k_and_top_p():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    generator = torch.Generator().manual_seed(0)

    def shares(n=4000, **options):
        options = {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0, **options}
        tokens = generate.choose(logits.expand(n, -1), generator=generator, **options)
        assert tokens.shape == (n, 1)
        return (tokens.view(-1).bincount(minlength=4) / n).tolist()

    assert shares() == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=0.04)
    assert shares(temperature=0) == [0, 1, 0, 0]
    assert shares(temperature=0.5) == pytest.approx(
        [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3], abs=0.04
    )
    assert shares(top_k=1) == [0, 1, 0, 0]
    assert shares(top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.04)
    assert shares(top_k=9) == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=0.04)
    assert shares(top_p=0) == [0, 1, 0, 0]
    assert shares(top_p=0.35) == [0, 1, 0, 0]
    assert shares(top_p=0.65) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.04)


def test_seed(model):
    def draw(seed):
        return list(generate.generate(model, [1, 2], length=12, n_samples=3, seed=seed))

    assert draw(1) == draw(1) != draw(2)
    assert len({row for row in zip(*draw(1))}) > 1  # the samples differ


# Text

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


def test_detokenize_newlines():
    assert (
        detokenize(['one', '"', 'two', '\n', '"', 'three']) == 'one "two\n"three'
    )  # quotes begin anew


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(['a', 's', '"', "'", '.', "n't", '\n', '(', ')', '/', '<unk>', 'gon', 'na'])
    ),
    st.integers(0, 20),
)
def test_detokenize_never_looks_ahead(words, n):
    assert detokenize(words).startswith(detokenize(words[:n]))


def test_decode(tmp_path):
    encoder = TextEncoder(
        os.path.join(MODEL_DIR, 'encoder_bpe_40000.json'),
        os.path.join(MODEL_DIR, 'vocab_40000.bpe'),
    )
    for text in ('ella had no tape. "she didn\'t!" she\'s at home, (again).', ''):
        assert encoder.decode(encoder.encode(text)) == text
    assert encoder.decode(encoder.encode('a ☃ b')) == 'a <unk> b'


# The command line


def test_command_line(capsys):
    assert (
        generate.main(
            ['Ella had no tape.', *TINY, '--length', '8', '--n_samples', '2', '--seed', '1']
        )
        is None
    )
    first = capsys.readouterr().out
    lines = first.splitlines()
    assert [line for line in lines if line.startswith('---')] == ['--- 1 ---', '--- 2 ---']
    assert sum(line.startswith('Ella had no tape.') for line in lines) == 2  # as it was typed
    generate.main(['Ella had no tape.', *TINY, '--length', '8', '--n_samples', '2', '--seed', '1'])
    assert capsys.readouterr().out == first


def test_greedy_is_the_models_likeliest(capsys):
    encoder = TextEncoder(
        os.path.join(MODEL_DIR, 'encoder_bpe_40000.json'),
        os.path.join(MODEL_DIR, 'vocab_40000.bpe'),
    )
    model, ids = load_pretrained_model(MODEL_DIR, n_head=4), encoder.encode('ella had no tape.')
    for _ in range(6):
        logits = plain_logits(model, ids)[-1]
        logits[0] = -torch.inf
        ids.append(logits.argmax().item())
    generate.main(['ella had no tape.', *TINY, '--length', '6', '--temperature', '0'])
    assert capsys.readouterr().out == encoder.decode(ids) + '\n'


def test_fine_tuned(tmp_path, capsys, monkeypatch):
    """What is printed ends before `_classify_`, and special tokens are not shown."""
    encoder = TextEncoder(
        os.path.join(MODEL_DIR, 'encoder_bpe_40000.json'),
        os.path.join(MODEL_DIR, 'vocab_40000.bpe'),
    )
    model = DoubleHeadModel(
        Config(n_vocab=encoder.n_vocab, n_ctx=32, n_embd=8, n_head=2, n_layer=1)
    )
    init_weights(model)
    torch.save(model.state_dict(), tmp_path / 'best_params')
    start, delimiter, classify = range(encoder.n_vocab, encoder.n_vocab + 3)
    text, ending, more = map(encoder.encode, ('ella had no tape.', 'the store.', 'night'))
    forced = iter([delimiter, *ending, classify, *more])
    read = []

    def choose(logits, *_):
        assert (
            logits.isneginf().any()
            and logits[0, start] == -torch.inf
            and logits[0, delimiter] > -torch.inf < logits[0, classify]
        )
        return torch.tensor([[next(forced)]])

    monkeypatch.setattr(generate, 'choose', choose)
    call = generate.CachedModel.__call__
    monkeypatch.setattr(
        generate.CachedModel,
        '__call__',
        lambda self, ids: read.extend(ids[0].tolist()) or call(self, ids),
    )
    assert (
        generate.main(
            [
                'Ella had no tape.',
                '--params',
                str(tmp_path / 'best_params'),
                '--model_dir',
                MODEL_DIR,
                '--n_head',
                '2',
                '--device',
                'cpu',
                '--length',
                '20',
            ]
        )
        is None
    )
    assert capsys.readouterr().out == 'Ella had no tape. the store.\n'
    assert read == [start, *text, delimiter, *ending]


def test_standard_input(capsys, monkeypatch):
    monkeypatch.setattr('sys.stdin', io.StringIO('Ella had no tape.\n'))
    assert generate.main([*TINY, '--length', '3']) is None
    assert capsys.readouterr().out.startswith('Ella had no tape.')
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'\xff\xfe'), encoding='utf-8'))
    assert generate.main(TINY) == 2
    assert 'not UTF-8' in capsys.readouterr().err


@pytest.mark.parametrize(
    'argv, error',
    [
        ([' ', *TINY], 'no text'),
        (['x', '--model_dir', 'nowhere'], 'nowhere'),
        (['x', '--params', 'nowhere'], 'nowhere'),
        (['x', '--model_dir', MODEL_DIR], '--n_head 12'),
    ],
)
def test_errors(capsys, argv, error):
    assert generate.main(argv) == 2
    printed = capsys.readouterr().err
    assert (
        printed.startswith('generate.py: error: ') and error in printed and printed.count('\n') == 1
    )


@pytest.mark.parametrize(
    'option',
    [['--temperature', '-1'], ['--top_p', '2'], ['--length', '0'], ['--n_samples', 'many']],
)
def test_nonsense_options(option):
    with pytest.raises(SystemExit) as stop:
        generate.parse_args(['x', *option])
    assert stop.value.code == 2
