"""The two panels of figure 2, here and in the paper."""

import math
from collections.abc import Callable, Iterable

from datasets import TASKS
from gpt1.paper import published
from gpt1.paper.scores import ZeroShot
from gpt1.report.pictures import draw

MODELS = {'transformer': 'transformer', 'lstm': 'LSTM', 'given': 'given model'}
COLORS = {'cola': 'C0', 'sst2': 'C1', 'race': 'C2', 'dprd': 'C3', 'mnli': 'C0'}


def curves_panel(title: str, curves: Iterable[tuple], **options) -> Callable:
    """A panel of curves: for each its label, its colour, its style, and its points.

    options  of the axes
    """

    def panel(axes):
        for label, color, style, points in curves:
            known = [(x, y) for x, y in points if y is not None and not math.isnan(y)]
            axes.plot(*zip(*known), style, color=color, marker='.', label=label)
        axes.set(title=title, **options)
        if options.get('xscale') == 'log':
            first, last = axes.get_xlim()
            if last < 100 * first:  # powers of ten alone would be one or two ticks
                axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
            axes.xaxis.set_major_formatter('{x:,.0f}')
            axes.xaxis.set_minor_formatter('')
        axes.grid(alpha=0.3)
        place = {'loc': 'upper center', 'bbox_to_anchor': (0.5, -0.17)}
        axes.legend(frameon=False, fontsize='small', ncols=2, **place)

    return panel


def draw_layers(path: str, curves: dict[tuple[str, str], list]) -> None:
    """Draw figure 2, left, beside the paper's."""
    here, paper = [], []
    for (name, part), points in curves.items():
        kind, style = {'valid': ('validation', '-'), 'train': ('training', '--')}[part]
        look = f'{TASKS[name].title} {kind}', COLORS[name], style
        here.append((*look, [(i, p and p.mean) for i, p in enumerate(points)]))
        paper.append((*look, list(enumerate(published.LAYERS[name][part]))))
    bold = any(p and p.bold for points in curves.values() for p in points)
    title = "here: not the paper's data or weights" if bold else 'here'
    labels = {'xlabel': 'parts transferred: embeddings, then layers', 'ylabel': 'accuracy, %'}
    panels = [curves_panel(title, here, **labels)]
    panels.append(curves_panel('paper, figure 2, left', paper, **labels))
    draw(path, 9.5, 4.5, *panels)


def draw_zero_shot(path: str, curves: dict[str, ZeroShot]) -> None:
    """Draw figure 2, right, beside the paper's."""
    here, paper = [], []
    updates = published.PAPER['zero_shot']['updates']
    for kind, model in MODELS.items():
        for name, part in published.ZERO_SHOT.items():
            look = f'{part["title"]}, {model}', COLORS[name], '--' if kind == 'lstm' else '-'
            if kind in curves and curves[kind].points.get(name):
                points = [(max(x, 1), max(y, -0.05)) for x, y in curves[kind].scaled(name)]
                here.append((*look, points))
            if kind in part:
                paper.append((*look, list(zip(updates, part[kind]))))
    sample = any(part['sample'] for curve in curves.values() for part in curve.sets.values())
    title = 'here: made-up data, 1 is 100 %' if sample else 'here'
    labels = {'xlabel': 'updates of pre-training', 'ylabel': '0: chance, 1: best'}
    panels = [curves_panel(title, here, xscale='log', **labels)]
    panels.append(curves_panel('paper, figure 2, right', paper, xscale='log', **labels))
    draw(path, 9.5, 5.2, *panels)
