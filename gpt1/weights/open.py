"""Models from any of the folders and files that people have, ready for use."""

import os
from dataclasses import dataclass

import numpy as np
import torch

from datasets import TASKS, kept_task
from gpt1.files import ENCODER_FILE, MERGES_FILE, PARAMETERS_FILE, RECORD_FILE, SHAPES_FILE
from gpt1.lstm import make_config
from gpt1.settings import find_model_dir, read_settings
from gpt1.tasks.task import Task
from gpt1.weights.huggingface import TOKENS, HuggingFaceWeights, open_weights
from gpt1.weights.openai import load_openai_pretrained_model
from gpt1.weights.parameters import load_state, read_parameters
from gpt1.weights.vocabulary import check_vocabulary, open_encoder
from model_pytorch import Config, DoubleHeadModel, LMModel, special_rows
from text_utils import TextEncoder
from utils import SPECIAL_TOKENS, InputError

CHOICE_HEAD = 'multiple_choice_head.summary'  # of OpenAIGPTDoubleHeadsModel
CLASS_HEAD = 'score'  # of OpenAIGPTForSequenceClassification; see `export.fold_bias`
SEED = 42  # draws the rows of the special tokens where the weights have none


@dataclass
class OpenedModel:
    """A model that is ready for use."""

    model: LMModel | DoubleHeadModel  # the latter where it is fine-tuned; set to evaluation
    encoder: TextEncoder
    settings: dict  # see `settings.read_settings`
    task: Task | None  # what it was fine-tuned for; None if it is pre-trained only
    path: str  # the folder or the file that was opened

    @property
    def finetuned(self) -> bool:
        return self.task is not None


def open_model(
    path: str | None = None,
    model_dir: str | None = None,
    n_head: int | None = None,
    afn: str | None = None,
) -> OpenedModel:
    """Open a model, pre-trained or fine-tuned. Raises InputError.

    path       a file of parameters; or a folder with OpenAI's files, those of `train.py`
               (`best_params`) or those of Hugging Face; None: see `settings.find_model_dir`
    model_dir  folder of the vocabulary, where `path` is a file that has none beside it
    n_head     number of heads, where the settings beside the weights do not say it (default: 12)
    afn        activation, likewise (default: gelu)
    """
    path = find_model_dir() if path is None else path
    options = {name: x for name, x in (('n_head', n_head), ('afn', afn)) if x is not None}
    if os.path.isfile(os.path.join(path, PARAMETERS_FILE)):
        path = os.path.join(path, PARAMETERS_FILE)
    if os.path.isfile(path):
        return _open_parameters(path, model_dir, options)
    if not os.path.isdir(path):
        raise InputError(f'no such file or folder: {path}')
    is_run = os.path.exists(os.path.join(path, RECORD_FILE))
    if is_run and not os.path.exists(os.path.join(path, SHAPES_FILE)):
        raise InputError(f'the run in {path} has not kept any parameters (yet)')
    return _open_folder(path, model_dir or path, options)


def _open_folder(path: str, model_dir: str, options: dict) -> OpenedModel:
    weights, settings = open_weights(path), read_settings(path)
    encoder = open_encoder(model_dir)
    check_vocabulary(encoder, settings, model_dir)
    weights.check(encoder.n_vocab, weights.n_embd, weights.n_layer)
    sizes = {'n_vocab': weights.n_vocab, 'n_embd': weights.n_embd, 'n_layer': weights.n_layer}
    if not weights.lstm_units:
        sizes['n_ctx'] = weights.n_positions
    config = _configure(path, {**settings, **options}, weights.lstm_units, **sizes)
    is_huggingface = isinstance(weights, HuggingFaceWeights)
    head = find_classifier(weights) if is_huggingface and weights.special else None
    if head is None:
        special = special_rows(config.n_embd, np.random.RandomState(SEED))
        model, task = LMModel(config), None
    else:
        special = weights.take(TOKENS)[weights.special]
        task = _task_of(settings, path, n_out=len(head['bias']))
        model = DoubleHeadModel(config, task.layout, task.n_out)
        model.task_head.linear.load_state_dict(head)
    load_openai_pretrained_model(model, weights, special, config.n_layer)
    return OpenedModel(model.eval(), encoder, settings, task, path)


def find_classifier(weights: HuggingFaceWeights) -> dict[str, torch.Tensor] | None:
    """Return the weight [n_out, n_embd] and the bias [n_out] of the classifier, or None."""
    for head in (CHOICE_HEAD, CLASS_HEAD):
        weight, bias = f'{head}.weight', f'{head}.bias'
        if weight in weights.tensors:
            n_out = max(1, weights.tensors[weight].numel() // weights.n_embd)
            weights.tensors.setdefault(bias, torch.zeros(n_out))  # CLASS_HEAD has none
            weights.check_shape(weight, [n_out, weights.n_embd])
            weights.check_shape(bias, [n_out])
            return {
                'weight': torch.from_numpy(weights.take(weight)),
                'bias': torch.from_numpy(weights.take(bias)),
            }
    return None


def _open_parameters(path: str, model_dir: str | None, options: dict) -> OpenedModel:
    folder = os.path.dirname(path) or '.'
    state, signed = read_parameters(path)
    settings = {**read_settings(folder), **signed}  # what the file itself says is true
    if model_dir is None and not os.path.exists(os.path.join(folder, ENCODER_FILE)):
        raise InputError(
            f'{path} has no vocabulary beside it ({ENCODER_FILE}, {MERGES_FILE}); --model_dir '
            'names the folder of the vocabulary it was trained with'
        )
    encoder = open_encoder(model_dir or folder)
    check_vocabulary(encoder, settings, model_dir or folder)
    n_rows, n_embd = state['transformer.embed.weight'].shape
    sizes = {'n_vocab': encoder.n_vocab, 'n_embd': n_embd}
    units = settings.get('lstm_units', 0)
    if not units:
        n_ctx = n_rows - encoder.n_vocab - len(SPECIAL_TOKENS)
        sizes.update(n_ctx=n_ctx, n_layer=sum(name.endswith('.ln_1.g') for name in state))
        if n_ctx < 1:
            raise InputError(
                f'{path}: the embedding has {n_rows:,} rows, too few for a vocabulary of '
                f'{encoder.n_vocab:,} symbols: the vocabulary belongs to another model'
            )
    task = _task_of(settings, path, n_out=len(state['task_head.linear.weight']))
    config = _configure(path, {**settings, **options}, units, **sizes)
    with torch.device('meta'):
        model = DoubleHeadModel(config, task.layout, task.n_out)
    load_state(model, state, path, assign=True)  # the numbers stay in the file
    model.requires_grad_()
    return OpenedModel(model.eval(), encoder, settings, task, path)


def _configure(path: str, values: dict, units: int, **sizes: int) -> Config:
    """Return the configuration of an LSTM of `units`, or of a transformer.

    values  settings and options, for what the arrays, whose sizes are given, do not tell
    """
    kind = 'lstm' if units else 'transformer'
    config = make_config({**values, 'model': kind, 'lstm_units': units}, **sizes)
    if not units and config.n_embd % config.n_head:
        raise InputError(
            f'{path}: the width, {config.n_embd}, is not divisible by --n_head {config.n_head}'
        )
    return config


def _task_of(settings: dict, path: str, n_out: int) -> Task:
    task = TASKS['rocstories']  # the only task of the earlier port
    if 'task' in settings:
        task = kept_task(settings['task'], f'the settings of {path}')
    elif n_out != task.n_out:
        raise InputError(f'{path}: no settings.json beside it says for which task it is')
    if task.n_out != n_out:
        raise InputError(
            f'{path}: the classifier has {n_out} outputs, but {task.title} has {task.n_out}'
        )
    return task
