"""The log of a run, read for a person."""

import json
import re
from collections.abc import Sequence

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


def metric_title(metric: str, task: Task | None = None) -> str:
    """The name of a metric in running text; of your own data, it says which class F1 is of."""
    if metric == 'f1' and task is not None and task.name == 'custom':
        return 'macro F1' if task.positive is None else f'F1 of {task.labels[task.positive]}'
    return 'accuracy' if metric == 'accuracy' else METRIC_NAMES.get(metric, metric)


def log_name(metric: str) -> str:
    """The name of a metric in the log: the original calls accuracy `acc`."""
    return 'acc' if metric == 'accuracy' else metric


def metric_of(name: str) -> str:
    """The metric that `log_name` gave this name."""
    return 'accuracy' if name == 'acc' else name


def read_log(path: str) -> tuple[dict, list[dict]]:
    """Read the log of a run of `train.py`.

    Returns the run's arguments (the first line), and its evaluations. Each evaluation has
    `n_epochs`, `n_updates`, `tr_cost`, `va_cost`, and for each metric m of the task `tr_<m>` and
    `va_<m>`; with several validation sets also `va_<m>_<set>` (see `log_name`). Raises InputError.
    """
    try:
        with open(path, encoding='utf-8') as f:
            lines = [json.loads(line) for line in f]
    except OSError as error:
        raise InputError(f'cannot read the log {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'{path} is not a log of train.py: expected a JSON object on each line'
        ) from error
    if not lines or not isinstance(lines[0], dict):
        raise InputError(f"{path}, line 1: expected a JSON object with the run's arguments")
    arguments, *evaluations = lines
    if not evaluations:
        raise InputError(f'{path} has no evaluation: the run did not reach the end of an epoch')
    names = figure_names(evaluations[0])
    if not {'tr_cost', 'va_cost'} < set(names):
        raise InputError(
            f'{path}, line 2: expected an evaluation with tr_cost, va_cost and the metrics of the '
            'task, such as tr_acc and va_acc'
        )
    for number, line in enumerate(evaluations, 2):
        for name in ('n_epochs', 'n_updates', *names):
            if not isinstance(line, dict) or not is_finite(line.get(name)):
                raise InputError(f'{path}, line {number}: expected a number as "{name}"')
    return arguments, evaluations


def figure_names(evaluation: object) -> list[str]:
    """The names of the costs and metrics in a line of the log, in its order."""
    names = list(evaluation) if isinstance(evaluation, dict) else []
    return [name for name in names if name.startswith(('tr_', 'va_'))]


def figure_title(name: str, task: Task | None = None) -> str:
    """The name of a figure for people: 'va_acc_mismatched' is 'validation accuracy, mismatched'."""
    metric = name[3:].partition('_')[0]
    title = 'cost' if metric == 'cost' else metric_title(metric_of(metric), task)
    set_name, comma, split = set_title(name).partition(', ')
    return plain(f'{set_name} {title}{comma}{split}')


def set_title(name: str) -> str:
    """The set of a figure: 'va_acc_mismatched' is of 'validation, mismatched'."""
    kind = {'tr': 'training', 'va': 'validation'}[name[:2]]
    split = name[3:].partition('_')[2]
    return f'{kind}, {split}' if split else kind


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


def is_real(task: Task) -> bool:
    """Whether a prediction of this task is a real number, and not one of several classes."""
    return task.soft_labels or task.regression


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is, on one line, cut to MAX_TEXT characters."""
    text = ' '.join(text.split())
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + ' …'
    return re.sub(r'([\\`*_<>|#\[\]~$&])', r'\\\1', text)


MAX_TEXT = 1000  # characters of a text in the report
