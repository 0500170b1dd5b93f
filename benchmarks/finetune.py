"""How many times faster is fine-tuning than what one would otherwise run?

    python benchmarks/finetune.py                    # full size, all variants
    python benchmarks/finetune.py --variants fp32    # those with "fp32" in their names

On the same batches of made-up stories (lengths as in ROCStories, random weights), it times
training steps (dropout on) and prediction steps of this project, with separate and shared rows in
fp32 and bf16, of `padded` and of `transformers`, if that is installed; see others.py. How they take
turns is said in measuring.py. On a GPU, it measures all of them in every precision.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import measuring
from benchmarks.others import FINE_TUNING_LR, LM_COEF, HuggingFaceStories, PaddedStories
from gpt1.ops.batches import Tree, collate
from gpt1.ops.masks import DropoutMasks
from gpt1.run.parallel import to_device
from loss import JointLoss
from model_pytorch import Config, DoubleHeadModel

VARIANTS = [
    f'{implementation} {precision}'
    for precision in ('fp32', 'tf32', 'bf16', 'fp16')
    for implementation in ('separate', 'shared', 'padded', 'transformers')
]
OTHERS = {'padded': PaddedStories, 'transformers': HuggingFaceStories}


def make_stories(n: int, config: Config, random: np.random.RandomState) -> tuple[list, np.ndarray]:
    """Trees of random words, and labels: 41 +- 7 tokens, endings 9 +- 3, none longer than n_ctx."""
    start, delimiter, classify = range(config.n_vocab, config.first_position)

    def words(mean, deviation, most):
        size = min(max(1, round(random.normal(mean, deviation))), most)
        return random.randint(1, config.n_vocab, size=size)

    trees = []
    for _ in range(n):
        story = words(41, 7, config.n_ctx - 23)
        room = config.n_ctx - len(story) - 3
        branches = tuple(np.array([*words(9, 3, room), classify]) for _ in range(2))
        trees.append(Tree(np.array([start, *story, delimiter]), branches))
    return trees, random.randint(2, size=n)


class Ours(measuring.Ours):
    """The steps of train.py."""

    def __init__(self, config, device, precision, share_context, twin=None):
        super().__init__(DoubleHeadModel, config, device, precision, FINE_TUNING_LR, twin)
        self.share_context = share_context

    def batch(self, stories, share_context):
        trees, labels = stories
        batch = collate(trees, self.config.first_position, share_context, labels)
        return to_device(batch, self.device)

    def losses(self, stories):
        """Return the classification losses, and the sums of the LM losses: [2, stories]."""
        batch = self.batch(stories, self.share_context)
        with self.autocast():
            logits, lm_losses = self.model(batch)
        clf_losses = F.cross_entropy(logits, batch.target, reduction='none')
        return torch.stack([clf_losses, lm_losses.view(len(clf_losses), -1).sum(1)])

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

    def size(self, item):
        return len(item[0])


def make_task(config: Config, device: torch.device, n_batch: int, n_steps: int) -> FineTuning:
    """Return steps with stories of random words."""
    seeds = map(np.random.RandomState, range(n_steps))
    return FineTuning(config, device, [make_stories(n_batch, config, seed) for seed in seeds])


def main(argv: list[str] | None = None) -> None:
    parser = measuring.make_parser(__doc__)
    sizes = {'n_batch': 8, 'n_layer': 12, 'n_vocab': 40478, 'n_embd': 768, 'n_head': 12}
    for name, default in sizes.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args(argv)
    config = Config(args.n_vocab, 77, args.n_embd, args.n_head, args.n_layer)
    task = make_task(config, args.device, args.n_batch, args.steps)
    title = f'{args.n_batch} stories a step'
    if args.device.type == 'cuda':
        for i in range(0, len(VARIANTS), 4):  # a precision after another
            measuring.report(args, title, task, VARIANTS[i : i + 4])
    else:  # the others were written for fp32
        measuring.report(args, title, task, [*VARIANTS[:4], *VARIANTS[8:10]])


if __name__ == '__main__':
    main()
