"""A report of a fine-tuning run with its scores and pictures, from its log and its predictions.

    python analysis.py --desc rocstories
    python analysis.py --desc seed1 seed2 seed3

writes report.md and its pictures to analysis/<desc>/, as `train.py --analysis` does. For several
runs, it also prints a table of their scores with the median and the spread.
"""

import os
import statistics
import sys
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np

from datasets import DATA_OPTIONS, TASKS, read_data
from gpt1.options import TRAIN, accepts, options_of
from gpt1.parsing import Parser
from gpt1.report.intervals import results
from gpt1.report.log import best_evaluation, log_name, metric_title, read_log
from gpt1.report.predictions import (
    id_in_csv,
    name_of,
    predictions_for,
    predictions_path,
    read_predictions,
)
from gpt1.report.report import can_compare, markdown_table, print_metrics, write_report
from gpt1.run import record
from gpt1.tasks.task import Data, Example, Task
from utils import InputError, check_writable, exit_status


class FinishedRun(NamedTuple):
    """What is known of a run that has ended: the arguments of `write_report`."""

    arguments: dict
    evaluations: list[dict]
    task: Task
    test: dict[str, tuple[list[Example], np.ndarray]]
    valid: dict[str, tuple[list[Example], np.ndarray]]
    published: bool
    notes: list[str]
    data_notes: list[str]


def read_run(folder: str, log_path: str, data_dir: str | None = None) -> FinishedRun:
    """Read the log of a run, its predictions in `folder`, and its data again for their texts.

    The data are where the log says, or in `data_dir`. Raises InputError.
    """
    arguments, evaluations = read_log(log_path)
    if arguments.get('submit') is False:
        raise InputError(
            f'the run of {log_path} has no predictions: train.py makes them by --submit'
        )
    found = record.read(folder)
    if found.get('id') != arguments.get('id'):
        raise InputError(
            f'{folder} has the predictions of another run than {log_path}: give --desc the name of '
            'a whole run, or fine-tune again with --submit'
        )
    known = found.get('examples', {})
    task, data = read_data_of(arguments, log_path, data_dir)
    first = f'va_{log_name(task.metrics[0])}'
    if first not in evaluations[0]:
        raise InputError(f'{log_path}, line 2: no "{first}", the score of a run on {task.title}')
    test = {
        split: (examples, read_logits(folder, 'test', split, task, data.test, known))
        for split, examples in data.test.items()
    }
    valid = {
        split: (examples, read_logits(folder, 'valid', split, task, data.valid, known))
        for split, examples in data.valid.items()
        if os.path.exists(predictions_path(folder, 'valid', split, len(data.valid)))
    }
    notes = arguments.get('sample')
    notes = [str(note) for note in notes] if isinstance(notes, list) else []
    published = can_compare(arguments, task, test)
    return FinishedRun(arguments, evaluations, task, test, valid, published, notes, data.notes)


def read_data_of(arguments: dict, log_path: str, data_dir: str | None) -> tuple[Task, Data]:
    """The task and the data of a run with these arguments. Raises InputError."""
    name = str(arguments.get('dataset', 'rocstories'))
    if name not in TASKS and name != 'custom':
        raise InputError(f'{log_path}, line 1: the data set {name[:40]!r} is not known')
    if data_dir is None:
        data_dir = str(arguments.get('data_dir', 'data/'))
    kinds = {option.name: option.kind for option in options_of(TRAIN)}
    valid = [name for name in DATA_OPTIONS if accepts(kinds[name], arguments.get(name))]
    options = {name: arguments[name] for name in valid}
    return read_data(name, data_dir, **options)


def read_logits(
    folder: str,
    kind: str,
    split: str,
    task: Task,
    sets: dict[str, list[Example]],
    known: dict[str, str],
) -> np.ndarray:
    """The logits of a set of a run. Raises InputError if they are of other examples.

    known  hashes of the examples at the time of the run; {}: it has kept none
    """
    path, examples = predictions_path(folder, kind, split, len(sets)), sets[split]
    names, logits, labels = read_predictions(path, task)
    same = names == [id_in_csv(example) for example in examples]
    if f'{kind} {split}' in known:
        same &= known[f'{kind} {split}'] == record.examples_hash(examples)
    # Labels may have become known since, but not have changed.
    now = ['' if e.label is None else name_of(task, e.label) for e in examples]
    if not same or any(a and a != b for a, b in zip(labels, now)):
        raise InputError(
            f'{path} has the predictions of other examples than those in the data: put the data of '
            'the run back, or predict those of now with predict.py'
        )
    return logits


# --------------------------------------------------------------------------------- several runs


def first_scores(found: FinishedRun) -> tuple[float, float | None]:
    """The first metric of a run on its validation and its test set; None: not known.

    Of several test sets, it is that of the first one, or of all together.
    """
    metric = found.task.metrics[0]
    tested = {name: predictions_for(found.task, *pair) for name, pair in found.test.items()}
    known = [score.value for score in results(found.task, tested) if score.metric == metric]
    best = best_evaluation(found.evaluations, found.task)
    return best[f'va_{log_name(metric)}'], known[0] if known else None


def summarize(runs: list[tuple]) -> list[str]:
    """A table of runs (name, seed, validation and test score), their median and their spread."""
    columns = [[score for score in scores if score is not None] for scores in zip(*runs)][2:]
    rows = [
        [name, seed, *('?' if score is None else f'{score:.2f}' for score in scores)]
        for name, seed, *scores in runs
    ]
    for title, function in (
        ('median', statistics.median),
        ('lowest', min),
        ('highest', max),
        ('standard deviation', statistics.stdev),
    ):
        cells = [f'{function(scores):.2f}' if len(scores) > 1 else '' for scores in columns]
        rows.append([title, '', *cells])
    return markdown_table(['run', 'seed', 'valid', 'test'], rows)


# --------------------------------------------------------------------------------- command line


def parse_args(argv=None):
    parser = Parser(usage='python analysis.py [--desc NAME ...] [options]', description=__doc__)
    parser.add_argument(
        '--desc', nargs='+', metavar='NAME', default=['rocstories'], help='names of the runs'
    )
    parser.add_argument('--log_dir', default='log/', help='folder of their logs')
    parser.add_argument(
        '--analysis_dir',
        default='analysis/',
        help='folder of <desc>/predictions.csv, and of the reports',
    )
    parser.add_argument('--data_dir', help='folder of the data (default: where each run read them)')
    return parser.parse_args(argv)


def run(args):
    """Report on runs that have ended. Raises InputError."""
    check_writable(args.analysis_dir)
    runs = {}  # for each task and metric
    for desc in args.desc:
        folder = os.path.join(args.analysis_dir, desc)
        found = read_run(folder, os.path.join(args.log_dir, f'{desc}.jsonl'), args.data_dir)
        write_report(folder, *found)
        print(f'{desc}: {os.path.join(folder, "report.md")}')
        print_metrics(found.task, found.evaluations, found.test, found.valid)
        title = f'{found.task.title}, {metric_title(found.task.metrics[0])}'
        seed = found.arguments.get('seed', '?')
        runs.setdefault(title, []).append((desc, seed, *first_scores(found)))
    for title, group in runs.items():
        if len(group) > 1:
            print(f'\n{title}\n')
            print('\n'.join(summarize(group)))


def main(argv=None):
    return exit_status('analysis.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
