"""The tokens of spaCy 2.0.13. All expected tokens were checked against its tables and its code."""

import pytest
from conftest import GOLDEN  # noqa: F401  It makes the modules importable.
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt1.text.spacy2 import is_url
from text_utils import english_tokenizer

# Words as their tokens, by the rule that is not the same in spaCy 3.8, which splits them otherwise
ONLY_IN_2_0 = {
    'exceptions that only 2.0.13 has': "May. | May. ' | that 're | That ve | that ’ve",
    'exceptions that only 3.8 has': (
        "this'll | thesere | those'd | These’ve | c'mon | Prof . | v.s . | [ = | ] ="
    ),
    'prefixes': "`` oh | ' ' oh | + 5 | –oh | —oh | ₹5 | ⟦oh",
    'suffixes': "`` oh '' | oh’ | 5₹ | 漢.",
    'a suffix is searched in the whole word, the prefix included': "'' ''",
    '3.8 looks for exceptions again in the tokens: m., Mr. and x.': (
        "58 m . | I m . | Mr . Oh | ( \" Mr . | ' x . Oh '"
    ),
    'infixes': '1:oh | 1=oh | 1>oh | 1/oh | 漢:oh | 漢.Oh',
    'an emoticon is the whole word without prefixes and suffixes': 'oh : ) | : ) oh',
}
IN_BOTH = """
cause | ° C . | this 's | '' | oh '' | ‘ ‘ oh | ’’ oh | oh ’’ | ' oh . Oh ' | 3.5 kg | 12 km² . |
9mmHg | 40 % | $ 5 | US$ 5 | 5 € | 5 + | 5 ° C . | A. | A .. | b.c . | TV . | tv . | É. |
... oh ... | oh ... no | oh … no | oh . No | oh.no | oh , no | oh - no | oh : no | 12:30 |
3 * 4 ^ -5 | oh ☺ no | = > . | www.example.com , | ( http://example.com/a_b?c=d ) . |
mailto:me@example.org | me@example.org : | 8.8.8.8 : | ca n't . | ' ca n't ' | can not : |
he 'll 've | 'em . | ' s. | it 's 's | dogs ' | 12 p.m. , | o.O ' | <333 | # oh | R&D
"""


@pytest.mark.parametrize('words', [*ONLY_IN_2_0.values(), IN_BOTH])
def test_words_are_split_as_in_2018(words):
    for tokens in map(str.split, words.split(' |')):
        assert english_tokenizer()(''.join(tokens)) == tokens


URLS = (
    'example.com a.b.c.de end.the 3.4.5.6 http://example.com:80/a?b=c/ '
    'ftp://user:secret@example.org x@y@example.com Tom@example.com 10.30.example'
).split()
NO_URLS = (
    'Example.com https://Example.com end.The end.t .example.com example.com. example.com² '
    '10.1.1.1 127.0.0.1 192.168.1.1 172.16.0.9 300.1.1.1 user@example example'
).split()


def test_urls():
    words = [*URLS, *NO_URLS]
    assert [word for word in words if is_url(word, 0, len(word))] == URLS


def slow_tokens(tokenizer, word):
    """The steps of spaCy 2.0.13 one by one, on whole strings."""
    exceptions = tokenizer.exceptions
    prefixes, suffixes = [], []
    while word and word not in exceptions and not is_url(word, 0, len(word)):
        match = tokenizer.prefix.match(word)
        prefix, suffix = match.group() if match else '', slow_suffix(tokenizer, word)
        if prefix and word.removeprefix(prefix) in exceptions:
            suffix = ''
        elif suffix and word.removesuffix(suffix) in exceptions:
            prefix = ''
        elif len(prefix) + len(suffix) > len(word):
            suffix = ''
        if not prefix and not suffix:
            break
        prefixes.append(prefix)
        suffixes.append(suffix)
        word = word.removeprefix(prefix).removesuffix(suffix)
    tokens = [*prefixes, *slow_split(tokenizer, word), *reversed(suffixes)]
    return [token for token in tokens if token]


def slow_suffix(tokenizer, word):
    for start in range(len(word)):
        dots = word[start:]
        if len(dots) > 1 and set(dots) == {'.'}:
            return dots
        match = tokenizer.suffix.match(word, start)
        if match:
            return match.group()
    return ''


def slow_split(tokenizer, word):
    if word in tokenizer.exceptions:
        return tokenizer.exceptions[word]
    if not word or is_url(word, 0, len(word)):
        return [word]
    tokens, start = [], 0
    for match in tokenizer.infix.finditer(word):
        if match.start() > 0:
            tokens += [word[start : match.start()], match.group()]
            start = match.end()
    return [*tokens, word[start:]]


# What the rules are about, beside any character at all.
PIECES = st.sampled_from(
    [*'\'’‘`´".,:;$€%#<>=^\\&@§°²½+-~/_aAbBxX19éÉжЖ漢אক…·☺«»']
    + ["'s", "'S", "n't", "'re", '..', 'km', 'US$', '°C', 'http://', '.com', '10.0.0.1', 'a@b']
    + ['May', 'Prof', 'a.m', 'e.g', 'U.S', 'that', 'this', 'Im', ':)', 'xD', 'o.O', '<3']
)
WORDS = st.lists(PIECES, max_size=8).map(''.join) | st.text()


@settings(max_examples=400, deadline=None, database=None)
@given(word=WORDS.map(lambda text: ''.join(text.split())))
def test_any_word(word):
    tokens = english_tokenizer()(word)
    assert ''.join(tokens) == word
    assert '' not in tokens
    assert tokens == slow_tokens(english_tokenizer(), word)
