"""What the runs of a plan have written, as cells of tables and points of curves."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from datasets import TASKS
from gpt1.options import TRAIN
from gpt1.paper import published
from gpt1.paper.plan import (
    LAYER_DATASETS,
    ZERO_SHOT,
    PlannedRun,
    Setup,
    layers_variant,
    pretraining_log,
    read_lines_of,
    record_of,
    states_of,
)
from gpt1.paper.zero_shot import normalize
from gpt1.report.log import log_name

SETS = published.ZERO_SHOT_TITLES  # of figure 2, right


@dataclass
class RunScores:
    """What a fine-tuning has written.

    scores  {(part, subset, metric): score}; the part is 'train', 'valid' or 'test', the subset of
            the training set ''
    sizes   examples by part
    bold    whether the data are made up or the weights are not OpenAI's
    device  where it ran
    noise   {key of scores: (standard error, score of a guess)}, see `intervals.noise_of`
    """

    dataset: str
    variant: str
    seed: int
    scores: dict[tuple[str, str, str], float]
    sizes: dict[str, int] = field(default_factory=dict)
    bold: bool = False
    device: str = ''
    noise: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)


def collect(plan: Sequence[PlannedRun], setup: Setup) -> dict[str, RunScores]:
    """Return the scores of the fine-tunings that are done, by the names of the runs."""
    states = states_of(plan, setup)
    found = {}
    for run in plan:
        if run.script != TRAIN or states[run.desc].kind != 'done':
            continue
        done = record_of(run, setup)
        scores = {tuple(key): value for *key, value in done['scores']}
        metric = TASKS[run.dataset].metrics[0]
        scores['train', '', metric] = done['best'][f'tr_{log_name(metric)}']
        found[run.desc] = RunScores(
            run.dataset,
            run.variant,
            run.seed,
            scores,
            sizes=done['sizes'],
            bold=bool(done['sample']) or run.made_up,
            device=done['device'],
            noise={tuple(row[:3]): tuple(row[3:]) for row in done.get('noise', [])},
        )
    return found


# ------------------------------------------------------------------------------------------ cells


@dataclass(frozen=True)
class Cell:
    """A score over several seeds.

    part   the set it is of: 'test', or 'valid' where the test labels are not at hand
    error  its standard error because the set is a sample; NaN: not known
    guess  what the best constant prediction would have; NaN: not known
    """

    values: tuple[float, ...]
    part: str
    bold: bool
    error: float = math.nan
    guess: float = math.nan

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The standard deviation; None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def variance(self) -> float:
        """The variance of the mean, over seeds and over examples; NaN for a single seed."""
        if self.spread is None:
            return math.nan
        return self.spread**2 / len(self.values) + self.error**2

    @property
    def is_guess(self) -> bool:
        """Whether it is not clearly better than a guess, by the examples of its set."""
        return self.mean <= self.guess + 1.96 * self.error

    def __str__(self):
        return embolden(f'{self.mean:.1f}', self.bold)


def embolden(text: str, bold: bool) -> str:
    return f'**{text}**' if bold else text


def cell(
    found: Iterable[RunScores],
    dataset: str,
    columns: Sequence[tuple[str, str]],
    variant: str = 'full',
    parts: Sequence[str] = ('test', 'valid'),
) -> Cell | None:
    """Return the score of a data set over all seeds; None if there is none.

    columns  (subset, metric) pairs, whose mean is the score of a run. A single set is 'test'
    parts    the parts to take it from: the first one that all runs have
    """
    runs = [r for r in found if (r.dataset, r.variant) == (dataset, variant)]
    for part in parts if runs else ():
        keys = [(part, _subset(part, subset), metric) for subset, metric in columns]
        if all(key in r.scores for r in runs for key in keys):
            noise = [r.noise.get(key, (math.nan, math.nan)) for r in runs for key in keys]
            return Cell(
                values=tuple(statistics.fmean(r.scores[key] for key in keys) for r in runs),
                part=part,
                bold=any(r.bold for r in runs),
                error=math.sqrt(statistics.fmean(e * e for e, _ in noise) / len(keys)),
                guess=statistics.fmean(guess for _, guess in noise),
            )
    return None


def _subset(part: str, subset: str) -> str:
    """With one set, its name is that of the part. The training set has none."""
    if part == 'train':
        return ''
    return part if subset == 'test' else subset


def cell_of(found: Sequence[RunScores], column: published.Column) -> Cell | None:
    """Return the cell of a column of tables 2 to 4."""
    return cell(found, column.dataset, [(column.subset, column.metric)])


def glue_score(found: Sequence[RunScores], seed: int) -> tuple[float, bool] | None:
    """Return GLUE's average of a seed, and whether all of it is of test sets.

    It is the mean over nine tasks, of which those with two scores count with their mean. None if
    one is missing.
    """
    own = [r for r in found if r.seed == seed]
    cells = [cell(own, dataset, columns) for dataset, columns in published.GLUE.items()]
    if None in cells:
        return None
    return statistics.fmean(c.mean for c in cells), all(c.part == 'test' for c in cells)


def ablation(found: Sequence[RunScores], variant: str, dataset: str) -> Cell | None:
    """Return a cell of table 5. MNLI's is the mean of matched and mismatched."""
    _, metric = published.ABLATION_COLUMNS[dataset]
    subsets = ('matched', 'mismatched') if dataset == 'mnli' else ('test',)
    return cell(found, dataset, [(subset, metric) for subset in subsets], variant)


def ablation_average(found: Sequence[RunScores], variant: str) -> Cell | None:
    """Return the average of a row of table 5; None if a column is missing."""
    cells = [ablation(found, variant, dataset) for dataset in published.ABLATION_COLUMNS]
    if None in cells:
        return None
    return Cell((statistics.fmean(c.mean for c in cells),), 'test', any(c.bold for c in cells))


def layer_curves(found: Sequence[RunScores], n_layer: int) -> dict[tuple[str, str], list]:
    """Return the curves of figure 2, left: {(data set, 'valid' or 'train'): cells or None}.

    A point for each number of parts transferred: 0 (nothing), 1 (the embeddings), ...
    """
    curves = {}
    for dataset in LAYER_DATASETS:
        column = ('matched' if dataset == 'mnli' else 'all', 'accuracy')
        for part in ('valid', 'train'):
            points = [
                cell(found, dataset, [column], layers_variant(n, n_layer), parts=(part,))
                for n in range(-1, n_layer + 1)
            ]
            if any(points):
                curves[dataset, part] = points
    return curves


# -------------------------------------------------------------------------------------- zero-shot


@dataclass
class ZeroShot:
    """The zero-shot scores of a pre-training.

    points  {set: [(update, score)]}
    sets    {set: {'examples', 'source', 'sample', 'notes'}}
    epochs  {update: epochs until then}; empty: not known
    """

    points: dict[str, list[tuple[int, float]]]
    sets: dict[str, dict]
    epochs: dict[int, float] = field(default_factory=dict)

    def scaled(self, name: str) -> list[tuple[int, float]]:
        """The curve of a set on the scale of figure 2."""
        sample = self.sets[name]['sample']
        return [(update, normalize(name, value, sample)) for update, value in self.points[name]]


def collect_zero_shot(plan: Sequence[PlannedRun], setup: Setup) -> dict[str, ZeroShot]:
    """Return the zero-shot scores, by the kind of model: 'transformer', 'lstm', or 'given'."""
    found = {}
    states = states_of(plan, setup)
    for kind, folder in setup.pretrained.items():
        if f'pretrain-{kind}' in states and states[f'pretrain-{kind}'].kind == 'missing':
            continue  # what is there is of other options
        first, *lines = read_lines_of(pretraining_log(folder)) or [{}]
        sets = first.get('zero_shot_sets', {})
        points = {
            name: [
                (line['n_updates'], line[f'zs_{name}']) for line in lines if f'zs_{name}' in line
            ]
            for name in sets
        }
        if any(points.values()):
            epochs = {line['n_updates']: line['n_epochs'] for line in lines}
            found[kind] = ZeroShot(points, sets, epochs)
    for run in plan:
        if run.script == ZERO_SHOT and states[run.desc].kind == 'done':
            with open(setup.path('zero-shot.json'), encoding='utf-8') as f:
                result = json.load(f)
            sets = {name: result[name] for name in SETS if name in result}
            points = {name: [(0, sets[name]['figure'])] for name in sets}
            found['given'] = ZeroShot(points, sets)
    return found
