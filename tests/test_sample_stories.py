"""The sample stories: the generator writes these files, and counting words does not help."""

import os
import random
import re
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import vstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from gpt1.tasks.rocstories import read_cloze_test

DATA_DIR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data')
sys.path.insert(0, DATA_DIR)
import sample_stories  # noqa: E402

CHANCE_AT_MOST = 0.56  # chance is 0.5, with a standard deviation of 0.012 on 1,871 stories


@pytest.fixture(scope='module')
def val_and_test():
    """The columns of both files, each a list."""
    files = []
    for name in sample_stories.FILES:
        examples = read_cloze_test(os.path.join(DATA_DIR, 'sample', name))
        story, ending1, ending2 = (list(texts) for texts in zip(*(e.texts for e in examples)))
        files.append(
            SimpleNamespace(
                id=[example.id for example in examples],
                story=story,
                ending1=ending1,
                ending2=ending2,
                label=[example.label for example in examples],
            )
        )
    return files


def test_files_are_reproduced_byte_for_byte(tmp_path):
    sample_stories.write_sample(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(sample_stories.FILES)
    for name in sample_stories.FILES:
        with (
            open(tmp_path / name, 'rb') as ours,
            open(os.path.join(DATA_DIR, 'sample', name), 'rb') as committed,
        ):
            assert ours.read() == committed.read(), f'{name}: run `python data/sample_stories.py`'


def test_format_and_size(val_and_test):
    assert [len(stories.id) for stories in val_and_test] == [1871, 1871]
    ids = val_and_test[0].id + val_and_test[1].id
    assert len(set(ids)) == len(ids) and all(
        re.fullmatch(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', story_id) for story_id in ids
    )
    for stories in val_and_test:
        assert (
            abs(2 * sum(stories.label) - len(stories.label)) == 1
        )  # 1 and 2 equally often, and the number is odd
        for text in stories.story + stories.ending1 + stories.ending2:
            assert (
                re.fullmatch(r"""["A-Z][A-Za-z0-9 ,.'"-]*[."]""", text)
                and '  ' not in text
                and 'a/an' not in text
            ), text


def test_lengths_are_those_of_rocstories(val_and_test):
    def count(texts):
        return np.array([len(re.findall(r'\w+|[^\w\s]', text)) for text in texts])

    for stories in val_and_test:
        assert (
            38 < count(stories.story).mean() < 47
            and 8 < count(stories.ending1 + stories.ending2).mean() < 13
        )


def test_schemas():
    schemas = sample_stories.parse_schemas()
    assert len(schemas) >= 40 and len({schema.family for schema in schemas}) >= 10
    for schema in schemas:
        *context, endings = schema.phrasings
        clues = [sentence for sentence in context if sentence['a'] != sentence['b']]
        assert len(clues) == 1, f'{schema.title}: one sentence is the clue'
        for sentence in clues + [endings]:
            assert len(sentence['a']) == len(sentence['b']) >= 4 and not set(sentence['a']) & set(
                sentence['b']
            ), schema.title
        assert all(phrasings for sentence in context for phrasings in sentence.values())
        assert sorted(schema.moods) == ['a', 'b'] and set(schema.moods.values()) == {'+', '-'}, (
            schema.title
        )


def test_every_ending_is_right_as_often_as_wrong(val_and_test):
    def slot_or_choice(found):
        return rf'({found[1]})' if found[1] else '.+'

    def as_pattern(phrasing):
        phrasing = phrasing.replace('a/an', 'an?')
        return re.sub(r'\((.+?)\)|\{\w+\}', slot_or_choice, phrasing)

    openings = {
        mood: as_pattern('|'.join(openings)) for mood, openings in sample_stories.OPENINGS.items()
    }
    patterns = {
        phrasing: re.compile(
            f'({openings[schema.moods[variant]]}), {as_pattern(phrasing)}', re.IGNORECASE
        )
        for schema in sample_stories.parse_schemas()
        for variant in 'ab'
        for phrasing in schema.phrasings[4][variant]
    }
    for stories in val_and_test:
        surplus = Counter()
        for ending1, ending2, label in zip(stories.ending1, stories.ending2, stories.label):
            for ending, right in (ending1, label == 0), (ending2, label == 1):
                phrasing = next(
                    phrasing for phrasing, pattern in patterns.items() if pattern.fullmatch(ending)
                )
                surplus[phrasing] += 1 if right else -1
        assert (
            sum(abs(n) for n in surplus.values()) <= 2
        )  # 0, but for the two endings of the one story without its pair


def test_no_story_is_shared(val_and_test):
    val, test = (set(stories.story) for stories in val_and_test)
    assert len(val) == len(test) == 1871 and not val & test
    contexts = val | test
    for seed in 7, sample_stories.SEED:
        texts = list(sample_stories.unlabelled_stories(2000, seed))
        assert len(set(texts)) == 2000
        for text in texts:
            assert not contexts & {text[: end.start() + 1] for end in re.finditer('[."] ', text)}, (
                text
            )


def test_a_context_that_is_taken_is_drawn_again():
    schema = sample_stories.Schema(
        'family',
        'title',
        phrasings=[
            {'a': ['One.', 'Another.']},
            {'a': ['Two.']},
            {'a': ['Three.']},
            {'a': ['Four.']},
        ],
    )
    taken = {('One.', 'Two.', 'Three.', 'Four.')}
    _, context = sample_stories.draw_context(schema, 'a', random.Random(0), taken)
    assert context == ('Another.', 'Two.', 'Three.', 'Four.') and context in taken


def test_command_line(tmp_path, capsys):
    folder = tmp_path / 'folder'
    folder.mkdir()
    out = folder / 'stories.txt'
    sample_stories.main(['--unlabelled', '50', '--seed', '3', '--out', str(out)])
    assert out.read_text().splitlines() == list(sample_stories.unlabelled_stories(50, 3))
    for wrong in (
        ['--unlabelled', '50'],
        ['--out', str(out)],
        ['--unlabelled', '0', '--out', str(out)],
        ['--unlabelled', '1', '--out', str(folder)],
    ):
        with pytest.raises(SystemExit) as stopped:
            sample_stories.main(wrong)
        assert stopped.value.code == 2 and 'error' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['folder'] and os.listdir(folder) == [
        'stories.txt'
    ]  # nothing half-written is left


def accuracy_of_endings_alone(train, test):
    """Of a logistic regression on (words and pairs of words in ending 2) - (those in ending 1)."""
    words = CountVectorizer(ngram_range=(1, 2)).fit(train.ending1 + train.ending2)
    x, x_test = (
        words.transform(stories.ending2) - words.transform(stories.ending1)
        for stories in (train, test)
    )
    return LogisticRegression(solver='liblinear').fit(x, train.label).score(x_test, test.label)


def accuracy_of_context_and_ending(train, test):
    """Accuracy of a logistic regression that scores context + ending; the likelier one wins."""

    def candidates(stories):
        return [
            [f'{context} {ending}' for context, ending in zip(stories.story, endings)]
            for endings in (stories.ending1, stories.ending2)
        ]

    texts1, texts2 = candidates(train)
    words = CountVectorizer(ngram_range=(1, 2)).fit(texts1 + texts2)
    label = np.array(train.label)
    x, right = (
        vstack([words.transform(texts1), words.transform(texts2)]),
        np.concatenate([label == 0, label == 1]),
    )
    model = LogisticRegression(solver='liblinear').fit(x, right)
    score1, score2 = (model.decision_function(words.transform(texts)) for texts in candidates(test))
    return np.mean((score2 > score1) == np.array(test.label))


@pytest.mark.parametrize('accuracy', [accuracy_of_endings_alone, accuracy_of_context_and_ending])
def test_bags_of_words_do_not_solve_it(accuracy, val_and_test):
    measured = accuracy(*val_and_test)
    print(f'{accuracy.__name__}: {measured:.4f}')
    assert measured < CHANCE_AT_MOST
