"""Predict with parameters that train.py has kept: a class, a choice or a score for each example.

    python predict.py my/new.csv > predictions.csv
    python predict.py my/new.csv --evaluate
    python predict.py "It was fun." "It was dull."
    python predict.py "Rick grew up in ..." "He joined a gang." "He is happy."
    python predict.py

The examples are those of a file in the format of the task, with or without labels; or of the
command line; or of standard input, a text on each line. An example is one text (each text is one);
two texts; or a context and its choices (RACE: article, question, choices).

The predictions for a file are written as CSV; with --evaluate, if it has labels, to a folder with a
report: metrics, their intervals, and what the model gets wrong.
"""

import glob
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

from datasets import kept_task
from gpt1.model_options import add_model_options, check_file, utf8_stdin
from gpt1.parsing import Parser, check_paths
from gpt1.settings import read_settings
from utils import InputError, check_writable, exit_status

FILE_ENDINGS = ('.csv', '.tsv', '.txt', '.json', '.jsonl')


def parse_args(argv=None):
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
    args.what = [] if args.what == ['-'] else args.what
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
from gpt1.report.intervals import results
from gpt1.report.log import is_real, metric_title
from gpt1.report.predictions import (
    predictions_for,
    save_predictions,
    text_names,
    write_predictions,
)
from gpt1.report.report import describe, report_predictions, warnings_of, write
from gpt1.run import record
from gpt1.run.checkpoint import is_held
from gpt1.run.encoding import EncodedDataset, cut_lengths, encode_dataset
from gpt1.run.parallel import find_devices, predict
from gpt1.tasks.task import Example, Task
from gpt1.weights.open import OpenedModel, open_model


def latest_params(args) -> str:
    """Return the best_params that a run wrote last, of a task that can have the texts.

    Runs that still train do not count. Raises InputError, also where several tasks remain: nothing
    says which of them is meant.
    """
    found = glob.glob(os.path.join('save', '*', 'best_params'))
    done = [path for path in found if not is_held(os.path.dirname(path))]
    if not done:
        state = 'only parameters of runs that still train' if found else 'no parameters'
        raise InputError(
            f'there are {state} in save/: fine-tune first (python train.py --dataset '
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
    try:
        find_examples(args, task, [])
    except InputError:
        return False
    return True


def find_examples(args, task: Task, warnings: list[str]) -> Iterable[Example]:
    """Return the examples that were given, and append what is wrong with rows to `warnings`.

    Those of standard input are read one by one. Raises InputError.
    """
    if args.file:
        return read_examples(args.file, task, warnings)
    return make_examples(args.what, task) if args.what else typed_examples(task)


def names_of(task: Task) -> list[str]:
    n_choices = 4 if task.n_context == 2 else 2  # RACE's, ROCStories'; there may be fewer or more
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


def typed_examples(task: Task) -> Iterator[Example]:
    """Yield examples as they are typed or piped, a text on each line.

    An empty line ends what is typed. Of what is piped, nothing is lost: between examples it is
    left out, within one it is an empty text; a warning names it.
    """
    names, texts = names_of(task), []
    width = max(map(len, names)) + 2
    is_typed = sys.stdin.isatty()
    with utf8_stdin():
        for number in itertools.count(1):
            name = names[len(texts)]
            try:
                text = input(f'{name + ":":{width}}' if is_typed else '')
            except EOFError:
                break
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


def encode(examples: Sequence[Example], opened: OpenedModel) -> EncodedDataset:
    """Encode examples as in training, and cut those that are longer than the model can read."""
    task, n_positions = opened.task, opened.model.config.n_ctx
    n_ctx = opened.settings.get('n_ctx', 512)
    # A model has the positions of the longest sequence of its data, fewer than n_ctx.
    n_first = n_ctx if task.halves else min(n_ctx, n_positions)
    encoded = encode_dataset(examples, opened.encoder, task, n_first)
    n_longer = encoded.n_cut
    if task.halves:
        print_cut(encoded.n_cut, examples, task.cut_rule(n_ctx))
        lengths = cut_lengths(encoded.lengths, replace(task, halves=False), n_positions)
        n_longer = (lengths < encoded.lengths).any(1).sum()
        whole = np.diff(encoded.offsets[encoded.first_text])
        encoded.lengths, encoded.n_cut = lengths, int((lengths.sum(1) < whole).sum())
    print_cut(n_longer, examples, f'the model can read {n_positions} tokens')
    return encoded


def print_cut(n: int, examples: Sequence[Example], rule: str) -> None:
    if n:
        print(f'{n:,} of {len(examples):,} examples are cut: {rule}', file=sys.stderr)


def predict_file(args, examples: list[Example], opened: OpenedModel) -> None:
    """Print the predictions for a file as CSV, and on stderr the scores if labels are known.

    With --evaluate, write them and a report to a folder, and print the scores.
    """
    task, start = opened.task, time.perf_counter()
    known = [i for i, example in enumerate(examples) if example.label is not None]
    folder = report_folder(args, opened, known) if args.evaluate else None
    encoded = encode(examples, opened)
    logits = predict(opened.model, encoded).numpy()
    found, scores = None, []
    if known:
        found = predictions_for(task, [examples[i] for i in known], logits[known])
        scores = results(task, {'': found})
    warnings = warnings_of(task, found, 'file')
    if args.evaluate:
        save_predictions(folder, task, {'test': (examples, logits)})
        notes, lines = [f'Parameters: {opened.path}'], describe(scores)
        if encoded.n_cut:
            notes.append(f'{encoded.n_cut:,} of {len(examples):,} examples are cut')
        if len(known) < len(examples):
            lines.append(f'- {len(known):,} of {len(examples):,} examples have a label.')
        path = os.path.join(folder, 'report.md')
        sections = report_predictions(folder, task, found)
        write(path, args.file, [*notes, *warnings], [*lines, *sections])
        print('\n'.join(lines).replace('**', ''))  # the bold of the report
        print(f'report: {path}, or report.html for a browser')
        return
    write_predictions(sys.stdout, task, examples, logits)
    summary = [f'{len(examples):,} examples in {time.perf_counter() - start:.1f} s']
    summary += [f'{metric_title(s.metric, task)} {s.value:.2f}' for s in scores]
    if 0 < len(known) < len(examples):
        summary[-1] += f' on the {len(known):,} whose label is known'
    print('\n'.join([*warnings, ', '.join(summary)]), file=sys.stderr)


def report_folder(args, opened: OpenedModel, known: Sequence[int]) -> str:
    """Return the folder of the report on a file, if one can be written there."""
    if not known:
        raise InputError(
            f'--evaluate: {args.file} has no labels; without --evaluate it is predicted'
        )
    file = os.path.splitext(os.path.basename(os.path.normpath(args.file)))[0]
    params = os.path.dirname(os.path.abspath(opened.path))
    folder = os.path.join(args.analysis_dir, f'{file}-{os.path.basename(params)}')
    if record.read(folder):
        raise InputError(f'{folder} is of a run of train.py: choose another --analysis_dir')
    check_writable(folder)
    return folder


def predict_texts(examples: Sequence[Example], opened: OpenedModel) -> None:
    """Print each example's class and probability, the shares of its choices, or its score."""
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
    there, run_id = record.read(os.path.dirname(opened.path)), opened.settings.get('run')
    if there and run_id is not None and run_id != there.get('id'):
        warn(f'{opened.path} is of another run than {record.RECORD_FILE} beside it')
    opened.model.to(device)
    warnings = []
    examples = find_examples(args, opened.task, warnings)
    if len(args.what) == 1 and args.what[0].lower().endswith(FILE_ENDINGS) and not args.file:
        warn(f'there is no file "{args.what[0]}": it is taken for a text')
    if len(warnings) > 5:
        warnings[5:] = [f'and {len(warnings) - 5:,} more like these']
    for message in warnings:
        warn(message)
    if args.file:
        predict_file(args, examples, opened)
    elif args.what:
        predict_texts(examples, opened)
    else:
        for example in examples:
            predict_texts([example], opened)


def main(argv=None) -> int:
    args = parse_args(argv) if ARGS is None else ARGS
    return exit_status('predict.py', run, args, is_result=True)


if __name__ == '__main__':
    sys.exit(main())
