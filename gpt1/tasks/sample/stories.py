"""Made-up stories in the format of the Story Cloze Test: everything runs without downloads.

    python data/sample_stories.py

writes the two CSV files in data/sample again, byte for byte. data/README.md says how a story is
made, and explains the schemas in `data/sample/schemas.txt`.
"""

import argparse
import csv
import functools
import os
import random
import re
import sys
import tomllib
import uuid
from dataclasses import dataclass, field

from gpt1 import ROOT
from gpt1.tasks import rocstories
from utils import WriteError, whole_file

with open(os.path.join(os.path.dirname(__file__), 'words.toml'), 'rb') as f:
    WORDS = tomllib.load(f)
SLOTS = {slot: words.split() for slot, words in WORDS['words'].items()}
FEMALE, MALE = SLOTS.pop('female'), SLOTS.pop('male')
FILES = tuple(names[0] for names in rocstories.FILES.values())  # val and test
ROWS = 1871  # as many as each of the real files has
SEED = 2018  # of the two files
FOLDER = os.path.join(ROOT, 'data', 'sample')


@dataclass
class Schema:
    """One block of the table.

    `phrasings[i][v]` are the ways to say sentence i (0 to 4; 4 is the ending) in variant v, 'a' or
    'b'; `moods[v]` says whether the ending of variant v is a happy one, '+' or '-'.
    """

    family: str
    title: str
    slots: dict = field(default_factory=dict)
    phrasings: list = field(default_factory=lambda: [{} for _ in range(5)])
    moods: dict = field(default_factory=dict)


@functools.cache
def read_schemas() -> tuple[Schema, ...]:
    """The schemas. A sentence without a letter has the same phrasings in both variants."""
    with open(os.path.join(FOLDER, 'schemas.txt'), encoding='utf-8') as f:
        table = f.read()
    schemas = []
    for block in table.strip().split('\n\n'):
        head, *lines = re.sub(r'\n +', ' ', block).split('\n')
        schema = Schema(*head.split(': '))
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
    return tuple(schemas)


def phrase(phrasings, rng) -> str:
    """One of the phrasings, with its (one|another) choices made and its slots still open."""
    return re.sub(
        r'\((.+?)\)', lambda choice: rng.choice(choice[1].split('|')), rng.choice(phrasings)
    )


def phrase_ending(schema: Schema, variant: str, rng) -> str:
    """An ending, its slots still open: the opening, which tells the mood, and a phrasing."""
    ending = phrase(schema.phrasings[4][variant], rng)
    opening = rng.choice(WORDS['openings'][schema.moods[variant]])
    return f'{opening}, {ending[0].lower()}{ending[1:]}'


def draw_slots(schema: Schema, rng) -> dict[str, str]:
    """What the slots of one story stand for: two different persons, a day, a thing, ..."""
    slots = {slot: rng.choice(values) for slot, values in {**SLOTS, **schema.slots}.items()}
    for who, number in ('name', ''), ('friend', '2'):
        names, pronouns = rng.choice([(FEMALE, 'she her her'), (MALE, 'he him his')])
        slots[who] = rng.choice([name for name in names if name != slots.get('name')])
        slots.update(zip((f'he{number}', f'him{number}', f'his{number}'), pronouns.split()))
    return slots


def fill(sentence: str, slots: dict[str, str]) -> str:
    """The sentence with its slots filled, a or an chosen, and a capital letter at the start."""
    sentence = re.sub(
        r'\ba/an (?=(.))',
        lambda article: 'an ' if article[1] in 'aeiou' else 'a ',
        sentence.format_map(slots),
    )
    return sentence[0].upper() + sentence[1:]


def draw_context(schema: Schema, variant: str, rng, taken: set) -> tuple[dict, tuple[str, ...]]:
    """The slots of a new story and its four sentences, which are not in `taken` but then are."""
    while True:
        slots = draw_slots(schema, rng)
        context = tuple(fill(phrase(schema.phrasings[i][variant], rng), slots) for i in range(4))
        if context not in taken:
            taken.add(context)
            return slots, context


def labelled_rows(n: int, rng, taken: set) -> list[list]:
    """`n` rows of a CSV file, with contexts that are not in `taken`, in random order.

    The two stories of a pair have the same schema and the same two endings at the same two
    positions, but different variants, so different answers (and names, things and neutral
    sentences of their own). Schemas take turns; within a schema, so do the two orders of the
    endings.
    """
    schemas = read_schemas()
    rows = []
    for pair in range((n + 1) // 2):
        turn, which = divmod(pair, len(schemas))
        schema = schemas[which]
        order = ('ab', 'ba')[(turn + which) % 2]
        endings = [phrase_ending(schema, variant, rng) for variant in order]
        for variant in 'ab':
            slots, context = draw_context(schema, variant, rng, taken)
            story_id = uuid.UUID(int=rng.getrandbits(128), version=4)
            filled = [fill(ending, slots) for ending in endings]
            rows.append([str(story_id), *context, *filled, order.index(variant) + 1])
    rows = rows[:n]
    rng.shuffle(rows)
    return rows


def sample_files() -> dict[str, list[list]]:
    """The two files of the sample, name to rows. No context is in both, or twice in one."""
    rng = random.Random(SEED)
    taken = set()
    return {name: labelled_rows(ROWS, rng, taken) for name in FILES}


def write_sample(folder: str = FOLDER) -> None:
    """Write the two CSV files into `folder`: the same bytes on any machine. Raises WriteError."""
    for name, rows in sample_files().items():
        with whole_file(os.path.join(folder, name)) as f:
            csv.writer(f, lineterminator='\n').writerows([rocstories.COLUMNS, *rows])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description='Write the two CSV files of the sample stories in data/sample, byte for byte.'
    )
    parser.parse_args(argv)
    try:
        write_sample()
    except WriteError as error:
        print(f'sample_stories.py: error: {error}', file=sys.stderr)
        return error.status
    print(f'{FOLDER}: {len(FILES)} files, {ROWS} stories each')
    return 0
