"""What the paper and others have published: the tables of `published.toml`, which names sources."""

import math
import tomllib
from pathlib import Path
from typing import NamedTuple

from datasets import TASKS

PAPER = tomllib.loads(Path(__file__).with_suffix('.toml').read_text(encoding='utf-8'))
OWN = ('paper', "GLUE's leaderboard", "BERT's table")  # who published scores of the paper's model


class Column(NamedTuple):
    """A column of a table of the paper: a data set, one of its sets of examples, its metric."""

    dataset: str
    subset: str  # a key of `Data.test`, or 'all' for all of them together
    metric: str
    title: str
    best_before: float  # the best of the others in the paper, ensembles included
    note: str = ''  # about that one


TABLES = {
    int(number): [Column(*row) for row in table['rows']]
    for number, table in PAPER['tables'].items()
}
TITLES = {int(number): table['title'] for number, table in PAPER['tables'].items()}
TITLES[5] = PAPER['ablations']['title']
GLUE = PAPER['glue']
ABLATION_COLUMNS = PAPER['ablations']['columns']
ABLATIONS = PAPER['ablations']['rows']
LAYERS = PAPER['layers']
ZERO_SHOT = PAPER['zero_shot']['sets']
ZERO_SHOT_TITLES = {name: part['title'] for name, part in ZERO_SHOT.items()}


def scores_of(column: Column) -> list[tuple[str, float]]:
    """Return who published which scores of GPT-1 on the test set of a column."""
    return [
        (found.who, found.value)
        for found in TASKS[column.dataset].published
        if (found.on, found.split, found.metric) == ('test', column.subset, column.metric)
    ]


def paper_score(column: Column) -> float | None:
    """Return the score of GPT-1 in the paper. None where it has none."""
    return next((value for who, value in scores_of(column) if who.startswith('paper')), None)


def reproduced_score(column: Column) -> tuple[str, float] | None:
    """Return who reported the best reproduction on the same set, and its score, or None."""
    others = [(who, value) for who, value in scores_of(column) if not who.startswith(OWN)]
    return max(others, key=lambda pair: pair[1], default=None)


def normalize(name: str, score: float, is_sample: bool) -> float:
    """Return a score on figure 2's scale: 0 is a random guess, 1 the best of the time."""
    chance = ZERO_SHOT[name]['chance']
    best = 100.0 if is_sample else ZERO_SHOT[name]['best']
    return (score - chance) / (best - chance)


def standard_error(name: str, score: float, n: int) -> float:
    """Return the standard error that a zero-shot score has because its set is a sample of `n`.

    Of accuracy it is the binomial's. Of Matthews' correlation it is that of two classes of equal
    size, where the accuracy is (1 + score) / 2.
    """
    share = score / 100
    if ZERO_SHOT[name]['metric'] == 'matthews':
        return 100 * math.sqrt((1 - share**2) / n)
    return 100 * math.sqrt(share * (1 - share) / n)
