"""Measure how fast text is turned into token ids, compared with the original's way.

    python benchmarks/encode.py --data_dir data/sample --model_dir model/sample

The original's way: all of each text goes through ftfy, the patterns and the tokenizer, and the byte
pairs of each token are kept in a dict. Both ways encode all texts of both Story Cloze files, each
with an empty cache, in turns. The ids must be the same. Times are those of the processor.
"""

import argparse
import csv
import os
import re
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import ftfy

from gpt1.tasks.rocstories import find_csv
from text_utils import TextEncoder, english_tokenizer

MARKS = re.compile(r"""(-+|~+|!+|"+|;+|\?+|\++|,+|\)+|\(+|/+|\*+|\[+|\]+|}+|{+|\|+|_+)""")
NAMES = ('encoder_bpe_40000.json', 'vocab_40000.bpe')


class OriginalEncoder:
    """Encodes text as OpenAI's program does, step by step."""

    def __init__(self, encoder: dict[str, int], bpe_ranks: dict[tuple[str, str], int]):
        self.encoder = encoder
        self.bpe_ranks = bpe_ranks
        self.cache = {}
        self.tokenizer = english_tokenizer()

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode(self, text: str) -> list[int]:
        text = ftfy.fix_text(text)
        for mark, plain in (('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'")):
            text = text.replace(mark, plain)
        text = MARKS.sub(r' \1 ', text)
        text = re.sub(r'\s*\n\s*', ' \n ', text)
        text = re.sub(r'[^\S\n]+', ' ', text).strip()
        ids = []
        for word in text.split(' '):
            for token in self.tokenizer(word):
                ids += [self.encoder.get(symbol, 0) for symbol in self.bpe(token.lower())]
        return ids

    def bpe(self, token: str) -> list[str]:
        if token in self.cache:
            return self.cache[token]
        symbols = [*token[:-1], token[-1] + '</w>']
        while len(symbols) > 1:
            pairs = set(zip(symbols, symbols[1:]))
            best = min(pairs, key=lambda pair: self.bpe_ranks.get(pair, float('inf')))
            if best not in self.bpe_ranks:
                break
            merged = []
            i = 0
            while i < len(symbols):
                n = 2 if tuple(symbols[i : i + 2]) == best else 1
                merged.append(''.join(symbols[i : i + n]))
                i += n
            symbols = merged
        self.cache[token] = symbols
        return symbols


def read_texts(data_dir: str) -> list[str]:
    """All texts of both Story Cloze files: each story, and each ending."""
    texts = []
    for which in ('val', 'test'):
        with open(find_csv(data_dir, which), encoding='utf-8', newline='') as f:
            for row in csv.DictReader(f):
                texts.append(' '.join(row[f'InputSentence{i}'] for i in range(1, 5)))
                texts.append(row['RandomFifthSentenceQuiz1'])
                texts.append(row['RandomFifthSentenceQuiz2'])
    return texts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--data_dir', default='data/', help='folder of the two Story Cloze files')
    parser.add_argument('--model_dir', default='model/', help=f'folder of {" and ".join(NAMES)}')
    parser.add_argument('--turns', type=int, default=5, help='number of measurements')
    args = parser.parse_args(argv)

    texts = read_texts(args.data_dir)
    paths = [os.path.join(args.model_dir, name) for name in NAMES]
    seconds = {'ours': [], 'original': []}
    ids = {}
    for _ in range(args.turns):
        ours = TextEncoder(*paths)
        original = OriginalEncoder(ours.encoder, ours.bpe_ranks)
        for name, encoder in (('ours', ours), ('original', original)):
            encoder.encode('A first sentence: it’s for what is loaded when it is first used.')
            start = time.process_time()
            ids[name] = encoder.encode_all(texts)
            seconds[name].append(time.process_time() - start)
    if ids['ours'] != ids['original']:
        sys.exit('encode.py: the ids differ')

    n_ids = sum(map(len, ids['ours']))
    print(f'{len(texts):,} texts, {n_ids:,} token ids, the same in both ways')
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f'{name:8} {median:6.2f} s (median; {min(values):.2f} to {max(values):.2f} s)')
    ratio = statistics.median(b / a for a, b in zip(seconds['ours'], seconds['original']))
    print(f'ratio    {ratio:6.2f}')


if __name__ == '__main__':
    main()
