"""The settings that a model brings along, and the folder of the model; without PyTorch."""

import json
import os
from argparse import Namespace
from collections.abc import Iterable

from gpt1 import ROOT
from gpt1.files import HUGGINGFACE_WEIGHTS, MODEL_FILES, SAMPLE_LSTM, SAMPLE_MODEL, SHAPES_FILE
from gpt1.options import NOT_OF_MODEL, SETTINGS, Number, accepts, expected
from utils import InputError, check_not_pointer

# Facts about the weights that are not options: the number of symbols of their vocabulary, a
# fingerprint of the vocabulary, the task of a fine-tuned model (`datasets.Task.to_dict()`), and the
# id of the run that made it.
FACTS = {'n_vocab': Number(int, 1, 10**9), 'vocabulary': str, 'task': dict, 'run': str}

# Names in the config.json of a Hugging Face folder, and ours; all others are the same in both.
CONFIG_NAMES = {'n_positions': 'n_ctx', 'summary_first_dropout': 'clf_pdrop'}
SAME = ('n_embd', 'n_head', 'n_layer', 'afn', 'embd_pdrop', 'attn_pdrop', 'resid_pdrop')
CONFIG_NAMES |= {name: name for name in SAME}
CONFIG_KEY = 'gpt1'  # our settings and facts in a config.json


def check_settings(values: dict, where: str, facts: bool = False) -> None:
    """Raise InputError if default values for `train.py` are wrong; `facts` allows `FACTS` too."""
    kinds = {name: option.kind for name, option in SETTINGS.items()} | (FACTS if facts else {})
    for name, value in values.items():
        if name not in kinds:
            raise InputError(
                f'{where}: "{name[:40]}" is not a setting; expected {", ".join(SETTINGS)}'
            )
        if not accepts(kinds[name], value):
            raise _wrong(where, name, value, expected(kinds[name]))


def _wrong(where: str, name: str, value: object, wanted: str) -> InputError:
    return InputError(f'{where}: "{name}" is {json.dumps(value)[:40]}, expected {wanted}')


def read_json(path: str, kind: type = dict, hint: str = '') -> dict | list:
    """Return the JSON object, or with `kind` the list, in a file. Raises InputError.

    hint  what the user can do where there is no file
    """
    check_not_pointer(path)
    try:
        with open(path, encoding='utf-8') as f:
            values = json.load(f)
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}{hint}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is not a JSON file ({str(error)[:80]})') from error
    if not isinstance(values, kind):
        raise InputError(f'{path}: expected a JSON {"object" if kind is dict else kind.__name__}')
    return values


def read_settings(folder: str) -> dict:
    """Return what the weights in `folder` bring along: default values for `train.py`, and `FACTS`.

    They come from `settings.json`, or from the `config.json` of a Hugging Face folder. The result
    is empty where there is neither, as with OpenAI's files. Raises InputError.
    """
    path = os.path.join(folder, 'settings.json')
    if os.path.lexists(path):
        settings = read_json(path)
    else:
        path = os.path.join(folder, 'config.json')
        if not os.path.lexists(path):
            return {}
        settings = settings_of_config(read_json(path), path)
    check_settings(settings, path, facts=True)
    return settings


def settings_of_config(config: dict, where: str) -> dict:
    """Return the settings in the `config.json` of a Hugging Face folder. Raises InputError."""
    for name, only in {'model_type': 'openai-gpt', 'layer_norm_epsilon': 1e-5}.items():
        if config.get(name, only) != only:
            raise _wrong(where, name, config[name], json.dumps(only))
    ours = config.get(CONFIG_KEY, {})
    if not isinstance(ours, dict):
        raise _wrong(where, CONFIG_KEY, ours, 'an object')
    settings = {our: config[their] for their, our in CONFIG_NAMES.items() if their in config}
    # Two names of transformers for activations of ours; its "gelu" is the tanh form too.
    other_names = {'gelu_new': 'gelu', 'silu': 'swish'}
    if settings.get('afn') in list(other_names):
        settings['afn'] = other_names[settings['afn']]
    return {**settings, **ours}


def model_settings(values: Namespace | dict, kinds: Iterable[str] = ('model', 'advice')) -> dict:
    """Return those options of a run that the `settings.json` of a model may hold."""
    values = values if isinstance(values, dict) else vars(values)
    others = NOT_OF_MODEL[values.get('model', 'transformer')]
    return {
        name: values[name]
        for name, option in SETTINGS.items()
        if name in values and option.setting in kinds and name not in others
    }


def check_no_weights(folder: str, hint: str) -> None:
    """Raise InputError, which ends in a hint, if `folder` holds a pre-trained model."""
    for name in (SHAPES_FILE, 'params_0.npy', 'config.json', *HUGGINGFACE_WEIGHTS):
        if os.path.lexists(os.path.join(folder, name)):
            raise InputError(f'{folder} holds a finished model ({name}): {hint}')


def is_sample_model(folder: str) -> bool:
    """Return whether `folder` is one of the sample models that come with this program."""
    return os.path.realpath(folder) in map(os.path.realpath, (SAMPLE_MODEL, SAMPLE_LSTM))


def is_openai_model(folder: str) -> bool:
    """Return whether the weights in `folder` may be OpenAI's, with which the paper's scores hold.

    pretrain.py writes settings.json beside those that it makes, convert.py a part of config.json.
    """
    if os.path.exists(os.path.join(folder, 'settings.json')):
        return False
    path = os.path.join(folder, 'config.json')
    return not os.path.exists(path) or CONFIG_KEY not in read_json(path)


def find_model_dir() -> str:
    """Return the folder of the model to use where none is named.

    That is `model/` in the working folder, or else `model/` beside the scripts, if there are
    weights in it; or else the sample model beside the scripts. Raises InputError.
    """
    for folder in ('model', os.path.join(ROOT, 'model')):
        if not os.path.isdir(folder):
            continue
        try:
            names = set(os.listdir(folder))
        except OSError as error:
            raise InputError(f'cannot read {folder}: {error.strerror}') from error
        if names & {*MODEL_FILES, 'config.json', *HUGGINGFACE_WEIGHTS}:
            return shortest_path(folder)
    return shortest_path(SAMPLE_MODEL)


def shortest_path(path: str) -> str:
    """Return `path` relative to the working folder if it is below it, else absolute."""
    path = os.path.abspath(path)
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
