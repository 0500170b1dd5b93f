"""What do more devices bring?

    python benchmarks/scaling.py                    # time and traffic of an update for 1, 2, ... processes on this machine's cores, at full size
    python benchmarks/scaling.py --max_ranks 4 --n_layer 2 --n_embd 128 --n_head 4

Measured: the median time of an update of the same global batch, cut over processes that share this machine's cores (gloo), and the bytes that a process
sends for it. Processes on the cores of one machine compete for its memory and show the cost of exchanging, not the gain of having more devices.

Computed, and marked so: what to expect of 8, 64 and 512 GPUs, from the work of an update (counted here), the bytes (counted here) and the assumed
rates in `Cluster`. The exchange is taken to follow the computation; `DistributedDataParallel` hides part of it.
"""

import argparse
import math
import os
import socket
import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.multiprocessing
from finetune import make_stories

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from model_pytorch import Config, DoubleHeadModel, init_weights
from parallel import Ranks
from train import FineTuning, parse_args

CPU = [torch.device('cpu')]


@dataclass
class Cluster:
    """Assumed, per GPU: an H100 or H200 in bf16, eight in a machine."""

    flops: float = 4e14  # per second, on matrix products of this size: 40 % of the published rate
    inside: float = 2e11  # bytes per second and direction to the GPUs of the same machine
    between: float = 4e10  # to other machines: one 400 Gbit/s port a GPU, at 80 %
    latency: float = 1e-5  # seconds for one step of an exchange
    bucket: float = 25 * 2**20  # bytes that DistributedDataParallel exchanges at once

    def compute(self, flop, n):
        return flop / n / self.flops

    def exchange(self, size, n):
        """Every GPU sends 2 (n - 1) / n of the gradients; each bucket goes up and down a tree."""
        rate = self.inside if n <= 8 else self.between
        return 2 * (n - 1) / n * size / rate + 2 * math.log2(n) * self.latency * max(
            1, size / self.bucket
        )


# ------------------------------------------------------------------------------------------------------------- measured


def time_updates(rank, n, port, config, args, results):
    """In one of n processes: an update to warm up, then `args.steps` that are timed."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)
    )
    torch.set_num_threads(max(1, args.cores // n))
    options = parse_args(
        [
            '--dataset',
            'rocstories',
            '--n_batch',
            str(args.stories),
            '--n_gpu',
            '1',
            '--device',
            'cpu',
        ]
    )
    stories = make_stories(args.stories, config, np.random.RandomState(0))
    torch.manual_seed(0)
    model = DoubleHeadModel(config)
    init_weights(model)
    tuning = FineTuning(
        options, model, stories, stories[:1], CPU, Ranks(CPU), np.random.RandomState(0)
    )
    for step in range(args.steps + 1):
        start = time.perf_counter()
        tuning.update(stories)
        if step and rank == 0:
            results.put(time.perf_counter() - start)


def measure(n, config, args):
    """Seconds of each update with n processes."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    results = torch.multiprocessing.get_context('spawn').SimpleQueue()
    torch.multiprocessing.spawn(time_updates, (n, port, config, args, results), nprocs=n)
    return [results.get() for _ in range(args.steps)]


# ------------------------------------------------------------------------------------------------------------- computed


def flop(tokens, predictions, config):
    """Of the matrix products of one update: forward and twice that backward. Attention's own, about 1 %, is left out."""
    layers = 12 * config.n_layer * config.n_embd**2
    return 6 * (
        tokens * layers + predictions * config.n_embd * (config.first_position + config.n_ctx)
    )


def predict(title, flop_of_one, largest, size, cluster):
    """Print a table of what `Cluster` leads to. `largest`: items in an update, so that more GPUs than these have nothing to do."""
    print(f'\n{title}, {largest} to an update: computed, not measured')
    print(
        f'{"GPUs":>6}{"compute":>12}{"exchange":>12}{"an update":>12}{"speed-up":>10}{"efficiency":>12}'
    )
    alone = cluster.compute(flop_of_one * largest, 1)
    for n in 1, 8, 64, 512:
        compute = max(cluster.compute(flop_of_one * largest, n), cluster.compute(flop_of_one, 1))
        exchange = cluster.exchange(size, n) if n > 1 else 0
        print(
            f'{n:>6}{1e3 * compute:>9.2f} ms{1e3 * exchange:>9.2f} ms{1e3 * (compute + exchange):>9.2f} ms'
            f'{alone / (compute + exchange):>9.1f}x{alone / (compute + exchange) / n:>12.0%}'
        )


def main():
    parser = argparse.ArgumentParser(
        description='Time and traffic of an update on 1, 2, ... processes; what to expect of more GPUs.'
    )
    parser.add_argument('--max_ranks', type=int, default=os.cpu_count())
    parser.add_argument('--stories', type=int, default=8, help='in an update, over all processes')
    parser.add_argument('--steps', type=int, default=3, help='timed updates in a round')
    parser.add_argument('--rounds', type=int, default=2, help='over all numbers of processes')
    for name, value in ('n_layer', 12), ('n_embd', 768), ('n_head', 12), ('n_vocab', 40478):
        parser.add_argument(f'--{name}', type=int, default=value)
    args = parser.parse_args()
    args.cores = os.cpu_count()
    config = Config(
        n_vocab=args.n_vocab, n_ctx=77, n_embd=args.n_embd, n_head=args.n_head, n_layer=args.n_layer
    )
    size = 4 * sum(p.numel() for p in DoubleHeadModel(config).parameters())

    sizes = range(1, args.max_ranks + 1)
    seconds = {n: [] for n in sizes}
    for _ in range(args.rounds):
        for n in sizes:
            seconds[n] += measure(n, config, args)
    alone = statistics.median(seconds[1])
    print(
        f'an update of {args.stories} stories, {size / 4:,.0f} parameters, {args.cores} cores shared by all processes, torch {torch.__version__}'
    )
    print(
        f'{"ranks":>6}{"seconds":>10}{"least":>8}{"most":>8}{"against 1":>11}{"sent by each":>15}'
    )
    for n in sizes:
        median = statistics.median(seconds[n])
        print(
            f'{n:>6}{median:>10.3f}{min(seconds[n]):>8.3f}{max(seconds[n]):>8.3f}{alone / median:>10.2f}x{2 * (n - 1) / n * size / 1e6:>12.1f} MB'
        )

    cluster, full = Cluster(), Config()
    size = 4 * sum(p.numel() for p in DoubleHeadModel(full).parameters())
    print(
        f'\nassumed: {cluster.flops / 1e12:.0f} TFLOP/s a GPU, {cluster.inside / 1e9:.0f} GB/s inside a machine of 8, {cluster.between / 1e9:.0f} GB/s '
        f'between, {size / 1e6:.0f} MB of gradients, '
        f'{cluster.latency:.0e} s a step of the exchange'
    )
    tokens = 2 * (41 + 9 + 3)  # of a story's two sequences
    predict('fine-tuning, stories', flop(tokens, tokens - 2, full), 64, size, cluster)
    predict('pre-training, windows of 512 tokens', flop(512, 511, full), 64, size, cluster)
    predict(
        'pre-training with a larger batch, windows of 512 tokens',
        flop(512, 511, full),
        4096,
        size,
        cluster,
    )


if __name__ == '__main__':
    main()
