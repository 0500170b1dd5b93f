"""The files of ROCStories (the Story Cloze Test)."""

import os
import re

from gpt1.tasks.data_files import (
    cells_under,
    check_folder,
    check_no_header,
    check_once,
    list_folder,
    quoted,
    read_csv,
    refuse,
    whole_number,
)
from gpt1.tasks.readers import split_examples
from gpt1.tasks.task import SPLIT_SEED, Data, Example, Task
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


def read_cloze_test(
    path: str, need_labels: bool = True, warnings: list[str] | None = None
) -> list[Example]:
    """Read one Story Cloze CSV file: columns by name, in any order.

    Texts: the four sentences joined by one space, ending 1, ending 2; the label is 0 or 1. With
    `need_labels=False` the label column may be missing or empty; then all labels are None. With a
    list of `warnings`, rows with an empty text or another label are kept, and it names them.
    Raises InputError naming the file and the row (1 = the header).
    """
    rows = read_csv(path)
    header_row = next(rows, None)
    if header_row is None:
        raise InputError(f'{path} is empty: expected a header row and a row for each story')
    header = [name.strip() for name in header_row[1]]
    columns = COLUMNS if need_labels or COLUMNS[-1] in header else COLUMNS[:-1]
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f'{path}, row {header_row[0]}: no column {missing[0]}; '
            f'expected the header {",".join(COLUMNS)}'
        )
    check_once(f'{path}, row {header_row[0]}', header, columns)
    at = [header.index(name) for name in columns]
    stories = []
    for number, cells in rows:
        where = f'{path}, row {number}'
        check_no_header(where, cells, header)
        if len(cells) < max(at[:7]) + 1:
            raise InputError(f'{where}: {len(cells)} columns, expected {len(header)}')
        cells = cells_under(where, cells, header)
        values = [cells[i] for i in at]
        empty = [name for name, value in zip(columns[:7], values) if not value.strip()]
        if empty:
            refuse(f'{where}: {empty[0]} is empty', warnings)
        stories.append((where, values))
    if not stories:
        raise InputError(f'{path} has a header but no stories')

    words = [whole_number(values[7].strip()) if len(at) == 8 else '' for _, values in stories]
    labels = [{'1': 0, '2': 1}.get(word) for word in words]
    if need_labels or any(words):
        for (where, _), word, label in zip(stories, words, labels):
            if label is None:
                refuse(f'{where}: AnswerRightEnding is {word[:20]!r}, expected 1 or 2', warnings)
    return [
        Example(values[0], (' '.join(values[1:5]), values[5], values[6]), label)
        for (_, values), label in zip(stories, labels)
    ]


def read_new_stories(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """The stories of one file to predict. Raises InputError."""
    return read_cloze_test(path, False, warnings)


def rocstories(
    data_dir: str, n_valid: int = 374
) -> tuple[list[Example], list[Example], list[Example]]:
    """The training, validation and test stories: the *val* file split in two, and the *test* file.

    The split is `sklearn.model_selection.train_test_split(..., test_size=n_valid,
    random_state=3535999445)`: a permutation of which the first n_valid are the validation set.
    Raises InputError.
    """
    path = find_csv(data_dir, 'val')
    stories = read_cloze_test(path)
    test = read_cloze_test(find_csv(data_dir, 'test'), need_labels=False)
    if len(stories) <= n_valid:
        raise InputError(
            f'{path} has {len(stories)} stories, too few to set {n_valid} aside for validation '
            '(--n_valid)'
        )
    train, valid = split_examples(stories, n_valid, SPLIT_SEED, path)
    return train, valid, test


def read_rocstories(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    train, valid, test = rocstories(data_dir, 374 if n_valid is None else n_valid)
    sources = [find_csv(data_dir, which) for which in FILES]
    notes = []
    if any('winter2018' in path.lower() for path in sources):
        notes.append("the edition of 2018; the paper's is that of 2016")
    return Data(train, {'valid': valid}, {'test': test}, notes, sources)
