"""The pictures of a report: PNG files, and panels drawn on axes from plain numbers."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from utils import WriteError, whole_file

OURS = 'C0'


@contextlib.contextmanager
def optional(path: str) -> Iterator[None]:
    """A file that no run needs: where it fails, a warning is printed and no earlier one stays."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        reason = error.__cause__ if isinstance(error, WriteError) else error
        reason = ' '.join(str(reason).split()) or type(error).__name__
        print(f'warning: {path} was not made: {reason}', file=sys.stderr)


def draw(path: str, width: float, height: float, *panels: Callable) -> None:
    """Draw panels, functions of their axes, side by side, or below each other where it is high."""
    with optional(path):
        # Imported here because it is slow. Not pyplot, which needs a display and keeps a state.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout='constrained', dpi=120)
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        shape = (len(panels), 1) if height > width else (1, len(panels))
        for axes, panel in zip(figure.subplots(*shape, squeeze=False).flat, panels, strict=True):
            axes.spines[['top', 'right']].set_visible(False)
            panel(axes)
        with whole_file(path, 'wb') as f:
            figure.savefig(f, format='png')


def smooth(values: Sequence[float]) -> np.ndarray:
    """The mean of each value and those around it, a tenth of all; fewer at the ends."""
    window = np.ones(len(values) // 20 * 2 + 1)
    n_around = np.convolve(np.ones(len(values)), window, 'same')
    return np.convolve(values, window, 'same') / n_around


def loss_panel(progress: Sequence[dict], title: str = 'joint loss in training') -> Callable:
    """A panel of the loss in the progress lines of a log: raw, and smoothed over it."""

    def panel(axes):
        updates = [line['n_updates'] for line in progress]
        losses = [line['loss'] for line in progress]
        axes.plot(updates, losses, color=OURS, alpha=0.3, label='as logged')
        axes.plot(updates, smooth(losses), color=OURS, label='smoothed')
        finish(axes, title)

    return panel


def finish(axes, title: str) -> None:
    """What all curves by update have: a grid, and a legend where no curve passes."""
    axes.locator_params(axis='x', integer=True, min_n_ticks=1)
    axes.set(title=title, xlabel='updates', xlim=(0, None))
    axes.grid(axis='y', alpha=0.3)
    axes.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))


def with_interval(axes, x, value, low, high, **style) -> None:
    """Draw scores, numbers or arrays, with bars from the low to the high end of an interval."""
    ends = np.maximum([value - low, high - value], 0).reshape(2, -1)
    axes.errorbar(x, value, ends, elinewidth=1, capsize=3, **style)


def draw_confusion(path: str, counts: np.ndarray, names: Sequence[str]) -> None:
    """Draw a confusion matrix [classes, classes]: labels in rows, predictions in columns."""
    n = len(names)
    names = [class_name(name, i) for i, name in enumerate(names)]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def panel(axes):
        axes.spines[:].set_visible(False)
        axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            text = f'{count:,}\n{100 * share:.0f} %' if n <= 5 else f'{count:,}'
            style = dict(ha='center', va='center', fontsize=10 if n <= 8 else 7)
            axes.text(column, row, text, color='white' if share > 0.6 else 'black', **style)
        axes.set(xlabel='prediction', ylabel='label')
        axes.set_yticks(range(n), names)
        axes.set_xticks(range(n), names, rotation=45, ha='right', rotation_mode='anchor')
        axes.tick_params(length=0)

    size = 2 + 0.45 * max(n, 4)
    draw(path, size + 1.2, size, panel)


def class_name(name: str, i: int) -> str:
    """The name of class `i` for a picture; its row in the table where the font lacks a letter."""
    if not name.isprintable() or any(ord(letter) > 0x52F for letter in name):
        return f'class {i + 1}'
    if len(name) > 16:
        name = name[:15] + '…'
    return name.replace('$', r'\$')  # Matplotlib takes a pair of them for a formula


def draw_confidence(path: str, bins: np.ndarray) -> None:
    """Draw how often predictions are right by their probability, and how many there are.

    bins  [bins, 5] in %: mean probability, share of right ones, its interval; number of predictions
    """
    sure, right, low, high, n = bins.T

    def calibration(axes):
        axes.plot([0, 100], [0, 100], '--', color='0.6', label='ideal')
        style = dict(fmt='o-', color=OURS, label='here, 95 % interval')
        with_interval(axes, sure, right, low, high, **style)
        axes.set(title='right predictions, %', xlim=(0, 102), ylim=(0, 102))
        axes.legend(frameon=False)

    def sizes(axes):
        bars = axes.bar(sure, n, width=4, color=OURS)
        axes.bar_label(bars, [f'{count:,.0f}' for count in n], fontsize=8)
        axes.set(title='number of predictions', xlim=(0, 102))
        axes.set(xlabel='probability of the prediction, %')

    draw(path, 5, 5.6, calibration, sizes)
