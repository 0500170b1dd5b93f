"""The embedding matrix, which embeds the tokens and is the LM head: tied (paper, section 3.1).

Both uses add to one gradient, which is as large as the matrix: 31 million entries at full size.
With dropout it takes over the memory of the matrix after dropout: see `TiedEmbedding`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt1.ops.functional import compute_dtype, full_precision, path, product, select
from gpt1.ops.masks import drop, unpack


def plain_cross_entropy(h: Tensor, we: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of softmax(h we^T) at each target: [predictions]."""
    return F.cross_entropy(full_precision(h @ we.t()), target, reduction='none')


class TiedEmbedding:
    """The embedding matrix as one batch uses it: to embed the tokens and, tied, in the LM head.

    `h` [tokens, n_embd] are the states, `matrix` [rows, n_embd] is the matrix after dropout. If it
    is a private copy, the gradient is written over it. Three rules make that safe:

    1. Only this object holds the copy, and it lives for one batch.
    2. `cross_entropy` is called at most once. Its backward pass, the last reader of the copy,
       writes the gradient of the copy over it.
    3. The backward pass of the look-up runs after it. It applies the dropout mask to that array,
       adds the gradient of the embedded tokens and returns the array as the weight's gradient.
    """

    def __init__(self, h: Tensor, matrix: Tensor, is_private: bool = False):
        self.h, self.matrix, self.is_private = h, matrix, is_private

    def cross_entropy(self, h: Tensor, target: Tensor) -> Tensor:
        """`plain_cross_entropy` with the matrix of this batch: [predictions]."""
        if path(h) == 'plain':
            return plain_cross_entropy(h, self.matrix, target)
        return _TiedCrossEntropy.apply(h, self.matrix, target, self.is_private)


def embed(weight: Tensor, ids: Tensor, positions: Tensor, p: float, masks) -> TiedEmbedding:
    """Embed tokens and positions, [tokens] each, which are rows of weight [rows, n_embd].

    Dropout acts on the *matrix*: one mask for the whole batch, seen by both uses of it.
    """
    p = 0 if masks is None else p
    if path(weight) != 'plain':
        h, we = _Embed.apply(weight, ids, positions, p, masks, compute_dtype(weight))
        return TiedEmbedding(h, we, is_private=p > 0)
    we = weight
    if p > 0:
        keep = unpack(masks.keep('embd', tuple(weight.shape), p), weight.shape[1])
        we = weight * keep.to(weight.device) / (1 - p)
    return TiedEmbedding(select(we, ids) + select(we, positions), we)


class _Embed(torch.autograd.Function):
    """See `embed`. Returns the states and the matrix, in `dtype` if there is dropout."""

    @staticmethod
    def forward(ctx, weight, ids, positions, p, masks, dtype):
        ctx.set_materialize_grads(False)
        ctx.weight, ctx.p, ctx.buffer = weight.detach(), p, None
        keep = None
        if p == 0:
            we = weight.detach()
        elif path(weight) == 'cuda':
            we, keep = torch.native_dropout(weight, p, True)
        else:
            keep = masks.keep('embd', tuple(weight.shape), p)  # packed
            # `buffer` will hold the float32 gradient. Until then it holds the matrix; a matrix in
            # bfloat16 takes the second half of it.
            ctx.buffer = torch.empty_like(weight)
            we = ctx.buffer.flatten().view(dtype)[-weight.numel() :].view(weight.shape)
            for block, bits, out in zip(*_row_blocks(weight, keep, we)):
                out.copy_(drop(block, _unpacked(bits, block), p))
        ctx.save_for_backward(ids, positions, keep)
        if we.dtype == weight.dtype:
            return we[ids] + we[positions], we
        h = sum(weight[index] * _unpacked(keep[index], weight) for index in (ids, positions))
        return h.mul_(1 / (1 - p)), we

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h, grad_we):
        ids, positions, keep = ctx.saved_tensors
        scale = 1 / (1 - ctx.p)
        if grad_we is None:  # the LM head was not used
            grad = torch.zeros_like(ctx.weight)
        elif keep is None:
            grad = grad_we.to(ctx.weight.dtype)
        else:
            grad = _masked_gradient(grad_we, keep, scale, ctx.weight, ctx.buffer)
        for index in (ids, positions):
            rows = grad_h
            if keep is not None:
                rows = grad_h * _unpacked(keep[index], ctx.weight) * scale
            if grad.is_cuda:
                grad.index_put_((index,), rows, accumulate=True)
            else:
                # index_put_ adds the rows of one index in an order that changes from run to run.
                grad.index_add_(0, index, rows)
        ctx.buffer = None
        return grad, None, None, None, None, None


def _masked_gradient(grad_we, keep, scale, weight, buffer):
    """Return the weight's gradient, given that of the matrix after dropout; in place if it can."""
    grad = grad_we
    if grad_we.dtype != weight.dtype:
        grad = torch.empty_like(weight) if buffer is None else buffer
    # From the front: a block of `buffer` is written after the bfloat16 block in it has been read.
    for out, block, bits in zip(*_row_blocks(grad, grad_we, keep)):
        block = block.to(weight.dtype).mul_(_unpacked(bits, out)).mul_(scale)
        if grad is not grad_we:
            out.copy_(block)
    return grad


def _unpacked(keep, like):
    """Return a mask with one entry for each column of `like`. CUDA's masks are bool already."""
    return keep if keep.dtype == torch.bool else unpack(keep, like.shape[-1])


def _row_blocks(*matrices):
    """Split matrices with the same number of rows into blocks that fit a CPU's cache."""
    rows, columns = matrices[0].shape
    size = rows if path(matrices[0]) == 'cuda' else max(1, (1 << 20) // columns)
    return [matrix.split(size) for matrix in matrices]


class _TiedCrossEntropy(torch.autograd.Function):
    """`plain_cross_entropy` in blocks of the matrix's rows.

    All logits (8 stories: 34 million entries) are kept once, and their gradient never: that of a
    block takes its place, in a CPU's cache.
    """

    @staticmethod
    def forward(ctx, h, we, target, is_private):
        dtype = compute_dtype(h)
        ctx.dtypes = h.dtype, we.dtype
        ctx.overwrites_we = is_private and we.dtype == dtype
        h, we = h.to(dtype), we.to(dtype)
        ctx.blocks, logsumexp, at_target = [], [], 0
        for rows, column, inside in _vocabulary_blocks(we, target):
            logits = product(h, rows.t())
            ctx.blocks.append(logits)
            z = full_precision(logits)
            at_column = z.gather(1, column)
            at_target = at_target + at_column * inside
            # This takes half the time of z.logsumexp(1).
            logsumexp.append(at_column - z.log_softmax(1).gather(1, column))
        logsumexp = torch.stack(logsumexp)  # [blocks, predictions, 1]
        total = logsumexp.logsumexp(0)
        share = (logsumexp - total).exp()  # of the probability, in each block
        ctx.save_for_backward(h, we, target, share)
        return (total - at_target).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        if ctx.blocks is None:
            raise RuntimeError('the LM loss frees its logits in backward(): call it only once')
        h, we, target, share = ctx.saved_tensors
        blocks, ctx.blocks = ctx.blocks, None
        grad = grad.to(share.dtype)[:, None]
        d_h = torch.zeros_like(h, dtype=share.dtype)
        d_we = we.detach() if ctx.overwrites_we else torch.empty_like(we)
        d_rows = d_we.split(blocks[0].shape[1])
        for i, (rows, column, inside) in enumerate(_vocabulary_blocks(we, target)):
            logits, blocks[i] = blocks[i], None
            d_logits = full_precision(logits).softmax(1).mul_(share[i] * grad)
            logits = d_logits.scatter_add_(1, column, inside * -grad).to(logits.dtype)
            d_h += product(logits, rows)
            product(logits.t(), h, out=d_rows[i])
        return d_h.to(ctx.dtypes[0]), d_we.to(ctx.dtypes[1]), None, None


def _vocabulary_blocks(we, target):
    """Yield blocks of rows of `we`, each with the column of every target and whether it is there.

    column and inside are [predictions, 1]; a target outside the block has any column.
    """
    size = 1 << 13 if path(we) == 'cuda' else 1 << 10
    for i, rows in enumerate(we.split(size)):
        column = target[:, None] - i * size
        inside = column.clamp(0, len(rows) - 1)
        yield rows, inside, column == inside
