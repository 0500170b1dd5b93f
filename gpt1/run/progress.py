"""What a run tells while it trains: its losses, a table of evaluations, the time that is left."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from utils import InputError, ResultLogger

FIRST = 5.0  # seconds of updates after which the time of the run is estimated
PAUSE = 30.0  # seconds between two lines of a run without a terminal


class Mean(NamedTuple):
    """A mean of numbers that are added one by one. A checkpoint keeps it as a list."""

    sum: float = 0.0
    n: int = 0

    @classmethod
    def of(cls, pair: list) -> 'Mean':
        return cls(float(pair[0]), int(pair[1]))

    def plus(self, number: float) -> 'Mean':
        return Mean(self.sum + number, self.n + 1)

    @property
    def value(self) -> float:
        return self.sum / max(self.n, 1)


class LossMeter:
    """The losses of each update on their way from the device to the log.

    They are read `lag` updates later, so that nothing waits for a GPU. The lag is a fixed number,
    not "what has arrived", so that all ranks stop after the same update. A line for the log follows
    from the updates alone, so a resumed run writes the same ones.
    """

    def __init__(self, job, log_every: int, lag: int):
        """
        job        has the `unit` and the `names` of items, for an error message
        log_every  updates between two progress lines
        """
        self.job, self.log_every, self.lag = job, log_every, lag
        self.log: Callable = dict  # called with the values of a progress line
        self.pending = deque()  # (update, its items, lr, values on the host, event: they are there)
        self.loss = math.nan  # mean of the newest update that was read
        self.stop = False  # whether a rank was asked to stop
        self.since_evaluation = self.since_line = Mean()

    def add(self, n_updates: int, items: np.ndarray, values: torch.Tensor, lr: float) -> None:
        """Add an update. values [items + 2]: losses, the gradients' norm, a signal or 0."""
        event = None
        if values.is_cuda:
            device = values.device  # it may be another one than PyTorch's current device
            host = torch.empty_like(values, device='cpu', pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
        self.pending.append((n_updates, items, lr, values, event))
        self.read(self.lag)

    def read(self, n_left: int = 0) -> None:
        """Read the oldest updates until `n_left` are pending. Raises InputError."""
        while len(self.pending) > n_left:
            n_updates, items, lr, values, event = self.pending.popleft()
            if event:
                event.synchronize()
            *losses, norm, stop = values.tolist()
            self.loss = sum(losses) / len(losses)
            self.stop = self.stop or stop > 0
            if not math.isfinite(self.loss) or not math.isfinite(norm):
                raise InputError(self._not_finite(n_updates, items, losses, norm))
            self.since_evaluation = self.since_evaluation.plus(self.loss)
            self.since_line = self.since_line.plus(self.loss)
            if n_updates % self.log_every == 0:
                mean, self.since_line = self.since_line.value, Mean()
                self.log(n_updates=n_updates, loss=mean, lr=lr, grad_norm=norm)

    def _not_finite(self, n_updates, items, losses, norm):
        wrong = [i for i, loss in zip(items, losses) if not math.isfinite(loss)]
        what = f'the loss is {self.loss}' if wrong else f"the gradients' norm is {norm}"
        names = self.job.names(wrong or items)
        more = f' and {len(names) - 8} more' if len(names) > 8 else ''
        return (
            f'update {n_updates}: {what} ({self.job.unit} {", ".join(names[:8])}{more}); earlier '
            'checkpoints are kept. A lower --lr may help'
        )


class Table:
    """The evaluations that a run prints, under a header of their names in the log."""

    def __init__(self, columns: dict[str, str]):
        """columns  name -> format"""
        self.columns, self.is_new = columns, True

    def show(self, line: dict) -> None:
        """Print an evaluation, '-' where it lacks a value."""
        if self.is_new:
            tqdm.write(' '.join(self.columns), file=sys.stdout)
            self.is_new = False
        words = [
            f'{format(line[name], form) if name in line else "-":>{len(name)}}'
            for name, form in self.columns.items()
        ]
        tqdm.write(' '.join(words), file=sys.stdout)


class Speaker:
    """Says how long a run will take and, without a terminal, every half minute how far it is."""

    def __init__(self, job, n_done: int, n_total: int, logger: ResultLogger | None):
        """logger  of the first rank, which alone speaks"""
        self.job, self.n_done, self.n_total, self.logger = job, n_done, n_total, logger
        self.started = self.said = time.monotonic()
        self.is_silent = sys.stderr.isatty()  # the bar says more
        self.has_estimated = False

    def say(self, n_updates: int, loss: float) -> None:
        """Speak if it is time to. Called after each update."""
        now, n = time.monotonic(), n_updates - self.n_done
        if not self.logger or now - self.said < (PAUSE if self.has_estimated else FIRST) or n < 3:
            return
        self.said = now
        per_second = n / (now - self.started)
        left = duration((self.n_total - n_updates) / per_second)
        if not self.has_estimated:
            self.has_estimated = True
            text = f'{self.n_total - n_updates:,} updates are left: about {left}'
            tqdm.write(text, file=sys.stderr)
            return
        self.logger.write()
        if not self.is_silent:
            amount, name = self.job.speed
            print(
                f'update {n_updates:,} of {self.n_total:,}: loss {loss:.3f}, '
                f'{amount * per_second:,.0f} {name}/s, {left} left',
                file=sys.stderr,
                flush=True,
            )


def duration(seconds: float) -> str:
    """Return a time in words: '50 s', '12 min', '3 h 05 min'."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{minutes // 60} h {minutes % 60:02} min' if minutes >= 120 else f'{minutes} min'
