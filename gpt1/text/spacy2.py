"""The English tokenizer of spaCy 2.0.13, the version of June 2018.

OpenAI's vocabulary was made of its tokens, and later versions of spaCy split some words
differently. This module takes what has not changed from the installed spaCy (3.8) and adds the
differences.

The rules are facts of these files of spaCy 2.0.13 (MIT License, https://pypi.org/project/spacy):
`spacy/tokenizer.pyx`, `spacy/lang/punctuation.py`, `spacy/lang/char_classes.py`,
`spacy/lang/tokenizer_exceptions.py` and `spacy/lang/en/tokenizer_exceptions.py`.
"""

import functools
import itertools
import math
import os
import re
import tomllib
import unicodedata

with open(os.path.join(os.path.dirname(__file__), 'spacy2.toml'), 'rb') as _file:
    RULES = tomllib.load(_file)
CURRENCY, HYPHENS, PUNCTUATION, QUOTES = (
    RULES[name].split() for name in ('currency', 'hyphens', 'punctuation', 'quotes')
)
ELLIPSIS = r'\.\.+'
SCHEME, HOST = (re.compile(RULES[name], re.VERBOSE) for name in ('scheme', 'host'))

# All suffixes but a row of dots are shorter than this, with the characters before them that matter.
LONGEST_SUFFIX = 8

# Letters, marks, digits and connectors: what \w is in the module `regex`, which 2.0.13 uses. In the
# module `re`, \w also matches ² and ½.
WORD_CATEGORIES = set('Lu Ll Lt Lm Lo Mn Mc Me Nd Nl Pc'.split())


def one_of(strings: list[str]) -> str:
    return '|'.join(re.escape(string) for string in strings)


class EnglishTokenizer:
    """Split words, which stand between spaces, into tokens as spaCy 2.0.13 does."""

    def __init__(self):
        from spacy.attrs import ORTH  # here, since importing spaCy takes seconds
        from spacy.lang.char_classes import LATIN_LOWER, LATIN_UPPER, LIST_ICONS, UNITS
        from spacy.lang.en import English

        removed = re.compile(RULES['removed_exceptions'])
        added = map(str.split, RULES['added_exceptions'].split('|'))
        self.exceptions = {
            word: [token[ORTH] for token in tokens]
            for word, tokens in English.Defaults.tokenizer_exceptions.items()
            if not removed.fullmatch(word)
        } | {''.join(tokens): tokens for tokens in added}
        self.longest_exception = max(map(len, self.exceptions))

        blocks = itertools.starmap(range, RULES['uncased_blocks'])
        uncased = ''.join(filter(str.isalpha, map(chr, itertools.chain.from_iterable(blocks))))
        lower = LATIN_LOWER + RULES['lower'] + uncased
        upper = LATIN_UPPER + RULES['upper'] + uncased
        letter = lower + LATIN_UPPER + RULES['upper']
        # Before a full stop, 2.0.13 also accepts ( ? : | since its pattern for quotes, which
        # contains these characters, stands inside of square brackets.
        before_stop = lower + re.escape('%²-)]+(?:|' + ''.join(QUOTES))

        prefixes = [
            one_of([*'§%=+', *PUNCTUATION, *QUOTES, *CURRENCY]),
            ELLIPSIS,
            *LIST_ICONS,  # dingbats and emoji
        ]
        suffixes = [
            one_of(PUNCTUATION + QUOTES),
            *LIST_ICONS,
            "['’][sS]",
            r'(?<=°[FfCcKk])\.',
            f'(?<=[0-9])(?:{one_of(["+", *CURRENCY])}|{UNITS})',
            rf'(?<=[0-9{before_stop}])\.',
            rf'(?<=[{upper}][{upper}])\.',
        ]
        infixes = [
            ELLIPSIS,
            '…',
            *LIST_ICONS,
            r'(?<=[0-9])[+\-*^](?=[0-9-])',
            rf'(?<=[{lower}])\.(?=[{upper}])',
            f'(?<=[{letter}]),(?=[{letter}])',
            f'(?<=[{letter}])[?";:=,.]*(?:{one_of(HYPHENS)})(?=[{letter}])',
            f'(?<=[{letter}"])[:<>=/](?=[{letter}])',
        ]
        self.prefix = re.compile('|'.join(prefixes))
        self.suffix = re.compile(rf'(?:{"|".join(suffixes)})\Z')
        self.infix = re.compile('|'.join(infixes))

    def __call__(self, word: str) -> list[str]:
        """The tokens of a word without white space. Joined, they are the word.

        In each step one prefix and one suffix are taken off, until nothing changes or an exception
        or a URL is left. What is left is then split at its infixes. No step copies or searches all
        of the word, so that a long word does not take quadratic time.
        """
        if word.isalpha() and word not in self.exceptions:  # No rule splits letters only.
            return [word]
        prefixes, suffixes = [], []
        start, end = 0, len(word)  # What is left of the word is word[start:end].
        while start < end:
            if self._is_exception(word, start, end) or is_url(word, start, end):
                break
            match = self.prefix.match(word, start, end)
            prefix_end = match.end() if match else start
            suffix_start = self.find_suffix(word, start, end)  # may be inside of the prefix
            if prefix_end > start and self._is_exception(word, prefix_end, end):
                suffix_start = end
            elif suffix_start < end and self._is_exception(word, start, suffix_start):
                prefix_end = start
            elif prefix_end > suffix_start:  # They overlap, and the prefix is taken.
                suffix_start = end
            if prefix_end == start and suffix_start == end:
                break
            prefixes.append(word[start:prefix_end])
            suffixes.append(word[suffix_start:end])
            start, end = prefix_end, suffix_start
        tokens = [*prefixes, *self._split_inside(word[start:end]), *reversed(suffixes)]
        return [token for token in tokens if token]

    def _is_exception(self, word: str, start: int, end: int) -> bool:
        return end - start <= self.longest_exception and word[start:end] in self.exceptions

    def find_suffix(self, word: str, start: int, end: int) -> int:
        """The start of the suffix of word[start:end]."""
        if word.endswith('..', start, end):
            while end > start and word[end - 1] == '.':
                end -= 1
            return end
        # The part is cut out, since a suffix rule must not see what stands before it.
        start = max(start, end - LONGEST_SUFFIX)
        match = self.suffix.search(word[start:end])
        return start + match.start() if match else end

    def _split_inside(self, word: str) -> list[str]:
        if word in self.exceptions:
            return self.exceptions[word]
        if not word or is_url(word, 0, len(word)):
            return [word]
        tokens, start = [], 0
        for match in self.infix.finditer(word):
            if match.start() > 0:  # At the beginning, it stays with what comes after it.
                tokens += [word[start : match.start()], match.group()]
                start = match.end()
        return [*tokens, word[start:]]


def is_url(word: str, start: int, end: int) -> bool:
    """Whether word[start:end] is a URL or a mail address by the rule of spaCy 2.0.13.

    It must begin with a letter or a digit, and end with one or with `/`.
    """
    if word.find('.', start, end) < 0:  # This test is fast, and most words fail it.
        return False
    ends = word[start] + word[end - 1].replace('/', '')
    is_closed = WORD_CATEGORIES.issuperset(map(unicodedata.category, ends))
    return is_closed and find_host(word, start) <= end


@functools.lru_cache(maxsize=16)  # Asked again for each suffix that is taken off a word.
def find_host(word: str, start: int) -> float:
    """The first position in a word up to which word[start:] can be seen to be a URL, or infinity.

    A host must stand at its beginning, behind a scheme like `http://` or behind an `@`.
    """
    at = start
    match = HOST.match(word, SCHEME.match(word, start).end())
    while not match:
        at = word.find('@', at + 1)
        if at < 0:
            return math.inf
        match = HOST.match(word, at + 1)
    return match.end()
