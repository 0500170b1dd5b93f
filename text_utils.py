"""Text to token ids, exactly as OpenAI's program encodes it: ftfy, standardizing, spaCy's rule-based tokenizer, byte pairs."""
import functools
import heapq
import json
import re

import ftfy
import spacy
from spacy.tokenizer import Tokenizer

from utils import InputError

CACHED_TOKENS = 1 << 18  # of a natural language, all that matter; bounds the memory on any other input
TAIL = 64                # characters of a word's end in which spaCy's suffix rules find what they would find in all of it


def text_standardize(text):
    """Normalize dashes, dots and white space, and set the punctuation apart that spaCy keeps with its word.

    A run of one repeated mark gets spaces around it. The backslash is not among the marks: the original's pattern escapes it away.
    """
    for mark, plain in (('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'")):
        text = text.replace(mark, plain)
    text = re.sub(r'(([-~!";?+,)(/*[\]}{|_])\2*)', r' \1 ', text)
    text = re.sub(r'[^\S\n]+', ' ', text)  # before the next line, or that would take quadratic time over a long run of spaces
    text = re.sub(r'\s*\n\s*', ' \n ', text)
    return text.strip()


def english_tokenizer():
    """spaCy's rule-based English tokenizer. Its rules are unchanged, but a long word takes seconds where it took hours.

    spaCy takes prefixes and suffixes off a word one at a time, and for each searches all that is left of it; no prefix rule needs that (all are
    anchored), and of the suffix rules only the one for a row of dots.
    """
    nlp = spacy.blank('en')
    rules = nlp.tokenizer
    suffixes = rules.suffix_search.__self__

    def suffix_search(word):
        match = suffixes.search(word[-TAIL:])
        return suffixes.search(word) if match and match.start() < TAIL // 2 else match

    return Tokenizer(nlp.vocab, rules.rules, rules.prefix_search.__self__.match, suffix_search, rules.infix_finditer, url_match=rules.url_match)


class TextEncoder:
    """Byte-pair encoder over OpenAI's vocabulary (`text_utils.TextEncoder` of the original).

    encoder_path  JSON: symbol -> id, ids 0 .. n_vocab - 1
    bpe_path      text: a version line, then a merge `left right` on each line, best first

    Raises InputError if a file is missing or is not that.
    """

    def __init__(self, encoder_path, bpe_path):
        self.encoder = read_vocabulary(encoder_path)
        self.bpe_ranks = read_merges(bpe_path)
        self.tokenizer = english_tokenizer()
        self.encode_token = functools.lru_cache(maxsize=CACHED_TOKENS)(self._encode_token)

    @property
    def n_vocab(self):
        return len(self.encoder)

    def bpe(self, token):
        """The byte-pair symbols of one token, the last one ending in `</w>`: the best pair is merged wherever it stands, then the next best."""
        symbols = [*token[:-1], token[-1] + '</w>']
        following, preceding = list(range(1, len(symbols) + 1)), list(range(-1, len(symbols) - 1))
        candidates = []  # a heap of (rank, place of the left symbol); out of date where that rank is no longer the place's

        def rank(left):
            right = following[left] if left >= 0 else len(symbols)
            return self.bpe_ranks.get((symbols[left], symbols[right])) if right < len(symbols) else None

        def consider(left):
            if (r := rank(left)) is not None:
                heapq.heappush(candidates, (r, left))

        for left in range(len(symbols)):
            consider(left)
        while candidates:
            best, merged = candidates[0][0], []
            while candidates and candidates[0][0] == best:
                left = heapq.heappop(candidates)[1]
                if symbols[left] and rank(left) == best:
                    right = following[left]
                    symbols[left], symbols[right] = symbols[left] + symbols[right], ''
                    following[left] = following[right]
                    if following[left] < len(symbols):
                        preceding[following[left]] = left
                    merged.append(left)
            for left in merged:
                if symbols[left]:
                    consider(preceding[left])
                    consider(left)
        return [symbol for symbol in symbols if symbol]

    def _encode_token(self, token):
        """Ids of one of spaCy's tokens. For a newline, which spaCy makes one token with the space after it, the original writes its symbols so."""
        symbols = ['\n</w>'] if token == '\n ' else self.bpe(token.lower())
        return [self.encoder.get(symbol, 0) for symbol in symbols]

    def encode(self, text):
        """Token ids of a text; a symbol that is not in the vocabulary is 0 (`<unk>`).

        spaCy gets the whole text: what it makes of a word can depend on the words beside it.
        """
        return [i for token in self.tokenizer(text_standardize(ftfy.fix_text(text))) for i in self.encode_token(token.text)]


def _read_text(path, what):
    try:
        with open(path, encoding='utf-8') as f:
            return f.read()
    except OSError as error:
        raise InputError(f'cannot read the {what} {path}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not a {what}: it is not UTF-8 text') from error


def read_vocabulary(path):
    """Read `encoder_bpe_40000.json`: a dict symbol -> id. Raises InputError."""
    try:
        encoder = json.loads(_read_text(path, 'vocabulary'))
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is not a vocabulary: it is not JSON ({str(error)[:80]})') from error
    if not isinstance(encoder, dict) or not encoder or not all(type(i) is int for i in encoder.values()) \
            or sorted(encoder.values()) != list(range(len(encoder))):
        raise InputError(f'{path} is not a vocabulary: expected a JSON object from symbols to the ids 0, 1, 2, ..., each once')
    return encoder


def read_merges(path):
    """Read `vocab_40000.bpe`: a dict (left, right) -> rank. Raises InputError."""
    merges = {}
    for number, line in enumerate(_read_text(path, 'merges file').split('\n'), 1):
        if number == 1 and not line.startswith('#'):
            raise InputError(f'{path} is not a merges file: its first line should be a comment such as "#version: 0.2"')
        pair = tuple(line.split())
        if number == 1 or not pair:
            continue
        if len(pair) != 2:
            raise InputError(f'{path} is not a merges file: line {number} has {len(pair)} symbols, expected two')
        merges[pair] = number
    return merges
