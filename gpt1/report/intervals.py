"""Scores with their 95 % intervals."""

import math
from typing import NamedTuple

import numpy as np

from gpt1.report.log import is_real
from gpt1.report.predictions import Predictions, together
from gpt1.tasks.task import Task


class Score(NamedTuple):
    """A metric on one set, or on all sets together."""

    split: str  # the name of the set; 'all' for all sets together
    metric: str
    value: float  # in the unit of the paper: accuracy in %, the others times 100
    predictions: Predictions
    task: Task


def results(task: Task, sets: dict[str, Predictions]) -> list[Score]:
    """All metrics on each set with labels; of a pooled task, on all sets together first."""
    parts = [(name, part) for name, part in sets.items() if part.labels is not None]
    if task.pooled and len(parts) > 1:
        parts.insert(0, ('all', together([part for _, part in parts])))
    return [
        Score(name, metric, task.score(metric, part.labels, part.values), part, task)
        for name, part in parts
        for metric in task.metrics
    ]


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy, in %."""
    from scipy.stats import binomtest  # here, since it takes half a second

    low, high = binomtest(int(n_right), int(n)).proportion_ci(method='wilson')
    return 100 * low, 100 * high


def interval(score: Score) -> tuple[float, float]:
    """The 95 % interval: Wilson's of accuracy, else a bootstrap's percentiles with a fixed seed.

    (NaN, NaN) where a correlation is not defined.
    """
    labels, values = score.predictions.labels, score.predictions.values
    n = len(labels)
    if score.metric == 'accuracy':
        return wilson(score.predictions.right.sum(), n)
    if score.metric != 'f1' and not all(np.ptp(x) > 0 for x in (labels, values)):
        return math.nan, math.nan  # NaN does not vary either
    rng, resamples = np.random.default_rng(0), []
    for _ in range(1000):
        drawn = rng.integers(n, size=n)
        resamples.append(score.task.score(score.metric, labels[drawn], values[drawn]))
    low, high = np.quantile(resamples, [0.025, 0.975])
    return float(low), float(high)


def noise_of(score: Score) -> tuple[float, float]:
    """Its standard error, and the best score of one prediction for all examples."""
    labels, task = score.predictions.labels, score.task
    low, high = interval(score)
    error = (high - low) / (2 * 1.96)
    if math.isnan(error):  # predictions that are all the same do not correlate
        error = 100 / math.sqrt(len(labels))
    if is_real(task):
        return error, 0.0
    constants = {int(np.bincount(labels).argmax()), task.positive} - {None}
    same = [task.score(score.metric, labels, np.full_like(labels, c)) for c in constants]
    return error, max(same)
