"""Dropout and the embedding: the results of PyTorch's own functions, with fewer passes over memory.

A training step on a CPU is matrix products, which cannot be avoided, and passes over large arrays, which often can: the embedding alone has 31 million
entries, and each pass over them takes about as long as the products of half a layer.
"""
import math

import torch
from torch.autograd.function import once_differentiable


def dropout_mask(shape, p):
    """A bool tensor on the CPU, True with probability 1 - p, to within 1 / 65536.

    PyTorch's generator gives 64 random bits at the price of one number, and 16 are enough for one entry: a multiple faster than F.dropout.
    """
    n = shape.numel()
    bits = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-1 << 63, None).view(torch.int16)[:n]
    return (bits >= round(p * 65536) - 32768).view(shape)


def drop(x, p):
    """x with its entries zero with probability p and else scaled by 1 / (1 - p), and the mask of those kept."""
    if x.is_cuda:
        return torch.native_dropout(x, p, True)
    keep = dropout_mask(x.shape, p)
    return (x * keep).mul_(1 / (1 - p)), keep


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p):
        dropped, keep = drop(x, p)
        ctx.save_for_backward(keep)
        ctx.p = p
        return dropped

    @staticmethod
    def backward(ctx, grad):
        keep, = ctx.saved_tensors
        return (grad * keep).mul_(1 / (1 - ctx.p)), None


def dropout(x, p, training):
    """F.dropout, with a cheaper mask on the CPU."""
    if not training or p == 0:
        return x
    return torch.nn.functional.dropout(x, p) if x.is_cuda else _Dropout.apply(x, p)


class _DroppedAttention(torch.autograd.Function):
    """See `dropped_attention`."""

    @staticmethod
    def forward(ctx, q, k, v, mask, p):
        scores = (q @ k.transpose(2, 3)).mul_(q.shape[-1] ** -0.5)
        scores.add_(torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -math.inf))
        a = scores.softmax(3, dtype=torch.promote_types(scores.dtype, torch.float32))
        dropped, keep = drop(a, p)
        ctx.save_for_backward(q, k, v, a, keep)
        ctx.p = p
        return dropped.to(v.dtype) @ v

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, a, keep = ctx.saved_tensors
        scale = 1 / (1 - ctx.p)
        d_v = (a * keep).mul_(scale).to(grad.dtype).transpose(2, 3) @ grad
        d_a = (grad @ v.transpose(2, 3)).to(a.dtype).mul_(keep).mul_(scale).mul_(a)
        d_scores = d_a.addcmul_(a, d_a.sum(3, keepdim=True), value=-1).mul_(q.shape[-1] ** -0.5).to(q.dtype)
        return d_scores @ k, d_scores.transpose(2, 3) @ q, d_v, None, None


def dropped_attention(q, k, v, mask, p):
    """F.scaled_dot_product_attention on the CPU with dropout p: its own way there is a third slower, and keeps the probabilities twice.

    q, k, v [rows, heads, length, n_embd / heads]; `mask`, bool, tells what is seen.
    """
    return _DroppedAttention.apply(q, k, v, mask, p)


class _ActivatedLinear(torch.autograd.Function):
    """See `activated_linear`."""

    @staticmethod
    def forward(ctx, x, w, b, act):
        ctx.save_for_backward(x, w)
        ctx.act, ctx.b_dtype = act, b.dtype
        return torch.addmm(b, act(x), w)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            a = ctx.act(x)
        grad_w = (a.detach().t() @ grad).to(w.dtype)
        grad_x, = torch.autograd.grad(a, x, grad @ w.to(grad.dtype).t())
        return grad_x, grad_w, grad.sum(0, dtype=ctx.b_dtype), None


def activated_linear(x, w, b, act):
    """act(x) w + b, where act(x), four times as wide as the states, is not kept for the gradient but computed again."""
    return _ActivatedLinear.apply(x, w, b, act) if torch.is_grad_enabled() else torch.addmm(b, act(x), w)


class _Embed(torch.autograd.Function):
    """See `embed`. Both uses of the matrix are one function, so that its gradient is one array: filled by the language-model head, then added to."""

    @staticmethod
    def forward(ctx, weight, ids, positions, p, dtype):
        ctx.set_materialize_grads(False)
        if p == 0:
            we, keep = weight.detach(), None
        elif weight.is_cuda:
            we, keep = torch.native_dropout(weight, p, True)
        else:
            we, keep = torch.empty_like(weight, dtype=dtype), torch.empty_like(weight, dtype=torch.bool)
            for some, kept, out in zip(*_blocks(weight, keep, we)):
                kept.copy_(dropout_mask(some.shape, p))
                out.copy_((some * kept).mul_(1 / (1 - p)))
        if we.dtype == weight.dtype:
            h = we[ids] + we[positions]
        else:
            h = (weight[ids] * keep[ids] + weight[positions] * keep[positions]).mul_(1 / (1 - p))
        ctx.save_for_backward(ids, positions, keep)
        ctx.p, ctx.weight = p, weight.detach()
        return h, we

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h, grad_we):
        ids, positions, keep = ctx.saved_tensors
        grad = torch.zeros_like(ctx.weight) if grad_we is None else grad_we.to(ctx.weight.dtype)
        for index in ids, positions:
            if grad.is_cuda:
                grad.index_put_((index,), grad_h, accumulate=True)
            else:
                grad.index_add_(0, index, grad_h)  # where an index comes twice, index_put_ adds in an order that changes from run to run
        if keep is not None:
            for some, kept in zip(*_blocks(grad, keep)):
                some.mul_(kept).mul_(1 / (1 - ctx.p))
        return grad, None, None, None, None


def _blocks(*matrices):
    """Matrices of one shape, in blocks of rows that stay in a CPU's cache from one operation to the next."""
    rows = len(matrices[0]) if matrices[0].is_cuda else max(1, (1 << 20) // matrices[0].shape[1])
    return [matrix.split(rows) for matrix in matrices]


def embed(weight, ids, positions, p, training):
    """The embedding matrix as a batch uses it, and what it looks up there (paper, section 3.1).

    weight [rows, n_embd]; ids and positions [tokens]. In training, dropout falls on the matrix: one mask for the whole batch. Returns the states
    h [tokens, n_embd] and the matrix, which under autocast comes in its type, for the language-model head to use: its gradient is taken over, not copied.
    """
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return _Embed.apply(weight, ids, positions, p if training else 0, dtype)
