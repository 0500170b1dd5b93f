"""The joint loss of fine-tuning (paper, section 3.2): the task's loss and the LM loss."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from gpt1.ops.batches import Batch


def task_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Return the task's loss of each example: [examples].

    logits [examples, n]. The target is one of
        int64 [examples]     the right class or choice: cross-entropy
        float [examples, n]  a probability for each class: cross-entropy
        float [examples]     a real number, n is 1: squared error
    """
    if target.dim() == 1 and target.is_floating_point():
        return (logits.squeeze(1) - target) ** 2
    return F.cross_entropy(logits, target, reduction='none')


class JointLoss(nn.Module):
    """A `DoubleHeadModel` together with the loss that fine-tuning minimizes.

    The loss of an update is the mean over its examples. A device computes it within `forward` and
    returns one number an example; the LM logits never leave it. `lm_coef` 0 leaves out the LM loss.
    """

    def __init__(self, model: nn.Module, lm_coef: float):
        super().__init__()
        self.model = model
        self.lm_coef = lm_coef

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of each example, [examples]. The LM loss is the mean over sequences."""
        logits, lm_losses = self.model(batch, lm=self.lm_coef > 0)
        losses = task_losses(logits, batch.target)
        if lm_losses is None:
            return losses
        n_sequences = batch.clf.shape[1] if batch.n_choices is None else batch.n_choices
        lm_losses = torch.zeros_like(losses).index_add(0, batch.row_example, lm_losses)
        return losses + self.lm_coef * lm_losses / n_sequences
