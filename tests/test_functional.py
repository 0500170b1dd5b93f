"""Each fast operation compared with its plain form: values and gradients, on every path.

The 'cuda' path runs on the CPU here: PyTorch has the same operations there.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpt1.ops import functional
from gpt1.ops.batches import build_tree, collate
from gpt1.ops.functional import (
    activated_linear,
    attention,
    attention_layout,
    dropout,
    gelu,
    linear,
    plain_activated_linear,
    plain_attention,
    plain_dropout,
    plain_gelu,
    plain_linear,
    product,
)
from gpt1.ops.masks import DropoutMasks
from model_pytorch import ACT_FNS

N_HEAD = 2
N_VOCAB = 30
FIRST_POSITION = N_VOCAB + 3
LENGTHS = [(9, 3, 5), (4, 6, 2), (12, 1, 7), (0, 0, 3)]  # of a context and two choices
TREES = [build_tree([np.arange(n) for n in lengths], 'choices', 1, N_VOCAB) for lengths in LENGTHS]
BOTH_LAYOUTS = pytest.mark.parametrize('share_context', [False, True])


@pytest.fixture(params=functional.PATHS)
def path(request, monkeypatch):
    monkeypatch.setenv('GPT1_PATH', request.param)
    return request.param


@pytest.fixture(params=['default library', 'oneDNN'])
def library(request, monkeypatch):
    """Compute the products with PyTorch's default library, or those in float32 with oneDNN."""
    is_onednn = request.param == 'oneDNN'
    if is_onednn and not torch.backends.mkldnn.is_available():
        pytest.skip('PyTorch without oneDNN')
    monkeypatch.setattr(
        functional, 'uses_onednn', lambda x, w: is_onednn and x.dtype == torch.float32
    )


class GivenMask(DropoutMasks):
    """Replays one mask for every request."""

    def __init__(self, keep):
        self.bits = torch.from_numpy(np.packbits(keep.numpy().astype(np.uint8), axis=-1))

    def keep(self, kind, shape, p):
        return self.bits


def random(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def value_and_gradients(function, *tensors):
    """Return a function's value and the gradients of a weighted sum of its entries."""
    value = function(*tensors)
    weights = random(*value.shape, seed=9).detach().to(value.dtype)
    return value.detach(), *torch.autograd.grad((value * weights).sum(), tensors)


def assert_equal_operations(fast, plain, *tensors, tolerance=1e-10):
    """Compare values and gradients, each relative to its largest entry."""
    results = value_and_gradients(fast, *tensors)
    expected = value_and_gradients(plain, *tensors)
    assert_close(results, expected, tolerance)
    for result, other in zip(results, expected):
        assert result.dtype == other.dtype


def assert_close(results, expected, tolerance):
    for result, other in zip(results, expected):
        atol = tolerance * max(1, other.abs().max().item())
        torch.testing.assert_close(result.double(), other.double(), rtol=0, atol=atol)


def test_the_path_follows_from_the_device_unless_it_is_chosen(monkeypatch):
    monkeypatch.delenv('GPT1_PATH', raising=False)
    assert functional.path(torch.zeros(1)) == 'cpu'


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize('tokens', [1, 5, 64])
@pytest.mark.parametrize('part', [slice(None), slice(10), slice(10, None)], ids=str)
def test_linear(path, library, tokens, part, dtype, tolerance):
    """Also with some of the columns of a matrix."""
    x, w, b = (random(*shape, dtype=dtype) for shape in [(tokens, 24), (24, 30), (30,)])

    def columns(function):
        return lambda x, w, b: function(x, w[:, part], b[part])

    assert_equal_operations(columns(linear), columns(plain_linear), x, w, b, tolerance=tolerance)


@pytest.mark.parametrize('afn', ACT_FNS)
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_activated_linear(path, library, afn, dtype, tolerance):
    x, w, b = (random(*shape, dtype=dtype) for shape in [(5, 24), (24, 30), (30,)])
    act = ACT_FNS[afn]
    plain_act = plain_gelu if afn == 'gelu' else act

    def fast(x, w, b):
        return activated_linear(x, w, b, act)

    def plain(x, w, b):
        return plain_activated_linear(x, w, b, plain_act)

    assert_equal_operations(fast, plain, x, w, b, tolerance=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(fast(x, w, b), plain(x, w, b), rtol=1e-5, atol=1e-5)


def test_activated_linear_in_bf16_has_gradients_in_float32(path):
    x, w, b = (random(*shape, dtype=torch.float32) for shape in [(5, 24), (24, 30), (30,)])

    def in_bf16(function, act):
        def run(x, w, b):
            with torch.autocast('cpu', torch.bfloat16):
                return function(linear(x, w[:, :24], b[:24]), w, b, act)

        return value_and_gradients(run, x, w, b)

    results = in_bf16(activated_linear, gelu)
    assert all(gradient.dtype == torch.float32 for gradient in results[1:])
    assert_close(results, in_bf16(plain_activated_linear, plain_gelu), 0.03)


@pytest.mark.parametrize('has_bias', [False, True])
@pytest.mark.parametrize('has_out', [False, True])
def test_product(library, has_bias, has_out):
    """Also of transposed matrices and of slices, which are not contiguous."""
    a = random(24, 5, dtype=torch.float32).detach().t()
    for b in (
        random(24, 30, dtype=torch.float32).detach(),
        random(30, 24, dtype=torch.float32).detach().t(),
        random(24, 40, dtype=torch.float32).detach()[:, 5:35],
    ):
        bias = random(30, dtype=torch.float32).detach() if has_bias else None
        out = torch.empty(5, 30) if has_out else None
        result = product(a, b, bias, out)
        expected = a.double() @ b.double()
        if has_bias:
            expected += bias
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
        assert out is None or result.data_ptr() == out.data_ptr()


def test_dropout(path):
    """With the mask that was drawn, which the zeros of the result show."""
    x, p = random(50, 41), 0.25

    def fast(x):
        torch.manual_seed(0)  # for the 'cuda' path, which draws from PyTorch's generator
        return dropout(x, p, DropoutMasks(3))

    assert dropout(x, 0, None) is x
    keep = (fast(x) != 0).flatten()
    assert abs(keep.double().mean() - 0.75) < 0.06
    assert_equal_operations(fast, lambda x: plain_dropout(x, p, GivenMask(keep)), x)


def test_dropout_of_the_plain_and_the_cpu_path_draw_the_same_masks(monkeypatch):
    x = random(50, 41)
    results = []
    for path in ('plain', 'cpu'):
        monkeypatch.setenv('GPT1_PATH', path)
        masks = DropoutMasks(3)
        results.append([dropout(x, 0.25, masks) for _ in range(3)])
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)
    assert not torch.equal(results[0][0], results[0][1])


def make_layout(share_context):
    """The layout of examples whose rows have different lengths, and the number of tokens."""
    batch = collate(TREES, FIRST_POSITION, share_context)
    return attention_layout(batch, N_HEAD), len(batch.ids)


@BOTH_LAYOUTS
@pytest.mark.parametrize(
    'dtype, tolerance',
    [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 0.03)],
)
def test_attention_without_dropout(path, share_context, dtype, tolerance):
    layout, n_tokens = make_layout(share_context)
    qkv = random(n_tokens, 3 * N_HEAD * 5, dtype=dtype)
    assert_equal_operations(
        lambda qkv: attention(qkv, layout, 0, None),
        lambda qkv: plain_attention(qkv, layout, 0, None),
        qkv,
        tolerance=tolerance,
    )


@BOTH_LAYOUTS
@pytest.mark.parametrize(
    'dtype, tolerance',
    [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 0.03)],
)
@pytest.mark.parametrize('queries', [1, 3, 128])
def test_attention_of_the_plain_and_the_cpu_path_with_dropout(
    monkeypatch, queries, share_context, dtype, tolerance
):
    """Both draw the same masks from the same seed, in blocks of any size."""
    monkeypatch.setenv('GPT1_PATH', 'cpu')
    monkeypatch.setattr(functional, 'QUERIES', queries)
    layout, n_tokens = make_layout(share_context)
    qkv = random(n_tokens, 3 * N_HEAD * 5, dtype=dtype)
    assert_equal_operations(
        lambda qkv: attention(qkv, layout, 0.3, DropoutMasks(3)),
        lambda qkv: plain_attention(qkv, layout, 0.3, DropoutMasks(3)),
        qkv,
        tolerance=tolerance,
    )


@BOTH_LAYOUTS
def test_attention_of_the_cuda_path_with_dropout(monkeypatch, share_context):
    monkeypatch.setenv('GPT1_PATH', 'cuda')
    layout, n_tokens = make_layout(share_context)
    rows, length, size, p = layout.rows, layout.length, layout.length, 0.3
    qkv = random(n_tokens, 3 * N_HEAD * size)

    def fast(qkv):
        torch.manual_seed(0)
        return attention(qkv, layout, p, None)

    # If the value of a token is the unit vector of its place, attention returns the probabilities.
    units = torch.eye(length, dtype=qkv.dtype)[layout.slots % length].repeat(1, N_HEAD)
    probabilities = fast(torch.cat([qkv[:, : 2 * N_HEAD * size], units], 1)).detach()
    keep = torch.zeros(rows * length, N_HEAD, length, dtype=torch.bool)
    keep[layout.slots] = probabilities.view(n_tokens, N_HEAD, length) != 0
    keep = keep.view(rows, length, N_HEAD, length).transpose(1, 2)
    visible = layout.mask().expand(rows, N_HEAD, length, length)
    in_rows = torch.zeros(rows * length, dtype=torch.bool)
    in_rows[layout.slots] = True
    in_rows = in_rows.view(rows, 1, 1, length) & in_rows.view(rows, 1, length, 1)
    n_visible = (visible & in_rows).sum()
    assert abs(keep.sum() / n_visible - (1 - p)) < 5 * (p * (1 - p) / n_visible) ** 0.5
    masks = GivenMask(keep.flatten())
    assert_equal_operations(fast, lambda qkv: plain_attention(qkv, layout, p, masks), qkv)


def test_gelu(path):
    ends = torch.tensor([-1e4, 1e4, 0], dtype=torch.float64)
    x = torch.cat([torch.linspace(-12, 12, 4801, dtype=torch.float64), ends]).requires_grad_()
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        y = x.detach().to(dtype).requires_grad_()
        results = value_and_gradients(gelu, y)
        expected = value_and_gradients(lambda y: F.gelu(y, approximate='tanh'), y)
        torch.testing.assert_close(results, expected, rtol=tolerance, atol=20 * tolerance)
