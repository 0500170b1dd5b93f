"""The text encoder against a slow, obvious one: the whole text through spaCy as it comes, and naive byte pairs."""

import itertools
import json
import math
import os
import random
import re
import time

import ftfy
import pytest
import spacy
from conftest import GOLDEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from text_utils import ONLY_CURLY, STRAIGHT, TextEncoder, text_standardize
from utils import InputError

PATHS = [
    os.path.join(GOLDEN, 'model', name) for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe')
]


class SlowEncoder:
    """REFERENCE section 2, step by step."""

    def __init__(self, encoder_path, bpe_path):
        with open(encoder_path, encoding='utf-8') as f:
            self.encoder = json.load(f)
        with open(bpe_path, encoding='utf-8') as f:
            self.merges = {
                tuple(line.split()): rank for rank, line in enumerate(f.read().split('\n')[1:-1])
            }
        self.tokenizer = spacy.blank('en').tokenizer

    def bpe(self, token):
        symbols = list(token)
        symbols[-1] += '</w>'
        while len(symbols) > 1:
            left, right = min(
                zip(symbols, symbols[1:]), key=lambda pair: self.merges.get(pair, math.inf)
            )
            if (left, right) not in self.merges:
                break
            merged = []
            while symbols:
                if symbols[:2] == [left, right]:
                    merged.append(left + right)
                    del symbols[:2]
                else:
                    merged.append(symbols.pop(0))
            symbols = merged
        return ' '.join(symbols).replace('\n  </w>', '\n</w>').split(' ')

    def encode(self, text):
        tokens = self.tokenizer(slow_standardize(ftfy.fix_text(text)))
        return [
            self.encoder.get(symbol, 0)
            for token in tokens
            for symbol in self.bpe(token.text.lower())
        ]


def slow_standardize(text):
    for mark, plain in {'—': '-', '–': '-', '―': '-', '…': '...', '´': "'"}.items():
        text = text.replace(mark, plain)
    spaced = ''
    for run in re.findall(r'(?s)((.)\2*)', text):
        spaced += f' {run[0]} ' if run[1] in '-~!";?+,)(/*[]}{|_' else run[0]
    return re.sub(r'\s+', lambda white: ' \n ' if '\n' in white.group() else ' ', spaced).strip()


@pytest.fixture(scope='module')
def encoder():
    return TextEncoder(*PATHS)


@pytest.fixture(scope='module')
def slow():
    return SlowEncoder(*PATHS)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('a—b–c―d', 'a - b - c - d'),
        ('wait…', 'wait...'),
        ('it´s', "it's"),
        *((f'a{mark}b', f'a {mark} b') for mark in '-~!";?+,)(/*[]}{|_'),
        *((f'a{mark * 3}b', f'a {mark * 3} b') for mark in '-~!";?+,)(/*[]}{|_'),
        ('a?!b', 'a ? ! b'),
        ('a-–-b', 'a --- b'),
        (r'a\b', r'a\b'),
        (r'a\\b', r'a\\b'),
        ("a'b.c:d", "a'b.c:d"),
        ('a \t\n\n  b', 'a \n b'),
        ('a\r\nb', 'a \n b'),
        ('a \t\xa0\u2003b', 'a b'),
        ('  a\n', 'a'),
        ('', ''),
        (' \n ', ''),
        ('a\x85b', 'a b'),
    ],
)
def test_standardize(text, expected):
    assert text_standardize(text) == slow_standardize(text) == expected


TRICKY = [
    '',
    ' ',
    '\n',
    'a',
    "Tom couldn't go.\nHe'd lost $1,000!!!",
    '“Smart” ‘quotes’…',
    'r&amp;b &lt;3',
    'Ã©tÃ© mojibake',
    'ﬁne ﬂow',
    'e\u0301',
    'İstanbul DŽ ß',
    '漢字とかな',
    '😀👨‍👩‍👧',
    'a\x00b',
    '\ufeffx',
    '\ud800',
    'x\udfffy',
    'http://a.b/c?d=e_f',
    'a@b.co',
    '10km² 5°C. U.S. e.g. Mr.',
    'o.O :) :-( <3',
    "doin' 're:x",
    "the ' 's.D",
    ": x.'ll",
    'd.Md.',
    "''",
    "' '",
    'a\\b',
    '....',
    '.' * 99,
    'a' + '.' * 99,
    '5' + 'mmHg' * 30,
    '%' * 99,
    'ab%' * 40,
    'aaaaaaaaa',
    'abababab',
    'the ' * 50,
    '\n \n\n x',
    'x \n ',
    '\u2028',
    '\u200b',
]


@pytest.mark.parametrize('text', TRICKY)
def test_tricky_texts(encoder, slow, text):
    assert encoder.encode(text) == slow.encode(text)


# What the rules are about, beside any character at all.
pieces = st.sampled_from(
    [
        *' \n\t\'’.,:;$€%#-–…\\"aAbxX19°²',
        "'s",
        "n't",
        "'re",
        'Cos',
        'e.g.',
        'o.O',
        ':x',
        '<3',
        '5km',
        '$1',
        '...',
        'the',
        'http://',
        '&amp;',
        'Ã©',
    ]
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=[])), st.lists(pieces, max_size=25).map(''.join)
)  # lone surrogates too


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(text=texts)
def test_any_text(encoder, slow, text):
    ids = slow.encode(text)
    assert encoder.encode(text) == ids
    assert encoder.encode(text) == ids  # what it remembers changes nothing
    assert text_standardize(text) == slow_standardize(text)


@pytest.mark.parametrize('seed', range(4))
def test_any_merges(tmp_path, seed):
    """Also merges in an order that no training gives."""
    rng = random.Random(seed)
    symbols = [''.join(parts) for n in range(1, 6) for parts in itertools.product('ab', repeat=n)]
    vocabulary = ['<unk>', *symbols, *(symbol + '</w>' for symbol in symbols)]
    (tmp_path / 'encoder.json').write_text(
        json.dumps({symbol: i for i, symbol in enumerate(vocabulary)})
    )
    merges = [
        f'{rng.choice(symbols[:14])} {rng.choice(symbols[:14])}{rng.choice(["", "</w>"])}'
        for _ in range(60)
    ]
    (tmp_path / 'merges.bpe').write_text('\n'.join(['#version', *merges, '']))
    paths = str(tmp_path / 'encoder.json'), str(tmp_path / 'merges.bpe')
    words = [''.join(rng.choices('ab', k=rng.randint(1, 30))) for _ in range(200)]
    assert [TextEncoder(*paths).encode(' '.join(words))] == [
        SlowEncoder(*paths).encode(' '.join(words))
    ]


def test_each_text_by_itself(encoder):
    """What an encoder remembers of other texts changes nothing."""
    fresh = TextEncoder(*PATHS)
    assert fresh.encode_all(TRICKY) == [encoder.encode(text) for text in TRICKY]
    fresh.forget()
    assert [fresh.encode(text) for text in reversed(TRICKY)] == [
        encoder.encode(text) for text in reversed(TRICKY)
    ]


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(several=st.lists(texts, max_size=8))
def test_many_texts_at_once(encoder, slow, several):
    encoder.words = {'\n': encoder.words['\n']}
    assert encoder.encode_all(several) == [slow.encode(text) for text in several]


@settings(max_examples=300, deadline=None, database=None)
@given(text=st.text(st.characters(max_codepoint=127) | st.sampled_from('“”‘’–—…')))
def test_texts_with_nothing_but_curly_quotes_to_mend(text):
    assert not ONLY_CURLY.fullmatch(text) or ftfy.fix_text(text) == text.translate(STRAIGHT)


def test_memory_is_bounded(encoder, monkeypatch):
    monkeypatch.setattr('text_utils.CACHED_WORDS', 100)
    for i in range(20):
        encoder.encode(' '.join(f'{i}a{j}' for j in range(30)))
    assert len(encoder.words) <= 130 + 2
    assert (
        len(encoder.tokenizer.vocab.strings)
        < len(TextEncoder(*PATHS).tokenizer.vocab.strings) + 3 * 130
    )  # spaCy's memory too


def test_words_of_letters(encoder, slow):
    """Those that spaCy cuts, and what looks like them."""
    cut = [word for word in encoder.tokenizer.rules if word.isalpha()]
    assert {'cannot', 'gonna', 'Cant', 'Im', 'xD'} <= set(cut)
    text = ' '.join(
        itertools.chain.from_iterable(
            (word, word.upper(), word.swapcase(), f'x{word}', f'{word}x') for word in cut
        )
    )
    assert encoder.encode(text) == slow.encode(text)


def test_n_vocab(encoder):
    with open(PATHS[0], encoding='utf-8') as f:
        assert encoder.n_vocab == len(json.load(f))


@pytest.mark.parametrize(
    'text',
    [
        ' ' * 100_000 + 'x',
        'a' * 100_000,
        'ab' * 50_000,
        'The quick brown fox'.replace(' ', '') * 6_000,
        '.' * 100_000,
        '!?' * 50_000,
        '漢' * 100_000,
        '\n' * 100_000,
        '%' * 10_000,
        "'s" * 5_000,
        '€' * 5_000,
        'a' + '$' * 10_000,
        '\U0001f600' * 5_000,
    ],
)
def test_a_long_word_is_encoded_in_bounded_time(encoder, text):
    start = time.process_time()
    encoder.encode(text)
    assert (
        time.process_time() - start < 10
    )  # a fraction of a second each on a quiet machine; some took hours


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'[]',
        b'{}',
        b'null',
        b'{"a": 1}',
        b'{"a": 0, "b": 0}',
        b'{"a": 0, "b": 2}',
        b'{"a": -1}',
        b'{"a": 0.0}',
        b'{"a": true}',
        b'{"a": NaN}',
        b'{"a": "0"}',
        b'{"a": null}',
        b'{"a": ' + b'9' * 5000 + b'}',
        b'[' * 100_000,
        b'{"a":' * 100_000,
        b'\xff\xfe',
        b'\xef\xbb\xbf{"a": 0}',
        b'{"a": 0',
    ],
)
def test_what_is_no_vocabulary(tmp_path, content):
    path = tmp_path / 'encoder.json'
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        TextEncoder(str(path), PATHS[1])
    assert (
        str(error.value).startswith(f'{path} is not a vocabulary')
        and len(str(error.value).splitlines()) == 1
    )


@pytest.mark.parametrize(
    'content', [b'', b'a b\n', b'#version\na\n', b'#version\na b c\n', b'#version\na b\n\xff\n']
)
def test_what_is_no_merges_file(tmp_path, content):
    path = tmp_path / 'vocab.bpe'
    path.write_bytes(content)
    with pytest.raises(InputError, match='is not a merges file'):
        TextEncoder(PATHS[0], str(path))


def test_missing_files(tmp_path):
    for paths in (
        (str(tmp_path / 'none'), PATHS[1]),
        (PATHS[0], str(tmp_path / 'none')),
        (str(tmp_path), PATHS[1]),
    ):
        with pytest.raises(InputError, match='cannot read the'):
            TextEncoder(*paths)
