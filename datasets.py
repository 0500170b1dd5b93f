"""Reading the Story Cloze Test (ROCStories) and splitting it as OpenAI's program does. Nothing of tokens."""

import csv
import os
from typing import NamedTuple

import numpy as np

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
    ),
    'test': (
        'cloze_test_test__spring2016 - cloze_test_ALL_test.csv',
        'cloze_test_test__spring2016.csv',
    ),
}
SPLIT_SEED = 3535999445  # the original's


class Stories(NamedTuple):
    """Stories as text: lists of one length."""

    id: list
    story: list  # the four sentences, joined by one space
    ending1: list
    ending2: list
    label: list  # 0 or 1, the right ending; -1 in a test file without labels

    def take(self, indices):
        return Stories(*([column[i] for i in indices] for column in self))


def find_csv(data_dir, which):
    """Path of the `val` or `test` file in `data_dir`. Raises InputError if there is none."""
    if not os.path.isdir(data_dir):
        raise InputError(
            f'no such folder: {data_dir} (--data_dir names the folder with the Story Cloze CSV files)'
        )
    for name in FILES[which]:
        if os.path.isfile(path := os.path.join(data_dir, name)):
            return path
    raise InputError(
        f'{data_dir} has neither "{FILES[which][0]}" nor "{FILES[which][1]}": request the Story Cloze Test (Spring 2016) '
        f'at https://cs.rochester.edu/nlp/rocstories/ and put its two CSV files there'
    )


def read_cloze_test(path, need_labels=True):
    """Read one Story Cloze CSV file (UTF-8, with a header) into `Stories`.

    With `need_labels=False` the label column may be missing or empty; then all labels are -1.
    Raises InputError naming the file and the row (1 = the header).
    """
    columns = COLUMNS if need_labels else COLUMNS[:-1]
    rows = []
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:
            reader = csv.reader(f)
            header = next(reader, None)
            if header is None:
                raise InputError(f'{path} is empty: expected a header row and a row for each story')
            if [name.strip() for name in header[: len(columns)]] != columns:
                raise InputError(f'{path}, row 1: expected the header {",".join(columns)}')
            for number, row in enumerate(reader, 2):
                if not row:
                    continue
                if len(row) < len(columns):
                    raise InputError(
                        f'{path}, row {number}: {len(row)} columns, expected {len(columns)}'
                    )
                rows.append((number, row))
    except UnicodeDecodeError as error:
        raise InputError(
            f'{path} is not UTF-8 text ({error.reason}); save it again as UTF-8'
        ) from error
    except csv.Error as error:
        raise InputError(f'{path}, near row {len(rows) + 2}: not a CSV file ({error})') from error
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    if not rows:
        raise InputError(f'{path} has a header but no stories')

    labels = [row[7].strip() if len(row) > 7 else '' for _, row in rows]
    if not need_labels and not any(labels):
        labels = [-1] * len(rows)
    else:
        for (number, _), label in zip(rows, labels):
            if label not in ('1', '2'):
                raise InputError(
                    f'{path}, row {number}: AnswerRightEnding is {label[:20]!r}, expected 1 or 2'
                )
        labels = [int(label) - 1 for label in labels]
    return Stories(
        id=[row[0] for _, row in rows],
        story=[' '.join(row[1:5]) for _, row in rows],
        ending1=[row[5] for _, row in rows],
        ending2=[row[6] for _, row in rows],
        label=labels,
    )


def rocstories(data_dir, n_valid=374):
    """The training, validation and test `Stories`: the *val* file split in two, and the *test* file.

    The split is `sklearn.model_selection.train_test_split(..., test_size=n_valid, random_state=3535999445)`: a permutation of which the first
    n_valid are the validation set. Raises InputError.
    """
    val = read_cloze_test(find_csv(data_dir, 'val'))
    test = read_cloze_test(find_csv(data_dir, 'test'), need_labels=False)
    if len(val.id) <= n_valid:
        raise InputError(
            f'{find_csv(data_dir, "val")} has {len(val.id)} stories, too few to set {n_valid} aside for validation (--n_valid)'
        )
    order = np.random.RandomState(SPLIT_SEED).permutation(len(val.id))
    return val.take(order[n_valid:]), val.take(order[:n_valid]), test
