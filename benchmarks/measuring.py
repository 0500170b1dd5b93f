"""What the benchmarks share: processes that take turns, the matrix products alone, and the table.

Each implementation has a process of its own, which waits while another one has its turn. Ratios are
medians over the turns, so that what else the machine does falls on both. Before the timing, the
losses of all variants without dropout are compared.

`floor` is the time that the matrix products of a step take alone, on operands of the same shapes,
in the same turns. Peak memory is that of a process that does nothing but a few training steps of
one variant.
"""

import startup  # noqa: F401 (before the import of any library)

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from functional import rows_a_block
from model_pytorch import Config
from parallel import keep_freed_memory
from precision import DTYPES
from products import onednn_product, product, uses_onednn

N_MEMORY_STEPS = 4
TOLERANCES = {'fp32': 1e-4, 'bf16': 0.1}  # between the losses of two implementations


@dataclass
class Task:
    """What is measured. Its methods are those of fine-tuning or of pre-training.

    A variant is named by its implementation and the rest; the last word is its precision.
    """

    config: Config
    device: torch.device
    items: list  # what a step of each turn gets
    kinds = ('update',)  # the methods of a variant that are timed; the memory is that of the first
    unit = 'tokens'

    def make(self, names: Sequence[str]) -> dict[str, object]:
        """Return the variants of these names, all of one implementation."""
        raise NotImplementedError

    def products(self, name: str, kind: str, item) -> 'list[Product]':
        """Return the matrix products that a step of this kind cannot do without."""
        raise NotImplementedError

    def size(self, item) -> int:
        """Return how many stories or tokens a step has."""
        raise NotImplementedError

    def implementation(self, name: str) -> str:
        return name.split()[0]

    def group(self, name: str) -> str:
        """Return what the variants that are measured together have in common."""
        return ''

    def n_warm_up(self, name: str) -> int:
        """Return how many of the items are tried before the timing."""
        return 1


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
    """Return the products of a training step's linear layers and LM head.

    Those of the LM head are in blocks, as the program computes them.
    """
    n, layers = config.n_embd, config.n_layer
    rows = config.first_position + config.n_ctx
    block = rows_a_block(torch.empty(0, device=device))
    forward = [
        Product(n_tokens, n, 3 * n, layers),
        Product(n_tokens, n, n, layers),
        Product(n_tokens, n, 4 * n, layers),
        Product(n_tokens, 4 * n, n, layers),
        Product(n_predictions, n, block, rows // block),
        Product(n_predictions, n, rows % block, 1),
    ]
    products = []
    for m, k, n, count, _ in forward:  # each product has two gradients
        products += [Product(m, k, n, count), Product(m, n, k, count), Product(k, m, n, count)]
    return [some for some in products if some.flop]


def flop(products: list[Product]) -> float:
    return sum(some.flop for some in products)


class Floor:
    """The time of a step's matrix products alone, by the library that the program uses."""

    def __init__(self, products: list[Product], dtype: torch.dtype, device: torch.device):
        def operand(batch, *size):
            shape = (batch, *size) if batch else size
            return torch.randn(*shape, device=device).to(dtype)

        self.device = device
        self.flop = flop(products)
        self.operands = [
            (operand(batch, m, k), operand(batch, k, n), count)
            for m, k, n, count, batch in products
            if count
        ]

    def seconds(self) -> float:
        total = 0.0
        for a, b, count in self.operands:
            repeats = min(int(count), 2)
            multiply = product if a.dim() == 2 else torch.bmm

            def several(a=a, b=b, multiply=multiply, repeats=repeats):
                for _ in range(repeats):
                    multiply(a, b)

            total += clock(self.device, several)[0] / repeats * count
        return total


def print_products(products: list[Product]) -> list[dict]:
    """Measure the fp32 products of a step by both libraries of a CPU, and print which one is used.

    Returns a dict for each shape. The rates are those of the fastest of three repeats.
    """

    def rate(function, a, b):
        seconds = []
        for _ in range(4):  # the first one prepares
            start = time.perf_counter()
            function(a, b)
            seconds.append(time.perf_counter() - start)
        return 2 * a.numel() * b.shape[1] / 1e9 / min(seconds[1:])

    has_onednn = torch.backends.mkldnn.is_available()
    rows = []
    print(f'{"fp32 products":>22}  number  GFLOP/s: MKL  oneDNN  used')
    for m, k, n, count, _ in products:
        a, b = torch.randn(m, k), torch.randn(k, n)
        row = {'m': m, 'k': k, 'n': n, 'count': count, 'mkl': rate(torch.mm, a, b)}
        row['onednn'] = rate(onednn_product, a, b) if has_onednn else math.nan
        row['used'] = 'oneDNN' if uses_onednn(a, b) else 'MKL'
        size = f'{m} x {k} x {n}'
        print(f'{size:>22}  {count:6}  {row["mkl"]:12.0f}  {row["onednn"]:6.0f}  {row["used"]}')
        rows.append(row)
    for key, name in {'mkl': 'MKL', 'onednn': 'oneDNN'}.items():
        seconds = sum(some.flop / 1e9 / row[key] for some, row in zip(products, rows))
        speed = flop(products) / 1e9 / seconds
        print(f'all products of a step by {name}: {seconds:.3f} s, {speed:.0f} GFLOP/s')
    return rows


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

    def __init__(self, task: Task):
        self.task, self.variants, self.floors = task, {}, {}

    def make(self, names: list[str]) -> None:
        self.variants, self.floors = {}, {}  # before the next ones need the memory
        self.variants = self.task.make(names)
        for name in names:
            if self.task.implementation(name) == 'ours':
                dtype = DTYPES.get(name.split()[-1], torch.float32)
                for kind in self.task.kinds:
                    products = self.task.products(name, kind, self.task.items[0])
                    self.floors[name, kind] = Floor(products, dtype, self.task.device)

    @torch.no_grad()
    def losses(self, name: str) -> np.ndarray:
        """Return the losses of the first item without dropout."""
        variant = self.variants[name]
        variant.model.eval()
        losses = variant.losses(self.task.items[0])
        if isinstance(losses, tuple):
            losses = torch.stack(losses)
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


def serve(connection, task: Task, keep: bool) -> None:
    """Answer requests for methods of `Variants`."""
    if keep:
        keep_freed_memory()
    variants = Variants(task)
    while request := connection.recv():
        method, *arguments = request
        connection.send(getattr(variants, method)(*arguments))


class Worker:
    """A process with the variants of one implementation."""

    def __init__(self, task: Task, keep: bool):
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context('spawn').Process(
            target=serve, args=(theirs, task, keep), daemon=True
        )
        self.process.start()
        theirs.close()  # so that a process that dies is noticed

    def ask(self, *request):
        self.connection.send(request)
        return self.connection.recv()

    def end(self) -> None:
        self.connection.send(None)
        self.process.join()


def peak_memory(task: Task, name: str, keep: bool) -> int:
    worker = Worker(task, keep)
    result = worker.ask('peak', name)
    worker.end()
    return result


def check_losses(losses: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the largest difference in each precision. Ends the process if one is large."""
    reference = next(iter(losses.values()))
    differences = {}
    for name, values in losses.items():
        precision = name.split()[-1]
        largest = float(abs(values - reference).max())
        differences[precision] = max(largest, differences.get(precision, 0.0))
    if not all(value <= TOLERANCES[precision] for precision, value in differences.items()):
        sys.exit(f'error: the variants do not compute the same losses: {losses}')
    return differences


def compare(task: Task, names: list[str], memory: bool, keep: bool) -> Iterator[dict]:
    """Time the variants in turns. Yields a row of the table for each kind of step and variant."""
    implementations = dict.fromkeys(map(task.implementation, names))
    workers = {implementation: Worker(task, keep) for implementation in implementations}
    for group in dict.fromkeys(map(task.group, names)):
        some = [name for name in names if task.group(name) == group]
        peaks = {name: peak_memory(task, name, keep) for name in some} if memory else {}
        yield from compare_group(task, some, workers, peaks)
    for worker in workers.values():
        worker.end()


def compare_group(
    task: Task, names: list[str], workers: dict[str, Worker], peaks: dict[str, int]
) -> Iterator[dict]:
    for implementation, worker in workers.items():
        worker.ask('make', [name for name in names if task.implementation(name) == implementation])
    worker_of = {name: workers[task.implementation(name)] for name in names}
    differences = check_losses({name: worker_of[name].ask('losses', name) for name in names})
    for name in names:
        for turn in range(task.n_warm_up(name)):
            for kind in task.kinds:
                worker_of[name].ask('time', name, kind, turn)
    timings = {kind: {name: [] for name in names} for kind in task.kinds}
    for turn in range(len(task.items)):
        for kind in task.kinds:
            for name in names:
                timings[kind][name].append(worker_of[name].ask('time', name, kind, turn))
    for kind in task.kinds:
        for name in names:
            row = row_of(task, kind, name, timings[kind])
            row['largest_loss_difference'] = differences[name.split()[-1]]
            if peaks and kind == task.kinds[0]:
                row |= memory_of(task, name, peaks)
            yield row


# --------------------------------------------------------------------------------------- the table


def spread(values: list[float]) -> tuple[float, float, float]:
    """Return the median, and the range of the middle half."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method='inclusive')
    return median, low, high


def references(task: Task, names) -> dict[str, str]:
    """Return the first variant of each implementation that ours is compared with."""
    result = {}
    for name in names:
        result.setdefault(task.implementation(name), name)
    result.pop('ours', None)
    return result


def row_of(task: Task, kind: str, name: str, timings: dict[str, list[Timing]]) -> dict:
    """Return the values of a variant. Ratios are medians over the turns."""
    wall, cpu, floor, flops = (list(values) for values in zip(*timings[name]))
    median, low, high = spread(wall)
    row = {
        'kind': kind,
        'variant': name,
        'median_s': median,
        'low_s': low,
        'high_s': high,
        'cpu_s': statistics.median(cpu),
        f'{task.unit}_per_s': task.size(task.items[0]) / median,
        'seconds': wall,
    }
    for implementation, other in references(task, timings).items():
        ratios = [theirs.wall / ours for theirs, ours in zip(timings[other], wall)]
        row[f'times_{implementation}'] = statistics.median(ratios)
    if None not in floor:
        rates = [n / 1e9 / seconds for n, seconds in zip(flops, floor)]
        row['gflop'] = statistics.median(flops) / 1e9
        row['matmul_gflop_per_s'] = statistics.median(rates)
        row['floor_s'] = statistics.median(floor)
        row['times_floor'] = statistics.median(a / b for a, b in zip(wall, floor))
    return row


def memory_of(task: Task, name: str, peaks: dict[str, int]) -> dict:
    """Return the peak memory of a variant, and what part it is of the others'."""
    row = {'peak_bytes': peaks[name]}
    for implementation, other in references(task, peaks).items():
        row[f'memory_of_{implementation}'] = peaks[name] / peaks[other]
    return row


def columns(task: Task, names: list[str]) -> list[tuple[str, str, str, float]]:
    """Return title, key, form and divisor of each column after the seconds."""
    return [
        ('CPU s', 'cpu_s', '.2f', 1),
        (f'{task.unit}/s', f'{task.unit}_per_s', '.2f' if task.unit == 'stories' else '.0f', 1),
        *[(f'x {other}', f'times_{other}', '.2f', 1) for other in references(task, names)],
        ('GFLOP', 'gflop', '.0f', 1),
        ('GFLOP/s of mm', 'matmul_gflop_per_s', '.0f', 1),
        ('x floor', 'times_floor', '.2f', 1),
        ('peak GB', 'peak_bytes', '.2f', 1e9),
    ]


def line_of(row: dict, layout: list[tuple[str, str, str, float]]) -> str:
    """Format a row. What it does not have stays empty."""
    seconds = f'{row["median_s"]:.3f} ({row["low_s"]:.3f}-{row["high_s"]:.3f})'
    line = f'{row["variant"]:26}{seconds:>24}'
    for title, key, form, divisor in layout:
        cell = format(row[key] / divisor, form) if key in row else ''
        line += f'  {cell:>{max(7, len(title))}}'
    return line.rstrip()


def print_table(task: Task, names: list[str], rows: Iterator[dict]) -> list[dict]:
    """Print each row when it is known, under a header for each kind of step. Returns them all."""
    layout = columns(task, names)
    titles = ''.join(f'  {title:>{max(7, len(title))}}' for title, *_ in layout)
    done, kind, differences = [], None, {}
    for row in rows:
        if row['kind'] != kind:
            kind = row['kind']
            print(f'\n{kind:26}{"median s (middle half)":>24}{titles}')
        print(line_of(row, layout), flush=True)
        done.append(row)
        precision = row['variant'].split()[-1]
        differences[precision] = max(differences.get(precision, 0), row['largest_loss_difference'])
    largest = (f'{value:.1e} in {precision}' for precision, value in differences.items())
    print('losses without dropout: largest difference', ', '.join(largest))
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
    parser.add_argument('--steps', type=int, default=5, help='timed steps of each variant')
    parser.add_argument(
        '--variants', default='', help='only those with this in their name, separated by commas'
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--no_memory', action='store_true', help='do not measure peak memory')
    parser.add_argument(
        '--profile',
        choices=list(variants),
        metavar='VARIANT',
        help='only profile the training steps of this one',
    )
    parser.add_argument(
        '--keep_freed_memory', action='store_true', help='in the processes of the others too'
    )
    parser.add_argument('--json', help='write the results to this file')
    return parser


def profile(name: str, task: Task) -> None:
    """Print the slowest operations of a variant's training steps, after one step an item."""
    variant = task.make([name])[name]
    step = getattr(variant, task.kinds[0])
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
    averages = record.key_averages()
    print(averages.table(sort_by=sort_by, row_limit=24, max_name_column_width=40))


def report(args: argparse.Namespace, variants: Sequence[str], tasks: dict[str, Task]) -> None:
    """Do what the options say with each task, which has a title."""
    version = transformers_version()
    parts = [part.strip() for part in args.variants.split(',')]
    names = [name for name in variants if any(part in name for part in parts)]
    if version is None:
        names = [name for name in names if 'transformers' not in name]
    if args.profile:
        for task in tasks.values():
            profile(args.profile, task)
        return
    machine = machine_name(torch.device(args.device))
    versions = f'torch {torch.__version__}, transformers {version or "(not installed)"}'
    print(f'{machine}; {versions}; {args.steps} steps')
    products, rows = {}, []
    for title, task in tasks.items():
        print(f'\n{title}')
        if task.device.type == 'cpu':
            some = task.products(variants[0], task.kinds[0], task.items[0])
            products[title] = print_products([one for one in some if not one.batch])
        results = compare(task, names, not args.no_memory, args.keep_freed_memory)
        rows += [{'task': title, **row} for row in print_table(task, names, results)]
    if args.json:
        result = {
            'machine': machine,
            'torch': torch.__version__,
            'arguments': vars(args),
            'products': products,
            'rows': rows,
        }
        with open(args.json, 'w', encoding='utf-8') as f:
            json.dump(result, f, indent=1)
            f.write('\n')
