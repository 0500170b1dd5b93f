"""The files of tasks, in the formats in which they are published."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gpt1.tasks.data_files import (
    by_column,
    first_file,
    json_records,
    json_text,
    label_word,
    list_folder,
    parse_number,
    quoted,
    read_csv,
    read_lines,
    refuse,
)
from gpt1.tasks.task import Archive, Data, Example, Task
from utils import InputError

# ------------------------------------------------------------------------------ rows to examples


class Row(NamedTuple):
    """A row of a file, before its label is known to be one of the task's."""

    where: str  # file and row, for messages
    id: str
    texts: tuple[str, ...]
    label: str  # as it is written; empty: none


def make_examples(
    rows: Iterable[Row],
    parse: Callable[[Row], int | float | None],
    expected: Callable[[Row], str],
    need_labels: bool,
    unknown: str | None,
    warnings: list[str] | None = None,
) -> list[Example]:
    """Examples with the labels that `parse` finds.

    need_labels  whether each row must have a label; otherwise all or none
    unknown      how a file says that a label is not known, if it has a word for it
    warnings     a list for labels that are not the task's, which are then no errors but None

    Raises InputError with file and row.
    """
    examples = []
    gap = None  # the first row without a label
    for row in rows:
        label = parse(row)
        if label is None and row.label != unknown:
            if row.label or need_labels:
                message = f'{row.where}: the label is {row.label[:40]!r}, expected {expected(row)}'
                refuse(message, warnings)
            gap = gap or row
        examples.append(Example(row.id, row.texts, label))
    if gap and warnings is None and any(example.label is not None for example in examples):
        raise InputError(f"{gap.where}: the label is '', expected {expected(gap)}")
    return examples


def _records(
    path: str, archive: Archive, need_labels: bool, ragged: str
) -> tuple[str, Iterator[tuple[int, dict | None]]]:
    """What a row is called, and (number, values by column) of each; None for QQP's broken ones."""
    needed = [*archive.columns, *([archive.label] if need_labels else [])]
    optional = [*archive.id, archive.label]
    if archive.format == 'csv':
        return 'row', by_column(path, read_csv(path), 'row', needed, optional)
    lines = read_lines(path)
    first = next(lines, None)
    lines = itertools.chain([first] if first else [], lines)
    if first and first[1].startswith('{"'):
        return 'line', json_records(path, lines)
    rows = ((number, line.split('\t')) for number, line in lines)
    columns = (needed, optional, archive.bare)
    return 'line', by_column(path, rows, 'line', *columns, ragged, archive.label)


def _rows(
    path: str,
    archive: Archive,
    need_labels: bool,
    notes: list[str] | None,
    warnings: list[str] | None,
) -> Iterator[Row]:
    """The rows of a file of a data set, but for those that are left out; see `read_table`."""
    dropped, columns = Counter(), archive.columns
    ragged = archive.ragged
    if ragged == 'drop' and (notes is None or not need_labels):
        ragged = 'refuse'
    word, records = _records(path, archive, need_labels, ragged)
    for index, (number, record) in enumerate(records):
        where = f'{path}, {word} {number}'
        if record is None:
            dropped['broken rows left out'] += 1
            continue
        label = label_word(record.get(archive.label), where)
        if label == archive.unknown and notes is not None:
            dropped["pairs without a majority label ('-') left out"] += 1
            continue
        cells = {name: json_text(record.get(name), where, name) for name in columns}
        empty = [name for name, cell in cells.items() if not cell.strip()]
        if empty:
            dropped['examples with an empty text'] += 1
            if warnings is not None or archive.empty == 'refuse':
                refuse(f'{where}: {empty[0]} is empty', warnings)
        texts = tuple(
            [' '.join([cells[name] for name in text.split('+')]) for text in archive.texts]
        )
        name = '-'.join([str(record[key]) for key in archive.id if key in record])
        yield Row(where, name or str(index), texts, label)
    if notes is not None:
        notes += [f'{path}: {what}: {n:,}' for what, n in dropped.items()]


def read_table(
    path: str,
    task: Task,
    need_labels: bool = True,
    notes: list[str] | None = None,
    archive: Archive | None = None,
    warnings: list[str] | None = None,
) -> list[Example]:
    """Examples of one file of a data set: tab-separated, JSON lines or CSV.

    With a list of `notes`, pairs labelled '-' and broken rows of QQP are left out, and a note says
    how many. Without it (for prediction) all rows are kept: '-' is an unknown label, and a broken
    row is an error. With `need_labels=False`, missing labels are None. A list of `warnings` names
    empty texts and unknown labels, which are then no errors.
    Raises InputError with the file and the line.
    """
    archive = archive or task.archive
    n_words = len(task.labels or ())
    if task.layout == 'choices':
        n_words = len(archive.texts) - task.n_context
    ids = {task.file_word(i): i for i in range(n_words)}
    words = ', '.join(ids)
    ids |= {other: ids[word] for other, word in archive.aliases.items()}

    def parse(row: Row) -> int | float | None:
        if not task.soft_labels:
            return ids.get(row.label)
        score = parse_number(row.label)
        return score if score is not None and 0 <= score <= 5 else None

    def expected(row: Row) -> str:
        return 'a number from 0 to 5' if task.soft_labels else f'one of {words}'

    rows = _rows(path, archive, need_labels, notes, warnings)
    examples = make_examples(rows, parse, expected, need_labels, archive.unknown, warnings)
    if not examples:
        raise InputError(f'{path} has no examples')
    return examples


def split_examples(
    examples: list[Example], n_valid: int, seed: int, path: str
) -> tuple[list[Example], list[Example]]:
    """Training and validation examples.

    As `sklearn.model_selection.train_test_split(..., test_size=n_valid, random_state=seed)`: a
    permutation of which the first n_valid are the validation set.
    """
    if not 0 < n_valid < len(examples):
        raise InputError(
            f'{path} has {len(examples):,} examples: '
            f'cannot set {n_valid:,} aside for validation (--n_valid)'
        )
    order = np.random.RandomState(seed).permutation(len(examples))
    return [examples[i] for i in order[n_valid:]], [examples[i] for i in order[:n_valid]]


def part_of(data: Data, n_train: int | None, seed: int) -> None:
    """Leave `n_train` of the training examples in `data`; None: all. Raises InputError.

    They are drawn with every class in proportion, and stay in their order. A larger part of the
    same seed has all examples of a smaller one.
    """
    if n_train is None:
        return
    n = len(data.train)
    if n_train > n:
        raise InputError(f'--n_train {n_train:,}: there are only {n:,} training examples')
    labels = [None if type(e.label) is float else e.label for e in data.train]
    counts, seen = Counter(labels), Counter()
    places = {}  # of an example among those of its class, from 0 to 1
    for i in np.random.RandomState(seed).permutation(n).tolist():
        places[i] = (seen[labels[i]] + 0.5) / counts[labels[i]]
        seen[labels[i]] += 1
    chosen = sorted(sorted(places, key=places.get)[:n_train])
    data.train = [data.train[i] for i in chosen]
    data.notes.append(f'{n_train:,} of {n:,} training examples are used (--n_train)')


# ----------------------------------------------------------------------------- where the files are


def plain_name(name: str) -> str:
    """Normalize a name: 'STS-B' and 'sts_b' to 'stsb'."""
    return ''.join(filter(str.isalnum, name.lower()))


def _find_folders(data_dir: str, names: tuple[str, ...], depth: int = 3) -> list[str]:
    """The folders at most `depth` levels down, in the order of `names`, each before its own."""
    there = [(plain_name(name), name) for name in list_folder(data_dir)]
    found = []
    for wanted in (*names, 'glue', 'glue_data'):
        for plain, name in there:
            folder = os.path.join(data_dir, name)
            if plain == plain_name(wanted) and depth > 0 and os.path.isdir(folder):
                found += [folder, *_find_folders(folder, names, depth - 1)]
    return found


def find_places(archive: Archive, data_dir: str) -> list[str]:
    """The folders in which the files of a data set may lie."""
    return [*_find_folders(data_dir, archive.folders), data_dir]


def official_files(task: Task, data_dir: str) -> dict[str, str | None]:
    """The file of each split, in the first folder that has all but the test set.

    None for a test set without a file. Raises InputError.
    """
    archive = task.archive
    needed = [archive.names(split) for split in archive.splits if not split.startswith('test')]
    problem = (
        f'{data_dir} has no {task.title}: expected '
        f'{" and ".join(quoted(names[:1]) for names in needed)} there or in its folder '
        f'"{archive.folders[0]}"; get them from {archive.address}'
    )
    for folder in find_places(archive, data_dir):
        missing = [names for names in needed if not first_file(folder, names)]
        if not missing:
            paths = {split: first_file(folder, archive.names(split)) for split in archive.splits}
            for split, names in archive.beside.items():
                around = (folder, os.path.normpath(os.path.join(folder, os.pardir)), data_dir)
                found = next(filter(None, (first_file(place, names) for place in around)), None)
                paths |= {split: found} if found else {}
            return paths
        if len(missing) < len(needed):
            problem = (
                f'{folder} is not all of {task.title}: expected '
                f'{" or ".join(quoted([name]) for name in missing[0])}; get it from '
                f'{archive.address}'
            )
    raise InputError(problem)


def paths_of(task: Task, data_dir: str) -> list[str]:
    """The files that `read_official` reads."""
    return [path for path in official_files(task, data_dir).values() if path]


# ------------------------------------------------------------------------------ whole data sets


def read_official(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """Read the training, validation and test files as they are published."""
    paths = official_files(task, data_dir)
    data = Data()
    if n_valid is not None:
        data.notes.append(f'n_valid is not used: {task.title} has validation files')
    folder = os.path.dirname(paths['train'])
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
    _label_test(task, data, folder)
    return data


def _label_test(task: Task, data: Data, folder: str) -> None:
    """Give the test examples of MRPC and STS-B the labels of their original test files.

    MRPC's rows are compared by their ids, those of STS-B, whose ids are others, by their texts.
    """
    archive = task.archive
    path = os.path.join(folder, archive.test_labels)
    if not archive.test_labels or 'test' not in data.test or not os.path.exists(path):
        return
    original = archive._replace(bare=archive.test_columns)
    if archive.test_columns:
        original = original._replace(ragged='accept')
    labelled = read_table(path, task, archive=original)
    data.sources.append(path)

    def key(example: Example) -> object:
        return tuple(map(str.strip, example.texts)) if archive.test_columns else example.id

    test = data.test['test']
    if list(map(key, test)) == list(map(key, labelled)):
        data.test['test'] = [a._replace(label=b.label) for a, b in zip(test, labelled)]
    else:
        data.notes.append(f'{path} has other rows than the test file: not used')


def edition_of(task: Task, data: Data) -> str:
    """Name the edition of a data set by its size, or say that it is not complete."""
    sizes = (
        len(data.train),
        sum(map(len, data.valid.values())),
        sum(len(split) for name, split in data.test.items() if name != 'diagnostic'),
    )
    editions = task.archive.editions
    if not editions or sizes in editions:
        return editions.get(sizes, '')
    expected, found = ('{:,} + {:,} + {:,}'.format(*n) for n in (next(iter(editions)), sizes))
    return f'not the whole {task.title}: {found} examples, published are {expected}'


MRPC_SOURCE = ('msr_paraphrase_train.txt', 'msr_paraphrase_test.txt')  # its files before GLUE


def read_mrpc(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """MRPC: GLUE's three files, or Microsoft's two, split by mrpc_dev_ids.tsv or at random."""
    try:
        official_files(task, data_dir)
    except InputError as error:
        problem = error
    else:
        return read_official(task, data_dir, n_valid, seed)
    places = find_places(task.archive, data_dir)
    folder = next((p for p in places if all(first_file(p, [name]) for name in MRPC_SOURCE)), None)
    if folder is None:
        raise InputError(f"{problem}. Microsoft's {quoted(MRPC_SOURCE)} are read too")
    data = Data(sources=[os.path.join(folder, name) for name in MRPC_SOURCE])
    train, data.test['test'] = (read_table(path, task, notes=data.notes) for path in data.sources)
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
