"""The operations of the model, each in two forms: a plain one to read and a fast one to run.

The plain form stands first, where `path` is 'plain'; the tests compare values and gradients.
`path` decides which form runs, or else the environment, for instance
`GPT1_PATH=plain python train.py --dataset rocstories`:

    plain  the plain forms, on any device; slow, for reading and debugging
    cpu    fewer passes over memory and cheaper dropout masks than PyTorch's own functions
    cuda   PyTorch's fused kernels
"""

import functools
import math
import os
import platform
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt1.ops.masks import DropoutMasks, drop, flat_mask

PATHS = ('plain', 'cpu', 'cuda')


def path(x: Tensor) -> str:
    """Return which form of an operation runs on the tensor `x`: one of `PATHS`."""
    return os.environ.get('GPT1_PATH') or ('cuda' if x.is_cuda else 'cpu')


def full_precision(x: Tensor) -> Tensor:
    """Convert bfloat16 to float32. Sums over many terms and logged values do not use bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which products are computed: autocast's, or that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def select(x: Tensor, index: Tensor) -> Tensor:
    """Return the rows x[index], for index [n]. Their gradients add up in the same order every run.

    On a CPU, those of `x[index]` do not, and take several times as long; on a GPU, those of
    `index_select` do not.
    """
    return x[index] if x.is_cuda else x.index_select(0, index)


def amd_family(cpuinfo: str = '/proc/cpuinfo') -> int:
    """Return the family of this processor if it is made by AMD, else 0."""
    try:
        with open(cpuinfo, encoding='ascii', errors='replace') as f:
            text = f.read(4096)
    except OSError:  # not Linux
        text = platform.processor()
    family = re.search(r'family\s*:?\s*(\d+)', text, re.IGNORECASE)
    return int(family.group(1)) if family and 'AuthenticAMD' in text else 0


# PyTorch computes float32 products with Intel's MKL, which does not use AVX-512 on AMD's
# processors. oneDNN does: on Zen 5 it is twice as fast, on Zen 3 and 4 it is slower. The family
# decides: the noise of a measurement would change results from run to run.
ONEDNN = (
    torch.backends.mkldnn.is_available()
    and amd_family() >= 26  # Zen 5
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
)
ONEDNN_MIN_SIZE = 1 << 24  # multiply-adds; preparing a new shape costs oneDNN half a millisecond


def uses_onednn(x: Tensor, w: Tensor) -> bool:
    """Return whether oneDNN computes x w: a large float32 product on a CPU."""
    return (
        ONEDNN
        and x.dtype == torch.float32
        and x.device.type == 'cpu'
        and len(x) * w.numel() >= ONEDNN_MIN_SIZE
        and not torch.is_autocast_enabled('cpu')
    )


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Return a b, plus `bias` if given, by the faster library. Records no gradient.

    a [n, k], b [k, m], bias [m]; the result [n, m] is written to `out` if given.
    """
    if not uses_onednn(a, b):
        return torch.mm(a, b, out=out) if bias is None else torch.addmm(bias, a, b, out=out)
    if not (b.is_contiguous() or b.t().is_contiguous()):
        b = b.contiguous()  # oneDNN is a thousand times slower on a slice of a matrix
    result = torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, 'none', [], '')
    return result if out is None else out.copy_(result)


class _Linear(torch.autograd.Function):
    """act(x) w + b. It keeps x for the gradient and computes act(x) again."""

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


def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return x w + b for x [tokens, nx], w [nx, nf], b [nf], by the faster library."""
    if path(x) == 'plain':
        return x @ w + b
    if uses_onednn(x, w):
        return _Linear.apply(x, w, b, lambda x: x)
    return torch.addmm(b, x, w)


def gelu(x: Tensor) -> Tensor:
    """The original's gelu: the tanh form."""
    if path(x) == 'plain':
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return F.gelu(x, approximate='tanh')


def activated_linear(x: Tensor, w: Tensor, b: Tensor, act: Callable) -> Tensor:
    """Return act(x) w + b, the second half of the MLP, without keeping act(x)."""
    if path(x) == 'plain':
        return act(x) @ w + b
    if not torch.is_grad_enabled():
        return product(act(x), w.to(x.dtype), b.to(x.dtype))
    # Autocast would cast w here and once more for the gradient.
    return _Linear.apply(x, w.to(x.dtype), b, act)


class _Dropout(torch.autograd.Function):
    """Dropout on a CPU. It keeps one bit an entry for the gradient."""

    @staticmethod
    def forward(ctx, x, p, masks, kind):
        bits = masks.keep(kind, (x.numel(),), p)
        ctx.save_for_backward(bits)
        ctx.p = p
        return drop(x, flat_mask(bits, x.shape), p)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (bits,) = ctx.saved_tensors
        return drop(grad, flat_mask(bits, grad.shape), ctx.p), None, None, None


def dropout(x: Tensor, p: float, masks: DropoutMasks | None, kind: str = 'resid') -> Tensor:
    """Set entries of x to 0 with probability p and scale the others by 1 / (1 - p).

    Without masks, return x.
    """
    if p == 0 or masks is None:
        return x
    if path(x) == 'plain':
        keep = flat_mask(masks.keep(kind, (x.numel(),), p), x.shape)
        return x * keep.to(x.device) / (1 - p)
    if path(x) == 'cuda':
        return F.dropout(x, p)
    return _Dropout.apply(x, p, masks, kind)


class AttentionLayout:
    """Where the tokens of a `batches.Batch` stand in padded rows, and which tokens each one sees.

    In a shared row, token i sees token j <= i on the trunk (branch 0) or on its own branch.
    `visible` is bool [rows, 1, length, length], or None where a token sees every earlier one.
    """

    def __init__(self, batch, n_head: int):
        self.rows, self.length, self.slots = batch.rows, batch.length, batch.slots
        self.n_head = n_head
        self.visible, branch = None, batch.branch
        if branch is not None:  # [rows, length]
            visible = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
            self.visible = visible.tril_()[:, None]

    def mask(self) -> Tensor:
        """Return `visible`, spelled out also where a token sees every earlier one."""
        if self.visible is not None:
            return self.visible
        return self.slots.new_ones(self.length, self.length, dtype=torch.bool).tril_()

    @functools.cached_property
    def head_places(self) -> tuple[Tensor, Tensor]:
        """Return where the queries, keys and values of the heads stand in padded rows.

        token_of  [3, rows, heads, length] flat: for each place in the padded rows, the index into
                  [tokens, 3, heads] of what stands there; in the padding, any index
        place_of  [tokens, 3, heads]: the index into [3, rows, heads, length]
        """
        index = torch.arange(len(self.slots) * 3 * self.n_head)
        token_of = pad(index.view(len(self.slots), -1), self, 3)
        places = torch.arange(token_of.numel()).view(token_of.shape[:4]).permute(1, 3, 0, 2)
        return token_of.flatten(), places.flatten(0, 1)[self.slots]


def pad(x: Tensor, layout: AttentionLayout, n: int) -> tuple[Tensor, ...]:
    """Split x [tokens, n * n_embd] into n tensors [rows, heads, length, n_embd / heads].

    The padding is 0. It stands at the end of a row, so no token sees it.
    """
    padded = _Pad.apply(x, layout.slots, layout.rows * layout.length)
    return padded.view(layout.rows, layout.length, n, layout.n_head, -1).permute(2, 0, 3, 1, 4)


class _Pad(torch.autograd.Function):
    """Write the rows of x to their slots. `Tensor.index_copy` would keep x for the gradient."""

    @staticmethod
    def forward(ctx, x, slots, n_slots):
        ctx.save_for_backward(slots)
        return x.new_zeros(n_slots, x.shape[1]).index_copy_(0, slots, x)

    @staticmethod
    def backward(ctx, grad):
        (slots,) = ctx.saved_tensors
        return grad.index_select(0, slots), None, None


def unpad(a: Tensor, layout: AttentionLayout) -> Tensor:
    """Return a [rows, heads, length, size] packed as [tokens, heads * size]."""
    return select(a.transpose(1, 2).reshape(layout.rows * layout.length, -1), layout.slots)


def plain_attention(qkv: Tensor, layout: AttentionLayout, p: float, masks) -> Tensor:
    """Masked multi-head self-attention with dropout on the probabilities (paper, section 3.1).

    qkv [tokens, 3 * n_embd]: queries, keys and values. Returns [tokens, n_embd].
    """
    q, k, v = pad(qkv, layout, 3)  # each [rows, heads, length, size]
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    scores = scores.masked_fill(~layout.mask(), -math.inf)
    probabilities = dropout(full_precision(scores).softmax(3), p, masks, 'attn')
    return unpad(probabilities.to(v.dtype) @ v, layout)


def attention(qkv: Tensor, layout: AttentionLayout, p: float, masks) -> Tensor:
    """`plain_attention`, fast. PyTorch's own function is slow on a CPU if there is dropout."""
    p = 0 if masks is None else p
    if path(qkv) == 'plain':
        return plain_attention(qkv, layout, p, masks)
    if path(qkv) == 'cpu' and p > 0:
        return _DroppedAttention.apply(qkv, layout, p, masks)
    q, k, v = pad(qkv, layout, 3)
    a = F.scaled_dot_product_attention(q, k, v, layout.visible, p, layout.visible is None)
    return unpad(a, layout)


def attention_at(q: Tensor, kv: Tensor, layout: AttentionLayout, tokens: Tensor) -> Tensor:
    """`plain_attention` of the chosen tokens alone, without dropout.

    tokens [rows * n]: n tokens of every row, row by row. q [rows * n, n_embd] are their queries,
    kv [tokens of the batch, 2 * n_embd] all keys and values. Returns [rows * n, n_embd].
    """
    rows, length = layout.rows, layout.length
    k, v = pad(kv, layout, 2)
    q = q.view(rows, -1, layout.n_head, k.shape[3]).transpose(1, 2)
    place = (layout.slots[tokens] % length).view(rows, -1)
    row = torch.arange(rows, device=place.device)[:, None]
    visible = layout.mask().expand(rows, 1, length, length)
    visible = visible[row, :, place].transpose(1, 2)  # [rows, 1, n, length]
    a = F.scaled_dot_product_attention(q, k, v, visible)
    return a.transpose(1, 2).reshape(len(tokens), -1)


QUERIES = 128  # in a block, see `_attention_blocks`


class _DroppedAttention(torch.autograd.Function):
    """Attention on a CPU with dropout. Computes the probabilities again for the gradient.

    F.scaled_dot_product_attention with dropout takes up to 2.5 times as long and keeps them twice.
    """

    @staticmethod
    def forward(ctx, qkv, layout, p, masks):
        q, k, v = _padded_heads(qkv, layout)  # each [rows * heads, length, size]
        shape = len(q), layout.length, layout.length
        bits = masks.keep('attn', (math.prod(shape),), p)
        keep = flat_mask(bits, shape)
        out = torch.empty_like(q)
        for queries, keys, a in _attention_blocks(q, k, layout):
            out[:, queries] = (a * keep[:, queries, keys]).to(v.dtype) @ v[:, keys]
        ctx.save_for_backward(qkv, bits)
        ctx.layout, ctx.p = layout, p
        out = out.mul_(1 / (1 - p)).view(-1, q.shape[2])
        _, place_of = layout.head_places
        return out.index_select(0, place_of[:, 0].flatten()).view(len(qkv), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, bits = ctx.saved_tensors
        layout = ctx.layout
        _, place_of = layout.head_places
        q, k, v = _padded_heads(qkv, layout)
        size = q.shape[2]
        keep = flat_mask(bits, (len(q), layout.length, layout.length))
        d_out = torch.zeros_like(q)
        d_out.view(-1, size).index_copy_(0, place_of[:, 0].flatten(), grad.reshape(-1, size))
        d_out.mul_(1 / (1 - ctx.p))
        d_q, d_k, d_v = d_qkv = torch.zeros(3, *q.shape, dtype=q.dtype)
        for queries, keys, a in _attention_blocks(q, k, layout):
            dropped = a * keep[:, queries, keys]
            # The gradient of softmax: a (d_a - sum(a d_a)), where d_a a is 0 if dropped.
            a_d_a = (d_out[:, queries] @ v[:, keys].transpose(1, 2)).to(a.dtype).mul_(dropped)
            d_scores = a_d_a.addcmul_(a, a_d_a.sum(2, keepdim=True), value=-1).to(q.dtype)
            d_q[:, queries] = d_scores @ k[:, keys]
            d_k[:, keys] += d_scores.transpose(1, 2) @ q[:, queries]
            d_v[:, keys] += dropped.to(v.dtype).transpose(1, 2) @ d_out[:, queries]
        d_qkv[:2].mul_(size**-0.5)
        d_qkv = d_qkv.view(-1, size).index_select(0, place_of.flatten()).view_as(qkv)
        return d_qkv, None, None, None


def _attention_blocks(q, k, layout):
    """Yield blocks of queries, the keys up to the last of them, and the probabilities.

    No query of a block sees the keys after it: nearly half of a long row is left out.
    q and k [rows * heads, length, size]; the probabilities [rows * heads, queries, keys].
    """
    bias = torch.where(layout.mask(), 0.0, -math.inf).to(q.dtype)
    for start in range(0, layout.length, QUERIES):
        queries, keys = slice(start, start + QUERIES), slice(start + QUERIES)
        scores = (q[:, queries] @ k[:, keys].transpose(1, 2)).unflatten(0, (layout.rows, -1))
        torch.add(bias[..., queries, keys], scores, alpha=q.shape[2] ** -0.5, out=scores)
        yield queries, keys, full_precision(scores).softmax(3).flatten(0, 1)


def _padded_heads(qkv, layout):
    """qkv [tokens, 3 * n_embd] -> queries, keys, values [3, rows * heads, length, size]."""
    token_of, _ = layout.head_places
    rows = qkv.view(len(qkv) * 3 * layout.n_head, -1).index_select(0, token_of)
    return rows.view(3, -1, layout.length, rows.shape[1])
