"""Exchange models with Hugging Face's library, which calls them `openai-gpt`.

    python convert.py model/ openai-gpt/
    python convert.py save/rocstories/best_params finetuned/
    python convert.py openai-gpt/ model/

A model of this program, pre-trained or fine-tuned, becomes a Hugging Face folder; a Hugging Face
folder becomes OpenAI's files, or, where it is a fine-tuned model of this program, `best_params` and
what belongs to it. Nothing is lost on the way there and back; the head of a regression computes in
the units of its data there.

Hugging Face's classes for the folder are OpenAIGPTLMHeadModel for a pre-trained model,
OpenAIGPTDoubleHeadsModel for multiple choice, and OpenAIGPTForSequenceClassification for other
tasks. AutoTokenizer gives the sequences that they were trained on, special tokens included.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

import gpt1.startup  # noqa: F401 (before the import of any library)

from gpt1.files import SAMPLE_MODEL
from gpt1.model_options import add_model_options, check_file
from gpt1.parsing import Parser, check_paths
from gpt1.settings import find_model_dir, is_sample_model
from utils import InputError, check_writable, exit_status


def parse_args(argv=None):
    """Parse the command line. Ends the process if something is wrong."""
    parser = Parser(
        prog='convert.py', usage='python convert.py SOURCE TARGET [options]', description=__doc__
    )
    text = "a folder with OpenAI's files, one of Hugging Face, or a file of parameters"
    parser.add_argument('source', help=text)
    parser.add_argument('target', help='a new folder for the result')
    add_model_options(parser)
    args = parser.parse_args(argv)
    check_file(parser, args.source)
    check_paths(parser, model_dir=args.model_dir)
    return args


def check_target(target: str) -> None:
    """Raise InputError if the target cannot be written to, or has files, which may be a model's."""
    check_writable(target)
    for name in os.listdir(target) if os.path.isdir(target) else ():
        path = os.path.join(target, name)
        # The model/ of a clone has a README.md, and download.py leaves a hidden lock.
        if os.path.isfile(path) and name != 'README.md' and not name.startswith('.'):
            raise InputError(f'{path} exists; give a folder without files')


def find_source(source: str) -> str:
    """Return `source`, or the sample model if that is model/ of a clone without weights."""
    is_ours = os.path.realpath(source) == os.path.dirname(os.path.realpath(SAMPLE_MODEL))
    if not is_ours or not is_sample_model(find_model_dir()):
        return source
    note = f'{source} has no weights (python download.py fetches them): this is the sample model'
    print(f'warning: {note}', file=sys.stderr)
    return SAMPLE_MODEL


def run(args) -> None:
    """Convert. Raises InputError."""
    check_target(args.target)

    from gpt1.lstm import LSTMConfig
    from gpt1.weights.export import save_huggingface, save_ours
    from gpt1.weights.huggingface import is_huggingface, open_weights
    from gpt1.weights.open import find_classifier, open_model

    source = find_source(args.source)
    opened = open_model(source, args.model_dir, args.n_head, args.afn)
    if isinstance(opened.model.config, LSTMConfig):
        raise InputError(f'{source} is an LSTM: Hugging Face has no such model to convert it to')
    if is_huggingface(source):
        warnings = []
        save_ours(opened, args.target)
        if not opened.finetuned and find_classifier(open_weights(source)):
            warnings.append(
                'its classifier is left out: without the tokens _start_, _delimiter_ and '
                '_classify_, it is not that of a model that was fine-tuned as this program does'
            )
    else:
        warnings = save_huggingface(opened, args.target)
    print(f'{args.target}: {", ".join(sorted(os.listdir(args.target)))}')
    for warning in warnings:
        print(f'warning: {warning}')


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    return exit_status('convert.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
