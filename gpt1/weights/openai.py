"""Pre-trained weights as OpenAI published them, and their way into a model.

A folder holds `params_shapes.json`, the list of the shapes of all arrays, and ten flat float32
arrays, `params_0.npy` and so on, whose numbers follow each other. Of a transformer, array 0 is the
position embedding, array 1 the token embedding, and each layer has 12 more; `pretrain.py` writes
the arrays of an LSTM (`lstm.lstm_shapes`) in the same form.
"""

import json
import math
import os
import sys
from collections.abc import Iterator

import numpy as np
import torch

from gpt1.files import SHAPES_FILE, SHARDS
from gpt1.lstm import LSTMConfig, lstm_shapes
from gpt1.settings import read_json
from utils import InputError, check_not_pointer, whole_file


def model_shapes(n_positions: int, n_vocab: int, n_embd: int, n_layer: int) -> list[list[int]]:
    """Return the shapes of all arrays of a transformer, in OpenAI's order.

    The parameters of a `Block` have the same order; their matrices lack the leading 1.
    """
    n = n_embd
    attention = [[1, n, 3 * n], [3 * n], [1, n, n], [n]]
    norm = [[n], [n]]
    mlp = [[1, n, 4 * n], [4 * n], [1, 4 * n, n], [n]]
    return [[n_positions, n], [n_vocab, n]] + (attention + norm + mlp + norm) * n_layer


class Weights:
    """Pre-trained weights of a folder, in any format. A subclass opens them and reads arrays.

    lstm_units  0 where they are a transformer's. An LSTM has one layer and no positions

    The first arrays are the position embedding (not of an LSTM) and the token embedding; then come
    those of the layers, in OpenAI's order.
    """

    folder: str
    n_vocab: int
    n_embd: int
    n_layer: int = 1
    n_positions: int = sys.maxsize
    lstm_units: int = 0

    def read(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Yield the arrays `first` ... `first + count - 1`, float32, in OpenAI's shapes.

        Raises InputError if one contains NaN or infinity.
        """
        raise NotImplementedError

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
    """The weights in OpenAI's files.

    Opening them checks all that can be checked without reading the numbers. Raises InputError.
    """

    def __init__(self, folder: str):
        self.folder = folder
        path = os.path.join(folder, SHAPES_FILE)
        hint = '; "python download.py" downloads OpenAI\'s weights and vocabulary'
        self.shapes = read_json(path, list, hint)
        self._find_sizes(path)
        self.shards = [_open_shard(os.path.join(folder, name)) for name in SHARDS]
        n_floats, expected = sum(map(len, self.shards)), sum(map(math.prod, self.shapes))
        if n_floats != expected:
            raise InputError(
                f'{folder}: the shards hold {n_floats:,} floats, but {SHAPES_FILE} lists '
                f'{expected:,}; download them again'
            )

    def _find_sizes(self, path: str) -> None:
        shapes = self.shapes
        if len(shapes) < 2 or not all(map(_is_shape, shapes)):
            raise InputError(
                f'{path}: expected a list of shapes, each a list of one to three positive integers'
            )
        expected = lstm_shapes(shapes[0][0], shapes[0][-1], shapes[-2][-1])
        if len(shapes) == len(expected):
            [self.n_vocab, self.n_embd], self.lstm_units = expected[0], shapes[-2][-1]
        else:
            self.n_positions, self.n_vocab, self.n_embd = shapes[0][0], shapes[1][0], shapes[1][-1]
            self.n_layer, rest = divmod(len(shapes) - 2, 12)
            if rest:
                raise InputError(
                    f'{path}: {len(shapes)} shapes, expected 2 and 12 for each layer, or those of '
                    'the seven arrays of an LSTM'
                )
            expected = model_shapes(self.n_positions, self.n_vocab, self.n_embd, self.n_layer)
        for i, (shape, right) in enumerate(zip(shapes, expected)):
            if shape != right:
                raise InputError(f'{path}: array {i} is {shape}, expected {right}')

    def read(self, first: int, count: int) -> Iterator[np.ndarray]:
        """See `Weights.read`."""
        start = sum(map(math.prod, self.shapes[:first]))
        for i, shape in enumerate(self.shapes[first : first + count], first):
            size, offset, parts = math.prod(shape), start, []
            for shard in self.shards:  # the part of the array that lies in it, often empty
                parts.append(shard[max(offset, 0) : max(offset + size, 0)])
                offset -= len(shard)
            array = np.concatenate(parts)
            if not np.isfinite(array).all():
                raise InputError(
                    f'{self.folder}: array {i} of the shards contains NaN or infinity; download '
                    'them again'
                )
            start += size
            yield array.reshape(shape)


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, list) or not 1 <= len(shape) <= 3:
        return False
    return all(type(n) is int and 0 < n < 1 << 31 for n in shape)


def _open_shard(path: str) -> np.memmap:
    check_not_pointer(path)
    try:
        with open(path, 'rb') as f:
            np.lib.format.read_magic(f)
            shape, _, dtype = np.lib.format.read_array_header_1_0(f)
            offset, size = f.tell(), os.fstat(f.fileno()).st_size
        # NumPy crashes on some headers that it accepts, so check before mapping.
        if dtype != np.float32 or len(shape) != 1:
            raise ValueError('expected a flat float32 array')
        if size - offset != 4 * shape[0]:
            raise ValueError(f'{shape[0]:,} floats announced, {size - offset:,} bytes there')
        return np.memmap(path, np.float32, 'r', offset, shape)
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror or error}') from error
    except Exception as error:  # a damaged header, a Python literal, can raise any exception
        raise InputError(
            f'{path} is incomplete or not a NumPy file ({str(error)[:80]}); download it again'
        ) from error


def save_openai_shards(model: torch.nn.Module, folder: str) -> None:
    """Write the embedding and the layers of `model` as OpenAI published theirs.

    The rows of the special tokens are left out: fine-tuning draws them. `params_shapes.json` is
    written last: where it is, the rest is complete. Raises WriteError.
    """
    config, embed = model.config, model.transformer.embed.weight
    if isinstance(config, LSTMConfig):
        parameters = [embed[: config.n_vocab], *model.transformer.transferred()]
        shapes = lstm_shapes(config.n_vocab, config.n_embd, config.lstm_units)
    else:
        layers = model.transformer.h.parameters()
        parameters = [embed[config.first_position :], embed[: config.n_vocab], *layers]
        shapes = model_shapes(config.n_ctx, config.n_vocab, config.n_embd, config.n_layer)
    flat = torch.cat([p.detach().float().cpu().flatten() for p in parameters]).numpy()
    for name, shard in zip(SHARDS, np.array_split(flat, len(SHARDS))):
        with whole_file(os.path.join(folder, name), 'wb') as f:
            np.save(f, shard)
    with whole_file(os.path.join(folder, SHAPES_FILE)) as f:
        json.dump(shapes, f)


@torch.no_grad()
def load_openai_pretrained_model(
    model: torch.nn.Module, weights: Weights, special: np.ndarray, n_transfer: int = 12
) -> list[torch.nn.Parameter]:
    """Load the embedding and the first `n_transfer` layers into `model`; -1 loads nothing.

    special  rows of the special tokens, [3, n_embd]

    An LSTM is loaded whole if `n_transfer` is 0 or more. Needs memory for one array beside the
    model. Returns the parameters that it has filled. Raises InputError.
    """
    if n_transfer < 0:
        return []
    config, embed = model.config, model.transformer.embed.weight
    units = config.lstm_units if isinstance(config, LSTMConfig) else 0
    if bool(units) != bool(weights.lstm_units):
        raise InputError(f'the weights in {weights.folder} are those of another kind of model')
    weights.check(config.n_vocab, config.n_embd, n_transfer)
    if units != weights.lstm_units:
        raise InputError(
            f'--lstm_units {units}: the weights in {weights.folder} have {weights.lstm_units} units'
        )
    if units:
        parameters, n_embeddings = model.transformer.transferred(), 1
    else:
        if config.n_ctx > weights.n_positions:
            raise InputError(
                f'{config.n_ctx} positions are needed, but the weights in {weights.folder} have '
                f'{weights.n_positions}; lower --n_ctx'
            )
        parameters, n_embeddings = list(model.transformer.h[:n_transfer].parameters()), 2
    *positions, tokens = weights.read(0, n_embeddings)
    embed[: config.n_vocab] = torch.from_numpy(tokens)
    embed[config.n_vocab : config.n_vocab + len(special)] = torch.from_numpy(special)
    if positions:
        embed[config.first_position :] = torch.from_numpy(positions[0][: config.n_ctx])
    for p, array in zip(parameters, weights.read(n_embeddings, len(parameters))):
        p.copy_(torch.from_numpy(array).view_as(p))
    return [embed, *parameters]
