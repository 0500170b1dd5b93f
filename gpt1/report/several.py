"""The report of several runs: a table with medians and spreads, and a learning curve."""

import os
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from gpt1.report import pictures
from gpt1.report.intervals import Score, interval, results
from gpt1.report.log import Log, metric_title, plain
from gpt1.report.predictions import Sets
from gpt1.report.report import decode_sets, markdown_table, picture, write
from gpt1.run.record import WHAT
from gpt1.tasks.task import Task

VARIED = ('seed', 'n_train')  # in which runs that are put together may differ
SPREADS = {
    'median': statistics.median,
    'lowest': min,
    'highest': max,
    'standard deviation': statistics.stdev,
}


class Outcome(NamedTuple):
    """What is compared of a run.

    title    its task and metric
    n_train  the number of training examples; 0: its record does not say
    scores   its first metric on the validation and the test set, on the first or on all together;
             None: not known
    depends  all that its results depend on, name -> value
    """

    title: str
    desc: str
    seed: int | str
    n_train: int
    scores: dict[str, Score | None]
    depends: dict


def outcome_of(desc: str, log: Log, task: Task, test: Sets, valid: Sets, record: dict) -> Outcome:
    found = {'validation': valid, 'test': test}
    scores = {kind: results(task, decode_sets(task, sets)) for kind, sets in found.items()}
    depends = {f'the {key}': record.get(key) for key in WHAT if key != 'options'}
    depends |= record.get('options', {})
    return Outcome(
        f'{task.title}, {metric_title(task.metrics[0])}',
        desc,
        log.start.get('seed', '?'),
        record.get('sizes', {}).get('training', 0),
        {kind: some[0] if some else None for kind, some in scores.items()},
        {name: value for name, value in depends.items() if name not in VARIED},
    )


def differences(outcomes: Sequence[Outcome]) -> list[str]:
    """A warning that names the options in which runs differ; [] if they do not."""
    texts = []
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.depends):
        values = dict.fromkeys(str(outcome.depends.get(name)) for outcome in outcomes)
        if len(values) > 1:  # of files there are only hashes
            texts.append(name if name.startswith('the ') else f'{name} ({", ".join(values)})')
    return [f'warning: these runs differ in {", ".join(texts)}'] if texts else []


def summarize(groups: dict[int, list[Outcome]]) -> list[str]:
    """A table of runs, with medians and spreads of those with as many training examples."""
    rows = []
    for n_train, group in groups.items():
        for run in group:
            cells = [f'{score.value:.2f}' if score else '?' for score in run.scores.values()]
            rows.append([plain(run.desc), run.seed, f'{n_train:,}' if n_train else '?', *cells])
        columns = zip(*(run.scores.values() for run in group))
        known = [[score.value for score in column if score] for column in columns]
        for title, function in SPREADS.items() if len(group) > 1 else ():
            cells = [f'{function(values):.2f}' if len(values) > 1 else '' for values in known]
            rows.append([title, '', '', *cells])
    return markdown_table(['run', 'seed', 'training examples', 'validation', 'test'], rows)


def draw_learning_curve(path: str, groups: dict[int, list[Outcome]], kind: str, title: str) -> None:
    """Draw scores by the number of training examples, and a line through their medians."""

    def panel(axes):
        medians = []
        for n, runs in groups.items():
            scores = [run.scores[kind] for run in runs]
            medians.append(statistics.median(score.value for score in scores))
            for score in scores:
                style = {'fmt': 'o', 'color': pictures.OURS, 'alpha': 0.5}
                pictures.with_interval(axes, n, score.value, *interval(score), **style)
        axes.plot(list(groups), medians, color=pictures.OURS)
        axes.set(xlabel='training examples', xscale='log')
        axes.set(title=f'{title}, {kind}, with 95 % intervals')
        axes.set_xticks(list(groups), [f'{n:,}' for n in groups])
        axes.set_xticks([], minor=True)
        axes.grid(axis='y', alpha=0.3)

    pictures.draw(path, 6, 3.8, panel)


def report_several(folder: str, outcomes: Sequence[Outcome]) -> tuple[str, list[str]]:
    """Write runs.md, runs.html and pictures of runs, those of each task under its title.

    Returns the path of runs.md and what it says.
    """
    lines, notes = [], []
    for i, title in enumerate(dict.fromkeys(run.title for run in outcomes), 1):
        runs = [run for run in outcomes if run.title == title]
        sizes = sorted({run.n_train for run in runs})
        groups = {n: [run for run in runs if run.n_train == n] for n in sizes}
        lines += ['', f'## {plain(title)}', '', *summarize(groups)]
        notes += differences(runs)
        known = [kind for kind in ('test', 'validation') if all(run.scores[kind] for run in runs)]
        if len(groups) > 1 and all(groups) and known:
            name = f'learning_curve_{i}'
            draw_learning_curve(os.path.join(folder, f'{name}.png'), groups, known[0], title)
            lines += picture(name, 'Learning curve')
    path = os.path.join(folder, 'runs.md')
    write(path, 'Several runs', notes, lines[1:])
    return path, [*notes, *lines]
