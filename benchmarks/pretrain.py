"""How many times faster is pre-training than what one would otherwise write?

    python benchmarks/pretrain.py                              # both sizes, all variants
    python benchmarks/pretrain.py --sizes small --variants 'dropout fp32'
    python benchmarks/pretrain.py --profile 'ours dropout fp32'

On the same windows of made-up text (random words and weights) it times whole updates, forward,
backward, clipping and Adam, of this project, of `nanogpt` and of `transformers`, if that is
installed, with dropout and without (`exact`), in fp32 and with autocast in bf16; see others.py.
How they take turns is said in measuring.py. This project tells glibc to keep freed memory, as
pretrain.py does; the others do so with --keep_freed_memory.

The floor has half of attention's products, since a token sees half of the others on average.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import measuring
from benchmarks.measuring import Product, training_products
from benchmarks.others import PRE_TRAINING_LR, HuggingFaceWindows, NanoGPTWindows
from gpt1.ops.batches import collate_windows
from gpt1.ops.masks import DropoutMasks
from gpt1.run.parallel import to_device
from model_pytorch import Config, LMModel


class Size(NamedTuple):
    """A model, and how many windows of n_ctx tokens an update has."""

    n_layer: int
    n_embd: int
    n_head: int
    n_ctx: int
    n_windows: int
    n_vocab: int = 40478


SIZES = {
    'small': Size(n_layer=6, n_embd=384, n_head=6, n_ctx=256, n_windows=8),
    'full': Size(n_layer=12, n_embd=768, n_head=12, n_ctx=512, n_windows=2),
    'tiny': Size(n_layer=2, n_embd=32, n_head=2, n_ctx=32, n_windows=2, n_vocab=300),
}


class Ours(measuring.Ours):
    """The update of pretrain.py."""

    def __init__(self, config, device, precision):
        super().__init__(LMModel, config, device, precision, PRE_TRAINING_LR)

    def losses(self, windows):
        """Return the loss of each window."""
        with self.autocast():
            return self.batch_losses(windows)

    def batch_losses(self, windows):
        batch = to_device(collate_windows(windows, self.config.first_position), self.device)
        batch.masks = DropoutMasks(int(windows[0, 0]))
        return self.model(batch)


IMPLEMENTATIONS = {'ours': Ours, 'nanogpt': NanoGPTWindows, 'transformers': HuggingFaceWindows}
VARIANTS = [
    f'{implementation} {dropout} {precision}'
    for dropout in ('dropout', 'exact')
    for precision in ('fp32', 'bf16')
    for implementation in IMPLEMENTATIONS
]


def without_dropout(config: Config) -> Config:
    return replace(config, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)


class PreTraining(measuring.Task):
    """Updates with windows, [windows, n_ctx]."""

    def make(self, names):
        variants = {}
        for name in names:
            implementation, dropout, precision = name.split()
            config = without_dropout(self.config) if dropout == 'exact' else self.config
            variants[name] = IMPLEMENTATIONS[implementation](config, self.device, precision)
        return variants

    def products(self, name, kind, item):
        config, (n_windows, length) = self.config, item.shape
        n_predictions = n_windows * (length - 1)
        products = training_products(item.size, n_predictions, config, self.device)
        # Forward: q k and a v. Backward: two of each kind. Half of the scores are needed.
        n_attention = 3 * config.n_layer / 2
        size, heads = config.n_embd // config.n_head, n_windows * config.n_head
        products.append(Product(length, size, length, n_attention, heads))
        products.append(Product(length, length, size, n_attention, heads))
        return products

    def size(self, item):
        return item.size

    def group(self, name):
        return name.partition(' ')[2]  # dropout and precision: the memory holds no more at a time


def make_task(size: Size, device: torch.device, n_updates: int) -> PreTraining:
    """Return updates with windows of random words."""
    n_layer, n_embd, n_head, n_ctx, n_windows, n_vocab = size
    config = Config(n_vocab=n_vocab, n_ctx=n_ctx, n_embd=n_embd, n_head=n_head, n_layer=n_layer)
    random = np.random.RandomState(0)
    windows = [random.randint(0, n_vocab, (n_windows, n_ctx)) for _ in range(n_updates)]
    return PreTraining(config, device, windows)


def main(argv: list[str] | None = None) -> None:
    parser = measuring.make_parser(__doc__, VARIANTS)
    parser.add_argument('--sizes', nargs='+', choices=list(SIZES), default=['small', 'full'])
    parser.add_argument('--n_windows', type=int, help='windows an update (default: by the size)')
    args = parser.parse_args(argv)
    tasks = {}
    for name in args.sizes:
        size = SIZES[name]
        size = size._replace(n_windows=args.n_windows or size.n_windows)
        tasks[f'{name}: {size}'] = make_task(size, torch.device(args.device), args.steps)
    measuring.report(args, VARIANTS, tasks)


if __name__ == '__main__':
    main()
