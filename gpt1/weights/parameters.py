"""Files of parameters: `best_params`, checkpoints, those of earlier ports. Settings beside weights.

A file that this program wrote carries its settings and a fingerprint of its vocabulary.
"""

import json
import os
import re
from argparse import Namespace

import torch

from gpt1.settings import CONFIG_KEY, check_settings, model_settings
from gpt1.tasks.task import Task
from gpt1.weights.safe_load import load_file, read_numbers
from gpt1.weights.vocabulary import vocabulary_facts
from text_utils import TextEncoder
from utils import InputError, whole_file

# What the files of the port huggingface/pytorch-openai-transformer-lm hold besides
SUPERFLUOUS = re.compile(r'lm_head\.decoder\.weight|transformer\.h\.\d+\.attn\.b')


def read_parameters(path: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Read the parameters in a `best_params`, a checkpoint, or a file of the earlier port.

    Also returns what `sign` wrote; {} in files of before. Raises InputError.
    """
    state = load_file(path)
    if isinstance(state, dict) and isinstance(state.get('model'), dict):
        state = state['model']  # of a checkpoint
    if not isinstance(state, dict):
        raise InputError(f'{path} is not a file of parameters: expected a dict')
    metadata = getattr(state, '_metadata', None)  # PyTorch's own, of every `state_dict`
    signed = metadata.get(CONFIG_KEY, {}) if isinstance(metadata, dict) else {}
    if not isinstance(signed, dict):
        raise InputError(f'{path} is damaged: its settings are not a dict')
    check_settings(signed, path, facts=True)
    found = {}
    for name, p in state.items():
        if not isinstance(name, str) or not isinstance(p, torch.Tensor):
            raise InputError(f'{path} is not a file of parameters: expected names and tensors')
        name = name.removeprefix('module.')
        if not SUPERFLUOUS.fullmatch(name):
            found[name] = read_numbers(p, name, path)
    for name in ('transformer.embed.weight', 'task_head.linear.weight'):
        if name not in found or found[name].dim() != 2 or not found[name].numel():
            raise InputError(f'{path} does not hold the parameters of a fine-tuned GPT: no {name}')
    return found, signed


def load_state(model: torch.nn.Module, state: dict, path: str, assign: bool = False) -> None:
    """Load the parameters that were read from `path`. Raises InputError if they do not fit.

    assign  take the tensors themselves, which may lie in the file, not their values
    """
    try:
        model.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:100]
        raise InputError(f'{path} holds the parameters of another model ({reason})') from error


def sign(model: torch.nn.Module, values: Namespace | dict, task: Task, encoder: TextEncoder):
    """Let each `state_dict` of a model carry what `save_settings` writes beside it.

    It stands in the attribute `_metadata`, where `load_state_dict` passes it over.
    """
    # The round trip makes equal what was read from a file and what was not.
    signed = json.loads(json.dumps(settings_of(values, task, encoder)))

    def add(module, state, prefix, local_metadata):
        state._metadata[CONFIG_KEY] = signed

    model.register_state_dict_post_hook(add)


def settings_of(values: Namespace | dict, task: Task | None, encoder: TextEncoder) -> dict:
    task_fact = {} if task is None else {'task': task.to_dict()}
    return {**model_settings(values), **vocabulary_facts(encoder), **task_fact}


def save_settings(
    folder: str, values: Namespace | dict, encoder: TextEncoder, task: Task | None = None, **more
) -> None:
    """Write `settings.json` beside weights: default values for `train.py`, and facts about them.

    values  options and their values; those of `options.SETTINGS` are kept
    more    facts: `run`, the id of the run that made them, see `record`
    """
    with whole_file(os.path.join(folder, 'settings.json')) as f:
        json.dump({**settings_of(values, task, encoder), **more}, f, indent=1)
