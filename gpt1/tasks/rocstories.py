"""The files of ROCStories (the Story Cloze Test)."""

import os
import re

from gpt1.tasks.data_files import check_folder, list_folder, quoted
from gpt1.tasks.readers import read_table, split_examples
from gpt1.tasks.task import SPLIT_SEED, Data, Task
from utils import InputError

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
CLOZE_NAME = r'cloze_test_(val|test)__(spring2016|winter2018).*\.csv'  # in lower case
CLOZE_ADDRESS = 'https://cs.rochester.edu/nlp/rocstories/'


def find_csv(data_dir: str, which: str) -> str:
    """Path of the `val` or `test` file in `data_dir`. Raises InputError if there is none.

    Names that browsers and spreadsheets change ("... (1).csv", ".CSV") are found too. Where the
    editions of 2016 and 2018 are both there, the paper's is taken: 2016.
    """
    check_folder(data_dir)
    found = {}  # (edition, which) -> names
    for name in list_folder(data_dir):
        match = re.fullmatch(CLOZE_NAME, name.lower())
        if match and os.path.isfile(os.path.join(data_dir, name)):
            key = (match[2], match[1])
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
        raise InputError(f'{data_dir} has several {which} files: {quoted(names)}; keep one of them')
    return os.path.join(data_dir, (exact or names)[0])


def read_rocstories(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """The *val* file split in two, always with the original's seed, and the *test* file."""
    val, test = (find_csv(data_dir, which) for which in FILES)
    data = Data(sources=[val, test])
    n_valid = 374 if n_valid is None else n_valid
    data.train, data.valid['valid'] = split_examples(
        read_table(val, task), n_valid, SPLIT_SEED, val
    )
    data.test['test'] = read_table(test, task, need_labels=False)
    if any('winter2018' in path.lower() for path in data.sources):
        data.notes.append("the edition of 2018; the paper's is that of 2016")
    return data
