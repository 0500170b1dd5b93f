"""The log of a run, read for a person.

Its first line is the start record; then come evaluations and, between them, progress lines.
"""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from gpt1.tasks.metrics import is_better
from gpt1.tasks.task import Task
from utils import InputError

METRIC_NAMES = {  # for people
    'accuracy': 'Accuracy',
    'f1': 'F1',
    'matthews': 'Matthews',
    'pearson': 'Pearson',
    'spearman': 'Spearman',
}
PARTS = {'tr': 'training', 'va': 'validation'}
RIGHT_TO_LEFT = {'R', 'AL', 'AN', 'RLE', 'RLO', 'RLI', 'LRE', 'LRO', 'LRI', 'FSI', 'PDF', 'PDI'}
PROGRESS = ('n_updates', 'loss', 'lr', 'grad_norm')  # what a progress line has
MAX_TEXT = 1000  # characters of a text in the report


def metric_title(metric: str, task: Task | None = None) -> str:
    """The name of a metric in running text; of your own data, it says which class F1 is of."""
    if metric == 'f1' and task is not None and task.name == 'custom':
        return 'macro F1' if task.positive is None else f'F1 of {task.labels[task.positive]}'
    return metric if metric in ('accuracy', 'cost') else METRIC_NAMES.get(metric, metric)


def log_name(metric: str) -> str:
    """The name of a metric in the log: the original calls accuracy `acc`."""
    return 'acc' if metric == 'accuracy' else metric


def format_score(metric: str, value: float) -> str:
    """'75.00 %' for accuracy, '0.512' for the cost, '75.00' for the other metrics."""
    if metric == 'cost':
        return f'{value:.3f}'
    if math.isnan(value):
        return 'not defined'
    return f'{value:.2f} %' if metric == 'accuracy' else f'{value:.2f}'


class Column(NamedTuple):
    """What a name in the log means: `va_acc_mismatched` is validation, accuracy, mismatched."""

    part: str  # 'training' or 'validation'
    metric: str  # 'cost', or a key of `METRICS`
    subset: str  # '' for the whole part

    @property
    def set(self) -> str:
        """'validation, mismatched'"""
        return ', '.join(filter(None, [self.part, self.subset]))

    def title(self, task: Task | None = None) -> str:
        """'validation accuracy, mismatched'"""
        first = f'{self.part} {metric_title(self.metric, task)}'
        return plain(', '.join(filter(None, [first, self.subset])))


def columns_of(evaluation: dict) -> dict[str, Column]:
    """The names of the costs and scores in a line of the log, in its order, and what they mean."""
    columns = {}
    for name in evaluation:
        part, _, rest = name.partition('_')
        if part in PARTS and rest:
            metric, _, subset = rest.partition('_')
            metric = 'accuracy' if metric == 'acc' else metric
            columns[name] = Column(PARTS[part], metric, subset)
    return columns


class Log(NamedTuple):
    """The lines of a log by their kind.

    start        the options of the run, its id, and how many examples were cut
    evaluations  with `n_epochs`, `n_updates`, costs and scores (see `columns_of`)
    progress     with `n_updates`, `loss` (the mean since the last such line), `lr`, `grad_norm`
    """

    start: dict
    evaluations: list[dict]
    progress: list[dict]


def split_log(lines: Sequence[dict]) -> Log:
    """Separate the lines of a log."""
    start, *rest = lines
    kinds = {kind: [line for line in rest if ('loss' in line) == kind] for kind in (False, True)}
    return Log(start, kinds[False], kinds[True])


def read_log(path: str) -> Log:
    """Read the log of a run of `train.py`.

    Each evaluation has `n_epochs`, `n_updates`, `tr_cost`, `va_cost`, and for each metric m of the
    task `tr_<m>` and `va_<m>`; with several validation sets also `va_<m>_<set>` (see `log_name`).
    Raises InputError.
    """
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
    names = columns_of(log.evaluations[0])
    if not {'tr_cost', 'va_cost'} < set(names):
        raise InputError(f'{path} is not a log of train.py: expected tr_cost, va_cost and scores')
    for number, line in enumerate(lines[1:], 2):
        expected = PROGRESS if 'loss' in line else ('n_epochs', 'n_updates', *names)
        for name in expected:
            if not is_finite(line.get(name)):
                raise InputError(f'{path}, line {number}: expected a number as "{name}"')
    return log


def is_finite(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30  # False for NaN, too


def best_evaluation(evaluations: Sequence[dict], task: Task) -> dict:
    """The evaluation of the parameters that train.py kept, by the first metric."""
    name = f'va_{log_name(task.metrics[0])}'
    best, *others = evaluations
    for line in others:
        if is_better(line[name], best[name]):
            best = line
    return best


def validation_scores(evaluation: dict, task: Task) -> list[tuple[Column, float]]:
    """The validation scores of an evaluation, that of the task's first metric first."""
    scores = [
        (column, evaluation[name])
        for name, column in columns_of(evaluation).items()
        if column.part == 'validation' and column.metric != 'cost'
    ]
    return sorted(scores, key=lambda pair: pair[0][1:] != (task.metrics[0], ''))


def is_real(task: Task) -> bool:
    """Whether a prediction of this task is a real number, and not one of several classes."""
    return task.soft_labels or task.regression


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is, on one line, cut to MAX_TEXT characters.

    What is written from right to left does not turn the words around it.
    """
    text = ' '.join(text.split())
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + ' …'
    if not RIGHT_TO_LEFT.isdisjoint(map(unicodedata.bidirectional, text)):
        text = f'\u2068{text}\u2069'  # which isolate it
    return re.sub(r'([\\`*_<>|#\[\]~$&])', r'\\\1', text)
