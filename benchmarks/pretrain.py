"""How many times faster is pre-training than what one would otherwise write?

    python benchmarks/pretrain.py                              # both sizes, all variants
    python benchmarks/pretrain.py --sizes small --variants 'dropout fp32'
    python benchmarks/pretrain.py --profile 'ours dropout fp32'

On the same windows of made-up text (random words and weights) it times whole updates, forward,
backward, clipping and Adam, one implementation after another in turn:

(a) `ours`: the update of pretrain.py
(b) `nanogpt`: the way of nanoGPT: PyTorch's own layers, F.scaled_dot_product_attention, all logits
    and F.cross_entropy, torch.optim.AdamW(fused=True); with GPT-1's norms after each sum
(c) `transformers`: OpenAIGPTLMHeadModel with torch.optim.AdamW(fused=True), if it is installed

with dropout and without (`exact`), in fp32 and with autocast in bf16. Each of the three runs in a
process of its own, which waits while another one has its turn. (a) tells glibc to keep freed
memory, as pretrain.py does; the others do so with --keep_freed_memory. First, the losses of all
without dropout are compared.

`floor` is the time that the matrix products alone take, on operands of the same shapes, in the same
turns: those of the linear layers and of the LM head by the library that (a) uses, and half of
those of attention by torch.bmm, since a token sees half of the others on average. Peak memory is
that of a process that does nothing but three updates of one variant.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from benchmarks.finetune import (
    Floor,
    Worker,
    huggingface_sizes,
    huggingface_weights,
    machine_name,
    peak_bytes,
    print_products,
    spread,
    training_shapes,
)
from benchmarks.finetune import flop as flop_of
from gpt1.ops.batches import collate_windows
from gpt1.ops.masks import DropoutMasks
from gpt1.run.parallel import keep_freed_memory, to_device
from gpt1.run.precision import Precision, autocast
from model_pytorch import Config, LMModel, init_weights
from opt import OpenAIAdam

LR = 2.5e-4
N_MEMORY_STEPS = 3


class Size(NamedTuple):
    """A model, and how many windows of n_ctx tokens an update has."""

    n_layer: int
    n_embd: int
    n_head: int
    n_ctx: int
    n_windows: int
    n_vocab: int = 40478


SIZES = {
    'small': Size(n_layer=6, n_embd=384, n_head=6, n_ctx=256, n_windows=8),
    'full': Size(n_layer=12, n_embd=768, n_head=12, n_ctx=512, n_windows=2),
    'tiny': Size(n_layer=2, n_embd=32, n_head=2, n_ctx=32, n_windows=2, n_vocab=300),
}


class Task(NamedTuple):
    """What the processes of a comparison need: the model and the windows of each update."""

    config: Config
    device: torch.device
    windows: list[np.ndarray]  # for each update [windows, n_ctx]


def make_task(size: Size, device: torch.device, n_updates: int) -> Task:
    """Return windows of random words."""
    n_layer, n_embd, n_head, n_ctx, n_windows, n_vocab = size
    config = Config(n_vocab=n_vocab, n_ctx=n_ctx, n_embd=n_embd, n_head=n_head, n_layer=n_layer)
    random = np.random.RandomState(0)
    windows = [random.randint(0, n_vocab, (n_windows, n_ctx)) for _ in range(n_updates)]
    return Task(config, device, windows)


def make_weights(config: Config) -> dict[str, torch.Tensor]:
    """Return random weights, the same each time."""
    torch.manual_seed(0)
    model = LMModel(config)
    init_weights(model)
    return model.state_dict()


def without_dropout(config: Config) -> Config:
    return replace(config, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)


# ------------------------------------------------------------------------------ the implementations


class Ours:
    """(a) The update of pretrain.py."""

    def __init__(self, config, device, precision):
        keep_freed_memory()
        self.config, self.device = config, device
        self.model = LMModel(config)
        self.model.load_state_dict(make_weights(config))
        self.model.to(device)
        self.precision = Precision(precision, device)
        self.opt = OpenAIAdam(
            self.model.parameters(), lr=LR, schedule='warmup_constant', warmup=0.1, t_total=1000
        )

    def losses(self, ids):
        """Return the loss of each window."""
        batch = to_device(collate_windows(ids, self.config.first_position), self.device)
        batch.masks = DropoutMasks(int(ids[0, 0]))
        with autocast(self.device, self.precision.name):
            return self.model(batch)

    def update(self, ids):
        self.model.train()
        losses = self.losses(ids)
        self.precision.scale(losses.mean()).backward()
        self.precision.step(self.opt, losses.detach())
        self.opt.zero_grad(set_to_none=True)


class PlainBlock(nn.Module):
    """A layer as in nanoGPT, with GPT-1's norms."""

    def __init__(self, config):
        super().__init__()
        n = config.n_embd
        self.n_head, self.attn_pdrop = config.n_head, config.attn_pdrop
        self.c_attn, self.attn_proj = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.c_fc, self.mlp_proj = nn.Linear(n, 4 * n), nn.Linear(4 * n, n)
        self.ln_1, self.ln_2 = nn.LayerNorm(n), nn.LayerNorm(n)
        self.drop = nn.Dropout(config.resid_pdrop)

    def attention(self, x):
        rows, length, n = x.shape
        heads = [
            part.view(rows, length, self.n_head, -1).transpose(1, 2)
            for part in self.c_attn(x).split(n, dim=2)
        ]
        p = self.attn_pdrop if self.training else 0
        y = F.scaled_dot_product_attention(*heads, dropout_p=p, is_causal=True)
        return self.attn_proj(y.transpose(1, 2).contiguous().view(rows, length, n))

    def forward(self, x):
        x = self.ln_1(x + self.drop(self.attention(x)))
        m = self.mlp_proj(F.gelu(self.c_fc(x), approximate='tanh'))
        return self.ln_2(x + self.drop(m))


class PlainModel(nn.Module):
    """A GPT as in nanoGPT. As in OpenAI's program, the LM logits include the position rows."""

    def __init__(self, config):
        super().__init__()
        n_rows = config.first_position + config.n_ctx
        self.wte = nn.Embedding(n_rows, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(PlainBlock(config) for _ in range(config.n_layer))
        self.lm_head = nn.Linear(config.n_embd, n_rows, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids):
        """Return the logits of every token, [rows, length, rows of the embedding]."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.drop(self.wte(ids) + self.wpe(positions))
        for block in self.h:
            x = block(x)
        return self.lm_head(x)


class Others:
    """What (b) and (c) have in common. A window's last token predicts nothing."""

    def __init__(self, config, device, precision):
        self.device, self.dtype = device, precision
        self.model = self.make_model(config, make_weights(config)).to(device)
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.01, fused=True)

    def losses(self, ids):
        """Return the loss of each window."""
        ids = torch.from_numpy(ids).to(self.device)
        with autocast(self.device, self.dtype):
            logits = self.logits(ids)[:, :-1]
            losses = F.cross_entropy(
                logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction='none'
            )
        return losses.view(len(ids), -1).mean(1)

    def update(self, ids):
        self.model.train()
        ids = torch.from_numpy(ids).to(self.device)
        with autocast(self.device, self.dtype):
            loss = self.mean_loss(ids)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)


class NanoGPT(Others):
    """(b) PyTorch's own layers, put together as in nanoGPT."""

    def make_model(self, config, weights):
        embed = weights['transformer.embed.weight']
        names = {
            'wte.weight': embed,
            'lm_head.weight': embed,
            'wpe.weight': embed[config.first_position :],
        }
        layers = {
            'attn.c_attn': 'c_attn',
            'attn.c_proj': 'attn_proj',
            'mlp.c_fc': 'c_fc',
            'mlp.c_proj': 'mlp_proj',
        }
        for i in range(config.n_layer):
            ours, theirs = f'transformer.h.{i}', f'h.{i}'
            for name, other in layers.items():
                names[f'{theirs}.{other}.weight'] = weights[f'{ours}.{name}.w'].t()
                names[f'{theirs}.{other}.bias'] = weights[f'{ours}.{name}.b']
            for name in ('ln_1', 'ln_2'):
                names[f'{theirs}.{name}.weight'] = weights[f'{ours}.{name}.g']
                names[f'{theirs}.{name}.bias'] = weights[f'{ours}.{name}.b']
        model = PlainModel(config)
        model.load_state_dict(names)
        return model

    def logits(self, ids):
        return self.model(ids)

    def mean_loss(self, ids):
        """As nanoGPT does it: the targets are the ids after the first."""
        logits = self.model(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


class HuggingFace(Others):
    """(c) The model of `transformers`."""

    def make_model(self, config, weights):
        from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel, logging

        logging.set_verbosity_error()
        model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(**huggingface_sizes(config)))
        model.load_state_dict(huggingface_weights(config, weights))
        return model

    def logits(self, ids):
        return self.model(input_ids=ids).logits

    def mean_loss(self, ids):
        return self.model(input_ids=ids, labels=ids).loss


IMPLEMENTATIONS = {'ours': Ours, 'nanogpt': NanoGPT, 'transformers': HuggingFace}
DROPOUT = ('dropout', 'exact')
PRECISIONS = ('fp32', 'bf16')
VARIANTS = [
    f'{implementation} {dropout} {precision}'
    for dropout in DROPOUT
    for precision in PRECISIONS
    for implementation in IMPLEMENTATIONS
]


def make_variant(name: str, config: Config, device: torch.device):
    """Return the implementation that a variant names, with its own parameters and optimizer."""
    implementation, dropout, precision = name.split()
    if dropout == 'exact':
        config = without_dropout(config)
    return IMPLEMENTATIONS[implementation](config, device, precision)


# ---------------------------------------------------------------------------------------- the floor


def product_shapes(task: Task) -> list[tuple[int, int, int, int]]:
    """The matrix products (m, k, n, how many) of an update's linear layers and LM head."""
    n_windows, length = task.windows[0].shape
    return training_shapes(n_windows * length, n_windows * (length - 1), task.config, task.device)


class PretrainFloor:
    """The time of an update's matrix products alone."""

    def __init__(self, task: Task, dtype: torch.dtype):
        config, (n_windows, length) = task.config, task.windows[0].shape
        shapes = product_shapes(task)
        self.linear = Floor(shapes, dtype, task.device)
        size = config.n_embd // config.n_head
        heads = n_windows * config.n_head
        self.q, self.k = (
            torch.randn(heads, length, size, device=task.device).to(dtype) for _ in range(2)
        )
        self.scores = self.q @ self.k.transpose(1, 2)
        # Forward: q k and a v. Backward: two of each kind. Half of the scores are needed.
        self.n_attention = 3 * config.n_layer / 2
        attention = 2 * 2 * heads * length * length * size * self.n_attention
        self.flop = flop_of(shapes) + attention

    def seconds(self, clock) -> float:
        def attention():
            torch.bmm(self.q, self.k.transpose(1, 2))
            torch.bmm(self.scores, self.k)

        return self.linear.seconds(clock) + clock(attention)[0] * self.n_attention


# ---------------------------------------------------------------------------------------- measuring


def clock(device: torch.device, function, *arguments) -> tuple[float, float]:
    """Return the wall and processor seconds of a call."""
    if device.type == 'cuda':
        torch.cuda.synchronize()
    start, cpu = time.perf_counter(), time.process_time()
    function(*arguments)
    if device.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - cpu


def work(connection, implementation: str, task: Task, keep: bool) -> None:
    """Answer the requests of a `Worker`, which holds one variant of an implementation at a time.

    ('make', variant); ('losses',): the loss of each window of the first update without dropout;
    ('update', its number): the wall and processor seconds and, if it is ours, the floor's seconds.
    """
    if keep:
        keep_freed_memory()
    model = floor = None
    while request := connection.recv():
        kind, *what = request
        if kind == 'make':
            model = floor = None
            model = make_variant(what[0], task.config, task.device)
            if implementation == 'ours':
                is_bf16 = what[0].endswith('bf16')
                floor = PretrainFloor(task, torch.bfloat16 if is_bf16 else torch.float32)
            connection.send(None)
        elif kind == 'losses':
            model.model.eval()
            with torch.no_grad():
                connection.send(model.losses(task.windows[0]).float().cpu().numpy())
        else:
            answer = list(clock(task.device, model.update, task.windows[what[0]]))
            if floor:
                answer.append(floor.seconds(lambda *call: clock(task.device, *call)))
            connection.send(answer)


def measure_memory(name: str, task: Task, keep: bool, queue) -> None:
    """In a process of its own: put the most memory that a few updates need."""
    if keep:
        keep_freed_memory()
    model = make_variant(name, task.config, task.device)
    for ids in task.windows[:N_MEMORY_STEPS]:
        model.update(ids)
    queue.put(peak_bytes(task.device))


def peak_memory(name: str, task: Task, keep: bool) -> int:
    context = multiprocessing.get_context('spawn')
    queue = context.Queue()
    process = context.Process(target=measure_memory, args=(name, task, keep, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def check_losses(losses: dict[str, np.ndarray], precision: str) -> float:
    """Return the largest difference between the losses. Ends the process if it is large."""
    reference = next(iter(losses.values()))
    worst = max(float(abs(values - reference).max()) for values in losses.values())
    if worst > (1e-4 if precision == 'fp32' else 0.1):
        sys.exit(f'pretrain.py: the variants do not compute the same losses: {losses}')
    return worst


def compare(
    task: Task, names: list[str], processes: dict[str, Worker], peaks: dict[str, int | None]
) -> list[dict]:
    """Time the variants of one kind (dropout and precision) in turns. Returns a row for each.

    processes  one for each implementation
    peaks      the peak memory of each variant
    """
    workers = {name: processes[name.split()[0]] for name in names}
    for name, worker in workers.items():
        worker.ask('make', name)
    losses = {name: worker.ask('losses') for name, worker in workers.items()}
    worst = check_losses(losses, names[0].split()[-1])
    for worker in workers.values():
        worker.ask('update', 0)
    seconds = {name: [] for name in names}
    for turn in range(len(task.windows)):
        for name, worker in workers.items():
            seconds[name].append(worker.ask('update', turn))
    n_tokens = task.windows[0].size
    return [
        row_of(name, seconds, peaks, n_tokens, task, {'largest_loss_difference': worst})
        for name in names
    ]


def compare_all(task: Task, names: list[str], memory: bool, keep: bool) -> Iterator[dict]:
    """Yield a row for each variant, kind by kind."""
    implementations = dict.fromkeys(name.split()[0] for name in names)
    processes = {name: Worker(name, task, keep, target=work) for name in implementations}
    for kind in dict.fromkeys(name.partition(' ')[2] for name in names):
        some = [name for name in names if name.endswith(kind)]
        peaks = {name: peak_memory(name, task, keep) if memory else None for name in some}
        yield from compare(task, some, processes, peaks)
    for process in processes.values():
        process.end()


def row_of(name, seconds, peaks, n_tokens, task, row) -> dict:
    """Return the figures of a variant. Ratios are medians over the turns."""
    wall, cpu, *floor = zip(*seconds[name])
    median, low, high = spread(list(wall))
    row.update(
        variant=name,
        median_s=median,
        low_s=low,
        high_s=high,
        cpu_s=statistics.median(cpu),
        tokens_per_s=n_tokens / median,
        peak_bytes=peaks[name],
    )
    for other, values in seconds.items():
        implementation = other.split()[0]
        if other != name:
            ratios = [b[0] / a for a, b in zip(wall, values)]
            row[f'times_{implementation}'] = statistics.median(ratios)
            if peaks[name]:
                row[f'memory_of_{implementation}'] = peaks[name] / peaks[other]
    if floor:
        is_bf16 = name.endswith('bf16')
        flops = PretrainFloor(task, torch.bfloat16 if is_bf16 else torch.float32).flop
        row['times_floor'] = statistics.median(a / b for a, b in zip(wall, floor[0]))
        row['floor_gflop_per_s'] = flops / 1e9 / statistics.median(floor[0])
    return row


HEADER = (
    f'{"":28}  median s (middle half)   CPU s  tokens/s  x nanogpt  x transf.  x floor  GFLOP/s of '
    'mm  peak GB'
)


def line_of(row: dict) -> str:
    """Format a row for the table that is printed."""

    def figure(name, form, divisor=1.0):
        value = row.get(name)
        return format(math.nan if value is None else value / divisor, form)

    return (
        f'{row["variant"]:28}  {row["median_s"]:7.3f} ({row["low_s"]:.3f}-{row["high_s"]:.3f})  '
        f'{row["cpu_s"]:6.2f}  {row["tokens_per_s"]:8.0f}  {figure("times_nanogpt", "9.2f")}  '
        f'{figure("times_transformers", "9.2f")}  {figure("times_floor", "7.2f")}  '
        f'{figure("floor_gflop_per_s", "13.0f")}  {figure("peak_bytes", "7.2f", 1e9)}'
    )


def profile(name: str, task: Task) -> None:
    """Print the slowest operations of a variant's updates, after one warm-up update."""
    model = make_variant(name, task.config, task.device)
    model.update(task.windows[0])
    with torch.profiler.profile() as record:
        for ids in task.windows:
            model.update(ids)
    print(f'{name}, {len(task.windows)} updates')
    sort_by = f'self_{task.device.type}_time_total'
    table = record.key_averages().table(sort_by=sort_by, row_limit=24, max_name_column_width=40)
    print(table)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--sizes', nargs='+', choices=list(SIZES), default=['small', 'full'])
    parser.add_argument('--steps', type=int, default=5, help='timed updates of each variant')
    parser.add_argument(
        '--variants', default='', help='only those with this in their name, separated by commas'
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--n_windows', type=int, help='windows an update (default: by the size)')
    parser.add_argument('--no_memory', action='store_true', help='do not measure peak memory')
    parser.add_argument(
        '--profile', choices=VARIANTS, metavar='VARIANT', help='only profile the updates of this'
    )
    parser.add_argument(
        '--keep_freed_memory', action='store_true', help='in the processes of the others too'
    )
    parser.add_argument('--json', help='write the figures to this file')
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    parts = [part.strip() for part in args.variants.split(',')]
    names = [name for name in VARIANTS if any(part in name for part in parts)]
    try:
        import transformers

        versions = f'transformers {transformers.__version__}'
    except ImportError:
        names, versions = [name for name in names if 'transformers' not in name], 'no transformers'
    machine = machine_name(device)
    print(f'{machine}; torch {torch.__version__}, {versions}; {args.steps} updates')
    rows = []
    for size_name in args.sizes:
        size = SIZES[size_name]
        size = size._replace(n_windows=args.n_windows or size.n_windows)
        task = make_task(size, device, args.steps)
        if args.profile:
            profile(args.profile, task)
            continue
        print(f'\n{size_name}: {size}')
        if device.type == 'cpu':
            print_products(product_shapes(task))
        print(HEADER, flush=True)
        for row in compare_all(task, names, not args.no_memory, args.keep_freed_memory):
            rows.append({'size': size_name, **row})
            print(line_of(row), flush=True)
    if args.json:
        result = dict(
            machine=machine, torch=torch.__version__, arguments=vars(args), sizes=SIZES, rows=rows
        )
        with open(args.json, 'w', encoding='utf-8') as f:
            json.dump(result, f, indent=1)
            f.write('\n')


if __name__ == '__main__':
    main()
