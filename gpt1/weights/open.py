"""Models from any of the folders and files that people have."""

import json
import os
import re
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from datasets import TASKS, kept_task
from gpt1.files import ENCODER_FILE, MERGES_FILE, RECORD_FILE, SHAPES_FILE
from gpt1.lstm import LSTMConfig, make_config
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
from gpt1.weights.openai import LSTMShards, OpenAIShards, Weights, load_openai_pretrained_model
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import (
    check_vocabulary,
    open_encoder,
    save_vocabulary,
    vocabulary_facts,
)
from model_pytorch import Config, DoubleHeadModel, LMModel, special_rows
from text_utils import TextEncoder
from utils import SPECIAL_TOKENS, InputError, whole_file

PARAMETERS_FILE = 'best_params'


# Settings, and parts of the task, without which the scores or their names are others
DECISIVE = (
    *('n_vocab', 'vocabulary', 'model', 'n_embd', 'n_head', 'n_layer', 'afn', 'lstm_units'),
    *('layout', 'labels', 'n_context', 'soft_labels', 'regression', 'mean', 'std'),
)


SEED = 42  # draws the rows of the special tokens where the weights have none


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
    if os.path.exists(os.path.join(path, RECORD_FILE)) and not os.path.exists(
        os.path.join(path, SHAPES_FILE)
    ):
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
        task = kept_task(settings['task'], f'the settings of {path}')
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
