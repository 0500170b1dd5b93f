"""The pictures of a report. Each function draws one PNG file from plain numbers."""

import contextlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from utils import WriteError, whole_file

OURS = 'C0'
REFERENCE = '0.6'  # grey: the ideal, or the score on all examples
MAX_POINTS = 5000  # in the scatter plot


class Measured(NamedTuple):
    """A value with its 95 % interval, and what stands beside it on the axis."""

    name: str
    value: float
    low: float
    high: float


def draw(path: str, width: float, height: float, *panels: Callable) -> None:
    """Draw panels side by side into a PNG file. Each panel is a function of its axes.

    No picture stops a run: where one fails, in whatever way, an earlier one is removed, and a
    warning is printed.
    """
    try:
        _draw(path, width, height, panels)
    except Exception as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        reason = error.__cause__ if isinstance(error, WriteError) else error
        reason = ' '.join(str(reason).split()) or type(error).__name__
        print(f'warning: {path} was not drawn: {reason}', file=sys.stderr)


def _draw(path, width, height, panels):
    # Imported here because it is slow. Not pyplot, which needs a display and keeps a state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained', dpi=120)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    all_axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.spines[['top', 'right']].set_visible(False)
        panel(axes)
    with whole_file(path, 'wb') as f:
        figure.savefig(f, format='png')


def deviations(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The two lengths of each error bar, as Matplotlib wants them: [2, values]."""
    return np.clip([values - low, high - values], 0, None)


def draw_training(
    path: str,
    epochs: Sequence[float],
    costs: dict[str, list[float]],
    scores: dict[str, list[float]],
    title: str,
    published: dict[str, Sequence[float]],
) -> None:
    """Draw the costs and the scores, each a set's name and its values, by epoch.

    title      of the scores
    published  published scores of the sets after epochs 1, 2, ...; may be empty
    """

    def curves(axes, values_of):
        for name, values in values_of.items():
            axes.plot(epochs, values, 'o-', ms=4, label=name)
        axes.locator_params(axis='x', integer=True, min_n_ticks=1)
        axes.set(xlabel='epochs')
        axes.grid(axis='y', alpha=0.3)

    def legend(axes):  # below, where no curve passes
        axes.legend(frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.17), ncols=2)

    def cost(axes):
        curves(axes, costs)
        highest = max(filter(math.isfinite, sum(costs.values(), [])), default=0)
        axes.set(title='cost', ylim=(0, 1.08 * highest or 1))
        legend(axes)

    def score(axes):
        curves(axes, scores)
        for i, (name, values) in enumerate(published.items()):
            style = dict(color=f'C{i}', alpha=0.35, mfc='white', label=f'{name}, published')
            axes.plot(range(1, len(values) + 1), values, 'o--', **style)
        axes.set(title=title)
        legend(axes)

    draw(path, 9, 4, cost, score)


def draw_scores(path: str, rows: list[Measured], title: str) -> None:
    """Draw scores below each other. Published ones have no interval: `low` is NaN."""

    def panel(axes):
        for y, (_, value, low, high) in enumerate(rows):
            text = str(value)
            if math.isnan(low):
                axes.plot([value], [y], 'o', color='0.4')
            else:
                bars = deviations(*np.array([[value], [low], [high]]))
                axes.errorbar([value], [y], xerr=bars, fmt='o', color=OURS, capsize=4)
                text = f'{value:.2f}'
            style = dict(textcoords='offset points', ha='center', fontsize=9)
            axes.annotate(text, (value, y), (0, 6), **style)
        axes.set(
            title=f'{title}, with 95 % intervals',
            yticks=range(len(rows)),
            yticklabels=[row.name for row in rows],
            ylim=(len(rows) - 0.5, -0.8),
        )
        axes.grid(axis='x', alpha=0.3)
        axes.margins(x=0.15)

    draw(path, 7.5, 1.1 + 0.36 * len(rows), panel)


def class_name(name: str, i: int) -> str:
    """The name of class `i` for a picture; its number where the font lacks a letter."""
    if not name.isprintable() or any(ord(letter) > 0x52F for letter in name):
        return f'class {i}'
    if len(name) > 16:
        name = name[:15] + '…'
    return name.replace('$', r'\$')  # Matplotlib takes a pair of them for a formula


def draw_confusion(path: str, counts: np.ndarray, names: Sequence[str]) -> None:
    """Draw a confusion matrix [classes, classes]: labels in rows, predictions in columns."""
    n = len(names)
    names = [class_name(name, i) for i, name in enumerate(names)]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    is_slanted = n > 6 or sum(map(len, names)) > 40

    def panel(axes):
        axes.spines[:].set_visible(False)
        axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            text = f'{count:,}\n{share:.0%}' if n <= 5 else f'{count:,}'
            style = dict(ha='center', va='center', fontsize=10 if n <= 8 else 7)
            axes.text(column, row, text, color='white' if share > 0.6 else 'black', **style)
        axes.set(xlabel='prediction', ylabel='label')
        axes.set_yticks(range(n), names)
        if is_slanted:
            axes.set_xticks(range(n), names, rotation=45, ha='right', rotation_mode='anchor')
        else:
            axes.set_xticks(range(n), names)
        axes.tick_params(length=0)

    size = 2 + 0.45 * max(n, 4)
    draw(path, size + 1.2, size, panel)


def draw_confidence(
    path: str,
    confidence: np.ndarray,
    right: np.ndarray | None,
    edges: np.ndarray,
    calibration: np.ndarray | None,
) -> None:
    """Draw how sure the predictions are and, if it is known, how often they are then right.

    confidence   [examples] the probability of each prediction
    right        [examples] whether it is right; None: not known
    edges        of the bins
    calibration  [bins, 4] the mean confidence in a bin, and the accuracy in % with its interval
    """

    def histogram(axes):
        if right is None:
            axes.hist(confidence, edges, color=OURS, rwidth=0.9)
        else:
            values = [confidence[right], confidence[~right]]
            style = dict(stacked=True, color=[OURS, 'C3'], label=['right', 'wrong'])
            axes.hist(values, edges, rwidth=0.9, **style)
            axes.margins(y=0.15)  # room for the legend
            axes.legend(frameon=False, loc='upper left', ncols=2)
        axes.locator_params(axis='y', integer=True)
        axes.set(
            title='how sure the predictions are',
            xlabel='probability of the prediction',
            ylabel='examples',
            xlim=(edges[0], 1),
        )

    def accuracy(axes):
        x, y, low, high = calibration.T
        axes.plot([edges[0], 1], [100 * edges[0], 100], '--', color=REFERENCE)
        axes.errorbar(x, y, yerr=deviations(y, low, high), fmt='o', color=OURS, capsize=3)
        margin = 0.04 * (1 - edges[0])
        axes.set(
            title='how often they are right, % (dashed: ideal)',
            xlabel='probability of the prediction',
            xlim=(edges[0] - margin, 1 + margin),
        )

    if right is None:
        draw(path, 5, 3.6, histogram)
    else:
        draw(path, 9, 3.6, histogram, accuracy)


def draw_scatter(path: str, labels: np.ndarray, values: np.ndarray) -> None:
    """Draw predicted against given scores, both [examples], and the distribution of the errors."""
    step = math.ceil(len(labels) / MAX_POINTS)

    def scatter(axes):
        low = min(labels.min(), values.min())
        high = max(labels.max(), values.max())
        axes.plot([low, high], [low, high], '--', color=REFERENCE)
        alpha = 0.6 if len(labels) < 500 else 0.25
        axes.scatter(labels[::step], values[::step], s=10, alpha=alpha, color=OURS, lw=0)
        axes.set(title='prediction by score (dashed: ideal)', xlabel='score', ylabel='prediction')

    def errors(axes):
        draw_histogram(axes, values - labels)
        axes.axvline(0, color=REFERENCE, ls='--')
        axes.set(title='errors', xlabel='prediction − score')

    draw(path, 9, 3.9, scatter, errors)


def draw_histogram(axes, values: np.ndarray) -> None:
    n_bins = min(40, 5 + len(values) // 5)
    axes.hist(values, n_bins, color=OURS)
    axes.locator_params(axis='y', integer=True)
    axes.set(ylabel='examples')


def draw_values(path: str, sets: dict[str, np.ndarray]) -> None:
    """Draw the distribution of predicted numbers in each set, a panel a set."""

    def panel_for(name, values):
        def panel(axes):
            draw_histogram(axes, values)
            axes.set(title=name, xlabel='prediction')

        return panel

    draw(path, 5 * len(sets), 3.4, *(panel_for(name, values) for name, values in sets.items()))


def draw_lengths(path: str, groups: list[Measured], title: str, overall: float) -> None:
    """Draw a score in groups of about the same length, beside the score on all examples."""

    def panel(axes):
        y, low, high = np.array([group[1:] for group in groups]).T
        positions = range(len(groups))
        bars = deviations(y, low, high)
        axes.errorbar(positions, y, yerr=bars, fmt='o', color=OURS, capsize=4)
        axes.axhline(overall, color=REFERENCE, ls='--', lw=1)
        axes.set(
            title=f'{title}, by length, with 95 % intervals (dashed: all examples)',
            xlabel='words in all texts of an example',
        )
        axes.set_xticks(positions, [group.name for group in groups])
        axes.margins(x=0.1)

    draw(path, 7.5, 3.4, panel)
