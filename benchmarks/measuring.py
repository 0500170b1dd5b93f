"""What the benchmarks share: processes that take turns, the matrix products alone, and the table.

Each implementation has a process of its own, which waits while another one has its turn. Ratios are
medians over the turns. The losses of all variants without dropout are compared before the timing.
`floor` is the time that the matrix products of a step take alone, on operands of the same shapes,
in the same turns. Peak memory is that of a process that does nothing but a few training steps.
"""

import gpt1.startup  # noqa: F401 (before the import of any library)

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.others import make_weights
from gpt1.ops.functional import onednn_product, product, uses_onednn
from gpt1.ops.tied import rows_a_block
from gpt1.run.parallel import keep_freed_memory
from gpt1.run.precision import DTYPES, Precision, autocast
from model_pytorch import Config
from opt import OpenAIAdam

N_MEMORY_STEPS = 4
TOLERANCES = {'fp32': 1e-4, 'bf16': 0.1}  # between the losses of two implementations


class Ours:
    """The steps of this project. What `mean_loss` is to the others, `batch_losses` is to it."""

    def __init__(self, kind: type, config, device, precision: str, lr: float, twin=None):
        """`twin` is another variant, whose parameters and optimizer this one takes."""
        keep_freed_memory()
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
    """What is measured, of fine-tuning or of pre-training, whose classes add these methods:

    make(names)                 the variants of these names: name -> object
    products(name, kind, item)  the matrix products that a step cannot do without
    size(item)                  how many stories or tokens a step has

    A variant is named by its implementation and the rest; the last word is its precision.
    """

    config: Config
    device: torch.device
    items: list  # what a step of each turn gets
    kinds = ('train',)  # the methods of a variant that are timed; the memory is that of the first
    unit = 'tokens'

    def implementation(self, name: str) -> str:
        return name.split()[0]

    def group(self, name: str) -> str:
        """Return what the variants that are measured together have in common."""
        return ''

    def n_warm_up(self, name: str) -> int:
        """Return how many of the items are tried before the timing."""
        return 1

    def references(self, names: Iterable[str]) -> dict[str, str]:
        """Return the first variant of each implementation that ours is compared with."""
        result = {}
        for name in names:
            result.setdefault(self.implementation(name), name)
        result.pop('ours', None)
        return result


# ------------------------------------------------------------------------------ the matrix products


class Product(NamedTuple):
    """Matrix products of one shape, [m, k] [k, n]; with a `batch`, [batch, m, k] [batch, k, n]."""

    m: int
    k: int
    n: int
    count: float
    batch: int = 0

    @property
    def flop(self) -> float:
        return 2 * self.m * self.k * self.n * self.count * max(1, self.batch)


def training_products(
    n_tokens: int, n_predictions: int, config: Config, device: torch.device
) -> list[Product]:
    """Return the products of a training step's linear layers and LM head, with their gradients.

    Those of the LM head are in blocks, as the program computes them.
    """
    d, layers = config.n_embd, config.n_layer
    rows = config.first_position + config.n_ctx
    block = rows_a_block(torch.empty(0, device=device))
    shapes = [(n_tokens, d, n, layers) for n in (3 * d, d, 4 * d)]
    shapes += [(n_tokens, 4 * d, d, layers), (n_predictions, d, block, rows // block)]
    shapes.append((n_predictions, d, rows % block, 1))
    products = []
    for m, k, n, count in shapes:
        products += [Product(m, k, n, count), Product(m, n, k, count), Product(k, m, n, count)]
    return [some for some in products if some.flop]


def flop(products: list[Product]) -> float:
    return sum(some.flop for some in products)


class Floor:
    """The time of a step's matrix products alone, by the library that the program uses."""

    def __init__(self, products: list[Product], dtype: torch.dtype, device: torch.device):
        self.device, self.flop = device, flop(products)
        self.operands = []
        for m, k, n, count, batch in products:
            sizes = [(batch, m, k), (batch, k, n)] if batch else [(m, k), (k, n)]
            a, b = (torch.randn(*size, device=device).to(dtype) for size in sizes)
            self.operands.append((torch.bmm if batch else product, a, b, count))

    def seconds(self) -> float:
        def twice(multiply, a, b):
            multiply(a, b)
            multiply(a, b)

        return sum(
            count / 2 * clock(self.device, twice, *some)[0] for *some, count in self.operands
        )


def print_products(products: list[Product]) -> None:
    """Print the GFLOP a second of a step's fp32 products by both libraries, and which one is used.

    The rates are those of the fastest of three repeats.
    """
    cpu = torch.device('cpu')
    functions = {'MKL': torch.mm}
    if torch.backends.mkldnn.is_available():
        functions['oneDNN'] = onednn_product
    seconds = dict.fromkeys(functions, 0.0)
    libraries = ' '.join(f'{name:>7}' for name in functions)
    print(f'{"fp32 products":>22}  number {libraries}  used (GFLOP/s)')
    for m, k, n, count, _ in products:
        a, b = torch.randn(m, k), torch.randn(k, n)
        line = f'{f"{m} x {k} x {n}":>22}  {count:6}'
        for name, function in functions.items():
            _, *repeats = (clock(cpu, function, a, b)[0] for _ in range(4))  # the first prepares
            seconds[name] += count * min(repeats)
            line += f' {2 * m * k * n / 1e9 / min(repeats):7.0f}'
        print(line, '', 'oneDNN' if uses_onednn(a, b) else 'MKL')
    for name, total in seconds.items():
        speed = flop(products) / 1e9 / total
        print(f'all products of a step by {name}: {total:.3f} s, {speed:.0f} GFLOP/s')


# ---------------------------------------------------------------------------- processes and turns


def synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def clock(device: torch.device, function: Callable, *arguments) -> tuple[float, float]:
    """Return the wall and processor seconds of a call."""
    synchronize(device)
    start, cpu = time.perf_counter(), time.process_time()
    function(*arguments)
    synchronize(device)
    return time.perf_counter() - start, time.process_time() - cpu


def peak_bytes(device: torch.device) -> int:
    """Return the most memory this process has held: of the device on CUDA, else resident memory."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    with open('/proc/self/status') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith('VmHWM'))


class Timing(NamedTuple):
    """The seconds of a step: by the wall clock, of the processor, and of its products alone."""

    wall: float
    cpu: float
    floor: float | None = None
    flop: float | None = None  # of the products


class Variants:
    """Some variants of one implementation, in the process that does their steps."""

    def __init__(self, task: Task, keep: bool):
        if keep:
            keep_freed_memory()
        self.task, self.variants, self.floors = task, {}, {}

    def make(self, names: list[str]) -> None:
        task = self.task
        self.variants, self.floors = {}, {}  # before the next ones need the memory
        self.variants = task.make(names)
        for name in names:
            for kind in task.kinds if task.implementation(name) == 'ours' else ():
                dtype = DTYPES.get(name.split()[-1], torch.float32)
                products = task.products(name, kind, task.items[0])
                self.floors[name, kind] = Floor(products, dtype, task.device)

    @torch.no_grad()
    def losses(self, name: str) -> np.ndarray:
        """Return the losses of the first item without dropout."""
        variant = self.variants[name]
        variant.model.eval()
        losses = variant.losses(self.task.items[0])
        losses = torch.stack(losses) if isinstance(losses, tuple) else losses
        return losses.float().cpu().numpy()

    def time(self, name: str, kind: str, turn: int) -> Timing:
        item = self.task.items[turn]
        seconds = clock(self.task.device, getattr(self.variants[name], kind), item)
        floor = self.floors.get((name, kind))
        if floor is None:
            return Timing(*seconds)
        # Items differ by a few per cent from the first one, whose products the floor computes.
        needed = flop(self.task.products(name, kind, item))
        return Timing(*seconds, floor.seconds() * needed / floor.flop, needed)

    def peak(self, name: str) -> int:
        """Return the most memory that a few steps need, in a process that does nothing else."""
        variant = self.task.make([name])[name]
        for item in self.task.items[:N_MEMORY_STEPS]:
            getattr(variant, self.task.kinds[0])(item)
        return peak_bytes(self.task.device)


def _start(*arguments) -> None:
    global _variants  # of this process
    _variants = Variants(*arguments)


def _call(method: str, *arguments):
    return getattr(_variants, method)(*arguments)


class Worker(ProcessPoolExecutor):
    """A process with the variants of one implementation, which does a step when it is asked to."""

    def __init__(self, task: Task, keep: bool):
        context = multiprocessing.get_context('spawn')
        super().__init__(1, context, initializer=_start, initargs=(task, keep))

    def ask(self, method: str, *arguments):
        """Return what a method of `Variants` returns."""
        return self.submit(_call, method, *arguments).result()


def peak_memory(task: Task, name: str, keep: bool) -> int:
    with Worker(task, keep) as worker:
        return worker.ask('peak', name)


def loss_differences(losses: dict[str, np.ndarray]) -> dict[str, float]:
    """Return how far each variant's losses are from the first one's. Ends the program if far."""
    reference = next(iter(losses.values()))
    result = {name: float(abs(values - reference).max()) for name, values in losses.items()}
    for name, difference in result.items():
        if not difference <= TOLERANCES[name.split()[-1]]:
            sys.exit(f'error: the losses of {name} differ by {difference:.1e}')
    return result


def compare(task: Task, names: list[str], memory: bool, keep: bool) -> Iterator[dict]:
    """Time the variants, group by group. Yields a row for each kind of step and variant."""
    for group in dict.fromkeys(map(task.group, names)):
        some = [name for name in names if task.group(name) == group]
        peaks = {name: peak_memory(task, name, keep) for name in some} if memory else {}
        timings, differences = take_turns(task, some, keep)
        for kind in task.kinds:
            for name in some:
                row = row_of(task, kind, name, timings[kind])
                row['loss_difference'] = differences[name]
                if peaks and kind == task.kinds[0]:
                    row['peak_gb'] = peaks[name] / 1e9
                yield row


def take_turns(task: Task, names: list[str], keep: bool) -> tuple[dict, dict]:
    """Return the timings, kind -> name -> list, and the difference of each variant's losses."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for implementation in dict.fromkeys(map(task.implementation, names)):
            mine = [name for name in names if task.implementation(name) == implementation]
            worker = stack.enter_context(Worker(task, keep))
            worker.ask('make', mine)
            workers.update(dict.fromkeys(mine, worker))
        losses = {name: workers[name].ask('losses', name) for name in names}
        differences = loss_differences(losses)
        for name in names:
            for turn in range(task.n_warm_up(name)):
                for kind in task.kinds:
                    workers[name].ask('time', name, kind, turn)
        timings = {kind: {name: [] for name in names} for kind in task.kinds}
        for turn in range(len(task.items)):
            for kind in task.kinds:
                for name in names:
                    timings[kind][name].append(workers[name].ask('time', name, kind, turn))
    return timings, differences


# --------------------------------------------------------------------------------------- the table


def row_of(task: Task, kind: str, name: str, timings: dict[str, list[Timing]]) -> dict:
    """Return the values of a variant. Ratios are medians over the turns."""
    wall, cpu, floor, flops = (list(values) for values in zip(*timings[name]))
    median = statistics.median(wall)
    row = {
        'kind': kind,
        'variant': name,
        'median_s': median,
        'low_s': float(np.quantile(wall, 0.25)),
        'high_s': float(np.quantile(wall, 0.75)),
        'cpu_s': statistics.median(cpu),
        f'{task.unit}_per_s': task.size(task.items[0]) / median,
        'seconds': wall,
    }
    for implementation, other in task.references(timings).items():
        ratios = [theirs.wall / ours for theirs, ours in zip(timings[other], wall)]
        row[f'times_{implementation}'] = statistics.median(ratios)
    if None not in floor:
        rates = [n / 1e9 / seconds for n, seconds in zip(flops, floor)]
        row['gflop'] = statistics.median(flops) / 1e9
        row['matmul_gflop_per_s'] = statistics.median(rates)
        row['floor_s'] = statistics.median(floor)
        row['times_floor'] = statistics.median(a / b for a, b in zip(wall, floor))
    return row


def columns(task: Task, names: list[str]) -> dict[str, tuple[str, str]]:
    """Return the title, and the form of each value after the seconds."""
    per_second = f'{task.unit}_per_s'
    return {
        'cpu_s': ('CPU s', '.2f'),
        per_second: (f'{task.unit}/s', '.2f' if task.unit == 'stories' else '.0f'),
        **{f'times_{other}': (f'x {other}', '.2f') for other in task.references(names)},
        'gflop': ('GFLOP', '.0f'),
        'matmul_gflop_per_s': ('GFLOP/s of mm', '.0f'),
        'times_floor': ('x floor', '.2f'),
        'peak_gb': ('peak GB', '.2f'),
        'loss_difference': ('loss +-', '.0e'),
    }


def print_table(task: Task, names: list[str], rows: Iterator[dict]) -> list[dict]:
    """Print each row when it is known, under a header for each kind of step. Returns them all.

    What a row does not have stays empty.
    """
    layout = columns(task, names)
    titles = ''.join(f'  {title:>7}' for title, _ in layout.values())
    done = []
    for row in rows:
        if not done or row['kind'] != done[-1]['kind']:
            print(f'\n{row["kind"]:26}{"median s (middle half)":>24}{titles}')
        done.append(row)
        seconds = f'{row["median_s"]:.3f} ({row["low_s"]:.3f}-{row["high_s"]:.3f})'
        line = f'{row["variant"]:26}{seconds:>24}'
        for key, (title, form) in layout.items():
            cell = format(row[key], form) if key in row else ''
            line += f'  {cell:>{max(7, len(title))}}'
        print(line.rstrip(), flush=True)
    return done


# -------------------------------------------------------------------------------------- the command


def machine_name(device: torch.device) -> str:
    """Return the processor and its threads, or the GPU."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{cpu_name()}, {torch.get_num_threads()} threads'


def cpu_name() -> str:
    try:
        with open('/proc/cpuinfo') as f:
            return next(line.split(':')[1].strip() for line in f if line.startswith('model name'))
    except (OSError, StopIteration):
        return 'CPU'


def transformers_version() -> str | None:
    """Return the version of transformers, which is told to be quiet; None if it is missing."""
    try:
        import transformers
    except ImportError:
        return None
    transformers.logging.set_verbosity_error()
    return transformers.__version__


def make_parser(description: str, variants: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of the options that fine-tuning and pre-training share."""
    parser = argparse.ArgumentParser(
        description=description.split('\n')[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('--steps', type=int, default=5, help='timed steps of each variant')
    add('--variants', default='', help='only those with this in their name, separated by commas')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--no_memory', action='store_true', help='do not measure peak memory')
    add('--profile', choices=list(variants), metavar='VARIANT', help='only profile its steps')
    add('--keep_freed_memory', action='store_true', help='in the processes of the others too')
    add('--json', help='write the results to this file')
    return parser


def profile(name: str, task: Task) -> None:
    """Print the slowest operations of a variant's training steps, after one step an item."""
    step = getattr(task.make([name])[name], task.kinds[0])
    for item in task.items:
        step(item)
    # The profiler's records lie between the arrays of a step, so that the next step finds less
    # room: without this, page faults would fill the table.
    room = torch.ones(1 << 28)
    del room
    with torch.profiler.profile() as record:
        for item in task.items:
            step(item)
    print(f'{name}, {len(task.items)} training steps')
    sort_by = f'self_{task.device.type}_time_total'
    print(record.key_averages().table(sort_by, row_limit=24, max_name_column_width=40))


def report(args: argparse.Namespace, variants: Sequence[str], tasks: dict[str, Task]) -> None:
    """Do what the options say with each task, which has a title."""
    version = transformers_version()
    parts = [part.strip() for part in args.variants.split(',')]
    names = [name for name in variants if any(part in name for part in parts)]
    if version is None:
        names = [name for name in names if 'transformers' not in name]
    machine = machine_name(torch.device(args.device))
    versions = f'torch {torch.__version__}, transformers {version or "(not installed)"}'
    print(f'{machine}; {versions}; {args.steps} steps')
    rows = []
    for title, task in tasks.items():
        print(f'\n{title}')
        if args.profile:
            profile(args.profile, task)
            continue
        if task.device.type == 'cpu':
            products = task.products(variants[0], task.kinds[0], task.items[0])
            print_products([some for some in products if not some.batch])
        results = compare(task, names, not args.no_memory, args.keep_freed_memory)
        rows += [{'task': title, **row} for row in print_table(task, names, results)]
    if args.json:
        result = {'machine': machine, 'versions': versions, 'arguments': vars(args), 'rows': rows}
        with open(args.json, 'w', encoding='utf-8') as f:
            json.dump(result, f, indent=1)
