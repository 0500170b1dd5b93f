"""How fast is a text of any size encoded for pre-training, and does memory grow with it?

    python benchmarks/encode_corpus.py --vocab FOLDER --mb 50 300

`--vocab` holds OpenAI's vocabulary (`python download.py` fetches it). Of its words it makes texts of these sizes: common and rare ones as in English (Zipf's
law), one in a hundred put together from two so that new ones never end, curly quotes, sentences and paragraphs. One is in many lines, the same again in one.
Each is encoded in a process of its own; printed are the rate and the peak memory of that process and of the largest of its workers.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from corpus import prepare, vocabulary_files
from text_utils import read_vocabulary


def write_text(path, megabytes, words, end, seed=0):
    """Sentences of 5 to 24 words; `end` follows each paragraph."""
    rng = np.random.default_rng(seed)
    probabilities = 1 / (np.arange(len(words)) + 2.7)
    probabilities /= probabilities.sum()
    size = 0
    with open(path, 'wb') as f:
        while size < megabytes * 1e6:
            some, other = (rng.choice(len(words), 100_000, p=p) for p in (probabilities, None))
            drawn = [
                words[i] if rare > 0.01 else words[i] + words[j]
                for i, j, rare in zip(some, other, rng.random(len(some)))
            ]
            stops = np.cumsum(rng.integers(5, 25, 6000))
            sentences = [
                ' '.join(drawn[start:stop]).capitalize()
                for start, stop in zip([0, *stops], stops)
                if stop <= len(drawn)
            ]
            told = [
                f'“{sentence},” she said.' if i % 4 == 0 else f'{sentence}.'
                for i, sentence in enumerate(sentences)
            ]
            size += f.write(
                ''.join(
                    sentence + (end if i % 5 == 0 else ' ') for i, sentence in enumerate(told)
                ).encode()
            )


def measure(path, vocab, folder):
    prepare([path], folder, folder, 0, vocab)
    ours, workers = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f'          peak memory {ours:,.0f} MB, of a worker {workers:,.0f} MB', flush=True)


def main():
    parser = argparse.ArgumentParser(
        description='Rate and memory of encoding text to pre-train on.'
    )
    parser.add_argument(
        '--vocab',
        required=True,
        help="folder with OpenAI's encoder_bpe_40000.json and vocab_40000.bpe",
    )
    parser.add_argument(
        '--mb', type=float, nargs='+', default=[10, 100], help='sizes of the texts, in megabytes'
    )
    args = parser.parse_args()
    symbols = read_vocabulary(vocabulary_files(args.vocab)[0])
    words = [
        s.removesuffix('</w>')
        for s in sorted(symbols, key=symbols.get)
        if s.endswith('</w>') and s.removesuffix('</w>').isalpha()
    ]
    for megabytes in args.mb:
        for lines, end in ('many lines', '\n'), ('one line', ' '):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, 'text.txt')
                write_text(path, megabytes, words, end)
                print(f'{megabytes:g} MB, {lines}', flush=True)
                process = multiprocessing.get_context('spawn').Process(
                    target=measure, args=(path, args.vocab, folder)
                )
                process.start()
                process.join()


if __name__ == '__main__':
    main()
