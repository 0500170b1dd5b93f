"""Made-up data for the paper's other tasks, in their official formats and under their file names.

    python data/sample_tasks.py --task cola

writes the data of one task into data/sample, `--task all` that of every task. `train.py` does the
same on first use. The files are the same on every machine, byte for byte. data/README.md says what
their labels depend on.
"""

import argparse
import contextlib
import functools
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gpt1.tasks.sample import formats
from gpt1.tasks.sample.formats import Block
from gpt1.tasks.sample.stories import (
    FEMALE,
    FOLDER,
    MALE,
    WORDS,
    Schema,
    draw_slots,
    fill,
    phrase,
    phrase_ending,
    read_schemas,
)
from utils import InputError, WriteError

SEED = 1000  # of the first task; that of the sample stories is 2018, of the pre-training text 7
SIZES = {'train': 800, 'dev': 200, 'test': 200}
PHRASINGS = {'train': slice(0, 3), 'dev': slice(3, 5), 'test': slice(3, 5), 'text': slice(0, 5)}
PEOPLE = ('name', 'he', 'him', 'his', 'friend', 'he2', 'him2', 'his2')
OTHER = {'a': 'b', 'b': 'a'}
MISMATCHED = ('friendship', 'gifts', 'hobbies', 'pets')  # families of schemas; genres of MNLI


class Random(random.Random):
    """Random numbers that are alike in every version of Python: only `random()` is used."""

    def choice(self, sequence):
        return sequence[int(self.random() * len(sequence))]

    def shuffle(self, items: list) -> None:
        for i in range(len(items) - 1, 0, -1):
            j = int(self.random() * (i + 1))
            items[i], items[j] = items[j], items[i]


class Story:
    """A story of a schema, for which the people, the day, ... are drawn.

    Each method draws a phrasing. Variant 'a' or 'b' decides what happens: see `stories.py`.
    """

    def __init__(self, schema: Schema, split: str, rng: Random, people: dict | None = None):
        self.schema = schema
        self.rng = rng
        self.some = PHRASINGS[split]
        self.slots = draw_slots(schema, rng) | (people or {})
        self.people = {name: self.slots[name] for name in PEOPLE}
        sentences = schema.phrasings
        self.clue_at = next(i for i in range(4) if sentences[i]['a'] != sentences[i]['b'])

    def sentence(self, i: int, variant: str) -> str:
        """Sentence i, 0 to 3."""
        phrasings = self.schema.phrasings[i][variant]
        if i == self.clue_at:
            phrasings = phrasings[self.some]
        return fill(phrase(phrasings, self.rng), self.slots)

    def clue(self, variant: str) -> str:
        """The sentence that decides how the story ends."""
        return self.sentence(self.clue_at, variant)

    def context(self, variant: str) -> str:
        """The four sentences before the ending."""
        return ' '.join(self.sentence(i, variant) for i in range(4))

    def ending(self, variant: str, opening: bool = True) -> str:
        """The ending, which begins with 'Luckily, ' or the like unless `opening` is False."""
        some = [{v: p[self.some] for v, p in self.schema.phrasings[4].items()}]
        schema = Schema('', '', phrasings=[{}] * 4 + some, moods=self.schema.moods)
        if opening:
            return fill(phrase_ending(schema, variant, self.rng), self.slots)
        return fill(phrase(some[0][variant], self.rng), self.slots)

    def is_happy(self, variant: str) -> bool:
        """Whether the story ends well."""
        return self.schema.moods[variant] == '+'


@dataclass
class Draw:
    """What a block of examples is drawn from: a schema, the others, and a split's phrasings."""

    schema: Schema
    split: str  # 'train', 'dev' or 'test'
    schemas: list[Schema]
    rng: Random

    def story(self, people: dict | None = None) -> Story:
        return Story(self.schema, self.split, self.rng, people)

    def other(self) -> Schema:
        """A schema of another family."""
        others = [other for other in self.schemas if other.family != self.schema.family]
        return self.rng.choice(others)


# ------------------------------------------------------------------------ the examples of a task
#
# A function of each task makes a block: examples about the stories of one schema, with every
# label equally often.


def cola(draw: Draw) -> Block:
    """A sentence, and another one of the same kind with five or more words in a wrong order."""
    i = draw.rng.choice(range(5))
    variant = draw.rng.choice('ab')
    block = []
    while len(block) < 2:
        story = draw.story()
        sentence = story.ending(variant) if i == 4 else story.sentence(i, variant)
        words = sentence.split(' ')
        if len(words) < 7:
            i = draw.rng.choice(range(5))
            continue
        if len(block) == 1:
            sentence = ' '.join(shuffled(words, draw.rng))
        block.append(((sentence,), 1 - len(block)))
    return block


def shuffled(words: list[str], rng: Random) -> list[str]:
    """The words with five neighbours in another order. The last word, with its mark, stays."""
    start = rng.choice(range(len(words) - 5))
    before = [words[0][0].lower() + words[0][1:], *words[1:]][start : start + 5]
    after = list(before)
    while after == before:
        rng.shuffle(after)
    words = [*words[:start], *after, *words[start + 5 :]]
    return [words[0][0].upper() + words[0][1:], *words[1:]]


def sst2(draw: Draw) -> Block:
    """Stories without their endings: positive if the ending is a happy one."""
    block = []
    for variant in 'ab':
        story = draw.story()
        # Lower case, and marks apart from words, as in the Stanford treebank; a blank at the end
        text = re.sub(r"('s\b|[.,\"])", r' \1 ', story.context(variant).lower())
        block.append(((' '.join(text.split()) + ' ',), int(story.is_happy(variant))))
    return block


def nli(draw: Draw) -> Block:
    """A story, and its right ending, its wrong one, or how another story begins."""
    block = []
    for variant in 'ab':
        story = draw.story()
        premise = story.context(variant)
        other = Story(draw.other(), draw.split, draw.rng, story.people)
        block += [
            ((premise, story.ending(variant)), 'entailment'),
            ((premise, story.ending(OTHER[variant])), 'contradiction'),
            ((premise, other.sentence(0, variant)), 'neutral'),
        ]
    return block


def judged(right, wrong, texts: tuple[str, str]) -> Callable[[Draw], Block]:
    """A function that makes blocks: what happened, and the right ending of it or the wrong one.

    `texts` are the two texts, with {clue} and {end}.
    """

    def block(draw: Draw) -> Block:
        drawn = []
        for variant in 'ab':
            for told, label in ((variant, right), (OTHER[variant], wrong)):
                story = draw.story()
                parts = {'clue': story.clue(variant), 'end': story.ending(told)}
                drawn.append((tuple(text.format(**parts) for text in texts), label))
        return drawn

    return block


def rte(draw: Draw) -> Block:
    """A story without its ending, and whether it ends well: true or false."""
    block = []
    for variant in 'ab':
        story = draw.story()
        premise = story.context(variant)
        for label in ('entailment', 'not_entailment'):
            ends_well = story.is_happy(variant) == (label == 'entailment')
            hypothesis = phrase([WORDS['happy']['yes' if ends_well else 'no']], draw.rng)
            block.append(((premise, fill(hypothesis, story.slots)), label))
    return block


def race(draw: Draw) -> Block:
    """Stories and four endings: one right, three wrong."""
    block = []
    for variant in 'ab':
        story = draw.story()
        question = draw.rng.choice(['How did it end?', 'The story ended like this:  _ '])
        right = story.ending(variant)
        options = [right]
        while len(options) < 4:
            wrong = story.ending(OTHER[variant])
            if wrong not in options:
                options.append(wrong)
        draw.rng.shuffle(options)
        block.append(((story.context(variant), question, *options), options.index(right)))
    return block


def two_phrasings(draw: Callable[[], str]) -> tuple[str, str]:
    """Two different sentences of those that `draw` returns."""
    first = draw()
    second = draw()
    while second == first:
        second = draw()
    return first, second


def mrpc(draw: Draw) -> Block:
    """A part of a story told twice, or two parts of which the second turns out differently."""
    block = []
    for variant in 'ab':
        story = draw.story()
        clues = two_phrasings(functools.partial(story.clue, variant))
        endings = two_phrasings(functools.partial(story.ending, variant, opening=False))
        first, second = (f'{clue} {ending}' for clue, ending in zip(clues, endings))
        opposite = f'{story.clue(OTHER[variant])} {story.ending(OTHER[variant], opening=False)}'
        block += [((first, second), 1), ((first, opposite), 0)]
    return block


def stsb(draw: Draw) -> Block:
    """Two beginnings of stories. The score counts what they share, as five readers see it.

    The same story counts 3, the same clue 1, the same person 1.
    """
    block = []
    for same_schema, same_clue in ((True, True), (True, False), (False, False)):
        for same_person in (True, False):
            variant = draw.rng.choice('ab')
            story = draw.story()
            schema = draw.schema if same_schema else draw.other()
            other = Story(schema, draw.split, draw.rng, story.people if same_person else None)
            told = variant if same_clue else OTHER[variant]
            texts = (
                f'{story.sentence(0, variant)} {story.clue(variant)}',
                f'{other.sentence(0, variant)} {other.clue(told)}',
            )
            score = 3 * same_schema + same_clue + same_person
            readers = [min(5, max(0, score + draw.rng.choice([-1, 0, 0, 0, 1]))) for _ in range(5)]
            block.append((texts, sum(readers) / 5))
    return block


def deed(first: str, second: str, verb: str, who: str, reason: str) -> str:
    """What one person did to another, with `who` before the reason: a name or a pronoun."""
    return f'{first} {verb} {second} because {who} {reason}.'


def wnli(draw: Draw) -> Block:
    """Two people, a pronoun that can only stand for one of them, and a name in its place."""
    story = draw.story()
    while story.slots['he'] == story.slots['he2']:
        story = draw.story()
    endings = [
        ending
        for endings in draw.schema.phrasings[4].values()
        for ending in endings
        if ending.startswith('{he} ') and re.findall(r'\{(\w+)\}', ending) == ['he']
    ]
    if not endings:
        return []
    ending = phrase(endings, draw.rng)
    name, friend = story.slots['name'], story.slots['friend']
    block = []
    for label in (1, 0):
        he = draw.rng.choice(['he', 'he2'])
        meant, other = (name, friend) if he == 'he' else (friend, name)
        premise = fill(ending, {**story.slots, 'he': story.slots[he]})
        hypothesis = fill(ending, {**story.slots, 'he': meant if label else other})
        block.append(((f'{name} and {friend} had been friends. {premise}', hypothesis), label))
    return block


def dprd(draw: Draw) -> Block:
    """Twins: what one person did to another, and why. The reason says who the pronoun means.

    The texts are the first sentence, the second one, the pronoun, and both names. The label says
    whom the first sentence means: 0 the first name, 1 the second; the other means the other one.
    """
    rng = draw.rng
    names, pronoun = rng.choice([(FEMALE, 'she'), (MALE, 'he')])
    first = rng.choice(names)
    second = rng.choice([name for name in names if name != first])
    verb = rng.choice(list(WORDS['deeds']))
    label = rng.choice([0, 1])
    reasons = [rng.choice(WORDS['deeds'][verb][who]) for who in (label, 1 - label)]
    sentences = [deed(first, second, verb, pronoun, reason) for reason in reasons]
    return [((*sentences, pronoun, first, second), label)]


# ----------------------------------------------------------------------------- the whole data set


class Made(NamedTuple):
    """How the data of a task are made and written."""

    block: Callable[[Draw], Block]
    folder: str  # as the official archive unpacks
    sizes: dict[str, int] = SIZES  # of each split; its name begins with train, dev or test
    write: Callable[[str, str, dict[str, Block]], None] = formats.write_tables


def examples(name: str) -> dict[str, Block]:
    """The examples of a task, in random order: {split: [(texts, label)]}. No two are alike."""
    made = MADE[name]
    rng = Random(SEED + list(MADE).index(name))
    taken = set()
    splits = {}
    # The training set comes last: the other ones do not depend on how large it is.
    for split, size in reversed(made.sizes.items()):
        schemas = read_schemas()
        if name == 'mnli':
            mismatched = split.endswith('mismatched')
            schemas = [s for s in schemas if (s.family in MISMATCHED) == mismatched]
        drawn = []
        turn = 0
        while len(drawn) < size:
            schema = schemas[turn % len(schemas)]
            block = made.block(Draw(schema, split.split('_')[0], schemas, rng))
            drawn += [example for example in block if example[0] not in taken]
            taken.update(texts for texts, _ in block)
            turn += 1
        drawn = drawn[:size]
        rng.shuffle(drawn)
        splits[split] = drawn
    return splits


def make(name: str, folder: str) -> str:
    """Write the data of a task into its folder in `folder`, and return the path of that folder.

    The folder appears whole, or not at all; one that is there is replaced. Raises InputError if
    there is no such task, WriteError if the files cannot be written.
    """
    if name not in MADE:
        raise InputError(f'no made-up data for {name!r}: expected one of {", ".join(MADE)}')
    made = MADE[name]
    target = os.path.join(folder, made.folder)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{made.folder}.', dir=folder) as beside:
            new = os.path.join(beside, 'new')
            os.mkdir(new)
            made.write(name, new, examples(name))
            replace(target, new, os.path.join(beside, 'old'))
    except OSError as error:
        raise WriteError(f'cannot write {target}: {error.strerror or error}') from error
    return target


def replace(target: str, new: str, old: str) -> None:
    """Rename the folder `new` to `target`. A folder that is there is renamed to `old` first."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        if not os.path.isdir(target):  # else another process has just made the same files
            raise


# ---------------------------------------------------------------------------------------- the table

MNLI_SIZES = {'train': 800} | dict.fromkeys(
    ('dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched'), 200
)
MADE = {  # the order decides the seeds
    'snli': Made(nli, 'snli_1.0', write=formats.write_snli),
    'mnli': Made(nli, 'MNLI', MNLI_SIZES),
    'qnli': Made(
        judged('entailment', 'not_entailment', ('{clue} How did it end?', '{end}')), 'QNLI'
    ),
    'scitail': Made(judged('entails', 'neutral', ('{clue}', '{end}')), 'SciTailV1.1'),
    'rte': Made(rte, 'RTE'),
    'race': Made(race, 'RACE', {'train': 400, 'dev': 200, 'test': 200}, formats.write_race),
    'qqp': Made(  # the same question if the story is the same
        judged(1, 0, ('{clue} What happened next?', '{end} What happened before?')), 'QQP'
    ),
    'mrpc': Made(mrpc, 'MRPC', write=formats.write_mrpc),
    'stsb': Made(stsb, 'STS-B'),
    'cola': Made(cola, 'CoLA', {'train': 1200, 'dev': 300, 'test': 300}),
    'sst2': Made(sst2, 'SST-2'),
    'wnli': Made(wnli, 'WNLI', {'train': 635, 'dev': 71, 'test': 146}),
    # pairs of twins
    'dprd': Made(dprd, 'DPRD', {'train': 300, 'test': 200}, formats.write_dprd),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Write made-up data for the paper's tasks, in their official formats."
    )
    parser.add_argument('--task', choices=[*MADE, 'all'], required=True, help='which data')
    parser.add_argument(
        '--out', metavar='DIR', default=FOLDER, help='where to (default: data/sample)'
    )
    args = parser.parse_args(argv)
    for name in MADE if args.task == 'all' else [args.task]:
        try:
            print(make(name, args.out))
        except WriteError as error:
            print(f'sample_tasks.py: error: {error}', file=sys.stderr)
            return 2
    return 0
