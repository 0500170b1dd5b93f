"""The joint language-model + classification loss of fine-tuning (paper, section 3.2)."""
import torch
import torch.nn.functional as F


def language_model_losses(h, we, batch):
    """LM loss of each row: the weighted cross-entropy of every token, given the state of its parent.

    h [tokens, n_embd] states, we [rows of the embedding, n_embd] the (dropped) embedding matrix: the logits are over all its rows.
    Returns [rows].
    """
    logits = h[batch.lm_parent] @ we.t()  # [predictions, rows of the embedding]
    losses = F.cross_entropy(logits.float(), batch.lm_target, reduction='none') * batch.lm_weight
    return torch.zeros(batch.rows, dtype=losses.dtype, device=losses.device).index_add(0, batch.lm_row, losses)


class MultipleChoiceLossCompute:
    """loss = mean over stories of the classification cross-entropy + lm_coef * mean over sequences of the LM loss.

    Means over the *global* batch of `n_stories`, of which a call may see a part: the parts' losses, and gradients, add up to the whole.
    """

    def __init__(self, lm_coef):
        self.lm_coef = lm_coef

    def __call__(self, clf_losses, lm_losses, n_stories):
        """clf_losses [stories], lm_losses [rows], or None where lm_coef is 0. Returns a scalar."""
        loss = clf_losses.sum() / n_stories
        if self.lm_coef:
            loss = loss + self.lm_coef * lm_losses.sum() / (2 * n_stories)  # two sequences a story, however they are laid out
        return loss
