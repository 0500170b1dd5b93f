"""The text encoder, compared with a slow and simple one that follows the original step by step."""

import itertools
import math
import random
import re
import subprocess
import sys
import time

import ftfy
import pytest
import tiny_models
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_files import error_of
from tiny_models import VOCABULARY

from text_utils import TextEncoder, english_tokenizer, fix_text, text_standardize


class SlowEncoder:
    """The steps of OpenAI's program, without a cache and in quadratic time."""

    def __init__(self, encoder):
        self.encoder, self.merges = encoder.encoder, encoder.bpe_ranks

    def encode(self, text):
        symbols = []
        for token in slow_tokens(slow_standardize(fix_text(text))):
            symbols += self.bpe(token.lower())
        return [self.encoder.get(symbol, 0) for symbol in symbols]

    def bpe(self, token):
        symbols = list(token)
        symbols[-1] += '</w>'
        while len(symbols) > 1:
            pairs = zip(symbols, symbols[1:])
            left, right = min(pairs, key=lambda pair: self.merges.get(pair, math.inf))
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


def slow_tokens(text):
    """The tokens of a whole text. Like spaCy, add the space after a newline to its token."""
    tokens = []
    for part in re.findall(r'\n |[^ \n]+', text):
        tokens += [part] if part == '\n ' else english_tokenizer()(part)
    return tokens


def slow_standardize(text):
    for mark, plain in {'—': '-', '–': '-', '―': '-', '…': '...', '´': "'"}.items():
        text = text.replace(mark, plain)
    spaced = ''
    for run in re.findall(r'(?s)((.)\2*)', text):
        spaced += f' {run[0]} ' if run[1] in '-~!";?+,)(/*[]}{|_' else run[0]
    return re.sub(r'\s+', lambda white: ' \n ' if '\n' in white.group() else ' ', spaced).strip()


encoder = tiny_models.encoder()
slow = SlowEncoder(encoder)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('“Oh”, ‘he’ said…', '"Oh", \'he\' said…'),
        ('r&amp;b &hellip; &lt;3', 'r&b … <3'),
        ('ﬁne ﬂow ＯＨ', 'fine flow OH'),
        ('cafe\u0301', 'café'),
        ('a\x00b\ufeffc', 'abc'),
        # Text that was decoded with the wrong encoding
        ('a cafÃ© here', 'a café here'),
        ('itâ€™s â€œhereâ€\x9d', 'it\'s "here"'),
        # ftfy 5.3.0 leaves it alone if another character was not decoded wrongly, ftfy 6 does not.
        ('a cafÃ© 😀', 'a cafÃ© 😀'),
        # But it repairs this punctuation.
        ('itâ€™s a cafÃ© 😀', "it's a cafÃ© 😀"),
        # Entities stay as they are from the first line on that has both < and >.
        ('<3 &amp; &lt;b&gt;', '<3 & <b>'),
        ('> &amp; <', '> &amp; <'),
        ('<b> &amp;', '<b> &amp;'),
        ('&amp; <\n&amp; >\n<b> &amp;\n&amp;', '& <\n& >\n<b> &amp;\n&amp;'),
        # The tags of a flag
        ('\U0001f3f4\U000e0067\U000e007f.', '\U0001f3f4.'),
    ],
)
def test_text_is_fixed_as_by_ftfy_5_3_0(text, expected):
    assert fix_text(text) == expected


@settings(max_examples=300, deadline=None, database=None)
@given(text=st.text(st.characters(max_codepoint=127) | st.sampled_from('“”‘’–—…é')))
def test_fixing_ordinary_text_does_what_the_installed_ftfy_does(text):
    if '&' not in text:
        assert fix_text(text) == ftfy.fix_text(text)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('a—b–c―d-–-e', 'a - b - c - d --- e'),
        ("wait… it´s a'b.c:d", "wait... it's a'b.c:d"),
        *[(f'a{mark * n}b', f'a {mark * n} b') for mark in '-~!";?+,)(/*[]}{|_' for n in (1, 3)],
        ('a?!b', 'a ? ! b'),
        (r'a\b\\c', r'a\b\\c'),
        ('  a \t\n\n  b\r\nc \t\xa0\u2003d\x85e\n', 'a \n b \n c d e'),
        (' \n ', ''),
    ],
)
def test_standardize(text, expected):
    assert text_standardize(text) == slow_standardize(text) == expected


TRICKY = """\
“Smart” ‘quotes’…|r&amp;b &lt;3|Ã©tÃ© mojibake|ﬁne ﬂow|e\u0301|a\x00b|İstanbul DŽ ß|漢字とかな
|😀👨\u200d👩|http://a.b/c?d=e_f|a@b.co|a\\b|''|' '|10km² 5°C. U.S. e.g. Mr.|o.O :) :-( <3|
doin' 're:x|the ' 's.D|: x.'ll|d.Md.| |\n|a|\n \n\n x|x \n |\u2028|\u200b|\ufeffx|\ud800|x\udfffy"""
REPEATED = ['.', '%', 'ab%', 'a', 'the ', 'mmHg']


def test_tricky_texts():
    for text in [*TRICKY.split('|'), *(part * 40 for part in REPEATED), '5' + 'mmHg' * 30]:
        assert encoder.encode(text) == slow.encode(text), text


# What the rules are about, beside any character at all. Lone surrogates are characters too.
PIECES = st.sampled_from(
    [*' \n\t\'’.,:;$€%#-–…\\"aAbxX19°²']
    + ["'s", "n't", "'re", 'Cos', 'e.g.', 'o.O', ':x', '<3', '5km', '$1', '...', 'the', 'May.']
    + ['http://', '&amp;', '<b>', 'Ã©', 'â€™']
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=[])),
    st.lists(PIECES, max_size=25).map(''.join),
)


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS)
def test_any_text(text):
    ids = slow.encode(text)
    assert encoder.encode(text) == ids
    assert encoder.encode(text) == ids  # What it remembers changes nothing.
    assert text_standardize(text) == slow_standardize(text)


@pytest.mark.parametrize('seed', range(4))
def test_merges_in_an_order_that_no_training_gives(seed):
    rng = random.Random(seed)
    symbols = [''.join(parts) for n in range(1, 6) for parts in itertools.product('ab', repeat=n)]
    names = ['<unk>', *symbols, *(symbol + '</w>' for symbol in symbols)]
    merges = {}
    for rank in range(60):
        left, right = rng.choices(symbols[:14], k=2)
        merges[left, right + rng.choice(['', '</w>'])] = rank
    encoder = TextEncoder({name: i for i, name in enumerate(names)}, merges)
    words = [''.join(rng.choices('ab', k=rng.randint(1, 30))) for _ in range(200)]
    assert encoder.encode(' '.join(words)) == SlowEncoder(encoder).encode(' '.join(words))


def test_memory_is_bounded(monkeypatch):
    """Long words are not remembered: without spaces, all are different, and take gigabytes."""
    monkeypatch.setattr('text_utils.CACHED_WORDS', 100)
    encoder = TextEncoder(*VOCABULARY)
    encoder.encode('One ' + 'long' * 100_000 + ' word\n' + 'ab' * 1000)
    assert encoder.encode_word.cache_info().currsize == 3
    texts = [' '.join(f'{i}a{j}' for j in range(30)) for i in range(20)]
    assert encoder.encode_all(texts) == [slow.encode(text) for text in texts]
    assert encoder.encode_word.cache_info().currsize == 100


@pytest.mark.parametrize(
    'text',
    [' ', 'a', 'ab', 'Thequickbrownfox', '.', '!?', '漢', '\n', '<', '<\n', 'â€']
    + ['%', "'s", 'a:', 'a@', 'a.', 'a.aa', 'http://', 'US$', '\U0001f600']
    + ['a_:', 'a.aa_.$', "a._'s", 'a' * 50_000 + "_.'s"],
)
def test_a_long_text_is_encoded_in_bounded_time(text):
    """Its first part, and then its last part many times."""
    first, _, repeated = text.rpartition('_')
    text = first + repeated * (100_000 // len(repeated))
    start = time.process_time()
    for end in ('', 'x'):
        encoder.encode(text + end)
    # A fraction of a second each on a quiet machine.
    assert time.process_time() - start < 10


def test_importing_is_fast():
    """spaCy takes seconds to import, so it is imported when it is needed."""
    code = "import sys, text_utils; assert not {'spacy', 'ftfy'} & set(sys.modules)"
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


NO_VOCABULARIES = [
    *(b'', b'[]', b'{}', b'null', b'{"a": 1}', b'{"a": 0, "b": 0}', b'{"a": 0, "b": 2}'),
    *(b'{"a": -1}', b'{"a": 0.0}', b'{"a": true}', b'{"a": NaN}', b'{"a": "0"}', b'{"a": null}'),
    *(b'{"a": ' + b'9' * 5000 + b'}', b'[' * 100_000, b'\xff\xfe', b'\xef\xbb\xbf{"a": 0}'),
]
NO_MERGES = [b'', b'a b\n', b'#version\na\n', b'#version\na b c\n', b'#version\na b\n\xff\n']


@pytest.mark.parametrize(
    'place, what, contents', [(0, 'vocabulary', NO_VOCABULARIES), (1, 'merges file', NO_MERGES)]
)
def test_invalid_files(tmp_path, place, what, contents):
    paths = [*VOCABULARY]
    paths[place] = tmp_path / 'file'
    assert f'cannot read the {what}' in error_of(TextEncoder, *paths)
    for content in contents:
        paths[place].write_bytes(content)
        assert f'{paths[place]} is not a {what}' in error_of(TextEncoder, *paths)
