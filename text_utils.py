"""Text to token ids, exactly as OpenAI's program encodes it: ftfy, standardizing, spaCy's rule-based tokenizer, byte pairs."""
import functools
import json
import math
import re

import ftfy
import spacy

from utils import InputError

CACHED_WORDS = 1 << 18  # of a natural language, all that matter; bounds the memory on any other input


def text_standardize(text):
    """Normalize dashes, dots and white space, and set the punctuation apart that spaCy keeps with its word.

    A run of one repeated mark gets spaces around it. The backslash is not among the marks: the original's pattern escapes it away.
    """
    for mark, plain in (('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'")):
        text = text.replace(mark, plain)
    text = re.sub(r'''(-+|~+|!+|"+|;+|\?+|\++|,+|\)+|\(+|/+|\*+|\[+|\]+|}+|{+|\|+|_+)''', r' \1 ', text)
    text = re.sub(r'\s*\n\s*', ' \n ', text)
    text = re.sub(r'[^\S\n]+', ' ', text)
    return text.strip()


def split_words(text):
    """A text's words: what stands between spaces once ftfy has mended it and it is standardized. A newline is a word."""
    return [word for word in text_standardize(ftfy.fix_text(text)).split(' ') if word]


class TextEncoder:
    """Byte-pair encoder over OpenAI's vocabulary (`text_utils.TextEncoder` of the original).

    encoder_path  JSON: symbol -> id, ids 0 .. n_vocab - 1
    bpe_path      text: a version line, then a merge `left right` on each line, best first

    Raises InputError if a file is missing or is not that.
    """

    def __init__(self, encoder_path, bpe_path):
        self.encoder = read_vocabulary(encoder_path)
        self.bpe_ranks = read_merges(bpe_path)
        self.tokenizer = spacy.blank('en').tokenizer
        self.encode_word = functools.lru_cache(maxsize=CACHED_WORDS)(self._encode_word)

    @property
    def n_vocab(self):
        return len(self.encoder)

    def bpe(self, token):
        """The byte-pair symbols of one token, the last one ending in `</w>`."""
        symbols = [*token[:-1], token[-1] + '</w>']
        while len(symbols) > 1:
            best = min(zip(symbols, symbols[1:]), key=lambda pair: self.bpe_ranks.get(pair, math.inf))
            if best not in self.bpe_ranks:
                break
            merged, i = [], 0
            while i < len(symbols):
                if (*symbols[i:i + 2],) == best:
                    merged.append(symbols[i] + symbols[i + 1])
                    i += 2
                else:
                    merged.append(symbols[i])
                    i += 1
            symbols = merged
        return symbols

    def _encode_word(self, word):
        """Ids of what stands between two spaces: spaCy may cut it into several tokens ("can't" -> "ca" "n't")."""
        if word == '\n':  # spaCy makes one token of a newline and the space after it; the original then writes its symbols so
            return (self.encoder.get('\n</w>', 0),)
        return tuple(self.encoder.get(symbol, 0) for token in self.tokenizer(word) for symbol in self.bpe(token.text.lower()))

    def encode(self, text):
        """Token ids of a text; a symbol that is not in the vocabulary is 0 (`<unk>`).

        spaCy's rules never look across a space, so each word is encoded once and remembered.
        """
        return [i for word in split_words(text) for i in self.encode_word(word)]


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
