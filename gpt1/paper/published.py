"""What the paper and others have published, as data: tables 2 to 5 and figure 2.

Sources:  Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", its
          tables, and the curves of its figure 2 as read off the PDF; GLUE's leaderboard; the
          programs of others, each named beside its score.

The GPT-1 scores of single data sets are in `datasets.TASKS`, where reports need them too.
"""

from typing import NamedTuple

from datasets import TASKS


class Column(NamedTuple):
    """A column of a table of the paper: a data set, one of its sets of examples, its metric."""

    dataset: str  # a key of `datasets.TASKS`
    subset: str  # a key of `Data.test`, or 'all' for all of them together
    metric: str
    title: str
    best_before: float  # the best of the others in the paper, ensembles included
    note: str = ''  # about that one


# The tables of the paper. Tables 2 and 3 are accuracies.
TABLES = {
    2: (
        Column('mnli', 'matched', 'accuracy', 'MNLI-m', 80.6, 'ensemble of 3'),
        Column('mnli', 'mismatched', 'accuracy', 'MNLI-mm', 80.1, 'ensemble of 3'),
        Column('snli', 'test', 'accuracy', 'SNLI', 89.3, 'ensemble of 5'),
        Column('scitail', 'test', 'accuracy', 'SciTail', 83.3),
        Column('qnli', 'test', 'accuracy', 'QNLI', 82.3),
        Column('rte', 'test', 'accuracy', 'RTE', 61.7),
    ),
    3: (
        Column('rocstories', 'test', 'accuracy', 'Story Cloze', 77.6),
        Column('race', 'middle', 'accuracy', 'RACE-m', 60.2, 'ensemble of 9'),
        Column('race', 'high', 'accuracy', 'RACE-h', 50.3, 'ensemble of 9'),
        Column('race', 'all', 'accuracy', 'RACE', 53.3, 'ensemble of 9'),
    ),
    4: (
        Column('cola', 'test', 'matthews', 'CoLA', 35.0),
        Column('sst2', 'test', 'accuracy', 'SST2', 93.2),
        Column('mrpc', 'test', 'f1', 'MRPC', 86.0),
        Column('stsb', 'test', 'pearson', 'STSB', 81.0),
        Column('qqp', 'test', 'f1', 'QQP', 66.1),
    ),
}
TITLES = {
    2: 'Natural language inference',
    3: 'Question answering and commonsense reasoning',
    4: 'Semantic similarity and classification',
    5: 'Ablations',
}

# GLUE's average: over nine tasks; a task with two scores counts with their mean.
GLUE = {
    'cola': (('test', 'matthews'),),
    'sst2': (('test', 'accuracy'),),
    'mrpc': (('test', 'f1'), ('test', 'accuracy')),
    'stsb': (('test', 'pearson'), ('test', 'spearman')),
    'qqp': (('test', 'f1'), ('test', 'accuracy')),
    'mnli': (('matched', 'accuracy'), ('mismatched', 'accuracy')),
    'qnli': (('test', 'accuracy'),),
    'rte': (('test', 'accuracy'),),
    'wnli': (('test', 'accuracy'),),
}
GLUE_SCORE = 72.8
GLUE_BEST_BEFORE = 68.9
GLUE_REPRODUCED = ('STILTs, first version (arXiv:1811.01088v1): own fine-tuning of GPT-1', 74.6)

# Table 5: columns, then rows of test scores. MNLI is the mean of matched and mismatched. `avg` is
# printed beside them.
ABLATION_COLUMNS = {
    'cola': ('CoLA', 'matthews'),
    'sst2': ('SST2', 'accuracy'),
    'mrpc': ('MRPC', 'f1'),
    'stsb': ('STSB', 'pearson'),
    'qqp': ('QQP', 'f1'),
    'mnli': ('MNLI', 'accuracy'),
    'qnli': ('QNLI', 'accuracy'),
    'rte': ('RTE', 'accuracy'),
}
ABLATIONS = {
    'full': 'transformer with auxiliary LM',
    'scratch': 'transformer without pre-training',
    'no-lm': 'transformer without auxiliary LM',
    'lstm': 'LSTM with auxiliary LM',
}
ABLATION_SCORES = {
    'full': (45.4, 91.3, 82.3, 82.0, 70.3, 81.8, 88.1, 56.0),
    'scratch': (18.9, 84.0, 79.4, 30.9, 65.5, 75.7, 71.2, 53.8),
    'no-lm': (47.9, 92.0, 84.9, 83.2, 69.8, 81.1, 86.9, 54.4),
    'lstm': (30.3, 90.5, 83.2, 71.8, 68.1, 73.7, 81.1, 54.6),
}
ABLATION_AVERAGES = {'full': 74.7, 'scratch': 59.9, 'no-lm': 75.0, 'lstm': 69.1}

# Figure 2, left: accuracy with 0 (nothing), 1 (the embeddings), 2, ... 13 (all) parts transferred.
# Read off the PDF; one pixel is 0.15 points of RACE, 0.06 of MNLI. Training curves are less sure.
LAYERS = {
    ('race', 'valid'): (39.6, 42.0, 41.0, 46.7, 48.3, 50.0, 53.1, 53.8, 54.0, 55.1, 56.3, 58.3)
    + (59.0, 60.1),
    ('race', 'train'): (54.2, 52.1, 51.8, 58.8, 66.4, 71.4, 76.1, 79.0, 79.5, 84.5, 85.7, 91.6)
    + (91.7, 91.8),
    ('mnli', 'valid'): (72.5, 75.2, 74.7, 77.6, 78.2, 78.2, 79.7, 80.2, 81.0, 81.3, 81.6, 82.0)
    + (82.4, 82.4),
    ('mnli', 'train'): (79.5, 83.1, 83.7, 88.9, 89.8, 90.8, 93.3, 94.3, 94.5, 95.7, 96.2, 96.9)
    + (97.3, 97.3),
}

# Figure 2, right: 0 is a random guess, 1 the best single model of the time. An epoch of the
# paper's text had about 9,500 updates. None: below the axis, or not drawn.
EPOCH = 9500
ZERO_SHOT_TITLES = {'cola': 'CoLA', 'sst2': 'SST-2', 'race': 'RACE', 'dprd': 'DPRD'}
ZERO_SHOT_CHANCE = {'cola': 0.0, 'sst2': 50.0, 'race': 25.0, 'dprd': 50.0}  # of a guess
ZERO_SHOT_BEST = {'cola': 35.0, 'sst2': 93.2, 'race': 53.3, 'dprd': 76.4}  # of the time
ZERO_SHOT_UPDATES = (1000, 2000, 4000, 8000, *(EPOCH * n for n in (1, 2, 4, 8, 16, 32, 64, 100)))
ZERO_SHOT = {
    ('sst2', 'transformer'): (0.00, 0.00, 0.03, 0.10, 0.07, 0.47, 0.59, 0.60, 0.64, 0.68)
    + (0.67, 0.68),
    ('sst2', 'lstm'): (None, None, None, None, 0.00, 0.12, 0.26, 0.27, 0.41, 0.31, 0.46, 0.49),
    ('dprd', 'transformer'): (0.08, 0.06, 0.20, 0.28, 0.30, 0.38, 0.44, 0.44, 0.44, 0.45)
    + (0.53, 0.545),
    ('dprd', 'lstm'): (0.04, None, 0.04, 0.17, 0.20, 0.22, 0.21, 0.34, 0.26, 0.22, 0.27, 0.26),
    ('cola', 'transformer'): (0.03, 0.12, 0.31, 0.38, 0.39, 0.40, 0.41, 0.44, 0.43, 0.43)
    + (0.44, 0.44),
    ('cola', 'lstm'): (None, None, 0.11, 0.29, 0.295, 0.31, 0.35, 0.36, 0.37, 0.35, 0.35, 0.37),
    ('race', 'transformer'): (None, None, None, 0.09, 0.10, 0.14, 0.155, 0.17, 0.205, 0.23)
    + (0.265, 0.255),
    ('race', 'lstm'): (None, None, None, None, None, 0.01, 0.02, 0.03, 0.03, 0.015, 0.015, 0.025),
}


OWN = ('paper', "GLUE's leaderboard", "BERT's table")  # who published scores of the paper's model


def paper_score(column: Column) -> float | None:
    """Return the score of GPT-1 in the paper. None where it has none."""
    scores = _scores(column.dataset, column.subset, column.metric)
    return next((value for who, value in scores if who.startswith('paper')), None)


def reproduced_score(column: Column) -> tuple[str, float] | None:
    """Return who reported the best reproduction on the same set, and its score, or None."""
    scores = _scores(column.dataset, column.subset, column.metric)
    others = [(who, value) for who, value in scores if not who.startswith(OWN)]
    return max(others, key=lambda pair: pair[1], default=None)


def glue_entry(dataset: str, subset: str, metric: str) -> float:
    """Return a score of GPT-1's entry in GLUE, of which the paper prints a part."""
    scores = _scores(dataset, subset, metric)
    return next(value for who, value in scores if who.startswith(OWN))


def _scores(dataset: str, subset: str, metric: str) -> list[tuple[str, float]]:
    """Return who published which scores of a test set."""
    return [
        (found.who, found.value)
        for found in TASKS[dataset].published
        if (found.on, found.split, found.metric) == ('test', subset, metric)
    ]
