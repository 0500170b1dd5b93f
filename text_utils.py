"""Text to token ids, exactly as OpenAI's program encodes it: ftfy, standardizing, spaCy's rule-based tokenizer, byte pairs. And back."""

import heapq
import itertools
import json
import re

import ftfy

from utils import InputError

JOINS_LEFT = re.compile(r"[.,!?;:%)\]}]+|n't|nt|'(s|m|re|ve|ll|d)")
CONTRACTIONS = {
    ('gon', 'na'),
    ('got', 'ta'),
    ("c'm", 'on'),
    ("y'", 'all'),
}  # others that spaCy cuts
CACHED_WORDS = (
    1 << 18
)  # of a natural language, all that matter; bounds the memory on any other input
TAIL = 64  # characters of a word's end in which spaCy's suffix rules find what they would find in all of it
RUN_OF_MARKS = re.compile(r'(([-~!";?+,)(/*\[\]}{|_])\2*)')
ONLY_CURLY = re.compile(
    r'[\n -%\'-~“”‘’–—…]*'
)  # printable ASCII without &, and printers' marks: ftfy makes the quotes straight, no more
STRAIGHT = str.maketrans('“”‘’', '""\'\'')


def text_standardize(text):
    """Normalize dashes, dots and white space, and set the punctuation apart that spaCy keeps with its word.

    A run of one repeated mark gets spaces around it. The backslash is not among the marks: the original's pattern escapes it away.
    """
    for mark, plain in (('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'")):
        text = text.replace(mark, plain)
    text = RUN_OF_MARKS.sub(r' \1 ', text)
    text = re.sub(
        r'[^\S\n]+', ' ', text
    )  # before the next line, or that would take quadratic time over a long run of spaces
    text = re.sub(r'\s*\n\s*', ' \n ', text)
    return text.strip()


def english_tokenizer():
    """spaCy's rule-based English tokenizer. Its rules are unchanged, but a long word takes seconds where it took hours.

    spaCy takes prefixes and suffixes off a word one at a time, and for each searches all that is left of it; no prefix rule needs that (all are
    anchored), and of the suffix rules only the one for a row of dots.
    """
    # spaCy takes as long to import as PyTorch, and of several processes only the first encodes.
    from spacy.lang.en import English
    from spacy.tokenizer import Tokenizer
    from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex
    from spacy.vocab import create_vocab

    rules = English.Defaults
    prefixes, suffixes, infixes = (
        compile_prefix_regex(rules.prefixes),
        compile_suffix_regex(rules.suffixes),
        compile_infix_regex(rules.infixes),
    )

    def suffix_search(word):
        match = suffixes.search(word[-TAIL:])
        return suffixes.search(word) if match and match.start() < TAIL // 2 else match

    return Tokenizer(
        create_vocab('en', rules),
        rules.tokenizer_exceptions,
        prefixes.match,
        suffix_search,
        infixes.finditer,
        url_match=rules.url_match,
    )


def split_words(text):
    """A text's words: what stands between spaces once ftfy has mended it and it is standardized. A newline is a word."""
    text = text.translate(STRAIGHT) if ONLY_CURLY.fullmatch(text) else ftfy.fix_text(text)
    return [word for word in text_standardize(text).split(' ') if word]


class TextEncoder:
    """Byte-pair encoder over OpenAI's vocabulary (`text_utils.TextEncoder` of the original).

    encoder_path  JSON: symbol -> id, ids 0 .. n_vocab - 1
    bpe_path      text: a version line, then a merge `left right` on each line, best first

    Raises InputError if a file is missing or is not that.
    """

    def __init__(self, encoder_path, bpe_path):
        self.encoder = read_vocabulary(encoder_path)
        self.decoder = {i: symbol for symbol, i in self.encoder.items()}
        self.bpe_ranks = read_merges(bpe_path)
        self.forget()

    @property
    def n_vocab(self):
        return len(self.encoder)

    def bpe(self, token):
        """The byte-pair symbols of one token, the last one ending in `</w>`.

        Again and again the adjacent pair of the lowest rank is merged, at all its places from left to right. The pairs wait in a heap, so a token of n
        characters takes n log n steps.
        """
        ranks, n = self.bpe_ranks, len(token)
        symbols = [
            *token[:-1],
            token[-1] + '</w>',
            None,
        ]  # None: the end, and where a symbol was that has been merged into its left neighbour
        left, right = [*range(-1, n)], [*range(1, n + 1), n]
        heap = [
            (ranks[pair], i) for i, pair in enumerate(zip(symbols, symbols[1:])) if pair in ranks
        ]
        heapq.heapify(heap)
        while heap:
            best, touched = heap[0][0], []
            while heap and heap[0][0] == best:
                i = heapq.heappop(heap)[1]
                j = right[i]
                if (
                    ranks.get((symbols[i], symbols[j])) == best
                ):  # else an earlier merge took one of the two
                    symbols[i], symbols[j] = symbols[i] + symbols[j], None
                    right[i] = right[j]
                    left[right[j]] = i
                    touched += left[i], i
            for i in touched:
                if (pair := (symbols[i], symbols[right[i]])) in ranks:
                    heapq.heappush(heap, (ranks[pair], i))
        return [symbol for symbol in symbols if symbol is not None]

    def forget(self):
        self.tokenizer = english_tokenizer()  # spaCy keeps every word that it meets
        self.plain_tokenizer = without_inner_cases(self.tokenizer)
        self.in_rules = set(re.findall('[A-Za-z]+', ' '.join(self.tokenizer.rules)))
        self.words = {'\n': self._ids(['\n'])}  # the ids of each word met, or None: see `_learn`

    def _ids(self, tokens):
        """spaCy makes one token of a newline and the space after it; the original writes its symbols so."""
        return [
            self.encoder.get(symbol, 0)
            for token in tokens
            for symbol in (['\n</w>'] if token[0] == '\n' else self.bpe(token.lower()))
        ]

    def _is_one_token(self, word):
        """Whether no rule of spaCy's can touch a word: it is of letters, and in no special case are there just these between other characters."""
        return word.isascii() and word.isalpha() and word not in self.in_rules

    def _learn(self, words):
        """Put the ids of words into `self.words`, or None for a word whose neighbours may matter. A word is what stands between two spaces.

        A call of spaCy costs as much as a hundred words, so it gets a thousand at a time, on lines of their own: no rule reaches over a newline.
        """
        self.words.update((word, self._ids([word])) for word in words if self._is_one_token(word))
        words = [word for word in words if word not in self.words]
        for i in range(0, len(words), 1000):
            some = words[i : i + 1000]
            tokens, plain = (
                [[token.text for token in line] for line in _lines(tokenizer(' \n '.join(some)))]
                for tokenizer in (self.tokenizer, self.plain_tokenizer)
            )
            for word, its_tokens, its_plain in zip(some, tokens, plain, strict=True):
                alone = its_tokens == its_plain or word in self.tokenizer.rules
                self.words[word] = self._ids(its_tokens) if alone else None

    def encode_all(self, texts):
        """Token ids of each text; a symbol that is not in the vocabulary is 0 (`<unk>`).

        Each word is encoded once and remembered, since spaCy's rules do not look across a space. But for one: an emoticon inside a longer word is left alone
        where it overlaps with one that spaces stand in; such a word is encoded together with its neighbours, up to those that no rule can touch.
        """
        texts = [split_words(text) for text in texts]
        if len(self.words) > CACHED_WORDS:
            self.forget()
        self._learn(
            list({word: None for words in texts for word in words if word not in self.words})
        )
        encoded = []
        for words in texts:
            ids = [self.words[word] for word in words]
            if None in ids:
                groups = [list(group) for _, group in itertools.groupby(words, self._is_one_token)]
                ids = [
                    self._ids([token.text for token in self.tokenizer(' '.join(group))])
                    if None in map(self.words.get, group)
                    else itertools.chain.from_iterable(map(self.words.get, group))
                    for group in groups
                ]
            encoded.append(list(itertools.chain.from_iterable(ids)))
        return encoded

    def encode(self, text):
        """Token ids of one text."""
        return self.encode_all([text])[0]

    def decode(self, ids):
        """The text of token ids of the vocabulary, as one would write it, but in lower case: what `encode` lost stays lost.

        Where ids end with a word, their text is the beginning of the text of those ids and more.
        """
        words = ''.join(self.decoder[i] if i else '<unk></w>' for i in ids).split('</w>')
        return detokenize(word for word in words if word)


def _lines(tokens):
    """The tokens before, between and after newlines."""
    lines = [[]]
    for token in tokens:
        if token.text[0] == '\n':
            lines.append([])
        else:
            lines[-1].append(token)
    return lines


def without_inner_cases(tokenizer):
    """A spaCy tokenizer without those special cases (emoticons, mostly) that it also looks for inside of words."""
    rules = {
        case: tokens
        for case, tokens in tokenizer.rules.items()
        if not (
            ' ' in case
            or tokenizer.find_prefix(case)
            or tokenizer.find_suffix(case)
            or tokenizer.find_infix(case)
        )
    }
    return type(tokenizer)(
        tokenizer.vocab,
        rules,
        tokenizer.prefix_search,
        tokenizer.suffix_search,
        tokenizer.infix_finditer,
        url_match=tokenizer.url_match,
    )


def detokenize(words):
    """Join spaCy's tokens as English is written: quotes, brackets, contractions and other marks without the spaces that tokenizing set between.

    Never looks ahead. Hyphens and dashes, which `text_standardize` makes alike, all get spaces.
    """
    text, before, glued, quoted = '', '', True, set()
    for word in words:
        joins_left = word in '/\n' or JOINS_LEFT.fullmatch(word) or (before, word) in CONTRACTIONS
        joins_right = word in '([{$£#/\n'
        if word in ('"', "'"):
            joins_left = word in quoted or word == "'" and before.endswith('s')  # the cats' food
            joins_right = not joins_left
            quoted ^= {word} if joins_right or word in quoted else set()
        elif word == '\n':
            quoted = set()
        text += word if glued or joins_left else ' ' + word
        before, glued = word, joins_right
    return text


def _read_text(path, what):
    try:
        with open(path, encoding='utf-8') as f:
            return f.read()
    except OSError as error:
        raise InputError(
            f"cannot read the {what} {path}: {error.strerror}; python download.py fetches OpenAI's"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not a {what}: it is not UTF-8 text') from error


def read_vocabulary(path):
    """Read `encoder_bpe_40000.json`: a dict symbol -> id. Raises InputError."""
    try:
        encoder = json.loads(_read_text(path, 'vocabulary'))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'{path} is not a vocabulary: it is not JSON ({str(error)[:80]})'
        ) from error
    if (
        not isinstance(encoder, dict)
        or not encoder
        or not all(type(i) is int for i in encoder.values())
        or sorted(encoder.values()) != list(range(len(encoder)))
    ):
        raise InputError(
            f'{path} is not a vocabulary: expected a JSON object from symbols to the ids 0, 1, 2, ..., each once'
        )
    return encoder


def read_merges(path):
    """Read `vocab_40000.bpe`: a dict (left, right) -> rank. Raises InputError."""
    merges = {}
    for number, line in enumerate(_read_text(path, 'merges file').split('\n'), 1):
        if number == 1 and not line.startswith('#'):
            raise InputError(
                f'{path} is not a merges file: its first line should be a comment such as "#version: 0.2"'
            )
        pair = tuple(line.split())
        if number == 1 or not pair:
            continue
        if len(pair) != 2:
            raise InputError(
                f'{path} is not a merges file: line {number} has {len(pair)} symbols, expected two'
            )
        merges[pair] = number
    return merges
