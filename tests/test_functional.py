"""Each fast operation compared with its plain form: values and gradients, on every path.

The 'cuda' path runs on the CPU here: PyTorch has the same operations there.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpt1.ops import functional
from gpt1.ops.batches import build_tree, collate
from gpt1.ops.functional import (
    TiedEmbedding,
    activated_linear,
    attention,
    attention_at,
    attention_layout,
    dropout,
    gelu,
    linear,
    plain_activated_linear,
    plain_attention,
    plain_cross_entropy,
    plain_dropout,
    plain_embed,
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


# ------------------------------------------------------------------------------------ the path


def test_the_path_follows_from_the_device_unless_it_is_chosen(monkeypatch):
    monkeypatch.delenv('GPT1_PATH', raising=False)
    assert functional.path(torch.zeros(1)) == 'cpu'
    monkeypatch.setenv('GPT1_PATH', 'plain')
    assert functional.path(torch.zeros(1)) == 'plain'


# ------------------------------------------------------------------------------------ products


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize('tokens', [1, 5, 64])
def test_linear(path, library, tokens, dtype, tolerance):
    x, w, b = (random(*shape, dtype=dtype) for shape in [(tokens, 24), (24, 30), (30,)])
    assert_equal_operations(linear, plain_linear, x, w, b, tolerance=tolerance)


@pytest.mark.parametrize('part', [slice(10), slice(10, None)])
def test_linear_with_some_columns_of_a_matrix(path, library, part):
    x, w, b = (random(*shape, dtype=torch.float32) for shape in [(5, 24), (24, 30), (30,)])
    assert_equal_operations(
        lambda x, w, b: linear(x, w[:, part], b[part]),
        lambda x, w, b: plain_linear(x, w[:, part], b[part]),
        x,
        w,
        b,
        tolerance=1e-5,
    )


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


# ------------------------------------------------------------------------------------- dropout


def test_dropout(path):
    """With the mask that was drawn, which the zeros of the result show."""
    x, p = random(50, 41), 0.25

    def fast(x):
        torch.manual_seed(0)  # for the 'cuda' path, which draws from PyTorch's generator
        return dropout(x, p, DropoutMasks(3))

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


def test_dropout_with_probability_0_does_nothing(path):
    x = random(3, 4)
    assert dropout(x, 0, None) is x


# ----------------------------------------------------------------------------------- attention


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


def test_a_token_sees_the_trunk_and_its_own_branch(path):
    """A change of a token changes the outputs of the tokens that see it, and no others."""
    batch = collate(TREES[:1], FIRST_POSITION, share_context=True)
    layout = attention_layout(batch, N_HEAD)
    n_trunk, branches = len(TREES[0].trunk), TREES[0].branches
    first = n_trunk + len(branches[0])
    qkv = random(len(batch.ids), 3 * N_HEAD * 5).detach()
    before = attention(qkv, layout, 0, None)

    def changed_by(token):
        other = qkv.clone()
        other[token] += 1
        after = attention(other, layout, 0, None)
        return torch.nonzero((after != before).any(1)).flatten().tolist()

    end = first + len(branches[1])
    n_tokens = len(batch.ids)
    assert set(changed_by(2)) >= set(range(2, end))
    assert set(changed_by(2)) <= set(range(2, n_tokens))
    assert changed_by(n_trunk) == list(range(n_trunk, first))
    assert set(changed_by(first)) & set(range(end)) == set(range(first, end))


@BOTH_LAYOUTS
@pytest.mark.parametrize('n', [1, 2])
def test_attention_at_some_tokens(path, share_context, n):
    layout, n_tokens = make_layout(share_context)
    width = N_HEAD * 5
    qkv = random(n_tokens, 3 * width)
    batch = collate(TREES, FIRST_POSITION, share_context)
    last = batch.clf[:, -1] if share_context else batch.clf.flatten()
    tokens = torch.stack([last, last - 1], 1)[:, :n].flatten()
    assert_equal_operations(
        lambda qkv: attention_at(qkv[tokens, :width], qkv[:, width:], layout, tokens),
        lambda qkv: plain_attention(qkv, layout, 0, None)[tokens],
        qkv,
    )


@BOTH_LAYOUTS
def test_gradient_of_attention_by_finite_differences(monkeypatch, share_context):
    monkeypatch.setenv('GPT1_PATH', 'cpu')
    batch = collate(TREES[3:], FIRST_POSITION, share_context)
    layout = attention_layout(batch, N_HEAD)
    qkv = random(len(batch.ids), 3 * N_HEAD * 2)
    assert torch.autograd.gradcheck(lambda x: attention(x, layout, 0.3, DropoutMasks(3)), qkv)


# ---------------------------------------------------------------------------------- activation


def test_gelu(path):
    ends = torch.tensor([-1e4, 1e4, 0], dtype=torch.float64)
    x = torch.cat([torch.linspace(-12, 12, 4801, dtype=torch.float64), ends]).requires_grad_()
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        y = x.detach().to(dtype).requires_grad_()
        results = value_and_gradients(gelu, y)
        expected = value_and_gradients(lambda y: F.gelu(y, approximate='tanh'), y)
        torch.testing.assert_close(results, expected, rtol=tolerance, atol=20 * tolerance)


def test_plain_gelu_is_the_tanh_form_of_pytorch():
    x = random(1000)
    torch.testing.assert_close(plain_gelu(x), F.gelu(x, approximate='tanh'), rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', ['cpu', 'cuda'])
def test_gelu_in_bf16_rounds_only_the_result(monkeypatch, name):
    monkeypatch.setenv('GPT1_PATH', name)
    x = random(1000, dtype=torch.bfloat16)
    torch.testing.assert_close(gelu(x), plain_gelu(x.float()).bfloat16())


# -------------------------------------------------------------------------- the tied embedding

IDS = torch.tensor([3, 7, 3, 0, 3])
POSITIONS = torch.tensor([40, 41, 42, 40, 7])  # 7: both uses may add to the same row
TARGET = torch.tensor([0, 7, 49, 3])


def tied_loss(weight, p, masks, has_lm=True):
    """A loss of both uses of the matrix, and the embedding. 'cuda' draws from a fixed seed."""
    torch.manual_seed(0)
    embedding = TiedEmbedding(weight, IDS, POSITIONS, p, masks)
    loss = (embedding.h**2).sum()
    if has_lm:
        losses = embedding.cross_entropy(embedding.h[:4], TARGET)
        loss = loss + (losses * torch.arange(1, 5)).sum()
    return loss, embedding


def plain_tied_loss(weight, p, masks, has_lm=True):
    h, we = plain_embed(weight, IDS, POSITIONS, p, masks)
    loss = (h**2).sum()
    if has_lm:
        losses = plain_cross_entropy(h[:4], we, TARGET)
        loss = loss + (losses * torch.arange(1, 5)).sum()
    return loss


@pytest.mark.parametrize('has_lm', [False, True])
@pytest.mark.parametrize('p', [0, 0.3])
def test_embedding_and_cross_entropy(path, p, has_lm):
    weight = random(50, 6)
    _, embedding = tied_loss(weight, p, DropoutMasks(3))
    masks = GivenMask(embedding.matrix != 0)
    expected = value_and_gradients(lambda w: plain_tied_loss(w, p, masks, has_lm), weight)
    result = value_and_gradients(lambda w: tied_loss(w, p, DropoutMasks(3), has_lm)[0], weight)
    assert_close(result, expected, 1e-10)
    torch.testing.assert_close(embedding.matrix, weight * (embedding.matrix != 0) / (1 - p))


@pytest.mark.parametrize('p', [0, 0.3])
def test_gradients_of_two_batches_add_up(path, p):
    weight = random(50, 6)
    before = weight.detach().clone()
    expected = 0
    for seed in (1, 2):
        loss, _ = tied_loss(weight, p, DropoutMasks(seed))
        expected = expected + torch.autograd.grad(loss, weight)[0].clone()
    for seed in (1, 2):
        tied_loss(weight, p, DropoutMasks(seed))[0].backward()
    torch.testing.assert_close(weight.grad, expected)
    assert torch.equal(weight, before)


def test_embedding_of_the_plain_and_the_cpu_path_draw_the_same_mask(monkeypatch):
    """Over more rows than one block of the CPU's cache, with a width that 8 does not divide."""
    weight = random(5000, 257)
    results = []
    for path in ('plain', 'cpu'):
        monkeypatch.setenv('GPT1_PATH', path)
        embedding = TiedEmbedding(weight, IDS, POSITIONS, 0.1, DropoutMasks(3))
        results.append([embedding.h, embedding.matrix])
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)
    is_kept = (results[0][1] != 0).double()
    for part in is_kept.split(1000):
        assert abs(part.mean() - 0.9) < 0.005


# The blocks have 1,024 rows on a CPU and 8,192 on a GPU.
@pytest.mark.parametrize(
    'name, rows',
    [('cpu', n) for n in (1023, 1024, 1025, 2500)] + [('cuda', n) for n in (8191, 8192, 8193)],
)
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize('p', [0, 0.3])
def test_cross_entropy_in_blocks_of_rows(monkeypatch, library, name, rows, dtype, tolerance, p):
    monkeypatch.setenv('GPT1_PATH', name)
    weight, h = random(rows, 16, dtype=dtype), random(6, 16, seed=1, dtype=dtype)
    target = torch.tensor([0, 5, rows - 1, rows - 2, 1000, min(1024, rows - 1)])
    kept = []

    def fast(h, weight):
        torch.manual_seed(0)
        embedding = TiedEmbedding(weight, IDS, POSITIONS, p, DropoutMasks(3))
        kept.append(embedding.matrix.detach() != 0)
        return embedding.cross_entropy(h, target) + embedding.h.sum()

    results = value_and_gradients(fast, h, weight)

    def plain(h, weight):
        h0, we = plain_embed(weight, IDS, POSITIONS, p, GivenMask(kept[0]))
        return plain_cross_entropy(h, we, target) + h0.sum()

    assert_close(results, value_and_gradients(plain, h, weight), tolerance)


@pytest.mark.parametrize('p', [0, 0.3])
def test_gradient_of_cross_entropy_by_finite_differences(monkeypatch, p):
    monkeypatch.setenv('GPT1_PATH', 'cpu')

    def losses(h, weight):
        embedding = TiedEmbedding(weight, IDS, POSITIONS, p, DropoutMasks(3))
        return embedding.cross_entropy(h + embedding.h[:4], TARGET).sum()

    # gradcheck runs backward() more than once on one graph, which the loss does not allow.
    tensors = [random(4, 3), random(50, 3, seed=1)]
    gradients = torch.autograd.grad(losses(*tensors), tensors)
    for tensor, gradient in zip(tensors, gradients):
        for place in range(0, tensor.numel(), 7):
            assert gradient.flatten()[place].item() == pytest.approx(
                slope(losses, tensors, tensor, place), abs=1e-7
            )


def slope(function, tensors, tensor, place, step=1e-5):
    """The derivative of a function with respect to one entry of one of its tensors."""
    entries = tensor.detach().view(-1)
    values = []
    for shift in (step, -2 * step):
        entries[place] += shift
        values.append(function(*tensors).item())
    entries[place] += step
    return (values[0] - values[1]) / (2 * step)


def test_cross_entropy_of_very_sure_predictions_is_finite(path):
    h = (300 * random(4, 6)).detach().requires_grad_()
    weight = random(50, 6, seed=1)
    embedding = TiedEmbedding(weight, IDS, POSITIONS, 0, None)
    losses = embedding.cross_entropy(h, TARGET)
    assert losses.isfinite().all()
    assert losses.max() > 100
    assert_close([losses], [plain_cross_entropy(h, weight, TARGET)], 1e-10)
    (losses.sum() + embedding.h.sum()).backward()
    assert h.grad.isfinite().all()
    assert weight.grad.isfinite().all()


def test_the_gradient_overwrites_the_matrix_after_dropout(monkeypatch):
    monkeypatch.setenv('GPT1_PATH', 'cpu')
    weight = random(3000, 400, dtype=torch.float32)
    loss, embedding = tied_loss(weight, 0.3, DropoutMasks(3))
    place = embedding.matrix.data_ptr()
    loss.backward()
    assert weight.grad.data_ptr() == place


def test_the_gradient_overwrites_the_matrix_in_bf16(monkeypatch):
    """The float32 gradient is written over the memory that ends with the bfloat16 matrix."""
    monkeypatch.setenv('GPT1_PATH', 'cpu')
    weight = random(3000, 400, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        loss, embedding = tied_loss(weight, 0.3, DropoutMasks(3))
    assert embedding.matrix.dtype == torch.bfloat16
    place = embedding.matrix.data_ptr() - 2 * weight.numel()
    loss.backward()
    assert weight.grad.dtype == torch.float32
    assert weight.grad.data_ptr() == place


@pytest.mark.parametrize('name', ['cpu', 'cuda'])
@pytest.mark.parametrize('p', [0, 0.3])
def test_a_second_backward_pass_is_an_error(monkeypatch, name, p):
    monkeypatch.setenv('GPT1_PATH', name)
    loss, _ = tied_loss(random(50, 6), p, DropoutMasks(3))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='call it only once'):
        loss.backward()


@pytest.mark.parametrize('name', ['cpu', 'cuda'])
def test_the_gradient_of_a_dropped_entry_is_0(monkeypatch, name):
    monkeypatch.setenv('GPT1_PATH', name)
    weight = random(50, 6)
    loss, embedding = tied_loss(weight, 0.3, DropoutMasks(3))
    keep = embedding.matrix.detach() != 0
    loss.backward()
    assert torch.equal(weight.grad != 0, keep)


def test_the_gradient_of_the_embedding_is_repeatable(monkeypatch):
    """To the last bit, although many tokens share a row and two threads add them up."""
    monkeypatch.setenv('GPT1_PATH', 'cpu')
    weight, grad = random(300, 128, dtype=torch.float32), random(1280, 128, dtype=torch.float32)
    ids = torch.arange(1280) % 40

    def gradient():
        h = TiedEmbedding(weight, ids, ids + 100, 0, None).h
        return torch.autograd.grad(h, weight, grad)[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(10))
    finally:
        torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------ bfloat16


@pytest.mark.parametrize('name', ['cpu', 'cuda'])
def test_embedding_in_bf16_rounds_the_matrix_but_not_the_states(monkeypatch, name):
    monkeypatch.setenv('GPT1_PATH', name)
    weight = random(50, 6, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        embedding = TiedEmbedding(weight, IDS, POSITIONS, 0.5, DropoutMasks(3))
    keep = embedding.matrix.detach() != 0
    dropped = weight * keep * 2
    torch.testing.assert_close(embedding.h, dropped[IDS] + dropped[POSITIONS])
    torch.testing.assert_close(embedding.matrix.float(), dropped, rtol=2**-8, atol=0)
    (gradient,) = torch.autograd.grad(embedding.h.sum(), weight)
    expected = torch.autograd.grad((dropped[IDS] + dropped[POSITIONS]).sum(), weight)
    torch.testing.assert_close(gradient, expected[0])


@pytest.mark.parametrize('name', ['cpu', 'cuda'])
@pytest.mark.parametrize('p', [0, 0.3])
@pytest.mark.parametrize('rows', [50, 2500])
def test_bf16_rounds_the_products_only(monkeypatch, name, p, rows):
    """The losses are those of the rounded logits, with sums in float32."""
    monkeypatch.setenv('GPT1_PATH', name)
    h, weight = random(4, 6, dtype=torch.float32), random(rows, 6, seed=1, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        torch.manual_seed(0)
        embedding = TiedEmbedding(weight, IDS, POSITIONS, p, DropoutMasks(3))
        keep = embedding.matrix.detach() != 0
        losses = embedding.cross_entropy(h, TARGET)
    assert losses.dtype == torch.float32
    dropped = weight * keep / (1 - p)
    expected = plain_cross_entropy(h.bfloat16(), embedding.matrix.bfloat16(), TARGET)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(losses.sum() + 0 * embedding.h.sum(), (h, weight))
    plain = torch.autograd.grad(plain_cross_entropy(h, dropped, TARGET).sum(), (h, weight))
    for gradient, other in zip(gradients, plain):
        assert gradient.dtype == torch.float32
        assert (gradient - other).norm() < 0.02 * other.norm()


def test_full_precision_converts_bf16_only():
    assert functional.full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        assert functional.full_precision(torch.zeros(1, dtype=dtype)).dtype == dtype
    assert math.isinf(functional.full_precision(torch.tensor(math.inf, dtype=torch.bfloat16)))
