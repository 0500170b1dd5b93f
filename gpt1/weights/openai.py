"""Every way into and out of the weights of a model.

Reading:  OpenAI's shards, Hugging Face folders, the `best_params` that `train.py` keeps,
          checkpoints, and the files of the earlier PyTorch port. `open_model` opens any of them.
Writing:  OpenAI's shards, and what belongs to `best_params`.

Nothing that is read can run code. A damaged file raises `InputError` with one line.
"""

import json
import math
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from datasets import TASKS
from gpt1.files import ENCODER_FILE, MERGES_FILE, N_SHARDS, SHAPES_FILE
from gpt1.lstm import LSTMConfig, lstm_shapes, make_config
from gpt1.run import record
from gpt1.settings import (
    CONFIG_KEY,
    check_settings,
    check_sizes,
    find_model_dir,
    model_settings,
    read_settings,
)
from gpt1.tasks.task import MAX_CLASSES, Task
from gpt1.weights.huggingface import HuggingFaceWeights
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import (
    check_vocabulary,
    open_encoder,
    save_vocabulary,
    vocabulary_facts,
)
from model_pytorch import Config, DoubleHeadModel, LMModel, special_rows
from text_utils import TextEncoder
from utils import SPECIAL_TOKENS, InputError, check_not_pointer, whole_file

PARAMETERS_FILE = 'best_params'
# Settings, and parts of the task, without which the scores or their names are others
DECISIVE = (
    *('n_vocab', 'vocabulary', 'model', 'n_embd', 'n_head', 'n_layer', 'afn', 'lstm_units'),
    *('layout', 'labels', 'n_context', 'soft_labels', 'regression', 'mean', 'std'),
)
SEED = 42  # draws the rows of the special tokens where the weights have none


# ------------------------------------------------------------------------------ files of parameters


def read_parameters(path: str) -> dict[str, torch.Tensor]:
    """Read the parameters in a `best_params`, a checkpoint, or a file of the earlier port.

    The files of that port (huggingface/pytorch-openai-transformer-lm, and others of the same
    names) may also hold the masks of attention, a second name for the embedding, and
    `module.` before each name. The names and shapes are checked to be those of a
    `DoubleHeadModel`, and the values to be finite float32 numbers. Raises InputError.
    """
    return _read_signed(path)[0]


def _read_signed(path: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Return what `read_parameters` does, and what `sign` wrote; {} in files of before."""
    state, size = load_file(path), os.path.getsize(path)
    if isinstance(state, dict) and isinstance(state.get('model'), dict):
        state = state['model']  # of a checkpoint
    if not isinstance(state, dict):
        raise InputError(f'{path} is not a file of parameters: expected a dict')
    metadata = getattr(state, '_metadata', None)  # PyTorch's own, of every `state_dict`
    signed = metadata.get(CONFIG_KEY, {}) if isinstance(metadata, dict) else {}
    if not isinstance(signed, dict):
        raise InputError(f'{path} is damaged: its settings are not a dict')
    check_settings(signed, path, facts=True)
    for name, p in state.items():
        if not isinstance(name, str) or not isinstance(p, torch.Tensor):
            raise InputError(f'{path} is not a file of parameters: expected names and tensors')
    state = {name.removeprefix('module.'): p.detach() for name, p in state.items()}
    superfluous = re.compile(r'lm_head\.decoder\.weight|transformer\.h\.\d+\.attn\.b')
    state = {name: p for name, p in state.items() if not superfluous.fullmatch(name)}
    for name, p in state.items():
        plain = p.layout == torch.strided and p.device.type == 'cpu'
        if not plain or p.dtype != torch.float32 or 4 * p.numel() > size:
            raise InputError(f'{path}: {name} is not an array of float32 numbers')
        if not torch.isfinite(p).all():
            raise InputError(f'{path}: {name} contains NaN or infinity')
    _check_shapes(state, path)
    return state, signed


def sign(model: torch.nn.Module, values: Namespace | dict, task: Task, encoder: TextEncoder):
    """Let each `state_dict` of a model carry what `save_finetuned_settings` writes beside it.

    So a file of parameters is known to belong to its settings and its vocabulary. It stands in the
    attribute `_metadata`, where `load_state_dict` passes it over.
    """
    # The round trip makes equal what was read from a file and what was not.
    signed = json.loads(json.dumps(_settings_of(values, task, encoder)))

    def add(module, state, prefix, local_metadata):
        state._metadata[CONFIG_KEY] = signed

    model.register_state_dict_post_hook(add)


def _join_settings(signed: dict, folder: str, path: str) -> dict:
    """Return the settings beside a file of parameters, and where they lack one, those in it.

    Raises InputError if they are those of another model.
    """
    settings = read_settings(folder)
    before = {**signed, **signed.get('task', {})}
    now = {**settings, **settings.get('task', {})}
    for name in DECISIVE:
        if name in before and now.get(name, before[name]) != before[name]:
            raise InputError(
                f'{folder}/settings.json belongs to another model than {path}: {name} is '
                f'{str(now[name])[:80]}, expected {str(before[name])[:80]}; remove it, or put it '
                'right'
            )
    return {**signed, **settings}


def _check_shapes(state: dict[str, torch.Tensor], path: str) -> None:
    """Raise InputError unless the names and shapes are those of a `DoubleHeadModel`."""
    embed = state.get('transformer.embed.weight', torch.empty(0))
    weight = state.get('task_head.linear.weight', torch.empty(0))
    if embed.dim() != 2 or len(embed) < 2 + len(SPECIAL_TOKENS) or not embed.shape[1]:
        raise InputError(f'{path}: no embedding matrix, transformer.embed.weight')
    if weight.dim() != 2 or not 0 < len(weight) <= MAX_CLASSES:
        raise InputError(f'{path}: no classifier, task_head.linear.weight')
    units = _count_units(state)
    n_vocab, n_embd = len(embed) - len(SPECIAL_TOKENS), embed.shape[1]
    if units:
        config = LSTMConfig(n_vocab=n_vocab, n_embd=n_embd, lstm_units=units)
    else:
        config = Config(n_vocab=n_vocab - 1, n_ctx=1, n_embd=n_embd, n_head=1, n_layer=1)
    with torch.device('meta'):  # takes no memory and draws no random numbers
        like = DoubleHeadModel(config, n_out=len(weight))
    n_layer = 1 if units else _count_layers(state)
    expected = {
        name.replace('.h.0.', f'.h.{i}.'): list(p.shape)
        for i in range(n_layer)
        for name, p in like.named_parameters()
    }
    for name in sorted(expected.keys() - state.keys()):
        raise InputError(f'{path} does not hold the parameters of a GPT: {name} is missing')
    for name in sorted(state.keys() - expected.keys()):
        raise InputError(f'{path} does not hold the parameters of a GPT: unexpected {name}')
    for name, shape in expected.items():
        if list(state[name].shape) != shape:
            raise InputError(
                f'{path}: the shape of {name} is {list(state[name].shape)}, expected {shape}'
            )


def _count_layers(names: Iterable[str]) -> int:
    return sum(name.endswith('.ln_1.g') for name in names)


def _count_units(state: dict[str, torch.Tensor]) -> int:
    """Return the number of units of an LSTM, 0 if the parameters are not one's."""
    weight = state.get('transformer.lstm.weight_hh_l0', torch.empty(0))
    return weight.shape[1] if weight.dim() == 2 else 0


def load_parameters(model: torch.nn.Module, path: str) -> None:
    """Load a file of parameters (`best_params`) into `model`. Raises InputError."""
    try:
        model.load_state_dict(read_parameters(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:100]
        raise InputError(f'{path} holds the parameters of another model ({reason})') from error


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


def open_weights(folder: str) -> Weights:
    """Open the pre-trained weights in `folder`: OpenAI's files, or a Hugging Face folder.

    `settings.json` says whether the files are those of an LSTM. Raises InputError.
    """
    if is_huggingface(folder):
        return HuggingFaceWeights(folder)
    kind = LSTMShards if read_settings(folder).get('model') == 'lstm' else OpenAIShards
    return kind(folder)


def is_huggingface(folder: str) -> bool:
    """Return whether `folder` is a Hugging Face folder."""
    if os.path.exists(os.path.join(folder, SHAPES_FILE)):
        return False
    return os.path.exists(os.path.join(folder, 'config.json'))


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


@dataclass
class OpenedModel:
    """A model that is ready for use.

    model      an `LMModel`; where it is fine-tuned, a `DoubleHeadModel`; set to evaluation
    encoder    of its texts
    settings   see `options.read_settings`
    task       what it was fine-tuned for; None where it was not
    finetuned  whether it was
    path       the folder or the file that was opened
    """

    model: LMModel | DoubleHeadModel
    encoder: TextEncoder
    settings: dict
    task: Task | None
    finetuned: bool
    path: str


def open_model(
    path: str | None = None,
    model_dir: str | None = None,
    n_head: int | None = None,
    afn: str | None = None,
) -> OpenedModel:
    """Open a model, pre-trained or fine-tuned.

    path       a file of parameters; or a folder with OpenAI's files, those of `train.py`
               (`best_params`) or those of Hugging Face; None: see `options.find_model_dir`
    model_dir  folder of the vocabulary, where `path` is a file that has none beside it
    n_head     number of heads, where the settings beside the weights do not say it (default: 12)
    afn        activation, likewise (default: gelu)

    Raises InputError.
    """
    if path is None:
        path = find_model_dir()
    if os.path.isfile(os.path.join(path, PARAMETERS_FILE)):
        path = os.path.join(path, PARAMETERS_FILE)
    if os.path.isfile(path):
        return _open_parameters(path, model_dir, n_head, afn)
    if not os.path.isdir(path):
        raise InputError(f'no such file or folder: {path}')
    if record.read(path) and not os.path.exists(os.path.join(path, SHAPES_FILE)):
        raise InputError(f'the run in {path} has not kept any parameters (yet)')
    return _open_folder(path, model_dir, n_head, afn)


def _open_folder(
    path: str, model_dir: str | None, n_head: int | None, afn: str | None
) -> OpenedModel:
    """Open a folder with OpenAI's files, or one of Hugging Face."""
    weights = open_weights(path)
    settings = read_settings(path)
    encoder = open_encoder(model_dir or path)
    check_vocabulary(encoder, settings, model_dir or path)
    check_sizes(weights, encoder.n_vocab, weights.n_embd, weights.n_layer)
    if isinstance(weights, LSTMShards):
        config = _lstm_config(settings, weights.n_vocab, weights.n_embd, weights.lstm_units)
    else:
        config = Config(
            n_vocab=weights.n_vocab,
            n_ctx=weights.n_positions,
            n_embd=weights.n_embd,
            n_layer=weights.n_layer,
            **_choose(settings, weights.n_embd, path, n_head, afn),
        )
    special = head = None
    if isinstance(weights, HuggingFaceWeights):
        special, head = weights.special_rows(), weights.classifier()
    if special is None or head is None:
        special = special_rows(config.n_embd, np.random.RandomState(SEED))
        model, task = LMModel(config), None
    else:
        task = _task_of(settings, path, n_out=len(head[1]))
        model = DoubleHeadModel(config, task.layout, task.n_out)
        linear = model.task_head.linear
        linear.load_state_dict(dict(zip(('weight', 'bias'), map(torch.from_numpy, head))))
    load_openai_pretrained_model(model, weights, special, config.n_layer)
    return OpenedModel(model.eval(), encoder, settings, task, task is not None, path)


def _open_parameters(
    path: str, model_dir: str | None, n_head: int | None, afn: str | None
) -> OpenedModel:
    """Open a file of parameters: `best_params`, a checkpoint, or one of the earlier port."""
    folder = os.path.dirname(path) or '.'
    state, signed = _read_signed(path)
    settings = _join_settings(signed, folder, path)
    if model_dir is None and not os.path.exists(os.path.join(folder, ENCODER_FILE)):
        raise InputError(
            f'{path} has no vocabulary beside it ({ENCODER_FILE}, {MERGES_FILE}); --model_dir '
            'names the folder of the vocabulary it was trained with'
        )
    encoder = open_encoder(model_dir or folder)
    check_vocabulary(encoder, settings, model_dir or folder)
    n_rows, n_embd = state['transformer.embed.weight'].shape
    n_ctx = n_rows - encoder.n_vocab - len(SPECIAL_TOKENS)
    units = _count_units(state)
    if n_ctx != 0 if units else n_ctx < 1:
        raise InputError(
            f'{path}: the embedding has {n_rows:,} rows, {"not" if n_ctx > 0 else "too few"} for '
            f'a vocabulary of {encoder.n_vocab:,} symbols: the vocabulary belongs to another model'
        )
    task = _task_of(settings, path, n_out=len(state['task_head.linear.weight']))
    if units:
        config = _lstm_config(settings, encoder.n_vocab, n_embd, units)
    else:
        config = Config(
            n_vocab=encoder.n_vocab,
            n_ctx=n_ctx,
            n_embd=n_embd,
            n_layer=_count_layers(state),
            **_choose(settings, n_embd, path, n_head, afn),
        )
    with torch.device('meta'):
        model = DoubleHeadModel(config, task.layout, task.n_out)
    model.load_state_dict(state, assign=True)  # the numbers stay in the file
    model.requires_grad_()
    return OpenedModel(model.eval(), encoder, settings, task, True, path)


def _choose(
    settings: dict, n_embd: int, path: str, n_head: int | None, afn: str | None
) -> dict[str, object]:
    """Return the sizes and rates that the shapes of weights do not tell. Raises InputError."""
    n_head = n_head or settings.get('n_head', 12)
    if n_embd % n_head:
        raise InputError(f'{path}: the width, {n_embd}, is not divisible by --n_head {n_head}')
    rates = {name: value for name, value in settings.items() if name.endswith('_pdrop')}
    return {'n_head': n_head, 'afn': afn or settings.get('afn', 'gelu'), **rates}


def _lstm_config(settings: dict, n_vocab: int, n_embd: int, units: int) -> LSTMConfig:
    values = {**settings, 'model': 'lstm', 'n_embd': n_embd, 'lstm_units': units}
    return make_config(values, n_vocab=n_vocab)


def _task_of(settings: dict, path: str, n_out: int) -> Task:
    """Return the task of a fine-tuned model with `n_out` outputs. Raises InputError."""
    if 'task' in settings:
        task = Task.from_dict(settings['task'], f'the settings of {path}')
    elif n_out == 1:
        task = TASKS['rocstories']  # the only task of the earlier port
    else:
        raise InputError(
            f'{path}: no settings.json beside it says for which task it was fine-tuned'
        )
    if task.n_out != n_out:
        raise InputError(
            f'{path}: the classifier has {n_out} outputs, but {task.title} has {task.n_out}'
        )
    return task


def save_pretrained_settings(
    folder: str,
    values: Namespace | dict,
    encoder: TextEncoder,
    task: Task | None = None,
    run: str | None = None,
) -> None:
    """Write `settings.json` beside weights: default values for `train.py`, and facts about them.

    values  options and their values; those of `options.SETTINGS` are kept
    run     the id of the run that made them, see `record`

    Raises WriteError.
    """
    settings = _settings_of(values, task, encoder)
    if run is not None:
        settings['run'] = run
    with whole_file(os.path.join(folder, 'settings.json')) as f:
        json.dump(settings, f, indent=1)


def _settings_of(values, task, encoder):
    settings = {**model_settings(values), **vocabulary_facts(encoder)}
    if task is not None:
        settings['task'] = task.to_dict()
    return settings


def save_finetuned_settings(
    folder: str,
    values: Namespace | dict,
    task: Task,
    encoder: TextEncoder,
    run: str | None = None,
) -> None:
    """Write what belongs to `best_params` beside it: `settings.json` and the vocabulary.

    values, run  see `save_pretrained_settings`

    The folder can then be moved anywhere. Raises WriteError.
    """
    save_vocabulary(encoder, folder)
    save_pretrained_settings(folder, values, encoder, task, run)
