"""What the benchmarks share: processes that take turns, and the matrix products of a step alone.

Each implementation has a process of its own, which waits while another one has its turn. Ratios are
medians over the turns. The losses of all variants without dropout are compared before the timing.
`floor` is the time that the matrix products of our step take alone, on operands of the same shapes,
in the same turns. Peak memory is that of a process that does nothing but a few training steps.
This project tells glibc to keep freed memory, as its scripts do.

A variant is named by its implementation and the rest; the last word is its precision.
"""

import gpt1.startup  # noqa: F401 (before the import of any library)

import argparse
import contextlib
import importlib.util
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.others import make_weights
from gpt1.ops.functional import product
from gpt1.run.parallel import keep_freed_memory
from gpt1.run.precision import Precision, autocast, set_tf32
from model_pytorch import Config
from opt import OpenAIAdam

N_MEMORY_STEPS = 4
OTHERS = ('padded', 'nanogpt', 'transformers')
# Between the losses of two implementations
TOLERANCES = {'fp32': 1e-4, 'tf32': 1e-2, 'bf16': 0.1, 'fp16': 2e-2}


def implementation(name: str) -> str:
    """Return which of `OTHERS` a variant is of, or 'ours'."""
    return next((other for other in OTHERS if name.startswith(other)), 'ours')


class Ours:
    """The steps of this project. What `mean_loss` is to the others, `batch_losses` is to it."""

    def __init__(self, kind: type, config, device, precision: str, lr: float, twin=None):
        """`twin` is another variant, whose parameters and optimizer this one takes."""
        self.config, self.device, self.precision = config, device, Precision(precision, device)
        if twin:
            self.model, self.opt = twin.model, twin.opt
            return
        self.model = kind(config)
        self.model.load_state_dict(make_weights(kind, config))
        self.model.to(device)
        parameters = self.model.parameters()
        self.opt = OpenAIAdam(parameters, lr, 'warmup_constant', warmup=0.1, t_total=1000)

    def autocast(self) -> torch.autocast:
        return autocast(self.device, self.precision.name)

    def train(self, item) -> None:
        self.model.train()
        with self.autocast():
            losses = self.batch_losses(item)
        self.precision.scale(losses.mean()).backward()
        self.precision.step(self.opt, losses.detach())
        self.opt.zero_grad(set_to_none=True)


@dataclass
class Task:
    """What is measured, of fine-tuning or of pre-training, whose classes add two methods:

    make(names)  the variants of these names, of one implementation: name -> object
    size(item)   how many stories or tokens a step has
    """

    config: Config
    device: torch.device
    items: list  # what a step of each turn gets
    kinds = ('train',)  # the methods of a variant that are timed
    unit = 'tokens'


class Products(TorchDispatchMode):
    """Counts the matrix products that are done in this context.

    `counts` has the shapes and the type of their factors: (shape of a, shape of b, dtype) -> number
    """

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
            total += n * clock(device, function, a, b)[0]
        return total


def clock(device: torch.device, function: Callable, *arguments) -> tuple[float, float]:
    """Return the wall and processor seconds of a call."""
    synchronize = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    synchronize()
    start, cpu = time.perf_counter(), time.process_time()
    function(*arguments)
    synchronize()
    return time.perf_counter() - start, time.process_time() - cpu


def peak_bytes(device: torch.device) -> int:
    """Return the most memory this process has held: of the device on CUDA, else resident memory."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    with open('/proc/self/status') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith('VmHWM'))


class Variants:
    """Some variants of one implementation, in the process that does their steps."""

    def __init__(self, task: Task, names: Sequence[str]):
        set_tf32(names[0].split()[-1])
        self.is_ours = implementation(names[0]) == 'ours'
        if self.is_ours:
            keep_freed_memory()
        self.task, self.variants, self.products = task, task.make(names), {}

    @torch.no_grad()
    def losses(self, name: str) -> np.ndarray:
        """Return the losses of the first item without dropout."""
        self.variants[name].model.eval()
        return self.variants[name].losses(self.task.items[0]).float().cpu().numpy()

    def warm_up(self, name: str, kind: str) -> None:
        """Do a step; of ours with each item, since a new size costs it more, and count products."""
        step = getattr(self.variants[name], kind)
        for item in self.task.items if self.is_ours else self.task.items[:1]:
            with Products() as products:
                step(item)
        self.products[name, kind] = products

    def time(self, name: str, kind: str, turn: int) -> tuple[float, float, float]:
        """Return the wall and processor seconds of a step, and those of our products alone."""
        step, device = getattr(self.variants[name], kind), self.task.device
        wall, cpu = clock(device, step, self.task.items[turn])
        return wall, cpu, self.products[name, kind].seconds(device) if self.is_ours else np.nan

    def peak(self, name: str) -> int:
        """Return the most memory that a few training steps need."""
        if self.task.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        for item in self.task.items[:N_MEMORY_STEPS]:
            self.variants[name].train(item)
        return peak_bytes(self.task.device)


def _start(*arguments) -> None:
    global _variants  # of this process
    _variants = Variants(*arguments)


def _call(method: str, *arguments):
    return getattr(_variants, method)(*arguments)


class Worker(ProcessPoolExecutor):
    """A process with some `Variants`, which does a step when it is asked to."""

    def __init__(self, *arguments):
        context = multiprocessing.get_context('spawn')
        super().__init__(1, context, initializer=_start, initargs=arguments)

    def ask(self, method: str, *arguments):
        """Return what a method of `Variants` returns."""
        return self.submit(_call, method, *arguments).result()


def loss_differences(losses: dict[str, np.ndarray]) -> dict[str, float]:
    """Return how far each variant's losses are from the first one's. Ends the program if far."""
    reference = next(iter(losses.values()))
    result = {name: float(abs(values - reference).max()) for name, values in losses.items()}
    for name, difference in result.items():
        if not difference <= TOLERANCES[name.split()[-1]]:
            sys.exit(f'error: the losses of {name} differ by {difference:.1e}')
    return result


def take_turns(task: Task, names: list[str]) -> tuple[dict, dict]:
    """Return the timings, (kind, name) -> list, and the difference of each variant's losses."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for some in dict.fromkeys(map(implementation, names)):
            mine = [name for name in names if implementation(name) == some]
            workers |= dict.fromkeys(mine, stack.enter_context(Worker(task, mine)))
        differences = loss_differences({n: workers[n].ask('losses', n) for n in names})
        steps = [(kind, name) for kind in task.kinds for name in names]
        for kind, name in steps:
            workers[name].ask('warm_up', name, kind)
        timings = {step: [] for step in steps}
        for turn in range(len(task.items)):
            for kind, name in steps:
                timings[kind, name].append(workers[name].ask('time', name, kind, turn))
    return timings, differences


def row_of(task: Task, timings: dict, kind: str, name: str) -> dict[str, str]:
    """Return the cells of a variant by their titles. Ratios are medians over the turns."""
    wall, cpu, floor = np.transpose(timings[kind, name])
    low, median, high = np.quantile(wall, [0.25, 0.5, 0.75])
    row = {
        'median s (middle half)': f'{median:.3f} ({low:.3f}-{high:.3f})',
        'CPU s': f'{np.median(cpu):.2f}',
        f'{task.unit}/s': f'{task.size(task.items[0]) / median:.1f}',
    }
    for _, other in timings:
        if (title := f'x {implementation(other)}') != 'x ours' and title not in row:
            row[title] = f'{np.median(np.transpose(timings[kind, other])[0] / wall):.2f}'
    row['x floor'] = f'{np.median(wall / floor):.2f}'.replace('nan', '')
    return row


def compare(task: Task, names: list[str], memory: bool = True) -> None:
    """Time the variants, turn by turn, and print a table for each kind of step."""
    peaks = {}
    for name in names if memory else ():
        with Worker(task, [name]) as worker:
            peaks[name] = f'{worker.ask("peak", name) / 1e9:.2f}'
    timings, differences = take_turns(task, names)
    for kind in task.kinds:
        table = [['']]
        for name in names:
            row = row_of(task, timings, kind, name)
            row |= {'train GB': peaks.get(name, ''), 'loss +-': f'{differences[name]:.0e}'}
            table[0] = [kind, *row]
            table.append([name, *row.values()])
        widths = [max(map(len, column)) for column in zip(*table)]
        for name, *cells in table:
            aligned = (f'{cell:>{width}}' for cell, width in zip(cells, widths[1:]))
            print(f'{name:{widths[0]}}', *aligned, sep='  ')
        print(flush=True)


def machine_name(device: torch.device) -> str:
    """Return the processor and its threads, or the GPU."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration), open('/proc/cpuinfo') as f:
        name = next(line.split(':')[1].strip() for line in f if line.startswith('model name'))
        return f'{name}, {torch.get_num_threads()} threads'
    return 'CPU'


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that fine-tuning and pre-training share."""
    parser = argparse.ArgumentParser(description=description.split('\n')[0])
    add = parser.add_argument
    add('--steps', type=int, default=5, help='timed steps of each variant (default: 5)')
    add('--variants', default='', help='only those with this in their name, separated by commas')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu', type=torch.device)
    add('--no_memory', action='store_true', help='do not measure peak memory')
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
        compare(task, names, not args.no_memory)
