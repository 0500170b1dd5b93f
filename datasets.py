"""Files of the paper's data sets, and of your own, to `Example`s: texts and a label.

`TASKS` is the one table that says how the tasks of the paper differ. `TASKS[name].read(data_dir)`
reads a data set from its official files, `read_data` also your own (`own_data.py`), and
`read_examples` one file for prediction. Nothing here knows of tokens.
"""

import importlib.util
import itertools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np

from gpt1 import ROOT
from gpt1.tasks.data_files import (
    cells_under,
    check_folder,
    check_no_header,
    check_once,
    first_file,
    json_text,
    list_folder,
    open_text,
    parse_json,
    parse_number,
    quoted,
    read_csv,
    read_lines,
    refuse,
    whole_number,
)
from gpt1.tasks.metrics import METRICS
from utils import InputError

SAMPLE = os.path.join(ROOT, 'data', 'sample')  # the made-up data of this repository
SPLIT_SEED = 3535999445  # the original's, for all splits into training and validation examples
LAYOUTS = ('text', 'pair', 'similarity', 'choices')
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
    """A published figure of GPT-1."""

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
    texts: tuple[str, ...] = ('sentence1', 'sentence2')  # columns
    label: str = 'label'  # column
    id: tuple[str, ...] = ('index',)  # columns, joined by '-'; where missing, the row from 0
    bare: tuple[str, ...] = ()  # the columns of a tab-separated file without a header
    # Rows whose number of fields is not the header's: 'refuse'; 'drop' (from labelled files);
    # 'accept' (those that have all that is needed; a label in the last column stays the last)
    ragged: str = 'refuse'
    no_majority: bool = False  # '-' instead of a label: annotators disagree, leave the pair out
    aliases: dict[str, str] = {}  # other spellings of labels
    editions: dict[tuple[int, int, int], str] = {}  # rows of train, valid, test -> a note, or ''

    def names(self, split: str) -> list[str]:
        """The file names under which a split may lie."""
        return [pattern.format(self.splits[split]) for pattern in self.patterns]


@dataclass(frozen=True)
class Task:
    """All that differs between tasks. `to_dict` keeps all fields but the last four.

    `mean` and `std` are those of the training labels in a regression: the model is trained with
    the mean squared error of (label - mean) / std. With `soft_labels` (STS-B) it has six outputs
    and the targets are `soft_targets(labels)`. All other tasks use the cross-entropy.
    """

    name: str
    title: str  # the name that people know it by
    layout: str  # one of LAYOUTS
    labels: tuple[str, ...] | None = None  # names of the classes by id; None: choices or numbers
    metrics: tuple[str, ...] = ('accuracy',)  # the first one selects the best parameters
    submission: dict[str, str] = field(default_factory=dict)  # test split -> name of the file
    first_label: str | None = None  # how files write class 0: '0', '1', 'A'; None: by its name
    n_context: int = 1  # for choices: so many of the first texts are the context
    halves: bool = False  # the original's rule for long texts: n_ctx // 2 - 2 tokens of each
    pooled: bool = False  # the first metric over all splits together selects
    soft_labels: bool = False
    regression: bool = False
    mean: float = 0.0
    std: float = 1.0
    positive: int | None = 1  # the class that F1 is of; None: the mean over all classes
    published: tuple[Published, ...] = field(default=(), compare=False, repr=False)
    archive: Archive | None = field(default=None, compare=False, repr=False)
    reader: Callable | None = field(default=None, compare=False, repr=False)
    # Finds the files that `reader` reads. None for data sets that are always small
    finder: Callable | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        if not self.submission:
            object.__setattr__(self, 'submission', {'test': f'{self.title}.tsv'})

    @property
    def n_out(self) -> int:
        """Number of outputs of the linear layer; for choices, of each choice."""
        if self.soft_labels:
            return 6
        return len(self.labels) if self.labels is not None else 1

    def word(self, label: int) -> str:
        """How data files and submissions write a class or a choice (numbered from 0)."""
        if self.first_label is None:
            return self.labels[label]
        if self.first_label == 'A':
            return chr(ord('A') + label)
        return str(int(self.first_label) + label)

    def cut_rule(self, n_ctx: int) -> str:
        """How `encoding.cut_lengths` cuts long examples for sequences of n_ctx tokens, in words."""
        if self.halves:
            return f'of each text the first {n_ctx // 2 - 2} tokens are read'
        if self.layout == 'text':
            return f'the first {n_ctx - 2} tokens of a text are read'
        loses = 'the longer text' if self.layout != 'choices' else 'the context'
        return f'{n_ctx - 3} tokens of an example are read; {loses} loses its end'

    def read(self, data_dir: str, n_valid: int | None = None, seed: int = SPLIT_SEED) -> Data:
        """Read the data set from its official files in `data_dir`, or in a folder below it.

        `n_valid` examples are set aside for validation where the data set has no validation file;
        None: as many as usual. Raises InputError.
        """
        check_folder(data_dir)
        data = (self.reader or _read_official)(self, data_dir, n_valid, seed)
        edition = _edition(self, data)
        if edition and not _is_sample(data_dir):
            data.notes.append(edition)
        return data

    def to_dict(self) -> dict:
        """What must be kept beside the parameters to predict later, as JSON values."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
        return {**kept, 'labels': self.labels and list(self.labels), 'metrics': list(self.metrics)}

    @staticmethod
    def from_dict(record: dict, source: str = 'settings.json') -> 'Task':
        """The Task of `to_dict`. Raises InputError, naming `source`, if it is damaged."""
        names = [f.name for f in fields(Task) if f.compare]
        if isinstance(record, dict):
            record = {'positive': 1, **record}  # which earlier versions did not keep
        if not isinstance(record, dict) or sorted(record) != sorted(names):
            raise InputError(f'{source}: damaged task: expected the fields {", ".join(names)}')
        for name, is_valid in _VALID_FIELDS.items():
            if not is_valid(record[name]):
                raise InputError(f'{source}: damaged task: {name} is {str(record[name])[:40]!r}')
        labels = record['labels'] and tuple(record['labels'])
        task = Task(**{**record, 'labels': labels, 'metrics': tuple(record['metrics'])})
        known = TASKS.get(task.name, task)
        kinds = (labels is not None, task.layout == 'choices', task.soft_labels, task.regression)
        form = (task.layout, task.n_context, task.halves, task.n_out)
        known_form = (known.layout, known.n_context, known.halves, known.n_out)
        no_class = labels is not None and (task.positive or 0) >= len(labels)
        if sum(kinds) != 1 or form != known_form or no_class:
            raise InputError(f'{source}: damaged task: its fields contradict each other')
        table = ('published', 'archive', 'reader', 'finder')
        return replace(task, **{name: getattr(known, name) for name in table})


def _is_text(value) -> bool:
    return isinstance(value, str) and value != ''


def _are_texts(value) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(_is_text, value))


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_bool(value) -> bool:
    return isinstance(value, bool)


def _are_file_names(value) -> bool:
    """Not paths: settings.json must not choose the folder that is written to."""
    return isinstance(value, dict) and all(
        _is_text(name) and re.fullmatch(r'[\w-]+\.tsv', name) for name in value.values()
    )


_VALID_FIELDS = {
    'name': lambda v: _is_text(v) and (v in TASKS or v == 'custom'),
    'title': _is_text,
    'layout': lambda v: v in LAYOUTS,
    'labels': lambda v: v is None or (_are_texts(v) and len(set(v)) == len(v) > 1),
    'metrics': lambda v: _are_texts(v) and METRICS.keys() >= set(v),
    'submission': lambda v: _are_file_names(v) and len(v) > 0,
    'first_label': lambda v: v in (None, '0', '1', 'A'),
    'n_context': lambda v: type(v) is int and v in (1, 2),
    'halves': _is_bool,
    'pooled': _is_bool,
    'soft_labels': _is_bool,
    'regression': _is_bool,
    'mean': _is_number,
    'std': lambda v: _is_number(v) and v > 0,
    'positive': lambda v: v is None or (type(v) is int and v >= 0),
}


# -------------------------------------------------------------------- one file of a data set


_Row = tuple[int, tuple[str, ...], str | None, str]  # line number, texts, label as written, id


def _json_rows(path: str, lines: Iterable[tuple[int, str]], archive: Archive) -> Iterator[_Row]:
    """Rows of a JSON-lines file."""
    n_texts = len(archive.texts)
    starts = [f'"{key}": "' for key in (*archive.texts, archive.label, *archive.id)]
    for index, (number, line) in enumerate(lines):
        values = _plain_values(line, starts)
        if values is None:
            record = parse_json(line, path, number)
            where = f'{path}, line {number}'
            values = [json_text(record.get(key), where, key) for key in archive.texts]
            label = record.get(archive.label)
            is_other = label is not None and not isinstance(label, str)
            values.append(json.dumps(label) if is_other else label)
            values += [str(record[key]) for key in archive.id if key in record]
        name = '-'.join(values[n_texts + 1 :]) or str(index)
        yield number, tuple(values[:n_texts]), values[n_texts], name


def _plain_values(line: str, starts: list[str]) -> list[str] | None:
    """The strings after each of `starts`, such as '"sentence1": "', in a line of JSON.

    This is four times faster than to parse the line: most of SNLI and MNLI are parse trees, which
    nobody needs. None if a key is not there or a string has an escape: then the line is parsed.
    """
    if not line.endswith('}'):
        return None
    values = []
    for start in starts:
        first = line.find(start) + len(start)
        value = line[first : line.find('"', first)]
        if first < len(start) or '\\' in value:
            return None
        values.append(value)
    return values


def _tab_rows(
    path: str, lines: Iterator[tuple[int, str]], archive: Archive, dropped: Counter | None
) -> Iterator[_Row]:
    """Rows of a tab-separated file. No quoting: a quotation mark is a character."""
    first = next(lines)
    header = [name.strip() for name in first[1].split('\t')]
    missing = [name for name in archive.texts if name not in header]
    if missing and not archive.bare:
        raise InputError(
            f'{path}, line {first[0]}: no column {missing[0]!r}; expected a header with '
            f'{", ".join([*archive.texts, archive.label])}, separated by tabs'
        )
    if missing:  # there is no header
        header = list(archive.bare)
        lines = itertools.chain([first], lines)
    else:
        names = (*archive.texts, archive.label, *archive.id)
        check_once(f'{path}, line {first[0]}', header, names)
    texts_at = [header.index(name) for name in archive.texts]
    label_at = header.index(archive.label) if archive.label in header else None
    id_at = [header.index(name) for name in archive.id if name in header]
    needed = max(texts_at + id_at + ([] if label_at is None else [label_at])) + 1
    width = len(header)
    label_is_last = label_at == width - 1
    for index, (number, line) in enumerate(lines):
        cells = line.split('\t')
        check_no_header(f'{path}, line {number}', cells, header)
        if len(cells) != width and not (archive.ragged == 'accept' and len(cells) >= needed):
            if archive.ragged == 'drop' and dropped is not None and label_at is not None:
                dropped['broken rows'] += 1
                continue
            raise InputError(f'{path}, line {number}: {len(cells)} fields, expected {width}')
        label = None
        if label_at is not None:
            label = cells[-1] if label_is_last else cells[label_at]
        name = '-'.join([cells[i] for i in id_at]) if id_at else str(index)
        yield number, tuple([cells[i] for i in texts_at]), label, name


def _parse_label(task: Task, ids: dict[str, int], word: str | None) -> int | float | None:
    """The id of a class, or STS-B's score; None where `word` is neither."""
    if word is None:
        return None
    if task.soft_labels:
        score = parse_number(word)
        return score if score is not None and 0 <= score <= 5 else None
    return ids.get(whole_number(word.strip()))


def _expected_labels(task: Task) -> str:
    if task.soft_labels:
        return 'a number from 0 to 5'
    return 'one of ' + ', '.join(task.word(i) for i in range(len(task.labels)))


def read_table(
    path: str,
    task: Task,
    need_labels: bool = True,
    notes: list[str] | None = None,
    archive: Archive | None = None,
    warnings: list[str] | None = None,
) -> list[Example]:
    """Examples of one tab-separated or JSON-lines file of a data set.

    With a list of `notes`, pairs labelled '-' and broken rows of QQP are left out, and a note says
    how many. Without it (for prediction) all rows are kept: '-' is an unknown label, and a broken
    row is an error. With `need_labels=False`, missing labels are None. A list of `warnings` names
    empty texts and unknown labels, which are then no errors.
    Raises InputError with the file and the line.
    """
    archive = archive or task.archive
    ids = {}
    if task.labels is not None:
        ids = {task.word(i): i for i in range(len(task.labels))}
        ids |= {other: ids[word] for other, word in archive.aliases.items()}
    dropped = None if notes is None else Counter()
    lines = read_lines(path)
    first = next(lines, None)
    if first is None:
        raise InputError(f'{path} is empty: expected {task.title} data')
    lines = itertools.chain([first], lines)
    if first[1].startswith('{"'):
        rows = _json_rows(path, lines, archive)
    else:
        rows = _tab_rows(path, lines, archive, dropped)

    examples = []
    n_empty = 0
    for number, texts, word, name in rows:
        label = ids[word] if word in ids else _parse_label(task, ids, word)
        if label is None and word == '-' and archive.no_majority:
            if dropped is not None:
                dropped["pairs without a majority label ('-')"] += 1
                continue
        elif label is None and (word or need_labels):
            refuse(
                f'{path}, line {number}: the label is {(word or "")[:20]!r}, '
                f'expected {_expected_labels(task)}',
                warnings,
            )
        if not all(map(str.strip, texts)):
            n_empty += 1
            if warnings is not None:
                warnings.append(f'{path}, line {number}: a text is empty')
        examples.append(Example(name, texts, label))
    if not examples:
        raise InputError(f'{path} has no examples')
    if notes is not None:
        if n_empty:
            notes.append(f'{path}: examples with an empty text: {n_empty:,}')
        notes += [f'{path}: {what} left out: {n:,}' for what, n in dropped.items()]
    return examples


# --------------------------------------------------------------------------- finding the files


def _plain(name: str) -> str:
    """'STS-B' and 'sts_b' to 'stsb'."""
    return ''.join(filter(str.isalnum, name.lower()))


def _folders(data_dir: str, names: tuple[str, ...], depth: int = 3) -> list[str]:
    """The folders below `data_dir`, at most `depth` levels down, whose name is one of `names`.

    They are in the order of `names`, each before its subfolders.
    """
    there = [(_plain(name), name) for name in list_folder(data_dir)]
    found = []
    for wanted in (*names, 'glue', 'glue_data'):
        for plain, name in there:
            folder = os.path.join(data_dir, name)
            if plain == _plain(wanted) and depth > 0 and os.path.isdir(folder):
                found += [folder, *_folders(folder, names, depth - 1)]
    return found


def _places(task: Task, data_dir: str) -> list[str]:
    """The folders in which the files of a data set may lie."""
    return [*_folders(data_dir, task.archive.folders), data_dir]


def _archives(task: Task) -> list[Archive]:
    """The forms in which a data set may lie there: GLUE's, and for MRPC also Microsoft's."""
    archives = [task.archive]
    if task.name == 'mrpc':  # both files of the second form must be there
        splits = {'train': 'train', 'valid': 'test'}
        archives.append(task.archive._replace(patterns=('msr_paraphrase_{}.txt',), splits=splits))
    return archives


def _complete_folder(task: Task, data_dir: str) -> tuple[str | None, str]:
    """The folder with a task's training and validation files, or None and an error message."""
    archive = task.archive
    needed = [archive.names(split) for split in archive.splits if not split.startswith('test')]
    names = ' and '.join(f'"{names[0]}"' for names in needed)
    problem = (
        f'{data_dir} has no {task.title}: expected {names} there or in its folder '
        f'"{archive.folders[0]}"; get them from {archive.address}'
    )
    for folder in _places(task, data_dir):
        missing = [names for names in needed if not first_file(folder, names)]
        if not missing:
            return folder, ''
        if len(missing) < len(needed):
            expected = ' or '.join(f'"{name}"' for name in missing[0])
            problem = (
                f'{folder} is not all of {task.title}: expected {expected}; '
                f'get it from {archive.address}'
            )
    return None, problem


def _edition(task: Task, data: Data) -> str:
    """Name the edition of a data set by its size, or say that it is not complete."""
    if not task.archive.editions:
        return ''
    sizes = (
        len(data.train),
        sum(map(len, data.valid.values())),
        sum(len(split) for name, split in data.test.items() if name != 'diagnostic'),
    )
    for edition, note in task.archive.editions.items():
        if edition == sizes:
            return note
    expected, found = (
        '{:,} + {:,} + {:,}'.format(*numbers)
        for numbers in (next(iter(task.archive.editions)), sizes)
    )
    return f'not the whole {task.title}: {found} examples, published are {expected}'


# ------------------------------------------------------------------- how each data set is read


def _official_files(task: Task, data_dir: str) -> tuple[str, dict[str, str | None]]:
    """The folder of a data set, and the file of each split; None for a test set without one."""
    folder, problem = _complete_folder(task, data_dir)
    if folder is None:
        raise InputError(problem)
    splits = task.archive.splits
    return folder, {key: first_file(folder, task.archive.names(key)) for key in splits}


def _read_official(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """Read the training, validation and test files as they are published."""
    folder, paths = _official_files(task, data_dir)
    data = Data()
    if n_valid is not None:
        data.notes.append(f'n_valid is not used: {task.title} has validation files')
    for key, path in paths.items():
        if path is None:  # of a test set
            names = task.archive.names(key)
            data.notes.append(f'{folder} has no {" or ".join(names)}: no test set')
            continue
        examples = read_table(path, task, need_labels=not key.startswith('test'), notes=data.notes)
        data.sources.append(path)
        kind, _, split = key.partition('/')
        if kind == 'train':
            data.train = examples
        else:
            getattr(data, kind)[split or kind] = examples
    return data


AX_FILES = (
    'AX.tsv',
    'diagnostic.tsv',
    os.path.join('AX', 'diagnostic.tsv'),
    os.path.join('AX', 'AX.tsv'),
    os.path.join('diagnostic', 'diagnostic.tsv'),
)


def _read_mnli(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """MNLI, and GLUE's diagnostic set (AX), which is predicted with the same model."""
    data = _read_official(task, data_dir, n_valid, seed)
    path = _diagnostic_file(os.path.dirname(data.sources[0]), data_dir)
    if path:
        data.test['diagnostic'] = read_table(path, task, need_labels=False, notes=data.notes)
        data.sources.append(path)
    return data


def _diagnostic_file(folder: str, data_dir: str) -> str | None:
    """The file of GLUE's diagnostic set, near MNLI's `folder`."""
    places = (folder, os.path.normpath(os.path.join(folder, os.pardir)), data_dir)
    return next(filter(None, (first_file(place, AX_FILES) for place in places)), None)


def _find_mnli(task: Task, data_dir: str) -> list[str]:
    folder, paths = _official_files(task, data_dir)
    return [*filter(None, [*paths.values(), _diagnostic_file(folder, data_dir)])]


def _read_stsb(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """STS-B. The scores of GLUE's test set are in original/sts-test.tsv, in the same order."""
    data = _read_official(task, data_dir, n_valid, seed)
    folder = os.path.dirname(data.sources[0])
    path = first_file(folder, (os.path.join('original', 'sts-test.tsv'),))
    if path is None or 'test' not in data.test:
        return data
    columns = ('genre', 'filename', 'year', 'index', 'score', 'sentence1', 'sentence2')
    archive = task.archive._replace(bare=columns, ragged='accept')
    original = read_table(path, task, archive=archive)
    data.sources.append(path)
    return _label_test(data, original, key=lambda e: tuple(map(str.strip, e.texts)))


def _label_test(data: Data, labelled: list[Example], key: Callable) -> Data:
    """Give the test examples the labels of `labelled`, if both are the same rows by `key`."""
    test = data.test['test']
    if list(map(key, test)) == list(map(key, labelled)):
        data.test['test'] = [a._replace(label=b.label) for a, b in zip(test, labelled)]
    else:
        data.notes.append(f'{data.sources[-1]} has other rows than the test file: not used')
    return data


MRPC_SOURCE = ('msr_paraphrase_train.txt', 'msr_paraphrase_test.txt')


def _read_mrpc(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """MRPC: GLUE's three files, or Microsoft's two, split by mrpc_dev_ids.tsv or at random."""
    folder, _ = _complete_folder(task, data_dir)
    if folder is not None:
        data = _read_official(task, data_dir, n_valid, seed)
        path = first_file(folder, MRPC_SOURCE[1:])
        if path is None or 'test' not in data.test:
            return data
        data.sources.append(path)
        return _label_test(data, read_table(path, task), key=lambda e: e.id)

    folder, _ = _complete_folder(replace(task, archive=_archives(task)[1]), data_dir)
    if folder is None:
        raise InputError(
            f'{data_dir} has no MRPC: expected "train.tsv", "dev.tsv" and "test.tsv", or '
            f'"{MRPC_SOURCE[0]}" and "{MRPC_SOURCE[1]}", there or in its folder "MRPC"; '
            f'get them from {task.archive.address}'
        )
    data = Data(sources=[os.path.join(folder, name) for name in MRPC_SOURCE])
    train, test = (read_table(path, task, notes=data.notes) for path in data.sources)
    data.test['test'] = test
    path = first_file(folder, ('mrpc_dev_ids.tsv',)) or first_file(data_dir, ('mrpc_dev_ids.tsv',))
    if path is None:
        if n_valid is None:
            n_valid = round(0.1 * len(train))  # 408 of 4,076, as GLUE's
        data.train, data.valid['valid'] = split_examples(train, n_valid, seed, data.sources[0])
        data.notes.append(
            f'no mrpc_dev_ids.tsv: {n_valid:,} pairs are set aside at random for validation; '
            "they are not GLUE's"
        )
        return data
    data.sources.append(path)
    dev_ids = {'-'.join(line.split('\t')) for _, line in read_lines(path)}
    data.train = [example for example in train if example.id not in dev_ids]
    data.valid['valid'] = [example for example in train if example.id in dev_ids]
    if not data.train or not data.valid['valid']:
        raise InputError(f'{path}: expected the ids of some pairs of {data.sources[0]}')
    if n_valid is not None:
        data.notes.append(f'n_valid is not used: {path} selects the validation pairs')
    return data


def split_examples(
    examples: list[Example], n_valid: int, seed: int, path: str
) -> tuple[list[Example], list[Example]]:
    """Training and validation examples: scikit-learn's train_test_split, a permutation."""
    if not 0 < n_valid < len(examples):
        raise InputError(
            f'{path} has {len(examples):,} examples: '
            f'cannot set {n_valid:,} aside for validation (--n_valid)'
        )
    order = np.random.RandomState(seed).permutation(len(examples))
    return [examples[i] for i in order[n_valid:]], [examples[i] for i in order[:n_valid]]


# ---- RACE: folders of JSON files

RACE_LEVELS = ('middle', 'high')
RACE_SPLITS = ('train', 'dev', 'test')


def read_race_file(
    path: str, need_labels: bool = True, warnings: list[str] | None = None
) -> list[Example]:
    """The questions of one passage. Texts: article, question, options. Raises InputError.

    The `_` of a cloze question stays: the paper has question and answer one after the other.
    """
    with open_text(path, newline='\n') as f:
        record = parse_json(f.read(), path)
    article = json_text(record.get('article'), path, 'article')
    name = os.path.splitext(str(record.get('id', os.path.basename(path))))[0]
    questions = record.get('questions')
    options = record.get('options')
    if not isinstance(questions, list) or not isinstance(options, list):
        raise InputError(f'{path}: expected the lists "questions" and "options"')
    answers = record.get('answers', [] if need_labels else [None] * len(questions))
    if not isinstance(answers, list) or not len(questions) == len(options) == len(answers):
        raise InputError(f'{path}: expected as many options and answers as questions')
    examples = []
    for k, (question, choices, answer) in enumerate(zip(questions, options, answers)):
        where = f'{path}, question {k + 1}'
        if not isinstance(choices, list) or len(choices) < 2:
            raise InputError(f'{where}: expected two options or more')
        letters = [chr(ord('A') + i) for i in range(len(choices))]
        if answer not in letters and (need_labels or answer is not None):
            refuse(
                f'{where}: the answer is {str(answer)[:20]!r}, expected A to {letters[-1]}',
                warnings,
            )
        texts = (
            article,
            json_text(question, where, 'the question'),
            *(json_text(choice, where, 'an option') for choice in choices),
        )
        label = letters.index(answer) if answer in letters else None
        examples.append(Example(f'{name}-{k}', texts, label))  # ids of RACE are those of passages
    return examples


def _read_race_folder(
    folder: str, need_labels: bool = True, warnings: list[str] | None = None
) -> list[Example]:
    """All questions of a folder of passages, in the order of the files' numbers."""
    paths = _race_files(folder)
    return [e for path in paths for e in read_race_file(path, need_labels, warnings)]


def _race_files(folder: str) -> list[str]:
    """The files of a folder of passages, in the order of their numbers."""

    def order(name):
        stem = name.removesuffix('.txt')
        return (0, int(stem), name) if stem.isdecimal() else (1, 0, name)

    names = sorted((n for n in list_folder(folder) if n.endswith('.txt')), key=order)
    return [os.path.join(folder, name) for name in names]


def _race_levels(folder: str, split: str) -> dict[str, str]:
    """Folders of `middle` and `high`, those that are there."""
    paths = {level: os.path.join(folder, split, level) for level in RACE_LEVELS}
    return {level: path for level, path in paths.items() if os.path.isdir(path)}


def _race_home(task: Task, data_dir: str) -> str | None:
    for folder in _places(task, data_dir):
        if _race_levels(folder, 'train') and _race_levels(folder, 'dev'):
            return folder
    return None


def _existing_race_home(task: Task, data_dir: str) -> str:
    home = _race_home(task, data_dir)
    if home is None:
        raise InputError(
            f'{data_dir} has no RACE: expected the folders train, dev and test, each with middle '
            f'and high, there or in its folder "RACE"; get them from {task.archive.address}'
        )
    return home


def _find_race(task: Task, data_dir: str) -> list[str]:
    home = _existing_race_home(task, data_dir)
    levels = [_race_levels(home, split) for split in RACE_SPLITS]
    folders = [folder for paths in levels for folder in paths.values()]
    return [path for folder in folders for path in _race_files(folder)]


def _read_race(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """RACE: trained on both levels together, scored on each and on all."""
    home = _existing_race_home(task, data_dir)
    data = Data()
    if n_valid is not None:
        data.notes.append('n_valid is not used: RACE has validation files')
    for split, target in (('train', {}), ('dev', data.valid), ('test', data.test)):
        levels = _race_levels(home, split)
        for level, path in levels.items():
            examples = _read_race_folder(path)
            if not examples:
                raise InputError(f'{path} has no passages: expected files 1.txt, 2.txt, ...')
            target[level] = examples
            data.sources.append(path)
        if split == 'train':
            data.train = [example for examples in target.values() for example in examples]
        missing = [level for level in RACE_LEVELS if level not in levels]
        if missing:
            data.notes.append(f'{home} has no {split} passages of {" and ".join(missing)}')
    return data


# ---- ROCStories: two CSV files

COLUMNS = [
    'InputStoryid',
    'InputSentence1',
    'InputSentence2',
    'InputSentence3',
    'InputSentence4',
    'RandomFifthSentenceQuiz1',
    'RandomFifthSentenceQuiz2',
    'AnswerRightEnding',
]
FILES = {  # the names the data set was published under, and those its site hands out now
    'val': (
        'cloze_test_val__spring2016 - cloze_test_ALL_val.csv',
        'cloze_test_val__spring2016.csv',
        'cloze_test_val__winter2018-cloze_test_ALL_val - 1 - 1.csv',
    ),
    'test': (
        'cloze_test_test__spring2016 - cloze_test_ALL_test.csv',
        'cloze_test_test__spring2016.csv',
        'cloze_test_test__winter2018-cloze_test_ALL_test - 1.csv',
    ),
}
CLOZE_NAME = re.compile(r'cloze_test_(val|test)__(spring2016|winter2018).*\.csv', re.IGNORECASE)
CLOZE_ADDRESS = 'https://cs.rochester.edu/nlp/rocstories/'


def find_csv(data_dir: str, which: str) -> str:
    """Path of the `val` or `test` file in `data_dir`. Raises InputError if there is none.

    Names that browsers and spreadsheets change ("... (1).csv", ".CSV") are found too. Where the
    editions of 2016 and 2018 are both there, the paper's is taken: 2016.
    """
    check_folder(data_dir)
    found = {}  # (edition, which) -> names
    for name in list_folder(data_dir):
        match = CLOZE_NAME.fullmatch(name)
        if match and os.path.isfile(os.path.join(data_dir, name)):
            key = (match[2].lower(), match[1].lower())
            found.setdefault(key, []).append(name)
    editions = [edition for edition in ('spring2016', 'winter2018') if (edition, which) in found]
    if not editions:
        raise InputError(
            f'{data_dir} has neither "{FILES[which][0]}" nor "{FILES[which][1]}": request the '
            f'Story Cloze Test (Spring 2016) at {CLOZE_ADDRESS} and put its two CSV files there'
        )
    other = 'test' if which == 'val' else 'val'
    pairs = [edition for edition in editions if (edition, other) in found]
    names = found[(pairs or editions)[0], which]
    exact = [name for name in FILES[which] if name in names]
    if not exact and len(names) > 1:
        raise InputError(f'{data_dir} has several {which} files: {quoted(names)}; keep one of them')
    return os.path.join(data_dir, (exact or names)[0])


def read_cloze_test(
    path: str, need_labels: bool = True, warnings: list[str] | None = None
) -> list[Example]:
    """Read one Story Cloze CSV file: columns by name, in any order.

    Texts: the four sentences joined by one space, ending 1, ending 2; the label is 0 or 1. With
    `need_labels=False` the label column may be missing or empty; then all labels are None. With a
    list of `warnings`, rows with an empty text or another label are kept, and it names them.
    Raises InputError naming the file and the row (1 = the header).
    """
    rows = read_csv(path)
    header_row = next(rows, None)
    if header_row is None:
        raise InputError(f'{path} is empty: expected a header row and a row for each story')
    header = [name.strip() for name in header_row[1]]
    columns = COLUMNS if need_labels or COLUMNS[-1] in header else COLUMNS[:-1]
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f'{path}, row {header_row[0]}: no column {missing[0]}; '
            f'expected the header {",".join(COLUMNS)}'
        )
    check_once(f'{path}, row {header_row[0]}', header, columns)
    at = [header.index(name) for name in columns]
    stories = []
    for number, cells in rows:
        where = f'{path}, row {number}'
        check_no_header(where, cells, header)
        if len(cells) < max(at[:7]) + 1:
            raise InputError(f'{where}: {len(cells)} columns, expected {len(header)}')
        cells = cells_under(where, cells, header)
        values = [cells[i] for i in at]
        empty = [name for name, value in zip(columns[:7], values) if not value.strip()]
        if empty:
            refuse(f'{where}: {empty[0]} is empty', warnings)
        stories.append((where, values))
    if not stories:
        raise InputError(f'{path} has a header but no stories')

    words = [whole_number(values[7].strip()) if len(at) == 8 else '' for _, values in stories]
    labels = [{'1': 0, '2': 1}.get(word) for word in words]
    if need_labels or any(words):
        for (where, _), word, label in zip(stories, words, labels):
            if label is None:
                refuse(f'{where}: AnswerRightEnding is {word[:20]!r}, expected 1 or 2', warnings)
    return [
        Example(values[0], (' '.join(values[1:5]), values[5], values[6]), label)
        for (_, values), label in zip(stories, labels)
    ]


def rocstories(
    data_dir: str, n_valid: int = 374
) -> tuple[list[Example], list[Example], list[Example]]:
    """The training, validation and test stories: the *val* file split in two, and the *test* file.

    The split is `sklearn.model_selection.train_test_split(..., test_size=n_valid,
    random_state=3535999445)`: a permutation of which the first n_valid are the validation set.
    Raises InputError.
    """
    path = find_csv(data_dir, 'val')
    stories = read_cloze_test(path)
    test = read_cloze_test(find_csv(data_dir, 'test'), need_labels=False)
    if len(stories) <= n_valid:
        raise InputError(
            f'{path} has {len(stories)} stories, too few to set {n_valid} aside for validation '
            '(--n_valid)'
        )
    train, valid = split_examples(stories, n_valid, SPLIT_SEED, path)
    return train, valid, test


def _read_rocstories(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    train, valid, test = rocstories(data_dir, 374 if n_valid is None else n_valid)
    sources = [find_csv(data_dir, which) for which in FILES]
    notes = []
    if any('winter2018' in path.lower() for path in sources):
        notes.append("the edition of 2018; the paper's is that of 2016")
    return Data(train, {'valid': valid}, {'test': test}, notes, sources)


# ------------------------------------------------------------------------------------ the table

NLI = ('entailment', 'neutral', 'contradiction')
GLUE = 'https://dl.fbaipublicfiles.com/glue/data/'
FIGURE_2 = 'paper, figure 2, read off'
LEADERBOARD = "GLUE's leaderboard"


def _test(who: str, split: str = 'test', **figures: float) -> tuple[Published, ...]:
    """Published figures on a test set: metric = value."""
    return tuple(Published(who, 'test', split, metric, value) for metric, value in figures.items())


_ROWS = [
    Task(
        name='rocstories',
        title='ROCStories',
        layout='choices',
        first_label='0',  # in the original's submission; the CSV files have 1 and 2
        halves=True,
        published=(
            *_test('paper', accuracy=86.5),
            *_test("OpenAI's code, median of 10 runs", accuracy=85.8),
            *_test('soskek (Chainer), median of 10 runs', accuracy=86.72),
        ),
        archive=Archive(address=CLOZE_ADDRESS, patterns=()),
        reader=_read_rocstories,
    ),
    Task(
        name='snli',
        title='SNLI',
        layout='pair',
        labels=NLI,
        published=_test('paper', accuracy=89.9),
        archive=Archive(
            folders=('snli_1.0', 'SNLI'),
            address='https://nlp.stanford.edu/projects/snli/snli_1.0.zip',
            patterns=('snli_1.0_{}.jsonl', 'snli_1.0_{}.txt', '{}.tsv'),
            label='gold_label',
            id=('pairID',),
            ragged='accept',
            no_majority=True,
            editions={(549_367, 9_842, 9_824): ''},
        ),
    ),
    Task(
        name='mnli',
        title='MNLI',
        layout='pair',
        labels=NLI,
        submission={'matched': 'MNLI-m.tsv', 'mismatched': 'MNLI-mm.tsv', 'diagnostic': 'AX.tsv'},
        published=(
            *_test('paper', 'matched', accuracy=82.1),
            *_test('paper', 'mismatched', accuracy=81.4),
            *_test(LEADERBOARD, 'diagnostic', matthews=29.8),
            Published(FIGURE_2, 'valid', 'matched', 'accuracy', 82.4),
        ),
        archive=Archive(
            folders=('MNLI', 'multinli_1.0', 'multinli'),
            address=GLUE + 'MNLI.zip',
            patterns=('{}.tsv', 'multinli_1.0_{}.jsonl', 'multinli_1.0_{}.txt'),
            splits={
                'train': 'train',
                'valid/matched': 'dev_matched',
                'valid/mismatched': 'dev_mismatched',
                'test/matched': 'test_matched',
                'test/mismatched': 'test_mismatched',
            },
            label='gold_label',
            id=('pairID',),
            ragged='accept',
            no_majority=True,
            editions={(392_702, 19_647, 19_643): ''},
        ),
        reader=_read_mnli,
        finder=_find_mnli,
    ),
    Task(
        name='qnli',
        title='QNLI',
        layout='pair',  # question first: GLUE's order of columns; the paper's is not known
        labels=('entailment', 'not_entailment'),
        published=(
            *_test('paper, QNLI version 1', accuracy=88.1),
            *_test("BERT's table 1, QNLI version 2", accuracy=87.4),
        ),
        archive=Archive(
            folders=('QNLI', 'QNLIv2'),
            address=GLUE + 'QNLIv2.zip',
            texts=('question', 'sentence'),
            editions={
                (104_743, 5_463, 5_463): "QNLI version 2, GLUE's since 2019; the paper's is 1",
                (108_436, 5_732, 5_740): "QNLI version 1, the paper's; GLUE scores version 2 now",
            },
        ),
    ),
    Task(
        name='scitail',
        title='SciTail',
        layout='pair',
        labels=('entails', 'neutral'),
        published=_test('paper', accuracy=88.3),
        archive=Archive(
            folders=('SciTailV1.1', 'SciTailV1', 'SciTail', 'tsv_format', 'snli_format'),
            address='http://data.allenai.org.s3.amazonaws.com/downloads/SciTailV1.1.zip',
            patterns=('scitail_1.0_{}.tsv', 'scitail_1.0_{}.txt'),
            label='gold_label',
            id=(),
            bare=('sentence1', 'sentence2', 'gold_label'),
            aliases={'entailment': 'entails'},  # in snli_format
            editions={(23_596, 1_304, 2_126): ''},
        ),
    ),
    Task(
        name='rte',
        title='RTE',
        layout='pair',
        labels=('entailment', 'not_entailment'),
        published=_test('paper', accuracy=56.0),
        archive=Archive(
            folders=('RTE',), address=GLUE + 'RTE.zip', editions={(2_490, 277, 3_000): ''}
        ),
    ),
    Task(
        name='race',
        title='RACE',
        layout='choices',
        submission={'middle': 'RACE-m.tsv', 'high': 'RACE-h.tsv'},
        first_label='A',
        n_context=2,
        pooled=True,
        published=(
            *_test('paper', 'middle', accuracy=62.9),
            *_test('paper', 'high', accuracy=57.4),
            *_test('paper', 'all', accuracy=59.0),
            *_test('H. Sugiyama', 'all', accuracy=57.2),
            Published(FIGURE_2, 'valid', 'all', 'accuracy', 60.1),
        ),
        archive=Archive(
            folders=('RACE',),
            address='http://www.cs.cmu.edu/~glai1/data/race/',
            patterns=(),
            editions={(87_866, 4_887, 4_934): ''},
        ),
        reader=_read_race,
        finder=_find_race,
    ),
    Task(
        name='qqp',
        title='QQP',
        layout='similarity',
        labels=('not_duplicate', 'duplicate'),
        metrics=('f1', 'accuracy'),
        first_label='0',
        published=(*_test('paper', f1=70.3), *_test(LEADERBOARD, accuracy=88.5)),
        archive=Archive(
            folders=('QQP', 'QQP-clean'),
            address=GLUE + 'QQP-clean.zip',
            texts=('question1', 'question2'),
            label='is_duplicate',
            id=('id',),
            ragged='drop',
            editions={
                (363_846, 40_430, 390_965): "QQP-clean, GLUE's since September 2020",
                (363_849, 40_430, 390_965): "GLUE's QQP until September 2020, the paper's",
            },
        ),
    ),
    Task(
        name='mrpc',
        title='MRPC',
        layout='similarity',
        labels=('not_paraphrase', 'paraphrase'),
        metrics=('f1', 'accuracy'),
        first_label='0',
        published=(*_test('paper', f1=82.3), *_test(LEADERBOARD, accuracy=75.7)),
        archive=Archive(
            folders=('MRPC', 'MSRParaphraseCorpus'),
            texts=('#1 String', '#2 String'),
            label='Quality',
            id=('#1 ID', '#2 ID'),
            editions={(3_668, 408, 1_725): ''},
        ),
        reader=_read_mrpc,
    ),
    Task(
        name='stsb',
        title='STS-B',
        layout='similarity',
        metrics=('pearson', 'spearman'),
        soft_labels=True,
        published=(
            *_test('paper', pearson=82.0),
            *_test(LEADERBOARD, spearman=80.0),
            *_test('TEGELB, split not stated', pearson=82.45),
        ),
        archive=Archive(
            folders=('STS-B',),
            address=GLUE + 'STS-B.zip',
            label='score',
            editions={(5_749, 1_500, 1_379): ''},
        ),
        reader=_read_stsb,
    ),
    Task(
        name='cola',
        title='CoLA',
        layout='text',
        labels=('unacceptable', 'acceptable'),
        metrics=('matthews', 'accuracy'),
        first_label='0',
        published=_test('paper', matthews=45.4),
        archive=Archive(
            folders=('CoLA',),
            address=GLUE + 'CoLA.zip',
            texts=('sentence',),
            bare=('source', 'label', 'mark', 'sentence'),  # but test.tsv has a header
            editions={(8_551, 1_043, 1_063): ''},
        ),
    ),
    Task(
        name='sst2',
        title='SST-2',
        layout='text',
        labels=('negative', 'positive'),
        first_label='0',
        published=(
            *_test('paper', accuracy=91.3),
            *_test('p-null, trained on 6,920 sentences', accuracy=91.38),
        ),
        archive=Archive(
            folders=('SST-2',),
            address=GLUE + 'SST-2.zip',
            texts=('sentence',),
            editions={(67_349, 872, 1_821): ''},
        ),
    ),
    Task(
        name='wnli',
        title='WNLI',
        layout='pair',
        labels=('not_entailment', 'entailment'),
        first_label='0',
        published=_test(LEADERBOARD, accuracy=53.4),
        archive=Archive(
            folders=('WNLI',), address=GLUE + 'WNLI.zip', editions={(635, 71, 146): ''}
        ),
    ),
]
TASKS: dict[str, Task] = {task.name: task for task in _ROWS}


# ----------------------------------------------------------------- the default folder, the sample

DATA_ENDINGS = ('.csv', '.tsv', '.jsonl', '.json', '.txt', '.xls', '.xlsx')
ARCHIVE_ENDINGS = ('.zip', '.gz', '.tgz', '.tar', '.msi')


def find_data(name: str, data_dir: str | None = None) -> tuple[str, bool]:
    """The folder of a data set, and whether it is our made-up sample.

    Without `data_dir`: data/ in the working folder or beside this file, if the data set is there;
    else data/sample/ beside this file. The sample is made on first use. Raises InputError; also
    if data/ has files that look like data and would not be used.
    """
    if data_dir is not None:
        if _is_sample(data_dir):
            _make_sample(name, data_dir)
        return data_dir, _is_sample(data_dir)
    if name == 'custom':
        raise InputError('--dataset custom: name the folder of your data with --data_dir')
    for folder in ('data/', os.path.join(ROOT, 'data/')):
        if not os.path.isdir(folder):
            continue
        if _is_there(name, folder):
            return folder, False
        unknown = unrecognized_files(folder, name)
        if unknown:
            more = f' and {len(unknown) - 5:,} more' if len(unknown) > 5 else ''
            raise InputError(
                f'{folder} has files that are not recognized: {quoted(unknown[:5])}{more}; '
                f'{_expected_files(name)}. Rename or move them, or name a folder with --data_dir '
                f'(made-up data: --data_dir {_shown(SAMPLE)})'
            )
    _make_sample(name, SAMPLE)
    return _shown(SAMPLE), True


def find_or_make(name: str, data_dir: str | None = None) -> tuple[str, bool]:
    """`find_data`, but with the sample where `data_dir` does not have the data set."""
    if data_dir is None or _is_there(name, data_dir):
        return find_data(name, data_dir)
    return find_data(name, SAMPLE)


DPRD_FILES = ('train.c.txt', 'test.c.txt')
DPRD_FOLDERS = ('DPRD', 'definite_pronoun_resolution', 'emnlp12')


def find_dprd(data_dir: str | None = None) -> tuple[str, bool]:
    """The test file of definite pronoun resolution, and whether it is our made-up one.

    It is looked for like other data sets. Where it is not, the made-up file is made on first use.
    Raises WriteError if that fails.
    """
    folders = [data_dir] if data_dir else ['data/', os.path.join(ROOT, 'data/')]
    for folder in filter(os.path.isdir, folders):
        for place in (*_folders(folder, DPRD_FOLDERS), folder):
            path = first_file(place, DPRD_FILES[1:])
            if path:
                return path, _is_sample(place)
    path = os.path.join(_shown(SAMPLE), 'DPRD', DPRD_FILES[1])
    if not os.path.isfile(path):
        _make('dprd', SAMPLE)
    return path, True


def _expected_files(name: str) -> str:
    if name == 'rocstories':
        return f'expected "{FILES["val"][0]}" and "{FILES["test"][0]}"'
    return f'expected the folder "{TASKS[name].archive.folders[0]}"'


def _shown(folder: str) -> str:
    """A folder as people write it: relative to the working folder if it is below it."""
    relative = os.path.relpath(folder)
    return os.path.join(folder if relative.startswith(os.pardir) else relative, '')


def _is_sample(folder: str) -> bool:
    """Whether `folder` is data/sample/ of this repository, or below it."""
    sample = os.path.join(os.path.realpath(SAMPLE), '')
    return os.path.join(os.path.realpath(folder), '').startswith(sample)


def _is_there(name: str, folder: str) -> bool:
    """Whether `folder` has any file that the reader of a data set would take.

    So has a folder of its name that is not empty. If files are missing, reading says which.
    """
    if name == 'rocstories':
        return any(map(CLOZE_NAME.fullmatch, list_folder(folder)))
    task = TASKS[name]
    names = set(map(_plain, task.archive.folders))
    for place in _places(task, folder):
        if place != folder and _plain(os.path.basename(place)) in names and list_folder(place):
            return True
        if name == 'race' and any(_race_levels(place, split) for split in RACE_SPLITS):
            return True
        for archive in _archives(task):
            if any(first_file(place, archive.names(split)) for split in archive.splits):
                return True
    return False


def unrecognized_files(folder: str, name: str) -> list[str]:
    """Files in `folder` that look like data but are not read by any task.

    Archives of this task that are not unpacked count too.
    """
    known = {*DPRD_FILES, 'mrpc_dev_ids.tsv', 'AX.tsv', 'diagnostic.tsv'}
    for task in TASKS.values():
        for archive in _archives(task):
            known.update(*map(archive.names, archive.splits))
    stems = ['cloze', 'rocstories']
    if name != 'rocstories':
        stems = [_plain(folder) for folder in TASKS[name].archive.folders]
    unknown = []
    for file in list_folder(folder):
        lower = file.lower()
        is_data = lower.endswith(DATA_ENDINGS) and file not in known
        is_archive = lower.endswith(ARCHIVE_ENDINGS) and any(s in _plain(file) for s in stems)
        is_cloze = CLOZE_NAME.fullmatch(file) is not None
        if (is_data or is_archive) and not is_cloze and os.path.isfile(os.path.join(folder, file)):
            unknown.append(file)
    return unknown


def _make_sample(name: str, folder: str) -> None:
    """Write the made-up data of a task below `folder`, if it is not all there."""
    if name not in TASKS or name == 'rocstories' or _is_complete(TASKS[name], folder):
        return
    _make(name, folder)


def _make(name: str, folder: str) -> None:
    """Write the made-up data of a task below `folder`."""
    path = os.path.join(ROOT, 'data', 'sample_tasks.py')
    spec = importlib.util.spec_from_file_location('sample_tasks', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.make(name, folder)


def _is_complete(task: Task, data_dir: str) -> bool:
    """Whether all files are there, those of the test set too."""
    if task.name == 'race':
        home = _race_home(task, data_dir)
        return home is not None and len(_race_levels(home, 'test')) == len(RACE_LEVELS)
    home, _ = _complete_folder(task, data_dir)
    archive = task.archive
    return home is not None and all(first_file(home, archive.names(s)) for s in archive.splits)


def read_data(
    name: str,
    data_dir: str,
    n_valid: int | None = None,
    seed: int = SPLIT_SEED,
    regression: bool = False,
    symmetric: bool = False,
    positive: str | None = None,
) -> tuple[Task, Data]:
    """Read the data set `name`, a key of `TASKS` or 'custom'. Raises InputError."""
    if name == 'custom':
        from gpt1.tasks.own_data import custom_task  # which imports this module

        return custom_task(data_dir, regression, symmetric, n_valid, seed, positive)
    return TASKS[name], TASKS[name].read(data_dir, n_valid)


def source_files(name: str, data_dir: str) -> list[str]:
    """The files that `read_data` reads, found without reading them.

    Empty for tasks whose data set is always small. Raises InputError if files are missing.
    """
    if name == 'custom':
        from gpt1.tasks.own_data import own_files

        return [path for path in own_files(data_dir).values() if path]
    check_folder(data_dir)
    task = TASKS[name]
    if task.finder is not None:
        return task.finder(task, data_dir)
    if task.reader is not None:
        return []
    return [path for path in _official_files(task, data_dir)[1].values() if path]


def read_examples(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """Read a file to predict: in the task's own format, or the columns of your own data.

    Labels may be missing: then they are None. No row is left out. With a list of `warnings`, empty
    texts and unknown labels are no errors: it names their rows. For RACE, `path` may be a folder of
    passages. Raises InputError.
    """
    if task.name == 'rocstories':
        return read_cloze_test(path, False, warnings)
    if task.name == 'race':
        read = _read_race_folder if os.path.isdir(path) else read_race_file
        examples = read(path, False, warnings)
        if not examples:
            raise InputError(
                f'{path} has no passages with questions: expected a passage of RACE, or a folder '
                'of files 1.txt, 2.txt, ...'
            )
        return examples
    if task.name != 'custom':
        return read_table(path, task, need_labels=False, warnings=warnings)
    from gpt1.tasks.own_data import read_new

    return read_new(path, task, warnings)
