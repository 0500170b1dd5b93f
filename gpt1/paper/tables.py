"""Tables 2 to 5 and the tables of figure 2 in Markdown, ours beside the published scores."""

from collections.abc import Sequence

from datasets import TASKS
from gpt1.paper import published
from gpt1.paper.scores import (
    SETS,
    Cell,
    RunScores,
    ZeroShot,
    ablation,
    ablation_average,
    cell_of,
    embolden,
    glue_score,
)
from gpt1.paper.verdicts import MODELS
from gpt1.report.log import metric_title
from gpt1.report.report import markdown_table

PARTS = {'test': 'test', 'valid': 'validation', 'train': 'training'}


def optional(value: float | None) -> str:
    return '' if value is None else f'{value:.1f}'


def table(number: int, found: Sequence[RunScores]) -> list[str]:
    """Return table 2, 3 or 4 in Markdown."""
    rows = []
    for column in published.TABLES[number]:
        here = cell_of(found, column)
        cells = ['', 'not run', '', '0']
        if here:
            cells = [PARTS[here.part], here, optional(here.spread), len(here.values)]
        known = optional(published.paper_score(column))
        before = f'{column.best_before:.1f}' + (f' ({column.note})' if column.note else '')
        other = published.reproduced_score(column)
        reproduced = f'{other[1]:.1f} ({other[0]})' if other else ''
        title = metric_title(column.metric)
        rows.append([column.title, title, *cells, known, before, reproduced])
    if number == 4:
        rows.append(_glue_row(found))
    header = ['data set', 'metric', 'set', 'here', 'sd', 'seeds', 'paper', 'best before']
    return markdown_table([*header, 'best reproduction'], rows)


def _glue_row(found):
    scores = [glue_score(found, seed) for seed in sorted({r.seed for r in found})]
    whole = [score for score in scores if score]
    cells = ['', 'not all tasks are there', '', '0']
    if whole:
        bold = any(r.bold for r in found if r.dataset in published.GLUE)
        here = Cell(tuple(value for value, _ in whole), 'test', bold)
        part = 'test' if all(is_test for _, is_test in whole) else 'test or validation'
        cells = [part, here, optional(here.spread), len(here.values)]
    known, before = f'{published.GLUE_SCORE:.1f}', f'{published.GLUE_BEST_BEFORE:.1f}'
    who, value = published.GLUE_REPRODUCED
    return ['GLUE', 'mean of 9', *cells, known, before, f'{value:.1f} ({who})']


def table_5(found: Sequence[RunScores]) -> list[str]:
    """Return table 5 in Markdown: ours and the paper's row by row."""
    columns = published.ABLATION_COLUMNS
    titles = [f'{title} ({metric_title(metric)})' for title, metric in columns.values()]
    rows = []
    for variant, title in published.ABLATIONS.items():
        here = [ablation_average(found, variant)]
        here += [ablation(found, variant, dataset) for dataset in columns]
        rows.append([title, 'here', *('' if c is None else c for c in here)])
        paper = (published.ABLATION_AVERAGES[variant], *published.ABLATION_SCORES[variant])
        rows.append(['', 'paper', *(f'{value:.1f}' for value in paper)])
    return markdown_table(['', '', 'avg', *titles], rows)


def layers_table(curves: dict[tuple[str, str], list], n_layer: int) -> list[str]:
    """Return the points of figure 2, left, in Markdown."""
    names = ['nothing', 'embeddings', '1 layer', *(f'{n} layers' for n in range(2, n_layer + 1))]
    titles = [f'{TASKS[name].title} {PARTS[part]}' for name, part in curves]
    rows = [
        [name, *('' if points[i] is None else points[i] for points in curves.values())]
        for i, name in enumerate(names)
    ]
    if n_layer == 12:
        titles += [f'paper: {title}' for title in titles]
        for i, row in enumerate(rows):
            row += [f'{published.LAYERS[key][i]:.1f}' for key in curves]
    return markdown_table(['transferred', *titles], rows)


def zero_shot_table(curves: dict[str, ZeroShot]) -> list[str]:
    """Return the points of figure 2, right, in Markdown."""
    header = ['set', 'model', 'updates', 'epochs', 'score', 'on the scale of figure 2']
    rows = []
    for name, title in SETS.items():
        for kind, curve in curves.items():
            if name not in curve.points:
                continue
            for (update, value), (_, scaled) in zip(curve.points[name], curve.scaled(name)):
                epochs = f'{curve.epochs[update]:.2f}' if update in curve.epochs else ''
                sample = curve.sets[name]['sample']
                texts = [embolden(text, sample) for text in (f'{value:.1f}', f'{scaled:.3f}')]
                rows.append([title, MODELS[kind], f'{update:,}', epochs, *texts])
    return markdown_table(header, rows)
