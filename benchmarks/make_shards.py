"""Write weights of the published shape with random content, for trying and timing the program at full size without OpenAI's files.

    python benchmarks/make_shards.py --vocab FOLDER --out FOLDER

`--vocab` holds OpenAI's `encoder_bpe_40000.json` and `vocab_40000.bpe`. Writes them, `params_shapes.json` and ten float32 shards (466 MB).
"""

import argparse
import json
import math
import os
import shutil

import numpy as np

VOCABULARY = ('encoder_bpe_40000.json', 'vocab_40000.bpe')


def make_shards(vocab, out, n_layer=12, n_embd=768, n_positions=512, seed=0):
    """Write the files of a model folder to `out`. Returns the number of floats."""
    os.makedirs(out, exist_ok=True)
    for name in VOCABULARY:
        shutil.copyfile(os.path.join(vocab, name), os.path.join(out, name))
    with open(os.path.join(vocab, VOCABULARY[0]), encoding='utf-8') as f:
        n_vocab = len(json.load(f))
    n = n_embd
    layer = [
        [1, n, 3 * n],
        [3 * n],
        [1, n, n],
        [n],
        [n],
        [n],
        [1, n, 4 * n],
        [4 * n],
        [1, 4 * n, n],
        [n],
        [n],
        [n],
    ]
    gains = (
        4,
        10,
    )  # of the layer norms: they stay near 1, so that the activations are those of a trained model in size
    shapes = [[n_positions, n], [n_vocab, n]] + layer * n_layer
    with open(os.path.join(out, 'params_shapes.json'), 'w', encoding='utf-8') as f:
        json.dump(shapes, f)
    random = np.random.default_rng(seed)
    floats = np.concatenate(
        [
            0.02 * random.standard_normal(math.prod(shape), dtype=np.float32)
            + (i >= 2 and (i - 2) % 12 in gains)
            for i, shape in enumerate(shapes)
        ]
    )
    for i, shard in enumerate(np.array_split(floats, 10)):
        np.save(os.path.join(out, f'params_{i}.npy'), shard)
    return len(floats)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--vocab', required=True, help="folder with OpenAI's vocabulary")
    parser.add_argument('--out', required=True, help='folder to write to')
    args = parser.parse_args()
    print(f'{make_shards(args.vocab, args.out):,} floats in {args.out}')
