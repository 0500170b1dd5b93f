"""Files of the paper's data sets, and of your own, to `Example`s: texts and a label.

`gpt1/tasks/tasks.toml` is the one table that says how the tasks of the paper differ. `read_data`
reads a data set from its official files, or your own, and `read_examples` one file for prediction.
Nothing here knows of tokens.
"""

import importlib
import os
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from gpt1 import ROOT
from gpt1.tasks.data_files import check_folder, first_file, list_folder, quoted
from gpt1.tasks.own_data import custom_task, own_files, read_new
from gpt1.tasks.race import find_race, read_new_race, read_race
from gpt1.tasks.readers import (
    edition_of,
    find_places,
    part_of,
    paths_of,
    plain_name,
    read_mrpc,
    read_official,
    read_table,
)
from gpt1.tasks.rocstories import FILES, read_rocstories
from gpt1.tasks.task import SPLIT_SEED, Archive, Data, Example, Task
from utils import InputError

# ------------------------------------------------------------------------------------ the table


class Reader(NamedTuple):
    """How the files of a data set are read."""

    read: Callable[..., Data]  # from (task, data_dir, n_valid, seed)
    paths: Callable[..., list[str]] | None = None  # of (task, data_dir); None: it is always small
    read_file: Callable[..., list[Example]] | None = None  # to predict; None: as a table


READERS = {
    'official': Reader(read_official, paths_of),
    'rocstories': Reader(read_rocstories),
    'race': Reader(read_race, find_race, read_new_race),
    'mrpc': Reader(read_mrpc),
}


def _read_tasks() -> dict[str, Task]:
    with open(os.path.join(ROOT, 'gpt1', 'tasks', 'tasks.toml'), 'rb') as f:
        tasks = map(Task.from_row, tomllib.load(f)['task'])
    return {task.name: task for task in tasks}


TASKS = _read_tasks()
NAMES = (*TASKS, 'custom')  # of data sets, as --dataset has them
DATA_OPTIONS = ('n_valid', 'seed', 'regression', 'symmetric', 'positive', 'metric', 'n_train')


# ---------------------------------------------------------------------------- where the files are

SAMPLE = os.path.join(ROOT, 'data', 'sample')  # the made-up data of this repository
DATA_ENDINGS = ('.csv', '.tsv', '.jsonl', '.json', '.txt', '.xls', '.xlsx')
ARCHIVE_ENDINGS = ('.zip', '.gz', '.tgz', '.tar', '.msi')
EXTRA_FILES = ('mrpc_dev_ids.tsv', 'AX.tsv', 'diagnostic.tsv', 'train.c.txt')  # of tasks too
DPRD = Archive(  # definite pronoun resolution, of which only zero_shot reads the test file
    folders=('DPRD', 'definite_pronoun_resolution', 'emnlp12'),
    patterns=('{}.c.txt',),
    splits={'test': 'test'},
    made_up=True,
)


class NoData(InputError):
    """A data set is not there, and there is no made-up one."""


def find_data(name: str, data_dir: str | None = None, or_sample: bool = False) -> tuple[str, bool]:
    """The folder of a data set, and whether it is our made-up sample, which may not be made yet.

    Without `data_dir`: data/ in the working folder or beside this file, if the data set is there;
    else data/sample/ beside this file. With `or_sample`, that is also the answer where `data_dir`
    does not have the data set. Nothing is written: see `make_sample`. The name 'dprd' is for
    zero_shot, as in `find_dprd`.

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
    if not _archive(name).made_up:
        raise NoData(
            f'{data_dir or "data/"} has no {TASKS[name].title}, and there is no made-up data for '
            f'it: get it from {TASKS[name].archive.address}'
        )
    return _shown(SAMPLE), True


def find_dprd(data_dir: str | None = None) -> tuple[str, bool]:
    """The test file of definite pronoun resolution, and whether it is our made-up one.

    It is looked for like other data sets. Raises InputError.
    """
    folder, is_sample = find_data('dprd', data_dir, or_sample=True)
    files = (first_file(place, DPRD.names('test')) for place in find_places(DPRD, folder))
    path = next(filter(None, files), None)
    if path is None:
        raise InputError(
            f'{folder} has no test.c.txt of DPRD: python download.py dprd downloads it'
        )
    return path, is_sample


def make_sample(name: str, data_dir: str) -> None:
    """Write the made-up data of a task below `data_dir`, if that is our sample and lacks it.

    Several processes may do so at the same time. Raises WriteError.
    """
    if name in ('custom', 'rocstories') or not _is_sample(data_dir) or not _archive(name).made_up:
        return
    archive = _archive(name)
    for place in find_places(archive, data_dir) if os.path.isdir(data_dir) else ():
        if all(first_file(place, archive.names(split)) for split in archive.splits):
            return
    # Few runs need it: no module that trains imports it.
    importlib.import_module('gpt1.tasks.sample').unpack(archive.folders[0], data_dir)


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


def _archive(name: str) -> Archive:
    return DPRD if name == 'dprd' else TASKS[name].archive


def _is_there(name: str, folder: str) -> bool:
    """Whether `folder` has any file that the reader of a data set would take.

    So has a folder of its name that is not empty. If files are missing, reading says which.
    """
    archive = _archive(name)
    named = set(map(plain_name, archive.folders))
    for place in find_places(archive, folder):
        there = list_folder(place)
        is_named = place != folder and plain_name(os.path.basename(place)) in named
        if (is_named and there) or any(map(archive.has_name, there)):
            return True
        if first_file(place, archive.all_names()):
            return True
    return False


def _check_recognized(name: str, folder: str) -> None:
    """Raise InputError if `folder` has files that look like data, but are not read by any task.

    So do archives of the task `name` that are not unpacked. The sample would be read instead.
    """
    archives = [*(task.archive for task in TASKS.values()), DPRD]
    known = {*EXTRA_FILES, *(file for archive in archives for file in archive.all_names())}
    folders = _archive(name).folders
    stems = [plain_name(stem) for stem in folders or ('cloze', name)]
    unknown = []
    for file in list_folder(folder):
        lower = file.lower()
        is_known = file in known or any(archive.has_name(file) for archive in archives)
        is_data = lower.endswith(DATA_ENDINGS) and not is_known
        is_packed = lower.endswith(ARCHIVE_ENDINGS) and any(s in plain_name(file) for s in stems)
        if (is_data or is_packed) and os.path.isfile(os.path.join(folder, file)):
            unknown.append(file)
    if unknown:
        more = f' and {len(unknown) - 5:,} more' if len(unknown) > 5 else ''
        expected = f'the folder "{folders[0]}"' if folders else quoted(f[0] for f in FILES.values())
        raise InputError(
            f'{folder} has files that are not recognized: {quoted(unknown[:5])}{more}; expected '
            f'{expected}. Rename or move them, or name a folder with '
            f'--data_dir (made-up data: --data_dir {_shown(SAMPLE)})'
        )


# -------------------------------------------------------------------------------------- reading


def read_data(
    name: str,
    data_dir: str,
    n_valid: int | None = None,
    seed: int = SPLIT_SEED,
    regression: bool = False,
    symmetric: bool = False,
    positive: str | None = None,
    metric: str | None = None,
    n_train: int | None = None,
) -> tuple[Task, Data]:
    """Read the data set `name`, a key of `TASKS` or 'custom'. Raises InputError.

    The other parameters are `DATA_OPTIONS`, as in train.py; all but n_valid and n_train are for
    'custom'. Of the training examples, `n_train` are used, the same ones for the same seed.
    """
    if name == 'custom':
        own = (regression, symmetric, positive, metric)
        return custom_task(data_dir, *own, n_valid=n_valid, seed=seed, n_train=n_train)
    task = TASKS[name]
    data = read_task(task, data_dir, n_valid)
    part_of(data, n_train, seed)
    return task, data


def read_task(
    task: Task, data_dir: str, n_valid: int | None = None, seed: int = SPLIT_SEED
) -> Data:
    """Read a data set from its official files in `data_dir`, or in a folder below it.

    `n_valid` examples are set aside for validation where the data set has no validation file;
    None: the task's default. Raises InputError.
    """
    check_folder(data_dir)
    data = READERS[task.reader].read(task, data_dir, n_valid, seed)
    note = edition_of(task, data)
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
    """Return the task of a `Task.to_dict`, with what the table says of it.

    Raises InputError, naming `source`, if it is damaged.
    """
    task = Task.from_dict(record, source)
    known = task if task.name == 'custom' else TASKS.get(task.name)
    if known is None:
        raise InputError(f'{source}: damaged task: name is {task.name[:40]!r}')
    if task.form != known.form:
        raise InputError(f'{source}: damaged task: its fields contradict each other')
    table = ('published', 'archive', 'reader')
    return replace(task, **{name: getattr(known, name) for name in table})


def source_files(name: str, data_dir: str) -> list[str]:
    """The files that `read_data` reads, found without reading them.

    Empty for tasks whose data set is always small. Raises InputError if files are missing.
    """
    if name == 'custom':
        return [path for path in own_files(data_dir).values() if path]
    check_folder(data_dir)
    find = READERS[TASKS[name].reader].paths
    return find(TASKS[name], data_dir) if find else []


def read_examples(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """Read a file to predict: in the task's own format, or the columns of your own data.

    Labels may be missing: then they are None. No row is left out. With a list of `warnings`, empty
    texts and unknown labels are no errors: it names their rows. For RACE, `path` may be a folder of
    passages. Raises InputError.
    """
    if task.archive is None:
        return read_new(path, task, warnings)
    read = READERS[task.reader].read_file
    if read is not None:
        return read(path, task, warnings)
    return read_table(path, task, need_labels=False, warnings=warnings)
