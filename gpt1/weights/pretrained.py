"""Folders of pre-trained weights: open them, whatever their format, and write their settings."""

import json
import os
from argparse import Namespace

from gpt1.files import SHAPES_FILE
from gpt1.settings import model_settings
from gpt1.tasks.task import Task
from gpt1.weights.huggingface import HuggingFaceWeights
from gpt1.weights.openai import OpenAIShards, Weights
from gpt1.weights.vocabulary import vocabulary_facts
from text_utils import TextEncoder
from utils import whole_file


def open_weights(folder: str) -> Weights:
    """Open the pre-trained weights in `folder`. Raises InputError."""
    return HuggingFaceWeights(folder) if is_huggingface(folder) else OpenAIShards(folder)


def is_huggingface(folder: str) -> bool:
    """Return whether `folder` is a Hugging Face folder."""
    if os.path.exists(os.path.join(folder, SHAPES_FILE)):
        return False
    return os.path.exists(os.path.join(folder, 'config.json'))


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
    settings = settings_of(values, task, encoder)
    if run is not None:
        settings['run'] = run
    with whole_file(os.path.join(folder, 'settings.json')) as f:
        json.dump(settings, f, indent=1)


def settings_of(values: Namespace | dict, task: Task | None, encoder: TextEncoder) -> dict:
    """Return what the `settings.json` of a model holds."""
    settings = {**model_settings(values), **vocabulary_facts(encoder)}
    if task is not None:
        settings['task'] = task.to_dict()
    return settings
