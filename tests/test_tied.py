"""The tied embedding: its two uses against the plain forms, and its three rules.

The 'cuda' path runs on the CPU here: PyTorch has the same operations there.
"""

import pytest
import torch
from test_functional import (
    GivenMask,
    assert_close,
    library,  # noqa: F401 (a fixture)
    path,  # noqa: F401 (a fixture)
    random,
    value_and_gradients,
)

from gpt1.ops.masks import DropoutMasks
from gpt1.ops.tied import TiedEmbedding, plain_cross_entropy, plain_embed

EVERY_PATH = pytest.mark.usefixtures('path')
FAST_PATHS = pytest.mark.parametrize('name', ['cpu', 'cuda'])
WITH_AND_WITHOUT_DROPOUT = pytest.mark.parametrize('p', [0, 0.3])

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


@EVERY_PATH
@pytest.mark.parametrize('has_lm', [False, True])
@WITH_AND_WITHOUT_DROPOUT
def test_embedding_and_cross_entropy(p, has_lm):
    weight = random(50, 6)
    _, embedding = tied_loss(weight, p, DropoutMasks(3))
    masks = GivenMask(embedding.matrix != 0)
    expected = value_and_gradients(lambda w: plain_tied_loss(w, p, masks, has_lm), weight)
    result = value_and_gradients(lambda w: tied_loss(w, p, DropoutMasks(3), has_lm)[0], weight)
    assert_close(result, expected, 1e-10)
    torch.testing.assert_close(embedding.matrix, weight * (embedding.matrix != 0) / (1 - p))


@EVERY_PATH
@WITH_AND_WITHOUT_DROPOUT
def test_gradients_of_two_batches_add_up(p):
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
    for name in ('plain', 'cpu'):
        monkeypatch.setenv('GPT1_PATH', name)
        embedding = TiedEmbedding(weight, IDS, POSITIONS, 0.1, DropoutMasks(3))
        results.append([embedding.h, embedding.matrix])
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)
    is_kept = (results[0][1] != 0).double()
    for part in is_kept.split(1000):
        assert abs(part.mean() - 0.9) < 0.005


# The blocks have 1,024 rows on a CPU and 8,192 on a GPU.
@pytest.mark.usefixtures('library')
@pytest.mark.parametrize(
    'name, rows',
    [('cpu', n) for n in (1023, 1024, 1025, 2500)] + [('cuda', n) for n in (8191, 8192, 8193)],
)
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@WITH_AND_WITHOUT_DROPOUT
def test_cross_entropy_in_blocks_of_rows(monkeypatch, name, rows, dtype, tolerance, p):
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


@EVERY_PATH
def test_cross_entropy_of_very_sure_predictions_is_finite():
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


WEIGHT = random(50, 6).detach()


def embed():
    """The embedding of a batch with dropout, and its parameter."""
    weight = WEIGHT.clone().requires_grad_()
    return TiedEmbedding(weight, IDS, POSITIONS, 0.3, DropoutMasks(3)), weight


def loss_of(embedding):
    """The loss of both uses of the matrix."""
    return embedding.h.sum() + embedding.cross_entropy(embedding.h[:4], TARGET).sum()


@pytest.fixture
def on_the_cpu_path(monkeypatch):
    monkeypatch.setenv('GPT1_PATH', 'cpu')


@pytest.mark.usefixtures('on_the_cpu_path')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_rule_1_the_copy_lives_for_one_batch(dtype):
    """After it, the gradient stands where the matrix was: a bfloat16 one in its second half."""
    weight = random(3000, 400, dtype=torch.float32)
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        loss, embedding = tied_loss(weight, 0.3, DropoutMasks(3))
    kept, before = embedding.matrix, embedding.matrix.detach().clone()
    assert kept.dtype == dtype
    loss.backward()
    assert not torch.equal(kept, before)
    n_bytes = weight.numel() * (4 - dtype.itemsize)
    assert weight.grad.data_ptr() == kept.data_ptr() - n_bytes
    assert weight.grad.dtype == torch.float32


@pytest.mark.usefixtures('on_the_cpu_path')
def test_rule_1_only_the_embedding_holds_the_copy():
    """What reads the copy before the LM head finds the gradient there when its turn comes."""
    embedding, _ = embed()
    other = (random(4, 6) @ embedding.matrix.t()).square().sum()
    loss = loss_of(embedding)
    with pytest.raises(RuntimeError, match='inplace'):
        (other + loss).backward()


@FAST_PATHS
def test_rule_2_the_lm_head_is_used_once(monkeypatch, name):
    """Also its backward pass, with dropout or without."""
    monkeypatch.setenv('GPT1_PATH', name)
    embedding, _ = embed()
    twice = loss_of(embedding) + loss_of(embedding)
    with pytest.raises(RuntimeError, match='inplace'):
        twice.backward()
    for p in (0, 0.3):
        loss, _ = tied_loss(random(50, 6), p, DropoutMasks(3))
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match='call it only once'):
            loss.backward()


@pytest.mark.usefixtures('on_the_cpu_path')
def test_rule_3_the_look_up_comes_last():
    """Cut off from the LM head, the look-up does not wait for it, and its gradient is lost."""
    (right, weight), (wrong, cut_off) = embed(), embed()
    keep = right.matrix != 0
    wrong.matrix = wrong.matrix.detach()
    loss_of(right).backward()
    loss_of(wrong).backward()
    assert torch.equal(weight.grad != 0, keep)  # the LM head reaches all rows, but nothing dropped
    assert (cut_off.grad != 0).sum() < keep.sum()


@FAST_PATHS
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


@FAST_PATHS
@WITH_AND_WITHOUT_DROPOUT
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
