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


def layer_shapes(n: int) -> list[list[int]]:
    """Return the shapes of the 12 arrays of a layer of width `n`, in OpenAI's order.

    The parameters of a `Block` have the same order; their matrices lack the leading 1.
    """
    attention = [[1, n, 3 * n], [3 * n], [1, n, n], [n]]
    norm = [[n], [n]]
    mlp = [[1, n, 4 * n], [4 * n], [1, 4 * n, n], [n]]
    return attention + norm + mlp + norm


def model_shapes(n_positions: int, n_vocab: int, n_embd: int, n_layer: int) -> list[list[int]]:
    """Return the shapes of all arrays of a transformer, in OpenAI's order."""
    return [[n_positions, n_embd], [n_vocab, n_embd]] + layer_shapes(n_embd) * n_layer


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
        if n_transfer > self.n_layer and not self.lstm_units:
            raise InputError(
                f'--n_transfer {n_transfer}: the weights in {self.folder} have '
                f'{self.n_layer} layers'
            )
        if n_embd != self.n_embd:
            raise InputError(
                f'--n_embd {n_embd}: the weights in {self.folder} have width {self.n_embd}'
            )
        if n_vocab != self.n_vocab:
            raise InputError(
                f'the weights in {self.folder} are for a vocabulary of {self.n_vocab:,} symbols, '
                f'but the vocabulary has {n_vocab:,}: it belongs to another model'
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
        if not all(_is_shape(shape) for shape in self.shapes):
            raise InputError(
                f'{path}: expected a list of shapes, each a list of one to three positive integers'
            )
        self._find_sizes(path)
        self.paths = [os.path.join(folder, name) for name in SHARDS]
        self.shards = [_open_shard(path) for path in self.paths]
        n_floats, wanted = sum(map(len, self.shards)), sum(map(math.prod, self.shapes))
        if n_floats != wanted:
            raise InputError(
                f'{folder}: the shards hold {n_floats:,} floats, but {SHAPES_FILE} lists '
                f'{wanted:,}; download them again'
            )

    def _find_sizes(self, path: str) -> None:
        """Set the sizes of the model whose arrays have these shapes. Raises InputError."""
        shapes = self.shapes
        if len(shapes) < 2 or not len(shapes[0]) == len(shapes[1]) == 2:
            raise InputError(f'{path}: expected first the shapes of the embeddings, two numbers')
        wanted = lstm_shapes(*shapes[0], shapes[-2][-1])
        if len(shapes) == len(wanted):
            [self.n_vocab, self.n_embd], self.lstm_units = shapes[0], shapes[-2][-1]
        else:
            [self.n_positions, self.n_embd], self.n_vocab = shapes[0], shapes[1][0]
            self.n_layer, rest = divmod(len(shapes) - 2, 12)
            if rest:
                expected = '2 and 12 for each layer, or those of the seven arrays of an LSTM'
                raise InputError(f'{path}: {len(shapes)} shapes, expected {expected}')
            wanted = model_shapes(self.n_positions, self.n_vocab, self.n_embd, self.n_layer)
        for i, (shape, right) in enumerate(zip(shapes, wanted)):
            if shape != right:
                raise InputError(f'{path}: array {i} is {shape}, expected {right}')

    def read(self, first: int, count: int) -> Iterator[np.ndarray]:
        """See `Weights.read`."""
        start = sum(map(math.prod, self.shapes[:first]))
        for shape in self.shapes[first : first + count]:
            array = np.empty(math.prod(shape), dtype=np.float32)
            shard_start = 0
            for path, shard in zip(self.paths, self.shards):
                # The part of the array that lies in this shard
                low = max(start, shard_start)
                high = min(start + len(array), shard_start + len(shard))
                if low < high:
                    piece = shard[low - shard_start : high - shard_start]
                    if not np.isfinite(piece).all():
                        raise InputError(f'{path} contains NaN or infinity; download it again')
                    array[low - start : high - start] = piece
                shard_start += len(shard)
            start += len(array)
            yield array.reshape(shape)


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, list) or not 1 <= len(shape) <= 3:
        return False
    return all(type(n) is int and 0 < n < 1 << 31 for n in shape)


def _open_shard(path: str) -> np.memmap:
    """Map a flat array of float32. Raises InputError."""
    check_not_pointer(path)
    npy = np.lib.format
    try:
        with open(path, 'rb') as f:
            is_first = npy.read_magic(f) == (1, 0)
            read = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
            shape, _, dtype = read(f)
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
    config = model.config
    embed = model.transformer.embed.weight
    if isinstance(config, LSTMConfig):
        parameters = [embed[: config.n_vocab], *model.transformer.transferred()]
        shapes = lstm_shapes(config.n_vocab, config.n_embd, config.lstm_units)
    else:
        parameters = [embed[config.first_position :], embed[: config.n_vocab]]
        for block in model.transformer.h:
            parameters += block.parameters()
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
    is_lstm = isinstance(config, LSTMConfig)
    if is_lstm != bool(weights.lstm_units):
        raise InputError(f'the weights in {weights.folder} are those of another kind of model')
    weights.check(config.n_vocab, config.n_embd, n_transfer)
    if is_lstm:
        if config.lstm_units != weights.lstm_units:
            raise InputError(
                f'--lstm_units {config.lstm_units}: the weights in {weights.folder} have '
                f'{weights.lstm_units} units'
            )
        parameters = model.transformer.transferred()
        tokens, *arrays = weights.read(0, 1 + len(parameters))
    else:
        if config.n_ctx > weights.n_positions:
            raise InputError(
                f'{config.n_ctx} positions are needed, but the weights in {weights.folder} have '
                f'{weights.n_positions}; lower --n_ctx'
            )
        blocks = model.transformer.h[:n_transfer]
        parameters = [p for block in blocks for p in block.parameters()]
        positions, tokens = weights.read(0, 2)
        embed[config.first_position :] = torch.from_numpy(positions[: config.n_ctx])
        arrays = weights.read(2, len(parameters))
    embed[: config.n_vocab] = torch.from_numpy(tokens)
    embed[config.n_vocab : config.n_vocab + len(special)] = torch.from_numpy(special)
    for p, array in zip(parameters, arrays):
        p.copy_(torch.from_numpy(array).view_as(p))
    return [embed, *parameters]
