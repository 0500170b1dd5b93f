"""The masks of dropout: their distribution, their form, and that they follow from a seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt1.ops.masks import DropoutMasks, dropout_seed, unpack


def mask(shape, p, seed=0):
    return unpack(DropoutMasks(seed).keep('embd', shape, p), shape[-1])


@pytest.mark.parametrize('p', [1e-12, 1e-6, 0.1, 0.25, 0.5, 0.9, 0.999, 1 - 1e-12])
def test_each_byte_is_as_frequent_as_expected(p):
    """Also the rare bytes, which the table of 65,536 draws does not hold. A chi-squared test."""
    n = 1 << 22
    found = np.bincount(DropoutMasks(0).keep('resid', (8 * n,), p).numpy(), minlength=256)
    n_kept = np.array([byte.bit_count() for byte in range(256)])
    expected = (1 - p) ** n_kept * p ** (8 - n_kept) * n
    is_frequent = expected > 10
    squares = (found - expected)[is_frequent] ** 2 / expected[is_frequent]
    assert abs(squares.sum() - is_frequent.sum()) < 5 * (2 * is_frequent.sum()) ** 0.5
    rare = expected[~is_frequent].sum()
    assert abs(found[~is_frequent].sum() - rare) <= 5 * rare**0.5 + 1


@pytest.mark.parametrize('p', [0.1, 0.25, 0.5])
@pytest.mark.parametrize('distance', [1, 2, 7, 8, 16])
def test_neighbouring_entries_are_independent(p, distance):
    kept = mask((1 << 20,), p)
    both = (kept[distance:] & kept[:-distance]).double()
    expected = (1 - p) ** 2
    # Overlapping pairs are not independent of each other: their mean varies a little more.
    assert abs(both.mean() - expected) < 10 * (expected * (1 - expected) / len(both)) ** 0.5


def test_the_same_seed_draws_the_same_masks_in_the_same_order():
    def draw(seed):
        masks = DropoutMasks(seed)
        masks.start(torch.device('cpu'))  # changes nothing
        return [masks.keep('resid', (100,), 0.5) for _ in range(3)]

    first = draw(1)
    assert all(torch.equal(a, b) for a, b in zip(draw(1), first))
    assert not any(torch.equal(a, b) for a, b in zip(draw(2), first))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])
    # A later version must draw these too: it may resume a run of this one.
    assert [kept.sum().item() for kept in first] == [1841, 1703, 1785]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    st.floats(0.001, 0.999),
    st.integers(0, 2**63),
)
def test_masks_of_any_shape_are_packed_rows_of_bits(shape, p, seed):
    bits = DropoutMasks(seed).keep('embd', shape, p)
    assert bits.dtype == torch.uint8
    assert bits.shape == (*shape[:-1], (shape[-1] + 7) // 8)
    kept = unpack(bits, shape[-1])
    assert kept.dtype == torch.uint8
    expected = np.unpackbits(bits.numpy(), axis=-1)[..., : shape[-1]]
    np.testing.assert_array_equal(kept.numpy(), expected)


def test_each_step_of_a_run_has_its_own_seed_in_every_version():
    """A resumed run continues with the masks that an uninterrupted one has."""
    assert dropout_seed(42, 7, 16) == 3467034311787737074
    numbers = range(20)  # of updates, and of places
    seeds = {dropout_seed(seed, i, j) for seed in (0, 1, 42) for i in numbers for j in numbers}
    assert len(seeds) == 3 * 20 * 20
    assert all(0 <= seed < 2**64 for seed in seeds)
