"""Scores of predictions: arrays to numbers."""

import math
from collections.abc import Callable

import numpy as np


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(np.asarray(labels) == np.asarray(predictions)))


def _f1(labels: np.ndarray, predictions: np.ndarray, positive: int | None = 1) -> float:
    """Of a class: GLUE has 1. None: the mean over the classes that occur (macro)."""
    from sklearn.metrics import f1_score

    if positive is None:
        return f1_score(labels, predictions, average='macro', zero_division=0)
    labels, predictions = np.asarray(labels) == positive, np.asarray(predictions) == positive
    return f1_score(labels, predictions, zero_division=0)


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """0 where all predictions or all labels are the same."""
    from sklearn.metrics import matthews_corrcoef

    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return matthews_corrcoef(labels, predictions)


def _correlation(name: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """0 where it is not defined: constant or infinite values, fewer than two examples."""
    from scipy import stats

    pair = np.asarray([labels, predictions], dtype=np.float64)
    if pair.shape[1] < 2 or not np.isfinite(pair).all() or (np.ptp(pair, axis=1) == 0).any():
        return 0.0
    value = getattr(stats, name)(*pair).statistic
    return float(value) if math.isfinite(value) else 0.0


def _metric(function: Callable, *args) -> Callable[[np.ndarray, np.ndarray], float]:
    """`function` times 100, as the paper prints it."""
    return lambda labels, predictions, **options: (
        100 * float(function(*args, labels, predictions, **options))
    )


# name -> function of labels [examples] and predictions [examples] of `decode`, all known
METRICS: dict[str, Callable[..., float]] = {
    'accuracy': _metric(_accuracy),
    'f1': _metric(_f1),
    'matthews': _metric(_matthews),
    'pearson': _metric(_correlation, 'pearsonr'),
    'spearman': _metric(_correlation, 'spearmanr'),
}


def is_better(score: float, best: float | None) -> bool:
    """Whether parameters with this score are kept in place of those with the `best` one so far.

    None: there are none yet. The first of equals stays, and any number is better than NaN.
    """
    if best is None or math.isnan(best):
        return best is None or not math.isnan(score)
    return score > best
