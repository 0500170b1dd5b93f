"""The report of several runs: a table with medians and spreads, and a learning curve."""

import os
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from gpt1.report.intervals import Score, interval, results
from gpt1.report.log import Log, best_evaluation, log_name, plain
from gpt1.report.pictures import draw_learning_curve
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

    n_train  the number of training examples; 0: its record does not say
    valid    its first metric on the validation set
    test     the same on the test set, on the first or on all together; None: not known
    depends  all that its results depend on, name -> value
    """

    desc: str
    seed: int | str
    n_train: int
    valid: float
    test: Score | None
    depends: dict


def outcome_of(desc: str, log: Log, task: Task, test: Sets, record: dict) -> Outcome:
    known = results(task, decode_sets(task, test))
    depends = {f'the {key}': record.get(key) for key in WHAT if key != 'options'}
    depends |= record.get('options', {})
    return Outcome(
        desc,
        log.start.get('seed', '?'),
        record.get('sizes', {}).get('training', 0),
        best_evaluation(log.evaluations, task)[f'va_{log_name(task.metrics[0])}'],
        known[0] if known else None,
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
            test = '?' if run.test is None else f'{run.test.value:.2f}'
            rows.append([plain(run.desc), run.seed, n_train or '?', f'{run.valid:.2f}', test])
        tests = [run.test.value for run in group if run.test is not None]
        for title, function in SPREADS.items() if len(group) > 1 else ():
            columns = [run.valid for run in group], tests
            cells = [f'{function(scores):.2f}' if len(scores) > 1 else '' for scores in columns]
            rows.append([title, '', '', *cells])
    return markdown_table(['run', 'seed', 'training examples', 'validation', 'test'], rows)


def report_several(folder: str, titles: dict[str, list[Outcome]]) -> tuple[str, list[str]]:
    """Write runs.md, runs.html and pictures of runs, those of each task under its title.

    Returns the path of runs.md and what it says. Raises WriteError.
    """
    lines, notes = [], []
    for i, (title, outcomes) in enumerate(titles.items(), 1):
        groups = {n: [] for n in sorted(outcome.n_train for outcome in outcomes)}
        for outcome in outcomes:
            groups[outcome.n_train].append(outcome)
        lines += ['', f'## {plain(title)}', '', *summarize(groups)]
        notes += differences(outcomes)
        if len(groups) > 1 and all(groups) and all(outcome.test for outcome in outcomes):
            points = {
                n: [(o.test.value, *interval(o.test)) for o in group] for n, group in groups.items()
            }
            name = f'learning_curve_{i}'
            draw_learning_curve(os.path.join(folder, f'{name}.png'), points, f'test {title}')
            lines += picture(name, 'Learning curve')
    path = os.path.join(folder, 'runs.md')
    write(path, 'Several runs', notes, lines[1:])
    return path, [*notes, *lines]
