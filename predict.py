"""Predict with parameters that train.py has kept: a class, a choice or a score for each example.

    python predict.py my/new.csv > predictions.csv
    python predict.py my/new.csv --evaluate
    python predict.py "It was fun." "It was dull."
    python predict.py "Rick grew up in ..." "He joined a gang." "He is happy."
    python predict.py

The examples are those of a file in the format of the task, with or without labels; or of the
command line; or of standard input, a text on each line. What the texts of an example are depends on
the task: one text (each text is an example); two texts; or a context and its choices (RACE:
article, question, choices).

The predictions for a file are written as CSV: the texts, the scores, the probability of the
prediction, the prediction, and the label. With --evaluate, for a file with labels, they are written
to a folder, with a report: metrics, their intervals, and what the model gets wrong.
"""

import glob
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

from datasets import kept_task
from gpt1.parsing import Parser, add_model_options, check_file, check_paths, utf8_stdin
from gpt1.settings import read_settings
from utils import InputError, check_writable, exit_status

FILE_ENDINGS = ('.csv', '.tsv', '.txt', '.json', '.jsonl')
MIN_POSITIONS = 6
MAX_WARNINGS = 5  # printed about the rows of a file


def parse_args(argv=None):
    """Parse the command line. Ends the process if something is wrong."""
    parser = Parser(
        prog='predict.py',
        usage='python predict.py [FILE | TEXT ...] [options]',
        description=__doc__,
    )
    parser.add_argument(
        'what', nargs='*', help='a file, or texts; none or -: the texts are those of standard input'
    )
    parser.add_argument(
        '--params',
        help='the parameters, a file or its folder (default: save/<desc>/best_params of the run '
        'that ended last)',
    )
    parser.add_argument(
        '--evaluate',
        action='store_true',
        help='report on a file with labels, in <file>-<run>/ in --analysis_dir',
    )
    parser.add_argument(
        '--analysis_dir', default='analysis/', help='for the report (default: %(default)s)'
    )
    add_model_options(parser)
    args = parser.parse_args(argv)
    if args.what == ['-']:
        args.what = []
    args.file = find_file(args.what)
    check_paths(parser, params=args.params, model_dir=args.model_dir)
    if args.file is not None:
        check_file(parser, args.file)
    elif args.evaluate:
        parser.refuse('--evaluate: name a file with labels')
    return args


def find_file(what: Sequence[str]) -> str | None:
    """Return the file or folder that was given, None if texts were.

    What is not there is a file by its ending, if no blank in it says that it is a text.
    """
    if len(what) != 1:
        return None
    [name] = what
    is_name = name.lower().endswith(FILE_ENDINGS) and len(name.split()) == 1
    return name if is_name or os.path.exists(name) else None


ARGS = parse_args() if __name__ == '__main__' else None  # before PyTorch, which is slow to import

import numpy as np
import torch

from datasets import TASKS, read_examples
from gpt1.report.log import is_real, metric_title
from gpt1.report.predictions import predictions_for, text_names, write_predictions
from gpt1.report.report import warnings_of, write_evaluation
from gpt1.run import record
from gpt1.run.encoding import EncodedDataset, cut_lengths, encode_dataset
from gpt1.run.parallel import find_devices, predict
from gpt1.tasks.task import Example, Task
from gpt1.weights.open import OpenedModel, open_model

# ----------------------------------------------------------------------------------- the examples


def latest_params(args, save_dir: str = 'save') -> str:
    """Return the best_params, of those that can be meant, that a run of train.py wrote last.

    Runs that have not ended do not count, nor those of a task with other texts than `args` has.
    Raises InputError; also where several tasks remain, since nothing says which of them is meant.
    """
    found = glob.glob(os.path.join(glob.escape(save_dir), '*', 'best_params'))
    done = [path for path in found if not os.path.exists(f'{os.path.dirname(path)}/running')]
    if not done:
        state = 'only parameters of runs that have not ended' if found else 'no parameters'
        raise InputError(
            f'there are {state} in {save_dir}/: fine-tune first (python train.py --dataset '
            'rocstories --submit, for example), or name a file with --params'
        )
    last_of = {}  # what tells a task from others -> it, and the last run of it
    for path in sorted(done, key=os.path.getmtime, reverse=True):
        task = read_settings(os.path.dirname(path)).get('task')
        task = kept_task(task, path) if task else TASKS['rocstories']  # an earlier port's
        key = (task.name, task.layout, task.labels, task.regression)
        last_of.setdefault(key, (task, path))
    paths = [path for _, path in last_of.values()]
    if len(paths) > 1:
        paths = [path for task, path in last_of.values() if fits(args, task)] or paths[:1]
    if len(paths) > 1:
        raise InputError(f'{" and ".join(paths)} are of different tasks: name one with --params')
    return paths[0]


def fits(args, task: Task) -> bool:
    """Return whether a task can have the texts of the command line. Those of pipes may be any."""
    try:
        if args.file and os.path.exists(args.file):
            read_examples(args.file, task, [])
        elif args.what and not args.file:
            make_examples(args.what, task)
    except InputError:
        return False
    return True


def names_of(task: Task) -> list[str]:
    """Return what the texts of an example are called. Choices may be fewer or more."""
    n_choices = 4 if task.n_context == 2 else 2  # RACE's, ROCStories'
    return text_names(task, task.n_context + n_choices)


def make_examples(texts: Sequence[str], task: Task) -> list[Example]:
    """Return the examples that the texts of the command line are. Raises InputError."""
    names = names_of(task)
    if task.layout == 'text':
        return [Example(str(i), (text,), None) for i, text in enumerate(texts, 1)]
    fits = len(texts) == len(names)
    if task.layout == 'choices':
        fits = len(texts) >= task.n_context + 2
    if not fits:
        raise InputError(
            f'{len(texts)} texts given; expected those of an example of {task.title}: '
            f'{", ".join(names)}'
        )
    return [Example('1', tuple(texts), None)]


def typed_examples(task: Task, read=input) -> Iterator[Example]:
    """Yield examples as they are typed or piped, a text on each line.

    An empty line ends what is typed. Of what is piped, nothing is lost: between examples it is
    left out, within one it is an empty text; a warning names it.

    Raises InputError if the last example is not complete.
    """
    names = names_of(task)
    width = max(map(len, names)) + 2
    is_typed = sys.stdin.isatty()
    number = 0
    texts = []
    with utf8_stdin():
        while True:
            name = names[len(texts)]
            try:
                text = read(f'{name + ":":{width}}' if is_typed else '')
            except EOFError:
                break
            number += 1
            if not text.strip() and not texts:
                if is_typed:
                    return
                warn(f'line {number} of standard input is empty: left out')
                continue
            if not text.strip():
                warn(f'line {number} of standard input: {name} is empty')
            texts.append(text)
            if len(texts) == len(names):
                yield Example('1', tuple(texts), None)
                texts = []
    if texts:
        raise InputError(
            f'the last example is not complete: expected {", ".join(names)}, each on a line of '
            'its own'
        )


def warn(message: str) -> None:
    print(f'warning: {message}', file=sys.stderr)


# --------------------------------------------------------------------------------- the predictions


def encode(examples: Sequence[Example], opened: OpenedModel) -> EncodedDataset:
    """Encode examples as in training, and cut those that are longer than the model can read.

    Raises InputError if the model can read almost nothing.
    """
    n_positions = opened.model.config.n_ctx
    if n_positions < MIN_POSITIONS:
        raise InputError(
            f'{opened.path}: the model has {n_positions} positions, expected at least '
            f'{MIN_POSITIONS}'
        )
    n_ctx = opened.settings.get('n_ctx', 512)
    encoded = encode_dataset(examples, opened.encoder, opened.task, n_ctx)
    # A model has the positions of the longest sequence of its data, fewer than n_ctx.
    task = replace(opened.task, halves=False)
    lengths = cut_lengths(encoded.lengths, task, n_positions)
    n_longer = int((lengths < encoded.lengths).any(1).sum())
    if opened.task.halves:
        _print_cut(encoded.n_cut, examples, opened.task.cut_rule(n_ctx))
    else:  # what is longer than n_ctx is longer than the positions
        n_longer = max(n_longer, encoded.n_cut)
    _print_cut(n_longer, examples, f'the model can read {n_positions} tokens')
    whole = np.diff(encoded.offsets[encoded.first_text])
    encoded.lengths, encoded.n_cut = lengths, int((lengths.sum(1) < whole).sum())
    return encoded


def _print_cut(n: int, examples: Sequence[Example], rule: str) -> None:
    if n:
        print(f'{n:,} of {len(examples):,} examples are cut: {rule}', file=sys.stderr)


def read_file(path: str, task: Task) -> list[Example]:
    """Read the examples of a file; what is wrong with some goes to stderr. Raises InputError."""
    warnings = []
    examples = read_examples(path, task, warnings)
    for message in warnings[:MAX_WARNINGS]:
        warn(message)
    if len(warnings) > MAX_WARNINGS:
        warn(f'and {len(warnings) - MAX_WARNINGS:,} more like these')
    return examples


def evaluate_file(path: str, opened: OpenedModel, analysis_dir: str) -> None:
    """Write a report on the predictions for a file with labels, and print its scores.

    Raises InputError, also if the folder of the report is that of a run of train.py.
    """
    examples = read_file(path, opened.task)
    if all(example.label is None for example in examples):
        raise InputError(f'--evaluate: {path} has no labels; without --evaluate it is predicted')
    file = os.path.splitext(os.path.basename(os.path.normpath(path)))[0]
    params = os.path.dirname(os.path.abspath(opened.path))
    folder = os.path.join(analysis_dir, f'{file}-{os.path.basename(params)}')
    if record.read(folder):
        raise InputError(f'{folder} is of a run of train.py: choose another --analysis_dir')
    check_writable(folder)
    encoded = encode(examples, opened)
    notes = [f'Parameters: {opened.path}']
    if encoded.n_cut:
        notes.append(f'{encoded.n_cut:,} of {len(examples):,} examples are cut')
    logits = predict(opened.model, encoded).numpy()
    lines = write_evaluation(folder, path, opened.task, examples, logits, notes)
    print('\n'.join(lines).replace('**', ''))  # the bold of the report
    print(f'report: {os.path.join(folder, "report.md")}, or report.html for a browser')


def predict_file(path: str, opened: OpenedModel) -> None:
    """Print the predictions for a file as CSV; on stderr the scores if the labels are known."""
    task, start = opened.task, time.perf_counter()
    examples = read_file(path, task)
    logits = predict(opened.model, encode(examples, opened)).numpy()
    write_predictions(sys.stdout, task, examples, logits)
    summary = f'{len(examples):,} examples in {time.perf_counter() - start:.1f} s'
    known = [i for i, example in enumerate(examples) if example.label is not None]
    if known:
        predicted = predictions_for(task, [examples[i] for i in known], logits[known])
        for metric in task.metrics:
            value = task.score(metric, predicted.labels, predicted.values)
            summary += f', {metric_title(metric, task)} {value:.2f}'
        if len(known) < len(examples):
            summary += f' on the {len(known):,} whose label is known'
        for warning in warnings_of(task, predicted, 'file'):
            print(warning, file=sys.stderr)
    print(summary, file=sys.stderr)


def predict_texts(examples: Sequence[Example], opened: OpenedModel) -> None:
    """Print the prediction for each example: its class and probability, or its score.

    For choices, print the probability of each.
    """
    task = opened.task
    logits = predict(opened.model, encode(examples, opened)).numpy()
    found = predictions_for(task, examples, logits)
    for i, (example, value) in enumerate(zip(examples, found.values.tolist())):
        if task.layout == 'choices':
            for choice, share in zip(example.texts[task.n_context :], found.shares[i]):
                print(f'{share:6.1%}  {choice}')
            continue
        words = [f'{value:.3f}']
        if not is_real(task):
            words = [task.labels[value], f'{found.shares[i][value]:.1%}']
        if task.layout == 'text':
            words += example.texts
        print('  '.join(words))


# -------------------------------------------------------------------------------------------- run


def check_run(opened: OpenedModel) -> None:
    """Warn if the parameters are not those of the run whose name their folder has."""
    there, run_id = record.read(os.path.dirname(opened.path)), opened.settings.get('run')
    if there and run_id is not None and run_id != there.get('id'):
        print(
            f'warning: {opened.path} is of another run than {record.RECORD_FILE} beside it',
            file=sys.stderr,
        )


@torch.inference_mode()
def run(args) -> None:
    """Open the model and predict. Raises InputError."""
    [device] = find_devices(args.device, 1)
    params = args.params or latest_params(args)
    if not args.params:
        print(f'parameters: {params}', file=sys.stderr)
    opened = open_model(params, args.model_dir, args.n_head, args.afn)
    if not opened.finetuned:
        raise InputError(f'{params} is a pre-trained model: fine-tune it first, with train.py')
    check_run(opened)
    opened.model.to(device)
    if args.evaluate:
        evaluate_file(args.file, opened, args.analysis_dir)
    elif args.file:
        predict_file(args.file, opened)
    elif args.what:
        if len(args.what) == 1 and args.what[0].lower().endswith(FILE_ENDINGS):
            warn(f'there is no file "{args.what[0]}": it is taken for a text')
        predict_texts(make_examples(args.what, opened.task), opened)
    else:
        for example in typed_examples(opened.task):
            predict_texts([example], opened)


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    args = parse_args(argv) if ARGS is None else ARGS
    return exit_status('predict.py', run, args, is_result=True)


if __name__ == '__main__':
    sys.exit(main())
