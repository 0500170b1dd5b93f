"""Predictions as arrays and as a file."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from gpt1.report.log import is_real
from gpt1.tasks.task import Example, Task, decode
from utils import whole_file

Sets = dict[str, tuple[list[Example], np.ndarray]]  # name -> examples, logits [examples, scores]


@dataclass(frozen=True)
class Predictions:
    """The predictions for the examples of one set, or of several sets together."""

    examples: list[Example]
    labels: np.ndarray | None  # ids of classes or choices, or real numbers; None: not known
    values: np.ndarray  # the predictions, of the same kind
    shares: Sequence[np.ndarray]  # probabilities of classes or choices; () for real numbers

    @property
    def confidence(self) -> np.ndarray:
        return np.array([share.max() for share in self.shares])

    @property
    def right(self) -> np.ndarray:
        return self.values == self.labels


def predictions_for(task: Task, examples: list[Example], logits: np.ndarray) -> Predictions:
    """Decode the `logits` [examples, scores] of a set; -inf: an example has no such choice."""
    labels = [example.label for example in examples]
    kind, shares = np.float64, ()
    if not is_real(task):
        from scipy.special import softmax  # slow to import

        kind, shares = np.int64, list(softmax(np.asarray(logits, dtype=np.float64), axis=1))
    known = None if None in labels else np.array(labels, dtype=kind)
    return Predictions(list(examples), known, decode(task, logits), shares)


def decode_sets(task: Task, sets: Sets | None) -> dict[str, Predictions]:
    return {name: predictions_for(task, *pair) for name, pair in (sets or {}).items()}


def together(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        [example for part in parts for example in part.examples],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.values for part in parts]),
        [share for part in parts for share in part.shares],
    )


def predictions_path(folder: str, kind: str, split: str, n_splits: int) -> str:
    """'predictions.csv' of the only test set, 'predictions_valid_matched.csv' of one of several."""
    kind = '' if kind == 'test' else f'_{kind}'
    split = '' if n_splits == 1 else f'_{split}'
    return os.path.join(folder, f'predictions{kind}{split}.csv')


def text_names(task: Task, n_texts: int) -> list[str]:
    """What the texts of an example are called, as in the columns of your own data."""
    if task.layout == 'text':
        return ['text']
    if task.layout != 'choices':
        return ['text1', 'text2']
    names = ['context', 'question'][: task.n_context]
    return names + [f'choice{i}' for i in range(1, n_texts - task.n_context + 1)]


def name_of(task: Task, value: int | float) -> str:
    """A prediction or a label for a person: a class, a number, or a choice: A, B, or 1, 2."""
    if is_real(task):
        return f'{value:.9g}'
    if task.layout == 'choices' and task.first_label == '0':
        value += 1
    return task.labels[value] if task.labels is not None else task.word(value)


def score_names(task: Task, n_scores: int) -> list[str]:
    """The columns of the scores: score_billing for the class 'billing', score_A for a choice."""
    if task.regression:
        return ['score']
    return [f'score_{i if is_real(task) else name_of(task, i)}' for i in range(n_scores)]


def write_predictions(f: TextIO, task: Task, examples: list[Example], logits: np.ndarray) -> None:
    """Write predictions.csv to an open file, one row for each example (docs/data.md).

    A label is empty where it is not known, a choice and its score where an example has none.
    """
    logits, real = np.asarray(logits), is_real(task)
    found = predictions_for(task, examples, logits)
    names = text_names(task, max((len(example.texts) for example in examples), default=0))
    sure = [()] * len(examples) if real else [[f'{share:.6f}'] for share in found.confidence]
    writer = csv.writer(f, lineterminator='\n')
    last = [*([] if real else ['probability']), 'prediction', 'label']
    writer.writerow(['id', *names, *score_names(task, logits.shape[1]), *last])
    for example, scores, share, value in zip(examples, logits.tolist(), sure, found.values):
        texts = [in_csv(text) for text in (example.id, *example.texts)]
        texts += [''] * (1 + len(names) - len(texts))
        scores = ['' if score == -math.inf else f'{score:.9g}' for score in scores]
        label = '' if example.label is None else name_of(task, example.label)
        writer.writerow([*texts, *scores, *share, name_of(task, value), label])


def in_csv(text: str) -> str:
    """A text without carriage returns, which Python's csv module writes but does not quote."""
    return text.replace('\r\n', '\n').replace('\r', ' ')


def save_predictions(folder: str, task: Task, test: Sets, valid: Sets | None = None) -> None:
    """Write the predictions of a run to its folder, a file for each test and validation set."""
    for kind, splits in (('test', test), ('valid', valid or {})):
        for split, (examples, logits) in splits.items():
            with whole_file(predictions_path(folder, kind, split, len(splits))) as f:
                write_predictions(f, task, examples, logits)
