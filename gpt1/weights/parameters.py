"""Files of the parameters of fine-tuned models: `best_params`, checkpoints, those of earlier ports.

A file that this program wrote carries its settings, so that it is known to belong to them and to
its vocabulary. Nothing that is read can run code. A damaged file raises `InputError`.
"""

import json
import os
import re
from argparse import Namespace

import torch

from gpt1.lstm import LSTMConfig
from gpt1.settings import CONFIG_KEY, check_settings, read_settings
from gpt1.tasks.task import MAX_CLASSES, Task
from gpt1.weights.pretrained import save_pretrained_settings, settings_of
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import save_vocabulary
from model_pytorch import Config, DoubleHeadModel
from text_utils import TextEncoder
from utils import SPECIAL_TOKENS, InputError

# Settings, and parts of the task, without which the scores or their names are others
DECISIVE = (
    *('n_vocab', 'vocabulary', 'model', 'n_embd', 'n_head', 'n_layer', 'afn', 'lstm_units'),
    *('layout', 'labels', 'n_context', 'soft_labels', 'regression', 'mean', 'std'),
)


def read_parameters(path: str) -> dict[str, torch.Tensor]:
    """Read the parameters in a `best_params`, a checkpoint, or a file of the earlier port.

    The files of that port (huggingface/pytorch-openai-transformer-lm, and others of the same
    names) may also hold the masks of attention, a second name for the embedding, and
    `module.` before each name. The names and shapes are checked to be those of a
    `DoubleHeadModel`, and the values to be finite float32 numbers. Raises InputError.
    """
    return read_signed(path)[0]


def read_signed(path: str) -> tuple[dict[str, torch.Tensor], dict]:
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
    signed = json.loads(json.dumps(settings_of(values, task, encoder)))

    def add(module, state, prefix, local_metadata):
        state._metadata[CONFIG_KEY] = signed

    model.register_state_dict_post_hook(add)


def join_settings(signed: dict, folder: str, path: str) -> dict:
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
    units = count_units(state)
    n_vocab, n_embd = len(embed) - len(SPECIAL_TOKENS), embed.shape[1]
    if units:
        config = LSTMConfig(n_vocab=n_vocab, n_embd=n_embd, lstm_units=units)
    else:
        config = Config(n_vocab=n_vocab - 1, n_ctx=1, n_embd=n_embd, n_head=1, n_layer=1)
    with torch.device('meta'):  # takes no memory and draws no random numbers
        like = DoubleHeadModel(config, n_out=len(weight))
    n_layer = 1 if units else count_layers(state)
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


def count_layers(state: dict[str, torch.Tensor]) -> int:
    """Return the number of layers of a transformer."""
    return sum(name.endswith('.ln_1.g') for name in state)


def count_units(state: dict[str, torch.Tensor]) -> int:
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
