"""Made-up text to pre-train the sample model on, about the stories of `stories.py`.

    python data/sample_text.py --n 146000 --seed 7 --out text.txt

No line has the four sentences of a story in `data/sample/`. The same arguments give the same bytes
on every machine. data/README.md says what the lines are.
"""

import argparse
from collections.abc import Iterator

from gpt1.tasks.sample.stories import FEMALE, MALE, WORDS, Schema, read_schemas, sample_files
from gpt1.tasks.sample.tasks import OTHER, Random, Story, deed, two_phrasings
from utils import WriteError, whole_file


def beginning(story: Story, variant: str, rng: Random) -> list[str]:
    """The four sentences of a story before its ending, or just the one that decides how it ends.

    Half of the beginnings say next whether the story was a happy one.
    """
    told = story.context(variant) if rng.random() < 0.15 else story.clue(variant)
    is_happy = 'yes' if story.is_happy(variant) else 'no'
    feeling = rng.choice(WORDS['feelings'][is_happy])
    return [told, feeling] if rng.random() < 0.5 else [told]


# A function of each kind of line returns its parts. The first one has the four sentences of a
# story, if the line has them.


def whole_story(schema: Schema, rng: Random) -> list[str]:
    """A story, sometimes with a question before its ending."""
    variant = rng.choice('ab')
    story = Story(schema, 'text', rng)
    question = [rng.choice(WORDS['questions']['end'])] if rng.random() < 0.1 else []
    return [*beginning(story, variant, rng), *question, story.ending(variant)]


def judged_story(schema: Schema, rng: Random) -> list[str]:
    """A story, its right ending or its wrong one, and which one it is.

    Most have a question before the ending, which says that it may be the wrong one. If none had
    one, the endings of a story would contradict each other, and the model would learn more slowly
    how stories end.
    """
    variant = rng.choice('ab')
    story = Story(schema, 'text', rng)
    question = [rng.choice(WORDS['questions']['guess'])] if rng.random() < 2 / 3 else []
    is_right = rng.choice(['yes', 'no'])
    ending = story.ending(variant if is_right == 'yes' else OTHER[variant])
    verdict = WORDS['verdicts'][is_right]
    return [*beginning(story, variant, rng), *question, ending, rng.choice(verdict)]


def deed_of_two(schema: Schema, rng: Random) -> list[str]:
    """What one person did to another, and why, with names instead of pronouns."""
    names = rng.choice([FEMALE, MALE])
    people = two_phrasings(lambda: rng.choice(names))
    deeds = WORDS['deeds']
    verb = rng.choice(list(deeds))
    i = rng.choice([0, 1])
    return [deed(*people, verb, people[i], rng.choice(deeds[verb][i]))]


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
