"""Matrix products, dropout, attention and the embedding: the results of PyTorch's own functions, sooner and with fewer passes over memory.

A training step on a CPU is matrix products, which cannot be avoided, and passes over large arrays, which often can: the embedding alone has 31 million
entries, and each pass over them takes about as long as the products of half a layer.
"""
import math
import platform

import numpy as np
import torch
from torch.autograd.function import once_differentiable


def is_amd():
    """Whether the processor is one of AMD's."""
    try:
        with open('/proc/cpuinfo', encoding='ascii', errors='replace') as f:
            return 'AuthenticAMD' in f.read(4096)
    except OSError:  # not Linux
        return 'AuthenticAMD' in platform.processor()


# PyTorch takes fp32 products to Intel's MKL, which does not use AMD's AVX-512; oneDNN, which PyTorch has for bf16, is up to twice as fast there.
ONEDNN = torch.backends.mkldnn.is_available() and is_amd() and hasattr(torch.ops.mkldnn, '_linear_pointwise')


def onednn_takes(x, w):
    """Whether x @ w is to be left to oneDNN: not if it is small, since that takes half a millisecond to prepare for each new shape."""
    return ONEDNN and len(x) * w.numel() >= 1 << 24 and x.dtype == torch.float32 and x.device.type == 'cpu' and not torch.is_autocast_enabled('cpu')


def product(a, b, bias=None, out=None):
    """a @ b of matrices, or a @ b + bias, put into `out` if it is given. For where no gradient is recorded: in a Function, or in prediction."""
    if not onednn_takes(a, b):
        return torch.mm(a, b, out=out) if bias is None else torch.addmm(bias, a, b, out=out)
    if not (b.is_contiguous() or b.t().is_contiguous()):
        b = b.contiguous()  # oneDNN takes a thousand times as long with part of a matrix
    if out is None:
        return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, 'none', [], '')
    for some, part in zip(a.split(1 << 12), out.split(1 << 12)):  # it cannot write to `out`: a block of rows is made beside it, not all
        part.copy_(torch.ops.mkldnn._linear_pointwise(some, b.t(), bias, 'none', [], ''))
    return out


class _Linear(torch.autograd.Function):
    """See `linear`."""

    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return product(x, w, b)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return product(grad, w.t()), product(x.t(), grad), grad.sum(0)


def linear(x, w, b):
    """x w + b: x [tokens, nx], w [nx, nf], b [nf]."""
    return _Linear.apply(x, w, b) if onednn_takes(x, w) else torch.addmm(b, x, w)


def dropout_mask(shape, p):
    """A bool tensor on the CPU, True with probability 1 - p, to within 1 / 65536.

    16 random bits are enough for an entry, and NumPy draws 64 in a third of the time of PyTorch: a multiple faster than F.dropout. The seed comes
    from PyTorch's generator, so that its state, which checkpoints keep, decides all.
    """
    n = shape.numel()
    words = np.random.SFC64(torch.empty((), dtype=torch.int64).random_().item()).random_raw((n + 3) // 4)
    return (torch.from_numpy(words.view(np.int16))[:n] >= round(p * 65536) - 32768).view(shape)


def full_precision(x):
    """bf16 -> fp32: sums over many terms, and what is logged, do not go through bf16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def packed(keep):
    """A mask, bool [..., n], as uint8 [..., n / 8]: a bit an entry."""
    return torch.from_numpy(np.packbits(keep.numpy(), axis=-1))


def unpacked(bits, n):
    """The mask [..., n] that was `packed`."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1, count=n)).view(torch.bool)


def drop(x, p):
    """On the CPU: x with its entries zero with probability p and else scaled by 1 / (1 - p), and the mask of those kept, flat and `packed`."""
    keep = dropout_mask(x.shape, p)
    return (x * keep).mul_(1 / (1 - p)), packed(keep.flatten())


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p):
        dropped, bits = drop(x, p)
        ctx.save_for_backward(bits)
        ctx.p = p
        return dropped

    @staticmethod
    def backward(ctx, grad):
        bits, = ctx.saved_tensors
        return (grad * unpacked(bits, grad.numel()).view(grad.shape)).mul_(1 / (1 - ctx.p)), None


def dropout(x, p, training):
    """F.dropout, with a cheaper mask on the CPU."""
    if not training or p == 0:
        return x
    return torch.nn.functional.dropout(x, p) if x.is_cuda else _Dropout.apply(x, p)


class _Padded(torch.autograd.Function):
    """See `padded`. `index_copy` would keep x for the gradient."""

    @staticmethod
    def forward(ctx, x, slots, n_slots):
        ctx.save_for_backward(slots)
        return x.new_zeros(n_slots, x.shape[1]).index_copy_(0, slots, x)

    @staticmethod
    def backward(ctx, grad):
        slots, = ctx.saved_tensors
        return grad[slots], None, None


def padded(x, batch, n_head, n):
    """x [tokens, n * n_embd], packed, to n tensors [rows, heads, length, n_embd / heads]; the padding is 0."""
    return _Padded.apply(x, batch.slots, batch.rows * batch.length).view(batch.rows, batch.length, n, n_head, -1).permute(2, 0, 3, 1, 4)


class _DroppedAttention(torch.autograd.Function):
    """See `dropped_attention`. What is kept for the gradient is packed, and padded again when it is needed."""

    @staticmethod
    def forward(ctx, qkv, batch, mask, n_head, p):
        q, k, v = padded(qkv, batch, n_head, 3)
        scores = (q @ k.transpose(2, 3)).mul_(q.shape[-1] ** -0.5)
        scores.add_(torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -math.inf))
        a = full_precision(scores).softmax(3)
        dropped, bits = drop(a, p)
        ctx.save_for_backward(qkv, a.to(qkv.dtype), bits)
        ctx.batch, ctx.p = batch, p
        return (dropped.to(v.dtype) @ v).transpose(1, 2).reshape(-1, qkv.shape[1] // 3)[batch.slots]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, a, bits = ctx.saved_tensors
        a, keep = full_precision(a), unpacked(bits, a.numel()).view(a.shape)
        scale, n_head = 1 / (1 - ctx.p), a.shape[1]
        q, k, v = padded(qkv, ctx.batch, n_head, 3)
        grad, = padded(grad, ctx.batch, n_head, 1)
        d_v = (a * keep).mul_(scale).to(grad.dtype).transpose(2, 3) @ grad
        d_a = (grad @ v.transpose(2, 3)).to(a.dtype).mul_(keep).mul_(scale).mul_(a)
        d_scores = d_a.addcmul_(a, d_a.sum(3, keepdim=True), value=-1).mul_(q.shape[-1] ** -0.5).to(q.dtype)
        d_qkv = torch.stack([d_scores @ k, d_scores.transpose(2, 3) @ q, d_v])  # [3, rows, heads, length, n_embd / heads]
        return d_qkv.permute(1, 3, 0, 2, 4).reshape(-1, qkv.shape[1])[ctx.batch.slots], None, None, None, None


def dropped_attention(qkv, batch, mask, n_head, p):
    """Attention on the CPU with dropout p on the probabilities: F.scaled_dot_product_attention's own way there is a third slower, and keeps them twice.

    qkv [tokens, 3 * n_embd], packed as `batch` says; `mask`, bool, tells what is seen; None: all that came before. Returns [tokens, n_embd].
    """
    if mask is None:
        mask = torch.ones(batch.length, batch.length, dtype=torch.bool).tril_()
    return _DroppedAttention.apply(qkv, batch, mask, n_head, p)


class _ActivatedLinear(torch.autograd.Function):
    """See `activated_linear`."""

    @staticmethod
    def forward(ctx, x, w, b, act):
        ctx.save_for_backward(x, w)
        ctx.act, ctx.b_dtype = act, b.dtype
        return product(act(x), w, b)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            a = ctx.act(x)
        grad_w = product(a.detach().t(), grad)
        grad_x, = torch.autograd.grad(a, x, product(grad, w.t()))
        return grad_x, grad_w, grad.sum(0, dtype=ctx.b_dtype), None


def activated_linear(x, w, b, act):
    """act(x) w + b, where act(x), four times as wide as the states, is not kept for the gradient but computed again."""
    # Autocast would cast w once here and once more for the gradient.
    return _ActivatedLinear.apply(x, w.to(x.dtype), b, act) if torch.is_grad_enabled() else product(act(x), w, b)


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
            we, bits = torch.empty_like(weight, dtype=dtype), []
            for some, out in zip(*_blocks(weight, we)):
                kept = dropout_mask(some.shape, p)
                out.copy_((some * kept).mul_(1 / (1 - p)))
                bits.append(packed(kept))
            keep = torch.cat(bits)
        if we.dtype == weight.dtype:
            h = we[ids] + we[positions]
        else:
            h = sum(weight[index] * _mask(keep[index], weight) for index in (ids, positions)).mul_(1 / (1 - p))
        ctx.save_for_backward(ids, positions, keep)
        ctx.p, ctx.weight = p, weight.detach()
        return h, we

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h, grad_we):
        ids, positions, keep = ctx.saved_tensors
        weight, scale = ctx.weight, 1 / (1 - ctx.p)
        if grad_we is None:
            grad = torch.zeros_like(weight)
        elif keep is None:
            grad = grad_we.to(weight.dtype)
        else:
            grad = grad_we if grad_we.dtype == weight.dtype else torch.empty_like(weight)
            for out, some, kept in zip(*_blocks(grad, grad_we, keep)):
                (out if out is some else out.copy_(some)).mul_(_mask(kept, out)).mul_(scale)
        for index in ids, positions:
            values = grad_h if keep is None else grad_h * _mask(keep[index], weight) * scale
            if grad.is_cuda:
                grad.index_put_((index,), values, accumulate=True)
            else:
                grad.index_add_(0, index, values)  # where an index comes twice, index_put_ adds in an order that changes from run to run
        return grad, None, None, None, None


def _mask(keep, like):
    """A mask that may be `packed`, as bool."""
    return keep if keep.dtype == torch.bool else unpacked(keep, like.shape[-1])


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
