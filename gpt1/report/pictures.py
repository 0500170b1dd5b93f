"""The pictures of a report. Each function draws one PNG file from plain numbers."""

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from utils import WriteError, whole_file

OURS = 'C0'
REFERENCE = '0.6'  # grey


@contextlib.contextmanager
def optional(path: str) -> Iterator[None]:
    """A file that no run needs: where it fails, in whatever way, a warning is printed.

    An earlier file does not stand for it.
    """
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        reason = error.__cause__ if isinstance(error, WriteError) else error
        reason = ' '.join(str(reason).split()) or type(error).__name__
        print(f'warning: {path} was not made: {reason}', file=sys.stderr)


def draw(path: str, width: float, height: float, *panels: Callable) -> None:
    """Draw panels side by side into a PNG file. Each panel is a function of its axes.

    A picture that fails is a warning.
    """
    with optional(path):
        _draw(path, width, height, panels)


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


def draw_training(
    path: str,
    epochs: Sequence[float],
    costs: dict[str, list[float]],
    scores: dict[str, list[float]],
    title: str,
) -> None:
    """Draw the costs and the scores, each a set's name and its values, by epoch.

    title  of the scores
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
        axes.set(title=title)
        legend(axes)

    draw(path, 9, 4, cost, score)


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


def draw_confidence(path: str, calibration: np.ndarray) -> None:
    """Draw how often predictions are right beside their probability, both [bins, 2]."""

    def panel(axes):
        axes.plot([0, 1], [0, 1], '--', color=REFERENCE)
        axes.plot(*calibration.T, 'o-', color=OURS)
        axes.set(
            title='share of right predictions (dashed: ideal)',
            xlabel='probability of the prediction',
        )

    draw(path, 5, 3.6, panel)
