"""The files of RACE."""

import os
from collections.abc import Iterator

from gpt1.tasks.data_files import json_text, list_folder, open_text, parse_json, refuse
from gpt1.tasks.readers import official_files
from gpt1.tasks.task import Data, Example, Task
from utils import InputError

LEVELS = ('middle', 'high')
SPLITS = ('train', 'dev', 'test')


def _read_passage(
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
            answer = str(answer)[:20]
            refuse(f'{where}: the answer is {answer!r}, expected A to {letters[-1]}', warnings)
        question = json_text(question, where, 'the question')
        choices = [json_text(choice, where, 'an option') for choice in choices]
        label = letters.index(answer) if answer in letters else None
        # ids of RACE are those of passages
        examples.append(Example(f'{name}-{k}', (article, question, *choices), label))
    return examples


def _passages(folder: str) -> list[str]:
    """The files of a folder of passages, in the order of their numbers."""

    def order(name):
        stem = name.removesuffix('.txt')
        return (0, int(stem), name) if stem.isdecimal() else (1, 0, name)

    names = sorted((n for n in list_folder(folder) if n.endswith('.txt')), key=order)
    return [os.path.join(folder, name) for name in names]


def read_new_race(path: str, task: Task, warnings: list[str] | None = None) -> list[Example]:
    """The questions of a passage to predict, or of a folder of passages. Raises InputError."""
    paths = _passages(path) if os.path.isdir(path) else [path]
    examples = [example for file in paths for example in _read_passage(file, False, warnings)]
    if not examples:
        raise InputError(
            f'{path} has no passages with questions: expected a passage of RACE, or a folder of '
            'files 1.txt, 2.txt, ...'
        )
    return examples


def _folders(task: Task, data_dir: str) -> Iterator[tuple[str, str, str]]:
    """(split, level, folder) of all folders of passages that are there."""
    found = official_files(task, data_dir)['train']  # of one of the levels
    home = os.path.dirname(os.path.dirname(found))
    for split in SPLITS:
        for level in LEVELS:
            folder = os.path.join(home, split, level)
            if os.path.isdir(folder):
                yield split, level, folder


def find_race(task: Task, data_dir: str) -> list[str]:
    """The files that `read_race` reads."""
    return [path for *_, folder in _folders(task, data_dir) for path in _passages(folder)]


def read_race(task: Task, data_dir: str, n_valid: int | None, seed: int) -> Data:
    """RACE: trained on both levels together, scored on each and on all."""
    data = Data()
    if n_valid is not None:
        data.notes.append('n_valid is not used: RACE has validation files')
    there = {(split, level): folder for split, level, folder in _folders(task, data_dir)}
    for split in SPLITS:
        missing = [level for level in LEVELS if (split, level) not in there]
        if missing:
            data.notes.append(f'{data_dir} has no {split} passages of {" and ".join(missing)}')
    for (split, level), folder in there.items():
        examples = [example for path in _passages(folder) for example in _read_passage(path)]
        if not examples:
            raise InputError(f'{folder} has no passages: expected files 1.txt, 2.txt, ...')
        data.sources.append(folder)
        if split == 'train':
            data.train += examples
        else:
            sets = data.valid if split == 'dev' else data.test
            sets[level] = examples
    return data
