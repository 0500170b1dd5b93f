"""Files of the paper's data sets, and of your own, to `Example`s: texts and a label.

`TASKS` is the one table that says how the tasks of the paper differ. `TASKS[name].read(data_dir)`
reads a data set from its official files, `custom_task` reads your own, `read_examples` one file
for prediction. Metrics and submission files are here too. Nothing here knows of tokens.
"""

import contextlib
import csv
import importlib.util
import io
import itertools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import IO, NamedTuple

import numpy as np

from utils import InputError

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE = os.path.join(HERE, 'data', 'sample')  # the made-up data of this repository
SPLIT_SEED = 3535999445  # the original's, for all splits into training and validation examples
LAYOUTS = ('text', 'pair', 'similarity', 'choices')

csv.field_size_limit(2**31 - 1)  # Python's default refuses fields of more than 131,072 characters


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

    def read(self, data_dir: str, n_valid: int | None = None, seed: int = SPLIT_SEED) -> Data:
        """Read the data set from its official files in `data_dir`, or in a folder below it.

        `n_valid` examples are set aside for validation where the data set has no validation file;
        None: as many as usual. Raises InputError.
        """
        _check_folder(data_dir)
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
        if sum(kinds) != 1 or form != known_form:
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
}


# ------------------------------------------------------------------------------ text, CSV, JSON


@contextlib.contextmanager
def _open_text(path: str, newline: str) -> Iterator[IO[str]]:
    """Open a UTF-8 file, or UTF-16 with its mark. Raises InputError, also while it is read."""
    try:
        with open(path, 'rb') as binary:
            start = binary.peek(2)[:2]
            encoding = 'utf-16' if start in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
            with io.TextIOWrapper(binary, encoding, newline=newline) as text:
                yield text
    except UnicodeError as error:
        line = _undecodable_line(path)
        where = f'{path}, line {line}' if line else path
        raise InputError(f'{where}: not UTF-8 text; save the file again as UTF-8') from error
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror or error}') from error
    except ValueError as error:  # a NUL in the path
        raise InputError(f'cannot read {path!r}: {error}') from error


def _undecodable_line(path: str) -> int | None:
    """Number of the first line that is not UTF-8; None if that cannot be said (a pipe, UTF-16)."""
    if not os.path.isfile(path):
        return None
    with open(path, 'rb') as f:
        for number, line in enumerate(f, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return None


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text file, without blank lines.

    Lines end with LF or CR LF only: texts may hold the other line breaks of Unicode.
    Raises InputError.
    """
    with _open_text(path, newline='\n') as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip('\r\n')
            if line and not line.isspace():
                yield number, line


def read_csv(path: str, notes: list[str] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number from 1, cells) of a CSV file; the first one is the header.

    The separator is a comma, a semicolon or a tab, whichever the header has, or what a first line
    `sep=;` says. Rows of empty cells are left out. Fields with line breaks are counted in `notes`.
    Raises InputError, also if a quotation mark that is not closed joins several rows.
    """
    number, n_broken = 0, 0
    with _open_text(path, newline='') as f:
        try:
            first = next(f, '')
            said = re.fullmatch(r'sep=(.)\s*', first)
            while first and (said is not None and number == 0 or not first.strip()):
                number += 1
                first = next(f, '')
            separator = said[1] if said else max(',;\t', key=first.count)
            reader = csv.reader(itertools.chain([first], f), delimiter=separator, strict=True)
            n_lines = 0
            for cells in reader:
                number += 1
                if reader.line_num - n_lines > 1:
                    _check_line_breaks(f'{path}, row {number}', cells, separator)
                    n_broken += 1
                n_lines = reader.line_num
                if any(cell and not cell.isspace() for cell in cells):
                    yield number, cells
        except csv.Error as error:
            raise InputError(
                f'{path}, row {number + 1}: a quotation mark is not closed, or not at the end of '
                f'its field ({error}); write "" for a quotation mark within a quoted field'
            ) from error
    if notes is not None and n_broken:
        notes.append(f'{path}: {n_broken:,} rows hold line breaks within a quoted field')


def _check_line_breaks(where: str, cells: list[str], separator: str) -> None:
    """Raise InputError if a field looks like several rows, between two stray quotation marks.

    If the second mark is in column k of a later row, the last line of the field has k separators.
    Three or more in a line of text are very unlikely.
    """
    for column, cell in enumerate(cells):
        for line in cell.splitlines()[1:]:
            if line.count(separator) >= max(column, 3):
                raise InputError(
                    f'{where}, column {column + 1}: the field holds whole rows; '
                    'a quotation mark before them is not closed'
                )


def _parse_json(text: str, path: str, number: int | None = None) -> dict:
    """A JSON object. `number` is the line of the file, for messages."""
    try:
        record = json.loads(text)
        if '\\u' in text:  # there may be halves of surrogate pairs, which UTF-8 cannot write
            plain = json.dumps(record, ensure_ascii=False).encode('utf-16', 'surrogatepass')
            record = json.loads(plain.decode('utf-16', 'replace'))
    except (ValueError, RecursionError) as error:
        raise InputError(f'{_where(path, number)}: not JSON ({str(error)[:80]})') from error
    if not isinstance(record, dict):
        raise InputError(f'{_where(path, number)}: expected a JSON object')
    return record


def _where(path: str, number: int | None) -> str:
    return path if number is None else f'{path}, line {number}'


def _json_text(value, where: str, key: str) -> str:
    if not isinstance(value, str):
        raise InputError(f'{where}: {key} is missing or not a string')
    return value


def _whole_number(word: str) -> str:
    """'1.0', as pandas and Excel write whole numbers in a column with gaps, to '1'."""
    match = re.fullmatch(r'(-?[0-9]+)\.0+', word)
    return match[1] if match else word


# -------------------------------------------------------------------- one file of a data set


_Row = tuple[int, tuple[str, ...], str | None, str]  # line number, texts, label as written, id


def _json_rows(path: str, lines: Iterable[tuple[int, str]], archive: Archive) -> Iterator[_Row]:
    """Rows of a JSON-lines file."""
    n_texts = len(archive.texts)
    starts = [f'"{key}": "' for key in (*archive.texts, archive.label, *archive.id)]
    for index, (number, line) in enumerate(lines):
        values = _plain_values(line, starts)
        if values is None:
            record = _parse_json(line, path, number)
            where = f'{path}, line {number}'
            values = [_json_text(record.get(key), where, key) for key in archive.texts]
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
    texts_at = [header.index(name) for name in archive.texts]
    label_at = header.index(archive.label) if archive.label in header else None
    id_at = [header.index(name) for name in archive.id if name in header]
    needed = max(texts_at + id_at + ([] if label_at is None else [label_at])) + 1
    width = len(header)
    label_is_last = label_at == width - 1
    for index, (number, line) in enumerate(lines):
        cells = line.split('\t')
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


def _score(word: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(word.replace('_', 'x'))  # Python reads 1_000 as a number
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _parse_label(task: Task, ids: dict[str, int], word: str | None) -> int | float | None:
    """The id of a class, or STS-B's score; None where `word` is neither."""
    if word is None:
        return None
    if task.soft_labels:
        score = _score(word)
        return score if score is not None and 0 <= score <= 5 else None
    return ids.get(_whole_number(word.strip()))


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
) -> list[Example]:
    """Examples of one tab-separated or JSON-lines file of a data set.

    With a list of `notes`, pairs labelled '-' and broken rows of QQP are left out, and a note says
    how many. Without it (for prediction) all rows are kept: '-' is an unknown label, and a broken
    row is an error. With `need_labels=False`, missing labels are None.
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
            raise InputError(
                f'{path}, line {number}: the label is {(word or "")[:20]!r}, '
                f'expected {_expected_labels(task)}'
            )
        if not all(map(str.strip, texts)):
            n_empty += 1
        examples.append(Example(name, texts, label))
    if not examples:
        raise InputError(f'{path} has no examples')
    if notes is not None:
        if n_empty:
            notes.append(f'{path}: examples with an empty text: {n_empty:,}')
        notes += [f'{path}: {what} left out: {n:,}' for what, n in dropped.items()]
    return examples


# --------------------------------------------------------------------------- finding the files


def _check_folder(data_dir: str) -> None:
    if not os.path.isdir(data_dir):
        raise InputError(f'no such folder: {data_dir} (--data_dir names the folder of the data)')


def _list_folder(folder: str) -> list[str]:
    """Names in a folder, sorted, without hidden ones (macOS leaves some in archives)."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except OSError as error:
        raise InputError(f'cannot read {folder}: {error.strerror}') from error


def _plain(name: str) -> str:
    """'STS-B' and 'sts_b' to 'stsb'."""
    return ''.join(filter(str.isalnum, name.lower()))


def _folders(data_dir: str, names: tuple[str, ...], depth: int = 3) -> list[str]:
    """The folders below `data_dir`, at most `depth` levels down, whose name is one of `names`.

    They are in the order of `names`, each before its subfolders.
    """
    there = [(_plain(name), name) for name in _list_folder(data_dir)]
    found = []
    for wanted in (*names, 'glue', 'glue_data'):
        for plain, name in there:
            folder = os.path.join(data_dir, name)
            if plain == _plain(wanted) and depth > 0 and os.path.isdir(folder):
                found += [folder, *_folders(folder, names, depth - 1)]
    return found


def _first_file(folder: str, names: Iterable[str]) -> str | None:
    paths = (os.path.join(folder, name) for name in names)
    return next(filter(os.path.isfile, paths), None)


def _complete_folder(task: Task, data_dir: str) -> tuple[str | None, str]:
    """The folder with a task's training and validation files, or None and an error message."""
    archive = task.archive
    needed = [archive.names(split) for split in archive.splits if not split.startswith('test')]
    names = ' and '.join(f'"{names[0]}"' for names in needed)
    problem = (
        f'{data_dir} has no {task.title}: expected {names} there or in its folder '
        f'"{archive.folders[0]}"; get them from {archive.address}'
    )
    for folder in [*_folders(data_dir, archive.folders), data_dir]:
        missing = [names for names in needed if not _first_file(folder, names)]
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
        if all(n in (0, size) for n, size in zip(edition, sizes)):  # 0: not known
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
    return folder, {key: _first_file(folder, task.archive.names(key)) for key in splits}


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
    return next(filter(None, (_first_file(place, AX_FILES) for place in places)), None)


def _find_mnli(task: Task, data_dir: str) -> list[str]:
    folder, paths = _official_files(task, data_dir)
    return [*filter(None, [*paths.values(), _diagnostic_file(folder, data_dir)])]


def _read_stsb(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """STS-B. The scores of GLUE's test set are in original/sts-test.tsv, in the same order."""
    data = _read_official(task, data_dir, n_valid, seed)
    folder = os.path.dirname(data.sources[0])
    path = _first_file(folder, (os.path.join('original', 'sts-test.tsv'),))
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
        path = _first_file(folder, MRPC_SOURCE[1:])
        if path is None or 'test' not in data.test:
            return data
        data.sources.append(path)
        return _label_test(data, read_table(path, task), key=lambda e: e.id)

    splits = {'train': 'train', 'valid': 'test'}  # both must be there
    archive = task.archive._replace(patterns=('msr_paraphrase_{}.txt',), splits=splits)
    source = replace(task, archive=archive)
    folder, _ = _complete_folder(source, data_dir)
    if folder is None:
        raise InputError(
            f'{data_dir} has no MRPC: expected "train.tsv", "dev.tsv" and "test.tsv", or '
            f'"{MRPC_SOURCE[0]}" and "{MRPC_SOURCE[1]}", there or in its folder "MRPC"; '
            f'get them from {task.archive.address}'
        )
    data = Data(sources=[os.path.join(folder, name) for name in MRPC_SOURCE])
    train, test = (read_table(path, task, notes=data.notes) for path in data.sources)
    data.test['test'] = test
    path = _first_file(folder, ('mrpc_dev_ids.tsv',)) or _first_file(
        data_dir, ('mrpc_dev_ids.tsv',)
    )
    if path is None:
        if n_valid is None:
            n_valid = round(0.1 * len(train))  # 408 of 4,076, as GLUE's
        data.train, data.valid['valid'] = _split(train, n_valid, seed, data.sources[0])
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


def _split(
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


def read_race_file(path: str, need_labels: bool = True) -> list[Example]:
    """The questions of one passage. Texts: article, question, options. Raises InputError.

    The `_` of a cloze question stays: the paper has question and answer one after the other.
    """
    with _open_text(path, newline='\n') as f:
        record = _parse_json(f.read(), path)
    article = _json_text(record.get('article'), path, 'article')
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
            raise InputError(
                f'{where}: the answer is {str(answer)[:20]!r}, expected A to {letters[-1]}'
            )
        texts = (
            article,
            _json_text(question, where, 'the question'),
            *(_json_text(choice, where, 'an option') for choice in choices),
        )
        label = None if answer is None else letters.index(answer)
        examples.append(Example(f'{name}-{k}', texts, label))  # ids of RACE are those of passages
    return examples


def _read_race_folder(folder: str, need_labels: bool = True) -> list[Example]:
    """All questions of a folder of passages, in the order of the files' numbers."""
    paths = _race_files(folder)
    return [example for path in paths for example in read_race_file(path, need_labels)]


def _race_files(folder: str) -> list[str]:
    """The files of a folder of passages, in the order of their numbers."""

    def order(name):
        stem = name.removesuffix('.txt')
        return (0, int(stem), name) if stem.isdecimal() else (1, 0, name)

    names = sorted((n for n in _list_folder(folder) if n.endswith('.txt')), key=order)
    return [os.path.join(folder, name) for name in names]


def _race_levels(folder: str, split: str) -> dict[str, str]:
    """Folders of `middle` and `high`, those that are there."""
    paths = {level: os.path.join(folder, split, level) for level in RACE_LEVELS}
    return {level: path for level, path in paths.items() if os.path.isdir(path)}


def _race_home(task: Task, data_dir: str) -> str | None:
    for folder in [*_folders(data_dir, task.archive.folders), data_dir]:
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
    levels = [_race_levels(home, split) for split in ('train', 'dev', 'test')]
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
    _check_folder(data_dir)
    found = {}  # (edition, which) -> names
    for name in _list_folder(data_dir):
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
        raise InputError(
            f'{data_dir} has several {which} files: {_quoted(names)}; keep one of them'
        )
    return os.path.join(data_dir, (exact or names)[0])


def _quoted(names: Iterable[str]) -> str:
    return ', '.join(f'"{name}"' for name in names)


def _cells(where: str, cells: list[str], header: list[str]) -> list[str]:
    """The cells under a header. Raises InputError for cells beyond it that are not empty."""
    n = len(header)
    if any(cell.strip() for cell in cells[n:]):
        raise InputError(f'{where}: {len(cells)} columns, expected {n}')
    return cells[:n] + [''] * (n - len(cells))


def read_cloze_test(path: str, need_labels: bool = True) -> list[Example]:
    """Read one Story Cloze CSV file: columns by name, in any order.

    Texts: the four sentences joined by one space, ending 1, ending 2; the label is 0 or 1. With
    `need_labels=False` the label column may be missing or empty; then all labels are None.
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
    at = [header.index(name) for name in columns]
    stories = []
    for number, cells in rows:
        where = f'{path}, row {number}'
        if len(cells) < max(at[:7]) + 1:
            raise InputError(f'{where}: {len(cells)} columns, expected {len(header)}')
        cells = _cells(where, cells, header)
        values = [cells[i] for i in at]
        empty = [name for name, value in zip(columns[:7], values) if not value.strip()]
        if empty:
            raise InputError(f'{where}: {empty[0]} is empty')
        stories.append((where, values))
    if not stories:
        raise InputError(f'{path} has a header but no stories')

    words = [_whole_number(values[7].strip()) if len(at) == 8 else '' for _, values in stories]
    labels = [{'1': 0, '2': 1}.get(word) for word in words]
    if need_labels or any(words):
        for (where, _), word, label in zip(stories, words, labels):
            if label is None:
                raise InputError(f'{where}: AnswerRightEnding is {word[:20]!r}, expected 1 or 2')
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
    train, valid = _split(stories, n_valid, SPLIT_SEED, path)
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
                (0, 5_732, 5_740): "QNLI version 1, the paper's; GLUE scores version 2 now",
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
    for folder in ('data/', os.path.join(HERE, 'data/')):
        if not os.path.isdir(folder):
            continue
        if _is_there(name, folder):
            return folder, False
        unknown = unrecognized_files(folder, name)
        if unknown:
            more = f' and {len(unknown) - 5:,} more' if len(unknown) > 5 else ''
            raise InputError(
                f'{folder} has files that are not recognized: {_quoted(unknown[:5])}{more}; '
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
    folders = [data_dir] if data_dir else ['data/', os.path.join(HERE, 'data/')]
    for folder in filter(os.path.isdir, folders):
        for place in (*_folders(folder, DPRD_FOLDERS), folder):
            path = _first_file(place, DPRD_FILES[1:])
            if path:
                return path, _is_sample(place)
    path = os.path.join(SAMPLE, 'DPRD', DPRD_FILES[1])
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
    """Whether `folder` has any file of a data set. If some are missing, reading it says which."""
    if name == 'rocstories':
        return any(map(CLOZE_NAME.fullmatch, _list_folder(folder)))
    task = TASKS[name]
    if any(_list_folder(place) for place in _folders(folder, task.archive.folders)):
        return True
    if name == 'race' and _race_home(task, folder):
        return True
    return any(_first_file(folder, task.archive.names(split)) for split in task.archive.splits)


def unrecognized_files(folder: str, name: str) -> list[str]:
    """Files in `folder` that look like data but are not read by any task.

    Archives of this task that are not unpacked count too.
    """
    known = {*MRPC_SOURCE, *DPRD_FILES, 'mrpc_dev_ids.tsv', 'AX.tsv', 'diagnostic.tsv'}
    for task in TASKS.values():
        known.update(*map(task.archive.names, task.archive.splits))
    stems = ['cloze', 'rocstories']
    if name != 'rocstories':
        stems = [_plain(folder) for folder in TASKS[name].archive.folders]
    unknown = []
    for file in _list_folder(folder):
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
    path = os.path.join(HERE, 'data', 'sample_tasks.py')
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
    return home is not None and all(_first_file(home, archive.names(s)) for s in archive.splits)


# ------------------------------------------------------------------------------- your own data

OWN_ENDINGS = ('.csv', '.tsv', '.jsonl')
OWN_COLUMNS = (
    'text and label; or text1, text2 and label; or context, choice1, choice2, ... and label'
)


class _OwnRow(NamedTuple):
    where: str  # file and row, for messages
    id: str
    texts: tuple[str, ...]
    label: str  # as it is written; empty: none


def _records(path: str, notes: list[str] | None) -> Iterator[tuple[int, dict]]:
    """Yield (row number from 1, column -> value) of a .csv, .tsv or .jsonl file."""
    lower = path.lower()
    if lower.endswith('.jsonl'):
        for number, line in read_lines(path):
            yield number, _parse_json(line, path, number)
        return
    if lower.endswith('.tsv'):  # no quoting: a quotation mark is a character
        rows = ((number, line.split('\t')) for number, line in read_lines(path))
    elif lower.endswith('.csv'):
        rows = read_csv(path, notes)
    else:
        raise InputError(f'{path}: expected a file that ends with {", ".join(OWN_ENDINGS)}')
    first = next(rows, None)
    if first is None:
        raise InputError(f'{path} is empty: expected a header and rows')
    header = [name.strip() for name in first[1]]
    twice = [name for name, n in Counter(header).items() if n > 1 and name]
    if twice:
        raise InputError(f'{path}, row {first[0]}: the column {twice[0]!r} is there twice')
    for number, cells in rows:
        where = f'{path}, row {number}'
        if lower.endswith('.tsv') and len(cells) > len(header):
            raise InputError(f'{where}: {len(cells)} fields, expected {len(header)}')
        yield number, dict(zip(header, _cells(where, cells, header)))


class _Columns(NamedTuple):
    layout: str  # 'text', 'pair' or 'choices'
    texts: tuple[str, ...]  # columns
    label: str | None
    id: str | None


def _own_columns(names: Iterable[str], where: str, may_have_more: bool) -> _Columns:
    """Find the layout from the names of the columns. Raises InputError for unknown columns."""
    found = {name.strip().lower(): name for name in names}
    choices = sorted(
        (name for name in found if re.fullmatch(r'choice[1-9][0-9]{0,3}', name)),
        key=lambda name: int(name.removeprefix('choice')),
    )
    if 'context' in found and len(choices) >= 2:
        layout, texts = 'choices', ['context', *choices]
        missing = [f'choice{i + 1}' for i, name in enumerate(choices) if name != f'choice{i + 1}']
    else:
        layout = 'text' if 'text' in found else 'pair'
        texts = ['text'] if 'text' in found else ['text1', 'text2']
        missing = [name for name in texts if name not in found]
    others = set(found) - {*texts, 'label', 'id', 'index', ''}
    others = [name for name in others if not re.fullmatch(r'unnamed: ?\d+', name)]  # of pandas
    if missing or (others and not may_have_more):
        problem = f'no column {missing[0]!r}' if missing else f'unknown column {min(others)!r}'
        there = ', '.join(map(str, names))
        raise InputError(f'{where}: {problem} (found: {there[:200]}); expected {OWN_COLUMNS}')
    key = 'id' if 'id' in found else 'index'
    return _Columns(
        layout, tuple(found[name] for name in texts), found.get('label'), found.get(key)
    )


def _own_label(value) -> str:
    """A label in its normal form: without superfluous spaces, and '1' for '1.0'."""
    if value is None:
        return ''
    word = value if isinstance(value, str) else json.dumps(value)
    return _whole_number(' '.join(word.split()))


def _read_own(
    path: str, may_have_more: bool = False, notes: list[str] | None = None
) -> tuple[str, list[_OwnRow]]:
    """The layout and the rows of one file of your own. Raises InputError with file and row."""
    known = {}  # names of columns -> _Columns; in .jsonl, they can differ from row to row
    layout = None
    rows = []
    for number, record in _records(path, notes):
        where = f'{path}, row {number}'
        names = tuple(record)
        if names not in known:
            header = f'{path}, row 1' if path.lower().endswith(('.csv', '.tsv')) else where
            known[names] = _own_columns(names, header, may_have_more)
        columns = known[names]
        if columns.layout != (layout or columns.layout):
            raise InputError(f'{where}: other columns than in the rows before')
        layout = columns.layout
        texts = [
            '' if record[key] is None else _json_text(record[key], where, key)
            for key in columns.texts
        ]
        if layout == 'choices':  # rows may have fewer choices than there are columns
            while len(texts) > 3 and not texts[-1].strip():
                texts.pop()
        empty = [key for key, text in zip(columns.texts, texts) if not text.strip()]
        if empty:
            raise InputError(f'{where}: {empty[0]} is empty')
        label = _own_label(record[columns.label]) if columns.label else ''
        name = str(record[columns.id]) if columns.id else str(len(rows))
        rows.append(_OwnRow(where, name, tuple(texts), label))
    if not rows:
        raise InputError(f'{path} has no rows below the header')
    return layout, rows


def _own_examples(task: Task, rows: list[_OwnRow], need_labels: bool) -> list[Example]:
    """Rows to examples with the labels of `task`. Raises InputError with file and row."""
    ids = {name: i for i, name in enumerate(task.labels or ())}
    if not need_labels and not any(row.label for row in rows):
        return [Example(row.id, row.texts, None) for row in rows]
    examples = []
    for row in rows:
        if task.regression:
            label = _score(row.label)
            expected = 'a number'
        elif task.layout == 'choices':
            n = len(row.texts) - 1
            label = {str(i + 1): i for i in range(n)}.get(row.label)
            expected = f'the number of the right choice, 1 to {n}'
        else:
            label = ids.get(row.label)
            some = ', '.join(task.labels[:10]) + (', ...' if len(task.labels) > 10 else '')
            expected = f'a class of the training data: {some}'
        if label is None:
            raise InputError(f'{row.where}: the label is {row.label[:40]!r}, expected {expected}')
        examples.append(Example(row.id, row.texts, label))
    return examples


def _own_file(data_dir: str, split: str) -> str | None:
    """Path of train, valid or test in `data_dir`; None if there is none."""
    names = [
        name
        for name in _list_folder(data_dir)
        if os.path.splitext(name.lower())[0] == split and name.lower().endswith(OWN_ENDINGS)
    ]
    if len(names) > 1:
        raise InputError(f'{data_dir} has {_quoted(names)}: keep one of them')
    return os.path.join(data_dir, names[0]) if names else None


def _own_files(data_dir: str) -> dict[str, str | None]:
    """The paths of train, valid and test. Raises InputError if there is no train."""
    _check_folder(data_dir)
    paths = {split: _own_file(data_dir, split) for split in ('train', 'valid', 'test')}
    if paths['train'] is None:
        raise InputError(
            f'{data_dir} has no train.csv, train.tsv or train.jsonl; its columns: {OWN_COLUMNS}'
        )
    for split in ('dev', 'val', 'validation'):
        if paths['valid'] is None and _own_file(data_dir, split):
            raise InputError(f'{_own_file(data_dir, split)}: rename it to valid')
    return paths


def custom_task(
    data_dir: str,
    regression: bool = False,
    symmetric: bool = False,
    n_valid: int | None = None,
    seed: int = SPLIT_SEED,
) -> tuple[Task, Data]:
    """Your own data: `train` and, if they are there, `valid` and `test`, as .csv, .tsv or .jsonl.

    The columns say what the task is: text; text1, text2 (with `symmetric` a similarity); or
    context, choice1, ..., choiceN; and label: a class, the number of a choice from 1, or with
    `regression` a number. Without `valid`, `n_valid` examples, or 10 %, are set aside, each class
    in proportion. Raises InputError in one line, with file and row.
    """
    paths = _own_files(data_dir)
    data = Data(sources=[path for path in paths.values() if path])
    rows = {}
    layouts = {}
    for split, path in paths.items():
        if path:
            layouts[split], rows[split] = _read_own(path, notes=data.notes)
            if layouts[split] != layouts['train']:
                raise InputError(f'{path}: other columns than in {paths["train"]}')
    task = _own_task(paths['train'], layouts['train'], rows['train'], regression, symmetric)
    data.train = _own_examples(task, rows['train'], need_labels=True)
    if 'test' in rows:
        data.test['test'] = _own_examples(task, rows['test'], need_labels=False)
    if 'valid' in rows:
        data.valid['valid'] = _own_examples(task, rows['valid'], need_labels=True)
        if n_valid is not None:
            data.notes.append(f'n_valid is not used: {paths["valid"]} is the validation set')
    else:
        data.train, data.valid['valid'] = _own_split(
            task, data.train, n_valid, seed, paths['train']
        )
        data.notes.append(f'no valid file: {len(data.valid["valid"]):,} examples are set aside')
    if regression:
        labels = np.array([example.label for example in data.train])
        if np.ptp(labels) == 0:
            raise InputError(f'{paths["train"]}: every label is {labels[0]:g}: nothing to learn')
        task = replace(task, mean=float(labels.mean()), std=float(labels.std()))
    return task, data


def _own_task(
    path: str, layout: str, rows: list[_OwnRow], regression: bool, symmetric: bool
) -> Task:
    """Make the task from the columns and labels of the training file."""
    if symmetric and layout != 'pair':
        raise InputError(f'{path}: --symmetric needs the columns text1 and text2')
    if regression and layout == 'choices':
        raise InputError(f'{path}: --regression needs the columns text, or text1 and text2')
    labels = None
    metrics = ('accuracy',)
    if regression:
        metrics = ('pearson', 'spearman')
    elif layout != 'choices':
        unlabelled = [row.where for row in rows if not row.label]
        if unlabelled:
            raise InputError(f'{unlabelled[0]}: no label')
        labels = {row.label for row in rows}
        if len(labels) < 2:
            raise InputError(
                f'{path}: every label is {labels.pop()!r}, expected two classes or more'
            )
        scores = {label: _score(label) for label in labels}
        by_number = None not in scores.values()
        labels = tuple(sorted(labels, key=lambda x: (scores[x], x) if by_number else x))
        if len(labels) == 2:
            metrics = ('accuracy', 'f1')
    return Task(
        name='custom',
        title='Custom',
        layout='similarity' if symmetric else layout,
        labels=labels,
        metrics=metrics,
        submission={'test': 'custom.tsv'},
        first_label='1' if layout == 'choices' else None,
        regression=regression,
    )


def _own_split(
    task: Task, examples: list[Example], n_valid: int | None, seed: int, path: str
) -> tuple[list[Example], list[Example]]:
    """Training and validation examples; of classes, in proportion (stratified).

    A class with a single example stays in training.
    """
    n_classes = len(task.labels or [None])
    if n_valid is None:
        n_valid = max(math.ceil(len(examples) / 10), n_classes)
    if task.labels is None:
        return _split(examples, n_valid, seed, path)
    from sklearn.model_selection import train_test_split

    counts = Counter(example.label for example in examples)
    single = [example for example in examples if counts[example.label] == 1]
    others = [example for example in examples if counts[example.label] > 1]
    n_classes -= len(single)
    if not n_classes or not n_classes <= n_valid <= len(others) - n_classes:
        raise InputError(
            f'{path} has {len(examples):,} examples of {len(task.labels)} classes: cannot set '
            f'{n_valid:,} aside for validation (--n_valid) with one of each class in both parts'
        )
    train, valid = train_test_split(
        others, test_size=n_valid, random_state=seed, stratify=[e.label for e in others]
    )
    return single + train, valid


def read_data(
    name: str,
    data_dir: str,
    n_valid: int | None = None,
    seed: int = SPLIT_SEED,
    regression: bool = False,
    symmetric: bool = False,
) -> tuple[Task, Data]:
    """Read the data set `name`, a key of `TASKS` or 'custom'. Raises InputError."""
    if name == 'custom':
        return custom_task(data_dir, regression, symmetric, n_valid, seed)
    return TASKS[name], TASKS[name].read(data_dir, n_valid)


def source_files(name: str, data_dir: str) -> list[str]:
    """The files that `read_data` reads, found without reading them.

    Empty for tasks whose data set is always small. Raises InputError if files are missing.
    """
    if name == 'custom':
        return [path for path in _own_files(data_dir).values() if path]
    _check_folder(data_dir)
    task = TASKS[name]
    if task.finder is not None:
        return task.finder(task, data_dir)
    if task.reader is not None:
        return []
    return [path for path in _official_files(task, data_dir)[1].values() if path]


def read_examples(path: str, task: Task) -> list[Example]:
    """Read a file to predict: in the task's own format, or the columns of your own data.

    Labels may be missing: then they are None. No row is left out. For RACE, `path` may be a folder
    of passages. Raises InputError.
    """
    if task.name == 'rocstories':
        return read_cloze_test(path, need_labels=False)
    if task.name == 'race':
        read = _read_race_folder if os.path.isdir(path) else read_race_file
        examples = read(path, need_labels=False)
        if not examples:
            raise InputError(
                f'{path} has no passages with questions: expected a passage of RACE, or a folder '
                'of files 1.txt, 2.txt, ...'
            )
        return examples
    if task.name != 'custom':
        return read_table(path, task, need_labels=False)
    layout, rows = _read_own(path, may_have_more=True)
    expected = 'pair' if task.layout == 'similarity' else task.layout
    if layout != expected:
        raise InputError(f'{path}: other columns than those of the training data ({expected})')
    return _own_examples(task, rows, need_labels=False)


# ---------------------------------------------------------- targets, predictions, metrics, files


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


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(np.asarray(labels) == np.asarray(predictions)))


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Of class 1, as GLUE has it."""
    from sklearn.metrics import f1_score

    return f1_score(np.asarray(labels) == 1, np.asarray(predictions) == 1, zero_division=0)


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
    return lambda labels, predictions: 100 * float(function(*args, labels, predictions))


# name -> function of labels [examples] and predictions [examples] of `decode`, all known
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    'accuracy': _metric(_accuracy),
    'f1': _metric(_f1),
    'matthews': _metric(_matthews),
    'pearson': _metric(_correlation, 'pearsonr'),
    'spearman': _metric(_correlation, 'spearmanr'),
}


def write_submission(f: IO[str], task: Task, predictions: Iterable) -> None:
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
