"""How many times faster is fine-tuning than what one would otherwise run?

    python benchmarks/finetune.py                    # full size, all variants
    python benchmarks/finetune.py --variants fp32    # those with "fp32" in their names
    python benchmarks/finetune.py --profile 'shared bf16'    # where the time of a variant goes

On the same batches of made-up stories (lengths as in ROCStories, random weights), it times
training steps (dropout on) and prediction steps of this project, with separate and shared rows in
fp32 and bf16, of `padded` and of `transformers`, if that is installed; see others.py. How they take
turns is said in measuring.py. This project tells glibc to keep freed memory, as train.py does; the
others do so with --keep_freed_memory.

Attention's own products (1 %) are left out of the floor. Before the timing, the others do one step,
this project one step with each batch: a batch of a new size costs it more than the next one of that
size, and a run has few sizes.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import measuring
from benchmarks.measuring import Product, training_products
from benchmarks.others import FINE_TUNING_LR, LM_COEF, HuggingFaceStories, PaddedStories
from gpt1.ops.batches import Batch, Tree, collate
from gpt1.ops.masks import DropoutMasks
from gpt1.run.parallel import to_device
from loss import JointLoss
from model_pytorch import Config, DoubleHeadModel

VARIANTS = (
    'separate fp32',
    'shared fp32',
    'separate bf16',
    'shared bf16',
    'padded fp32',
    'transformers fp32',
)
OTHERS = {'padded': PaddedStories, 'transformers': HuggingFaceStories}


class Story(NamedTuple):
    """The sequences of a story as token ids, and its label."""

    trunk: np.ndarray
    branches: tuple[np.ndarray, ...]
    label: int


def make_stories(n: int, config: Config, random_state: np.random.RandomState) -> list[Story]:
    """Stories of random words: 41 +- 7 tokens, endings 9 +- 3, no sequence longer than n_ctx."""
    start, delimiter, classify = range(config.n_vocab, config.first_position)

    def words(mean, deviation, most):
        size = min(max(1, round(random_state.normal(mean, deviation))), most)
        return random_state.randint(1, config.n_vocab, size=size)

    stories = []
    for _ in range(n):
        story = words(41, 7, config.n_ctx - 23)
        room = config.n_ctx - len(story) - 3
        branches = tuple(np.array([*words(9, 3, room), classify]) for _ in range(2))
        trunk = np.array([start, *story, delimiter])
        stories.append(Story(trunk, branches, random_state.randint(2)))
    return stories


def lay_out(stories: list[Story], config: Config, share_context: bool) -> Batch:
    """Return a batch of stories."""
    labels = np.array([story.label for story in stories])
    trees = [Tree(story.trunk, story.branches) for story in stories]
    return collate(trees, config.first_position, share_context, labels)


class Ours(measuring.Ours):
    """The steps of train.py."""

    def __init__(self, config, device, precision, share_context, twin=None):
        super().__init__(DoubleHeadModel, config, device, precision, FINE_TUNING_LR, twin)
        self.share_context = share_context

    def batch(self, stories, share_context):
        return to_device(lay_out(stories, self.config, share_context), self.device)

    def losses(self, stories):
        """The classification losses [stories], and the LM losses of both sequences [stories]."""
        batch = self.batch(stories, self.share_context)
        with self.autocast():
            logits, lm_losses = self.model(batch)
        clf_losses = F.cross_entropy(logits, batch.target, reduction='none')
        return clf_losses, lm_losses.view(len(stories), -1).sum(1)

    def batch_losses(self, stories):
        batch = self.batch(stories, self.share_context)
        batch.masks = DropoutMasks(int(torch.randint(2**63 - 1, ())))
        return JointLoss(self.model, LM_COEF)(batch)

    @torch.inference_mode()
    def predict(self, stories):
        self.model.eval()
        batch = self.batch(stories, share_context=True)
        with self.autocast():
            return self.model(batch, lm=False)[0]


class FineTuning(measuring.Task):
    """Steps with batches of stories."""

    kinds = ('train', 'predict')
    unit = 'stories'

    def make(self, names):
        variants = {}
        for name in names:
            implementation, precision = name.split()
            if implementation in OTHERS:
                variants[name] = OTHERS[implementation](self.config, self.device, precision)
                continue
            share_context = implementation == 'shared'
            twin = next(iter(variants.values()), None)
            variants[name] = Ours(self.config, self.device, precision, share_context, twin)
        return variants

    def products(self, name, kind, item):
        config, n = self.config, self.config.n_embd
        batch = lay_out(item, config, kind == 'predict' or name.startswith('shared'))
        # Without the tokens that rounding up adds: all but the first of a row are predicted.
        n_predictions = int(batch.lm_weight.count_nonzero())
        n_tokens = n_predictions + batch.rows
        if kind == 'train':
            return training_products(n_tokens, n_predictions, config, self.device)
        # Of the last layer: all keys and values, and the rest for the `_classify_` tokens alone
        layer = [(n, 3 * n), (n, n), (n, 4 * n), (4 * n, n)]
        last = [(n, n), (n, n), (n, 4 * n), (4 * n, n)]
        products = [Product(n_tokens, *shape, config.n_layer - 1) for shape in layer]
        products.append(Product(n_tokens, n, 2 * n, 1))
        return products + [Product(2 * len(item), *shape, 1) for shape in last]

    def size(self, item):
        return len(item)

    def implementation(self, name):
        first = name.split()[0]
        return first if first in OTHERS else 'ours'

    def n_warm_up(self, name):
        return len(self.items) if self.implementation(name) == 'ours' else 1


def make_task(config: Config, device: torch.device, n_batch: int, n_steps: int) -> FineTuning:
    """Return steps with stories of random words."""
    seeds = map(np.random.RandomState, range(n_steps))
    return FineTuning(config, device, [make_stories(n_batch, config, seed) for seed in seeds])


def main(argv: list[str] | None = None) -> None:
    parser = measuring.make_parser(__doc__, VARIANTS)
    parser.add_argument('--n_batch', type=int, default=8, help='stories a step')
    parser.add_argument('--n_layer', type=int, default=12)
    parser.add_argument('--n_vocab', type=int, default=40478)
    parser.add_argument('--n_embd', type=int, default=768)
    parser.add_argument('--n_head', type=int, default=12)
    args = parser.parse_args(argv)
    config = Config(
        n_vocab=args.n_vocab, n_ctx=77, n_embd=args.n_embd, n_head=args.n_head, n_layer=args.n_layer
    )
    task = make_task(config, torch.device(args.device), args.n_batch, args.steps)
    measuring.report(args, VARIANTS, {f'{args.n_batch} stories a step': task})


if __name__ == '__main__':
    main()
