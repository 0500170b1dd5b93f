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
from benchmarks.others import FINE_TUNING_LR, LM_COEF, Stories
from gpt1.ops.batches import build_tree, collate
from gpt1.ops.masks import DropoutMasks
from gpt1.run.parallel import to_device
from loss import JointLoss
from model_pytorch import Config, DoubleHeadModel


def make_stories(n: int, config: Config, random: np.random.RandomState) -> tuple[list, np.ndarray]:
    """Trees of random words, and labels: 41 +- 7 tokens, endings 9 +- 3, none longer than n_ctx."""
    trees, most = [], [config.n_ctx - 23, 20, 20]
    for _ in range(n):
        lengths = np.rint(random.normal([41, 9, 9], [7, 3, 3])).clip(1, most).astype(int)
        texts = [random.randint(1, config.n_vocab, size=length) for length in lengths]
        trees.append(build_tree(texts, 'choices', 1, config.n_vocab))
    return trees, random.randint(2, size=n)


class Ours(measuring.Ours):
    """The steps of train.py, with separate rows, or with `share_context` shared ones."""

    kind, lr = DoubleHeadModel, FINE_TUNING_LR
    share_context = False

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

    def train_losses(self, stories):
        batch = self.batch(stories, self.share_context)
        batch.masks = DropoutMasks(int(torch.randint(2**63 - 1, ())))
        with self.autocast():
            return JointLoss(self.model, LM_COEF)(batch)

    @torch.inference_mode()
    def predict(self, stories):
        self.model.eval()
        batch = self.batch(stories, share_context=True)
        with self.autocast():
            return self.model(batch, lm=False)[0]


def make(name: str, config: Config, device: torch.device) -> Ours | Stories:
    implementation, precision = name.split()
    if implementation in measuring.OTHERS:
        return Stories(implementation, config, device, precision)
    ours = Ours(config, device, precision)
    ours.share_context = implementation == 'shared'
    return ours


def make_task(config: Config, device: torch.device, n_batch: int, n: int) -> measuring.Task:
    """Return n steps with stories of random words."""
    seeds = map(np.random.RandomState, range(n))
    stories = [make_stories(n_batch, config, seed) for seed in seeds]
    return measuring.Task(make, config, device, stories, n_batch, 'stories', ('train', 'predict'))


def main(argv: list[str] | None = None) -> None:
    parser = measuring.make_parser(__doc__)
    sizes = {'n_batch': 8, 'n_layer': 12, 'n_vocab': 40478, 'n_embd': 768, 'n_head': 12}
    for name, default in sizes.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args(argv)
    on_gpu = args.device.type == 'cuda'
    config = Config(args.n_vocab, 77, args.n_embd, args.n_head, args.n_layer)
    task = make_task(config, args.device, args.n_batch, args.steps)
    for precision in ('fp32', 'tf32', 'bf16', 'fp16') if on_gpu else ('fp32', 'bf16'):
        names = ['separate', 'shared']
        if on_gpu or precision == 'fp32':  # what the others were written for
            names += ['padded', 'transformers']
        variants = [f'{name} {precision}' for name in names]
        measuring.report(args, f'{args.n_batch} stories a step', task, variants)


if __name__ == '__main__':
    main()
