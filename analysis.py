"""A report of a fine-tuning run with its scores and pictures, from its log and its predictions.

    python analysis.py --desc rocstories
    python analysis.py --desc seed1 seed2 seed3

writes report.md, report.html and their pictures to analysis/<desc>/, as `train.py --analysis` does.
Of several runs, it also writes analysis/runs.md and runs.html: a table of their scores with the
median and the spread and, if they have learned from different numbers of examples (--n_train), a
learning curve. A warning names the options in which they differ.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np

from datasets import TASKS, read_data
from gpt1.parsing import Parser
from gpt1.report.log import Log, log_name, metric_title, read_log
from gpt1.report.predictions import Sets, in_csv, name_of, predictions_path, read_predictions
from gpt1.report.report import print_metrics, write_report
from gpt1.report.several import outcome_of, report_several
from gpt1.run import record
from gpt1.tasks.task import Data, Example, Task
from utils import InputError, check_writable, exit_status


def read_run(
    folder: str, log_path: str, data_dir: str | None = None
) -> tuple[Log, Task, Sets, Sets, list[str]]:
    """Read the log of a run, its predictions in `folder`, and its data again for their texts.

    The data are where the log says, or in `data_dir`. Returns what `write_report` needs. Raises
    InputError.
    """
    log = read_log(log_path)
    if log.start.get('submit') is False:
        raise InputError(
            f'the run of {log_path} has no predictions: train.py makes them by --submit'
        )
    found = record.read(folder)
    if found.get('id') != log.start.get('id'):
        raise InputError(
            f'{folder} has the predictions of another run than {log_path}: give --desc the name of '
            'a whole run, or fine-tune again with --submit'
        )
    task, data = read_data_of(log.start, log_path, data_dir)
    first = f'va_{log_name(task.metrics[0])}'
    if first not in log.evaluations[0]:
        raise InputError(f'{log_path}: no "{first}", the score of a run on {task.title}')
    sets = {'test': {}, 'valid': {}}
    for kind in sets:
        splits = getattr(data, kind)
        for split, examples in splits.items():
            path = predictions_path(folder, kind, split, len(splits))
            if kind == 'test' or os.path.exists(path):
                known = found.get('examples', {}).get(f'{kind} {split}')
                sets[kind][split] = examples, read_logits(path, task, examples, known)
    return log, task, sets['test'], sets['valid'], data.notes


def read_data_of(arguments: dict, log_path: str, data_dir: str | None) -> tuple[Task, Data]:
    """The task and the data of a run with these arguments. Raises InputError."""
    name = str(arguments.get('dataset', 'rocstories'))
    if name not in TASKS and name != 'custom':
        raise InputError(f'{log_path}, line 1: the data set {name[:40]!r} is not known')
    if data_dir is None:
        data_dir = str(arguments.get('data_dir', 'data/'))
    kinds = {'regression': bool, 'symmetric': bool, 'n_valid': int, 'seed': int, 'positive': str}
    options = {name: arguments.get(name) for name in kinds}
    valid = {name: value for name, value in options.items() if type(value) is kinds[name]}
    return read_data(name, data_dir, **valid)


def read_logits(path: str, task: Task, examples: list[Example], known: str | None) -> np.ndarray:
    """The logits of a set of a run. Raises InputError if they are of other examples.

    known  the hash of the examples at the time of the run; None: it has kept none
    """
    names, logits, labels = read_predictions(path, task)
    same = names == [in_csv(example.id) for example in examples]
    same &= known in (None, record.examples_hash(examples))
    # Labels may have become known since, but not have changed.
    now = ['' if e.label is None else name_of(task, e.label) for e in examples]
    if not same or any(a and a != b for a, b in zip(labels, now)):
        raise InputError(
            f'{path} has the predictions of other examples than those in the data: put the data of '
            'the run back, or predict those of now with predict.py'
        )
    return logits


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
    by_title = {}  # a task and its metric -> its runs
    for desc in args.desc:
        folder = os.path.join(args.analysis_dir, desc)
        found = read_run(folder, os.path.join(args.log_dir, f'{desc}.jsonl'), args.data_dir)
        log, task, test, valid, _ = found
        write_report(folder, *found)
        print(f'{desc}: {os.path.join(folder, "report.md")}')
        print_metrics(task, log.evaluations, test, valid)
        outcome = outcome_of(desc, log, task, test, record.read(folder))
        by_title.setdefault(f'{task.title}, {metric_title(task.metrics[0])}', []).append(outcome)
    if len(args.desc) > 1:
        path, lines = report_several(args.analysis_dir, by_title)
        print('\n'.join(['', *lines, '', path]))


def main(argv=None):
    return exit_status('analysis.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
