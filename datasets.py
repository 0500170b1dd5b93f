"""Files of the paper's data sets, and of your own, to `Example`s: texts and a label.

`TASKS` is the one table that says how the tasks of the paper differ. `read_data` reads a
data set from its official files, or your own, and `read_examples` one file for prediction. Nothing
here knows of tokens.
"""

import os
from collections.abc import Iterable
from dataclasses import replace

from gpt1 import ROOT
from gpt1.tasks.data_files import check_folder, first_file, list_folder, quoted
from gpt1.tasks.own_data import custom_task, own_files, read_new
from gpt1.tasks.race import find_race, read_new_race, read_race
from gpt1.tasks.readers import (
    edition_of,
    find_mnli,
    find_places,
    official_files,
    plain_name,
    read_mnli,
    read_mrpc,
    read_official,
    read_stsb,
    read_table,
)
from gpt1.tasks.rocstories import (
    CLOZE_ADDRESS,
    CLOZE_NAME,
    FILES,
    read_new_stories,
    read_rocstories,
)
from gpt1.tasks.task import SPLIT_SEED, Archive, Data, Example, Published, Task
from utils import InputError

# ------------------------------------------------------------------------------------ the table

NLI = ('entailment', 'neutral', 'contradiction')
GLUE = 'https://dl.fbaipublicfiles.com/glue/data/'
FIGURE_2 = 'paper, figure 2, read off'
LEADERBOARD = "GLUE's leaderboard"


MICROSOFT = Archive(  # MRPC's files before GLUE; both must be there
    folders=('MRPC', 'MSRParaphraseCorpus'),
    patterns=('msr_paraphrase_{}.txt',),
    splits={'train': 'train', 'valid': 'test'},
)


def _test(who: str, split: str = 'test', **scores: float) -> tuple[Published, ...]:
    """Published scores on a test set: metric = value."""
    return tuple(Published(who, 'test', split, metric, value) for metric, value in scores.items())


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
        archive=Archive(
            address=CLOZE_ADDRESS,
            patterns=(),
            names_too=CLOZE_NAME,
        ),
        reader=read_rocstories,
        file_reader=read_new_stories,
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
        reader=read_mnli,
        finder=find_mnli,
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
            patterns=('{}/middle', '{}/high'),
            editions={(87_866, 4_887, 4_934): ''},
        ),
        reader=read_race,
        finder=find_race,
        file_reader=read_new_race,
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
            others=(MICROSOFT,),
        ),
        reader=read_mrpc,
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
        reader=read_stsb,
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
NAMES = (*TASKS, 'custom')  # of data sets, as --dataset has them


# ---------------------------------------------------------------------------- where the files are

SAMPLE = os.path.join(ROOT, 'data', 'sample')  # the made-up data of this repository
DATA_ENDINGS = ('.csv', '.tsv', '.jsonl', '.json', '.txt', '.xls', '.xlsx')
ARCHIVE_ENDINGS = ('.zip', '.gz', '.tgz', '.tar', '.msi')
EXTRA_FILES = ('mrpc_dev_ids.tsv', 'AX.tsv', 'diagnostic.tsv', 'train.c.txt')  # of tasks too
DPRD = Archive(  # definite pronoun resolution, of which only zero_shot reads the test file
    folders=('DPRD', 'definite_pronoun_resolution', 'emnlp12'),
    patterns=('{}.c.txt',),
    splits={'test': 'test'},
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
    if name != 'rocstories' and not _can_make(name):
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
    from gpt1.tasks.sample.tasks import make  # needed in few runs

    if not _is_sample(data_dir) or not _can_make(name):
        return
    archive = _archives(name)[0]
    for place in find_places(archive, data_dir) if os.path.isdir(data_dir) else ():
        if all(first_file(place, archive.names(split)) for split in archive.splits):
            return
    make(name, data_dir)


def make_samples(names: Iterable[str], data_dir: str | None) -> None:
    """`make_sample` for data sets that are about to be read where `find_data` finds them."""
    for name in names:
        make_sample(name, find_data(name, data_dir, or_sample=True)[0])


def _can_make(name: str) -> bool:
    """Whether there is a generator of made-up data. The stories of ROCStories are files."""
    from gpt1.tasks.sample.tasks import MADE

    return name in MADE


def _shown(folder: str) -> str:
    """Path for display: relative to the working folder if it is below it."""
    relative = os.path.relpath(folder)
    return os.path.join(folder if relative.startswith(os.pardir) else relative, '')


def _is_sample(folder: str) -> bool:
    """Whether `folder` is data/sample/ of this repository, or below it."""
    sample = os.path.join(os.path.realpath(SAMPLE), '')
    return os.path.join(os.path.realpath(folder), '').startswith(sample)


def _archives(name: str) -> tuple[Archive, ...]:
    """The forms in which the files of a data set may lie."""
    archive = DPRD if name == 'dprd' else TASKS[name].archive
    return (archive, *archive.others)


def _is_there(name: str, folder: str) -> bool:
    """Whether `folder` has any file that the reader of a data set would take.

    So has a folder of its name that is not empty. If files are missing, reading says which.
    """
    for archive in _archives(name):
        names = set(map(plain_name, archive.folders))
        for place in find_places(archive, folder):
            is_named = place != folder and plain_name(os.path.basename(place)) in names
            there = list_folder(place)
            if is_named and there or any(map(archive.has_name, there)):
                return True
            if any(first_file(place, archive.names(split)) for split in archive.splits):
                return True
    return False


def _check_recognized(name: str, folder: str) -> None:
    """Raise InputError if files of `folder` look like data, and the sample would be read instead.

    So do archives of this task that are not unpacked.
    """
    unknown = unrecognized_files(folder, name)
    if unknown:
        more = f' and {len(unknown) - 5:,} more' if len(unknown) > 5 else ''
        folders = _archives(name)[0].folders
        expected = f'the folder "{folders[0]}"' if folders else quoted(f[0] for f in FILES.values())
        raise InputError(
            f'{folder} has files that are not recognized: {quoted(unknown[:5])}{more}; expected '
            f'{expected}. Rename or move them, or name a folder with '
            f'--data_dir (made-up data: --data_dir {_shown(SAMPLE)})'
        )


def unrecognized_files(folder: str, name: str) -> list[str]:
    """Files in `folder` that look like data but are not read by any task.

    Archives of the task `name` that are not unpacked count too.
    """
    archives = [archive for task in (*TASKS, 'dprd') for archive in _archives(task)]
    known = {*EXTRA_FILES, *(n for a in archives for split in a.splits for n in a.names(split))}
    stems = [plain_name(stem) for stem in _archives(name)[0].folders or ('cloze', name)]
    unknown = []
    for file in list_folder(folder):
        lower = file.lower()
        is_known = file in known or any(archive.has_name(file) for archive in archives)
        is_data = lower.endswith(DATA_ENDINGS) and not is_known
        is_packed = lower.endswith(ARCHIVE_ENDINGS) and any(s in plain_name(file) for s in stems)
        if (is_data or is_packed) and os.path.isfile(os.path.join(folder, file)):
            unknown.append(file)
    return unknown


# -------------------------------------------------------------------------------------- reading


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
        return custom_task(data_dir, regression, symmetric, n_valid, seed, positive)
    task = TASKS[name]
    return task, read_task(task, data_dir, n_valid)


def read_task(
    task: Task, data_dir: str, n_valid: int | None = None, seed: int = SPLIT_SEED
) -> Data:
    """Read a data set from its official files in `data_dir`, or in a folder below it.

    `n_valid` examples are set aside for validation where the data set has no validation file;
    None: the task's default. Raises InputError.
    """
    check_folder(data_dir)
    data = (task.reader or read_official)(task, data_dir, n_valid, seed)
    note = edition_of(task, data)
    if note and not _is_sample(data_dir):
        data.notes.append(note)
    return data


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
    table = ('published', 'archive', 'reader', 'finder', 'file_reader')
    return replace(task, **{name: getattr(known, name) for name in table})


def source_files(name: str, data_dir: str) -> list[str]:
    """The files that `read_data` reads, found without reading them.

    Empty for tasks whose data set is always small. Raises InputError if files are missing.
    """
    if name == 'custom':
        return [path for path in own_files(data_dir).values() if path]
    check_folder(data_dir)
    task = TASKS[name]
    if task.finder is not None:
        return task.finder(task, data_dir)
    if task.reader is not None:
        return []
    return [path for path in official_files(task, data_dir)[1].values() if path]


def read_examples(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """Read a file to predict: in the task's own format, or the columns of your own data.

    Labels may be missing: then they are None. No row is left out. With a list of `warnings`, empty
    texts and unknown labels are no errors: it names their rows. For RACE, `path` may be a folder of
    passages. Raises InputError.
    """
    if task.file_reader is not None:
        return task.file_reader(path, task, warnings)
    if task.archive is None:
        return read_new(path, task, warnings)
    return read_table(path, task, need_labels=False, warnings=warnings)
