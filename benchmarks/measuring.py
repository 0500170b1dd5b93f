"""What the benchmarks share: processes that take turns, and the matrix products of a step alone.

Each variant has a process of its own, which waits while another one has its turn. Ratios are
medians over the turns. The losses of all variants without dropout are compared before the timing.
`floor` is the time that the matrix products of our step take alone, on operands of the same shapes,
in the same turns. Peak memory is that of the process. This project tells glibc to keep freed
memory, as its scripts do.

A variant is named by its implementation and the rest; the last word is its precision.
"""

import gpt1.startup  # noqa: F401 (before the import of any library)

import argparse
import contextlib
import importlib.util
import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.others import make_model
from gpt1.ops.functional import product
from gpt1.run.parallel import keep_freed_memory
from gpt1.run.precision import Precision, autocast, set_tf32
from model_pytorch import Config
from opt import OpenAIAdam

OTHERS = ('padded', 'nanogpt', 'transformers')
# Between the losses of two implementations
TOLERANCES = {'fp32': 1e-4, 'tf32': 1e-2, 'bf16': 0.1, 'fp16': 2e-2}


def implementation(name: str) -> str:
    """Return which of `OTHERS` a variant is of, or 'ours'."""
    return next((other for other in OTHERS if name.startswith(other)), 'ours')


class Ours:
    """The steps of this project."""

    def __init__(self, config, device, precision: str):
        self.config, self.device, self.precision = config, device, Precision(precision, device)
        self.model = make_model(self.kind, config).to(device)
        parameters = self.model.parameters()
        self.opt = OpenAIAdam(parameters, self.lr, 'warmup_constant', warmup=0.1, t_total=1000)

    def autocast(self) -> torch.autocast:
        return autocast(self.device, self.precision.name)

    def train_losses(self, item) -> torch.Tensor:
        return self.losses(item)

    def train(self, item) -> None:
        self.model.train()
        losses = self.train_losses(item)
        self.precision.scaler.scale(losses.mean()).backward()
        self.precision.step(self.opt, losses.detach())
        self.opt.zero_grad(set_to_none=True)


@dataclass
class Task:
    """What is measured: steps with items, of fine-tuning or of pre-training.

    make   returns the variant of a name
    items  what a step of each turn gets
    size   how many stories or tokens a step has
    kinds  the methods of a variant that are timed
    """

    make: Callable
    config: Config
    device: torch.device
    items: list
    size: int
    unit: str = 'tokens'
    kinds: Sequence[str] = ('train',)


class Products(TorchDispatchMode):
    """Counts the matrix products in this context: (shape of a, shape of b, dtype) -> number."""

    FACTORS = {'mm': 0, 'bmm': 0, '_linear_pointwise': 0, 'addmm': 1, 'baddbmm': 1}

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split('::')[1].split('.')[0]
        if name in self.FACTORS:
            a, b = args[self.FACTORS[name] :][:2]
            b_shape = b.shape[::-1] if name == '_linear_pointwise' else b.shape
            self.counts[tuple(a.shape), tuple(b_shape), a.dtype] += 1
        return function(*args, **(kwargs or {}))

    def seconds(self, device: torch.device) -> float:
        """Return the time of these products alone."""
        total = 0
        for (*shapes, dtype), n in self.counts.items():
            a, b = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
            function = torch.bmm if a.dim() == 3 else product
            function(a, b)
            total += n * clock(device, function, a, b)
        return total


def clock(device: torch.device, function: Callable, *arguments) -> float:
    """Return the seconds of a call."""
    synchronize = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    synchronize()
    start = time.perf_counter()
    function(*arguments)
    synchronize()
    return time.perf_counter() - start


class Turns:
    """The steps of a variant, in the process that does them."""

    def __init__(self, task: Task, name: str):
        self.task, self.products, self.is_ours = task, {}, implementation(name) == 'ours'
        set_tf32(name.split()[-1])
        if self.is_ours:
            keep_freed_memory()
        self.variant = task.make(name, task.config, task.device)

    @torch.no_grad()
    def losses(self) -> np.ndarray:
        """Return the losses of the first item without dropout."""
        self.variant.model.eval()
        return self.variant.losses(self.task.items[0]).float().cpu().numpy()

    def warm_up(self, kind: str) -> None:
        """Do a step; of ours with each item, since a new size costs it more, and count products."""
        for item in self.task.items if self.is_ours else self.task.items[:1]:
            with Products() as self.products[kind]:
                getattr(self.variant, kind)(item)

    def time(self, kind: str, turn: int) -> tuple[float, float]:
        """Return the seconds of a step, and those of our products alone."""
        device = self.task.device
        seconds = clock(device, getattr(self.variant, kind), self.task.items[turn])
        return seconds, self.products[kind].seconds(device) if self.is_ours else np.nan

    def peak(self) -> int:
        """Return the most memory this process has held: of the GPU, else resident memory."""
        if self.task.device.type == 'cuda':
            return torch.cuda.max_memory_allocated(self.task.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _start(*arguments) -> None:
    global _turns  # of this process
    _turns = Turns(*arguments)


def _call(method: str, *arguments):
    return getattr(_turns, method)(*arguments)


def ask(process: ProcessPoolExecutor, method: str, *arguments):
    """Return what a method of the `Turns` of a process returns."""
    return process.submit(_call, method, *arguments).result()


def loss_differences(losses: dict[str, np.ndarray]) -> dict[str, float]:
    """Return how far each variant's losses are from the first one's. Ends the program if far."""
    reference = next(iter(losses.values()))
    result = {name: float(abs(values - reference).max()) for name, values in losses.items()}
    for name, difference in result.items():
        if not difference <= TOLERANCES[name.split()[-1]]:
            sys.exit(f'error: the losses of {name} differ by {difference:.1e}')
    return result


def take_turns(task: Task, names: list[str]) -> tuple[dict, dict, dict]:
    """Time the variants turn by turn, each in a process of its own.

    Returns the timings, (kind, name) -> list, and of each variant its peak memory in bytes and the
    difference of its losses.
    """
    context = multiprocessing.get_context('spawn')
    with contextlib.ExitStack() as stack:
        processes = {}
        for name in names:
            process = ProcessPoolExecutor(1, context, _start, (task, name))
            processes[name] = stack.enter_context(process)
        losses = {name: ask(process, 'losses') for name, process in processes.items()}
        differences = loss_differences(losses)
        timings = {(kind, name): [] for kind in task.kinds for name in names}
        for kind, name in timings:
            ask(processes[name], 'warm_up', kind)
        for turn in range(len(task.items)):
            for kind, name in timings:
                timings[kind, name].append(ask(processes[name], 'time', kind, turn))
        peaks = {name: ask(process, 'peak') for name, process in processes.items()}
    return timings, peaks, differences


def row_of(task: Task, timings: dict, kind: str, name: str) -> dict[str, str]:
    """Return the cells of a variant by their titles. Ratios are medians over the turns."""
    seconds, floor = np.transpose(timings[kind, name])
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    row = {
        'median s (middle half)': f'{median:.3f} ({low:.3f}-{high:.3f})',
        f'{task.unit}/s': f'{task.size / median:.1f}',
    }
    for _, other in timings:
        if (title := f'x {implementation(other)}') != 'x ours' and title not in row:
            row[title] = f'{np.median(np.transpose(timings[kind, other])[0] / seconds):.2f}'
    row['x floor'] = f'{np.median(seconds / floor):.2f}'.replace('nan', '')
    return row


def compare(task: Task, names: list[str]) -> None:
    """Time the variants, and print a table for each kind of step."""
    timings, peaks, differences = take_turns(task, names)
    for kind in task.kinds:
        for name in names:
            row = row_of(task, timings, kind, name)
            row |= {'peak GB': f'{peaks[name] / 1e9:.2f}', 'loss +-': f'{differences[name]:.0e}'}
            if name == names[0]:
                print(f'{kind:25}', *(f'{title:>10}' for title in row))
            print(f'{name:25}', *(f'{row[title]:>{max(len(title), 10)}}' for title in row))
        print(flush=True)


def machine_name(device: torch.device) -> str:
    """Return the GPU, or the processor's instructions and its threads."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads'


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that fine-tuning and pre-training share."""
    parser = argparse.ArgumentParser(description=description.split('\n')[0])
    add = parser.add_argument
    add('--steps', type=int, default=5, help='timed steps of each variant (default: 5)')
    add('--variants', default='', help='only those with this in their name, separated by commas')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu', type=torch.device)
    return parser


def report(args: argparse.Namespace, title: str, task: Task, variants: Sequence[str]) -> None:
    """Do what the options say with a task and those of its variants that are wanted."""
    parts = [part.strip() for part in args.variants.split(',')]
    names = [name for name in variants if any(part in name for part in parts)]
    if not importlib.util.find_spec('transformers'):
        names = [name for name in names if implementation(name) != 'transformers']
    if names:
        machine = machine_name(args.device)
        print(f'{title}; {machine}; torch {torch.__version__}; {args.steps} steps')
        compare(task, names)
