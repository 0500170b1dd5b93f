"""Your own data: `--dataset custom`."""

import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gpt1.tasks.data_files import (
    by_column,
    check_folder,
    check_once,
    json_records,
    json_text,
    label_word,
    list_folder,
    parse_number,
    quoted,
    read_csv,
    read_lines,
    read_tabs,
    refuse,
)
from gpt1.tasks.readers import Row, make_examples, part_of, split_examples
from gpt1.tasks.task import MAX_CLASSES, SPLIT_SEED, Data, Example, Task
from utils import InputError

OWN_ENDINGS = ('.csv', '.tsv', '.jsonl')
OWN_COLUMNS = (
    'text and label; or text1, text2 and label; or context, choice1, choice2, ... and label'
)
UNKNOWN = '-1'  # a label that is not known, in GLUE and SNLI from Hugging Face
PERHAPS_MISSING = ('none', 'null', 'na', 'n/a', '#n/a', '<na>', '?', '-')


def own_files(data_dir: str) -> dict[str, str | None]:
    """The paths of train, valid and test. Raises InputError if there is no train."""
    check_folder(data_dir)
    paths = {split: _own_file(data_dir, split) for split in ('train', 'valid', 'test')}
    if paths['train'] is None:
        raise InputError(
            f'{data_dir} has no train.csv, train.tsv or train.jsonl; its columns: {OWN_COLUMNS}'
        )
    for split in ('dev', 'val', 'validation'):
        if paths['valid'] is None and _own_file(data_dir, split):
            raise InputError(f'{_own_file(data_dir, split)}: rename it to valid')
    return paths


def _own_file(data_dir: str, split: str) -> str | None:
    wanted = [split + ending for ending in OWN_ENDINGS]
    names = [name for name in list_folder(data_dir) if name.lower() in wanted]
    if len(names) > 1:
        raise InputError(f'{data_dir} has {quoted(names)}: keep one of them')
    return os.path.join(data_dir, names[0]) if names else None


def _records(path: str, notes: list[str] | None) -> Iterator[tuple[int, dict]]:
    """(row number from 1, column -> value) of a .csv, .tsv or .jsonl file."""
    lower = path.lower()
    if lower.endswith('.jsonl'):
        return json_records(path, read_lines(path))
    if not lower.endswith(OWN_ENDINGS):
        raise InputError(f'{path}: expected a file that ends with {", ".join(OWN_ENDINGS)}')
    return by_column(path, (read_tabs if lower.endswith('.tsv') else read_csv)(path, notes))


class _Columns(NamedTuple):
    layout: str  # 'text', 'pair' or 'choices'
    texts: tuple[str, ...]  # columns
    label: str | None
    id: str | None


def _own_columns(names: Sequence[str], where: str, layout: str | None = None) -> _Columns:
    """Find the columns of a layout; None: find that too, and accept no other columns.

    Raises InputError.
    """
    plain = [name.strip().lower() for name in names]
    found = dict(zip(plain, names))
    n_choices = sum(re.fullmatch(r'choice[1-9][0-9]{0,3}', name) is not None for name in found)
    is_new = layout is not None
    if layout is None:
        layout = 'text' if 'text' in found else 'pair'
        if 'context' in found and n_choices >= 2:
            layout = 'choices'
    texts = {'text': ['text'], 'pair': ['text1', 'text2']}.get(layout)
    if texts is None:
        texts = ['context', *(f'choice{i + 1}' for i in range(max(2, n_choices)))]
    missing = [name for name in texts if name not in found]
    others = set(found) - {*texts, 'label', 'id', 'index', ''}
    others = [name for name in others if not re.fullmatch(r'unnamed: ?\d+', name)]  # of pandas
    if missing or (others and not is_new):
        problem = f'no column {missing[0]!r}' if missing else f'unknown column {min(others)!r}'
        expected = f'{", ".join(texts)}, as in training' if is_new else OWN_COLUMNS
        raise InputError(
            f'{where}: {problem} (found: {", ".join(names)[:200]}); expected {expected}'
        )
    check_once(where, plain, [*texts, 'label', 'id'])
    key = 'id' if 'id' in found else 'index'
    return _Columns(
        layout, tuple(found[name] for name in texts), found.get('label'), found.get(key)
    )


def read_own(
    path: str,
    layout: str | None = None,
    notes: list[str] | None = None,
    warnings: list[str] | None = None,
) -> tuple[str, list[Row]]:
    """The layout and the rows of one file of your own. Raises InputError with file and row.

    A row without an id has its number in the file, as editors and spreadsheets show it.

    layout    that of the model, for a file to predict: other columns do not matter
    warnings  a list for rows with an empty text, which is then no error
    """
    known = {}  # names of columns -> _Columns; in .jsonl, they can differ from row to row
    found = None
    rows = []
    for number, record in _records(path, notes):
        where = f'{path}, row {number}'
        names = tuple(record)
        if names not in known:
            header = where if path.lower().endswith('.jsonl') else f'{path}, row 1'
            known[names] = _own_columns(names, header, layout)
        columns = known[names]
        found = found or columns.layout
        if columns.layout != found:
            raise InputError(f'{where}: other columns than in the rows before')
        texts = [
            '' if record[key] is None else json_text(record[key], where, key)
            for key in columns.texts
        ]
        if found == 'choices':  # rows may have fewer choices than there are columns
            while len(texts) > 3 and not texts[-1].strip():
                texts.pop()
        empty = [key for key, text in zip(columns.texts, texts) if not text.strip()]
        if empty:
            refuse(f'{where}: {empty[0]} is empty', warnings)
        label = label_word(record[columns.label], where) if columns.label else ''
        name = str(record[columns.id]) if columns.id else str(number)
        rows.append(Row(where, name, tuple(texts), label))
    if not rows:
        raise InputError(f'{path} has no rows below the header')
    return found, rows


def own_examples(
    task: Task, rows: list[Row], need_labels: bool, warnings: list[str] | None = None
) -> list[Example]:
    """Rows to examples with the labels of `task`. Raises InputError with file and row.

    warnings  a list for labels that are not the task's, which are then no errors but None
    """
    ids = {name: i for i, name in enumerate(task.labels or ())}
    numbers = {str(i + 1): i for i in range(max(len(row.texts) for row in rows) - 1)}

    def parse(row: Row) -> int | float | None:
        if task.regression:
            return parse_number(row.label)
        if task.layout != 'choices':
            return ids.get(row.label)
        label = numbers.get(row.label)
        return label if label is not None and label < len(row.texts) - 1 else None

    def expected(row: Row) -> str:
        if task.regression:
            return 'a number'
        if task.layout == 'choices':
            return f'the number of the right choice, 1 to {len(row.texts) - 1}'
        some = ', '.join(task.labels[:10]) + (', ...' if len(task.labels) > 10 else '')
        return f'a class of the training data: {some}'

    return make_examples(rows, parse, expected, need_labels, UNKNOWN, warnings)


def read_new(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """Rows to predict, with the columns of the training data. Raises InputError.

    warnings  a list for empty texts and unknown labels, which are then no errors
    """
    layout = 'pair' if task.layout == 'similarity' else task.layout
    _, rows = read_own(path, layout, warnings, warnings)
    return own_examples(task, rows, False, warnings)


# -------------------------------------------------------------------------------- the data set


def custom_task(
    data_dir: str,
    regression: bool = False,
    symmetric: bool = False,
    positive: str | None = None,
    metric: str | None = None,
    n_valid: int | None = None,
    seed: int = SPLIT_SEED,
    n_train: int | None = None,
) -> tuple[Task, Data]:
    """Your own data: `train` and, if they are there, `valid` and `test`, as .csv, .tsv or .jsonl.

    The columns say what the task is: text; text1, text2 (with `symmetric` a similarity); or
    context, choice1, ..., choiceN; and label: a class, the number of a choice from 1, or with
    `regression` a number. Without `valid`, `n_valid` examples, or 10 %, are set aside, each class
    in proportion. `metric` selects the best parameters. F1 is that of the class `positive`.
    Raises InputError in one line, with file and row.
    """
    paths = {split: path for split, path in own_files(data_dir).items() if path}
    data = Data(sources=list(paths.values()))
    layout, rows = _read_splits(paths, regression, data.notes)
    train = paths['train']
    task = _own_task(train, layout, rows['train'], regression, symmetric)
    data.train = own_examples(task, rows['train'], need_labels=True)
    if task.labels is not None:
        data.notes += _describe_classes(train, rows['train'], task.labels)
    task = _with_metrics(task, data, metric, positive, train)
    if 'test' in rows:
        data.test['test'] = own_examples(task, rows['test'], need_labels=False)
    if 'valid' in rows:
        data.valid['valid'] = own_examples(task, rows['valid'], need_labels=True)
        if n_valid is not None:
            data.notes.append(f'n_valid is not used: {paths["valid"]} is the validation set')
    else:
        data.train, data.valid['valid'] = _own_split(task, data.train, n_valid, seed, train)
        data.notes.append(f'no valid file: {len(data.valid["valid"]):,} examples are set aside')
    part_of(data, n_train, seed)
    if regression:
        labels = np.array([example.label for example in data.train])
        if np.ptp(labels) == 0:
            raise InputError(f'{train}: every label is {labels[0]:g}: nothing to learn')
        task = replace(task, mean=float(labels.mean()), std=float(labels.std()))
    return task, data


def _read_splits(
    paths: dict[str, str], regression: bool, notes: list[str]
) -> tuple[str, dict[str, list[Row]]]:
    """The layout and the rows of each file. Ids that are rows name their file if it has others."""
    read = {split: read_own(path, notes=notes) for split, path in paths.items()}
    layout = read['train'][0]
    other = [path for split, path in paths.items() if read[split][0] != layout]
    if other:
        raise InputError(f'{other[0]}: other columns than in {paths["train"]}')
    rows = {split: found for split, (_, found) in read.items()}
    if len(paths) > 1:
        for split, path in paths.items():
            file = os.path.basename(path)
            rows[split] = [
                row._replace(id=f'{file}:{row.id}') if row.where == f'{path}, row {row.id}' else row
                for row in rows[split]
            ]
    if not regression and _has_unknown(rows['train'], layout):
        rows = {split: _known(paths[split], split, rows[split], notes) for split in rows}
    return layout, rows


def _has_unknown(rows: list[Row], layout: str) -> bool:
    """Whether a label of -1 says that it is not known: the classes are 0, 1, ... and it is rare."""
    counts = Counter(row.label for row in rows)
    n = counts.pop(UNKNOWN, 0)
    if layout == 'choices' or n == 0:
        return True
    is_numbered = len(counts) > 1 and counts.keys() == {str(i) for i in range(len(counts))}
    return is_numbered and 4 * n <= min(counts.values())


def _known(path: str, split: str, rows: list[Row], notes: list[str]) -> list[Row]:
    """The rows whose label is known; all of them, without labels, of a test set that has none."""
    known = [row for row in rows if row.label != UNKNOWN]
    if split == 'test' and not any(row.label for row in known):
        return [row._replace(label='') for row in rows]
    if not known:
        raise InputError(f'{path}: every label is {UNKNOWN}, which is no label')
    if len(known) < len(rows):
        notes.append(
            f'{path}: {len(rows) - len(known):,} rows with the label {UNKNOWN}, not known, are '
            'left out; if that is a class, write it as a word'
        )
    return known


def _own_task(path: str, layout: str, rows: list[Row], regression: bool, symmetric: bool) -> Task:
    """Make the task from the columns and labels of the training file."""
    if symmetric and layout != 'pair':
        raise InputError(f'{path}: --symmetric needs the columns text1 and text2')
    if regression and layout == 'choices':
        raise InputError(f'{path}: --regression needs the columns text, or text1 and text2')
    return Task(
        name='custom',
        title='Custom',
        layout='similarity' if symmetric else layout,
        labels=None if regression or layout == 'choices' else _classes(path, rows),
        submission={'test': 'custom.tsv'},
        first_label='1' if layout == 'choices' else None,
        regression=regression,
    )


def _classes(path: str, rows: list[Row]) -> tuple[str, ...]:
    """The names of the classes, sorted; as numbers, if all are numbers."""
    unlabelled = [row.where for row in rows if not row.label]
    if unlabelled:
        raise InputError(f'{unlabelled[0]}: no label')
    labels = {row.label for row in rows}
    if len(labels) < 2:
        raise InputError(f'{path}: every label is {labels.pop()!r}, expected two classes or more')
    if len(labels) > MAX_CLASSES:
        raise InputError(
            f'{path} has {len(labels):,} classes, expected at most {MAX_CLASSES:,}; for '
            'numbers, add --regression'
        )
    scores = {label: parse_number(label) for label in labels}
    by_number = None not in scores.values()
    return tuple(sorted(labels, key=lambda label: (scores[label] if by_number else 0, label)))


def _describe_classes(path: str, rows: list[Row], labels: Sequence[str]) -> list[str]:
    """The classes with their numbers of rows, and warnings about those that may be a mistake."""
    counts = Counter(row.label for row in rows)
    shown = ', '.join(f'{label} {counts[label]:,}' for label in labels[:20])
    notes = [f'{path}: {len(labels):,} classes: {shown}' + (', ...' if len(labels) > 20 else '')]
    alike = {}
    for label in labels:
        plain = unicodedata.normalize('NFKC', label).casefold()
        plain = ''.join(c for c in plain if unicodedata.category(c) != 'Cf')
        alike.setdefault(plain, []).append(label)
    for names in alike.values():
        if len(names) > 1:
            notes.append(
                f'warning: {", ".join(map(repr, names))} are {len(names)} classes; they differ '
                'only in case, invisible characters or forms of Unicode'
            )
    for label in labels:
        if label.lower() in PERHAPS_MISSING:
            notes.append(f'warning: {label!r} is a class; leave a label that is missing out')
    numbers = [parse_number(label) for label in labels]
    if None not in numbers and (len(labels) > 20 or any(n % 1 for n in numbers)):
        notes.append(
            f'warning: the {len(labels):,} classes are numbers; if they are amounts or grades, '
            'add --regression'
        )
    return notes


def _with_metrics(
    task: Task, data: Data, metric: str | None, positive: str | None, path: str
) -> Task:
    """The task with its metrics: `metric`, which selects the parameters, and the usual ones.

    F1 is that of the class `positive`, else of the rarer of two, else the mean over all (macro).
    """
    labels = task.labels or ()
    chosen = positive and label_word(positive, '--positive')
    if positive is not None and chosen not in labels:
        there = f'has the classes {quoted(labels[:10])}' if labels else 'has no classes'
        raise InputError(f'--positive {positive[:40]!r}: {path} {there}')
    usual = ('accuracy', 'f1') if labels else ('accuracy',)
    fitting = ('accuracy', 'f1', 'matthews') if labels else usual
    if task.regression:
        usual = fitting = ('pearson', 'spearman')
    if metric not in (None, *fitting):
        kind = 'classes' if labels else 'numbers' if task.regression else 'choices'
        raise InputError(
            f'--metric {metric}: the labels of {path} are {kind}; expected one of '
            f'{", ".join(fitting)}'
        )
    metrics = tuple(dict.fromkeys([metric or usual[0], *usual]))
    if not labels:
        return replace(task, metrics=metrics)
    index = None
    if positive is not None:
        index = labels.index(chosen)
    elif len(labels) == 2:
        n_examples = np.bincount([example.label for example in data.train], minlength=2)
        index = 0 if n_examples[0] < n_examples[1] else 1
        data.notes.append(f'F1 is that of {labels[index]!r}; --positive chooses another class')
    return replace(task, metrics=metrics, positive=index)


def _own_split(
    task: Task, examples: list[Example], n_valid: int | None, seed: int, path: str
) -> tuple[list[Example], list[Example]]:
    """Training and validation examples; of classes, in proportion (stratified).

    A class with a single example stays in training.
    """
    n_tenth = math.ceil(len(examples) / 10)
    if task.labels is None:
        return split_examples(examples, n_tenth if n_valid is None else n_valid, seed, path)
    from sklearn.model_selection import train_test_split

    counts = Counter(example.label for example in examples)
    single = [example for example in examples if counts[example.label] == 1]
    others = [example for example in examples if counts[example.label] > 1]
    n_classes = len(counts) - len(single)
    if not n_classes:
        raise InputError(
            f'{path}: every class has a single example: cannot set any aside for validation'
        )
    most = len(others) - n_classes
    if n_valid is None:
        n_valid = min(max(n_tenth, len(counts)), most)
    if not n_classes <= n_valid <= most:
        raise InputError(
            f'{path} has {len(examples):,} examples of {len(counts):,} classes: cannot set '
            f'{n_valid:,} aside for validation (--n_valid) with one of each class in both parts; '
            f'{n_classes:,} to {most:,} can be'
        )
    train, valid = train_test_split(
        others, test_size=n_valid, random_state=seed, stratify=[e.label for e in others]
    )
    return single + train, valid
