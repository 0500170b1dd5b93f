"""What replaces PyTorch's own functions, against those."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_model import CONFIG, STORIES

from functional import (
    dropout,
    dropout_mask,
    dropped_attention,
    embed,
    gelu,
    linear,
    padded,
    product,
    unpacked,
)
from loss import language_model_losses
from model_pytorch import Config, DoubleHeadModel, attention_mask, init_weights
from utils import collate


def double(*size, seed=0):
    return torch.randn(
        *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ).requires_grad_()


def mask(shape, p):
    """A `dropout_mask`, an entry each."""
    return unpacked(dropout_mask(shape, p), shape[-1])


# --------------------------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize('p', [0.1, 0.25, 0.5, 0.999])
def test_rate_and_independence_of_the_mask(p):
    torch.manual_seed(0)
    keep = mask((1000, 1000), p)
    deviation = (p * (1 - p) / keep.numel()) ** 0.5
    assert abs(keep.double().mean() - (1 - p)) < 5 * deviation
    for axis in (
        0,
        1,
    ):  # the eight entries that come at once know nothing of each other, nor do their neighbours
        for distance in 1, 2, 3, 4, 8:
            both = keep.narrow(axis, 0, 1000 - distance) & keep.narrow(
                axis, distance, 1000 - distance
            )
            expected = (1 - p) ** 2
            assert (
                abs(both.double().mean() - expected) < 6 * (expected / both.numel()) ** 0.5 + 1e-4
            )
    assert (keep.double().mean(0) - (1 - p)).abs().max() < 6 * (p * (1 - p) / 1000) ** 0.5 + 1e-3


@pytest.mark.parametrize('p', [1e-6, 0.1, 0.25, 0.5, 0.999])
def test_each_mask_of_eight_comes_as_often_as_is_likely(p):
    """Those too that are too rare for the table: nine of ten masks for p = 0.1."""
    torch.manual_seed(0)
    found = np.bincount(dropout_mask((1 << 25,), p).numpy(), minlength=256)
    kept = np.array([bin(byte).count('1') for byte in range(256)])
    expected = (1 - p) ** kept * p ** (8 - kept) * (1 << 22)
    often = expected > 10
    deviations = (found - expected)[often] / np.sqrt(expected[often])
    assert abs((deviations**2).sum() - often.sum()) < 5 * (2 * often.sum()) ** 0.5
    assert (
        abs(found[~often].sum() - expected[~often].sum()) <= 5 * expected[~often].sum() ** 0.5 + 1
    )


@pytest.mark.parametrize('shape', [(1,), (7,), (8,), (9,), (31,), (3, 13), (2, 3, 16)])
def test_masks_of_any_size(shape):
    assert mask(shape, 0.5).shape == shape and set(mask((2, 1000), 0.5).unique().tolist()) == {0, 1}
    assert mask(shape, 0).all()


def test_same_seed_same_mask():
    """It is PyTorch's generator that is drawn from, the one that checkpoints keep."""
    x = torch.ones(64, 33)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = dropout(x, 0.5, True), dropout(x, 0.5, True)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5, True), first) and torch.equal(dropout(x, 0.5, True), second)


def test_dropout_scales_and_so_does_its_gradient():
    x = torch.randn(50, 40, requires_grad=True)
    dropped = dropout(x, 0.25, True)
    kept = dropped != 0
    torch.testing.assert_close(dropped, torch.where(kept, x / 0.75, 0.0))
    (gradient,) = torch.autograd.grad(dropped, x, torch.full_like(x, 3.0))
    torch.testing.assert_close(gradient, torch.where(kept, 4.0, 0.0))
    assert dropout(x, 0.25, False) is x and dropout(x, 0, True) is x


# -------------------------------------------------------------------------------------------------------------- products


@pytest.mark.parametrize('onednn', [False, True])
@pytest.mark.parametrize('tokens', [1, 5, 64])
def test_products_by_either_library(monkeypatch, onednn, tokens):
    """In fp32, to rounding those of float64; whole matrices, their transposes and parts of them; with the gradients."""
    monkeypatch.setattr(
        'functional.onednn_takes',
        lambda x, w: onednn and torch.backends.mkldnn.is_available() and x.dtype == torch.float32,
    )
    x, w, b = double(tokens, 24), double(24, 30, seed=1), double(30, seed=2)
    fp32 = [t.detach().float().requires_grad_() for t in (x, w, b)]
    for part in slice(None), slice(10), slice(10, None):
        expected, result = (
            x @ w[:, part] + b[part],
            linear(fp32[0], fp32[1][:, part], fp32[2][part]),
        )
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
        weight = torch.randn_like(expected)
        gradients, wanted = (
            torch.autograd.grad((result * weight.float()).sum(), fp32),
            torch.autograd.grad((expected * weight).sum(), (x, w, b)),
        )
        for gradient, other in zip(gradients, wanted):
            torch.testing.assert_close(gradient.double(), other, rtol=1e-5, atol=1e-5)
    out = torch.empty(30, tokens)
    assert product(fp32[1].detach().t(), fp32[0].detach().t(), out=out) is out
    torch.testing.assert_close(out.double(), (x @ w).detach().t(), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- embedding


@pytest.mark.parametrize('p', [0, 0.3])
@pytest.mark.parametrize('lm', [False, True])
def test_embedding_and_its_gradient(p, lm):
    """Against look-ups in the dropped matrix; two batches' gradients add up."""
    weight, w, ids, positions = (
        double(50, 6),
        double(50, 6, seed=1).detach(),
        torch.tensor([3, 7, 3, 0]),
        torch.tensor([40, 41, 42, 40]),
    )
    expected = torch.zeros_like(weight)
    for _ in range(2):
        h, we = embed(weight, ids, positions, p, True)
        scale = (we != 0).double() / (1 - p)
        torch.testing.assert_close(we, weight * scale)
        torch.testing.assert_close(h, we[ids] + we[positions])
        ((h**2).sum() + (we * w).sum() * lm).backward()
        dropped = weight * scale
        loss = ((F.embedding(ids, dropped) + F.embedding(positions, dropped)) ** 2).sum() + (
            dropped * w
        ).sum() * lm
        expected = expected + torch.autograd.grad(loss, weight)[0]
    torch.testing.assert_close(weight.grad, expected)
    assert p == 0 or (weight.grad == 0).any()


def test_embedding_of_many_rows():
    """More than one block of the CPU's cache."""
    torch.manual_seed(0)
    weight = torch.ones(5000, 256)
    we = embed(weight, torch.tensor([0, 4999]), torch.tensor([1, 4998]), 0.1, True)[1]
    torch.testing.assert_close(we.unique(), torch.tensor([0, 1 / 0.9]))
    assert all(abs((part != 0).float().mean() - 0.9) < 0.005 for part in we.split(1000))


def test_embedding_in_bf16():
    """The matrix comes in the precision that the head computes in; the states and the gradient stay whole."""
    weight = torch.randn(50, 6, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        h, we = embed(weight, torch.tensor([3, 4]), torch.tensor([40, 41]), 0.5, True)
    scale = (we != 0) * 2
    assert we.dtype == torch.bfloat16 and torch.equal(we, (weight * scale).bfloat16())
    torch.testing.assert_close(h, (weight * scale)[[3, 4]] + (weight * scale)[[40, 41]])
    (we.float().sum() + h.sum()).backward()
    expected = scale.float()
    expected[[3, 4, 40, 41]] *= 2
    torch.testing.assert_close(weight.grad, expected)


# ---------------------------------------------------------------------------------------------------------- language model


def slow_losses(h, we, batch):
    losses = (
        F.cross_entropy((h[batch.lm_parent] @ we.t()).double(), batch.lm_target, reduction='none')
        * batch.lm_weight
    )
    return torch.zeros(batch.rows, dtype=torch.float64).index_add(0, batch.lm_row, losses)


@pytest.mark.parametrize('share_context', [False, True])
def test_lm_losses_and_gradients(share_context):
    """A gradient of its own for each row."""
    batch = collate(STORIES * 2, CONFIG.first_position, share_context)
    h, we = double(len(batch.ids), 6), double(CONFIG.first_position + CONFIG.n_ctx, 6, seed=1)
    row_weights = double(batch.rows, seed=2).detach()
    results = []
    for function in language_model_losses, slow_losses:
        losses = function(h, we, batch)
        results.append((losses, *torch.autograd.grad((losses * row_weights).sum(), (h, we))))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16])
def test_the_gradient_in_the_place_of_the_embedding(precision):
    """With dropout, over more rows than are worked on at a time: the head's gradient takes the dropped matrix's place, and that of the embedding theirs."""
    batch = collate(STORIES, CONFIG.first_position, False)
    random = torch.Generator().manual_seed(0)
    ids, positions, batch.lm_target = (
        torch.randint(5000, x.shape, generator=random)
        for x in (batch.ids, batch.positions, batch.lm_target)
    )
    weight, slow_weight = (
        torch.randn(5000, 300, generator=torch.Generator().manual_seed(1)).requires_grad_()
        for _ in range(2)
    )
    with torch.autocast('cpu', torch.bfloat16, enabled=precision == torch.bfloat16):
        h, we = embed(weight, ids, positions, 0.1, True)
        keep = we.detach() != 0
        losses = language_model_losses(h / 100, we, batch, take_we=True)
    losses.sum().backward()
    slow_we = slow_weight * keep / 0.9
    expected = slow_losses((slow_we[ids] + slow_we[positions]) / 100, slow_we, batch)
    expected.sum().backward()
    tolerance = 1e-5 if precision == torch.float32 else 0.02
    torch.testing.assert_close(losses.double(), expected, rtol=tolerance, atol=tolerance)
    assert (weight.grad - slow_weight.grad).norm() < tolerance * slow_weight.grad.norm()
    assert not weight.grad[~keep].any()


@pytest.mark.parametrize('rows', [1023, 1024, 1025, 2500])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('take_we', [False, True])
def test_lm_losses_over_many_rows(rows, dtype, take_we):
    """The logits are computed over some rows of the embedding at a time, and so are the gradients, which may take the embedding's place."""
    batch = collate(STORIES, CONFIG.first_position, True)
    batch = replace(
        batch,
        lm_target=torch.randint(
            rows, batch.lm_target.shape, generator=torch.Generator().manual_seed(0)
        ),
    )
    h, we = double(len(batch.ids), 16), double(rows, 16, seed=1)
    slow = slow_losses(h, we, batch)
    expected = torch.autograd.grad(slow.sum(), (h, we))
    h, we = (x.detach().to(dtype).requires_grad_() for x in (h, we))
    losses = language_model_losses(h, we * 1, batch, take_we)
    torch.testing.assert_close(
        (losses, *torch.autograd.grad(losses.sum(), (h, we))),
        (slow, *expected),
        check_dtype=False,
        rtol=1e-4,
        atol=1e-5,
    )


def test_lm_gradients_by_finite_differences():
    batch = collate(STORIES[:1], CONFIG.first_position, True)
    h, we = double(len(batch.ids), 3), double(CONFIG.first_position + CONFIG.n_ctx, 3, seed=1)
    assert torch.autograd.gradcheck(lambda h, we: language_model_losses(h, we, batch), (h, we))


def test_lm_losses_of_sure_predictions_stay_finite():
    batch = collate(STORIES, CONFIG.first_position, False)
    h, we = (
        300 * torch.randn(len(batch.ids), 6),
        torch.randn(CONFIG.first_position + CONFIG.n_ctx, 6),
    )
    h.requires_grad_()
    losses = language_model_losses(h, we, batch)
    assert losses.isfinite().all() and losses.max() > 100
    losses.sum().backward()
    assert h.grad.isfinite().all()


def test_bf16_rounds_the_products_only():
    """In bf16 the logits are rounded, but sums over them are not: the losses are those of the rounded logits to fp32 precision."""
    batch = collate(STORIES, CONFIG.first_position, False)
    h, we = (
        torch.randn(len(batch.ids), 6, requires_grad=True),
        torch.randn(CONFIG.first_position + CONFIG.n_ctx, 6, requires_grad=True),
    )
    with torch.autocast('cpu', torch.bfloat16):
        losses = language_model_losses(h, we, batch)
    expected = slow_losses(h.bfloat16(), we.bfloat16(), batch)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    gradients, slow_gradients = (torch.autograd.grad(x.sum(), (h, we)) for x in (losses, expected))
    for gradient, slow in zip(gradients, slow_gradients):
        assert gradient.dtype == torch.float32 and (gradient - slow).norm() < 0.02 * slow.norm()


# ------------------------------------------------------------------------------------------------------------ activation


def test_gelu():
    x = torch.cat(
        [torch.linspace(-12, 12, 4801, dtype=torch.float64), torch.tensor([-1e4, 1e4, 0])]
    ).requires_grad_()
    by_tanh = F.gelu(x, approximate='tanh')
    torch.testing.assert_close(gelu(x), by_tanh, rtol=1e-12, atol=1e-15)
    gradient, expected = (
        torch.autograd.grad((y * x.detach()).sum(), x)[0] for y in (gelu(x), by_tanh)
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)
    for dtype in torch.float32, torch.bfloat16:
        torch.testing.assert_close(gelu(x.to(dtype)), F.gelu(x.to(dtype), approximate='tanh'))


# ------------------------------------------------------------------------------------------------------------- attention


def attention(qkv, batch, seen, n_head, keep):
    """Row by row, head by head: softmax(q k / sqrt(size)) of what is `seen`, its entries times `keep`, times v. qkv [the real tokens, 3 * n_embd]."""
    slots = batch.slots[: len(qkv)]
    row, place = slots // batch.length, slots % batch.length
    outputs = []
    for i in range(batch.rows):
        q, k, v = (
            x.unflatten(1, (n_head, -1)).transpose(0, 1) for x in qkv[row == i].chunk(3, 1)
        )  # each [heads, length of the row, size]
        n, of_row = q.shape[1], seen[i, 0] if seen.dim() == 4 else seen
        a = (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).masked_fill(
            ~of_row[:n, :n], -torch.inf
        ).softmax(2) * keep[i, :, :n, :n]
        outputs.append((a @ v).transpose(0, 1).flatten(1))
    assert (place[1:] == place[:-1] + 1).sum() == len(place) - batch.rows  # packed in order
    return torch.cat(outputs)


@pytest.mark.parametrize('share_context', [False, True])
def test_attention_with_dropout(share_context):
    """The probabilities are what is dropped, each entry by its own mask; so for the gradient."""
    batch = collate(STORIES[1:], CONFIG.first_position, share_context)
    qkv, n_head, p, shape = (
        double(len(batch.ids), 3 * 10),
        2,
        0.3,
        (batch.rows, 2, batch.length, batch.length),
    )
    n = (
        np.count_nonzero(batch.lm_weight) + batch.rows
    )  # real tokens: all but the first of a row are predicted
    assert n < len(batch.ids)
    seen = attention_mask(batch.branch) if share_context else None
    torch.manual_seed(1)
    fast = dropped_attention(qkv, batch, seen, n_head, p)[:n]
    torch.manual_seed(1)
    keep = mask((np.prod(shape),), p).view(shape) / (1 - p)
    slow = attention(
        qkv[:n],
        batch,
        torch.ones(shape[2:], dtype=torch.bool).tril() if seen is None else seen,
        n_head,
        keep,
    )
    torch.testing.assert_close(fast, slow)
    weight = torch.randn_like(slow)
    gradient, expected = (torch.autograd.grad((out * weight).sum(), qkv)[0] for out in (fast, slow))
    torch.testing.assert_close(gradient, expected)


def test_padding_and_its_gradient():
    batch = collate(STORIES, CONFIG.first_position, False)
    x = double(len(batch.ids), 2 * 6)
    first, second = padded(x, batch, 3, 2)  # [rows, heads, length, 2]
    assert first.shape == (batch.rows, 3, batch.length, 2)
    back = torch.stack([first, second], 2).permute(0, 3, 2, 1, 4).reshape(-1, 12)[batch.slots]
    assert torch.equal(back, x) and first.count_nonzero() == 6 * len(batch.ids)
    (gradient,) = torch.autograd.grad((back**2).sum(), x)
    torch.testing.assert_close(gradient, 2 * x)


@pytest.mark.parametrize('share_context', [False, True])
@pytest.mark.parametrize('n_layer', [1, 3])
def test_the_last_layer_where_it_is_read(share_context, n_layer):
    """Without the LM head the last layer computes the `_classify_` states alone: the same scores, and the same gradients."""
    model = DoubleHeadModel(Config(**{**CONFIG.__dict__, 'n_layer': n_layer})).double().eval()
    torch.manual_seed(0)
    init_weights(model)
    batch = collate(STORIES, CONFIG.first_position, share_context)
    results = []
    for lm in True, False:
        logits, _ = model(batch, lm=lm)
        results.append(
            (
                logits,
                *torch.autograd.grad(
                    (logits * torch.arange(8).view(4, 2)).sum(), list(model.parameters())
                ),
            )
        )
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_the_gradient_of_the_embedding_is_the_same_every_time():
    """Bit for bit, though many tokens share a row: the order of the sums must not depend on which thread comes first."""
    weight, ids, grad = (
        torch.randn(300, 128, requires_grad=True),
        torch.arange(1280) % 40,
        torch.randn(1280, 128),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(2)

    def gradient():
        h, _ = embed(weight, ids, ids + 100, 0, True)
        return torch.autograd.grad(h, weight, grad)[0]

    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(50))
    finally:
        torch.set_num_threads(threads)
