"""Figures, pictures and a report of a fine-tuning run, from its log and its predictions.

    python analysis.py --desc rocstories
    python analysis.py --desc seed1 seed2 seed3

writes report.md and its pictures to analysis/<desc>/, as `train.py --analysis` does. For several
runs, it also prints a table of their scores with the median and the spread.
"""

import csv
import json
import math
import os
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TextIO

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np

from datasets import TASKS, read_data
from gpt1.parsing import Parser
from gpt1.report import pictures
from gpt1.report.pictures import Measured
from gpt1.run import record
from gpt1.tasks.metrics import decode, is_better, score
from gpt1.tasks.task import Data, Example, Published, Task
from utils import InputError, check_writable, exit_status, whole_file

METRIC_NAMES = {  # for people
    'accuracy': 'Accuracy',
    'f1': 'F1',
    'matthews': 'Matthews',
    'pearson': 'Pearson',
    'spearman': 'Spearman',
}
PUBLISHED_EPOCHS = {
    # Training and validation accuracy in % after each epoch, of the reproduction that this one
    # started from.
    'rocstories': ((74.87, 74.06), (86.90, 83.42), (92.51, 87.43)),
}
# Of the bootstrap: the number of resamples, and the most examples in a resample of numbers
N_RESAMPLES = 10_000
N_CORRELATIONS = 2000
N_MACRO = 500
MAX_RESAMPLE = 2500
N_BINS = 10  # of the calibration
N_GROUPS = 5  # of the lengths
N_MISTAKES = 10
MAX_CLASSES = 20  # in the picture of the confusion matrix
MAX_TEXT = 1000  # characters of a text in the report


# ------------------------------------------------------------------------------------------------
# The log


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


# ------------------------------------------------------------------------------------------------
# Predictions


def is_real(task: Task) -> bool:
    """Whether a prediction of this task is a real number, and not one of several classes."""
    return task.soft_labels or task.regression


def probabilities(task: Task, logits: np.ndarray) -> np.ndarray | None:
    """The probability of each class or choice, [examples, classes or choices] float64.

    A score of -inf means that the example has no such choice. None for regression.
    """
    if task.regression:
        return None
    from scipy.special import softmax  # slow to import

    return softmax(np.asarray(logits, dtype=np.float64), axis=1)


@dataclass(frozen=True)
class Predictions:
    """The predictions for the examples of one set, or of several sets together.

    examples  a list of `datasets.Example`
    labels    [examples] ids of classes or choices, or real numbers; None: not known
    values    [examples] the predictions, of the same kind
    shares    [examples, classes or choices] probabilities; None for real numbers
    """

    examples: list[Example]
    labels: np.ndarray | None
    values: np.ndarray
    shares: np.ndarray | None

    @property
    def confidence(self) -> np.ndarray:
        """[examples] the probability of the prediction."""
        return self.shares.max(1)

    @property
    def right(self) -> np.ndarray:
        """[examples] whether the prediction is right."""
        return self.values == self.labels

    def take(self, indices: np.ndarray) -> 'Predictions':
        """Those with labels for some of the examples."""
        return Predictions(
            examples=[self.examples[i] for i in indices],
            labels=self.labels[indices],
            values=self.values[indices],
            shares=None if self.shares is None else self.shares[indices],
        )


def predictions_for(task: Task, examples: list[Example], logits: np.ndarray) -> Predictions:
    """Decode the `logits` [examples, scores] of a set of examples."""
    labels = [example.label for example in examples]
    known = None not in labels
    kind = np.float64 if is_real(task) else np.int64
    return Predictions(
        examples=list(examples),
        labels=np.array(labels, dtype=kind) if known else None,
        values=decode(task, logits),
        shares=None if is_real(task) else probabilities(task, logits),
    )


def together(parts: Sequence[Predictions]) -> Predictions:
    """Put the predictions of several sets into one."""
    known = all(part.labels is not None for part in parts)
    shares = None
    if parts[0].shares is not None:
        width = max(part.shares.shape[1] for part in parts)
        shares = np.concatenate(
            [np.pad(part.shares, ((0, 0), (0, width - part.shares.shape[1]))) for part in parts]
        )
    return Predictions(
        examples=[example for part in parts for example in part.examples],
        labels=np.concatenate([part.labels for part in parts]) if known else None,
        values=np.concatenate([part.values for part in parts]),
        shares=shares,
    )


def predictions_path(folder: str, kind: str, split: str, n_splits: int) -> str:
    """The file of the predictions for a `kind` of set, 'test' or 'valid'.

    A single test set has predictions.csv; MNLI's have predictions_matched.csv and so on. Files for
    validation sets are called predictions_valid.csv, or predictions_valid_matched.csv.
    """
    parts = ['predictions']
    if kind == 'valid':
        parts.append('valid')
    if n_splits > 1:
        parts.append(split)
    return os.path.join(folder, '_'.join(parts) + '.csv')


def columns(task: Task, n_scores: int) -> list[str]:
    """The header of predictions.csv."""
    scores = [f'score{i}' for i in range(1, n_scores + 1)] if n_scores > 1 else ['score']
    return ['id', *scores, *([] if is_real(task) else ['probability']), 'prediction', 'label']


def write_predictions(f: TextIO, task: Task, examples: list[Example], logits: np.ndarray) -> None:
    """Write predictions.csv to an open file, one row for each example.

    Its columns are the id, the scores that the model computes, the probability of the prediction
    (except for real numbers), the prediction, and the label. Prediction and label are the name of a
    class, a real number, or a choice as the data files write it (ROCStories: 0 or 1). The label is
    empty where it is not known, and a score where an example has no such choice.
    """
    logits = np.asarray(logits)
    predictions = predictions_for(task, examples, logits)
    values = predictions.values.tolist()
    shares = [None] * len(values)
    if not is_real(task):
        shares = predictions.confidence.tolist()
    writer = csv.writer(f, lineterminator='\n')
    writer.writerow(columns(task, logits.shape[1]))
    for example, scores, share, value in zip(
        examples, logits.tolist(), shares, values, strict=True
    ):
        row = [id_in_csv(example)]
        row += ['' if score == -math.inf else f'{score:.9g}' for score in scores]
        if share is not None:
            row.append(f'{share:.6f}')
        row.append(name_of(task, value))
        row.append('' if example.label is None else name_of(task, example.label))
        writer.writerow(row)


def id_in_csv(example: Example) -> str:
    """The id without carriage returns, which Python's csv module writes but does not quote."""
    return example.id.replace('\r', ' ')


def name_of(task: Task, value: int | float) -> str:
    """A prediction or a label as text: the name of a class, a choice such as A, or a number."""
    if is_real(task):
        return f'{value:.9g}'
    return task.labels[value] if task.labels is not None else task.word(value)


def read_predictions(path: str, task: Task) -> tuple[list[str], np.ndarray, list[str]]:
    """Read what `write_predictions` wrote: ids, logits [examples, scores] float32, and labels.

    A label that was not known is empty. Raises InputError.
    """
    try:
        with open(path, encoding='utf-8', newline='') as f:
            rows = list(csv.reader(f))
    except OSError as error:
        raise InputError(
            f'cannot read {path}: {error.strerror}; train.py writes it with --submit'
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f'{path} is not a CSV file ({error})') from error
    n_scores = task.n_out
    if task.layout == 'choices' and rows:
        n_scores = sum(name.startswith('score') for name in rows[0])
    header = columns(task, n_scores)
    if not rows or rows[0] != header:
        raise InputError(f'{path}, row 1: expected the header {",".join(header)}')
    logits = np.empty((len(rows) - 1, n_scores))
    for number, row in enumerate(rows[1:], 2):
        try:
            if len(row) != len(header):
                raise ValueError
            logits[number - 2] = [
                float(cell) if cell else -math.inf for cell in row[1 : n_scores + 1]
            ]
        except ValueError as error:
            raise InputError(
                f'{path}, row {number}: expected {len(header)} columns, with numbers as scores'
            ) from error
    is_score = abs(logits) < 1e30  # False for NaN, too
    is_absent = np.isneginf(logits) & (task.layout == 'choices')
    is_valid = (is_score | is_absent).all(1) & is_score.any(1)
    if not is_valid.all():
        raise InputError(f'{path}, row {is_valid.argmin() + 2}: expected numbers as scores')
    return [row[0] for row in rows[1:]], logits.astype(np.float32), [row[-1] for row in rows[1:]]


def save_predictions(
    folder: str,
    task: Task,
    test: dict[str, tuple[list[Example], np.ndarray]],
    valid: dict[str, tuple[list[Example], np.ndarray]] | None = None,
) -> None:
    """Write the predictions of a run to its folder, a file for each test and validation set.

    test, valid  name of a set -> its examples and their logits
    """
    for kind, splits in (('test', test), ('valid', valid or {})):
        for split, (examples, logits) in splits.items():
            with whole_file(predictions_path(folder, kind, split, len(splits))) as f:
                write_predictions(f, task, examples, logits)


# ------------------------------------------------------------------------------------------------
# Metrics and their intervals


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
        Result(name, metric, score(task, metric, part.labels, part.values), part, task)
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
    same = [score(task, result.metric, labels, np.full_like(labels, c)) for c in constants]
    return error, max(same)


def macro_interval(result: Result, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of a macro F1, of which a confusion matrix may be too large to resample."""
    from scipy import stats

    pair = (result.predictions.labels, result.predictions.values)
    if len(pair[0]) < 2:
        return math.nan, math.nan
    found = stats.bootstrap(
        pair,
        lambda labels, values: score(result.task, 'f1', labels, values),
        paired=True,
        vectorized=False,
        n_resamples=N_MACRO,
        batch=100,
        method='percentile',
        rng=rng,
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def bins(values: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """The indices of the values in each bin. The last bin includes its upper edge."""
    which = np.clip(np.searchsorted(edges, values, side='right') - 1, 0, len(edges) - 2)
    return [np.flatnonzero(which == i) for i in range(len(edges) - 1)]


def confidence_edges(n_classes: int) -> np.ndarray:
    """The edges of N_BINS bins, from about the lowest probability that a prediction can have."""
    return np.linspace(math.floor(10 / n_classes) / 10, 1, N_BINS + 1)


def calibrate(predictions: Predictions, edges: np.ndarray) -> tuple[np.ndarray, float]:
    """How often predictions are right, by their confidence.

    Returns [bins that are not empty, 4]: the mean confidence, and the accuracy in % with its
    interval; and the expected calibration error (Guo et al., 2017), the mean distance of
    confidence and accuracy.
    """
    confidence = predictions.confidence
    groups = [group for group in bins(confidence, edges) if len(group)]
    n = np.array([len(group) for group in groups])
    n_right = np.array([predictions.right[group].sum() for group in groups])
    mean = np.array([confidence[group].mean() for group in groups])
    error = (n * abs(mean - n_right / n)).sum() / n.sum()
    limits = np.array([wilson(*pair) for pair in zip(n_right, n, strict=True)])
    return np.column_stack([mean, 100 * n_right / n, limits]), float(error)


def count_words(example: Example) -> int:
    return sum(len(text.split()) for text in example.texts)


def by_length(lengths: np.ndarray) -> list[np.ndarray]:
    """The indices of up to N_GROUPS groups of about the same size, from short to long texts."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, N_GROUPS + 1)).round())
    if len(edges) == 1:
        return [np.arange(len(lengths))]
    return [group for group in bins(lengths, edges) if len(group)]


# ------------------------------------------------------------------------------------------------
# The report


def count_examples(n: int) -> str:
    """'1 example', '60 examples'."""
    return f'{n:,} example' if n == 1 else f'{n:,} examples'


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is, on one line, cut to MAX_TEXT characters."""
    text = ' '.join(text.split())
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + ' …'
    return re.sub(r'([\\`*_<>|#\[\]~$&])', r'\\\1', text)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence]) -> list[str]:
    """A Markdown table that is also legible as text. The first column is aligned left."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row):
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f'| {" | ".join(padded)} |'

    rule = [':' + '-' * (widths[0] + 1), *('-' * (width + 1) + ':' for width in widths[1:])]
    return [line(cells[0]), f'|{"|".join(rule)}|', *map(line, cells[1:])]


def picture(name: str, alt: str) -> list[str]:
    """The lines that show a picture of the run's folder."""
    return ['', f'![{alt}]({name}.png)']


def write_report(
    folder: str,
    arguments: dict,
    evaluations: list[dict],
    task: Task,
    test: dict[str, tuple[list[Example], np.ndarray]],
    valid: dict[str, tuple[list[Example], np.ndarray]] | None = None,
    published: bool = False,
    notes: Sequence[str] = (),
    data_notes: Sequence[str] = (),
) -> None:
    """Write report.md and its pictures to `folder`.

    arguments, evaluations  of the run's log, as `read_log` returns them
    test         name of a test set -> its examples and their logits [examples, scores]
    valid        the same for validation sets, with the parameters that were kept. Where no test set
                 has labels, they are analysed instead
    published    compare with published results, see `can_compare`
    notes        what a reader must know first, for example that the data are the made-up sample
    data_notes   `datasets.Data.notes`

    Raises WriteError.
    """
    tested = {name: predictions_for(task, *pair) for name, pair in test.items()}
    validated = {name: predictions_for(task, *pair) for name, pair in (valid or {}).items()}
    analysed, where = choose_set(tested, validated)
    notes = [*notes, *warnings_of(task, analysed, where)]
    lines = [
        f'# {plain(str(arguments.get("desc", task.name)))}',
        '',
        *[line for note in notes for line in (f'**{plain(note)}**', '')],
        *[f'- Data: {plain(note)}' for note in data_notes],
        *report_cut(arguments, task),
        *report_scores(folder, evaluations, task, tested, validated, published),
        *report_training(folder, evaluations, task, published),
    ]
    unknown = {name: part for name, part in tested.items() if part.labels is None}
    if unknown:
        lines += report_unknown(folder, task, unknown, validated)
    if analysed is not None:
        if where.startswith('validation'):
            lines += ['', f'The sections below analyse the {where}, whose labels are known.']
        if is_real(task):
            lines += report_numbers(folder, analysed, where)
        else:
            if task.labels:
                lines += report_classes(folder, task, analysed, where)
            lines += report_confidence(folder, analysed, where)
        lines += report_lengths(folder, task, analysed, where)
        lines += report_mistakes(task, analysed, where)
    with whole_file(os.path.join(folder, 'report.md')) as f:
        f.write('\n'.join(lines) + '\n')


def report_cut(arguments: dict, task: Task) -> list[str]:
    """How many examples of which set were cut, and by which rule."""
    n_cut = arguments.get('n_cut')
    if not n_cut:
        return []
    counts = ', '.join(f'{n:,} {name}' for name, n in n_cut.items())
    return [f'- Cut: {counts} examples are longer: {task.cut_rule(arguments["n_ctx"])}.']


def choose_set(
    tested: dict[str, Predictions], validated: dict[str, Predictions]
) -> tuple[Predictions | None, str]:
    """The predictions to analyse, and in words which they are: the test set if it has labels."""
    for kind, sets in (('test', tested), ('validation', validated)):
        known = {name: part for name, part in sets.items() if part.labels is not None}
        if len(known) == 1:
            return next(iter(known.values())), f'{kind} set'
        if known:
            return together(list(known.values())), f'{kind} sets {" and ".join(known)} together'
    return None, ''


def warnings_of(task: Task, predictions: Predictions | None, where: str) -> list[str]:
    """A warning if classes that occur in a set are never predicted. F1 may hide it."""
    if not task.labels or predictions is None or predictions.labels is None:
        return []
    absent = np.setdiff1d(predictions.labels, predictions.values)
    if not len(absent):
        return []
    names = ', '.join(repr(task.labels[i]) for i in absent[:10])
    names += f' and {len(absent) - 10:,} more' if len(absent) > 10 else ''
    kind, verb = ('class', 'is') if len(absent) == 1 else ('classes', 'are')
    n = int(np.isin(predictions.labels, absent).sum())
    return [
        f'warning: the {kind} {names} {verb} never predicted, but right for {n:,} of '
        f'{count_examples(len(predictions.labels))} of the {where}'
    ]


def report_scores(
    folder: str,
    evaluations: list[dict],
    task: Task,
    tested: dict[str, Predictions],
    validated: dict[str, Predictions],
    published: bool,
) -> list[str]:
    """The first section: the scores, their intervals, and published results."""
    best = best_evaluation(evaluations, task)
    first, *others = [f'va_{name}' for name in validation_figures(best, task)]
    lines = [
        f'- Best {figure_title(first, task)}: **{format_figure(first, best[first])}**, '
        f'after epoch {best["n_epochs"]} (update {best["n_updates"]:,}).'
    ]
    lines += [
        f'  - {figure_title(name, task)}: {format_figure(name, best[name])}' for name in others
    ]
    rows = []
    for result in results(task, tested):
        limits = interval(result)
        lines.append(f'- Test {plain(result.title)}: {describe(result, limits)}')
        figures = published_figures(task, 'test', result) if published else []
        lines += compare(figures, limits)
        if figures and result.metric == task.metrics[0]:
            place = suffix(result.split)
            rows.append(Measured(f'this run{place}', result.value, *limits))
            rows += [Measured(f.who + place, f.value, math.nan, math.nan) for f in figures]
    for split, part in tested.items():
        if part.labels is None:
            lines += not_known(task, split, published)
    if not any(part.labels is not None for part in tested.values()):
        for result in results(task, validated):
            limits = interval(result)
            lines.append(f'- Validation {plain(result.title)}: {describe(result, limits)}')
            if published:
                lines += compare(published_figures(task, 'valid', result), limits)
    if task.published and not published:
        lines.append(
            '- Not compared with published results: they hold for the complete data set and '
            "OpenAI's weights."
        )
    if rows:
        pictures.draw_scores(os.path.join(folder, 'test.png'), rows, with_unit(task.metrics[0]))
        lines += picture('test', 'Test scores beside published results')
    return lines


def validation_figures(evaluation: dict, task: Task) -> list[str]:
    """The names of the validation metrics without `va_`, the first metric of the task first."""
    names = [name[3:] for name in figure_names(evaluation) if name.startswith('va_')]
    first = log_name(task.metrics[0])
    others = [name for name in names if name != first and not name.startswith('cost')]
    return [first, *others]


def format_figure(name: str, value: float) -> str:
    """A figure of the log as text: `name` says which."""
    metric = name[3:].partition('_')[0]
    return f'{value:.3f}' if metric == 'cost' else format_metric(metric_of(metric), value)


def describe(result: Result, limits: tuple[float, float]) -> str:
    """'**75.00 %** (45 of 60 examples); 95 % interval 62.77 to 84.22.'"""
    examples = count_examples(len(result.predictions.values))
    if result.metric == 'accuracy':
        examples = f'{result.predictions.right.sum():,} of {examples}'
    return f'**{result}** ({examples}); 95 % interval {format_interval(*limits)}.'


def published_figures(task: Task, kind: str, result: Result) -> list[Published]:
    """What others found on this set of the `kind` 'test' or 'valid', with this metric."""
    wanted = (kind, result.split, result.metric)
    return [
        figure for figure in task.published if (figure.on, figure.split, figure.metric) == wanted
    ]


def compare(figures: list[Published], limits: tuple[float, float]) -> list[str]:
    """Published figures as lines, which say whether they are in the interval of this run."""
    lines = []
    for figure in figures:
        line = f'  - {format_published(figure)}'
        if not math.isnan(limits[0]):
            is_inside = limits[0] <= figure.value <= limits[1]
            line += ': inside the interval.' if is_inside else ': outside the interval.'
        lines.append(line)
    return lines


def format_published(figure: Published) -> str:
    """'86.5 % (paper)', with as many digits as it was published with."""
    unit = ' %' if figure.metric == 'accuracy' else ''
    return f'{figure.value}{unit} ({plain(figure.who)})'


def not_known(task: Task, split: str, published: bool) -> list[str]:
    """The lines for a test set without labels."""
    title = metric_title(task.metrics[0]) + suffix(split)
    lines = [f'- Test {title}: not known, since the test file has no labels.']
    if published:
        figures = [
            figure for figure in task.published if (figure.on, figure.split) == ('test', split)
        ]
        lines += [
            f'  - Published {metric_title(figure.metric)}: {format_published(figure)}.'
            for figure in figures
        ]
    return lines


def report_training(folder: str, evaluations: list[dict], task: Task, published: bool) -> list[str]:
    """The section of costs and metrics by epoch."""
    names = figure_names(evaluations[0])
    header = ['epoch', 'update', *(figure_title(name, task) for name in names)]
    rows = [
        [
            line['n_epochs'],
            f'{line["n_updates"]:,}',
            *(format_figure(name, line[name]) for name in names),
        ]
        for line in evaluations
    ]
    lines = ['', '## Training', '', *markdown_table(header, rows)]
    known = {}
    if published and task.name in PUBLISHED_EPOCHS:
        train, valid = zip(*PUBLISHED_EPOCHS[task.name], strict=True)
        known = {'training': train, 'validation': valid}
        epochs = [
            f'after epoch {i}, training accuracy {a:.2f} %, validation accuracy {b:.2f} %'
            for i, (a, b) in enumerate(zip(train, valid, strict=True), 1)
        ]
        lines += [
            '',
            f'Published, of the reproduction that this one started from: {"; ".join(epochs)}.',
        ]
    last = evaluations[-1]
    epochs_per_update = last['n_epochs'] / max(last['n_updates'], 1)

    def curves(metric):
        chosen = [name for name in names if name[3:].partition('_')[0] == metric]
        return {set_title(name): [line[name] for line in evaluations] for name in chosen}

    pictures.draw_training(
        os.path.join(folder, 'training.png'),
        epochs=[line['n_updates'] * epochs_per_update for line in evaluations],
        costs=curves('cost'),
        scores=curves(log_name(task.metrics[0])),
        title=with_unit(task.metrics[0]),
        published=known,
    )
    return [*lines, *picture('training', 'Cost and score by epoch')]


def report_unknown(
    folder: str, task: Task, unknown: dict[str, Predictions], validated: dict[str, Predictions]
) -> list[str]:
    """The section of test sets without labels: the distribution of the predictions."""
    lines = [
        '',
        '## Predictions for the test set',
        '',
        'The labels of the test set are not known. These are the predictions:',
        '',
    ]
    known = {f'validation{suffix(name)}, labels': part for name, part in validated.items()}
    known = {name: part for name, part in known.items() if part.labels is not None}
    path = os.path.join(folder, 'predictions.png')
    shown = {f'test{suffix(name)}': part.values for name, part in unknown.items()}
    shown |= {name: part.labels for name, part in known.items()}
    if is_real(task):
        header = ['set', 'examples', 'mean', 'standard deviation', 'lowest', 'median', 'highest']
        rows = []
        for name, values in shown.items():
            figures = (values.mean(), values.std(), values.min(), np.median(values), values.max())
            rows.append([name, f'{len(values):,}', *(f'{figure:.3f}' for figure in figures)])
        pictures.draw_values(
            path, {f'predictions{suffix(name)}': part.values for name, part in unknown.items()}
        )
    else:
        header = ['class' if task.labels else 'choice', *shown]
        n_rows = max(part.shares.shape[1] for part in (*unknown.values(), *known.values()))
        counts = [np.bincount(values, minlength=n_rows) for values in shown.values()]
        rows = [
            [plain(name_of(task, i)), *(f'{c[i]:,} ({c[i] / c.sum():.1%})' for c in counts)]
            for i in range(n_rows)
        ]
        confidence = together(list(unknown.values())).confidence
        pictures.draw_confidence(path, confidence, None, confidence_edges(n_rows), None)
    return [
        *lines,
        *markdown_table(header, rows),
        *picture('predictions', 'Distribution of the predictions'),
    ]


def heading(title: str, where: str) -> list[str]:
    """The heading of a section. It names the set, except for a single test set."""
    return ['', f'## {title}' if where == 'test set' else f'## {title} ({where})', '']


def percentage(part: int, whole: int) -> str:
    return f'{100 * part / whole:.2f} %' if whole else '–'


def report_classes(folder: str, task: Task, predictions: Predictions, where: str) -> list[str]:
    """The section of the confusion matrix."""
    counts = confusion(predictions.labels, predictions.values, len(task.labels))
    names = [plain(name) for name in task.labels]
    right = counts.diagonal()
    n_labels, n_predicted = counts.sum(1), counts.sum(0)
    rows = [
        [
            name,
            f'{n_labels[i]:,}',
            f'{n_predicted[i]:,}',
            percentage(right[i], n_predicted[i]),
            percentage(right[i], n_labels[i]),
        ]
        for i, name in enumerate(names)
    ]
    header = ['class', 'examples', 'predictions', 'precision', 'recall']
    lines = [*heading('Classes', where), *markdown_table(header, rows)]
    if len(names) <= MAX_CLASSES:
        pictures.draw_confusion(os.path.join(folder, 'confusion.png'), counts, task.labels)
        return [*lines, *picture('confusion', 'Confusion matrix')]
    wrong = counts - np.diag(right)
    pairs = np.argsort(-wrong, axis=None, kind='stable')[:N_MISTAKES]
    rows = [
        [names[label], names[prediction], f'{wrong[label, prediction]:,}']
        for label, prediction in zip(*np.unravel_index(pairs, wrong.shape), strict=True)
        if wrong[label, prediction]
    ]
    lines += ['', 'The most frequent mistakes:', '']
    return [*lines, *markdown_table(['class', 'prediction', 'examples'], rows)]


def report_confidence(folder: str, predictions: Predictions, where: str) -> list[str]:
    """The section of confidence and calibration."""
    confidence = predictions.confidence
    right = predictions.right
    edges = confidence_edges(predictions.shares.shape[1])
    calibration, error = calibrate(predictions, edges)
    path = os.path.join(folder, 'confidence.png')
    pictures.draw_confidence(path, confidence, right, edges, calibration)
    return [
        *heading('Confidence', where),
        f'The model gives its prediction a probability of {confidence.mean():.3f} on average '
        f'(median {np.median(confidence):.3f}). {right.mean():.3f} of the predictions are right. '
        f'The expected calibration error, over {N_BINS} bins, is {error:.3f}.',
        *picture('confidence', 'Confidence and calibration'),
    ]


def report_numbers(folder: str, predictions: Predictions, where: str) -> list[str]:
    """The section of predicted and given scores."""
    labels, values = predictions.labels, predictions.values
    errors = values - labels
    pictures.draw_scatter(os.path.join(folder, 'scatter.png'), labels, values)
    return [
        *heading('Predictions and scores', where),
        f'The mean score is {labels.mean():.3f} (standard deviation {labels.std():.3f}), the mean '
        f'prediction {values.mean():.3f} (standard deviation {values.std():.3f}). The mean '
        f'absolute error is {abs(errors).mean():.3f}, the root mean squared error '
        f'{math.sqrt((errors**2).mean()):.3f}.',
        *picture('scatter', 'Predictions and scores'),
    ]


def report_lengths(folder: str, task: Task, predictions: Predictions, where: str) -> list[str]:
    """The section of the first metric by the length of the texts."""
    metric = task.metrics[0]
    lengths = np.array([count_words(example) for example in predictions.examples])
    groups = []
    rows = []
    for indices in by_length(lengths):
        part = predictions.take(indices)
        result = Result('', metric, score(task, metric, part.labels, part.values), part, task)
        low, high = interval(result)
        group = lengths[indices]
        words = f'{group.min()} to {group.max()}' if np.ptp(group) else str(group.min())
        name = f'{words}\n{count_examples(len(group))}'
        groups.append(Measured(name, result.value, low, high))
        rows.append([words, f'{len(group):,}', str(result), format_interval(low, high)])
    overall = score(task, metric, predictions.labels, predictions.values)
    path = os.path.join(folder, 'length.png')
    pictures.draw_lengths(path, groups, with_unit(metric), overall)
    header = ['words in all texts', 'examples', metric_title(metric), '95 % interval']
    return [
        *heading('Length', where),
        *markdown_table(header, rows),
        *picture('length', f'{METRIC_NAMES[metric]} by length'),
    ]


def report_mistakes(task: Task, predictions: Predictions, where: str) -> list[str]:
    """The section of the surest mistakes, or of the largest errors, with their texts."""
    if is_real(task):
        errors = abs(predictions.values - predictions.labels)
        worst = np.argsort(-errors, kind='stable')[:N_MISTAKES]
        lines = heading('The largest errors', where)
        lines.append('The examples with the largest difference of prediction and score:')
    else:
        wrong = np.flatnonzero(~predictions.right)
        order = np.argsort(-predictions.confidence[wrong], kind='stable')
        worst = wrong[order][:N_MISTAKES]
        lines = heading('The surest mistakes', where)
        lines.append(
            f'{len(wrong):,} of {len(predictions.values):,} predictions are wrong. '
            'The surest of them:'
            if len(wrong)
            else 'There are none.'
        )
    for rank, i in enumerate(worst, 1):
        lines += ['', *describe_mistake(task, predictions, rank, i)]
    return lines


def describe_mistake(task: Task, predictions: Predictions, rank: int, i: int) -> list[str]:
    """One item of the list of mistakes."""
    example = predictions.examples[i]
    prediction, label = predictions.values[i], predictions.labels[i]
    first = f'{rank}. Example {plain(example.id)}: '
    item = ' ' * len(f'{rank}. ') + '- '  # Markdown wants it below the first word
    if is_real(task):
        first += f'predicted {prediction:.2f}, the score is {label:.2f}'
        return [first, *(f'{item}text: {plain(text)}' for text in example.texts)]
    shares = predictions.shares[i]
    if task.labels:
        first += (
            f'predicted {plain(task.labels[prediction])} ({shares[prediction]:.1%}), '
            f'right is {plain(task.labels[label])} ({shares[label]:.1%})'
        )
        return [first, *(f'{item}text: {plain(text)}' for text in example.texts)]
    first += f'predicted {task.word(prediction)}, right is {task.word(label)}'
    context = example.texts[: task.n_context]
    choices = example.texts[task.n_context :]
    lines = [first, *(f'{item}context: {plain(text)}' for text in context)]
    for k, choice in enumerate(choices):
        right = ' (right)' if k == label else ''
        lines.append(f'{item}{task.word(k)}, {shares[k]:.1%}{right}: {plain(choice)}')
    return lines


# ------------------------------------------------------------------------------------------------
# What is printed


def print_metrics(
    task: Task,
    evaluations: list[dict],
    test: dict[str, tuple[list[Example], np.ndarray]],
    valid: dict[str, tuple[list[Example], np.ndarray]] | None = None,
) -> None:
    """Print the metrics of the best parameters, as OpenAI's program does for ROCStories at its end.

    test, valid  name of a set -> its examples and their logits [examples, scores]
    """

    def title_of(metric):
        return METRIC_NAMES[metric] if metric == 'accuracy' else metric_title(metric, task)

    best = best_evaluation(evaluations, task)
    for name in validation_figures(best, task):
        metric, _, split = name.partition('_')
        title = title_of(metric_of(metric))
        value = best[f'va_{name}']
        print(f'{task.title} Valid {title}{suffix(split or "valid")}: {value:.2f}')
    tested = {name: predictions_for(task, *pair) for name, pair in test.items()}
    for result in results(task, tested):
        title = title_of(result.metric) + suffix(result.split)
        print(f'{task.title} Test {title}:  {result.value:.2f}')
    for split, part in tested.items():
        if part.labels is None:
            title = METRIC_NAMES[task.metrics[0]] + suffix(split)
            print(f'{task.title} Test {title}:  not known: the test file has no labels')
    validated = {name: predictions_for(task, *pair) for name, pair in (valid or {}).items()}
    for warning in warnings_of(task, *choose_set(tested, validated)):
        print(warning, file=sys.stderr)


def print_next_step(notes: Sequence[str]) -> None:
    """Print what to do after a run on sample data or with the sample model."""
    if any(note.startswith('sample') for note in notes):
        print(
            'next: real files (python download.py, data/README.md), your own data '
            '(--dataset custom --data_dir FOLDER), or the whole paper (python paper.py)'
        )


class Score(NamedTuple):
    """The scores of a run, for the table of several runs."""

    desc: str
    title: str  # of the task and the metric
    seed: object
    valid: float
    test: float | None  # None: not known


def summarize(scores: list[Score]) -> list[str]:
    """A table of the scores of several runs, and of their median and spread."""
    header = ['run', 'seed', 'valid', 'test']
    rows = [
        [s.desc, s.seed, f'{s.valid:.2f}', '?' if s.test is None else f'{s.test:.2f}']
        for s in scores
    ]
    known = [
        [s.valid for s in scores],
        [s.test for s in scores if s.test is not None],
    ]
    for name, figure in (
        ('median', statistics.median),
        ('lowest', min),
        ('highest', max),
        ('standard deviation', statistics.stdev),
    ):
        cells = [f'{figure(values):.2f}' if len(values) > 1 else '' for values in known]
        rows.append([name, '', *cells])
    return markdown_table(header, rows)


# ------------------------------------------------------------------------------------------------
# Command line


class Run(NamedTuple):
    """What is known of a run that has ended: the arguments of `write_report`."""

    arguments: dict
    evaluations: list[dict]
    task: Task
    test: dict[str, tuple[list[Example], np.ndarray]]
    valid: dict[str, tuple[list[Example], np.ndarray]]
    published: bool
    notes: list[str]
    data_notes: list[str]


def can_compare(
    arguments: dict, task: Task, test: dict[str, tuple[list[Example], np.ndarray]]
) -> bool:
    """Whether a run can be compared with published results.

    It can if it used the complete test set, and all layers of pre-trained weights, and neither are
    our sample. `arguments` are those in the log.
    """
    sizes = {edition[2] for edition in task.archive.editions} if task.archive else set()
    if task.name == 'rocstories':
        sizes = {1871}
    n_test = sum(len(examples) for name, (examples, _) in test.items() if name != 'diagnostic')
    all_layers = arguments.get('n_transfer') == arguments.get('n_layer')
    all_layers &= arguments.get('model', 'transformer') == 'transformer'
    return n_test in sizes and all_layers and not arguments.get('sample')


def read_run(folder: str, log_path: str, data_dir: str | None = None) -> Run:
    """Read the log of a run, its predictions in `folder`, and its data again for their texts.

    The data are where the log says, or in `data_dir`. Raises InputError.
    """
    arguments, evaluations = read_log(log_path)
    if arguments.get('submit') is False:
        raise InputError(
            f'the run of {log_path} has no predictions: train.py makes them by --submit'
        )
    found = record.read(folder)
    if found.get('id') != arguments.get('id'):
        raise InputError(
            f'{folder} has the predictions of another run than {log_path}: give --desc the name of '
            'a whole run, or fine-tune again with --submit'
        )
    known = found.get('examples', {})
    task, data = read_data_of(arguments, log_path, data_dir)
    first = f'va_{log_name(task.metrics[0])}'
    if first not in evaluations[0]:
        raise InputError(f'{log_path}, line 2: no "{first}", the score of a run on {task.title}')
    test = {
        split: (examples, read_logits(folder, 'test', split, task, data.test, known))
        for split, examples in data.test.items()
    }
    valid = {
        split: (examples, read_logits(folder, 'valid', split, task, data.valid, known))
        for split, examples in data.valid.items()
        if os.path.exists(predictions_path(folder, 'valid', split, len(data.valid)))
    }
    notes = arguments.get('sample')
    notes = [str(note) for note in notes] if isinstance(notes, list) else []
    published = can_compare(arguments, task, test)
    return Run(arguments, evaluations, task, test, valid, published, notes, data.notes)


def read_data_of(arguments: dict, log_path: str, data_dir: str | None) -> tuple[Task, Data]:
    """The task and the data of a run with these arguments. Raises InputError."""
    name = str(arguments.get('dataset', 'rocstories'))
    if name not in TASKS and name != 'custom':
        raise InputError(f'{log_path}, line 1: the data set {name[:40]!r} is not known')
    if data_dir is None:
        data_dir = str(arguments.get('data_dir', 'data/'))
    options = {option: arguments.get(option) is True for option in ('regression', 'symmetric')}
    for option in ('n_valid', 'seed'):
        if type(arguments.get(option)) is int:
            options[option] = arguments[option]
    if isinstance(arguments.get('positive'), str):
        options['positive'] = arguments['positive']
    return read_data(name, data_dir, **options)


def read_logits(
    folder: str,
    kind: str,
    split: str,
    task: Task,
    sets: dict[str, list[Example]],
    known: dict[str, str],
) -> np.ndarray:
    """The logits of a set of a run. Raises InputError if they are of other examples.

    known  hashes of the examples at the time of the run; {}: it has kept none
    """
    path, examples = predictions_path(folder, kind, split, len(sets)), sets[split]
    names, logits, labels = read_predictions(path, task)
    same = names == [id_in_csv(example) for example in examples]
    if f'{kind} {split}' in known:
        same &= known[f'{kind} {split}'] == record.examples_hash(examples)
    # Labels may have become known since, but not have changed.
    now = ['' if e.label is None else name_of(task, e.label) for e in examples]
    if not same or any(a and a != b for a, b in zip(labels, now)):
        raise InputError(
            f'{path} has the predictions of other examples than those in the data: put the data of '
            'the run back, or predict those of now with predict.py'
        )
    return logits


def score_of(desc: str, found: Run) -> Score:
    """The first metric of a run; of several test sets, on the first one or on all together."""
    task = found.task
    tested = {name: predictions_for(task, *pair) for name, pair in found.test.items()}
    known = [result.value for result in results(task, tested) if result.metric == task.metrics[0]]
    return Score(
        desc=desc,
        title=f'{task.title}, {metric_title(task.metrics[0])}',
        seed=found.arguments.get('seed', '?'),
        valid=best_evaluation(found.evaluations, task)[f'va_{log_name(task.metrics[0])}'],
        test=known[0] if known else None,
    )


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
    """Report on runs that have ended. Raises InputError."""
    check_writable(args.analysis_dir)
    scores = {}  # of several runs, for each task
    for desc in args.desc:
        folder = os.path.join(args.analysis_dir, desc)
        log_path = os.path.join(args.log_dir, f'{desc}.jsonl')
        found = read_run(folder, log_path, args.data_dir)
        write_report(folder, *found)
        print(f'{desc}: {os.path.join(folder, "report.md")}')
        print_metrics(found.task, found.evaluations, found.test, found.valid)
        score = score_of(desc, found)
        scores.setdefault(score.title, []).append(score)
    for title, group in scores.items():
        if len(group) > 1:
            print(f'\n{title}\n')
            print('\n'.join(summarize(group)))


def main(argv=None):
    return exit_status('analysis.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
