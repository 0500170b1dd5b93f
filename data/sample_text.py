"""Write made-up text to pre-train the sample model on, about stories as those of the sample.

    python data/sample_text.py --n 146000 --seed 7 --out text.txt

No line has the four sentences of a story in `sample/`. The same arguments give the same bytes on
every machine. README.md says what the lines are, and explains the schemas.
"""

import argparse
import csv
import os
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from utils import exit_status, whole_file

SAMPLE = os.path.join(FOLDER, 'sample')
with open(os.path.join(SAMPLE, 'words.toml'), 'rb') as f:
    WORDS = tomllib.load(f)
SLOTS = {slot: words.split() for slot, words in WORDS['words'].items()}
FEMALE, MALE = SLOTS.pop('female'), SLOTS.pop('male')
OTHER = {'a': 'b', 'b': 'a'}


class Random(random.Random):
    """Random numbers that are alike in every version of Python: only `random()` is used."""

    def choice(self, sequence):
        return sequence[int(self.random() * len(sequence))]


@dataclass
class Schema:
    """One block of the table.

    `phrasings[i][v]` are the ways to say sentence i (0 to 4; 4 is the ending) in variant v, 'a' or
    'b'; `moods[v]` says whether the ending of variant v is a happy one, '+' or '-'.
    """

    slots: dict = field(default_factory=dict)
    phrasings: list = field(default_factory=lambda: [{} for _ in range(5)])
    moods: dict = field(default_factory=dict)


def read_schemas() -> list[Schema]:
    """The schemas. A sentence without a letter has the same phrasings in both variants."""
    with open(os.path.join(SAMPLE, 'schemas.txt'), encoding='utf-8') as f:
        table = f.read()
    schemas = []
    for block in table.strip().split('\n\n'):
        schema = Schema()
        _, *lines = re.sub(r'\n +', ' ', block).split('\n')
        for line in lines:
            key, rest = line.split(maxsplit=1)
            if rest.startswith('= '):
                schema.slots[key] = rest[2:].split(' | ')
                continue
            for variant in key[1:2] or 'ab':
                schema.phrasings[int(key[0]) - 1][variant] = rest.split(' | ')
            if key[2:]:
                schema.moods[variant] = key[2]
        schemas.append(schema)
    return schemas


class Story:
    """A story of a schema, for which the people, the day, ... are drawn.

    Each method draws a phrasing. Variant 'a' or 'b' decides what happens.
    """

    def __init__(self, schema: Schema, rng: Random):
        self.schema = schema
        self.rng = rng
        slots = {slot: rng.choice(values) for slot, values in {**SLOTS, **schema.slots}.items()}
        for who, number in ('name', ''), ('friend', '2'):
            names, pronouns = rng.choice([(FEMALE, 'she her her'), (MALE, 'he him his')])
            slots[who] = rng.choice([name for name in names if name != slots.get('name')])
            slots.update(zip((f'he{number}', f'him{number}', f'his{number}'), pronouns.split()))
        self.slots = slots

    def phrase(self, i: int, variant: str) -> str:
        """Sentence i with its (one|another) choices made and its slots still open."""
        return re.sub(
            r'\((.+?)\)',
            lambda choice: self.rng.choice(choice[1].split('|')),
            self.rng.choice(self.schema.phrasings[i][variant]),
        )

    def fill(self, sentence: str) -> str:
        """A sentence with its slots filled, a or an chosen, and a capital letter at the start."""
        sentence = re.sub(
            r'\ba/an (?=(.))',
            lambda article: 'an ' if article[1] in 'aeiou' else 'a ',
            sentence.format_map(self.slots),
        )
        return sentence[0].upper() + sentence[1:]

    def clue(self, variant: str) -> str:
        """The sentence that decides how the story ends."""
        sentences = self.schema.phrasings
        clue = next(i for i in range(4) if sentences[i]['a'] != sentences[i]['b'])
        return self.fill(self.phrase(clue, variant))

    def context(self, variant: str) -> str:
        """The four sentences before the ending."""
        return ' '.join(self.fill(self.phrase(i, variant)) for i in range(4))

    def ending(self, variant: str) -> str:
        """The opening, which tells the mood, and the ending."""
        ending = self.phrase(4, variant)
        opening = self.rng.choice(WORDS['openings'][self.schema.moods[variant]])
        return self.fill(f'{opening}, {ending[0].lower()}{ending[1:]}')


def beginning(story: Story, variant: str, rng: Random) -> list[str]:
    """The four sentences of a story before its ending, or just the one that decides how it ends.

    Half of the beginnings say next whether the story was a happy one.
    """
    told = story.context(variant) if rng.random() < 0.15 else story.clue(variant)
    is_happy = 'yes' if story.schema.moods[variant] == '+' else 'no'
    feeling = rng.choice(WORDS['feelings'][is_happy])
    return [told, feeling] if rng.random() < 0.5 else [told]


# A function of each kind of line returns its parts. The first one has the four sentences of a
# story, if the line has them.


def whole_story(schema: Schema, rng: Random) -> list[str]:
    """A story, sometimes with a question before its ending."""
    variant = rng.choice('ab')
    story = Story(schema, rng)
    question = [rng.choice(WORDS['questions']['end'])] if rng.random() < 0.1 else []
    return [*beginning(story, variant, rng), *question, story.ending(variant)]


def judged_story(schema: Schema, rng: Random) -> list[str]:
    """A story, its right ending or its wrong one, and which one it is.

    Most have a question before the ending, which says that it may be the wrong one. If none had
    one, the endings of a story would contradict each other, and the model would learn more slowly
    how stories end.
    """
    variant = rng.choice('ab')
    story = Story(schema, rng)
    question = [rng.choice(WORDS['questions']['guess'])] if rng.random() < 2 / 3 else []
    is_right = rng.choice(['yes', 'no'])
    ending = story.ending(variant if is_right == 'yes' else OTHER[variant])
    verdict = WORDS['verdicts'][is_right]
    return [*beginning(story, variant, rng), *question, ending, rng.choice(verdict)]


def deed_of_two(_: Schema, rng: Random) -> list[str]:
    """What one person did to another, and why, with names instead of pronouns."""
    names = rng.choice([FEMALE, MALE])
    people = [rng.choice(names), rng.choice(names)]
    while people[0] == people[1]:
        people[1] = rng.choice(names)
    deeds = WORDS['deeds']
    verb = rng.choice(list(deeds))
    i = rng.choice([0, 1])
    reason = rng.choice(deeds[verb][i])
    return [f'{people[0]} {verb} {people[1]} because {people[i]} {reason}.']


KINDS = (  # of a line, with the sums of their shares
    (0.62, whole_story),
    (0.96, judged_story),
    (1.0, deed_of_two),
)


def contexts_of_the_sample() -> set[str]:
    contexts = set()
    for name in filter(lambda name: name.endswith('.csv'), os.listdir(SAMPLE)):
        with open(os.path.join(SAMPLE, name), encoding='utf-8', newline='') as f:
            contexts |= {' '.join(row[1:5]) for row in csv.reader(f)}
    return contexts


def lines(n: int, seed: int) -> Iterator[str]:
    schemas = read_schemas()
    rng = Random(seed)
    taken = contexts_of_the_sample()
    while n > 0:
        point = rng.random()
        kind = next(kind for share, kind in KINDS if point < share)
        parts = kind(rng.choice(schemas), rng)
        if parts[0] not in taken:
            yield ' '.join(parts)
            n -= 1


def run(args) -> None:
    with whole_file(args.out) as f:
        f.writelines(f'{line}\n' for line in lines(args.n, args.seed))
    print(f'{args.out}: {args.n} lines')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description='Write made-up text to pre-train the sample model on, a short text a line.'
    )
    parser.add_argument('--n', type=int, default=100_000, help='lines (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=7, help='(default: %(default)s)')
    parser.add_argument('--out', metavar='FILE', required=True, help='where to write the text')
    sys.exit(exit_status('sample_text.py', run, parser.parse_args()))
