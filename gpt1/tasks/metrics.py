"""The scores of predictions: arrays to numbers."""

import math
from collections.abc import Callable

import numpy as np


def _counts(
    labels: np.ndarray, predictions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each class: how often it is predicted rightly, how often a label, how often predicted."""
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    parts = labels[labels == predictions], labels, predictions
    n_classes = 1 + max(labels.max(), predictions.max())
    right, of_labels, predicted = (np.bincount(part, minlength=n_classes) for part in parts)
    return right, of_labels, predicted


def _f1(labels: np.ndarray, predictions: np.ndarray, positive: int | None = 1) -> float:
    """Of a class: GLUE has 1. None: the mean over the classes that occur (macro)."""
    right, of_labels, predicted = _counts(labels, predictions)
    f1 = 2 * right / np.maximum(of_labels + predicted, 1)
    if positive is None:
        return f1[of_labels + predicted > 0].mean()
    return f1[positive] if positive < len(f1) else 0.0


def matthews(right: np.ndarray, of_labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The Matthews correlation (Gorodkin, 2004); 0 where all labels or all predictions are one.

    right      [...] the number of right predictions
    of_labels  [..., classes] how often each class is a label
    predicted  [..., classes] how often it is predicted
    """
    of_labels, predicted = np.float64(of_labels), np.float64(predicted)
    n = of_labels.sum(-1)
    covariance = right * n - (of_labels * predicted).sum(-1)
    variances = (n**2 - (of_labels**2).sum(-1)) * (n**2 - (predicted**2).sum(-1))
    return covariance / np.sqrt(np.where(variances > 0, variances, np.inf))


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    right, of_labels, predicted = _counts(labels, predictions)
    return matthews(right.sum(), of_labels, predicted)


def _pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """0 where it is not defined: constant or infinite values, fewer than two examples."""
    pair = np.asarray([labels, predictions], dtype=np.float64)
    if not np.isfinite(pair).all() or (np.ptp(pair, axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(pair)[0, 1])


def _spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's, of the ranks; equal values share the mean of theirs."""
    from scipy.stats import rankdata  # here, since it takes half a second

    if not np.isfinite(predictions).all():
        return 0.0
    return _pearson(rankdata(labels), rankdata(predictions))


def _metric(function: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    """`function` times 100, as the paper prints it."""
    return lambda labels, predictions, **options: (
        100 * float(function(labels, predictions, **options))
    )


# name -> function of labels [examples] and predictions [examples] of `decode`, all known
METRICS: dict[str, Callable[..., float]] = {
    'accuracy': _metric(lambda labels, predictions: np.equal(labels, predictions).mean()),
    'f1': _metric(_f1),
    'matthews': _metric(_matthews),
    'pearson': _metric(_pearson),
    'spearman': _metric(_spearman),
}


def is_better(score: float, best: float | None) -> bool:
    """Whether parameters with this score are kept in place of those with the `best` one so far.

    None: there are none yet. The first of equals stays, and any number is better than NaN.
    """
    if best is None or math.isnan(best):
        return best is None or not math.isnan(score)
    return score > best
