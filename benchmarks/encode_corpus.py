"""Measure how fast text is encoded for pre-training, and whether memory grows with the text.

    python benchmarks/encode_corpus.py --vocab FOLDER --mb 50 300

FOLDER holds OpenAI's vocabulary (`python download.py` fetches it). The texts are made of its words,
as frequent as words are in English (Zipf's law). One word in a hundred is put together from two, so
new words never end. There are sentences, paragraphs and curly quotes. Each text is encoded twice:
once in lines, and once as one long line.

Each encoding runs in a process of its own. Its rate, its peak memory, and the peak memory of its
largest worker are printed.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np

from gpt1.run.corpus import prepare, vocabulary_files
from text_utils import read_vocabulary

N_WORDS = 100_000  # drawn at a time


def write_text(path, megabytes, words, end, seed=0):
    """Write sentences of 5 to 24 words; `end` follows each paragraph of five."""
    rng = np.random.default_rng(seed)
    frequencies = 1 / (np.arange(len(words)) + 2.7)
    frequencies /= frequencies.sum()
    size = 0
    with open(path, 'wb') as f:
        while size < megabytes * 1e6:
            drawn = draw_words(rng, words, frequencies)
            starts = np.cumsum(rng.integers(5, 25, 6000))
            starts = starts[starts < N_WORDS]
            for i, (start, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
                sentence = ' '.join(drawn[start:stop]).capitalize()
                sentence = f'“{sentence},” she said.' if i % 4 == 0 else f'{sentence}.'
                size += f.write((sentence + (end if i % 5 == 4 else ' ')).encode())


def draw_words(rng, words, frequencies):
    drawn = [words[i] for i in rng.choice(len(words), N_WORDS, p=frequencies)]
    for i in np.flatnonzero(rng.random(N_WORDS) < 0.01):
        drawn[i] += words[rng.integers(len(words))]
    return drawn


def measure(path, vocab, folder):
    prepare([path], folder, folder, 0, vocab)
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f'          peak memory {ours:,.0f} MB, of a worker {workers:,.0f} MB', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--vocab', required=True, help="folder with OpenAI's two vocabulary files")
    parser.add_argument(
        '--mb', type=float, nargs='+', default=[10, 100], help='sizes of the texts in megabytes'
    )
    args = parser.parse_args()
    ids = read_vocabulary(vocabulary_files(args.vocab)[0])
    symbols = [symbol for symbol in sorted(ids, key=ids.get) if symbol.endswith('</w>')]
    words = [symbol.removesuffix('</w>') for symbol in symbols]
    words = [word for word in words if word.isalpha()]
    for megabytes in args.mb:
        for lines, end in (('many lines', '\n'), ('one line', ' ')):
            print(f'{megabytes:g} MB, {lines}', flush=True)
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, 'text.txt')
                write_text(path, megabytes, words, end)
                process = multiprocessing.get_context('spawn').Process(
                    target=measure, args=(path, args.vocab, folder)
                )
                process.start()
                process.join()


if __name__ == '__main__':
    main()
