"""Scores with their 95 % intervals."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpt1.report.log import METRIC_NAMES, is_real, metric_title
from gpt1.report.predictions import Predictions, together
from gpt1.tasks.task import Task

# Of the bootstrap: the number of resamples, and the most examples in a resample of numbers
N_RESAMPLES = 10_000


N_CORRELATIONS = 2000


N_MACRO = 500


MAX_RESAMPLE = 2500


class Result(NamedTuple):
    """A metric on one set, or on all sets together.

    split        the name of the set; 'all' for all sets together
    value        in the unit of the paper: accuracy in %, the others times 100
    """

    split: str
    metric: str
    value: float
    predictions: Predictions
    task: Task | None = None

    @property
    def title(self) -> str:
        """'accuracy', or 'accuracy, matched'."""
        return metric_title(self.metric, self.task) + suffix(self.split)

    def __str__(self):
        return format_metric(self.metric, self.value)


def suffix(split: str) -> str:
    """What a set adds to the name of a metric: nothing where there is but one set."""
    return '' if split in ('test', 'valid', 'all') else f', {split}'


def with_unit(metric: str) -> str:
    """The title of an axis."""
    return 'accuracy, %' if metric == 'accuracy' else f'{METRIC_NAMES[metric]} × 100'


def format_metric(metric: str, value: float) -> str:
    """'75.00 %' for accuracy, '75.00' for the other metrics."""
    if math.isnan(value):
        return 'not defined'
    return f'{value:.2f} %' if metric == 'accuracy' else f'{value:.2f}'


def format_interval(low: float, high: float) -> str:
    return 'not defined' if math.isnan(low) else f'{low:.2f} to {high:.2f}'


def results(task: Task, sets: dict[str, Predictions]) -> list[Result]:
    """All metrics on each set with labels; of a pooled task, on all sets together first."""
    known = {name: part for name, part in sets.items() if part.labels is not None}
    parts = list(known.items())
    if task.pooled and len(known) > 1:
        parts.insert(0, ('all', together(list(known.values()))))
    return [
        Result(name, metric, task.score(metric, part.labels, part.values), part, task)
        for name, part in parts
        for metric in task.metrics
    ]


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval, in %, of a share of which `right` of `n` were seen."""
    from scipy.stats import binomtest  # here, since it takes half a second

    low, high = binomtest(int(right), int(n)).proportion_ci(method='wilson')
    return 100 * low, 100 * high


def confusion(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """How often each prediction (column) was given for each label (row): [classes, classes]."""
    pairs = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 of class 1, times 100, from confusion matrices [..., classes, classes]."""
    n_labels = counts[..., 1, :].sum(-1)
    n_predictions = counts[..., :, 1].sum(-1)
    return 100 * 2 * counts[..., 1, 1] / np.maximum(n_labels + n_predictions, 1)


def matthews_of(counts: np.ndarray) -> np.ndarray:
    """Matthews correlation, times 100, from confusion matrices [..., classes, classes].

    It is the correlation of labels and predictions as indicator vectors (Gorodkin, 2004), and 0
    where one of them is constant.
    """
    labels = counts.sum(-1)
    predictions = counts.sum(-2)
    n = labels.sum(-1).astype(np.float64)
    right = np.trace(counts, axis1=-2, axis2=-1)
    covariance = right * n - (labels * predictions).sum(-1)
    variances = (n**2 - (labels**2).sum(-1)) * (n**2 - (predictions**2).sum(-1))
    return 100 * covariance / np.sqrt(np.where(variances > 0, variances, np.inf))


def resampled_counts(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Confusion matrices of resamples: [N_RESAMPLES, classes, classes].

    To draw n examples with replacement and to count them is to draw the counts from a multinomial
    distribution. So the cost does not depend on the number of examples.
    """
    n = counts.sum()
    drawn = rng.multinomial(n, counts.ravel() / n, size=N_RESAMPLES)
    return drawn.reshape(N_RESAMPLES, *counts.shape)


def pearson_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation, times 100, along the last axis. NaN where one of them is constant."""
    is_constant = (np.ptp(x, axis=-1) == 0) | (np.ptp(y, axis=-1) == 0)
    x = x - x.mean(-1, keepdims=True)
    y = y - y.mean(-1, keepdims=True)
    variances = (x * x).sum(-1) * (y * y).sum(-1)
    variances = np.where(is_constant, np.nan, variances)
    return 100 * (x * y).sum(-1) / np.sqrt(variances)


def spearman_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman correlation, times 100, along the last axis: Pearson's, of the ranks."""
    from scipy.stats import rankdata  # here, since it takes half a second

    return pearson_of(rankdata(x, axis=-1), rankdata(y, axis=-1))


def resampled_correlations(
    correlation: Callable, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The deviations of a correlation in resamples of the examples: [N_CORRELATIONS].

    Of more than MAX_RESAMPLE examples, only so many are drawn for each resample, and the deviations
    are scaled down with the square root of the number (the m out of n bootstrap).
    """
    n = len(x)
    m = min(n, MAX_RESAMPLE)
    deviations = []
    for _ in range(0, N_CORRELATIONS, 100):  # 100 resamples at a time, which bounds the memory
        drawn = rng.integers(n, size=(100, m))
        deviations.append(correlation(x[drawn], y[drawn]))
    return (np.concatenate(deviations) - correlation(x, y)) * math.sqrt(m / n)


def interval(result: Result) -> tuple[float, float]:
    """The 95 % interval of a result.

    For accuracy it is Wilson's, for the other metrics the percentiles of a bootstrap with a fixed
    seed. (NaN, NaN) where the metric is not defined, as for constant predictions.
    """
    labels = result.predictions.labels
    values = result.predictions.values
    if result.metric == 'accuracy':
        return wilson((labels == values).sum(), len(labels))
    rng = np.random.default_rng(0)
    positive = result.task.positive if result.task else 1
    if result.metric == 'f1' and positive is None:
        return macro_interval(result, rng)
    if result.metric in ('f1', 'matthews'):
        n_classes = result.predictions.shares.shape[1]
        if result.metric == 'f1':
            labels, values = (np.equal(x, positive).astype(int) for x in (labels, values))
            n_classes = 2
        drawn = resampled_counts(confusion(labels, values, n_classes), rng)
        figures = f1_of(drawn) if result.metric == 'f1' else matthews_of(drawn)
    else:
        correlation = pearson_of if result.metric == 'pearson' else spearman_of
        figures = result.value + resampled_correlations(correlation, labels, values, rng)
    figures = figures[np.isfinite(figures)]  # a resample may be constant by chance
    if not len(figures):
        return math.nan, math.nan
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)


def noise_of(result: Result) -> tuple[float, float]:
    """What a score must exceed to say something about the model.

    Returns the standard error that it has because its set is a sample, and the best score that
    the same prediction for all examples would have.
    """
    labels, task = result.predictions.labels, result.task
    low, high = interval(result)
    error = (high - low) / (2 * 1.96)
    if math.isnan(error):  # predictions that are all the same do not correlate
        error = 100 / math.sqrt(len(labels))
    if is_real(task):
        return error, 0.0
    constants = {int(np.bincount(labels).argmax()), task.positive} - {None}
    same = [task.score(result.metric, labels, np.full_like(labels, c)) for c in constants]
    return error, max(same)


def macro_interval(result: Result, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of a macro F1, of which a confusion matrix may be too large to resample."""
    from scipy import stats

    pair = (result.predictions.labels, result.predictions.values)
    if len(pair[0]) < 2:
        return math.nan, math.nan
    found = stats.bootstrap(
        pair,
        lambda labels, values: result.task.score('f1', labels, values),
        paired=True,
        vectorized=False,
        n_resamples=N_MACRO,
        batch=100,
        method='percentile',
        rng=rng,
    )
    low, high = found.confidence_interval
    return float(low), float(high)
