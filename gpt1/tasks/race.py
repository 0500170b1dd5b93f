"""The files of RACE."""

import os

from gpt1.tasks.data_files import json_text, list_folder, open_text, parse_json, refuse
from gpt1.tasks.readers import official_files
from gpt1.tasks.task import Data, Example, Task
from utils import InputError

RACE_LEVELS = ('middle', 'high')
RACE_SPLITS = ('train', 'dev', 'test')


def read_race_file(
    path: str, need_labels: bool = True, warnings: list[str] | None = None
) -> list[Example]:
    """The questions of one passage. Texts: article, question, options. Raises InputError.

    The `_` of a cloze question stays: the paper has question and answer one after the other.
    """
    with open_text(path, newline='\n') as f:
        record = parse_json(f.read(), path)
    article = json_text(record.get('article'), path, 'article')
    name = os.path.splitext(str(record.get('id', os.path.basename(path))))[0]
    questions = record.get('questions')
    options = record.get('options')
    if not isinstance(questions, list) or not isinstance(options, list):
        raise InputError(f'{path}: expected the lists "questions" and "options"')
    answers = record.get('answers', [] if need_labels else [None] * len(questions))
    if not isinstance(answers, list) or not len(questions) == len(options) == len(answers):
        raise InputError(f'{path}: expected as many options and answers as questions')
    examples = []
    for k, (question, choices, answer) in enumerate(zip(questions, options, answers)):
        where = f'{path}, question {k + 1}'
        if not isinstance(choices, list) or len(choices) < 2:
            raise InputError(f'{where}: expected two options or more')
        letters = [chr(ord('A') + i) for i in range(len(choices))]
        if answer not in letters and (need_labels or answer is not None):
            refuse(
                f'{where}: the answer is {str(answer)[:20]!r}, expected A to {letters[-1]}',
                warnings,
            )
        texts = (
            article,
            json_text(question, where, 'the question'),
            *(json_text(choice, where, 'an option') for choice in choices),
        )
        label = letters.index(answer) if answer in letters else None
        examples.append(Example(f'{name}-{k}', texts, label))  # ids of RACE are those of passages
    return examples


def read_new_race(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """The questions of a passage to predict, or of a folder of passages. Raises InputError."""
    read = read_race_folder if os.path.isdir(path) else read_race_file
    examples = read(path, False, warnings)
    if not examples:
        raise InputError(
            f'{path} has no passages with questions: expected a passage of RACE, or a folder of '
            'files 1.txt, 2.txt, ...'
        )
    return examples


def read_race_folder(
    folder: str, need_labels: bool = True, warnings: list[str] | None = None
) -> list[Example]:
    """All questions of a folder of passages, in the order of the files' numbers."""
    paths = _race_files(folder)
    return [e for path in paths for e in read_race_file(path, need_labels, warnings)]


def _race_files(folder: str) -> list[str]:
    """The files of a folder of passages, in the order of their numbers."""

    def order(name):
        stem = name.removesuffix('.txt')
        return (0, int(stem), name) if stem.isdecimal() else (1, 0, name)

    names = sorted((n for n in list_folder(folder) if n.endswith('.txt')), key=order)
    return [os.path.join(folder, name) for name in names]


def race_levels(folder: str, split: str) -> dict[str, str]:
    """Folders of `middle` and `high`, those that are there."""
    paths = {level: os.path.join(folder, split, level) for level in RACE_LEVELS}
    return {level: path for level, path in paths.items() if os.path.isdir(path)}


def find_race(task: Task, data_dir: str) -> list[str]:
    home, _ = official_files(task, data_dir)
    levels = [race_levels(home, split) for split in RACE_SPLITS]
    folders = [folder for paths in levels for folder in paths.values()]
    return [path for folder in folders for path in _race_files(folder)]


def read_race(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """RACE: trained on both levels together, scored on each and on all."""
    home, _ = official_files(task, data_dir)
    data = Data()
    if n_valid is not None:
        data.notes.append('n_valid is not used: RACE has validation files')
    for split, target in (('train', {}), ('dev', data.valid), ('test', data.test)):
        levels = race_levels(home, split)
        for level, path in levels.items():
            examples = read_race_folder(path)
            if not examples:
                raise InputError(f'{path} has no passages: expected files 1.txt, 2.txt, ...')
            target[level] = examples
            data.sources.append(path)
        if split == 'train':
            data.train = [example for examples in target.values() for example in examples]
        missing = [level for level in RACE_LEVELS if level not in levels]
        if missing:
            data.notes.append(f'{home} has no {split} passages of {" and ".join(missing)}')
    return data
