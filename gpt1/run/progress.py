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

FIRST = 5.0  # seconds before the first line of a run without a terminal
PAUSE = 30.0  # seconds between two of them


class Mean(NamedTuple):
    """A mean of numbers that are added one by one. A checkpoint keeps it as a list."""

    sum: float = 0.0
    n: int = 0

    def plus(self, number: float) -> 'Mean':
        return Mean(self.sum + number, self.n + 1)

    @property
    def value(self) -> float:
        return self.sum / max(self.n, 1)


class LossMeter:
    """The losses of each update on their way from the device to the log.

    They are read `lag` updates later, so that nothing waits for a GPU. The lag is a fixed number,
    not "what has arrived", so that all ranks stop after the same update. A line for the log, each
    `log_every` updates, follows from the updates alone, so a resumed run writes the same ones.
    """

    def __init__(self, job, log_every: int, lag: int):
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
                wrong = [i for i, loss in zip(items, losses) if not math.isfinite(loss)]
                what = f'the loss is {self.loss}' if wrong else f"the gradients' norm is {norm}"
                names = self.job.names(wrong or items)
                more = f' and {len(names) - 8} more' if len(names) > 8 else ''
                raise InputError(
                    f'update {n_updates}: {what} ({self.job.unit} {", ".join(names[:8])}{more}); '
                    'earlier checkpoints are kept. A lower --lr may help'
                )
            self.since_evaluation = self.since_evaluation.plus(self.loss)
            self.since_line = self.since_line.plus(self.loss)
            if n_updates % self.log_every == 0:
                mean, self.since_line = self.since_line.value, Mean()
                self.log(n_updates=n_updates, loss=mean, lr=lr, grad_norm=norm)


class Speaker:
    """Says how far a run is, every half minute, where no terminal shows the bar: the first rank."""

    def __init__(self, job, n_done: int, n_total: int, logger: ResultLogger | None):
        self.job, self.n_done, self.n_total, self.logger = job, n_done, n_total, logger
        self.started = time.monotonic()
        self.due = self.started + FIRST

    def say(self, n_updates: int, loss: float) -> None:
        """Speak if it is time to. Called after each update."""
        now = time.monotonic()
        if not self.logger or now < self.due:
            return
        self.due = now + PAUSE
        self.logger.write()
        if not sys.stderr.isatty():
            per_second = (n_updates - self.n_done) / (now - self.started)
            left = tqdm.format_interval((self.n_total - n_updates) / per_second)
            amount, name = self.job.speed
            text = f'update {n_updates:,} of {self.n_total:,}: loss {loss:.3f}, '
            text += f'{amount * per_second:,.0f} {name}/s, {left} left'
            print(text, file=sys.stderr, flush=True)
