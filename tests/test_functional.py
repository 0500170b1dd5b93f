"""Each fast operation compared with its plain form: values and gradients, on both fast paths.

The 'cuda' path runs on the CPU here: PyTorch has the same operations there.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpt1.ops import functional
from gpt1.ops.batches import build_tree, collate
from gpt1.ops.functional import activated_linear, attention, dropout, gelu, linear, product
from gpt1.ops.masks import DropoutMasks
from model_pytorch import ACT_FNS

N_HEAD = 2
N_VOCAB = 30
FIRST_POSITION = N_VOCAB + 3
LENGTHS = [(9, 3, 5), (4, 6, 2), (12, 1, 7), (0, 0, 3)]  # of a context and two choices
TREES = [build_tree([np.arange(n) for n in lengths], 'choices', 1, N_VOCAB) for lengths in LENGTHS]
BOTH_LAYOUTS = pytest.mark.parametrize('share_context', [False, True])
FLOAT64, FLOAT32, BFLOAT16 = (torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 0.03)
FLOATS = pytest.mark.parametrize('dtype, tolerance', [FLOAT64, FLOAT32])
ALL_TYPES = pytest.mark.parametrize('dtype, tolerance', [FLOAT64, FLOAT32, BFLOAT16])


@pytest.fixture(params=['cpu', 'cuda'])
def path(request, monkeypatch):
    monkeypatch.setenv('GPT1_PATH', request.param)
    return request.param


@pytest.fixture(params=['default library', 'oneDNN'])
def library(request, monkeypatch):
    is_onednn = request.param == 'oneDNN'
    if is_onednn and not torch.backends.mkldnn.is_available():
        pytest.skip('PyTorch without oneDNN')
    monkeypatch.setattr(
        functional, 'uses_onednn', lambda x, w: is_onednn and x.dtype == torch.float32
    )


class GivenMask(DropoutMasks):
    def __init__(self, keep):
        self.bits = torch.from_numpy(np.packbits(keep.numpy().astype(np.uint8), axis=-1))

    def keep(self, kind, shape, p):
        return self.bits


def random(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def plain(function):
    """The function with all operations in their plain form."""

    def run(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('GPT1_PATH', 'plain')
            return function(*args)

    return run


def value_and_gradients(function, *tensors):
    """Return a function's value and the gradients of a weighted sum of its entries."""
    value = function(*tensors)
    weights = random(*value.shape, seed=9).detach().to(value.dtype)
    return value.detach(), *torch.autograd.grad((value * weights).sum(), tensors)


def assert_as_plain(fast, *tensors, tolerance=1e-10, as_plain=None):
    """Compare values and gradients with those of the plain form, of the same function or given."""
    results = value_and_gradients(fast, *tensors)
    expected = value_and_gradients(plain(as_plain or fast), *tensors)
    assert_close(results, expected, tolerance)
    assert [result.dtype for result in results] == [other.dtype for other in expected]


def assert_close(results, expected, tolerance):
    """Each relative to its largest entry."""
    for result, other in zip(results, expected):
        atol = tolerance * max(1, other.abs().max().item())
        torch.testing.assert_close(result.double(), other.double(), rtol=0, atol=atol)


def test_the_path_follows_from_the_device_unless_it_is_chosen(monkeypatch):
    monkeypatch.delenv('GPT1_PATH', raising=False)
    assert functional.path(torch.zeros(1)) == 'cpu'


def of_linear(tokens, dtype=torch.float32):
    """Input, matrix and bias of a linear layer."""
    return [random(*shape, dtype=dtype) for shape in [(tokens, 24), (24, 30), (30,)]]


def columns(part):
    return lambda x, w, b: linear(x, w[:, part], b[part])


def activated(act):
    return lambda x, w, b: activated_linear(x, w, b, act)


LAYERS = {str(part): columns(part) for part in (slice(None), slice(10), slice(10, None))}
LAYERS |= {name: activated(act) for name, act in ACT_FNS.items()}


@FLOATS
@pytest.mark.parametrize('tokens', [1, 5, 64])
@pytest.mark.parametrize('name', LAYERS)
def test_linear_layers(path, library, tokens, name, dtype, tolerance):
    layer, tensors = LAYERS[name], of_linear(tokens, dtype)
    assert_as_plain(layer, *tensors, tolerance=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(layer(*tensors), plain(layer)(*tensors), rtol=1e-5, atol=1e-5)


def test_activated_linear_in_bf16_has_gradients_in_float32(path):
    def in_bf16(x, w, b):
        with torch.autocast('cpu', torch.bfloat16):
            return activated_linear(linear(x, w[:, :24], b[:24]), w, b, gelu)

    results = value_and_gradients(in_bf16, *of_linear(5))
    assert all(gradient.dtype == torch.float32 for gradient in results[1:])
    assert_close(results, value_and_gradients(plain(in_bf16), *of_linear(5)), 0.03)


@pytest.mark.parametrize('has_bias', [False, True])
def test_product(library, has_bias):
    """Also of transposed matrices and of slices, which are not contiguous."""

    def matrix(*shape):
        return random(*shape, dtype=torch.float32).detach()

    a = matrix(24, 5).t()
    for b in (matrix(24, 30), matrix(30, 24).t(), matrix(24, 40)[:, 5:35]):
        bias = matrix(30) if has_bias else None
        out = torch.empty(5, 30)
        expected = a.double() @ b.double() + (bias if has_bias else 0)
        for result in (product(a, b, bias), product(a, b, bias, out), out):
            torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


def test_dropout(path):
    """With the mask that was drawn, which the zeros of the result show."""
    x, p = random(50, 41), 0.25

    def fast(x):
        torch.manual_seed(0)  # for the 'cuda' path, which draws from PyTorch's generator
        return dropout(x, p, DropoutMasks(3))

    assert dropout(x, 0, DropoutMasks(3)) is dropout(x, p, None) is x
    keep = (fast(x) != 0).flatten()
    assert abs(keep.double().mean() - 0.75) < 0.06
    assert_as_plain(fast, x, as_plain=lambda x: dropout(x, p, GivenMask(keep)))


def make_layout(share_context, size=5, dtype=torch.float64):
    """The layout of examples whose rows have different lengths, and queries, keys and values."""
    batch = collate(TREES, FIRST_POSITION, share_context)
    qkv = random(len(batch.ids), 3 * N_HEAD * (size or batch.length), dtype=dtype)
    return functional.AttentionLayout(batch, N_HEAD), qkv


@BOTH_LAYOUTS
@ALL_TYPES
def test_attention_without_dropout(path, share_context, dtype, tolerance):
    layout, qkv = make_layout(share_context, dtype=dtype)
    assert_as_plain(lambda qkv: attention(qkv, layout, 0, None), qkv, tolerance=tolerance)


@BOTH_LAYOUTS
@ALL_TYPES
@pytest.mark.parametrize('queries', [1, 3, 128])
def test_attention_of_the_plain_and_the_cpu_path_with_dropout(
    monkeypatch, queries, share_context, dtype, tolerance
):
    """Both draw the same masks from the same seed, in blocks of any size."""
    monkeypatch.setenv('GPT1_PATH', 'cpu')
    monkeypatch.setattr(functional, 'QUERIES', queries)
    layout, qkv = make_layout(share_context, dtype=dtype)
    assert_as_plain(
        lambda qkv: attention(qkv, layout, 0.3, DropoutMasks(3)), qkv, tolerance=tolerance
    )


@BOTH_LAYOUTS
def test_attention_of_the_cuda_path_with_dropout(monkeypatch, share_context):
    monkeypatch.setenv('GPT1_PATH', 'cuda')
    layout, qkv = make_layout(share_context, size=None)
    # If the value of a token is the unit vector of its place, attention returns the probabilities.
    units = torch.eye(layout.length, dtype=qkv.dtype)[layout.slots % layout.length]
    qkv = torch.cat([qkv[:, : 2 * N_HEAD * layout.length], units.repeat(1, N_HEAD)], 1)
    dropped, full = (attention(qkv, layout, p, DropoutMasks(0)) for p in (0.3, 0))
    n_visible = (full != 0).sum()
    n_kept = (dropped != 0).sum()
    assert abs(n_kept / n_visible - 0.7) < 5 * (0.3 * 0.7 / n_visible) ** 0.5
    torch.testing.assert_close(dropped, full * (dropped != 0) / 0.7)


def test_gelu():
    ends = torch.tensor([-1e4, 1e4, 0], dtype=torch.float64)
    x = torch.cat([torch.linspace(-12, 12, 4801, dtype=torch.float64), ends])
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        y = x.to(dtype).requires_grad_()
        results = value_and_gradients(plain(gelu), y)
        expected = value_and_gradients(lambda y: F.gelu(y, approximate='tanh'), y)
        torch.testing.assert_close(results, expected, rtol=tolerance, atol=20 * tolerance)
