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
    plain,
    random,
    value_and_gradients,
)

from gpt1.ops.masks import DropoutMasks
from gpt1.ops.tied import embed, plain_cross_entropy

EVERY_PATH = pytest.mark.usefixtures('path')
CPU_PATH = pytest.mark.parametrize('path', ['cpu'], indirect=True)
WITH_AND_WITHOUT_DROPOUT = pytest.mark.parametrize('p', [0, 0.3])

IDS = torch.tensor([3, 7, 3, 0, 3])
POSITIONS = torch.tensor([40, 41, 42, 40, 7])  # 7: both uses may add to the same row
TARGET = torch.tensor([0, 7, 49, 3])


def embedded(weight, p, masks=None):
    """The embedding of a batch. 'cuda' draws from a fixed seed."""
    torch.manual_seed(0)
    return embed(weight, IDS, POSITIONS, p, masks or DropoutMasks(3))


def tied_loss(weight, p, masks=None, has_lm=True):
    """A loss of both uses of the matrix, and the embedding."""
    embedding = embedded(weight, p, masks)
    loss = (embedding.h**2).sum()
    if has_lm:
        losses = embedding.cross_entropy(embedding.h[:4], TARGET)
        loss = loss + (losses * torch.arange(1, 5)).sum()
    return loss, embedding


@EVERY_PATH
@pytest.mark.parametrize('has_lm', [False, True])
@WITH_AND_WITHOUT_DROPOUT
def test_embedding_and_cross_entropy(p, has_lm):
    weight = random(50, 6)
    matrix = embedded(weight, p).matrix
    torch.testing.assert_close(matrix, weight * (matrix != 0) / (1 - p))
    masks = GivenMask(matrix != 0)
    result = value_and_gradients(lambda w: tied_loss(w, p, None, has_lm)[0], weight)
    expected = value_and_gradients(plain(lambda w: tied_loss(w, p, masks, has_lm)[0]), weight)
    assert_close(result, expected, 1e-10)


@EVERY_PATH
@WITH_AND_WITHOUT_DROPOUT
def test_gradients_of_two_batches_add_up(p):
    weight = random(50, 6)
    before = weight.detach().clone()
    gradients = []
    for seed in (1, 2):
        gradients += torch.autograd.grad(tied_loss(weight, p, DropoutMasks(seed))[0], weight)
    for seed in (1, 2):
        tied_loss(weight, p, DropoutMasks(seed))[0].backward()
    torch.testing.assert_close(weight.grad, sum(gradients))
    assert torch.equal(weight, before)


@CPU_PATH
def test_embedding_of_the_plain_and_the_cpu_path_draw_the_same_mask(path):  # noqa: F811
    """Over more rows than one block of the CPU's cache, with a width that 8 does not divide."""
    weight = random(5000, 257)
    result, expected = embedded(weight, 0.1), plain(embedded)(weight, 0.1)
    torch.testing.assert_close(result.h, expected.h, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.matrix, expected.matrix, rtol=0, atol=1e-12)
    for part in (result.matrix != 0).double().split(1000):
        assert abs(part.mean() - 0.9) < 0.005


# The blocks have 1,024 rows on a CPU and 8,192 on a GPU.
@pytest.mark.usefixtures('library')
@pytest.mark.parametrize(
    'path, rows',
    [('cpu', n) for n in (1023, 1024, 1025, 2500)] + [('cuda', n) for n in (8191, 8192, 8193)],
    indirect=['path'],
)
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@WITH_AND_WITHOUT_DROPOUT
def test_cross_entropy_in_blocks_of_rows(path, rows, dtype, tolerance, p):  # noqa: F811
    weight, h = random(rows, 16, dtype=dtype), random(6, 16, seed=1, dtype=dtype)
    target = torch.tensor([0, 5, rows - 1, rows - 2, 1000, min(1024, rows - 1)])

    def losses(h, weight, masks=None):
        embedding = embedded(weight, p, masks)
        return embedding.cross_entropy(h, target) + embedding.h.sum()

    masks = GivenMask(embedded(weight, p).matrix != 0)
    expected = value_and_gradients(plain(lambda h, weight: losses(h, weight, masks)), h, weight)
    assert_close(value_and_gradients(losses, h, weight), expected, tolerance)


@EVERY_PATH
def test_cross_entropy_of_very_sure_predictions_is_finite():
    h = (300 * random(4, 6)).detach().requires_grad_()
    weight = random(50, 6, seed=1)
    embedding = embedded(weight, 0)
    losses = embedding.cross_entropy(h, TARGET)
    assert losses.max() > 100
    assert_close([losses], [plain_cross_entropy(h, weight, TARGET)], 1e-10)
    (losses.sum() + embedding.h.sum()).backward()
    assert h.grad.isfinite().all() and weight.grad.isfinite().all()


@CPU_PATH
def test_the_gradient_of_the_embedding_is_repeatable(path):  # noqa: F811
    """To the last bit, although many tokens share a row and two threads add them up."""
    weight, grad = random(300, 128, dtype=torch.float32), random(1280, 128, dtype=torch.float32)
    ids = torch.arange(1280) % 40

    def gradient():
        h = embed(weight, ids, ids + 100, 0, None).h
        return torch.autograd.grad(h, weight, grad)[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    first, *others = (gradient() for _ in range(11))
    torch.set_num_threads(threads)
    assert all(torch.equal(other, first) for other in others)


def loss_of(embedding):
    return embedding.h.sum() + embedding.cross_entropy(embedding.h[:4], TARGET).sum()


@CPU_PATH
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_rule_1_the_copy_lives_for_one_batch(path, dtype):  # noqa: F811
    """After it, the gradient stands where the matrix was: a bfloat16 one in its second half."""
    weight = random(3000, 400, dtype=torch.float32)
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        loss, embedding = tied_loss(weight, 0.3)
    kept, before = embedding.matrix, embedding.matrix.detach().clone()
    assert kept.dtype == dtype
    loss.backward()
    assert not torch.equal(kept, before)
    n_bytes = weight.numel() * (4 - dtype.itemsize)
    assert weight.grad.data_ptr() == kept.data_ptr() - n_bytes
    assert weight.grad.dtype == torch.float32


@CPU_PATH
def test_rule_1_only_the_embedding_holds_the_copy(path):  # noqa: F811
    """What reads the copy before the LM head finds the gradient there when its turn comes."""
    embedding = embedded(random(50, 6), 0.3)
    other = (random(4, 6) @ embedding.matrix.t()).square().sum()
    loss = loss_of(embedding)
    with pytest.raises(RuntimeError, match='inplace'):
        (other + loss).backward()


def test_rule_2_the_lm_head_is_used_once(path):  # noqa: F811
    """Also its backward pass, with dropout or without."""
    embedding = embedded(random(50, 6), 0.3)
    twice = loss_of(embedding) + loss_of(embedding)
    with pytest.raises(RuntimeError, match='inplace'):
        twice.backward()
    for p in (0, 0.3):
        loss, _ = tied_loss(random(50, 6), p)
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match='call it only once'):
            loss.backward()


@CPU_PATH
def test_rule_3_the_look_up_comes_last(path):  # noqa: F811
    """Cut off from the LM head, the look-up does not wait for it, and its gradient is lost."""
    weight, cut_off = random(50, 6), random(50, 6)
    right, wrong = embedded(weight, 0.3), embedded(cut_off, 0.3)
    keep = right.matrix != 0
    wrong.matrix = wrong.matrix.detach()
    loss_of(right).backward()
    loss_of(wrong).backward()
    assert torch.equal(weight.grad != 0, keep)  # the LM head reaches all rows, but nothing dropped
    assert (cut_off.grad != 0).sum() < keep.sum()


@EVERY_PATH
def test_embedding_in_bf16_rounds_the_matrix_but_not_the_states():
    weight = random(50, 6, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        embedding = embedded(weight, 0.5)
    keep = embedding.matrix.detach() != 0
    dropped = weight * keep * 2
    torch.testing.assert_close(embedding.h, dropped[IDS] + dropped[POSITIONS])
    torch.testing.assert_close(embedding.matrix.float(), dropped, rtol=2**-8, atol=0)
    (gradient,) = torch.autograd.grad(embedding.h.sum(), weight)
    expected = torch.autograd.grad((dropped[IDS] + dropped[POSITIONS]).sum(), weight)
    torch.testing.assert_close(gradient, expected[0])


@EVERY_PATH
@WITH_AND_WITHOUT_DROPOUT
@pytest.mark.parametrize('rows', [50, 2500])
def test_bf16_rounds_the_products_only(p, rows):
    """The losses are those of the rounded logits, with sums in float32."""
    h, weight = random(4, 6, dtype=torch.float32), random(rows, 6, seed=1, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        embedding = embedded(weight, p)
        keep = embedding.matrix.detach() != 0
        losses = embedding.cross_entropy(h, TARGET)
    assert losses.dtype == torch.float32
    dropped = weight * keep / (1 - p)
    expected = plain_cross_entropy(h.bfloat16(), embedding.matrix.bfloat16(), TARGET)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(losses.sum() + 0 * embedding.h.sum(), (h, weight))
    others = torch.autograd.grad(plain_cross_entropy(h, dropped, TARGET).sum(), (h, weight))
    for gradient, other in zip(gradients, others):
        assert gradient.dtype == torch.float32
        assert (gradient - other).norm() < 0.02 * other.norm()
