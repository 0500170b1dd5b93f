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

    There is one array of the logits' size (8 stories: 34 million entries): the gradient takes the logits' place. Both ways go over it a few predictions at
    a time, so that on a CPU all passes but the first find them in the cache.
    """

    @staticmethod
    def forward(ctx, h, we, target, take_we):
        dtype = torch.get_autocast_dtype(h.device.type) if torch.is_autocast_enabled(h.device.type) else h.dtype
        ctx.dtypes, ctx.take_we = (h.dtype, we.dtype), take_we and we.dtype == dtype
        h, we = h.to(dtype), we.to(dtype)
        logits = product(h, we.t())
        ctx.save_for_backward(h, we, target)
        ctx.logits = logits  # nobody else's, so it may be overwritten
        return torch.cat([F.cross_entropy(full_precision(some), t, reduction='none') for some, t in zip(*_few_at_a_time(logits, target))])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        h, we, target = ctx.saved_tensors
        d_logits, ctx.logits = product(h, we.t()) if ctx.logits is None else ctx.logits, None  # None: with retain_graph, backward a second time
        for some, t, g in zip(*_few_at_a_time(d_logits, target, grad)):
            p = full_precision(some).softmax(1)
            p[torch.arange(len(t), device=t.device), t] -= 1
            some.copy_(p.mul_(g[:, None]))
        d_h = product(d_logits, we).to(ctx.dtypes[0])
        d_we = product(d_logits.t(), h, out=we.detach() if ctx.take_we else None)  # a second time through, autograd sees that `we` has changed
        return d_h, d_we.to(ctx.dtypes[1]), None, None


def _few_at_a_time(*tensors):
    return [tensor.split(1 << 10 if tensor.is_cuda else 32) for tensor in tensors]


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
