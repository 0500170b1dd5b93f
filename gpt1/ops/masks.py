"""The masks of dropout: drawn cheaply, from a seed, one bit an entry."""

import functools
import math
import os

import numpy as np
import torch
from torch import Tensor


class DropoutMasks:
    """The source of the dropout masks of one batch. All masks follow from `seed`.

    The model requests them in the order of the original program: the embedding matrix; for each
    layer the attention probabilities, the output of attention and the output of the MLP; the
    classifier. On a GPU, PyTorch's kernels draw their own, from the generator that `start` seeds.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.generator = np.random.Generator(np.random.SFC64(seed))

    def start(self, device: torch.device) -> None:
        """Prepare for the first mask of a batch on `device`."""
        if device.type == 'cuda':
            torch.cuda.default_generators[device.index or 0].manual_seed(self.seed % 2**63)
        elif os.environ.get('GPT1_PATH') == 'cuda':  # these kernels on the CPU
            torch.default_generator.manual_seed(self.seed % 2**63)

    def keep(self, kind: str, shape: tuple[int, ...], p: float) -> Tensor:
        """Draw a mask of shape [..., n], one bit an entry: 1, keep, with probability 1 - p.

        `kind` is what is dropped: 'embd', 'attn', 'resid' or 'clf', as in the options' names.
        Returns uint8 [..., n / 8, rounded up], packed as by `numpy.packbits`.

        Each 16 random bits select a byte, eight entries, from a table. The few numbers beyond its
        end (for p = 0.1, one in 650) select from the distribution of what it is missing, so the
        result is exact in p.
        """
        table, missing = _byte_table(p)
        shape = (*shape[:-1], (shape[-1] + 7) // 8)
        n = math.prod(shape)
        numbers = self.generator.integers(0, 1 << 64, (n + 3) // 4, dtype=np.uint64)
        numbers = numbers.view(np.uint16)[:n]
        beyond = np.flatnonzero(numbers >= len(table))
        numbers = numbers.astype(np.int32)
        numbers[beyond] = 0
        bits = table.index_select(0, torch.from_numpy(numbers))
        rare = missing.searchsorted(self.generator.random(len(beyond)), side='right')
        bits[torch.from_numpy(beyond)] = torch.from_numpy(rare.astype(np.uint8))
        return bits.view(shape)


@functools.lru_cache
def _byte_table(p):
    """Return all bytes, each as often as expected among 65,536 draws, rounded down.

    And the cumulative distribution [256] of what is missing since it was rounded down.
    """
    n_kept = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)
    expected = (1 - p) ** n_kept * p ** (8 - n_kept) * 65536
    table = np.arange(256, dtype=np.uint8).repeat(expected.astype(int))
    missing = np.cumsum(expected - expected.astype(int))
    if missing[-1] > 0:
        missing /= missing[-1]
    return torch.from_numpy(table), missing


def unpack(bits: Tensor, n: int) -> Tensor:
    """Unpack a mask to one entry a byte: uint8 [..., n]. (PyTorch multiplies bool more slowly.)"""
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1, count=n))


def flat_mask(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Unpack a flat mask to the given shape, uint8."""
    return unpack(bits, math.prod(shape)).view(shape)


def drop(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """Return x / (1 - p) where the mask `keep` is 1, elsewhere 0."""
    return (x * keep).mul_(1 / (1 - p))


def dropout_seed(seed: int, update: int, place: int) -> int:
    """Return the seed of a step's masks from that of the run and the step's place in an update."""
    sequence = np.random.SeedSequence((seed, update, place))
    return int(sequence.generate_state(1, np.uint64)[0])
