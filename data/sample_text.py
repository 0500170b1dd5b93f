"""Write made-up text to pre-train the sample model on, about stories as those of the sample.

    python data/sample_text.py --n 146000 --seed 7 --out text.txt

No line has the four sentences of a story in `sample/`. The same arguments give the same bytes on
every machine. README.md says what the lines are, and explains the schemas.
"""

import argparse
import os
import random
import re
import sys
import tomllib

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from datasets import SAMPLE, rocstories
from utils import exit_status, whole_file

with open(os.path.join(SAMPLE, 'words.toml'), 'rb') as f:
    WORDS = tomllib.load(f)
SLOTS = {slot: words.split() for slot, words in WORDS['words'].items()}
FEMALE, MALE = SLOTS.pop('female'), SLOTS.pop('male')
OTHER = {'a': 'b', 'b': 'a'}


class Random(random.Random):
    """Random numbers that are alike in every version of Python: only `random()` is used."""

    def choice(self, sequence):
        return sequence[int(self.random() * len(sequence))]


def read_schemas() -> list[tuple]:
    """Of each schema its own slots, its phrasings and the moods of its endings.

    `phrasings[i][v]` are the ways to say sentence i (0 to 4; 4 is the ending) in variant v, 'a' or
    'b'. `moods[v]` is '+' if the ending of variant v is a happy one, or '-'. A sentence without a
    letter has the same phrasings in both variants.
    """
    with open(os.path.join(SAMPLE, 'schemas.txt'), encoding='utf-8') as f:
        table = f.read()
    schemas = []
    for block in table.strip().split('\n\n'):
        slots, phrasings, moods = {}, [{} for _ in range(5)], {}
        _, *lines = re.sub(r'\n +', ' ', block).split('\n')
        for line in lines:
            key, rest = line.split(maxsplit=1)
            if rest.startswith('= '):
                slots[key] = rest[2:].split(' | ')
                continue
            for variant in key[1:2] or 'ab':
                phrasings[int(key[0]) - 1][variant] = rest.split(' | ')
            if key[2:]:
                moods[variant] = key[2]
        schemas.append((slots, phrasings, moods))
    return schemas


class Story:
    """A story of a schema. The people, the day, ... are drawn, and a phrasing in each method."""

    def __init__(self, schema: tuple, rng: Random):
        self.rng = rng
        own_slots, self.phrasings, self.moods = schema
        slots = {slot: rng.choice(values) for slot, values in {**SLOTS, **own_slots}.items()}
        for who, number in ('name', ''), ('friend', '2'):
            names, pronouns = rng.choice([(FEMALE, 'she her her'), (MALE, 'he him his')])
            slots[who] = rng.choice([name for name in names if name != slots.get('name')])
            slots.update(zip((f'he{number}', f'him{number}', f'his{number}'), pronouns.split()))
        self.slots = slots

    def phrase(self, phrasings: list[str]) -> str:
        """A sentence with its (one|another) choices made and its slots still open."""
        choose = self.rng.choice
        choices, phrasing = r'\((.+?)\)', choose(phrasings)
        return re.sub(choices, lambda match: choose(match[1].split('|')), phrasing)

    def fill(self, sentence: str) -> str:
        """A sentence with its slots filled, a or an chosen, and a capital letter at the start."""
        sentence = re.sub(
            r'\ba/an (?=(.))',
            lambda article: 'an ' if article[1] in 'aeiou' else 'a ',
            sentence.format_map(self.slots),
        )
        return sentence[0].upper() + sentence[1:]

    def context(self, variant: str, whole: bool) -> str:
        """The four sentences before the ending, or just the one that decides how it ends."""
        kept = [p for p in self.phrasings[:4] if whole or p['a'] != p['b']]
        return ' '.join(self.fill(self.phrase(phrasings[variant])) for phrasings in kept)

    def ending(self, variant: str) -> str:
        """The opening, which tells the mood, and the ending."""
        ending = self.phrase(self.phrasings[4][variant])
        opening = self.rng.choice(WORDS['openings'][self.moods[variant]])
        return self.fill(f'{opening}, {ending[0].lower()}{ending[1:]}')


def beginning(story: Story, variant: str, rng: Random) -> list[str]:
    """The context of a story. Half of them say next whether the story was a happy one."""
    told = story.context(variant, whole=rng.random() < 0.15)
    is_happy = 'yes' if story.moods[variant] == '+' else 'no'
    feeling = rng.choice(WORDS['feelings'][is_happy])
    return [told, feeling] if rng.random() < 0.5 else [told]


# The first part that a function returns has the four sentences of a story, if the line has them.


def whole_story(schema: tuple, rng: Random) -> list[str]:
    """A story, sometimes with a question before its ending."""
    variant = rng.choice('ab')
    story = Story(schema, rng)
    question = [rng.choice(WORDS['questions']['end'])] if rng.random() < 0.1 else []
    return [*beginning(story, variant, rng), *question, story.ending(variant)]


def judged_story(schema: tuple, rng: Random) -> list[str]:
    """A story, its right ending or its wrong one, and which one it is.

    The question before most endings says that they may be wrong: else they would contradict those
    of whole stories, and the model would learn more slowly how stories end.
    """
    variant = rng.choice('ab')
    story = Story(schema, rng)
    question = [rng.choice(WORDS['questions']['guess'])] if rng.random() < 2 / 3 else []
    is_right = rng.choice(['yes', 'no'])
    ending = story.ending(variant if is_right == 'yes' else OTHER[variant])
    verdict = WORDS['verdicts'][is_right]
    return [*beginning(story, variant, rng), *question, ending, rng.choice(verdict)]


def deed_of_two(_: tuple, rng: Random) -> list[str]:
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


KINDS = ((0.62, whole_story), (0.96, judged_story), (1.0, deed_of_two))  # and sums of their shares


def run(args) -> None:
    schemas = read_schemas()
    rng = Random(args.seed)
    taken = {example.texts[0] for part in rocstories(SAMPLE) for example in part}
    n_left = args.n
    with whole_file(args.out) as f:
        while n_left > 0:
            point = rng.random()
            kind = next(kind for share, kind in KINDS if point < share)
            parts = kind(rng.choice(schemas), rng)
            if parts[0] not in taken:
                f.write(f'{" ".join(parts)}\n')
                n_left -= 1
    print(f'{args.out}: {args.n} lines')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description='Write made-up text to pre-train the sample model on, a short text a line.'
    )
    parser.add_argument('--n', type=int, default=100_000, help='lines (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=7, help='(default: %(default)s)')
    parser.add_argument('--out', metavar='FILE', required=True, help='where to write the text')
    sys.exit(exit_status('sample_text.py', run, parser.parse_args()))
