"""From logits to predictions, metrics and submission files."""

import math
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpt1.tasks.task import Task


def soft_targets(scores: np.ndarray, n_classes: int = 6) -> np.ndarray:
    """Target probabilities [examples, n_classes] of scores [examples] from 0 to n_classes - 1.

    3.6 is 0.4 of class 3 and 0.6 of class 4 (`stsb_label_encoding` of the original, which has it
    from Tai, Socher & Manning 2015). A score that is not known (NaN) gives a row of NaN.
    """
    scores = np.asarray(scores, dtype=np.float64)
    targets = np.full((len(scores), n_classes), np.nan)
    known = np.flatnonzero(~np.isnan(scores))
    lower = np.floor(scores[known]).astype(int)
    part = scores[known] - lower
    targets[known] = 0
    targets[known, lower] = 1 - part
    targets[known, np.minimum(lower + 1, n_classes - 1)] += part
    return targets


def decode(task: 'Task', logits: np.ndarray) -> np.ndarray:
    """Predictions [examples] of logits [examples, classes or choices].

    The number of the class or choice; with soft labels the expected class, sum of i * p_i; in a
    regression the number itself. Choices that an example lacks must have the logit -inf.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if task.regression:
        return logits[:, 0] * task.std + task.mean
    if task.soft_labels:
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return p @ np.arange(p.shape[1]) / p.sum(axis=1)
    return logits.argmax(axis=1)


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


def score(task: 'Task', metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The score of predictions [examples] of `decode` by one of the task's metrics."""
    options = {'positive': task.positive} if metric == 'f1' else {}
    return METRICS[metric](labels, predictions, **options)


def is_better(score: float, best: float | None) -> bool:
    """Whether parameters with this score are kept in place of those with the `best` one so far.

    None: there are none yet. The first of equals stays, and any number is better than NaN.
    """
    if best is None or math.isnan(best):
        return best is None or not math.isnan(score)
    return score > best


def write_submission(f: IO[str], task: 'Task', predictions: Iterable) -> None:
    """Write the predictions of `decode` in GLUE's format: the header, then a row an example.

    Classes as GLUE has them, words or digits; STS-B's scores from 0 to 5 with three decimals;
    choices of ROCStories as 0 or 1, as the original writes them.
    """
    f.write('index\tprediction\n')
    for index, prediction in enumerate(predictions):
        if task.soft_labels:
            text = f'{min(max(float(prediction), 0.0), 5.0):.3f}'
        elif task.regression:
            text = f'{float(prediction):.6g}'
        else:
            text = task.word(int(prediction))
        f.write(f'{index}\t{text}\n')
