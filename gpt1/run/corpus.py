"""Turn text of any size into one array of token ids, in bounded memory and on all cores.

One process reads the text in blocks, and workers split these into words and encode them. The result
does not depend on the number of workers.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from gpt1.files import ENCODER_FILE, MERGES_FILE, SHAPES_FILE, SHARDS
from gpt1.run.encoding import id_type, progress_bar
from gpt1.run.record import file_hash, read_file
from gpt1.text.text_files import TextFile, find_texts, read_blocks, shorten
from gpt1.text.workers import map_in_order
from gpt1.weights.vocabulary import save_vocabulary
from text_utils import TextEncoder, english_tokenizer, split_words
from utils import InputError, whole_file

COVERAGE = 0.9995  # share of a text's characters that a learned vocabulary can write
MIN_CHARACTERS = 256  # that a learned vocabulary keeps in any case; OpenAI's has 238
LONGEST_WORD = 128  # characters; a longer word is learned from in pieces
MAX_WORDS = 1 << 21  # different words that are counted at a time


def count_words(_, block: str) -> Counter:
    """How often each word of a block occurs; of a very long one, each piece.

    The time to learn from a word is quadratic in its length.
    """
    counts = Counter()
    for line in block.split('\n'):
        counts.update(split_words(line))
    del counts['\n']
    for word in [word for word in counts if len(word) > LONGEST_WORD]:
        n = counts.pop(word)
        for i in range(0, len(word), LONGEST_WORD):
            counts[word[i : i + LONGEST_WORD]] += n
    return counts


def count_tokens(counts: Iterable[Counter]) -> Counter:
    """How often each lower-case token of spaCy occurs, from the word counts of many blocks.

    Memory is bounded: if there are very many different words, the rarest are forgotten.
    """
    words = Counter()
    for count in counts:
        words.update(count)
        if len(words) > MAX_WORDS:
            words = Counter(dict(words.most_common(MAX_WORDS // 2)))
    tokens = Counter()
    tokenizer = english_tokenizer()
    for word, n in words.items():
        for token in tokenizer(word):
            tokens[token.lower()] += n
    return tokens


def choose_characters(tokens: Counter, coverage: float) -> list[str]:
    """The commonest characters, that make up the share `coverage` of the text, commonest first."""
    counts = Counter()
    for token, n in tokens.items():
        for character in token:
            counts[character] += n
    characters = sorted(counts, key=lambda c: (-counts[c], c))
    covered = np.cumsum([counts[c] for c in characters])
    n_too_few = np.searchsorted(covered, coverage * counts.total())
    return characters[: max(n_too_few + 1, MIN_CHARACTERS)]


def learn_byte_pairs(
    tokens: Counter, n_merges: int, coverage: float = COVERAGE
) -> tuple[list[str], list[tuple[str, str]]]:
    """Learn byte pairs from tokens and how often each occurs (Sennrich et al. 2016).

    Returns the characters and the merges in their order. A pair is merged only if it occurs at
    least twice, so a small text gives fewer. A token with another character is not learned from.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    characters = choose_characters(tokens, coverage)
    known = set(characters)

    def texts():
        for token, n in tokens.items():
            if known.issuperset(token):
                for first in range(0, n, 10_000):
                    yield ' '.join([token] * min(n - first, 10_000))

    # The order of these symbols decides ties, so all runs learn the same merges.
    symbols = characters + [character + '</w>' for character in characters]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(' ')
    trainer = trainers.BpeTrainer(
        vocab_size=len(symbols) + n_merges,
        min_frequency=2,
        special_tokens=symbols,
        end_of_word_suffix='</w>',
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(texts(), trainer)
    merges = json.loads(tokenizer.to_str())['model']['merges']
    return characters, [(left, right) for left, right in merges[:n_merges]]


def encoder_of(characters: list[str], merges: list[tuple[str, str]]) -> TextEncoder:
    """The encoder of what was learned, its symbols in OpenAI's order."""
    ends = [f'{character}</w>' for character in characters]
    symbols = ['<unk>', *characters, *ends, *map(''.join, merges), '\n</w>']
    encoder = {symbol: i for i, symbol in enumerate(dict.fromkeys(symbols))}
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return TextEncoder(encoder, ranks)


def vocabulary_files(folder: str) -> list[str]:
    """The paths of a vocabulary's files, symbols and merges."""
    return [os.path.join(folder, name) for name in (ENCODER_FILE, MERGES_FILE)]


def encode_block(encoder: TextEncoder, block: str) -> np.ndarray:
    """The token ids of a block. The id of the newline follows each line that is not blank."""
    newline = encoder.encoder.get('\n</w>', 0)
    # The last line is empty, unless the block ends within a line.
    *lines, last = encoder.encode_all(block.split('\n'))
    ids = [i for line in lines if line for i in (*line, newline)]
    return np.array(ids + last, id_type(encoder))


def encode_corpus(texts: list[TextFile], folder: str, path: str) -> dict:
    """Write the ids of texts, with the vocabulary of `folder`, to a file; return their record."""
    encoder = TextEncoder(*vocabulary_files(folder))
    encoder.encode('a')  # loads the tokenizer, which forked processes then have
    digest = hashlib.blake2b()
    n_tokens = n_known = 0
    with whole_file(path, 'wb') as f:
        for ids in map_in_order(encode_block, all_blocks(texts, 'encoding'), encoder):
            f.write(ids.data)
            digest.update(ids.data)
            n_tokens += len(ids)
            n_known += int(np.count_nonzero(ids))
        check_words(n_tokens, texts)
    return {
        'n_tokens': n_tokens,
        'n_unknown': n_tokens - n_known,
        'dtype': np.dtype(id_type(encoder)).name,
        'hash': digest.hexdigest(),
    }


def all_blocks(texts: list[TextFile], what: str) -> Iterator[str]:
    with progress_bar(size_of(texts), 'B', what, unit_scale=True) as bar:
        for text in texts:
            for block in read_blocks(text.path):
                yield block
                bar.update(len(block.encode()))


def size_of(texts: list[TextFile]) -> int:
    """The bytes of the files; compressed ones have more."""
    return sum(os.path.getsize(text.path) for text in texts)


def check_words(n: int, texts: list[TextFile]) -> None:
    if not n:
        names = shorten([text.path for text in texts])
        raise InputError(f'the text is empty: there are no words in {names}')


def prepare(
    places: Iterable[str],
    out: str,
    work: str,
    n_merges: int,
    vocabulary: str | None = None,
    coverage: float = COVERAGE,
) -> None:
    """Learn byte pairs from the texts at `places`, and encode them. Does nothing that is done.

    Writes the vocabulary to the folder `out`, a copy of that in the folder `vocabulary` if it is
    given, and to the folder `work`

    - tokens.bin: the token ids, as uint16 if they fit, else as uint32
    - tokens.json: what they were made from, how many there are, their type and hash
    - vocabulary.json: what the vocabulary was made from

    A vocabulary that belongs to weights or to a checkpoint is never replaced. Raises InputError.
    """
    texts, notes = find_texts(places)
    for note in notes:
        print(f'note      {note}', flush=True)
    # All that the result depends on
    source = {'texts': [[text.name, *file_hash(text.path)] for text in texts]}
    if vocabulary:
        given = TextEncoder(*vocabulary_files(vocabulary))
        source['vocabulary'] = [file_hash(path) for path in vocabulary_files(vocabulary)]
    else:
        source |= {'n_merges': n_merges, 'coverage': coverage}
    made = made_from(source, out)
    record = finished_record(work, made)
    if record:
        print_encoded(f'already, in {work}', record)
        return
    if read_file(os.path.join(work, 'vocabulary.json')) != made:
        check_replaceable(out, work)
        if vocabulary:
            save_vocabulary(given, out)
        else:
            learn_vocabulary(texts, out, n_merges, coverage)
        made = made_from(source, out)
        with whole_file(os.path.join(work, 'vocabulary.json')) as f:
            json.dump(made, f)
    started = time.monotonic()
    record = encode_corpus(texts, out, os.path.join(work, 'tokens.bin'))
    seconds = time.monotonic() - started
    with whole_file(os.path.join(work, 'tokens.json')) as f:
        json.dump({**made, **record}, f)
    megabytes = size_of(texts) / 1e6
    files = '1 file' if len(texts) == 1 else f'{len(texts):,} files'
    speed = f'in {seconds:,.1f} s ({megabytes / seconds:,.1f} MB/s)'
    what = f'{files} of {megabytes:,.1f} MB into {record["n_tokens"]:,} tokens {speed}'
    print_encoded(what, record)


def print_encoded(what: str, record: dict) -> None:
    share = 100 * record['n_unknown'] / record['n_tokens']
    print(f'encoded   {what}; {share:.2f} % of the tokens are unknown (<unk>)', flush=True)


def made_from(source: dict, out: str) -> dict:
    """The record of the vocabulary in `out`, as it is, if it was made from `source`."""
    paths = filter(os.path.isfile, vocabulary_files(out))
    return {'source': source, 'files': [file_hash(path) for path in paths]}


def finished_record(work: str, made: dict) -> dict | None:
    """The record of the token ids in `work`, if they were made like this and all are there."""
    record = read_file(os.path.join(work, 'tokens.json'))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if made.items() <= record.items() and len(open_tokens(work)[0]) == record['n_tokens']:
            return record
    return None


def check_replaceable(out: str, work: str) -> None:
    weights = [os.path.join(out, name) for name in (SHAPES_FILE, SHARDS[0])]
    for path in filter(os.path.exists, (*weights, os.path.join(work, 'checkpoint'))):
        raise InputError(
            f'{path} comes from another text or vocabulary, and its vocabulary in {out} would '
            f'be replaced: give the same text and vocabulary, or choose another --out'
        )


def learn_vocabulary(texts: list[TextFile], out: str, n_merges: int, coverage: float) -> None:
    tokens = count_tokens(map_in_order(count_words, all_blocks(texts, 'counting words')))
    check_words(len(tokens), texts)
    characters, merges = learn_byte_pairs(tokens, n_merges, coverage)
    save_vocabulary(encoder_of(characters, merges), out)
    print(
        f'learned   {len(merges):,} byte pairs of {len(characters):,} characters, '
        f'from {tokens.total():,} words, {len(tokens):,} of them different',
        flush=True,
    )


def open_tokens(work: str) -> tuple[np.ndarray, str]:
    """Open what `prepare` wrote: the token ids, mapped from the file, and their hash."""
    record = read_file(os.path.join(work, 'tokens.json'))
    return np.memmap(os.path.join(work, 'tokens.bin'), record['dtype'], 'r'), record['hash']
