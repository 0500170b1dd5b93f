"""Made-up text to pre-train the sample model on.

    python data/sample_text.py --n 200000 --seed 7 --out text.txt

Each line is a short text about the stories of `sample_stories.py`, in all of their phrasings.
Most lines are stories with their endings. The others tell what people say of stories:

- a story with its right ending, its wrong one or that of another story, and which one it was
- two sentences, and whether they say the same, the opposite, or something else
- a question about a story, a sentence, and whether it is the answer
- a story without its ending, and whether it was very positive or very negative
- what one person did to another, and why

Seven of ten stories are told by the one sentence that decides how they end.

No line has the four sentences of a story in `data/sample/`. The same arguments give the same bytes
on every machine.
"""

import argparse
import sys
from collections.abc import Iterator

from sample_stories import FEMALE, MALE, Schema, parse_schemas, sample_files, write_whole
from sample_tasks import DEEDS, OTHER, Random, Story, another, deed, two_phrasings

VERDICTS = {  # on an ending
    'right': ('That is how it went.', 'That fits the story.', 'Everybody had expected that.'),
    'wrong': ('That is not how it went.', 'That does not fit the story.', 'Nobody expected that.'),
    'other': ('That is another story.', 'That belongs to another story.'),
}
COMPARISONS = {  # of two sentences
    'same': ('Both say the same.', 'That means the same.'),
    'opposite': ('That is the opposite.', 'Only one of them is true.'),
    'other': ('That is something else.', 'The two have nothing to do with each other.'),
}
ANSWERS = {
    True: ('That is the answer.', 'That answers the question.'),
    False: ('That is no answer.', 'That does not answer the question.'),
}
FEELINGS = {
    True: ('It was very positive.', 'It was all very positive.', 'Very positive.'),
    False: ('It was very negative.', 'It was all very negative.', 'Very negative.'),
}
NEXT = ('What happened then?', 'What happened next?')
END = ('How did it end?', 'The story ended like this:')


def beginning(story: Story, variant: str, rng: Random) -> str:
    """The four sentences of a story before its ending, or just the one that decides how it ends."""
    return story.context(variant) if rng.random() < 0.3 else story.clue(variant)


# A function of each kind of line returns its parts. The first one has the four sentences of a
# story, if the line has them.


def whole_story(schema: Schema, schemas: list[Schema], rng: Random) -> list[str]:
    """A story, sometimes with a question before its ending."""
    variant = rng.choice('ab')
    story = Story(schema, 'text', rng)
    question = [rng.choice(END)] if rng.random() < 0.1 else []
    return [beginning(story, variant, rng), *question, story.ending(variant)]


def judged_story(schema: Schema, schemas: list[Schema], rng: Random) -> list[str]:
    """A story with one of three endings, and which one it is."""
    variant = rng.choice('ab')
    story = Story(schema, 'text', rng)
    verdict = rng.choice(list(VERDICTS))
    if verdict == 'right':
        ending = story.ending(variant)
    elif verdict == 'wrong':
        ending = story.ending(OTHER[variant])
    else:
        other = Story(another(schema, schemas, rng), 'text', rng, story.people)
        ending = other.ending(rng.choice('ab'))
    return [beginning(story, variant, rng), ending, rng.choice(VERDICTS[verdict])]


def comparison(schema: Schema, schemas: list[Schema], rng: Random) -> list[str]:
    """Two clues or two endings, and whether they say the same."""
    variant = rng.choice('ab')
    story = Story(schema, 'text', rng)
    part = rng.choice(['clue', 'ending'])

    def sentence(story: Story, variant: str) -> str:
        return story.clue(variant) if part == 'clue' else story.ending(variant, opening=False)

    verdict = rng.choice(list(COMPARISONS))
    if verdict == 'same':
        first, second = two_phrasings(lambda: sentence(story, variant))
    elif verdict == 'opposite':
        first, second = sentence(story, variant), sentence(story, OTHER[variant])
    else:
        other = Story(another(schema, schemas, rng), 'text', rng, story.people)
        first, second = sentence(story, variant), sentence(other, variant)
    return [first, second, rng.choice(COMPARISONS[verdict])]


def answer(schema: Schema, schemas: list[Schema], rng: Random) -> list[str]:
    """The first sentence of a story, a question, and a clue of this story or of another one."""
    variant = rng.choice('ab')
    story = other = Story(schema, 'text', rng)
    is_right = rng.choice([True, False])
    if not is_right:
        other = Story(another(schema, schemas, rng), 'text', rng, story.people)
    verdict = rng.choice(ANSWERS[is_right])
    return [story.sentence(0, variant), rng.choice(NEXT), other.clue(variant), verdict]


def feeling(schema: Schema, schemas: list[Schema], rng: Random) -> list[str]:
    """A story without its ending, and whether it was a happy one."""
    variant = rng.choice('ab')
    story = Story(schema, 'text', rng)
    return [beginning(story, variant, rng), rng.choice(FEELINGS[story.is_happy(variant)])]


def deed_of_two(schema: Schema, schemas: list[Schema], rng: Random) -> list[str]:
    """What one person did to another, and why, with names instead of pronouns."""
    names = rng.choice([FEMALE, MALE])
    people = two_phrasings(lambda: rng.choice(names))
    verb = rng.choice(list(DEEDS))
    i = rng.choice([0, 1])
    return [deed(*people, verb, people[i], rng.choice(DEEDS[verb][i]))]


KINDS = (  # the share of lines of each kind
    (0.60, whole_story),
    (0.14, judged_story),
    (0.09, comparison),
    (0.05, answer),
    (0.08, feeling),
    (0.04, deed_of_two),
)


def lines(n: int, seed: int) -> Iterator[str]:
    """Yield n lines of text."""
    schemas = parse_schemas()
    rng = Random(seed)
    taken = {' '.join(row[1:5]) for rows in sample_files().values() for row in rows}
    while n:
        kind = draw_kind(rng)
        parts = kind(rng.choice(schemas), schemas, rng)
        if parts[0] not in taken:
            yield ' '.join(parts)
            n -= 1


def draw_kind(rng: Random):
    """Return one of the functions in KINDS, each as often as its share says."""
    point = rng.random()
    for share, kind in KINDS:
        if point < share:
            return kind
        point -= share
    return kind


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
        write_whole(
            args.out, lambda f: f.writelines(f'{line}\n' for line in lines(args.n, args.seed))
        )
    except OSError as error:
        parser.error(f'cannot write: {error}')
    print(f'{args.out}: {args.n} lines')
    return 0


if __name__ == '__main__':
    sys.exit(main())
