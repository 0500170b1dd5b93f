"""How many times faster is pre-training than what one would otherwise write?

    python benchmarks/pretrain.py                              # both sizes, all variants
    python benchmarks/pretrain.py --sizes small --variants 'dropout fp32'

On the same windows of made-up text (random words and weights) it times whole updates, forward,
backward, clipping and Adam, of this project, of `nanogpt` and of `transformers`, if that is
installed, with dropout and without (`exact`), in fp32 and with autocast in bf16; see others.py.
How they take turns is said in measuring.py.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

from dataclasses import replace

import numpy as np
import torch

from benchmarks import measuring
from benchmarks.others import PRE_TRAINING_LR, Windows
from gpt1.ops.batches import collate_windows
from gpt1.ops.masks import DropoutMasks
from gpt1.run.parallel import to_device
from model_pytorch import Config, LMModel

N_WINDOWS = {'small': 8, 'full': 2, 'tiny': 2}  # of n_ctx tokens, in an update
SIZES = {
    'small': Config(n_ctx=256, n_embd=384, n_head=6, n_layer=6),
    'full': Config(),
    'tiny': Config(n_vocab=300, n_ctx=32, n_embd=32, n_head=2, n_layer=2),
}
GROUPS = [  # measured together: the memory holds no more at a time
    f'{dropout} {precision}' for dropout in ('dropout', 'exact') for precision in ('fp32', 'bf16')
]


class Ours(measuring.Ours):
    """The update of pretrain.py."""

    kind, lr = LMModel, PRE_TRAINING_LR

    def losses(self, windows):
        """Return the loss of each window."""
        with self.autocast():
            batch = to_device(collate_windows(windows, self.config.first_position), self.device)
            batch.masks = DropoutMasks(int(windows[0, 0]))
            return self.model(batch)


def without_dropout(config: Config) -> Config:
    return replace(config, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)


def make(name: str, config: Config, device: torch.device) -> Ours | Windows:
    implementation, dropout, precision = name.split()
    config = without_dropout(config) if dropout == 'exact' else config
    if implementation == 'ours':
        return Ours(config, device, precision)
    return Windows(implementation, config, device, precision)


def make_task(config: Config, device: torch.device, n_windows: int, n: int) -> measuring.Task:
    """Return n updates with windows of random words, [windows, n_ctx]."""
    random = np.random.RandomState(0)
    shape = n_windows, config.n_ctx
    windows = [random.randint(0, config.n_vocab, shape) for _ in range(n)]
    return measuring.Task(make, config, device, windows, windows[0].size)


def main(argv: list[str] | None = None) -> None:
    parser = measuring.make_parser(__doc__)
    parser.add_argument('--sizes', nargs='+', choices=list(SIZES), default=['small', 'full'])
    parser.add_argument('--n_windows', type=int, help='windows an update (default: by the size)')
    args = parser.parse_args(argv)
    for name in args.sizes:
        n_windows = args.n_windows or N_WINDOWS[name]
        task = make_task(SIZES[name], args.device, n_windows, args.steps)
        for group in GROUPS:
            variants = [f'{other} {group}' for other in ('ours', 'nanogpt', 'transformers')]
            measuring.report(args, f'{name}, {n_windows} windows an update', task, variants)


if __name__ == '__main__':
    main()
