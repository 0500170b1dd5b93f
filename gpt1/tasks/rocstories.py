"""The files of ROCStories (the Story Cloze Test)."""

import os
import re
from collections import defaultdict

from gpt1.tasks.data_files import list_folder, quoted
from gpt1.tasks.readers import read_table, split_examples
from gpt1.tasks.task import Data, Task
from utils import InputError

COLUMNS = [
    'InputStoryid',
    *(f'InputSentence{i}' for i in range(1, 5)),
    'RandomFifthSentenceQuiz1',
    'RandomFifthSentenceQuiz2',
    'AnswerRightEnding',
]
FILES = {  # the names the data set was published under
    'val': (
        'cloze_test_val__spring2016 - cloze_test_ALL_val.csv',
        'cloze_test_val__spring2016.csv',
    ),
    'test': (
        'cloze_test_test__spring2016 - cloze_test_ALL_test.csv',
        'cloze_test_test__spring2016.csv',
    ),
}
CLOZE_NAME = r'cloze_test_(val|test)__(spring2016|winter2018).*\.csv'  # in lower case


def find_csv(data_dir: str, which: str) -> str:
    """Path of the `val` or `test` file in `data_dir`. Raises InputError if there is none.

    Names that browsers and spreadsheets change ("... (1).csv", ".CSV") are found too. Where the
    editions of 2016 and 2018 are both there, the paper's is taken: 2016.
    """
    found = defaultdict(list)  # (edition, which) -> names
    for name in list_folder(data_dir):
        match = re.fullmatch(CLOZE_NAME, name.lower())
        if match and os.path.isfile(os.path.join(data_dir, name)):
            found[match[2], match[1]].append(name)
    editions = [edition for edition in ('spring2016', 'winter2018') if found[edition, which]]
    if not editions:
        first, second = FILES[which]
        raise InputError(
            f'{data_dir} has neither "{first}" nor "{second}": request the Story Cloze Test '
            '(Spring 2016) at https://cs.rochester.edu/nlp/rocstories/ and put its two CSV files '
            'there'
        )
    whole = [edition for edition in editions if found[edition, 'val'] and found[edition, 'test']]
    names = found[(whole or editions)[0], which]
    exact = [name for name in FILES[which] if name in names]
    if not exact and len(names) > 1:
        raise InputError(f'{data_dir} has several {which} files: {quoted(names)}; keep one of them')
    return os.path.join(data_dir, (exact or names)[0])


def read_rocstories(task: Task, data_dir: str, n_valid: int | None) -> Data:
    """The *val* file split in two, and the *test* file."""
    val, test = (find_csv(data_dir, which) for which in FILES)
    data = Data(sources=[val, test])
    n_valid = 374 if n_valid is None else n_valid
    data.train, data.valid['valid'] = split_examples(read_table(val, task), n_valid, val)
    data.test['test'] = read_table(test, task, need_labels=False)
    if any('winter2018' in path.lower() for path in data.sources):
        data.notes.append("the edition of 2018; the paper's is that of 2016")
    return data
