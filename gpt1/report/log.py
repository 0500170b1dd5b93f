"""The log of a run, and the words of its numbers for a person.

Its first line is the start record; then come evaluations and, between them, progress lines.
"""

import functools
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from gpt1.tasks.metrics import is_better
from gpt1.tasks.task import Task

PARTS = {'tr': 'training', 'va': 'validation'}
RIGHT_TO_LEFT = {'R', 'AL', 'AN', 'RLE', 'RLO', 'RLI', 'LRE', 'LRO', 'LRI', 'FSI', 'PDF', 'PDI'}
MAX_TEXT = 1000  # characters of a text in the report


def metric_title(metric: str, task: Task | None = None, split: str = '') -> str:
    """The name of a metric in running text: 'accuracy', or 'accuracy, matched'.

    Of your own data, it says which class F1 is of.
    """
    title = metric if metric in ('accuracy', 'cost') else metric.capitalize()
    if metric == 'f1' and task is not None and task.name == 'custom':
        title = 'macro F1' if task.positive is None else f'F1 of {task.labels[task.positive]}'
    return title if split in ('test', 'valid', 'all', '') else f'{title}, {split}'


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

    def title(self, task: Task | None = None) -> str:
        """'validation accuracy, mismatched'"""
        return plain(f'{self.part} {metric_title(self.metric, task, self.subset)}')


def columns_of(evaluation: dict) -> dict[str, Column]:
    """The names of the costs and scores in a line of the log, in its order, and what they mean."""
    columns = {}
    for name in evaluation:
        part, _, rest = name.partition('_')
        if part in PARTS and rest:
            metric, _, subset = rest.partition('_')
            columns[name] = Column(PARTS[part], 'accuracy' if metric == 'acc' else metric, subset)
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
    start, *rest = lines
    kinds = {kind: [line for line in rest if ('loss' in line) == kind] for kind in (False, True)}
    return Log(start, kinds[False], kinds[True])


def best_evaluation(evaluations: Sequence[dict], task: Task) -> dict:
    """The evaluation of the parameters that train.py kept, by the first metric."""
    name = f'va_{log_name(task.metrics[0])}'
    return functools.reduce(lambda a, b: b if is_better(b[name], a[name]) else a, evaluations)


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
