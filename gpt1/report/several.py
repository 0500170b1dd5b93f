"""The report of several runs: a table with medians and spreads, and a learning curve."""

import os
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from gpt1.report.intervals import Score, interval
from gpt1.report.log import plain
from gpt1.report.pictures import draw_learning_curve
from gpt1.report.report import markdown_table, picture, write
from gpt1.run import record

# Runs that are put together may differ in these
VARIED = ('seed', 'n_train')
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


def depends_on(found: dict) -> dict:
    """All that the results of a run depend on, by its record, except what runs may vary."""
    others = {f'the {key}': found.get(key) for key in record.WHAT if key != 'options'}
    options = found.get('options', {})
    return {**others, **{name: options[name] for name in options if name not in VARIED}}


def differences(outcomes: Sequence[Outcome]) -> list[str]:
    """A warning that names the options in which runs differ; [] if they do not."""
    texts = []
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.depends):
        values = dict.fromkeys(str(outcome.depends.get(name)) for outcome in outcomes)
        if len(values) > 1:  # of files there are only hashes
            texts.append(name if name.startswith('the ') else f'{name} ({", ".join(values)})')
    return [f'warning: these runs differ in {", ".join(texts)}'] if texts else []


def groups(outcomes: Sequence[Outcome]) -> dict[int, list[Outcome]]:
    """The runs by their number of training examples, the smallest first."""
    found = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.n_train):
        found.setdefault(outcome.n_train, []).append(outcome)
    return found


def summarize(outcomes: Sequence[Outcome]) -> list[str]:
    """A table of runs, with medians and spreads of those with as many training examples."""
    rows = []
    for n_train, group in groups(outcomes).items():
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
        lines += ['', f'## {plain(title)}', '', *summarize(outcomes)]
        notes += differences(outcomes)
        points = {}
        for n_train, group in groups(outcomes).items():
            points[n_train] = [(run.test.value, *interval(run.test)) for run in group if run.test]
        if len(points) > 1 and all(points) and all(points.values()):
            name = f'learning_curve_{i}'
            draw_learning_curve(os.path.join(folder, f'{name}.png'), points, f'test {title}')
            lines += picture(name, 'Learning curve')
    path = os.path.join(folder, 'runs.md')
    write(path, 'Several runs', notes, lines[1:])
    return path, [*notes, *lines]
