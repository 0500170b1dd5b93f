"""Predictions as a file and as arrays."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from gpt1.report.log import is_real
from gpt1.tasks.task import Example, Task, decode
from utils import InputError, whole_file


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
