"""The log of a run, and the words of its numbers for a person.

Its first line is the start record; then come evaluations and, between them, progress lines.
"""

import functools
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
    """'accuracy', or 'accuracy, matched'; of your own data, it says which class F1 is of."""
    title = metric if metric in ('accuracy', 'cost') else metric.capitalize()
    if metric == 'f1' and task is not None and task.name == 'custom':
        title = 'macro F1' if task.positive is None else f'F1 of {task.labels[task.positive]}'
    return title if split in ('test', 'valid', 'all', '') else f'{title}, {split}'


def log_name(metric: str) -> str:
    """The name of a metric in the log: the original calls accuracy `acc`."""
    return 'acc' if metric == 'accuracy' else metric


def columns_of(evaluation: dict) -> dict[str, tuple[str, str, str]]:
    """What the names of costs and scores in a line of the log mean, in its order.

    'va_acc_mismatched' -> ('validation', 'accuracy', 'mismatched'), the last one '' for a whole set
    """
    columns = {}
    for name in evaluation:
        part, _, rest = name.partition('_')
        if part in PARTS and rest:
            metric, _, subset = rest.partition('_')
            columns[name] = PARTS[part], 'accuracy' if metric == 'acc' else metric, subset
    return columns


class Log(NamedTuple):
    """The lines of a log by their kind."""

    start: dict  # the options of the run, its id, and how many examples were cut
    evaluations: list[dict]  # `n_epochs`, `n_updates`, costs and scores (see `columns_of`)
    progress: list[dict]  # `n_updates`, `loss` (the mean since the last one), `lr`, `grad_norm`


def split_log(lines: Sequence[dict]) -> Log:
    start, *rest = lines
    kinds = {kind: [line for line in rest if ('loss' in line) == kind] for kind in (False, True)}
    return Log(start, kinds[False], kinds[True])


def best_evaluation(evaluations: Sequence[dict], task: Task) -> dict:
    """The evaluation of the parameters that train.py kept, by the first metric."""
    name = f'va_{log_name(task.metrics[0])}'
    return functools.reduce(lambda a, b: b if is_better(b[name], a[name]) else a, evaluations)


def is_real(task: Task) -> bool:
    """Whether a prediction of this task is a real number, and not one of several classes."""
    return task.soft_labels or task.regression


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is, on one line, cut to MAX_TEXT characters."""
    text = ' '.join(text.split())
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + ' …'
    if not RIGHT_TO_LEFT.isdisjoint(map(unicodedata.bidirectional, text)):
        text = f'\u2068{text}\u2069'  # which isolate it: the words around it are not turned
    return re.sub(r'([\\`*_<>|#\[\]~$&])', r'\\\1', text)
