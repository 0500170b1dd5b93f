"""Write weights of the published shape with random content.

    python benchmarks/make_shards.py --vocab FOLDER --out FOLDER

They serve to try and time the programs at full size without OpenAI's weights. `--vocab` is a folder
with OpenAI's vocabulary, `encoder_bpe_40000.json` and `vocab_40000.bpe`. The vocabulary,
`params_shapes.json` and ten float32 shards (466 MB) are written to `--out`.
"""

import argparse
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import torch

from gpt1.weights.openai import save_openai_shards
from model_pytorch import Config, LMModel, init_weights
from text_utils import TextEncoder

VOCABULARY = ('encoder_bpe_40000.json', 'vocab_40000.bpe')


@torch.no_grad()
def make_shards(vocab: str, out: str, seed: int = 0) -> int:
    """Write the files of a model folder to `out`. Returns the number of parameters written."""
    os.makedirs(out, exist_ok=True)
    paths = [shutil.copy(os.path.join(vocab, name), out) for name in VOCABULARY]
    torch.manual_seed(seed)
    model = LMModel(Config(n_vocab=TextEncoder(*paths).n_vocab))
    init_weights(model)
    for p in model.parameters():
        if p.dim() == 1:  # so that no bias is 0 and no gain is 1
            p.add_(0.02 * torch.randn(p.shape))
    save_openai_shards(model, out)
    return sum(p.numel() for p in model.parameters()) - 3 * model.config.n_embd  # special tokens


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--vocab', required=True, help="folder with OpenAI's vocabulary")
    parser.add_argument('--out', required=True, help='folder to write to')
    args = parser.parse_args()
    print(f'{make_shards(args.vocab, args.out):,} parameters in {args.out}')


if __name__ == '__main__':
    main()
