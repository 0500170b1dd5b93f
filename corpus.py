"""From text files of any size to byte pairs and one array of token ids: in bounded memory, on all cores.

A text is read in blocks of about a megabyte, cut between lines, by one process on each core. Memory does not grow with the text.
"""

import functools
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter, deque
from itertools import islice

import numpy as np
from tqdm import tqdm

from text_utils import (
    CACHED_WORDS,
    TextEncoder,
    english_tokenizer,
    read_merges,
    read_vocabulary,
    split_words,
)
from utils import InputError, whole_file

ENCODER, MERGES = (
    'encoder_bpe_40000.json',
    'vocab_40000.bpe',
)  # OpenAI's names, however many merges there are
BLOCK = 1 << 20  # bytes of text a worker reads at a time
LONGEST_LINE = 1 << 16  # bytes; a longer line may be cut at a space
MAX_CHARACTERS = 1000  # in a learned vocabulary: the commonest; OpenAI's has 238
MAX_WORDS = 1 << 22  # counted at a time; beyond, the rarest are forgotten


# ---------------------------------------------------------------------------------------------------- reading the text


def find_texts(places):
    """The files among and the .txt files below `places`, as (name, path), in an order that only the names decide. Raises InputError."""
    texts = []
    for place in places:
        if os.path.isdir(place):
            found = sorted(
                os.path.relpath(os.path.join(folder, name), place)
                for folder, _, names in os.walk(place)
                for name in names
                if name.endswith('.txt')
            )
            if not found:
                raise InputError(f'--text {place}: no .txt file in this folder')
            texts += [(name, os.path.join(place, name)) for name in found]
        elif os.path.exists(place):
            texts.append((os.path.basename(place), place))
        else:
            raise InputError(f'--text {place}: no such file or folder')
    return texts


def fingerprint(path):
    """Size and hash of a file. Raises InputError."""
    try:
        with open(path, 'rb') as f:
            return [os.path.getsize(path), hashlib.file_digest(f, 'blake2b').hexdigest()]
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error


def cut(f, offset, size):
    """The first place at or after `offset` where a text of `size` bytes may be cut: behind a newline; in a very long line, behind a space."""
    if not 0 < offset < size:
        return min(max(offset, 0), size)
    f.seek(offset - 1)
    near = f.read(LONGEST_LINE)
    if found := re.search(rb'\n', near):
        return offset + found.start()
    if offset - 1 + len(near) == size:
        return size
    if found := re.search(rb' (?=\S)', near):
        return offset + found.start()
    return offset + next(
        (i for i, byte in enumerate(near[1:]) if byte & 0xC0 != 0x80), 0
    )  # at least between two characters


def read_lines(path, start, size):
    """The lines of the block of text that begins near byte `start`: pairs of a line and whether a newline follows it.

    The blocks of a file, put together, are the file; no line is cut but a very long one. The end of a file is taken for the end of a line.
    Raises InputError where the text is not UTF-8.
    """
    try:
        with open(path, 'rb') as f:
            start, stop = cut(f, start, size), cut(f, start + BLOCK, size)
            f.seek(start)
            data = f.read(stop - start)
        lines = data.decode('utf-8').split('\n')
    except UnicodeDecodeError as error:
        raise InputError(
            f'{path} is not UTF-8 text (byte {start + error.start:,}: {error.reason}); save it again as UTF-8'
        ) from error
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    yield from ((line, True) for line in lines[:-1])
    if lines[-1]:
        yield lines[-1], stop == size


class Workers:
    """One process on each core, that takes blocks of text in and hands results out, in order."""

    def __init__(self):
        self.n = (
            len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        )
        self.pool = multiprocessing.Pool(self.n, self._start)

    @staticmethod
    def _start():
        """A worker leaves signals to its parent, and ends with it, however that ends."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(
            target=lambda: multiprocessing.parent_process().join() or os._exit(1), daemon=True
        ).start()

    def map(self, function, texts, sizes, what):
        """Yield `function((path, start, size))` of each block of the texts, with a bar on stderr.

        Each worker is at most four blocks ahead: results do not pile up where many workers are faster than who takes them.
        """
        blocks = iter(
            [
                (path, start, size)
                for (_, path), size in zip(texts, sizes)
                for start in range(0, size, BLOCK)
            ]
        )
        with tqdm(
            total=sum(sizes),
            unit='B',
            unit_scale=True,
            desc=what,
            leave=False,
            dynamic_ncols=True,
            disable=None,
        ) as bar:
            ahead = deque()
            while True:
                ahead.extend(
                    (block, self.pool.apply_async(function, (block,)))
                    for block in islice(blocks, 4 * self.n - len(ahead))
                )
                if not ahead:
                    return
                (_, start, size), result = ahead.popleft()
                yield result.get()
                bar.update(min(BLOCK, size - start))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.terminate()
        self.pool.join()


# ----------------------------------------------------------------------------------------------------------- vocabulary


def count_words(block):
    return Counter(
        word for line, _ in read_lines(*block) for word in split_words(line) if word != '\n'
    )


def count_tokens(counts):
    """From the words of each block to how often each of spaCy's lower-cased tokens occurs, in bounded memory."""
    words = Counter()
    for count in counts:
        words.update(count)
        least = 1
        while len(words) > MAX_WORDS:
            words = Counter({word: n for word, n in words.items() if n > least})
            least *= 2
    tokens = Counter()
    for i, (word, n) in enumerate(words.items()):
        if i % CACHED_WORDS == 0:
            tokenizer = english_tokenizer()  # spaCy keeps every word that it meets
        for token in tokenizer(word):
            tokens[token.text.lower()] += n
    return tokens


def learn_byte_pairs(tokens, n_merges):
    """Learn byte pairs from tokens and how often each occurs. Returns the characters, the commonest first, and the merges, the best first.

    A pair is merged only if it occurs at least twice, so a small text gives fewer merges.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    counts = Counter()
    for token, n in tokens.items():
        for character in token:
            counts[character] += n
    characters = sorted(counts, key=lambda c: (-counts[c], c))[:MAX_CHARACTERS]
    known = set(characters)

    def texts():
        for token, n in tokens.items():
            if known.issuperset(token):
                for first in range(0, n, 10_000):
                    yield ' '.join([token] * min(n - first, 10_000))

    symbols = characters + [
        c + '</w>' for c in characters
    ]  # given beforehand, in this order: ties are then broken alike in every run
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(' ')
    tokenizer.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=len(symbols) + n_merges,
            min_frequency=2,
            special_tokens=symbols,
            end_of_word_suffix='</w>',
            show_progress=sys.stderr.isatty(),
        ),
    )
    return characters, [
        tuple(pair) for pair in json.loads(tokenizer.to_str())['model']['merges'][:n_merges]
    ]


def write_vocabulary(folder, characters, merges):
    """Write both files as OpenAI's are: `<unk>`, the characters, the characters at a word's end, the merges' results, the newline."""
    symbols = [
        '<unk>',
        *characters,
        *(c + '</w>' for c in characters),
        *(left + right for left, right in merges),
        '\n</w>',
    ]
    with whole_file(os.path.join(folder, ENCODER)) as f:
        json.dump({symbol: i for i, symbol in enumerate(dict.fromkeys(symbols))}, f)
    with whole_file(os.path.join(folder, MERGES)) as f:
        f.write('#version: 0.2\n')
        f.writelines(f'{left} {right}\n' for left, right in merges)


# ------------------------------------------------------------------------------------------------------------- encoding


@functools.cache
def text_encoder(folder):
    return TextEncoder(os.path.join(folder, ENCODER), os.path.join(folder, MERGES))


def encode_block(block, folder, dtype):
    """The token ids of a block of text, as bytes. Each line that is not blank ends with the newline's id."""
    encoder = text_encoder(folder)
    newline = encoder.encoder.get('\n</w>', 0)
    lines = list(read_lines(*block))
    ids = []
    for line, (_, ends) in zip(encoder.encode_all([text for text, _ in lines]), lines):
        ids += line
        if line and ends:
            ids.append(newline)
    return np.array(ids, dtype).tobytes()


def read_record(path):
    """A small JSON file of ours, or {} where there is none or it is cut off."""
    try:
        with open(path, encoding='utf-8') as f:
            record = json.load(f)
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def vocabulary_files(folder):
    return [os.path.join(folder, name) for name in (ENCODER, MERGES)]


def prepare(places, out, work, n_merges, vocabulary=None):
    """Learn `n_merges` byte pairs from the text, or take those of the folder `vocabulary`, and encode the text: unless that is done already.

    Writes the vocabulary to the folder `out`, and to the folder `work`
    tokens.bin   the ids, uint16 where they fit, else uint32
    tokens.json  what they were made from, their number, type and hash
    Raises InputError.
    """
    texts = find_texts(places)
    prints = [fingerprint(path) for _, path in texts]
    sizes = [size for size, _ in prints]
    if vocabulary:
        encoder_path, merges_path = vocabulary_files(vocabulary)
        read_vocabulary(encoder_path), read_merges(merges_path)
    source = {
        'texts': [[name, *p] for (name, _), p in zip(texts, prints)],
        'vocabulary': [fingerprint(path) for path in vocabulary_files(vocabulary)]
        if vocabulary
        else n_merges,
    }
    tokens_path, record_path, vocabulary_record_path = (
        os.path.join(work, name) for name in ('tokens.bin', 'tokens.json', 'vocabulary.json')
    )
    record = read_record(record_path)
    if (
        'source' in record
        and record['source'] != source
        and os.path.exists(checkpoint := os.path.join(work, 'checkpoint'))
    ):
        raise InputError(
            f'{checkpoint} comes from another text or vocabulary: go on with those, or choose another --out'
        )

    def unchanged(record):
        return (
            record.get('source') == source
            and all(map(os.path.isfile, vocabulary_files(out)))
            and record.get('files') == [fingerprint(path) for path in vocabulary_files(out)]
        )

    whole = (
        record.get('dtype') in ('uint16', 'uint32')
        and type(record.get('n_tokens')) is int
        and isinstance(record.get('hash'), str)
    )
    if (
        whole
        and unchanged(record)
        and os.path.isfile(tokens_path)
        and os.path.getsize(tokens_path) == record['n_tokens'] * np.dtype(record['dtype']).itemsize
    ):
        print(f'encoded   already, in {tokens_path}', flush=True)
        return
    with Workers() as workers:
        if vocabulary:
            for path, copy in zip(vocabulary_files(vocabulary), vocabulary_files(out)):
                with open(path, 'rb') as f, whole_file(copy, 'wb') as g:
                    shutil.copyfileobj(f, g)
        elif not unchanged(read_record(vocabulary_record_path)):
            tokens = count_tokens(workers.map(count_words, texts, sizes, 'counting words'))
            characters, merges = learn_byte_pairs(tokens, n_merges)
            write_vocabulary(out, characters, merges)
            print(
                f'learned   {len(merges):,} byte pairs of {len(characters):,} characters, from {tokens.total():,} words, '
                f'{len(tokens):,} of them different',
                flush=True,
            )
        made = {'source': source, 'files': [fingerprint(path) for path in vocabulary_files(out)]}
        with whole_file(vocabulary_record_path) as f:
            json.dump(made, f)
        dtype = 'uint16' if len(read_vocabulary(vocabulary_files(out)[0])) <= 1 << 16 else 'uint32'
        digest, n_bytes, started = hashlib.blake2b(), 0, time.monotonic()
        with whole_file(tokens_path, 'wb') as f:
            for data in workers.map(
                functools.partial(encode_block, folder=out, dtype=dtype), texts, sizes, 'encoding'
            ):
                n_bytes += f.write(data)
                digest.update(data)
    seconds = time.monotonic() - started
    n_tokens = n_bytes // np.dtype(dtype).itemsize
    with whole_file(record_path) as f:
        json.dump({**made, 'n_tokens': n_tokens, 'dtype': dtype, 'hash': digest.hexdigest()}, f)
    print(
        f'encoded   {sum(sizes) / 1e6:,.1f} MB of text in {len(texts):,} file{"s" * (len(texts) > 1)} into {n_tokens:,} tokens '
        f'in {seconds:,.1f} s ({sum(sizes) / 1e6 / seconds:,.1f} MB/s)',
        flush=True,
    )


def open_tokens(work):
    """What `prepare` left: the ids, mapped from the file, and their hash."""
    record = read_record(os.path.join(work, 'tokens.json'))
    if not record['n_tokens']:
        raise InputError('the text is empty')
    return np.memmap(os.path.join(work, 'tokens.bin'), record['dtype'], 'r'), record['hash']
