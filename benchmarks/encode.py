"""How fast is text turned into token ids, against the plain way?

    python benchmarks/encode.py --data_dir data/sample --model_dir model/

The plain way is how the original works: every text through ftfy, the standardizing patterns and spaCy as a whole, the byte pairs of each token kept in a dict.
Both read all texts of both Story Cloze files, each with an empty cache, in turns; the ids must be the same. Times are those of the processor.
"""

import argparse
import os
import re
import statistics
import sys
import time

import ftfy
import spacy

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from datasets import find_csv, read_cloze_test
from text_utils import TextEncoder

MARKS = re.compile(r"""(-+|~+|!+|"+|;+|\?+|\++|,+|\)+|\(+|/+|\*+|\[+|\]+|}+|{+|\|+|_+)""")


class PlainEncoder:
    def __init__(self, encoder, bpe_ranks):
        self.encoder, self.bpe_ranks, self.cache = encoder, bpe_ranks, {}
        self.tokenizer = spacy.blank('en').tokenizer

    def bpe(self, token):
        if token in self.cache:
            return self.cache[token]
        symbols = [*token[:-1], token[-1] + '</w>']
        while len(symbols) > 1:
            best = min(
                set(zip(symbols, symbols[1:])),
                key=lambda pair: self.bpe_ranks.get(pair, float('inf')),
            )
            if best not in self.bpe_ranks:
                break
            merged, i = [], 0
            while i < len(symbols):
                n = 2 if (*symbols[i : i + 2],) == best else 1
                merged.append(''.join(symbols[i : i + n]))
                i += n
            symbols = merged
        symbols = ['\n</w>'] if symbols[0] == '\n' else symbols
        self.cache[token] = symbols
        return symbols

    def encode(self, text):
        text = ftfy.fix_text(text)
        for mark, plain in (('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'")):
            text = text.replace(mark, plain)
        text = re.sub(
            r'[^\S\n]+', ' ', re.sub(r'\s*\n\s*', ' \n ', MARKS.sub(r' \1 ', text))
        ).strip()
        return [
            self.encoder.get(symbol, 0)
            for token in self.tokenizer(text)
            for symbol in self.bpe(token.text.lower())
        ]


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--data_dir', default='data/')
    parser.add_argument(
        '--model_dir', default='model/', help='with encoder_bpe_40000.json and vocab_40000.bpe'
    )
    parser.add_argument('--turns', type=int, default=5)
    args = parser.parse_args(argv)
    texts = []
    for which in ('val', 'test'):
        stories = read_cloze_test(find_csv(args.data_dir, which), need_labels=False)
        texts += stories.story + stories.ending1 + stories.ending2
    paths = [
        os.path.join(args.model_dir, name) for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe')
    ]
    seconds = {'ours': [], 'plain': []}
    ids = {}
    for _ in range(args.turns):
        ours = TextEncoder(*paths)
        for name, encoder in (
            ('ours', ours),
            ('plain', PlainEncoder(ours.encoder, ours.bpe_ranks)),
        ):
            encoder.encode("A first sentence; it loads what is loaded when it's used.")
            start = time.process_time()
            ids[name] = (
                encoder.encode_all(texts)
                if name == 'ours'
                else [encoder.encode(text) for text in texts]
            )
            seconds[name].append(time.process_time() - start)
    if ids['ours'] != ids['plain']:
        sys.exit('encode.py: the ids differ')
    print(f'{len(texts):,} texts, {sum(map(len, ids["ours"])):,} token ids, all the same')
    for name, values in seconds.items():
        print(
            f'{name:6} {statistics.median(values):6.2f} s (median of {args.turns}; {min(values):.2f}-{max(values):.2f})'
        )
    print(
        f'ratio  {statistics.median(b / a for a, b in zip(seconds["ours"], seconds["plain"])):6.2f}'
    )


if __name__ == '__main__':
    main()
