"""Every way into and out of the weights of a model.

Reading:  OpenAI's shards, Hugging Face folders, the `best_params` that `train.py` keeps,
          checkpoints, and the files of the earlier PyTorch port. `open_model` opens any of them.
Writing:  OpenAI's shards, and what belongs to `best_params`.

Nothing that is read can run code. A damaged file raises `InputError` with one line.
"""

import json
import math
import os
import sys
from collections.abc import Iterator

import numpy as np
import torch

from gpt1.files import N_SHARDS, SHAPES_FILE
from gpt1.lstm import LSTMConfig, lstm_shapes
from gpt1.settings import (
    check_sizes,
)
from gpt1.weights.huggingface import HuggingFaceWeights
from utils import InputError, check_not_pointer, whole_file

# ------------------------------------------------------------------------------ files of parameters


# ------------------------------------------------------------------------------ pre-trained weights


class OpenAIShards:
    """Weights as OpenAI published them: `params_shapes.json` and ten flat float32 arrays.

    Array 0 is the position embedding, array 1 the token embedding; each layer has 12 more.
    Opening the folder checks all that can be checked without reading the numbers.
    Raises InputError.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self.shapes = self._read_shapes(os.path.join(folder, SHAPES_FILE))
        self._check_kind(os.path.join(folder, SHAPES_FILE))
        self.paths = [os.path.join(folder, f'params_{i}.npy') for i in range(N_SHARDS)]
        self.shards = [self._open(path) for path in self.paths]
        n_floats, expected = sum(map(len, self.shards)), sum(map(math.prod, self.shapes))
        if n_floats != expected:
            raise InputError(
                f'{folder}: the shards hold {n_floats:,} floats, but {SHAPES_FILE} lists '
                f'{expected:,}; download them again'
            )

    @staticmethod
    def _read_shapes(path: str) -> list[list[int]]:
        check_not_pointer(path)
        try:
            with open(path, encoding='utf-8') as f:
                shapes = json.load(f)
        except OSError as error:
            raise InputError(
                f'cannot read {path}: {error.strerror}; "python download.py" downloads '
                "OpenAI's weights and vocabulary"
            ) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f'{path} is not a JSON file ({str(error)[:80]})') from error
        if not isinstance(shapes, list) or not all(_is_shape(shape) for shape in shapes):
            raise InputError(
                f'{path}: expected a list of shapes, each a list of one to three positive integers'
            )
        return shapes

    def _check_kind(self, path: str) -> None:
        """Raise InputError unless the number of the shapes is that of a transformer."""
        if len(self.shapes) < 2 or len(self.shapes) % 12 != 2:
            raise InputError(f'{path}: {len(self.shapes)} shapes, expected 2 and 12 for each layer')
        if not all(len(shape) == 2 for shape in self.shapes[:2]):
            raise InputError(
                f'{path}: expected first the shapes of the position and the token embedding'
            )

    @staticmethod
    def _open(path: str) -> np.memmap:
        check_not_pointer(path)
        try:
            with open(path, 'rb') as f:
                version = np.lib.format.read_magic(f)
                if version == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(f)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(f)
                offset, size = f.tell(), os.fstat(f.fileno()).st_size
            # NumPy crashes on some headers that it accepts, so check before mapping.
            if dtype == np.float32 and len(shape) == 1:
                if size - offset != 4 * shape[0]:
                    raise ValueError(
                        f'{shape[0]:,} floats announced, {size - offset:,} bytes there'
                    )
                return np.memmap(path, np.float32, 'r', offset, shape)
        except OSError as error:
            raise InputError(f'cannot read {path}: {error.strerror or error}') from error
        except Exception as error:  # a damaged header, a Python literal, can raise any exception
            raise InputError(
                f'{path} is incomplete or not a NumPy file ({str(error)[:80]}); download it again'
            ) from error
        raise InputError(f'{path}: expected a flat float32 array')

    @property
    def n_layer(self) -> int:
        return (len(self.shapes) - 2) // 12

    @property
    def n_positions(self) -> int:
        return self.shapes[0][0]

    @property
    def n_vocab(self) -> int:
        return self.shapes[1][0]

    @property
    def n_embd(self) -> int:
        return self.shapes[1][1]

    def check(self, n_vocab: int, n_embd: int, n_transfer: int) -> None:
        """Raise InputError unless the embedding and the first layers have the sizes asked for."""
        check_sizes(self, n_vocab, n_embd, n_transfer)
        expected = [[self.n_positions, n_embd], [n_vocab, n_embd]]
        expected += [list(shape) for shape in layer_shapes(n_embd)] * max(n_transfer, 0)
        for i, (shape, wanted) in enumerate(zip(self.shapes, expected)):
            if shape != wanted:
                raise InputError(
                    f'{self.folder}: array {i} of {SHAPES_FILE} is {shape}, expected {wanted}'
                )

    def read(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Yield the arrays `first` ... `first + count - 1`, in the shapes of `params_shapes.json`.

        Raises InputError if one contains NaN or infinity.
        """
        start = sum(map(math.prod, self.shapes[:first]))
        for i in range(first, first + count):
            array = np.empty(math.prod(self.shapes[i]), dtype=np.float32)
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
            yield array.reshape(self.shapes[i])


class LSTMShards(OpenAIShards):
    """Weights of an LSTM in files of the same form: the arrays of `lstm.lstm_shapes`.

    It has one layer, and can read sequences of any length. Raises InputError.
    """

    n_layer = 1
    n_positions = sys.maxsize

    def _check_kind(self, path: str) -> None:
        shapes = self.shapes
        units = shapes[-2][-1] if len(shapes) > 1 else 0
        if len(shapes[0]) != 2 or shapes != lstm_shapes(*shapes[0], units):
            raise InputError(f'{path}: expected the shapes of the seven arrays of an LSTM')

    @property
    def n_vocab(self) -> int:
        return self.shapes[0][0]

    @property
    def n_embd(self) -> int:
        return self.shapes[0][1]

    @property
    def lstm_units(self) -> int:
        return self.shapes[-2][1]

    def check(self, n_vocab: int, n_embd: int, n_transfer: int) -> None:
        """Raise InputError unless the embedding has the sizes asked for."""
        check_sizes(self, n_vocab, n_embd, n_transfer=0)


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, list) or not 1 <= len(shape) <= 3:
        return False
    return all(type(n) is int and 0 < n < 1 << 31 for n in shape)


def layer_shapes(n: int) -> list[tuple[int, ...]]:
    """Return the shapes of the 12 arrays of a layer of width `n`, in OpenAI's order.

    The parameters of a `Block` have the same order; their matrices lack the leading 1.
    """
    attention = [(1, n, 3 * n), (3 * n,), (1, n, n), (n,)]
    norm = [(n,), (n,)]
    mlp = [(1, n, 4 * n), (4 * n,), (1, 4 * n, n), (n,)]
    return attention + norm + mlp + norm


def save_openai_shards(model: torch.nn.Module, folder: str) -> None:
    """Write the embedding and the layers of `model` as OpenAI published theirs.

    The rows of the special tokens are left out: fine-tuning draws them. `params_shapes.json` is
    written last: where it is, the rest is complete. Raises WriteError.
    """
    config = model.config
    embed = model.transformer.embed.weight
    if isinstance(config, LSTMConfig):
        parameters = [embed[: config.n_vocab], *model.transformer.transferred()]
        shapes = [list(p.shape) for p in parameters]
    else:
        parameters = [embed[config.first_position :], embed[: config.n_vocab]]
        for block in model.transformer.h:
            parameters += block.parameters()
        shapes = [[config.n_ctx, config.n_embd], [config.n_vocab, config.n_embd]]
        shapes += [list(shape) for shape in layer_shapes(config.n_embd)] * config.n_layer
    flat = torch.cat([p.detach().float().cpu().flatten() for p in parameters]).numpy()
    for i, shard in enumerate(np.array_split(flat, N_SHARDS)):
        with whole_file(os.path.join(folder, f'params_{i}.npy'), 'wb') as f:
            np.save(f, shard)
    with whole_file(os.path.join(folder, SHAPES_FILE)) as f:
        json.dump(shapes, f)


Weights = OpenAIShards | HuggingFaceWeights


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
    if isinstance(config, LSTMConfig) != isinstance(weights, LSTMShards):
        raise InputError(f'the weights in {weights.folder} are those of another kind of model')
    weights.check(config.n_vocab, config.n_embd, n_transfer)
    if config.n_ctx > weights.n_positions:
        raise InputError(
            f'{config.n_ctx} positions are needed, but the weights in {weights.folder} have '
            f'{weights.n_positions}; lower --n_ctx'
        )
    if isinstance(weights, LSTMShards):
        return _load_lstm(model, weights, special)
    positions, tokens = weights.read(0, 2)
    embed[: config.n_vocab] = torch.from_numpy(tokens)
    embed[config.n_vocab : config.first_position] = torch.from_numpy(special)
    embed[config.first_position :] = torch.from_numpy(positions[: config.n_ctx])
    parameters = [p for block in model.transformer.h[:n_transfer] for p in block.parameters()]
    for p, array in zip(parameters, weights.read(2, 12 * n_transfer)):
        p.copy_(torch.from_numpy(array).view_as(p))
    return [embed, *parameters]


def _load_lstm(
    model: torch.nn.Module, weights: LSTMShards, special: np.ndarray
) -> list[torch.nn.Parameter]:
    """Load all of an LSTM. See `load_openai_pretrained_model`."""
    config, embed = model.config, model.transformer.embed.weight
    if config.lstm_units != weights.lstm_units:
        raise InputError(
            f'--lstm_units {config.lstm_units}: the weights in {weights.folder} have '
            f'{weights.lstm_units} units'
        )
    tokens, *arrays = weights.read(0, len(weights.shapes))
    embed[: config.n_vocab] = torch.from_numpy(tokens)
    embed[config.n_vocab :] = torch.from_numpy(special)
    parameters = model.transformer.transferred()
    for p, array in zip(parameters, arrays):
        p.copy_(torch.from_numpy(array))
    return [embed, *parameters]


# ------------------------------------------------------------------------------------------- models
