"""Convert text to token ids, exactly as OpenAI's program did in 2018, and token ids to text.

The steps are those of `text_utils.py` in openai/finetune-transformer-lm: ftfy repairs characters,
`text_standardize` separates punctuation, spaCy splits words, and `TextEncoder` has the byte pairs.
"""

import contextlib
import functools
import heapq
import itertools
import json
import os
import re
from collections.abc import Iterable

from gpt1.text.spacy2 import EnglishTokenizer
from utils import InputError, check_not_pointer

CACHED_WORDS = 1 << 18  # whose ids are remembered: enough for the frequent words of any language
LONGEST_CACHED = 64  # characters; without spaces (Chinese, DNA), words are long and all different

# The backslash is not among these marks: the original's pattern escapes it away.
RUN_OF_MARKS = re.compile(r'(([-~!";?+,)(/*\[\]}{|_])\2*)')
DASHES_AND_DOTS = (('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'"))

# Of texts of printable ASCII without `&`, and of typographic quotes, dashes and dots, ftfy changes
# nothing but the quotes.
PLAIN_TEXT = re.compile(r"[\n -%'-~“”‘’–—…]*")
STRAIGHT_QUOTES = str.maketrans('“”‘’', '""\'\'')

# UTF-8 of the punctuation from U+2000 to U+203F, decoded as Windows-1252: â€™ and so on. Its third
# byte is 0x80 .. 0xBF, and Windows-1252 leaves five of these bytes undefined.
BROKEN_PUNCTUATION = re.compile(
    'â€[\x81\x8d\x8f\x90\x9d' + bytes(range(0x80, 0xC0)).decode('cp1252', 'ignore') + ']'
)

HTML_LINE = re.compile('^(?=.*<)(?=.*>)', re.MULTILINE)

# Control characters that ftfy 5.3.0 removes and ftfy 6 keeps: those of musical notes, and tags.
OLD_CONTROLS = dict.fromkeys([*range(0x1D173, 0x1D17B), *range(0xE0000, 0xE0080)])

# Tokens that are written without a space before them, and pairs of tokens that are one word.
JOINS_LEFT = re.compile(r"[.,!?;:%)\]}]+|n't|nt|'(s|m|re|ve|ll|d)")
CONTRACTIONS = {('gon', 'na'), ('got', 'ta'), ("c'm", 'on'), ("y'", 'all')}


def fix_text(text: str) -> str:
    """Repair broken characters as ftfy 5.3.0 does.

    Two differences remain. ftfy 6 decides otherwise whether a few short texts were decoded with the
    wrong encoding, those with sequences like "Ã«" or "É°". And it knows more entities: those with
    names of more than eight letters, and some in capitals like &NTILDE;.
    """
    if PLAIN_TEXT.fullmatch(text):
        return text.translate(STRAIGHT_QUOTES)
    import ftfy  # takes a tenth of a second

    # ftfy 6.3 ignores the next two settings unless it is asked to explain what it did.
    config = ftfy.TextFixerConfig(
        decode_inconsistent_utf8=False, fix_c1_controls=False, explain=True
    )

    def fix(part, unescape_html):
        settings = config._replace(unescape_html=unescape_html)
        if 'â€' in part:
            # 5.3.0 always repairs these. Quotes must not be made straight before.
            part = ftfy.fix_text(part, settings._replace(uncurl_quotes=False))
            part = BROKEN_PUNCTUATION.sub(
                lambda match: match.group().encode('sloppy-windows-1252').decode(), part
            )
        return ftfy.fix_text(part, settings)

    text = text.translate(OLD_CONTROLS)
    # 5.3.0 replaces entities like &lt; up to the first line that has both < and >. ftfy 6 stops at
    # the first <.
    html = HTML_LINE.search(text)
    start = html.start() if html else len(text)
    return fix(text[:start], unescape_html=True) + fix(text[start:], unescape_html=False)


def text_standardize(text: str) -> str:
    """Normalize dashes, dots and white space, and put spaces around each run of one mark.

    Blank lines are left out, as in the original. Its patterns take quadratic time for many spaces.
    """
    for mark, plain in DASHES_AND_DOTS:
        text = text.replace(mark, plain)
    lines = (' '.join(line.split()) for line in RUN_OF_MARKS.sub(r' \1 ', text).split('\n'))
    return ' \n '.join(filter(None, lines))


def split_words(text: str) -> list[str]:
    """What stands between spaces once a text is fixed and standardized. A newline is a word."""
    return [word for word in text_standardize(fix_text(text)).split(' ') if word]


english_tokenizer = functools.cache(EnglishTokenizer)


class TextEncoder:
    """Byte-pair encoder of the original (`text_utils.TextEncoder`), with the ids of 2018.

    encoder    dict from symbols to ids
    decoder    dict from ids to symbols
    bpe_ranks  dict from merges (left, right) to their ranks; the lowest rank is the best
    """

    def __init__(self, encoder_path: str | os.PathLike | dict, bpe_path: str | os.PathLike | dict):
        """Read OpenAI's two files, or take what `read_vocabulary` and `read_merges` have read."""
        is_read = isinstance(encoder_path, dict)
        self.encoder = encoder_path if is_read else read_vocabulary(encoder_path)
        self.bpe_ranks = bpe_path if is_read else read_merges(bpe_path)
        self.decoder = {i: symbol for symbol, i in self.encoder.items()}
        # Since the rules never look across a space, each word has its ids.
        self.encode_word = functools.lru_cache(CACHED_WORDS)(self._encode_word)

    def __reduce__(self):
        """Pickle the vocabulary alone, for worker processes that are not forked."""
        return TextEncoder, (self.encoder, self.bpe_ranks)

    @property
    def n_vocab(self) -> int:
        return len(self.encoder)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text. A symbol that is not in the vocabulary is 0 (`<unk>`)."""
        words = split_words(text)
        ids = map(self.encode_word, words)
        if max(map(len, words), default=0) > LONGEST_CACHED:
            kinds = (self.encode_word, self._encode_word)
            ids = (kinds[len(word) > LONGEST_CACHED](word) for word in words)
        return [*itertools.chain.from_iterable(ids)]

    def encode_all(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, as it is usually written, but in lower case."""
        symbols = [self.decoder[i] if i else '<unk></w>' for i in ids]
        words = ''.join(symbols).split('</w>')
        return detokenize(word for word in words if word)

    def _encode_word(self, word: str) -> tuple[int, ...]:
        if word == '\n':
            return (self.encoder.get('\n</w>', 0),)
        tokenizer = english_tokenizer()  # here, since it takes a second to load
        symbols = [symbol for token in tokenizer(word) for symbol in self.bpe(token.lower())]
        return tuple(self.encoder.get(symbol, 0) for symbol in symbols)

    def bpe(self, token: str) -> list[str]:
        """The byte-pair symbols of one token. The last one ends with `</w>`.

        The adjacent pair of the lowest rank is merged, at all its places from left to right, until
        no pair has a rank. The pairs wait in a heap, so n characters take n log n steps.
        """
        ranks = self.bpe_ranks
        n = len(token)
        # A linked list: `left` and `right` are the neighbours of a symbol. None marks the end, and
        # the places of symbols that were merged into their left neighbours.
        symbols = [*token[:-1], token[-1] + '</w>', None]
        left = list(range(-1, n))
        right = [*range(1, n + 1), n]
        pairs = enumerate(zip(symbols, symbols[1:]))
        heap = [(ranks[pair], i) for i, pair in pairs if pair in ranks]
        heapq.heapify(heap)
        while heap:
            best = heap[0][0]
            changed = []
            while heap and heap[0][0] == best:
                i = heapq.heappop(heap)[1]
                j = right[i]
                if ranks.get((symbols[i], symbols[j])) != best:
                    continue  # An earlier merge took one of the two.
                symbols[i] += symbols[j]
                symbols[j] = None
                right[i] = right[j]
                left[right[j]] = i
                changed += [left[i], i]
            for i in changed:
                pair = (symbols[i], symbols[right[i]])
                if pair in ranks:
                    heapq.heappush(heap, (ranks[pair], i))
        return [symbol for symbol in symbols if symbol is not None]


def detokenize(words: Iterable[str]) -> str:
    """Join spaCy's tokens as English is written.

    The text of the first n tokens is the beginning of the text of all of them. Hyphens and dashes
    get spaces, since `text_standardize` makes no difference between them.
    """
    text = before = ''
    joined = True  # Whether the next token is written without a space before it.
    open_quotes = set()
    for word in words:
        joins_left = word in '/\n' or JOINS_LEFT.fullmatch(word) or (before, word) in CONTRACTIONS
        joins_right = word in '([{$£#/\n'
        if word in ('"', "'"):
            is_possessive = word == "'" and before.endswith('s')  # the cats' food
            joins_left = word in open_quotes or is_possessive
            joins_right = not joins_left
            (open_quotes.add if joins_right else open_quotes.discard)(word)
        elif word == '\n':
            open_quotes.clear()
        text += word if joined or joins_left else f' {word}'
        before, joined = word, joins_right
    return text


def read_vocabulary(path: str | os.PathLike) -> dict[str, int]:
    """Read `encoder_bpe_40000.json`: an object from symbols to the ids 0 .. n_vocab - 1."""
    encoder = None
    with contextlib.suppress(ValueError, RecursionError):
        encoder = json.loads(_read_text(path, 'vocabulary'))
    ids = list(encoder.values()) if isinstance(encoder, dict) else []
    # `type` and not `isinstance`, since true and false are integers too.
    if not ids or {*map(type, ids)} != {int} or sorted(ids) != list(range(len(ids))):
        reason = 'expected a JSON object from symbols to the ids 0, 1, 2, ..., each once'
        raise InputError(f'{path} is not a vocabulary: {reason}')
    return encoder


def read_merges(path: str | os.PathLike) -> dict[tuple[str, str], int]:
    """Read `vocab_40000.bpe`: from merges (left, right) to the numbers of their lines.

    After a first line with a version, there is a merge `left right` on each line, the best first.
    """
    first, *lines = _read_text(path, 'merges file').split('\n')
    pairs = {tuple(line.split()): number for number, line in enumerate(lines, start=2)}
    pairs.pop((), None)  # blank lines
    wrong = [f'line {n} is not two symbols' for pair, n in pairs.items() if len(pair) != 2]
    if not first.startswith('#'):
        wrong = ['its first line should be a comment such as "#version: 0.2"']
    if wrong:
        raise InputError(f'{path} is not a merges file: {wrong[0]}')
    return pairs


def _read_text(path: str | os.PathLike, what: str) -> str:
    check_not_pointer(path)
    try:
        with open(path, encoding='utf-8') as f:
            return f.read()
    except OSError as error:
        hint = "python download.py fetches OpenAI's"
        raise InputError(f'cannot read the {what} {path}: {error.strerror}; {hint}') from error
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not a {what}: it is not UTF-8 text') from error
