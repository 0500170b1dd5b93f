"""The files of tasks, in the formats in which they are published."""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gpt1.tasks import data_files as files
from gpt1.tasks.task import SPLIT_SEED, Archive, Data, Example, Task
from utils import InputError

UNKNOWN = '-1'  # a label of your own data that is not known, as GLUE's from Hugging Face


class Row(NamedTuple):
    """A row of a file, before its label is known to be one of the task's."""

    where: str  # file and row, for messages
    id: str
    texts: tuple[str, ...]
    label: str  # as it is written; empty: none


def to_examples(
    rows: Iterable[Row], task: Task, need_labels: bool = True, warnings: list[str] | None = None
) -> list[Example]:
    """Examples with the labels of `task`. Raises InputError with file and row.

    need_labels  whether each row must have a label; otherwise all or none
    warnings     a list for labels that are not the task's, which are then no errors but None
    """
    unknown = task.archive.unknown if task.archive else UNKNOWN
    is_number = task.regression or task.soft_labels
    classes = {task.file_word(i): i for i in range(len(task.labels or ()))}
    aliases = task.archive.aliases if task.archive else {}
    classes |= {other: classes[word] for other, word in aliases.items()}
    examples = []
    gap = None  # the first row without a label
    for row in rows:
        words = classes
        if task.layout == 'choices':
            words = {task.file_word(k): k for k in range(len(row.texts) - task.n_context)}
        label = words.get(row.label)
        if is_number:
            label = files.parse_number(row.label)
            if task.soft_labels and label is not None and not 0 <= label <= 5:
                label = None
        if label is None and row.label != unknown:
            message = _no_label(row, task, list(words))
            gap = gap or message
            if row.label or need_labels:
                files.refuse(message, warnings)
        examples.append(Example(row.id, row.texts, label))
    if gap and warnings is None and any(example.label is not None for example in examples):
        raise InputError(gap)
    return examples


def _no_label(row: Row, task: Task, words: list[str]) -> str:
    some = ', '.join(words[:10]) + (', ...' if len(words) > 10 else '')
    expected = f'one of {some}' if words else 'a number'
    if task.soft_labels:
        expected = 'a number from 0 to 5'
    return f'{row.where}: the label is {row.label[:40]!r}, expected {expected}'


def _rows(
    path: str, archive: Archive, need_labels: bool, notes: list | None, warnings: list | None
) -> Iterator[Row]:
    """The rows of a file of a data set, but for those that are left out; see `read_table`."""
    dropped = Counter()
    word = 'row' if archive.format == 'csv' else 'line'
    for index, (number, record) in enumerate(_records(path, archive, need_labels, word)):
        where = f'{path}, {word} {number}'
        if record is None:
            dropped['broken rows left out'] += 1
            continue
        label = files.label_word(record.get(archive.label), where)
        if label == archive.unknown and notes is not None:
            dropped["pairs without a majority label ('-') left out"] += 1
            continue
        cells = {name: files.json_text(record.get(name), where, name) for name in archive.columns}
        empty = [name for name, cell in cells.items() if not cell.strip()]
        if empty:
            dropped['examples with an empty text'] += 1
            if warnings is not None or archive.empty == 'refuse':
                files.refuse(f'{where}: {empty[0]} is empty', warnings)
        texts = tuple(
            [' '.join([cells[name] for name in text.split('+')]) for text in archive.texts]
        )
        name = '-'.join([str(record[key]) for key in archive.id if key in record])
        yield Row(where, name or str(index), texts, label)
    if notes is not None:
        notes += [f'{path}: {what}: {n:,}' for what, n in dropped.items()]


def _records(
    path: str, archive: Archive, need_labels: bool, word: str
) -> Iterator[tuple[int, dict | None]]:
    """(row number, values by column) of each row; None for QQP's broken ones."""
    rows = files.read_csv(path) if archive.format == 'csv' else files.read_lines(path)
    if archive.format == 'lines':
        first = next(rows, (0, ''))
        rows = itertools.chain([first] if first[0] else [], rows)
        if first[1].startswith('{"'):
            return files.json_records(path, rows)
        rows = ((number, line.split('\t')) for number, line in rows)
    needed = [*archive.columns, *([archive.label] if need_labels else [])]
    columns = (needed, [*archive.id, archive.label], archive.bare)
    return files.by_column(path, rows, word, *columns, archive.ragged, archive.label)


def read_table(
    path: str,
    task: Task,
    need_labels: bool = True,
    notes: list[str] | None = None,
    warnings: list[str] | None = None,
) -> list[Example]:
    """Examples of one file of a data set: tab-separated, JSON lines, CSV, or passages of RACE.

    With a list of `notes`, pairs labelled '-' and broken rows of QQP are left out, and a note says
    how many. Without it (for prediction) all rows are kept: '-' is an unknown label, and a broken
    row is an error. With `need_labels=False`, missing labels are None. A list of `warnings` names
    empty texts and unknown labels, which are then no errors.
    Raises InputError with the file and the line.
    """
    archive = task.archive
    if archive.ragged == 'drop' and (notes is None or not need_labels):
        archive = archive._replace(ragged='refuse')
    rows = _rows(path, archive, need_labels, notes, warnings)
    if archive.format == 'passages':
        rows = _passage_rows(path, need_labels)
    examples = to_examples(rows, task, need_labels, warnings)
    if not examples:
        raise InputError(f'{path} has no examples')
    return examples


def passage_files(folder: str) -> list[str]:
    """The files of a folder of passages of RACE, in the order of their numbers."""

    def order(name):
        stem = name.removesuffix('.txt')
        return (0, int(stem), name) if stem.isdecimal() else (1, 0, name)

    names = sorted((n for n in files.list_folder(folder) if n.endswith('.txt')), key=order)
    return [os.path.join(folder, name) for name in names]


def _passage_rows(path: str, need_labels: bool) -> Iterator[Row]:
    """The questions of a passage of RACE, or of a folder: article, question, options.

    The `_` of a cloze question stays: the paper has question and answer one after the other.
    """
    for file in passage_files(path) if os.path.isdir(path) else [path]:
        with files.open_text(file, newline='\n') as f:
            record = files.parse_json(f.read(), file)
        article = files.json_text(record.get('article'), file, 'article')
        name = os.path.splitext(str(record.get('id', os.path.basename(file))))[0]
        lists = [record.get(key) for key in ('questions', 'options', 'answers')]
        if not need_labels and isinstance(lists[0], list) and 'answers' not in record:
            lists[2] = [None] * len(lists[0])
        if not all(isinstance(x, list) and len(x) == len(lists[0]) for x in lists):
            problem = 'expected lists of as many "questions", "options" and "answers"'
            raise InputError(f'{file}: {problem}')
        for k, (question, options, answer) in enumerate(zip(*lists)):
            where = f'{file}, question {k + 1}'
            if not isinstance(options, list) or len(options) < 2:
                raise InputError(f'{where}: expected two options or more')
            texts = [article, files.json_text(question, where, 'the question')]
            texts += [files.json_text(option, where, 'an option') for option in options]
            # ids of RACE are those of passages
            yield Row(where, f'{name}-{k}', tuple(texts), files.label_word(answer, where))


def split_examples(
    examples: list[Example], n_valid: int, path: str, seed: int = SPLIT_SEED
) -> tuple[list[Example], list[Example]]:
    """Training and validation examples, as `sklearn.model_selection.train_test_split` has them."""
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
    n = len(data.train)
    if n_train is None:
        return
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


def plain_name(name: str) -> str:
    """Normalize a name: 'STS-B' and 'sts_b' to 'stsb'."""
    return ''.join(filter(str.isalnum, name.lower()))


def find_places(archive: Archive, data_dir: str, depth: int = 3) -> list[str]:
    """The folders in which a data set may lie: those of its names, of GLUE's, and `data_dir`."""
    there = files.list_folder(data_dir)
    found = []
    for wanted in map(plain_name, (*archive.folders, 'glue', 'glue_data')):
        for name in there:
            folder = os.path.join(data_dir, name)
            if plain_name(name) == wanted and depth > 0 and os.path.isdir(folder):
                found += find_places(archive, folder, depth - 1)
    return [*found, data_dir]


def official_files(task: Task, data_dir: str) -> tuple[str, dict[str, str | None]]:
    """The first folder that has all but the test set, and the file of each split.

    None for a test set without a file. Raises InputError.
    """
    archive = task.archive
    needed = [archive.names(split) for split in archive.splits if not split.startswith('test')]
    where, lacking = data_dir, needed
    for folder in find_places(archive, data_dir):
        missing = [names for names in needed if not files.first_file(folder, names)]
        if not missing:
            paths = {}
            for split in archive.splits:
                paths[split] = files.first_file(folder, archive.names(split))
            around = (folder, os.path.normpath(os.path.join(folder, os.pardir)), data_dir)
            for split, names in archive.beside.items():
                found = [path for place in around if (path := files.first_file(place, names))]
                paths |= {split: found[0]} if found else {}
            return folder, paths
        if len(missing) < len(needed):
            where, lacking = folder, missing
    raise InputError(
        f'{where} has no {task.title}, or not all of it: expected '
        f'{" and ".join(files.quoted(names[:1]) for names in lacking)} there or in its folder '
        f'"{archive.folders[0]}"; get it from {archive.address}'
    )


def paths_of(task: Task, data_dir: str) -> list[str]:
    """The files that `read_official` reads."""
    paths = filter(None, official_files(task, data_dir)[1].values())
    is_race = task.archive.format == 'passages'
    return [file for path in paths for file in (passage_files(path) if is_race else [path])]


def read_official(task: Task, data_dir: str, n_valid: int | None) -> Data:
    """Read the training, validation and test files as they are published."""
    folder, paths = official_files(task, data_dir)
    data = Data()
    if n_valid is not None:
        data.notes.append(f'n_valid is not used: {task.title} has validation files')
    for key, path in paths.items():
        kind, _, split = key.partition('/')
        if path is None:  # of a test set
            names = task.archive.names(key)
            data.notes.append(f'{folder} has no {" or ".join(names)}: no test set')
            continue
        examples = read_table(path, task, need_labels=kind != 'test', notes=data.notes)
        data.sources.append(path)
        if kind == 'train':
            data.train += examples
        else:
            getattr(data, kind)[split or kind] = examples
    _label_test(task, data, folder)
    return data


def _label_test(task: Task, data: Data, folder: str) -> None:
    """Give the test examples of MRPC and STS-B the labels of their original test files.

    MRPC's rows are compared by their ids, those of STS-B, whose ids are others, by their texts.
    """
    columns = task.archive.test_columns
    path = os.path.join(folder, task.archive.test_labels)
    if not task.archive.test_labels or 'test' not in data.test or not os.path.exists(path):
        return
    ragged = 'accept' if columns else task.archive.ragged
    original = task.archive._replace(bare=columns, ragged=ragged)
    labelled = read_table(path, replace(task, archive=original))
    data.sources.append(path)

    def key(example: Example) -> object:
        return tuple(map(str.strip, example.texts)) if columns else example.id

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
DEV_IDS = 'mrpc_dev_ids.tsv'  # GLUE's choice of validation pairs among them


def read_mrpc(task: Task, data_dir: str, n_valid: int | None) -> Data:
    """MRPC: GLUE's three files, or Microsoft's two with the ids of the validation pairs."""
    places = find_places(task.archive, data_dir)
    folder = next(
        (p for p in places if all(files.first_file(p, [name]) for name in MRPC_SOURCE)), None
    )
    try:
        official_files(task, data_dir)
    except InputError as error:
        if folder is None:
            raise InputError(
                f"{error}. Microsoft's {files.quoted(MRPC_SOURCE)} are read too"
            ) from error
    else:
        return read_official(task, data_dir, n_valid)
    path = files.first_file(folder, [DEV_IDS]) or files.first_file(data_dir, [DEV_IDS])
    if path is None:
        raise InputError(f'{folder} has no {DEV_IDS}: python download.py mrpc downloads it')
    data = Data(sources=[*(os.path.join(folder, name) for name in MRPC_SOURCE), path])
    train, data.test['test'] = (read_table(p, task, notes=data.notes) for p in data.sources[:2])
    dev_ids = {'-'.join(line.split('\t')) for _, line in files.read_lines(path)}
    data.train = [example for example in train if example.id not in dev_ids]
    data.valid['valid'] = [example for example in train if example.id in dev_ids]
    if not data.train or not data.valid['valid']:
        raise InputError(f'{path}: expected the ids of some pairs of {data.sources[0]}')
    if n_valid is not None:
        data.notes.append(f'n_valid is not used: {path} selects the validation pairs')
    return data
