"""Pre-trained weights as OpenAI published them, and their way into a model.

A folder holds `params_shapes.json`, the list of the shapes of all arrays, and ten flat float32
arrays, `params_0.npy` and so on, whose numbers follow each other. `pretrain.py` writes the arrays
of an LSTM (`lstm.lstm_shapes`) in the same form.
"""

import math
import os
import sys
from collections.abc import Iterator

import numpy as np
import torch

from gpt1.files import SHAPES_FILE, SHARDS
from gpt1.lstm import lstm_shapes
from gpt1.settings import read_json
from utils import InputError, check_not_pointer


def model_shapes(n_positions: int, n_vocab: int, n_embd: int, n_layer: int) -> dict[str, list]:
    """Return the shapes of a transformer's arrays in OpenAI's order, by Hugging Face's names.

    The parameters of a `Block` have the same order. Their matrices lack the leading 1.
    """
    n = n_embd
    layer = {
        'attn.c_attn': [1, n, 3 * n],
        'attn.c_proj': [1, n, n],
        'ln_1': [n],
        'mlp.c_fc': [1, n, 4 * n],
        'mlp.c_proj': [1, 4 * n, n],
        'ln_2': [n],
    }
    shapes = {'positions_embed.weight': [n_positions, n], 'tokens_embed.weight': [n_vocab, n]}
    for i in range(n_layer):
        for part, shape in layer.items():
            shapes[f'h.{i}.{part}.weight'] = shape
            shapes[f'h.{i}.{part}.bias'] = shape[-1:]
    return shapes


class Weights:
    """Pre-trained weights of a folder, in any format. A subclass opens and reads them."""

    folder: str
    n_vocab: int
    n_embd: int
    n_layer: int = 1
    n_positions: int = sys.maxsize  # an LSTM has none
    lstm_units: int = 0  # of a transformer

    def check(self, n_vocab: int, n_embd: int, n_transfer: int) -> None:
        """Raise InputError unless the weights have the sizes asked for."""
        where = f'the weights in {self.folder}'
        if n_transfer > self.n_layer and not self.lstm_units:
            raise InputError(f'--n_transfer {n_transfer}: {where} have {self.n_layer} layers')
        if n_embd != self.n_embd:
            raise InputError(f'--n_embd {n_embd}: {where} have width {self.n_embd}')
        if n_vocab != self.n_vocab:
            raise InputError(
                f'{where} are for a vocabulary of {self.n_vocab:,} symbols, but the vocabulary has '
                f'{n_vocab:,}: it belongs to another model'
            )


class OpenAIShards(Weights):
    """The weights in OpenAI's files. Opening them checks all but the numbers."""

    def __init__(self, folder: str):
        self.folder = folder
        path = os.path.join(folder, SHAPES_FILE)
        hint = '; "python download.py" downloads OpenAI\'s weights and vocabulary'
        self.shapes = read_json(path, list, hint)
        if not self._find_sizes():
            raise InputError(
                f'{path}: expected a list of shapes: of 2 arrays and 12 for each layer of a '
                'transformer, or of the seven arrays of an LSTM'
            )
        self.shards = [_open_shard(os.path.join(folder, name)) for name in SHARDS]
        n_floats, expected = sum(map(len, self.shards)), sum(map(math.prod, self.shapes))
        if n_floats != expected:
            raise InputError(
                f'{folder}: the shards hold {n_floats:,} floats, but {SHAPES_FILE} lists '
                f'{expected:,}; download them again'
            )

    def _find_sizes(self) -> bool:
        """Set the sizes. Returns whether the shapes are those of a model."""
        shapes = self.shapes
        try:
            if any(type(n) is not int or not 0 < n < 1 << 31 for shape in shapes for n in shape):
                return False
            self.n_positions, self.n_embd = shapes[0]
            self.n_vocab, self.n_layer = shapes[1][0], len(shapes) // 12
            sizes = (self.n_positions, self.n_vocab, self.n_embd, self.n_layer)
            if shapes == list(model_shapes(*sizes).values()):
                return True
            self.n_vocab, self.n_positions, self.n_layer = shapes[0][0], sys.maxsize, 1
            self.lstm_units = shapes[-2][-1]
            return shapes == lstm_shapes(self.n_vocab, self.n_embd, self.lstm_units)
        except (TypeError, ValueError, IndexError):
            return False

    def read(self) -> Iterator[np.ndarray]:
        """Yield the arrays, read one by one, float32, in OpenAI's order and shapes.

        They are the position embedding (not of an LSTM), the token embedding, and the layers.
        """
        for i, shape in enumerate(self.shapes):
            start, parts = sum(map(math.prod, self.shapes[:i])), []
            for shard in self.shards:  # the part of the array that lies in it, often empty
                parts.append(shard[max(start, 0) : max(start + math.prod(shape), 0)])
                start -= len(shard)
            array = np.concatenate(parts)
            if not np.isfinite(array).all():
                raise InputError(f'{self.folder}: array {i} of the shards contains NaN or infinity')
            yield array.reshape(shape)


def _open_shard(path: str) -> np.memmap:
    check_not_pointer(path)
    try:
        with open(path, 'rb') as f:
            np.lib.format.read_magic(f)
            shape, _, dtype = np.lib.format.read_array_header_1_0(f)
            # As long as the file: NumPy crashes on some of the lengths that it reads.
            shard = np.memmap(f, np.float32, 'r', f.tell())
        if dtype != np.float32 or shape != shard.shape:
            raise ValueError(f'expected {len(shard):,} numbers of float32')
        return shard
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror or error}') from error
    except Exception as error:  # a damaged header, a Python literal, can raise any exception
        raise InputError(
            f'{path} is incomplete or not a NumPy file ({str(error)[:80]}); download it again'
        ) from error


@torch.no_grad()
def load_openai_pretrained_model(
    model: torch.nn.Module, weights: Weights, special: np.ndarray, n_transfer: int = 12
) -> list[torch.nn.Parameter]:
    """Load the embedding and the first `n_transfer` layers into `model`; -1 loads nothing.

    special  rows of the special tokens, [3, n_embd]

    An LSTM is loaded whole if `n_transfer` is 0 or more. Returns the parameters that it has filled.
    """
    if n_transfer < 0:
        return []
    config, embed = model.config, model.transformer.embed.weight
    weights.check(config.n_vocab, config.n_embd, n_transfer)
    units = getattr(config, 'lstm_units', 0)
    if units != weights.lstm_units:
        raise InputError(
            f'the weights in {weights.folder} are of another kind of model, or size: they have '
            f'{weights.lstm_units} LSTM units, not --lstm_units {units}'
        )
    if config.n_ctx > weights.n_positions:
        raise InputError(
            f'{config.n_ctx} positions are needed, but the weights in {weights.folder} have '
            f'{weights.n_positions}; lower --n_ctx'
        )
    arrays = map(torch.from_numpy, weights.read())
    if units:
        parameters = model.transformer.transferred()
    else:
        parameters = list(model.transformer.h[:n_transfer].parameters())
        embed[config.first_position :] = next(arrays)[: config.n_ctx]
    embed[: config.n_vocab] = next(arrays)
    embed[config.n_vocab : config.n_vocab + len(special)] = torch.from_numpy(special)
    for p, array in zip(parameters, arrays):
        p.copy_(array.view_as(p))
    return [embed, *parameters]
