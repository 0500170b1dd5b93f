"""Files of the paper's data sets, and of your own, to `Example`s: texts and a label.

`gpt1/tasks/tasks.toml` is the one table that says how the tasks of the paper differ. `read_data`
reads a data set from its official files, or your own, and `read_examples` one file for prediction.
Nothing here knows of tokens.
"""

import os
import tomllib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from gpt1 import ROOT
from gpt1.tasks import readers
from gpt1.tasks.data_files import check_folder, first_file, list_folder, quoted
from gpt1.tasks.own_data import custom_task, kept_own_task, own_files, read_new
from gpt1.tasks.rocstories import FILES, read_rocstories
from gpt1.tasks.sample import unpack
from gpt1.tasks.task import SPLIT_SEED, Archive, Data, Example, Published, Task
from utils import InputError

READERS = {
    'official': readers.read_official,
    'rocstories': read_rocstories,
    'mrpc': readers.read_mrpc,
}


def _tuples(table: dict) -> dict:
    return {key: tuple(x) if isinstance(x, list) else x for key, x in table.items()}


def _read_table() -> tuple[dict[str, Task], dict[str, Archive]]:
    with open(os.path.join(ROOT, 'gpt1', 'tasks', 'tasks.toml'), 'rb') as f:
        table = tomllib.load(f)
    for row in table['task']:
        editions = {tuple(n): note for *n, note in row['archive'].pop('editions', ())}
        row['archive'] = Archive(**_tuples(row['archive']), editions=editions)
        row['published'] = tuple(Published(*score) for score in row.get('published', ()))
    tasks = {row['name']: Task(**_tuples(row)) for row in table['task']}
    archives = {name: task.archive for name, task in tasks.items()}
    return tasks, {**archives, 'dprd': Archive(**_tuples(table['dprd']))}


TASKS, ARCHIVES = _read_table()
DPRD = ARCHIVES['dprd']
NAMES = (*TASKS, 'custom')  # of data sets, as --dataset has them
DATA_OPTIONS = ('n_valid', 'seed', 'regression', 'symmetric', 'positive', 'metric', 'n_train')

SAMPLE = os.path.join(ROOT, 'data', 'sample')  # the made-up data of this repository
DATA_ENDINGS = ('.csv', '.tsv', '.jsonl', '.json', '.txt', '.xls', '.xlsx')
ARCHIVE_ENDINGS = ('.zip', '.gz', '.tgz', '.tar', '.msi')
EXTRA_FILES = ('mrpc_dev_ids.tsv', 'AX.tsv', 'diagnostic.tsv', 'train.c.txt')  # of tasks too


class NoData(InputError):
    """A data set is not there, and there is no made-up one."""


def find_data(name: str, data_dir: str | None = None, or_sample: bool = False) -> tuple[str, bool]:
    """The folder of a data set, and whether it is our made-up sample, which may not be made yet.

    Without `data_dir`: data/ in the working folder or beside this file, if the data set is there;
    else data/sample/ beside this file. With `or_sample`, that is also the answer where `data_dir`
    does not have the data set. Nothing is written: see `make_sample`.

    Raises InputError; also if data/ has files that look like data and would not be used.
    """
    if data_dir is not None and (not or_sample or _is_there(name, data_dir)):
        return data_dir, _is_sample(data_dir)
    if name == 'custom':
        raise InputError('--dataset custom: name the folder of your data with --data_dir')
    if data_dir is None:
        for folder in filter(os.path.isdir, ('data/', os.path.join(ROOT, 'data/'))):
            if _is_there(name, folder):
                return folder, False
            _check_recognized(name, folder)
    if not ARCHIVES[name].made_up:
        raise NoData(
            f'{data_dir or "data/"} has no {TASKS[name].title}, and there is no made-up data for '
            f'it: get it from {TASKS[name].archive.address}'
        )
    return _shown(SAMPLE), True


def find_dprd(data_dir: str | None = None) -> tuple[str, bool]:
    """The test file of definite pronoun resolution, and whether it is our made-up one."""
    folder, is_sample = find_data('dprd', data_dir, or_sample=True)
    for place in readers.find_places(DPRD, folder):
        path = first_file(place, DPRD.names('test'))
        if path:
            return path, is_sample
    raise InputError(f'{folder} has no test.c.txt of DPRD: python download.py dprd downloads it')


def make_sample(name: str, data_dir: str) -> None:
    """Write the made-up data of a task, if `data_dir` is in our sample and that lacks it.

    Several processes may do so at the same time. Raises WriteError.
    """
    if name in ('custom', 'rocstories') or not _is_sample(data_dir) or not ARCHIVES[name].made_up:
        return
    folder = ARCHIVES[name].folders[0]
    if not os.path.isdir(os.path.join(SAMPLE, folder)):
        unpack(folder, SAMPLE)


def make_samples(names: Iterable[str], data_dir: str | None) -> None:
    """`make_sample` for data sets that are about to be read where `find_data` finds them."""
    for name in names:
        make_sample(name, find_data(name, data_dir, or_sample=True)[0])


def _shown(folder: str) -> str:
    """Path for display: relative to the working folder if it is below it."""
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
    archive = ARCHIVES[name]
    named = set(map(readers.plain_name, archive.folders))
    for place in readers.find_places(archive, folder):
        there = list_folder(place)
        is_named = place != folder and readers.plain_name(os.path.basename(place)) in named
        if (is_named and there) or any(map(archive.has_name, there)):
            return True
        if first_file(place, archive.all_names()):
            return True
    return False


def _check_recognized(name: str, folder: str) -> None:
    """Raise InputError if `folder` has files that look like data, but are not read by any task.

    So do archives of the task `name` that are not unpacked. The sample would be read instead.
    """
    known = {*EXTRA_FILES}.union(*(archive.all_names() for archive in ARCHIVES.values()))
    folders = ARCHIVES[name].folders
    stems = [readers.plain_name(stem) for stem in folders or ('cloze', name)]

    def is_wrong(file: str) -> bool:
        if file.lower().endswith(ARCHIVE_ENDINGS):
            return any(stem in readers.plain_name(file) for stem in stems)
        is_known = file in known or any(archive.has_name(file) for archive in ARCHIVES.values())
        return file.lower().endswith(DATA_ENDINGS) and not is_known

    there = [f for f in list_folder(folder) if os.path.isfile(os.path.join(folder, f))]
    unknown = list(filter(is_wrong, there))
    if unknown:
        expected = f'the folder "{folders[0]}"' if folders else quoted(f[0] for f in FILES.values())
        raise InputError(
            f'{folder} has files that are not recognized: {quoted(unknown[:5])}; expected '
            f'{expected}. Rename or move them, or name a folder with '
            f'--data_dir (made-up data: --data_dir {_shown(SAMPLE)})'
        )


def read_data(
    name: str,
    data_dir: str,
    n_valid: int | None = None,
    seed: int = SPLIT_SEED,
    n_train: int | None = None,
    **own,
) -> tuple[Task, Data]:
    """Read the data set `name`, a key of `TASKS` or 'custom'. Raises InputError.

    The other parameters are `DATA_OPTIONS`, as in train.py; `own` are for 'custom'.
    """
    if name == 'custom':
        task, data = custom_task(data_dir, n_valid, seed, **own)
    else:
        task, data = TASKS[name], read_task(TASKS[name], data_dir, n_valid)
    readers.part_of(data, n_train, seed)
    if task.regression:
        labels = np.array([example.label for example in data.train])
        if np.ptp(labels) == 0:
            raise InputError(f'{data.sources[0]}: every label is {labels[0]:g}: nothing to learn')
        task = replace(task, mean=float(labels.mean()), std=float(labels.std()))
    return task, data


def read_task(task: Task, data_dir: str, n_valid: int | None = None) -> Data:
    """Read a data set from its official files in `data_dir`, or in a folder below it.

    `n_valid` examples are set aside for validation where the data set has no validation file;
    None: the task's default. Raises InputError.
    """
    check_folder(data_dir)
    data = READERS[task.reader](task, data_dir, n_valid)
    note = readers.edition_of(task, data)
    if note and not _is_sample(data_dir):
        data.notes.append(note)
    return data


def rocstories(
    data_dir: str, n_valid: int = 374
) -> tuple[list[Example], list[Example], list[Example]]:
    """The training, validation and test stories. Raises InputError."""
    data = read_task(TASKS['rocstories'], data_dir, n_valid)
    return data.train, data.valid['valid'], data.test['test']


def kept_task(record: dict, source: str = 'settings.json') -> Task:
    """The task of a `Task.to_dict`. Raises InputError, naming `source`, if it is damaged.

    A task of the paper is the one of the table, if the record is of the same examples and outputs.
    """
    try:
        if record['name'] == 'custom':
            return kept_own_task(record)
        task = TASKS[record['name']]
        now = task.to_dict()
        decisive = ('layout', 'labels', 'n_context', 'halves', 'soft_labels', 'regression')
        if all(record[key] == now[key] for key in decisive):
            return task
    except (LookupError, TypeError, ValueError):
        pass
    raise InputError(f'{source}: damaged task: {str(record)[:80]}')


def source_files(name: str, data_dir: str) -> list[str]:
    """The files that `read_data` reads, found without reading them.

    Empty for tasks whose data set is always small. Raises InputError if files are missing.
    """
    if name == 'custom':
        return list(own_files(data_dir).values())
    check_folder(data_dir)
    task = TASKS[name]
    return readers.paths_of(task, data_dir) if READERS[task.reader] is readers.read_official else []


def read_examples(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """Read a file to predict: in the task's own format, or the columns of your own data.

    Labels may be missing: then they are None. No row is left out. With a list of `warnings`, empty
    texts and unknown labels are no errors: it names their rows. For RACE, `path` may be a folder of
    passages. Raises InputError.
    """
    if task.archive is None:
        return read_new(path, task, warnings)
    return readers.read_table(path, task, need_labels=False, warnings=warnings)
