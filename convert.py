"""Exchange models with Hugging Face's library, which calls them `openai-gpt`.

    python convert.py model/ openai-gpt/
    python convert.py save/rocstories/best_params finetuned/
    python convert.py openai-gpt/ model/

A model of this program, pre-trained or fine-tuned, becomes a Hugging Face folder; a Hugging Face
folder becomes OpenAI's files, or, where it is a fine-tuned model of this program, `best_params` and
what belongs to it. Nothing is lost on the way there and back; the head of a regression computes in
the units of its data there.

Hugging Face's classes for the folder are OpenAIGPTLMHeadModel for a pre-trained model,
OpenAIGPTDoubleHeadsModel for multiple choices, and OpenAIGPTForSequenceClassification for other
tasks. AutoTokenizer gives the sequences that they were trained on, special tokens included.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

from gpt1.files import MODEL_FILES
from gpt1.parsing import Parser, add_model_options, check_file, check_paths
from utils import InputError, check_writable, exit_status, whole_file

# Files that a conversion writes, and that a target must therefore not have.
WRITTEN = (
    *MODEL_FILES,
    'settings.json',
    'best_params',
    'config.json',
    'model.safetensors',
    'vocab.json',
    'merges.txt',
    'tokenizer.json',
    'tokenizer_config.json',
)


def parse_args(argv=None):
    """Parse the command line. Ends the process if something is wrong."""
    parser = Parser(
        prog='convert.py', usage='python convert.py SOURCE TARGET [options]', description=__doc__
    )
    parser.add_argument(
        'source', help="a folder with OpenAI's files, one of Hugging Face, or a file of parameters"
    )
    parser.add_argument('target', help='a new folder for the result')
    add_model_options(parser)
    args = parser.parse_args(argv)
    check_file(parser, args.source)
    check_paths(parser, model_dir=args.model_dir)
    return args


ARGS = parse_args() if __name__ == '__main__' else None  # before PyTorch, which is slow to import

import torch

from gpt1.lstm import refuse_lstm
from gpt1.weights.huggingface import save_huggingface
from gpt1.weights.open import (
    PARAMETERS_FILE,
    OpenedModel,
    is_huggingface,
    open_model,
    open_weights,
    save_finetuned_settings,
    save_pretrained_settings,
    sign,
)
from gpt1.weights.openai import save_openai_shards
from gpt1.weights.vocabulary import save_vocabulary


def check_target(source: str, target: str) -> None:
    """Raise InputError if the target cannot be written to, or something in it would be lost."""
    folder = source if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
    if os.path.realpath(target) == os.path.realpath(folder):
        raise InputError(f'{target} is the folder of the source; give another target')
    check_writable(target)
    for name in WRITTEN:
        path = os.path.join(target, name)
        if os.path.lexists(path):
            raise InputError(f'{path} exists; give a folder without a model')


def save_ours(opened: OpenedModel, folder: str) -> None:
    """Write a model as this program's scripts do: OpenAI's files, or best_params.

    Raises WriteError.
    """
    config = opened.model.config
    sizes = {name: getattr(config, name) for name in ('n_embd', 'n_head', 'n_layer', 'afn')}
    settings = {'n_ctx': config.n_ctx, **opened.settings, **sizes}
    if opened.finetuned:
        save_finetuned_settings(folder, settings, opened.task, opened.encoder)
        sign(opened.model, settings, opened.task, opened.encoder)
        with whole_file(os.path.join(folder, PARAMETERS_FILE), 'wb') as f:
            torch.save(opened.model.state_dict(), f)
    else:
        save_vocabulary(opened.encoder, folder)
        save_pretrained_settings(folder, settings, opened.encoder)
        save_openai_shards(opened.model, folder)


def run(args) -> None:
    """Convert. Raises InputError."""
    check_target(args.source, args.target)
    opened = open_model(args.source, args.model_dir, args.n_head, args.afn)
    refuse_lstm(opened.model.config, args.source, 'Hugging Face has no such model to convert it to')
    notes = []
    if is_huggingface(args.source):
        save_ours(opened, args.target)
        if not opened.finetuned and open_weights(args.source).classifier() is not None:
            notes.append(
                'its classifier is left out: without the tokens _start_, _delimiter_ and '
                '_classify_, it is not that of a model that was fine-tuned as this program does'
            )
    else:
        notes = save_huggingface(
            opened.model, opened.encoder, opened.settings, opened.task, args.target
        )
    print(f'{args.target}: {", ".join(sorted(os.listdir(args.target)))}')
    for note in notes:
        print(f'note: {note}')


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    args = parse_args(argv) if ARGS is None else ARGS
    return exit_status('convert.py', run, args)


if __name__ == '__main__':
    sys.exit(main())
