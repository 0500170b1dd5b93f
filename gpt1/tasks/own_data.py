"""Your own data: `--dataset custom`."""

import json
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
    cells_under,
    check_folder,
    check_no_header,
    check_once,
    json_text,
    list_folder,
    parse_json,
    parse_number,
    quoted,
    read_csv,
    read_lines,
    read_tabs,
    refuse,
    whole_number,
)
from gpt1.tasks.readers import split_examples
from gpt1.tasks.task import MAX_CLASSES, SPLIT_SEED, Data, Example, Task
from utils import InputError

OWN_ENDINGS = ('.csv', '.tsv', '.jsonl')
OWN_COLUMNS = (
    'text and label; or text1, text2 and label; or context, choice1, choice2, ... and label'
)
UNKNOWN = '-1'  # a label that is not known, in GLUE and SNLI from Hugging Face
PERHAPS_MISSING = ('none', 'null', 'na', 'n/a', '#n/a', '<na>', '?', '-')


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
            yield number, parse_json(line, path, number)
        return
    if lower.endswith('.tsv'):
        rows = read_tabs(path, notes)
    elif lower.endswith('.csv'):
        rows = read_csv(path, notes)
    else:
        raise InputError(f'{path}: expected a file that ends with {", ".join(OWN_ENDINGS)}')
    first = next(rows, None)
    if first is None:
        raise InputError(f'{path} is empty: expected a header and rows')
    header = [name.strip() for name in first[1]]
    check_once(f'{path}, row {first[0]}', header, filter(None, header))
    for number, cells in rows:
        where = f'{path}, row {number}'
        check_no_header(where, cells, header)
        if lower.endswith('.tsv') and len(cells) > len(header):
            raise InputError(f'{where}: {len(cells)} fields, expected {len(header)}')
        yield number, dict(zip(header, cells_under(where, cells, header)))


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


def _own_label(value, where: str) -> str:
    """A label in its normal form: without superfluous spaces, and '1' for '1.0'.

    '' where there is none: null and NaN too. Raises InputError for what is no label.
    """
    if value is None:
        return ''
    if isinstance(value, (list, dict)) or value in (math.inf, -math.inf):
        raise InputError(
            f'{where}: the label is {json.dumps(value)[:40]}, expected a word, a number, true or '
            'false'
        )
    word = value if isinstance(value, str) else json.dumps(value)
    word = whole_number(' '.join(word.split()))
    return '' if word.lower() == 'nan' else word


def _read_own(
    path: str,
    layout: str | None = None,
    notes: list[str] | None = None,
    warnings: list[str] | None = None,
) -> tuple[str, list[_OwnRow]]:
    """The layout and the rows of one file of your own. Raises InputError with file and row.

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
            header = f'{path}, row 1' if path.lower().endswith(('.csv', '.tsv')) else where
            known[names] = _own_columns(names, header, layout)
        columns = known[names]
        if columns.layout != (found or columns.layout):
            raise InputError(f'{where}: other columns than in the rows before')
        found = columns.layout
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
        label = _own_label(record[columns.label], where) if columns.label else ''
        name = str(record[columns.id]) if columns.id else str(len(rows))
        rows.append(_OwnRow(where, name, tuple(texts), label))
    if not rows:
        raise InputError(f'{path} has no rows below the header')
    return found, rows


def _own_examples(
    task: Task, rows: list[_OwnRow], need_labels: bool, warnings: list[str] | None = None
) -> list[Example]:
    """Rows to examples with the labels of `task`. Raises InputError with file and row.

    warnings  a list for labels that are not the task's, which are then no errors but None
    """
    ids = {name: i for i, name in enumerate(task.labels or ())}
    if not need_labels and not any(row.label for row in rows):
        return [Example(row.id, row.texts, None) for row in rows]
    examples = []
    for row in rows:
        if task.regression:
            label = parse_number(row.label)
            expected = 'a number'
        elif task.layout == 'choices':
            n = len(row.texts) - 1
            label = {str(i + 1): i for i in range(n)}.get(row.label)
            expected = f'the number of the right choice, 1 to {n}'
        else:
            label = ids.get(row.label)
            some = ', '.join(task.labels[:10]) + (', ...' if len(task.labels) > 10 else '')
            expected = f'a class of the training data: {some}'
        is_missing = warnings is not None and row.label in ('', UNKNOWN)
        if label is None and not is_missing:
            refuse(f'{row.where}: the label is {row.label[:40]!r}, expected {expected}', warnings)
        examples.append(Example(row.id, row.texts, label))
    return examples


def _own_file(data_dir: str, split: str) -> str | None:
    """Path of train, valid or test in `data_dir`; None if there is none."""
    names = [
        name
        for name in list_folder(data_dir)
        if os.path.splitext(name.lower())[0] == split and name.lower().endswith(OWN_ENDINGS)
    ]
    if len(names) > 1:
        raise InputError(f'{data_dir} has {quoted(names)}: keep one of them')
    return os.path.join(data_dir, names[0]) if names else None


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


def custom_task(
    data_dir: str,
    regression: bool = False,
    symmetric: bool = False,
    n_valid: int | None = None,
    seed: int = SPLIT_SEED,
    positive: str | None = None,
) -> tuple[Task, Data]:
    """Your own data: `train` and, if they are there, `valid` and `test`, as .csv, .tsv or .jsonl.

    The columns say what the task is: text; text1, text2 (with `symmetric` a similarity); or
    context, choice1, ..., choiceN; and label: a class, the number of a choice from 1, or with
    `regression` a number. Without `valid`, `n_valid` examples, or 10 %, are set aside, each class
    in proportion. F1 is that of the class `positive`. Raises InputError in one line, with file and
    row.
    """
    paths = own_files(data_dir)
    data = Data(sources=[path for path in paths.values() if path])
    rows = {}
    layouts = {}
    for split, path in paths.items():
        if path:
            layouts[split], rows[split] = _read_own(path, notes=data.notes)
            if layouts[split] != layouts['train']:
                raise InputError(f'{path}: other columns than in {paths["train"]}')
    if not regression and _has_unknown(rows['train'], layouts['train']):
        rows = {split: _known(paths[split], split, rows[split], data.notes) for split in rows}
    task = _own_task(paths['train'], layouts['train'], rows['train'], regression, symmetric)
    if task.labels is not None:
        data.notes += _describe_classes(paths['train'], rows['train'], task.labels)
    data.train = _own_examples(task, rows['train'], need_labels=True)
    task = _with_f1(task, data, positive, paths['train'])
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


def _has_unknown(rows: list[_OwnRow], layout: str) -> bool:
    """Whether a label of -1 says that it is not known: the classes are 0, 1, ... and it is rare."""
    counts = Counter(row.label for row in rows)
    n = counts.pop(UNKNOWN, 0)
    if layout == 'choices' or n == 0:
        return True
    is_numbered = len(counts) > 1 and counts.keys() == {str(i) for i in range(len(counts))}
    return is_numbered and 4 * n <= min(counts.values())


def _known(path: str, split: str, rows: list[_OwnRow], notes: list[str]) -> list[_OwnRow]:
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


def _describe_classes(path: str, rows: list[_OwnRow], labels: Sequence[str]) -> list[str]:
    """The classes with their numbers of rows, and warnings about those that may be a mistake."""
    counts = Counter(row.label for row in rows)
    shown = ', '.join(f'{label} {counts[label]:,}' for label in labels[:20])
    notes = [f'{path}: {len(labels):,} classes: {shown}' + (', ...' if len(labels) > 20 else '')]
    alike = {}
    for label in labels:
        visible = [
            c for c in unicodedata.normalize('NFKC', label) if unicodedata.category(c) != 'Cf'
        ]
        alike.setdefault(''.join(visible).casefold(), []).append(label)
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
        if len(labels) > MAX_CLASSES:
            raise InputError(
                f'{path} has {len(labels):,} classes, expected at most {MAX_CLASSES:,}; for '
                'numbers, add --regression'
            )
        scores = {label: parse_number(label) for label in labels}
        by_number = None not in scores.values()
        labels = tuple(sorted(labels, key=lambda x: (scores[x], x) if by_number else x))
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


def _with_f1(task: Task, data: Data, positive: str | None, path: str) -> Task:
    """Add F1 to a task of classes: of `positive`, else of the rarer of two, else of all (macro)."""
    labels = task.labels or ()
    if positive is not None and _own_label(positive, '--positive') not in labels:
        there = f'has the classes {quoted(labels[:10])}' if labels else 'has no classes'
        raise InputError(f'--positive {positive[:40]!r}: {path} {there}')
    if not labels:
        return task
    if positive is not None:
        chosen = labels.index(_own_label(positive, '--positive'))
    elif len(labels) > 2:
        chosen = None
    else:
        n_examples = np.bincount([example.label for example in data.train], minlength=2)
        chosen = 0 if n_examples[0] < n_examples[1] else 1
        data.notes.append(f'F1 is that of {labels[chosen]!r}; --positive chooses another class')
    return replace(task, metrics=('accuracy', 'f1'), positive=chosen)


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


def read_new(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """Rows to predict, with the columns of the training data. Raises InputError.

    warnings  a list for empty texts and unknown labels, which are then no errors
    """
    layout = 'pair' if task.layout == 'similarity' else task.layout
    _, rows = _read_own(path, layout, warnings, warnings)
    return _own_examples(task, rows, False, warnings)
