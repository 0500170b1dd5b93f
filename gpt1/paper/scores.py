"""What the runs of a plan have written, as cells of tables and points of curves."""

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from datasets import TASKS
from gpt1.options import TRAIN
from gpt1.paper import published
from gpt1.paper.plan import (
    LAYER_DATASETS,
    ZERO_SHOT,
    PlannedRun,
    Setup,
    State,
    layers_variant,
    read_lines_of,
    record_of,
)
from gpt1.report.log import log_name
from gpt1.run.record import read_file


@dataclass
class RunScores:
    """What a fine-tuning has written.

    The key of a score is (part, subset, metric): 'train', 'valid' or 'test'; a set, of the training
    set ''; and a key of `METRICS`.
    """

    dataset: str
    variant: str
    seed: int
    scores: dict[tuple[str, str, str], float]
    bold: bool = False  # whether the data are made up or the weights are not OpenAI's
    noise: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)
    record: dict = field(default_factory=dict)  # see `gpt1.run.record`


def collect(
    plan: Sequence[PlannedRun], setup: Setup, states: dict[str, State]
) -> dict[str, RunScores]:
    """Return the scores of the fine-tunings that are done, by the names of the runs."""
    found = {}
    for run in plan:
        if run.script == TRAIN and states[run.desc].kind == 'done':
            done = record_of(run)
            scores = {tuple(key): value for *key, value in done['scores']}
            metric = TASKS[run.dataset].metrics[0]
            scores['train', '', metric] = done['best'][f'tr_{log_name(metric)}']
            bold = bool(done['sample']) or (setup.sample_model and not run.needs)
            noise = {tuple(row[:3]): tuple(row[3:]) for row in done.get('noise', [])}
            which = run.dataset, run.variant, run.seed
            found[run.desc] = RunScores(*which, scores, bold, noise, done)
    return found


@dataclass(frozen=True)
class Cell:
    """A score over several seeds."""

    values: tuple[float, ...]
    part: str  # the set it is of: 'test', or 'valid' where the test labels are not at hand
    bold: bool
    error: float = math.nan  # its standard error because the set is a sample
    guess: float = math.nan  # what the best constant prediction would have

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The standard deviation; None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def variance(self) -> float:
        """The variance of the mean, over seeds and over examples. There must be two seeds."""
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
    found: Sequence[RunScores],
    dataset: str,
    columns: Sequence[Sequence[str]],
    variant: str = 'full',
    parts: Sequence[str] = ('test', 'valid'),
) -> Cell | None:
    """Return the score of a data set over all seeds; None if there is none.

    columns  (subset, metric) pairs, whose mean is the score of a run. A single set is 'test'
    parts    the parts to take it from: the first one that all runs have
    """
    runs = [r for r in found if (r.dataset, r.variant) == (dataset, variant)]
    for part in parts if runs else ():
        names = {'test': part} | ({subset: '' for subset, _ in columns} if part == 'train' else {})
        keys = [(part, names.get(subset, subset), metric) for subset, metric in columns]
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


def glue_cell(found: Sequence[RunScores]) -> Cell | None:
    """Return GLUE's average, over the seeds that have all nine tasks; None if there are none.

    A task with two scores counts with their mean. The part is 'test' if all of it is of test sets.
    """
    values, parts = [], set()
    for seed in sorted({r.seed for r in found}):
        own = [r for r in found if r.seed == seed]
        cells = [cell(own, *task) for task in published.GLUE['tasks'].items()]
        if None not in cells:
            values.append(statistics.fmean(c.mean for c in cells))
            parts |= {c.part for c in cells}
    bold = any(r.bold for r in found if r.dataset in published.GLUE['tasks'])
    return Cell(tuple(values), ' or '.join(sorted(parts)), bold) if values else None


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
    variants = [layers_variant(n, n_layer) for n in range(-1, n_layer + 1)]
    curves = {}
    for dataset in LAYER_DATASETS:
        columns = [('matched' if dataset == 'mnli' else 'all', 'accuracy')]
        for part in ('valid', 'train'):
            points = [cell(found, dataset, columns, variant, [part]) for variant in variants]
            if any(points):
                curves[dataset, part] = points
    return curves


@dataclass
class ZeroShot:
    """The zero-shot scores of a pre-training."""

    points: dict[str, list[tuple[int, float]]]  # set -> (update, score)
    sets: dict[str, dict]  # see `zero_shot.describe_sets`
    epochs: dict[int, float] = field(default_factory=dict)  # until an update, where known

    def scaled(self, name: str) -> list[tuple[int, float]]:
        """The curve of a set on the scale of figure 2."""
        sample = self.sets[name]['sample']
        return [
            (update, published.normalize(name, value, sample))
            for update, value in self.points[name]
        ]

    def error(self, name: str, score: float) -> float:
        """The standard error of a score of a set."""
        return published.standard_error(name, score, self.sets[name]['examples'])


def collect_zero_shot(
    plan: Sequence[PlannedRun], setup: Setup, states: dict[str, State]
) -> dict[str, ZeroShot]:
    """Return the zero-shot scores, by the kind of model: 'transformer', 'lstm', or 'given'."""
    found = {}
    for kind, folder in setup.pretrained.items():
        state = states.get(f'pretrain-{kind}')
        if state and state.kind == 'missing':
            continue  # what is there is of other options
        first, *lines = read_lines_of(os.path.join(folder, 'log.jsonl')) or [{}]
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
            result = read_file(run.record)
            sets = {name: result[name] for name in published.ZERO_SHOT if name in result}
            found['given'] = ZeroShot({name: [(0, sets[name]['figure'])] for name in sets}, sets)
    return found
