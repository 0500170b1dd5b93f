"""A report of a fine-tuning run with its scores and pictures, from its log and its predictions.

    python analysis.py --desc rocstories
    python analysis.py --desc seed1 seed2 seed3

writes report.md, report.html and their pictures to analysis/<desc>/, as `train.py --analysis` does.
Of several runs, it also writes analysis/runs.md and runs.html: a table of their scores with the
median and the spread and, if they have learned from different numbers of examples (--n_train), a
learning curve. A warning names the options in which they differ.
"""

import csv
import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from types import SimpleNamespace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np

from datasets import DATA_OPTIONS, TASKS, read_data
from gpt1.options import TRAIN, accepts, options_of
from gpt1.parsing import Parser
from gpt1.report import pictures
from gpt1.report.intervals import interval, results
from gpt1.report.log import Log, columns_of, log_name, metric_title, plain, split_log
from gpt1.report.predictions import (
    Sets,
    decode_sets,
    in_csv,
    name_of,
    predictions_path,
    score_names,
)
from gpt1.report.report import markdown_table, picture, print_metrics, write, write_report
from gpt1.run import record
from gpt1.tasks.task import Data, Example, Task
from utils import InputError, check_writable, exit_status

PROGRESS = ('n_updates', 'loss', 'lr', 'grad_norm')  # what a progress line has
VARIED = ('seed', 'n_train')  # in which runs that are put together may differ
SPREADS = {
    'median': statistics.median,
    'lowest': min,
    'highest': max,
    'standard deviation': statistics.stdev,
}


def read_run(
    folder: str, log_path: str, data_dir: str | None = None
) -> tuple[Log, Task, Sets, Sets, list[str]]:
    """Read what `write_report` needs: the log of a run, its predictions in `folder`, and its data.

    The data are where the log says, or in `data_dir`. Raises InputError.
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
                sets[kind][split] = examples, read_predictions(path, task, examples, known)
    return log, task, sets['test'], sets['valid'], data.notes


def read_log(path: str) -> Log:
    """Read the log of a run of `train.py`, in which all must be numbers. Raises InputError."""
    try:
        with open(path, encoding='utf-8') as f:
            lines = [json.loads(line) for line in f]
    except OSError as error:
        raise InputError(f'cannot read the log {path}: {error.strerror}') from error
    except (ValueError, RecursionError):
        lines = None
    if not lines or not all(isinstance(line, dict) for line in lines):
        raise InputError(f'{path} is not a log of train.py: expected a JSON object on each line')
    log = split_log(lines)
    if not log.evaluations:
        raise InputError(f'{path} has no evaluation: the run did not reach the end of an epoch')
    evaluation = ('n_epochs', 'n_updates', 'tr_cost', 'va_cost', *columns_of(log.evaluations[0]))
    for number, line in enumerate(lines[1:], 2):
        for name in PROGRESS if 'loss' in line else evaluation:
            value = line.get(name)
            if type(value) not in (int, float) or not abs(value) < 1e30:  # NaN, too
                raise InputError(f'{path}, line {number}: expected a number as "{name}"')
    return log


def read_data_of(arguments: dict, log_path: str, data_dir: str | None) -> tuple[Task, Data]:
    """The task and the data of a run with these arguments. Raises InputError."""
    name = str(arguments.get('dataset', 'rocstories'))
    if name not in TASKS and name != 'custom':
        raise InputError(f'{log_path}, line 1: the data set {name[:40]!r} is not known')
    if data_dir is None:
        data_dir = str(arguments.get('data_dir', 'data/'))
    kinds = {option.name: option.kind for option in options_of(TRAIN)}
    valid = [name for name in DATA_OPTIONS if accepts(kinds[name], arguments.get(name))]
    return read_data(name, data_dir, **{name: arguments[name] for name in valid})


def read_predictions(
    path: str, task: Task, examples: list[Example], known: str | None = None
) -> np.ndarray:
    """The logits [examples, scores] of a predictions.csv. Raises InputError.

    examples  those of the data now, whose labels may have become known since, but not have changed
    known     the hash of the examples at the time of the run; None: it has kept none
    """
    try:
        with open(path, encoding='utf-8', newline='') as f:
            head, *rows = list(csv.reader(f)) or [[]]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        reason = f'({error}); train.py writes it with --submit'
        raise InputError(f'cannot read {path} as CSV {reason}') from error
    places = [i for i, name in enumerate(head) if name.startswith('score')]
    names = score_names(task, len(places) if task.layout == 'choices' else task.n_out)
    if [head[i] for i in places] != names or not {'id', 'label'} <= set(head):
        raise InputError(f'{path}, row 1: expected the columns id, {", ".join(names)} and label')
    logits = np.empty((len(rows), len(names)))
    for i, row in enumerate(rows):
        try:
            logits[i] = [float(row[place] or '-inf') for place in places]
        except (ValueError, IndexError):
            logits[i] = math.nan
        is_score = abs(logits[i]) < 1e30  # False for NaN, too
        is_absent = np.isneginf(logits[i]) & (task.layout == 'choices')
        if len(row) != len(head) or not ((is_score | is_absent).all() and is_score.any()):
            where = f'{path}, row {i + 2}'
            raise InputError(f'{where}: expected {len(head)} columns, with numbers as scores')
    ids, labels = ([row[head.index(name)] for row in rows] for name in ('id', 'label'))
    now = ['' if e.label is None else name_of(task, e.label) for e in examples]
    same = ids == [in_csv(example.id) for example in examples]
    same &= known in (None, record.examples_hash(examples))
    if not same or any(a and a != b for a, b in zip(labels, now)):
        raise InputError(
            f'{path} has the predictions of other examples than those in the data: put the data of '
            'the run back, or predict those of now with predict.py'
        )
    return logits.astype(np.float32)


def outcome_of(
    desc: str, log: Log, task: Task, test: Sets, valid: Sets, found: dict
) -> SimpleNamespace:
    """What is compared of a run; `found` is its record."""
    sets = {'validation': valid, 'test': test}
    scores = {kind: results(task, decode_sets(task, some)) for kind, some in sets.items()}
    depends = {f'the {key}': found.get(key) for key in record.WHAT if key != 'options'}
    depends |= found.get('options', {})
    return SimpleNamespace(
        title=f'{task.title}, {metric_title(task.metrics[0])}',
        desc=desc,
        seed=log.start.get('seed', '?'),
        n_train=found.get('sizes', {}).get('training', 0),  # 0: not known
        scores={kind: some[0] if some else None for kind, some in scores.items()},
        depends={name: value for name, value in depends.items() if name not in VARIED},
    )


def differences(outcomes: Sequence) -> list[str]:
    """A warning that names the options in which runs differ; [] if they do not."""
    texts = []
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.depends):
        values = dict.fromkeys(str(outcome.depends.get(name)) for outcome in outcomes)
        if len(values) > 1:  # of files there are only hashes
            texts.append(name if name.startswith('the ') else f'{name} ({", ".join(values)})')
    return [f'warning: these runs differ in {", ".join(texts)}'] if texts else []


def summarize(groups: dict[int, list]) -> list[str]:
    """A table of runs, with medians and spreads of those with as many training examples."""
    rows = []
    for n_train, group in groups.items():
        for run in group:
            cells = [f'{score.value:.2f}' if score else '?' for score in run.scores.values()]
            rows.append([plain(run.desc), run.seed, f'{n_train:,}' if n_train else '?', *cells])
        columns = zip(*(run.scores.values() for run in group))
        known = [[score.value for score in column if score] for column in columns]
        for title, function in SPREADS.items() if len(group) > 1 else ():
            cells = [f'{function(values):.2f}' if len(values) > 1 else '' for values in known]
            rows.append([title, '', '', *cells])
    return markdown_table(['run', 'seed', 'training examples', 'validation', 'test'], rows)


def draw_learning_curve(path: str, groups: dict[int, list], kind: str, title: str) -> None:
    """Draw scores by the number of training examples, and a line through their medians."""

    def panel(axes):
        medians = []
        for n, runs in groups.items():
            scores = [run.scores[kind] for run in runs]
            medians.append(statistics.median(score.value for score in scores))
            for score in scores:
                style = {'fmt': 'o', 'color': pictures.OURS, 'alpha': 0.5}
                pictures.with_interval(axes, n, score.value, *interval(score), **style)
        axes.plot(list(groups), medians, color=pictures.OURS)
        axes.set(xlabel='training examples', xscale='log')
        axes.set(title=f'{title}, {kind}, with 95 % intervals')
        axes.set_xticks(list(groups), [f'{n:,}' for n in groups])
        axes.set_xticks([], minor=True)
        axes.grid(axis='y', alpha=0.3)

    pictures.draw(path, 6, 3.8, panel)


def report_several(folder: str, outcomes: Sequence) -> tuple[str, list[str]]:
    """Write runs.md, runs.html and pictures of runs. Returns the path of runs.md and its lines."""
    lines, notes = [], []
    for i, title in enumerate(dict.fromkeys(run.title for run in outcomes), 1):
        runs = [run for run in outcomes if run.title == title]
        sizes = sorted({run.n_train for run in runs})
        groups = {n: [run for run in runs if run.n_train == n] for n in sizes}
        lines += ['', f'## {plain(title)}', '', *summarize(groups)]
        notes += differences(runs)
        known = [kind for kind in ('test', 'validation') if all(run.scores[kind] for run in runs)]
        if len(groups) > 1 and all(groups) and known:
            name = f'learning_curve_{i}'
            draw_learning_curve(os.path.join(folder, f'{name}.png'), groups, known[0], title)
            lines += picture(name, 'Learning curve')
    path = os.path.join(folder, 'runs.md')
    write(path, 'Several runs', notes, lines[1:])
    return path, [*notes, *lines]


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
    check_writable(args.analysis_dir)
    outcomes = []
    for desc in args.desc:
        folder = os.path.join(args.analysis_dir, desc)
        found = read_run(folder, os.path.join(args.log_dir, f'{desc}.jsonl'), args.data_dir)
        log, task, test, valid, _ = found
        write_report(folder, *found)
        print(f'{desc}: {os.path.join(folder, "report.md")}')
        print_metrics(task, log.evaluations, test, valid)
        outcomes.append(outcome_of(desc, log, task, test, valid, record.read(folder)))
    if len(outcomes) > 1:
        path, lines = report_several(args.analysis_dir, outcomes)
        print('\n'.join(['', *lines, '', path]))


def main(argv=None):
    return exit_status('analysis.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
