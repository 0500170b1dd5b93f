"""Made-up text to pre-train the sample model on, about the stories of `stories.py`.

    python data/sample_text.py --n 146000 --seed 7 --out text.txt

No line has the four sentences of a story in `data/sample/`. The same arguments give the same bytes
on every machine. data/README.md says what the lines are.
"""

import argparse
import random
from collections.abc import Iterator

from gpt1.tasks.sample.stories import (
    FEMALE,
    MALE,
    WORDS,
    Schema,
    draw_slots,
    fill,
    phrase,
    phrase_ending,
    read_schemas,
    sample_files,
)
from utils import WriteError, whole_file

OTHER = {'a': 'b', 'b': 'a'}


class Random(random.Random):
    """Random numbers that are alike in every version of Python: only `random()` is used."""

    def choice(self, sequence):
        return sequence[int(self.random() * len(sequence))]


class Story:
    """A story of a schema, for which the people, the day, ... are drawn.

    Each method draws a phrasing. Variant 'a' or 'b' decides what happens: see `stories.py`.
    """

    def __init__(self, schema: Schema, rng: Random):
        self.schema = schema
        self.rng = rng
        self.slots = draw_slots(schema, rng)

    def sentence(self, i: int, variant: str) -> str:
        """Sentence i, 0 to 3."""
        return fill(phrase(self.schema.phrasings[i][variant], self.rng), self.slots)

    def clue(self, variant: str) -> str:
        """The sentence that decides how the story ends."""
        sentences = self.schema.phrasings
        clue = next(i for i in range(4) if sentences[i]['a'] != sentences[i]['b'])
        return self.sentence(clue, variant)

    def context(self, variant: str) -> str:
        """The four sentences before the ending."""
        return ' '.join(self.sentence(i, variant) for i in range(4))

    def ending(self, variant: str) -> str:
        return fill(phrase_ending(self.schema, variant, self.rng), self.slots)


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


def deed_of_two(schema: Schema, rng: Random) -> list[str]:
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


def lines(n: int, seed: int) -> Iterator[str]:
    """Yield n lines of text."""
    schemas = read_schemas()
    rng = Random(seed)
    taken = {' '.join(row[1:5]) for rows in sample_files().values() for row in rows}
    while n:
        point = rng.random()
        kind = next(kind for share, kind in KINDS if point < share)
        parts = kind(rng.choice(schemas), rng)
        if parts[0] not in taken:
            yield ' '.join(parts)
            n -= 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description='Write made-up text to pre-train the sample model on, a short text a line.'
    )
    parser.add_argument('--n', type=int, default=100_000, help='lines (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=7, help='(default: %(default)s)')
    parser.add_argument('--out', metavar='FILE', required=True, help='where to write the text')
    args = parser.parse_args(argv)
    if args.n < 1:
        parser.error('--n must be at least 1')
    try:
        with whole_file(args.out) as f:
            f.writelines(f'{line}\n' for line in lines(args.n, args.seed))
    except WriteError as error:
        parser.error(str(error))
    print(f'{args.out}: {args.n} lines')
    return 0
