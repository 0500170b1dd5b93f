"""The files of tasks, in the formats in which they are published."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from gpt1.tasks.data_files import (
    check_no_header,
    check_once,
    first_file,
    json_text,
    list_folder,
    parse_json,
    parse_number,
    read_lines,
    refuse,
    whole_number,
)
from gpt1.tasks.task import Archive, Data, Example, Task
from utils import InputError

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


def plain_name(name: str) -> str:
    """Normalize a name: 'STS-B' and 'sts_b' to 'stsb'."""
    return ''.join(filter(str.isalnum, name.lower()))


def find_folders(data_dir: str, names: tuple[str, ...], depth: int = 3) -> list[str]:
    """The folders below `data_dir`, at most `depth` levels down, whose name is one of `names`.

    They are in the order of `names`, each before its subfolders.
    """
    there = [(plain_name(name), name) for name in list_folder(data_dir)]
    found = []
    for wanted in (*names, 'glue', 'glue_data'):
        for plain, name in there:
            folder = os.path.join(data_dir, name)
            if plain == plain_name(wanted) and depth > 0 and os.path.isdir(folder):
                found += [folder, *find_folders(folder, names, depth - 1)]
    return found


def find_places(archive: Archive, data_dir: str) -> list[str]:
    """The folders in which the files of a data set may lie."""
    return [*find_folders(data_dir, archive.folders), data_dir]


def complete_folder(task: Task, data_dir: str) -> tuple[str | None, str]:
    """The folder with a task's training and validation files, or None and an error message."""
    archive = task.archive
    needed = [archive.names(split) for split in archive.splits if not split.startswith('test')]
    names = ' and '.join(f'"{names[0]}"' for names in needed)
    problem = (
        f'{data_dir} has no {task.title}: expected {names} there or in its folder '
        f'"{archive.folders[0]}"; get them from {archive.address}'
    )
    for folder in find_places(archive, data_dir):
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


def edition_of(task: Task, data: Data) -> str:
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


def official_files(task: Task, data_dir: str) -> tuple[str, dict[str, str | None]]:
    """The folder of a data set, and the file of each split; None for a test set without one."""
    folder, problem = complete_folder(task, data_dir)
    if folder is None:
        raise InputError(problem)
    splits = task.archive.splits
    return folder, {key: first_file(folder, task.archive.names(key)) for key in splits}


def read_official(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """Read the training, validation and test files as they are published."""
    folder, paths = official_files(task, data_dir)
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


def read_mnli(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """MNLI, and GLUE's diagnostic set (AX), which is predicted with the same model."""
    data = read_official(task, data_dir, n_valid, seed)
    path = _diagnostic_file(os.path.dirname(data.sources[0]), data_dir)
    if path:
        data.test['diagnostic'] = read_table(path, task, need_labels=False, notes=data.notes)
        data.sources.append(path)
    return data


def _diagnostic_file(folder: str, data_dir: str) -> str | None:
    """The file of GLUE's diagnostic set, near MNLI's `folder`."""
    places = (folder, os.path.normpath(os.path.join(folder, os.pardir)), data_dir)
    return next(filter(None, (first_file(place, AX_FILES) for place in places)), None)


def find_mnli(task: Task, data_dir: str) -> list[str]:
    folder, paths = official_files(task, data_dir)
    return [*filter(None, [*paths.values(), _diagnostic_file(folder, data_dir)])]


def read_stsb(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """STS-B. The scores of GLUE's test set are in original/sts-test.tsv, in the same order."""
    data = read_official(task, data_dir, n_valid, seed)
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


def read_mrpc(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """MRPC: GLUE's three files, or Microsoft's two, split by mrpc_dev_ids.tsv or at random."""
    folder, _ = complete_folder(task, data_dir)
    if folder is not None:
        data = read_official(task, data_dir, n_valid, seed)
        path = first_file(folder, MRPC_SOURCE[1:])
        if path is None or 'test' not in data.test:
            return data
        data.sources.append(path)
        return _label_test(data, read_table(path, task), key=lambda e: e.id)

    folder, _ = complete_folder(replace(task, archive=task.archive.others[0]), data_dir)
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
