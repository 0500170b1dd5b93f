"""Your own data: `--dataset custom`."""

import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gpt1.tasks import data_files as files
from gpt1.tasks.metrics import METRICS
from gpt1.tasks.readers import UNKNOWN, Row, split_examples, to_examples
from gpt1.tasks.task import MAX_CLASSES, SPLIT_SEED, Data, Example, Task
from utils import InputError

OWN_ENDINGS = ('.csv', '.tsv', '.jsonl')
OWN_COLUMNS = (
    'text and label; or text1, text2 and label; or context, choice1, choice2, ... and label'
)
NOT_TEXTS = r'label|id|index|unnamed: ?\d+|'  # the last ones are of pandas
FITTING = {  # metrics that fit the labels; the first one selects, the first two are reported
    'classes': ('accuracy', 'f1', 'matthews'),
    'numbers': ('pearson', 'spearman'),
    'choices': ('accuracy',),
}
PERHAPS_MISSING = ('none', 'null', 'na', 'n/a', '#n/a', '<na>', '?', '-')


def own_files(data_dir: str) -> dict[str, str]:
    """The paths of train and, where they are there, valid and test. Raises InputError."""
    files.check_folder(data_dir)
    paths = {}
    for split in ('train', 'valid', 'test', 'dev', 'val', 'validation'):
        wanted = [split + ending for ending in OWN_ENDINGS]
        names = [name for name in files.list_folder(data_dir) if name.lower() in wanted]
        if len(names) > 1:
            raise InputError(f'{data_dir} has {files.quoted(names)}: keep one of them')
        if names:
            paths[split] = os.path.join(data_dir, names[0])
    if 'train' not in paths:
        raise InputError(
            f'{data_dir} has no train.csv, train.tsv or train.jsonl; its columns: {OWN_COLUMNS}'
        )
    others = [path for split, path in paths.items() if split not in ('train', 'valid', 'test')]
    if others and 'valid' not in paths:
        raise InputError(f'{others[0]}: rename it to valid')
    return {split: path for split, path in paths.items() if path not in others}


def _records(path: str, notes: list[str] | None) -> Iterator[tuple[int, dict]]:
    """(row number from 1, column in lower case -> value) of a .csv, .tsv or .jsonl file."""
    lower = path.lower()
    if lower.endswith('.jsonl'):
        records = files.json_records(path, files.read_lines(path))
    elif lower.endswith(OWN_ENDINGS):
        read = files.read_tabs if lower.endswith('.tsv') else files.read_csv
        records = files.by_column(path, read(path, notes))
    else:
        raise InputError(f'{path}: expected a file that ends with {", ".join(OWN_ENDINGS)}')
    for number, record in records:
        plain = {name.strip().lower(): value for name, value in record.items()}
        if len(plain) < len(record):
            twice = Counter(name.strip().lower() for name in record).most_common(1)[0][0]
            raise InputError(f'{path}, row {number}: the column {twice!r} is there twice')
        yield number, plain


def _text_columns(record: dict, layout: str | None) -> list[str]:
    """The columns of the texts in a layout; None: of the layout that has the columns there are."""
    n_choices = sum(re.fullmatch(r'choice[1-9][0-9]{0,3}', name) is not None for name in record)
    if layout == 'choices' or (layout is None and 'context' in record and n_choices >= 2):
        return ['context', *(f'choice{i + 1}' for i in range(max(2, n_choices)))]
    is_text = layout == 'text' or (layout is None and 'text' in record)
    return ['text'] if is_text else ['text1', 'text2']


def _check_columns(where: str, record: dict, texts: list[str], is_new: bool) -> None:
    """Raise InputError if columns are missing; in training, also if some are not known."""
    missing = [name for name in texts if name not in record]
    others = [name for name in {*record} - {*texts} if not re.fullmatch(NOT_TEXTS, name)]
    if missing or (others and not is_new):
        problem = f'no column {missing[0]!r}' if missing else f'unknown column {min(others)!r}'
        expected = f'{", ".join(texts)}, as in training' if is_new else OWN_COLUMNS
        raise InputError(
            f'{where}: {problem} (found: {", ".join(record)[:200]}); expected {expected}'
        )


def read_own(
    path: str,
    layout: str | None = None,
    notes: list[str] | None = None,
    warnings: list[str] | None = None,
    prefix: str = '',
) -> tuple[str, list[Row]]:
    """The layout and the rows of one file of your own. Raises InputError with file and row.

    layout    that of the model, for a file to predict: other columns do not matter
    warnings  a list for rows with an empty text, which is then no error
    prefix    what stands before the number of a row in the file, if it has no id
    """
    is_new = layout is not None
    rows = []
    for number, record in _records(path, notes):
        where = f'{path}, row {number}'
        columns = _text_columns(record, layout)
        if not rows:
            is_json = path.lower().endswith('.jsonl')
            _check_columns(where if is_json else f'{path}, row 1', record, columns, is_new)
            layout = {1: 'text', 2: 'pair'}.get(len(columns), 'choices')
        texts = [
            '' if record.get(name) is None else files.json_text(record[name], where, name)
            for name in columns
        ]
        while len(texts) > 3 and not texts[-1].strip():
            texts.pop()  # rows may have fewer choices than there are columns
        empty = [name for name, text in zip(columns, texts) if not text.strip()]
        if empty:
            files.refuse(f'{where}: {empty[0]} is empty', warnings)
        name = str(record.get('id', record.get('index', f'{prefix}{number}')))
        label = files.label_word(record.get('label'), where)
        rows.append(Row(where, name, tuple(texts), label))
    if not rows:
        raise InputError(f'{path} has no rows below the header')
    return layout, rows


def read_new(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """Rows to predict, with the columns of the training data; see `datasets.read_examples`."""
    layout = 'pair' if task.layout == 'similarity' else task.layout
    return to_examples(read_own(path, layout, warnings, warnings)[1], task, False, warnings)


def custom_task(
    data_dir: str,
    n_valid: int | None = None,
    seed: int = SPLIT_SEED,
    regression: bool = False,
    symmetric: bool = False,
    positive: str | None = None,
    metric: str | None = None,
) -> tuple[Task, Data]:
    """Your own data: `train` and, if they are there, `valid` and `test`.

    The columns say what the task is. Without `valid`, `n_valid` examples, or 10 %, are set aside,
    each class in proportion. `metric` selects the best parameters. F1 is that of the class
    `positive`. Raises InputError in one line, with file and row.
    """
    paths = own_files(data_dir)
    data = Data(sources=list(paths.values()))
    layout, rows = _read_splits(paths, regression, data.notes)
    train = paths['train']
    if symmetric and layout != 'pair':
        raise InputError(f'{train}: --symmetric needs the columns text1 and text2')
    if regression and layout == 'choices':
        raise InputError(f'{train}: --regression needs the columns text, or text1 and text2')
    has_classes = not regression and layout != 'choices'
    task = own_task(
        layout='similarity' if symmetric else layout,
        labels=_classes(train, rows['train']) if has_classes else None,
        regression=regression,
    )
    data.train = to_examples(rows['train'], task)
    if has_classes:
        data.notes += _describe_classes(train, rows['train'], task.labels)
    task = _with_metrics(task, data, metric, positive, train)
    if 'test' in rows:
        data.test['test'] = to_examples(rows['test'], task, need_labels=False)
    if 'valid' in rows:
        data.valid['valid'] = to_examples(rows['valid'], task)
        if n_valid is not None:
            data.notes.append(f'n_valid is not used: {paths["valid"]} is the validation set')
    else:
        data.train, data.valid['valid'] = _own_split(task, data.train, n_valid, seed, train)
        data.notes.append(f'no valid file: {len(data.valid["valid"]):,} examples are set aside')
    return task, data


def own_task(layout: str, **more) -> Task:
    """A task of your own; `more` are fields of `Task`."""
    return Task(
        name='custom',
        title='Custom',
        layout=layout,
        submission={'test': 'custom.tsv'},
        first_label='1' if layout == 'choices' else None,
        **more,
    )


def kept_own_task(record: dict) -> Task:
    """The task of your own of a `Task.to_dict`. Raises an error of Python if it is damaged."""
    names = ('layout', 'labels', 'metrics', 'regression', 'mean', 'std', 'positive')
    kept = {name: record[name] for name in names if name in record}  # once, without `positive`
    labels, metrics, mean, std = (kept[name] for name in ('labels', 'metrics', 'mean', 'std'))
    kinds = [labels is not None, bool(kept['regression']), kept['layout'] == 'choices']
    if (
        kept['layout'] not in ('text', 'pair', 'similarity', 'choices')
        or sum(kinds) != 1
        or not METRICS.keys() >= {metrics[0], *metrics}
        or not all(isinstance(label, str) for label in labels or ())
        or (labels and kept.get('positive') and not labels[kept['positive']])
        or not (math.isfinite(mean) and 0 < std < math.inf)
    ):
        raise ValueError
    return own_task(**{**kept, 'labels': labels and tuple(labels), 'metrics': tuple(metrics)})


def _read_splits(
    paths: dict[str, str], regression: bool, notes: list[str]
) -> tuple[str, dict[str, list[Row]]]:
    """The layout and the rows of each file; rows without an id name their file if it has others."""
    rows, layout = {}, None
    for split, path in paths.items():
        prefix = f'{os.path.basename(path)}:' if len(paths) > 1 else ''
        found, rows[split] = read_own(path, notes=notes, prefix=prefix)
        layout = layout or found  # that of train
        if found != layout:
            raise InputError(f'{path}: other columns than in {paths["train"]}')
    if not regression:
        _leave_out_unknown(paths, rows, layout, notes)
    return layout, rows


def _leave_out_unknown(
    paths: dict[str, str], rows: dict[str, list[Row]], layout: str, notes: list[str]
) -> None:
    """Leave out rows labelled -1 if that is no class: the classes are 0, 1, ... and it is rare.

    A test set that has no other labels keeps all its rows, without labels.
    """
    counts = Counter(row.label for row in rows['train'])
    n = counts.pop(UNKNOWN, 0)
    is_numbered = len(counts) > 1 and counts.keys() == {str(i) for i in range(len(counts))}
    is_rare = is_numbered and 4 * n <= min(counts.values())
    if n and layout != 'choices' and not is_rare:
        return
    for split, path in paths.items():
        known = [row for row in rows[split] if row.label != UNKNOWN]
        if split == 'test' and not any(row.label for row in known):
            known = [row._replace(label='') for row in rows[split]]
        if not known:
            raise InputError(f'{path}: every label is {UNKNOWN}, which is no label')
        if len(known) < len(rows[split]):
            notes.append(
                f'{path}: {len(rows[split]) - len(known):,} rows with the label {UNKNOWN}, not '
                'known, are left out; if that is a class, write it as a word'
            )
        rows[split] = known


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
    scores = {label: files.parse_number(label) for label in labels}
    by_number = None not in scores.values()
    return tuple(sorted(labels, key=lambda label: (scores[label] if by_number else 0, label)))


def _describe_classes(path: str, rows: list[Row], labels: tuple[str, ...]) -> list[str]:
    """The classes with their numbers of rows, and warnings about those that may be a mistake."""
    counts = Counter(row.label for row in rows)
    shown = ', '.join(f'{label} {counts[label]:,}' for label in labels[:20])
    notes = [f'{path}: {len(labels):,} classes: {shown}' + (', ...' if len(labels) > 20 else '')]
    alike = defaultdict(list)
    for label in labels:
        plain = unicodedata.normalize('NFKC', label).casefold()
        alike[''.join(c for c in plain if unicodedata.category(c) != 'Cf')].append(label)
    for names in alike.values():
        if len(names) > 1:
            notes.append(
                f'warning: {", ".join(map(repr, names))} are {len(names)} classes; they differ '
                'only in case, invisible characters or forms of Unicode'
            )
    for label in labels:
        if label.lower() in PERHAPS_MISSING:
            notes.append(f'warning: {label!r} is a class; leave a label that is missing out')
    numbers = [files.parse_number(label) for label in labels]
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
    chosen = positive and files.label_word(positive, '--positive')
    if positive is not None and chosen not in labels:
        there = f'has the classes {files.quoted(labels[:10])}' if labels else 'has no classes'
        raise InputError(f'--positive {positive[:40]!r}: {path} {there}')
    kind = 'classes' if labels else 'choices'
    kind = 'numbers' if task.regression else kind
    if metric not in (None, *FITTING[kind]):
        raise InputError(
            f'--metric {metric}: the labels of {path} are {kind}; expected one of '
            f'{", ".join(FITTING[kind])}'
        )
    metrics = tuple(dict.fromkeys([metric or FITTING[kind][0], *FITTING[kind][:2]]))
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
        return split_examples(examples, n_tenth if n_valid is None else n_valid, path, seed)
    from sklearn.model_selection import train_test_split

    counts = Counter(example.label for example in examples)
    single = [example for example in examples if counts[example.label] == 1]
    others = [example for example in examples if counts[example.label] > 1]
    n_classes = len(counts) - len(single)
    most = len(others) - n_classes
    if n_valid is None:
        n_valid = max(min(max(n_tenth, len(counts)), most), 1)
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
