"""What a task is: its examples, its labels, its metrics, its files."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import IO, NamedTuple

import numpy as np

from gpt1.tasks.metrics import METRICS

SPLIT_SEED = 3535999445  # the original's, for all splits into training and validation examples
MAX_CLASSES = 10_000  # more are refused, before training and in a file of parameters


class Example(NamedTuple):
    """One example of a data set.

    The texts of each layout: `text` (a,); `pair` (premise, hypothesis); `similarity` (a, b);
    `choices` (context, choice 1, ..., choice N), where `Task.n_context` texts are the context.
    """

    id: str
    texts: tuple[str, ...]
    label: int | float | None  # number of the class or choice (from 0), a score, or not known


@dataclass
class Data:
    """A data set as text. MNLI has the splits 'matched', 'mismatched', RACE 'middle', 'high'."""

    train: list[Example] = field(default_factory=list)
    valid: dict[str, list[Example]] = field(default_factory=dict)  # one split: 'valid'
    test: dict[str, list[Example]] = field(default_factory=dict)  # one split: 'test'; may be empty
    notes: list[str] = field(default_factory=list)  # what was left out, or is special
    sources: list[str] = field(default_factory=list)  # files read; for RACE, their folders


class Published(NamedTuple):
    """A published score of GPT-1."""

    who: str
    on: str  # 'test' or 'valid'
    split: str  # a key of `Data.test` or `Data.valid`, or 'all' for the splits together
    metric: str  # a key of `METRICS`
    value: float


class Archive(NamedTuple):
    """The files of a data set, and how a row is read. Names of columns are JSON keys too."""

    folders: tuple[str, ...] = ()  # its archives unpack to; case and punctuation do not count
    address: str = 'https://gluebenchmark.com/tasks'  # where to get them
    patterns: tuple[str, ...] = ('{}.tsv',)  # of file names; the first file that is there is read
    splits: dict[str, str] = {'train': 'train', 'valid': 'dev', 'test': 'test'}  # -> {} in names
    beside: dict[str, tuple[str, ...]] = {}  # more splits -> files in the folder or around it
    format: str = 'lines'  # tab-separated or JSON lines, without quoting; 'csv'; 'passages'
    texts: tuple[str, ...] = ('sentence1', 'sentence2')  # columns; those that + joins are one text
    label: str = 'label'  # column
    first_label: str | None = None  # how the column has class 0, if not as in submissions
    id: tuple[str, ...] = ('index',)  # columns, joined by '-'; where missing, the row from 0
    bare: tuple[str, ...] = ()  # the columns of a tab-separated file without a header
    # Rows whose number of fields is not the header's: 'refuse'; 'drop' (from labelled files);
    # 'accept' (those that have all that is needed; a label in the last column stays the last)
    ragged: str = 'refuse'
    empty: str = 'count'  # what to do with empty texts: 'count', 'refuse'
    unknown: str | None = None  # instead of a label: annotators disagree, leave the pair out
    aliases: dict[str, str] = {}  # other spellings of labels
    editions: dict[tuple[int, int, int], str] = {}  # rows of train, valid, test -> a note, or ''
    names_too: str = ''  # more names of its files: a regular expression, in lower case
    test_labels: str = ''  # a file with the rows of the test set, and their labels
    test_columns: tuple[str, ...] = ()  # of that file, which has no header
    made_up: bool = False  # whether there is made-up data for it

    @property
    def columns(self) -> list[str]:
        return [name for text in self.texts for name in text.split('+')]

    def names(self, split: str) -> list[str]:
        """The file names under which a split may lie."""
        return [pattern.format(self.splits[split]) for pattern in self.patterns]

    def all_names(self) -> set[str]:
        return {name for split in self.splits for name in self.names(split)}

    def has_name(self, file: str) -> bool:
        return re.fullmatch(self.names_too, file.lower()) is not None


@dataclass(frozen=True)
class Task:
    """All that differs between tasks. `to_dict` keeps all fields but the last three.

    `mean` and `std` are those of the training labels in a regression: the model is trained with
    the mean squared error of (label - mean) / std. With `soft_labels` (STS-B) it has six outputs
    and the targets are `soft_targets(labels)`. All other tasks use the cross-entropy.
    """

    name: str
    title: str  # the name that people know it by
    layout: str  # 'text', 'pair', 'similarity' or 'choices'
    labels: tuple[str, ...] | None = None  # names of the classes by id; None: choices or numbers
    metrics: tuple[str, ...] = ('accuracy',)  # the first one selects the best parameters
    submission: dict[str, str] = field(default_factory=dict)  # test split -> name of the file
    first_label: str | None = None  # how submissions have class 0: '0', '1', 'A'; None: its name
    n_context: int = 1  # for choices: number of leading texts that form the context
    halves: bool = False  # the original's rule for long texts: n_ctx // 2 - 2 tokens of each
    pooled: bool = False  # the first metric over all splits together selects
    soft_labels: bool = False
    regression: bool = False
    mean: float = 0.0
    std: float = 1.0
    positive: int | None = 1  # the class that F1 is of; None: the mean over all classes
    published: tuple[Published, ...] = field(default=(), compare=False, repr=False)
    archive: Archive | None = field(default=None, compare=False, repr=False)  # None: own data
    reader: str = field(default='official', compare=False, repr=False)  # a key of READERS

    def __post_init__(self):
        if not self.submission:
            object.__setattr__(self, 'submission', {'test': f'{self.title}.tsv'})

    @property
    def n_out(self) -> int:
        """Number of outputs of the linear layer; for choices, of each choice."""
        if self.soft_labels:
            return 6
        return len(self.labels) if self.labels is not None else 1

    def word(self, label: int, first: str | None = None) -> str:
        """How submissions, and most data files, have a class or a choice (numbered from 0)."""
        first = first or self.first_label
        if first is None:
            return self.labels[label]
        return chr(ord('A') + label) if first == 'A' else str(int(first) + label)

    def file_word(self, label: int) -> str:
        """How the data files have a class or a choice."""
        return self.word(label, self.archive and self.archive.first_label)

    def cut_rule(self, n_ctx: int) -> str:
        """How `encoding.cut_lengths` cuts long examples for sequences of n_ctx tokens, in words."""
        if self.halves:
            return f'of each text the first {n_ctx // 2 - 2} tokens are read'
        if self.layout == 'text':
            return f'the first {n_ctx - 2} tokens of a text are read'
        loses = 'the longer text' if self.layout != 'choices' else 'the context'
        return f'{n_ctx - 3} tokens of an example are read; {loses} loses its end'

    def score(self, metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
        """The score of predictions [examples] of `decode` by one of the task's metrics."""
        options = {'positive': self.positive} if metric == 'f1' else {}
        return METRICS[metric](labels, predictions, **options)

    def to_dict(self) -> dict:
        """What must be kept beside the parameters to predict later, as JSON values."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
        return {**kept, 'labels': self.labels and list(self.labels), 'metrics': list(self.metrics)}


def soft_targets(scores: np.ndarray, n_classes: int = 6) -> np.ndarray:
    """Target probabilities [examples, n_classes] of scores [examples] from 0 to n_classes - 1.

    3.6 is 0.4 of class 3 and 0.6 of class 4 (`stsb_label_encoding` of the original, which has it
    from Tai, Socher & Manning 2015). A score that is not known (NaN) gives a row of NaN.
    """
    scores = np.asarray(scores, dtype=np.float64)[:, None]
    return np.maximum(0, 1 - abs(scores - np.arange(n_classes)))


def decode(task: Task, logits: np.ndarray) -> np.ndarray:
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


def write_submission(f: IO[str], task: Task, predictions: Iterable) -> None:
    """Write the predictions of `decode` in GLUE's format: the header, then a row an example."""
    f.write('index\tprediction\n')
    for index, prediction in enumerate(predictions):
        if task.soft_labels:
            text = f'{min(max(float(prediction), 0.0), 5.0):.3f}'
        elif task.regression:
            text = f'{float(prediction):.6g}'
        else:
            text = task.word(int(prediction))
        f.write(f'{index}\t{text}\n')
