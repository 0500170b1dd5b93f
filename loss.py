"""The joint language-model + classification loss of fine-tuning (paper, section 3.2)."""
import torch
import torch.nn.functional as F


def language_model_losses(h, we, batch):
    """LM loss of each row: the weighted cross-entropy of every token, given the state of its parent.

    h [tokens, n_embd] states, we [rows of the embedding, n_embd] the (dropped) embedding matrix: the logits are over all its rows.
    Returns [rows].
    """
    logits = h[batch.lm_parent] @ we.t()  # [predictions, rows of the embedding]
    losses = F.cross_entropy(full_precision(logits), batch.lm_target, reduction='none')
    losses = losses * batch.lm_weight.to(losses.dtype)
    return losses.new_zeros(batch.rows).index_add(0, batch.lm_row, losses)


def full_precision(x):
    """bf16 -> fp32: sums over many terms, and what is logged, do not go through bf16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class MultipleChoiceLossCompute:
    """The loss of each story: the classifier's cross-entropy + lm_coef * the mean LM loss of its two sequences.

    The loss of an update is the mean of these over its global batch; whoever cuts the batch into parts adds them up.
    """

    def __init__(self, lm_coef):
        self.lm_coef = lm_coef

    def __call__(self, logits, label, lm_losses):
        """logits [stories, 2], label [stories], lm_losses [rows] (one or two rows a story), or None where lm_coef is 0. Returns [stories]."""
        losses = F.cross_entropy(logits, label, reduction='none')
        if self.lm_coef:
            losses = losses + self.lm_coef * lm_losses.view(len(losses), -1).sum(1) / 2
        return losses
