"""Pre-training: the vocabulary and the encoding of the text, the updates against a plain version, and whole runs, also stopped and on several
processes."""

import csv
import glob
import json
import math
import operator
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GOLDEN, PROCESSES, child
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_parallel import join_ranks, start_ranks

import corpus
import pretrain
import train
from model_pytorch import (
    MODEL_FILES,
    Config,
    DoubleHeadModel,
    LMModel,
    OpenAIShards,
    init_weights,
    load_openai_pretrained_model,
    special_rows,
)
from parallel import Ranks
from text_utils import TextEncoder, read_merges, text_standardize

NAMES = ('work/tokens.bin', *MODEL_FILES, 'settings.json')


@pytest.fixture(scope='session')
def text(tmp_path_factory):
    """Half of the stories of the golden recording, one a line."""
    lines = []
    for path in sorted(glob.glob(os.path.join(GOLDEN, 'data', '*.csv'))):
        with open(path, encoding='utf-8', newline='') as f:
            lines += [' '.join(row[1:6]) for row in list(csv.reader(f))[1:]]
    path = tmp_path_factory.mktemp('text') / 'stories.txt'
    path.write_text('\n'.join(lines[::2]) + '\n', encoding='utf-8')
    return path


class Pretrain:
    """`pretrain.py` on the small text, writing to `folder/out`."""

    def __init__(self, folder, text):
        self.folder, self.text, self.out = folder, text, folder / 'out'

    def argv(self, *options):
        return [
            *map(
                str,
                (
                    '--text',
                    self.text,
                    '--out',
                    self.out,
                    '--device',
                    'cpu',
                    '--n_merges',
                    100,
                    '--n_ctx',
                    16,
                    '--n_embd',
                    16,
                    '--n_head',
                    2,
                    '--n_layer',
                    2,
                    '--n_iter',
                    2,
                    '--n_batch',
                    20,
                    '--n_micro',
                    5,
                    '--lr',
                    3e-3,
                    '--lr_warmup',
                    10,
                    '--eval_every',
                    15,
                    '--save_every',
                    7,
                    '--settings',
                    'n_batch=4',
                    *options,
                ),
            )
        ]

    def start(self, *options, **environment):
        process = PROCESSES.Process(
            target=child,
            args=('pretrain', self.argv(*options), str(self.folder / 'output'), environment),
        )
        process.start()
        return process

    def run(self, *options, status=0, ranks=1, **environment):
        before = len(self.output)
        processes = (
            start_ranks(self, ranks, *options, **environment)
            if ranks > 1
            else [self.start(*options)]
        )
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [status] * ranks, self.output[before:]
        return self.output[before:]

    @property
    def output(self):
        path = self.folder / 'output'
        return path.read_text() if path.exists() else ''

    def files(self):
        return {name: (self.out / name).read_bytes() for name in NAMES}

    def log(self):
        """The evaluations, without what depends on the clock."""
        with open(self.out / 'log.jsonl') as f:
            return [
                {
                    k: v
                    for k, v in json.loads(line).items()
                    if k not in ('time', 'tokens_per_second')
                }
                for line in f
            ][1:]


@pytest.fixture
def command(tmp_path, text):
    return Pretrain(tmp_path, text)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, text):
    """A whole run, dropout on."""
    command = Pretrain(tmp_path_factory.mktemp('undisturbed'), text)
    command.printed = command.run()
    return command


def take_encoding(command, undisturbed):
    """Let a run begin with the vocabulary and the encoded text of another."""
    (command.out / 'work').mkdir(parents=True)
    for name in (
        'encoder_bpe_40000.json',
        'vocab_40000.bpe',
        'work/vocabulary.json',
        'work/tokens.json',
        'work/tokens.bin',
    ):
        shutil.copy(undisturbed.out / name, command.out / name)
    return command


@pytest.fixture
def encoded(command, undisturbed):
    return take_encoding(command, undisturbed)


def wait_for(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.is_alive() and time.monotonic() < end
        time.sleep(0.002)


# ----------------------------------------------------------------------------------------------------------- vocabulary

TOKENS = Counter(
    {'low': 5, 'lower': 2, 'newest': 6, 'widest': 3, 'aaaa': 4, 'aaa': 2, "n't": 2, '7': 3, 'ü': 1}
)


def test_each_merge_is_a_commonest_pair():
    """Against byte-pair learning in its plain form: of the pairs there are, the one merged is among the commonest, and occurs twice at least."""
    characters, merges = corpus.learn_byte_pairs(TOKENS, 100)
    assert set(characters) == set(''.join(TOKENS)) and characters[0] == 'a'
    words = {(*token[:-1], token[-1] + '</w>'): n for token, n in TOKENS.items()}
    for left, right in merges:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        assert pairs[left, right] == max(pairs.values()) >= 2
        merged = {}
        for word, n in words.items():
            symbols = []
            for symbol in word:
                if symbols and (symbols[-1], symbol) == (left, right):
                    symbols[-1] += symbol
                else:
                    symbols.append(symbol)
            merged[tuple(symbols)] = n
        words = merged
    assert (
        max(Counter(pair for word in words for pair in zip(word, word[1:])).values(), default=0) < 2
        or len(merges) == 100
    )
    assert corpus.learn_byte_pairs(TOKENS, 3)[1] == merges[:3]
    assert corpus.learn_byte_pairs(TOKENS, 0)[1] == []


def test_vocabulary_files_are_openais(tmp_path):
    characters, merges = corpus.learn_byte_pairs(TOKENS, 12)
    corpus.write_vocabulary(tmp_path, characters, merges)
    encoder = TextEncoder(*corpus.vocabulary_files(tmp_path))
    symbols = sorted(encoder.encoder, key=encoder.encoder.get)
    n = len(characters)
    assert symbols == [
        '<unk>',
        *characters,
        *(c + '</w>' for c in characters),
        *(a + b for a, b in merges),
        '\n</w>',
    ]
    assert encoder.n_vocab == 1 + 2 * n + 12 + 1
    assert sorted(read_merges(tmp_path / 'vocab_40000.bpe'), key=encoder.bpe_ranks.get) == merges


def test_rare_words_and_characters_are_bounded(monkeypatch):
    monkeypatch.setattr(corpus, 'MAX_WORDS', 3)
    assert corpus.count_tokens([Counter(a=5, b=1, c=2), Counter(d=4, e=1, A=3)]) == Counter(
        a=8, d=4
    )
    monkeypatch.setattr(corpus, 'MAX_CHARACTERS', 2)
    characters, merges = corpus.learn_byte_pairs(Counter(ab=9, abx=2), 5)
    assert characters == ['a', 'b'] and merges == [('a', 'b</w>')]


def test_a_long_word_is_counted_in_bounded_time():
    start = time.process_time()
    assert corpus.count_tokens([Counter({"it's" + "'s" * 10_000: 3})]).total() == 3 * 10_002
    assert (
        time.process_time() - start < 10
    )  # a fraction of a second on a quiet machine; spaCy's own tokenizer takes more than twice that limit


@pytest.fixture(scope='module')
def encoder(undisturbed):
    return TextEncoder(*corpus.vocabulary_files(undisturbed.out))


WORDS = st.lists(
    st.text("abcdefghiklmnoprstuvwy.,()'", min_size=1, max_size=9)
    | st.sampled_from(['Gita', "Mr. O'Neil", "can't", '\n']),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(words=WORDS)
def test_ids_round_trip_text(encoder, words):
    """text -> ids -> text: what spaCy set apart aside, the standardized text in lower case comes back."""
    text = text_standardize(' '.join(words))
    symbols = {i: symbol for symbol, i in encoder.encoder.items()}
    back = ''.join(symbols[i] for i in encoder.encode(text)).replace('</w>', ' ')
    assert re.sub('[ ]', '', back) == re.sub('[ ]', '', text.lower())
    assert 0 not in encoder.encode(text)


# ------------------------------------------------------------------------------------------------------------- encoding

LINES = st.lists(st.text(st.sampled_from('aé€😀 .\t\r'), max_size=40), max_size=12).map('\n'.join)


@settings(max_examples=150, deadline=None)
@given(text=LINES, block=st.integers(1, 40), longest=st.integers(8, 60))
@example(text='aa aa\n\n aa aaaaaaaaaaaaaaaa \n', block=3, longest=8)
@example(text='aaaaaaaaaaaaaaaa 😀😀😀😀😀😀😀😀😀', block=1, longest=8)
def test_blocks_put_together_are_the_file(tmp_path_factory, text, block, longest):
    path = tmp_path_factory.getbasetemp() / 'blocks.txt'
    path.write_bytes(text.encode())
    size = path.stat().st_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, 'BLOCK', block)
        patch.setattr(corpus, 'LONGEST_LINE', longest)
        lines = [
            pair for start in range(0, size, block) for pair in corpus.read_lines(path, start, size)
        ]
    assert ''.join(line + '\n' * ends for line, ends in lines) == text + '\n' * (
        text != '' and not text.endswith('\n')
    )
    assert all(len(line.encode()) <= block + 2 * longest for line, _ in lines)


def test_workers_keep_the_order_and_no_heap_of_results(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, 'BLOCK', 10)
    with corpus.Workers() as workers:
        begun, begin = [], workers.pool.apply_async
        monkeypatch.setattr(
            workers.pool, 'apply_async', lambda *call: (begun.append(call), begin(*call))[1]
        )
        taken = 0
        for offset in workers.map(operator.itemgetter(1), [('a', 'a'), ('b', 'b')], [2000, 5], ''):
            assert offset == 10 * taken % 2000
            taken += 1
            assert len(begun) < taken + 4 * workers.n
    assert taken == len(begun) == 201


def test_the_text_is_encoded_as_a_whole_would_be(undisturbed, encoder, text):
    ids = np.fromfile(undisturbed.out / 'work' / 'tokens.bin', np.uint16)
    newline = encoder.encoder['\n</w>']
    assert ids.tolist() == [*encoder.encode(text.read_text(encoding='utf-8')), newline]
    assert (ids == newline).sum() == 76


def test_a_folder_of_texts_blank_lines_and_long_lines(tmp_path, encoder, undisturbed, monkeypatch):
    monkeypatch.setattr(corpus, 'BLOCK', 1000)
    monkeypatch.setattr(corpus, 'LONGEST_LINE', 200)
    folder = tmp_path / 'texts'
    (folder / 'b').mkdir(parents=True)
    words = ' '.join(f'word{i}' for i in range(1000))  # a line of 9 kB
    (folder / 'a.txt').write_text('One.\r\n\r\n  \nTwo.')
    (folder / 'b' / 'c.txt').write_text(words)
    (folder / 'b' / 'd.md').write_text('not read')
    work = tmp_path / 'work'
    corpus.prepare([str(folder)], str(tmp_path / 'out'), str(work), 0, undisturbed.out)
    ids, _ = corpus.open_tokens(str(work))
    assert ids.tolist() == encoder.encode(f'One. \n Two. \n {words} \n x')[:-1]


def test_more_than_65536_symbols_take_four_bytes(tmp_path):
    characters = [
        chr(first + i)
        for first, n in ((0x4E00, 20000), (0xAC00, 11000), (0x20000, 2000))
        for i in range(n)
    ]
    corpus.write_vocabulary(tmp_path / 'vocabulary', characters, [])
    (tmp_path / 'text.txt').write_text(chr(0x20000 + 1999))
    corpus.prepare(
        [str(tmp_path / 'text.txt')],
        str(tmp_path / 'out'),
        str(tmp_path / 'work'),
        0,
        tmp_path / 'vocabulary',
    )
    ids, _ = corpus.open_tokens(str(tmp_path / 'work'))
    assert ids.dtype == np.uint32 and ids.tolist() == [66000, 66001]


def test_an_encoding_is_made_once(tmp_path, text, capsys):
    """Reused when nothing changed; done again when unfinished, or when the text or the vocabulary is another."""
    copy, out, work = tmp_path / 'text.txt', tmp_path / 'out', tmp_path / 'work'
    copy.write_bytes(text.read_bytes())

    def prepare(n_merges=20):
        corpus.prepare([str(copy)], str(out), str(work), n_merges)
        return re.findall('^(learned|encoded) +(already)?', capsys.readouterr().out, re.M)

    assert prepare() == [('learned', ''), ('encoded', '')]
    assert prepare() == [('encoded', 'already')]
    os.utime(copy, (0, 0))  # the content counts
    assert prepare() == [('encoded', 'already')]
    os.unlink(work / 'tokens.json')  # as a stop in the middle leaves it
    assert prepare() == [('encoded', '')]
    with open(work / 'tokens.bin', 'r+b') as f:
        f.truncate(100)
    assert prepare() == [('encoded', '')]
    assert prepare(21) == [('learned', ''), ('encoded', '')]
    copy.write_text('Another text. ' * 100)
    assert prepare(21) == [('learned', ''), ('encoded', '')]
    (out / 'encoder_bpe_40000.json').write_text('{"a": 0}')
    assert prepare(21) == [('learned', ''), ('encoded', '')]


# ------------------------------------------------------------------------------------------------------------- training

CONFIG = Config(
    n_vocab=30, n_ctx=8, n_embd=12, n_head=2, n_layer=2, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0
)


def make_training(folder):
    args = pretrain.parse_args(
        [
            '--text',
            'x',
            '--out',
            str(folder),
            '--n_ctx',
            '8',
            '--n_embd',
            '12',
            '--n_head',
            '2',
            '--n_layer',
            '2',
            '--n_batch',
            '5',
            '--n_micro',
            '2',
            '--n_iter',
            '3',
            '--lr',
            '0.01',
            '--lr_warmup',
            '4',
        ]
    )
    torch.manual_seed(0)
    model = LMModel(CONFIG)
    init_weights(model)
    tokens = np.random.RandomState(0).randint(0, 30, 200).astype(np.uint16)
    return pretrain.PreTraining(
        args, model.double(), tokens, '', torch.device('cpu'), Ranks([torch.device('cpu')])
    )


def plain_losses(p, ids):
    """REFERENCE, section 5: the mean loss of each window, [windows], from parameters by name; ids [windows, 8]."""

    def norm(x, g, b):
        x = x - x.mean(-1, keepdim=True)
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * g + b

    we = p['embed.weight']
    h = we[ids] + we[33:]  # 30 symbols, 3 special tokens, then positions
    for layer in range(2):
        w = {name.removeprefix(f'h.{layer}.'): value for name, value in p.items()}
        heads = []
        q, k, v = (h @ w['attn.c_attn.w'] + w['attn.c_attn.b']).split(12, -1)
        for part in (slice(0, 6), slice(6, 12)):
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(6)
            heads.append(
                torch.softmax(scores + torch.full((8, 8), -1e9).triu(1), -1) @ v[..., part]
            )
        n = norm(
            h + torch.cat(heads, -1) @ w['attn.c_proj.w'] + w['attn.c_proj.b'],
            w['ln_1.g'],
            w['ln_1.b'],
        )
        x = n @ w['mlp.c_fc.w'] + w['mlp.c_fc.b']
        x = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        h = norm(n + x @ w['mlp.c_proj.w'] + w['mlp.c_proj.b'], w['ln_2.g'], w['ln_2.b'])
    logits = torch.log_softmax(h @ we.t(), -1)
    return torch.stack(
        [-sum(logits[i, t - 1, ids[i, t]] for t in range(1, 8)) / 7 for i in range(len(ids))]
    )


def test_the_first_updates_are_the_plain_versions(tmp_path):
    """Losses, gradients and parameters of the first two epochs' updates: windows, their order, the loss, clipping, warm-up, cosine, decay."""
    training = make_training(tmp_path)
    assert (
        training.n_windows,
        training.updates_per_epoch,
        training.n_updates_total,
        training.heldout,
    ) == (24, 4, 12, range(24, 25))
    p = {
        name.removeprefix('transformer.'): value.detach().clone().requires_grad_()
        for name, value in training.model.named_parameters()
    }
    m, v = ({name: torch.zeros_like(value) for name, value in p.items()} for _ in range(2))
    windows_of = torch.from_numpy(training.tokens.astype(np.int64))[:192].view(24, 8)
    gradients, step = {}, training.opt.step
    training.opt.step = lambda: (
        gradients.update({n: q.grad.clone() for n, q in training.model.named_parameters()}),
        step(),
    )[1]
    for t in range(1, 9):
        epoch, i = divmod(t - 1, 4)
        order = np.arange(24)
        np.random.RandomState([42, epoch]).shuffle(order)
        windows = order[5 * i : 5 * i + 5]
        losses = plain_losses(p, windows_of[windows])
        grads = dict(zip(p, torch.autograd.grad(losses.mean(), p.values())))
        figures = training.update(windows)
        torch.testing.assert_close(figures[:5].double(), losses.detach(), rtol=0, atol=1e-6)
        for name, gradient in grads.items():
            torch.testing.assert_close(
                gradients[f'transformer.{name}'], gradient, rtol=0, atol=1e-9
            )
        norm = math.sqrt(sum((g**2).sum().item() for g in grads.values()))
        assert figures[5].item() == pytest.approx(norm, rel=1e-5)
        lr = (
            0.01
            * (t / 4 if t <= 4 else (1 + math.cos(math.pi * (t - 4) / (12 - 4))) / 2)
            * math.sqrt(1 - 0.999**t)
            / (1 - 0.9**t)
        )
        with torch.no_grad():
            for name, value in p.items():
                g = grads[name] / max(norm, 1)
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g * g
                value -= lr * (m[name] / (v[name].sqrt() + 1e-8) + 0.01 * (value.dim() > 1) * value)
        for name, value in training.model.named_parameters():
            if not name.endswith('c_attn.b'):  # the gradient of the keys' third is rounding noise
                torch.testing.assert_close(
                    value,
                    p[name.removeprefix('transformer.')],
                    rtol=0,
                    atol=1e-6,
                    msg=lambda m: f'{t} {name}: {m}',
                )


def test_windows_of_an_epoch_are_all_different(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        pretrain.PreTraining,
        'update',
        lambda self, windows: (
            (seen.extend(windows), setattr(self, 'n_updates', self.n_updates + 1))
            and torch.zeros(len(windows) + 1)
        ),
    )
    (tmp_path / 'work').mkdir()
    training = make_training(tmp_path)
    training.run(train.ResultLogger(str(tmp_path / 'log.jsonl'), a=1))
    epochs = [seen[i : i + 20] for i in range(0, 60, 20)]
    assert all(len(set(epoch)) == 20 for epoch in epochs) and epochs[0] != epochs[1]
    assert max(seen) < 24


def test_perplexity_of_an_untrained_model_is_the_number_of_rows(tmp_path):
    """With the weights near 0 every row of the embedding is as likely: vocabulary, special tokens and positions."""
    training = make_training(tmp_path)
    with torch.no_grad():
        training.model.transformer.embed.weight.zero_()
    assert math.exp(training.heldout_loss()) == pytest.approx(30 + 3 + 8)


def test_overfits_a_small_text(tmp_path):
    """No word comes twice in the sentence, so every token but the first of a window can be known."""
    (tmp_path / 'text.txt').write_text(
        'Gita wanted to fix an old bike, so she found the nail in its tire and pulled it out.\n'
        * 20
    )
    assert not pretrain.main(
        [
            '--text',
            str(tmp_path / 'text.txt'),
            '--out',
            str(tmp_path / 'out'),
            '--n_ctx',
            '32',
            '--n_embd',
            '32',
            '--n_head',
            '2',
            '--n_layer',
            '1',
            '--n_batch',
            '4',
            '--n_iter',
            '60',
            '--lr',
            '0.01',
            '--lr_warmup',
            '20',
            '--embd_pdrop',
            '0',
            '--attn_pdrop',
            '0',
            '--resid_pdrop',
            '0',
            '--device',
            'cpu',
            '--heldout',
            '0.1',
            '--eval_every',
            '100',
        ]
    )
    with open(tmp_path / 'out' / 'log.jsonl') as f:
        last = json.loads(f.readlines()[-1])
    assert last['tr_loss'] < 0.05 and last['va_loss'] < 0.02


# ----------------------------------------------------------------------------------------------------------- whole runs


def test_what_a_run_writes(undisturbed):
    assert {path.name for path in undisturbed.out.iterdir()} == {
        name for name in NAMES if '/' not in name
    } | {'log.jsonl', 'perplexity.png', 'work'}
    out = undisturbed.out
    shapes = json.loads((out / 'params_shapes.json').read_text())
    n_vocab = len(json.loads((out / 'encoder_bpe_40000.json').read_text()))
    assert shapes[:4] == [[16, 16], [n_vocab, 16], [1, 16, 48], [48]] and len(shapes) == 2 + 2 * 12
    shards = [np.load(out / f'params_{i}.npy') for i in range(10)]
    whole = np.concatenate(shards)
    assert whole.dtype == np.float32 and len(whole) == sum(map(math.prod, shapes))
    assert [len(shard) for shard in shards] == [len(part) for part in np.array_split(whole, 10)]
    assert json.loads((out / 'settings.json').read_text()) == dict(
        n_ctx=16,
        n_embd=16,
        n_head=2,
        n_layer=2,
        afn='gelu',
        embd_pdrop=0.1,
        attn_pdrop=0.1,
        resid_pdrop=0.1,
        lr=3e-3 / 4,
        n_batch=4,
    )
    log = undisturbed.log()
    assert [line['n_updates'] for line in log] == [15, 30, 34]
    assert (
        log[-1]['va_perplexity'] == pytest.approx(math.exp(log[-1]['va_loss']))
        and log[-1]['va_perplexity'] < log[0]['va_perplexity']
    )
    assert log[-1]['n_epochs'] == 2 and log[-1]['lr'] == pytest.approx(0, abs=1e-12)
    assert (out / 'perplexity.png').read_bytes().startswith(b'\x89PNG')
    for word in (
        'learned ',
        'encoded ',
        'MB/s',
        'text ',
        'model ',
        'batch ',
        'device ',
        'perplexity',
        'tokens/s',
        'written ',
    ):
        assert word in undisturbed.printed


def test_the_shards_are_the_model(undisturbed):
    state = torch.load(undisturbed.out / 'work' / 'checkpoint', weights_only=True)['model']
    n_vocab = len(json.loads((undisturbed.out / 'encoder_bpe_40000.json').read_text()))
    model = DoubleHeadModel(Config(n_vocab=n_vocab, n_ctx=16, n_embd=16, n_head=2, n_layer=2))
    special = special_rows(16, np.random.RandomState(0))
    load_openai_pretrained_model(model, OpenAIShards(str(undisturbed.out)), special, 2)
    for name, value in model.state_dict().items():
        if name.startswith('transformer.'):
            expected = state[name].clone()
            if name == 'transformer.embed.weight':
                expected[n_vocab : n_vocab + 3] = torch.from_numpy(special)
            assert torch.equal(value, expected), name


def test_train_takes_the_folder(undisturbed, tmp_path, capsys):
    argv = [
        '--dataset',
        'rocstories',
        '--data_dir',
        os.path.join(GOLDEN, 'data'),
        '--model_dir',
        str(undisturbed.out),
        '--n_valid',
        '32',
        '--n_iter',
        '1',
        '--device',
        'cpu',
        '--n_gpu',
        '1',
        *(f'--{name}_dir={tmp_path / name}' for name in ('log', 'save', 'submission')),
    ]
    assert not train.main(argv)
    printed = capsys.readouterr().out
    for words in (
        'embedding and 2 of 2 layers',
        'n_embd 16, n_head 2, n_layer 2',
        f'from {undisturbed.out}/settings.json',
    ):
        assert words in printed
    args = train.parse_args([*argv, '--lr', '0.5'])
    assert (args.n_ctx, args.n_embd, args.n_transfer, args.lr, args.n_batch) == (16, 16, 2, 0.5, 4)


@pytest.mark.parametrize(
    'settings, message',
    [
        ('{"n_embd": 0}', 'positive'),
        ('{"n_embd": 1.5}', 'positive'),
        ('{"lr": NaN}', 'positive'),
        ('{"afn": []}', 'gelu'),
        ('{"save_dir": "/"}', 'save_dir'),
        ('{"attn_pdrop": 1}', 'below 1'),
        ('[]', 'object'),
        ('{', 'JSON'),
        ('{"n_layer": true}', 'positive'),
    ],
)
def test_bad_settings_are_one_line(tmp_path, capsys, settings, message):
    (tmp_path / 'settings.json').write_text(settings)
    with pytest.raises(SystemExit) as stop:
        train.parse_args(['--dataset', 'rocstories', '--model_dir', str(tmp_path)])
    error = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and error.count('\n') == 1
        and 'settings.json' in error
        and message in error
    )


def test_the_sample_stands_in_for_missing_files_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ('data/sample', 'model/sample', 'other/sample'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'model/sample/settings.json').write_text(
        '{"n_embd": 24, "n_head": 4, "n_layer": 3}'
    )

    def folders(*options):
        args = train.parse_args(['--dataset', 'rocstories', *options])
        return (
            args.data_dir,
            args.model_dir,
            args.n_embd,
            [note.split(':')[0] for note in args.sample],
        )

    stories, model = 'sample stories, not ROCStories', "sample model, not OpenAI's weights"
    assert folders() == ('data/sample/', 'model/sample/', 24, [stories, model])
    assert folders('--data_dir', 'data', '--model_dir', 'other') == ('data', 'other', 768, [])
    assert folders('--data_dir', 'data/sample') == (
        'data/sample',
        'model/sample/',
        24,
        [stories, model],
    )
    assert train.parse_args(['--dataset', 'rocstories', '--n_embd', '48']).n_embd == 48
    (
        tmp_path / 'model/params_3.npy'
    ).touch()  # one real file is enough: the others are then missing, and said to be
    assert folders() == ('data/sample/', 'model/', 768, [stories])
    (tmp_path / 'data/cloze_test_val__spring2016.csv').touch()
    assert folders() == ('data/', 'model/', 768, [])


def test_killed_at_random_moments(command, undisturbed):
    """SIGKILL while words are counted, while the text is encoded, and three times in training: the end is the same, bit for bit."""
    random.seed(3)
    for name, delay in (
        ('lock', 0.1),
        ('vocabulary.json', 0.05),
        ('checkpoint', 0.05),
        ('checkpoint', 0.3),
        ('checkpoint', 0.6),
    ):
        path, start = command.out / 'work' / name, time.time()
        process = command.start('--resume')
        wait_for(lambda: path.exists() and path.stat().st_mtime >= start, process)
        process.join(random.uniform(0, delay))
        process.kill()
        process.join()
    assert 'resumed ' in command.run('--resume')
    assert command.files() == undisturbed.files() and command.log() == undisturbed.log()
    assert not list(command.out.rglob('*.part'))


def test_a_signal_stops_after_the_update(encoded, undisturbed):
    process = encoded.start('--save_every', 1000)
    wait_for(lambda: 'update 15,' in encoded.output, process)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130 and '--resume' in encoded.output
    encoded.run('--resume')
    assert encoded.files() == undisturbed.files() and encoded.log() == undisturbed.log()


def test_resuming_with_other_settings_or_text(encoded, text, tmp_path):
    encoded.run('--n_iter', 1)
    assert 'lr was 0.003, now it is 0.5' in encoded.run(
        '--n_iter', 1, '--lr', 0.5, '--resume', status=2
    )
    assert 'n_iter was 1, now it is 2' in encoded.run('--resume', status=2)
    assert '--resume to go on' in encoded.run('--n_iter', 1, status=2)
    encoded.text = tmp_path / 'other.txt'
    encoded.text.write_text(text.read_text(encoding='utf-8')[:-100], encoding='utf-8')
    before = encoded.files()
    assert 'another text' in encoded.run('--n_iter', 1, '--resume', status=2)
    assert encoded.files() == before
    encoded.text = text
    (encoded.out / 'work' / 'checkpoint').write_bytes(b'PK\3\4')
    assert 'damaged' in encoded.run('--n_iter', 1, '--resume', status=2)


NO_DROPOUT = ('--embd_pdrop', 0, '--attn_pdrop', 0, '--resid_pdrop', 0, '--n_iter', 1)


@pytest.fixture(scope='module')
def alone(tmp_path_factory, text, undisturbed):
    """A run of one process, without dropout."""
    command = take_encoding(Pretrain(tmp_path_factory.mktemp('alone'), text), undisturbed)
    command.run(*NO_DROPOUT)
    return command


@pytest.mark.parametrize('ranks', [2, 3])
def test_processes_together_do_the_same_updates(alone, encoded, ranks):
    """Three share 20 windows unevenly."""
    assert encoded.run(*NO_DROPOUT, '--n_micro', 3, ranks=ranks).count('batch  ') == 1
    for line, expected in zip(encoded.log(), alone.log(), strict=True):
        assert line == pytest.approx(expected, abs=1e-5, rel=1e-6)


def test_dropout_does_not_depend_on_the_number_of_processes(encoded, undisturbed):
    """Each micro-batch has random numbers of its own: 2 x 10 windows, 5 at a time, have the masks of 1 x 20. Stopped and resumed besides."""
    process = encoded.start()
    wait_for(lambda: (encoded.out / 'work' / 'checkpoint').exists(), process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143
    encoded.run('--resume', ranks=2)
    for line, expected in zip(encoded.log(), undisturbed.log(), strict=True):
        assert line == pytest.approx(expected, abs=1e-4)


def test_processes_stop_together_and_end_together(encoded, undisturbed):
    """A signal to one of two stops both after the same update; the death of one ends the other; started again, as torchrun does, they go on to the
    same end."""
    checkpoint = encoded.out / 'work' / 'checkpoint'
    processes = start_ranks(encoded, 2)
    wait_for(checkpoint.exists, processes[0])
    os.kill(processes[1].pid, signal.SIGTERM)
    join_ranks(processes, 143)
    assert encoded.output.count('stopped; ') == 1
    stopped = checkpoint.stat().st_mtime_ns
    processes = start_ranks(encoded, 2, '--resume', '--save_every', 1)
    wait_for(lambda: checkpoint.stat().st_mtime_ns > stopped, processes[0])
    processes[1].kill()
    join_ranks(processes[:1], 2)
    assert 'another process of this run has ended' in encoded.output.splitlines()[-1]
    assert 'resumed ' in encoded.run(ranks=2, TORCHELASTIC_RESTART_COUNT='1')
    for line, expected in zip(encoded.log(), undisturbed.log(), strict=True):
        assert line == pytest.approx(expected, abs=1e-4)


def test_out_of_memory_halves_what_a_device_takes(encoded, alone, monkeypatch, capsys):
    forward = pretrain.PreTraining.forward

    def failing(self, model, windows):
        if len(windows) > 2:
            raise torch.OutOfMemoryError('made to fail')
        return forward(self, model, windows)

    monkeypatch.setattr(pretrain.PreTraining, 'forward', failing)
    assert not pretrain.main(encoded.argv(*NO_DROPOUT))
    assert [line for line in capsys.readouterr().err.splitlines() if 'memory' in line] == [
        f'out of memory: going on with steps of {n} windows; the update stays the same'
        for n in (3, 2)
    ]
    for line, expected in zip(encoded.log(), alone.log(), strict=True):
        assert line == pytest.approx(expected, abs=1e-5, rel=1e-6)


@pytest.mark.parametrize('where', ['heldout_loss', 'save'])
def test_a_signal_after_the_last_update(encoded, undisturbed, monkeypatch, where):
    """In the last evaluation, or while the last checkpoint is written."""
    method = getattr(pretrain.PreTraining, where)

    def with_signal(self, *args):
        if self.n_updates == self.n_updates_total:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        return method(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain.PreTraining, where, with_signal)
        assert pretrain.main(encoded.argv()) == 143
    assert not (encoded.out / 'params_0.npy').exists()
    assert not pretrain.main(encoded.argv('--resume'))
    assert encoded.files() == undisturbed.files() and encoded.log() == undisturbed.log()


def test_bf16_and_a_given_vocabulary(command, undisturbed):
    command.run(
        '--precision', 'bf16', '--vocabulary', undisturbed.out, '--n_iter', 1, '--n_merges', 7
    )
    assert (command.out / 'vocab_40000.bpe').read_bytes() == (
        undisturbed.out / 'vocab_40000.bpe'
    ).read_bytes()
    assert command.log()[-1]['va_loss'] == pytest.approx(undisturbed.log()[1]['va_loss'], abs=0.3)


@pytest.mark.parametrize(
    'options, message',
    [
        (['--text', 'nowhere'], 'no such file or folder'),
        (['--text', '{tmp}/folder'], 'no .txt file'),
        (['--text', '{tmp}/empty.txt'], 'empty'),
        (['--text', '{tmp}/latin.txt'], 'not UTF-8'),
        (['--text', '{tmp}/short.txt'], 'too few for a window'),
        (['--text', '{tmp}/binary.txt'], 'not UTF-8'),
        (['--n_batch', '5000'], 'too few for one batch'),
        (['--out', '{tmp}/empty.txt'], 'cannot write'),
        (['--out', '{tmp}/openai'], 'earlier run'),
        (['--out', '{tmp}/words'], 'from elsewhere'),
        (['--vocabulary', '{tmp}/folder'], 'cannot read the vocabulary'),
        (['--lr_warmup', '9999'], '--lr_warmup'),
        (['--n_head', '3'], 'not divisible'),
        (['--n_embd', '0'], 'out of range'),
        (['--lr', 'nan'], 'out of range'),
        (['--heldout', '0'], 'out of range'),
        (['--device', 'tpu'], 'expected auto'),
        (['--n_ctx', '1'], 'out of range'),
        (['--lr', '1e30', '--max_grad_norm', '-1'], 'A lower --lr may help'),
    ],
)
def test_bad_input_is_one_line(command, tmp_path, capfd, options, message):
    for folder, name in (
        ('folder', 'a.md'),
        ('openai', 'params_0.npy'),
        ('words', 'vocab_40000.bpe'),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    (tmp_path / 'empty.txt').touch()
    (tmp_path / 'latin.txt').write_bytes(b'caf\xe9\n')
    (tmp_path / 'binary.txt').write_bytes(b'\x80' * (2 << 20))
    (tmp_path / 'short.txt').write_text('Only a few words.')
    try:
        status = pretrain.main(command.argv(*(option.format(tmp=tmp_path) for option in options)))
    except SystemExit as stop:
        status = stop.code
    error = capfd.readouterr().err
    assert status == 2 and error.count('\n') == 1 and message in error, error
    assert not Path(command.out, 'params_shapes.json').exists()


def test_a_second_run_is_refused(command, undisturbed):
    with pretrain.only_run(str(command.out / 'work')):
        assert 'going on' in command.run(status=2)
