"""The joint language-model + classification loss of fine-tuning (paper, section 3.2)."""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from functional import full_precision, product


def language_model_losses(h, we, batch, take_we=False):
    """LM loss of each row: the weighted cross-entropy of every token, given the state of its parent.

    h [tokens, n_embd] states, we [rows of the embedding, n_embd] the (dropped) embedding matrix: the logits are over all its rows.
    `take_we`: the gradient of `we` may take its place, since nobody reads it afterwards. Returns [rows].
    """
    losses = _TiedCrossEntropy.apply(h[batch.lm_parent], we, batch.lm_target, take_we)
    losses = losses * batch.lm_weight.to(losses.dtype)
    return losses.new_zeros(batch.rows).index_add(0, batch.lm_row, losses)


class _TiedCrossEntropy(torch.autograd.Function):
    """h [predictions, n_embd], we [rows, n_embd], target [predictions] -> the cross-entropy of softmax(h we^T) at each target, [predictions].

    Of the logits' size (8 stories: 34 million entries) there is one array, for the gradient takes the logits' place. It is in blocks, each the logits over
    some rows of `we`: so a CPU finds a block in its cache for all that is done to it, and needs no large piece of memory.
    """

    @staticmethod
    def forward(ctx, h, we, target, take_we):
        dtype = (
            torch.get_autocast_dtype(h.device.type)
            if torch.is_autocast_enabled(h.device.type)
            else h.dtype
        )
        ctx.dtypes, ctx.take_we = (h.dtype, we.dtype), take_we and we.dtype == dtype
        h, we = h.to(dtype), we.to(dtype)
        ctx.blocks, logsumexp, at_target = [], [], 0
        for some, column, here in _blocks(we, target):
            logits = product(h, some.t())
            ctx.blocks.append(logits)  # nobody else's, so it may be overwritten
            z = full_precision(logits)
            at_column = z.gather(1, column)
            at_target = at_target + at_column * here
            logsumexp.append(
                at_column - z.log_softmax(1).gather(1, column)
            )  # in half the time of z.logsumexp(1)
        logsumexp = torch.stack(logsumexp)  # [blocks, predictions, 1]
        total = logsumexp.logsumexp(0)
        ctx.save_for_backward(h, we, target, (logsumexp - total).exp())
        return (total - at_target).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        h, we, target, share = (
            ctx.saved_tensors
        )  # share: of a prediction's probability, in each block
        blocks, ctx.blocks = ctx.blocks, []
        grad = grad.to(share.dtype)[:, None]
        d_h, d_we = (
            torch.zeros_like(h, dtype=share.dtype),
            we.detach() if ctx.take_we else torch.empty_like(we),
        )
        for i, ((some, column, here), d_some) in enumerate(
            zip(_blocks(we, target), d_we.split(_rows(we)))
        ):
            logits = (
                blocks[i] if blocks else product(h, some.t())
            )  # none are left if, with retain_graph, this is the second time
            p = full_precision(logits).softmax(1).mul_(share[i] * grad)
            logits.copy_(p.scatter_add_(1, column, here * -grad))
            if blocks:
                blocks[i] = None
            d_h += product(logits, some)
            product(
                logits.t(), h, out=d_some
            )  # `some` may be this: autograd would see that `we` has changed
        return d_h.to(ctx.dtypes[0]), d_we.to(ctx.dtypes[1]), None, None


def _rows(we):
    return 1 << 13 if we.is_cuda else 1 << 10


def _blocks(we, target):
    """Yields some rows of `we`, for each target its column among them, or any, and whether it is among them: both [predictions, 1]."""
    for i, some in enumerate(we.split(_rows(we))):
        column = target[:, None] - i * _rows(we)
        inside = column.clamp(0, len(some) - 1)
        yield some, inside, column == inside


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
