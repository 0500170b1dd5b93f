"""Matrix products, dropout, attention and the embedding: the results of PyTorch's own functions, sooner and with fewer passes over memory.

A training step on a CPU is matrix products, which cannot be avoided, and passes over large arrays, which often can: the embedding alone has 31 million
entries, and each pass over them takes about as long as the products of half a layer.
"""

import functools
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
ONEDNN = (
    torch.backends.mkldnn.is_available()
    and is_amd()
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
)


def onednn_takes(x, w):
    """Whether x @ w is to be left to oneDNN: not if it is small, since that takes half a millisecond to prepare for each new shape."""
    return (
        ONEDNN
        and len(x) * w.numel() >= 1 << 24
        and x.dtype == torch.float32
        and x.device.type == 'cpu'
        and not torch.is_autocast_enabled('cpu')
    )


def product(a, b, bias=None, out=None):
    """a @ b of matrices, or a @ b + bias, put into `out` if it is given. For where no gradient is recorded: in a Function, or in prediction."""
    if not onednn_takes(a, b):
        return torch.mm(a, b, out=out) if bias is None else torch.addmm(bias, a, b, out=out)
    if not (b.is_contiguous() or b.t().is_contiguous()):
        b = b.contiguous()  # oneDNN takes a thousand times as long with part of a matrix
    c = torch.ops.mkldnn._linear_pointwise(
        a, b.t(), bias, 'none', [], ''
    )  # it cannot write to `out`
    return c if out is None else out.copy_(c)


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


@functools.lru_cache
def _masks_of_eight(p):
    """Each of the 256 masks of eight entries, as a byte, as many times as it comes among 65536, rounded down: uint8 [at most 65536].

    And, for what the rounding left of each, the cumulative probabilities [256].
    """
    kept = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)
    expected = (1 - p) ** kept * p ** (8 - kept) * 65536
    masks = np.arange(256, dtype=np.uint8).repeat(expected.astype(int))
    left = np.cumsum(expected - expected.astype(int))
    return masks, left / left[-1] if left[-1] > 0 else left


def dropout_mask(shape, p):
    """A mask of `shape` [..., n] on the CPU, a bit an entry, which is 1, to keep, with probability 1 - p: uint8 [..., n / 8, rounded up].

    Eight entries come at once out of a table, by 16 random bits, a multiple faster than F.dropout; the few numbers past the table's end (for p = 0.1, one in
    650) draw from what the table had to leave out. The seed comes from PyTorch's generator, so that its state, which checkpoints keep, decides all.
    """
    masks, left = _masks_of_eight(p)
    shape = (*shape[:-1], (shape[-1] + 7) // 8)
    n = math.prod(shape)
    random = np.random.Generator(
        np.random.SFC64(torch.empty((), dtype=torch.int64).random_().item())
    )
    numbers = random.integers(0, 1 << 64, (n + 3) // 4, dtype=np.uint64).view(np.uint16)[:n]
    past = np.flatnonzero(numbers >= len(masks))
    numbers = numbers.astype(np.int32)
    numbers[past] = 0
    bits = torch.from_numpy(masks).index_select(0, torch.from_numpy(numbers))
    bits[torch.from_numpy(past)] = torch.from_numpy(
        left.searchsorted(random.random(len(past)), side='right').astype(np.uint8)
    )
    return bits.view(shape)


def full_precision(x):
    """bf16 -> fp32: sums over many terms, and what is logged, do not go through bf16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unpacked(bits, n):
    """The mask [..., n] whose bits they are, uint8: PyTorch multiplies by that faster than by bool."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1, count=n))


def masked(x, bits, p):
    """On the CPU: x with the entries zero that the `dropout_mask` of its entries, flat, drops, and the others scaled by 1 / (1 - p)."""
    return (x * unpacked(bits, x.numel()).view(x.shape)).mul_(1 / (1 - p))


def drop(x, p):
    """Dropout on the CPU: x `masked`, and the mask, which keeps an entry with probability 1 - p."""
    bits = dropout_mask((x.numel(),), p)
    return masked(x, bits, p), bits


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p):
        dropped, bits = drop(x, p)
        ctx.save_for_backward(bits)
        ctx.p = p
        return dropped

    @staticmethod
    def backward(ctx, grad):
        (bits,) = ctx.saved_tensors
        return masked(grad, bits, ctx.p), None


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
        (slots,) = ctx.saved_tensors
        return grad.index_select(0, slots), None, None


def padded(x, batch, n_head, n):
    """x [tokens, n * n_embd], packed, to n tensors [rows, heads, length, n_embd / heads]; the padding is 0."""
    return (
        _Padded.apply(x, batch.slots, batch.rows * batch.length)
        .view(batch.rows, batch.length, n, n_head, -1)
        .permute(2, 0, 3, 1, 4)
    )


class _DroppedAttention(torch.autograd.Function):
    """See `dropped_attention`. What is kept for the gradient is packed, and padded again when it is needed."""

    @staticmethod
    def forward(ctx, qkv, batch, mask, n_head, p):
        size, ctx.p = qkv.shape[1] // n_head // 3, p
        ctx.token_of, ctx.place_of = head_places(batch, n_head)
        q, k, v = (
            qkv.view(-1, size)
            .index_select(0, ctx.token_of.flatten())
            .view(3, -1, batch.length, size)
        )  # each [rows * heads, length, size]
        scores = (q @ k.transpose(1, 2)).view(batch.rows, n_head, batch.length, -1)
        torch.add(
            torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -math.inf),
            scores,
            alpha=size**-0.5,
            out=scores,
        )
        a = full_precision(scores).softmax(3)  # [rows, heads, length, length]
        dropped, bits = drop(a, p)
        ctx.save_for_backward(qkv, a.to(qkv.dtype), bits)
        return (
            (dropped.to(v.dtype).flatten(0, 1) @ v)
            .view(-1, size)
            .index_select(0, ctx.place_of[0].flatten())
            .view(len(qkv), -1)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, a, bits = ctx.saved_tensors
        (rows, n_head, length, _), size = a.shape, qkv.shape[1] // a.shape[1] // 3
        q, k, v = (
            qkv.view(-1, size).index_select(0, ctx.token_of.flatten()).view(3, -1, length, size)
        )
        grad = (
            grad.new_zeros(rows * n_head * length, size)
            .index_copy_(0, ctx.place_of[0].flatten(), grad.reshape(-1, size))
            .view_as(q)
        )
        a = full_precision(a).flatten(0, 1)
        dropped = masked(a, bits, ctx.p)
        a_d_a = (grad @ v.transpose(1, 2)).to(a.dtype).mul_(dropped)
        d_scores = (
            a_d_a.addcmul_(a, a_d_a.sum(2, keepdim=True), value=-1).mul_(size**-0.5).to(q.dtype)
        )
        d_qkv = torch.empty(3, *q.shape, dtype=q.dtype)
        torch.bmm(d_scores, k, out=d_qkv[0])
        torch.bmm(d_scores.transpose(1, 2), q, out=d_qkv[1])
        torch.bmm(dropped.to(grad.dtype).transpose(1, 2), grad, out=d_qkv[2])
        return (
            d_qkv.view(-1, size)
            .index_select(0, ctx.place_of.transpose(0, 1).flatten())
            .view_as(qkv),
            None,
            None,
            None,
            None,
        )


def head_places(batch, n_head):
    """Where the queries, keys and values of each token and head stand in padded rows, and which stands there.

    token_of [3, rows, heads, length]: of each place in the padded rows, the number among [tokens, 3, heads] of what stands there; in the padding, where
    nothing is seen, any. place_of [3, tokens, heads]: the number among [3, rows, heads, length] of the place of each.
    """
    heads, three = torch.arange(n_head), torch.arange(3)
    token = torch.zeros(batch.rows * batch.length, dtype=torch.int64).index_copy_(
        0, batch.slots, torch.arange(len(batch.slots))
    )
    token_of = (
        token.view(batch.rows, 1, batch.length) * 3 + three.view(3, 1, 1, 1)
    ) * n_head + heads[:, None]
    row, place = batch.slots // batch.length, batch.slots % batch.length
    place_of = (
        (row[:, None] + three[:, None, None] * batch.rows) * n_head + heads
    ) * batch.length + place[:, None]
    return token_of, place_of


def dropped_attention(qkv, batch, mask, n_head, p):
    """Attention on the CPU with dropout p on the probabilities: F.scaled_dot_product_attention's own way there is a third slower, and keeps them twice.

    qkv [tokens, 3 * n_embd], packed as `batch` says; `mask`, bool, tells what is seen; None: all that came before. Returns [tokens, n_embd].
    """
    if mask is None:
        mask = torch.ones(batch.length, batch.length, dtype=torch.bool).tril_()
    return _DroppedAttention.apply(qkv, batch, mask, n_head, p)


SLOPE = math.sqrt(8 / math.pi)


class _Gelu(torch.autograd.Function):
    """See `gelu`."""

    @staticmethod
    def forward(ctx, x):
        s = torch.addcmul(x.new_tensor(SLOPE), x, x, value=0.044715 * SLOPE).mul_(x).sigmoid_()
        a = x * s
        ctx.save_for_backward(x, s, a)
        return a

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, s, a = ctx.saved_tensors
        # The derivative is s + x s' = s + t (1 - s), with t = x s (SLOPE + 3 * 0.044715 SLOPE x^2).
        t = torch.addcmul(x.new_tensor(SLOPE), x, x, value=3 * 0.044715 * SLOPE).mul_(a)
        return t.lerp_(t.new_ones(()), s).mul_(grad)


def gelu(x):
    """The original's: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, which is x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).

    On a CPU PyTorch's tanh takes nine times as long as its sigmoid. (In bf16 each of these steps would round.)
    """
    return (
        torch.nn.functional.gelu(x, approximate='tanh')
        if x.is_cuda or x.dtype == torch.bfloat16
        else _Gelu.apply(x)
    )


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
        (grad_x,) = torch.autograd.grad(a, x, product(grad, w.t()))
        return grad_x, grad_w, grad.sum(0, dtype=ctx.b_dtype), None


def activated_linear(x, w, b, act):
    """act(x) w + b, where act(x), four times as wide as the states, is not kept for the gradient but computed again."""
    # Autocast would cast w once here and once more for the gradient.
    return (
        _ActivatedLinear.apply(x, w.to(x.dtype), b, act)
        if torch.is_grad_enabled()
        else product(act(x), w, b)
    )


class _Embed(torch.autograd.Function):
    """See `embed`. Both uses of the matrix are one function, so that its gradient is one array: filled by the language-model head, then added to."""

    @staticmethod
    def forward(ctx, weight, ids, positions, p, dtype):
        ctx.set_materialize_grads(False)
        ctx.room = None
        if p == 0:
            we, keep = weight.detach(), None
        elif weight.is_cuda:
            we, keep = torch.native_dropout(weight, p, True)
        else:
            keep = dropout_mask(weight.shape, p)
            ctx.room = torch.empty_like(
                weight
            )  # for the gradient; until then it holds the matrix, one in bf16 in its second half
            we = ctx.room.flatten().view(dtype)[-weight.numel() :].view(weight.shape)
            for some, kept, out in zip(*_blocks(weight, keep, we)):
                out.copy_((some * _mask(kept, some)).mul_(1 / (1 - p)))
        if we.dtype == weight.dtype:
            h = we[ids] + we[positions]
        else:
            h = sum(weight[index] * _mask(keep[index], weight) for index in (ids, positions)).mul_(
                1 / (1 - p)
            )
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
            taken = grad_we.dtype == weight.dtype
            grad = grad_we if taken else torch.empty_like(weight) if ctx.room is None else ctx.room
            for out, some, kept in zip(
                *_blocks(grad, grad_we, keep)
            ):  # from the front on, so that no block is overwritten before its turn
                some = some.to(weight.dtype).mul_(_mask(kept, out)).mul_(scale)
                if not taken:
                    out.copy_(some)
        for index in ids, positions:
            values = grad_h if keep is None else grad_h * _mask(keep[index], weight) * scale
            if grad.is_cuda:
                grad.index_put_((index,), values, accumulate=True)
            else:
                grad.index_add_(
                    0, index, values
                )  # where an index comes twice, index_put_ adds in an order that changes from run to run
        ctx.room = None  # it is the caller's now
        return grad, None, None, None, None


def _mask(keep, like):
    """A mask for `like` that may be a bit an entry, an entry each."""
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
