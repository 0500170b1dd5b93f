"""Measure and check this program on one GPU, in one command and under ten minutes.

    python benchmarks/gpu.py --out gpu              # writes gpu.md and gpu.json
    python benchmarks/gpu.py --out dry --dry_run    # tiny sizes, the GPU's path on a CPU

It needs nothing but this repository: weights and vocabulary have the published sizes and random
content, and the stories are the sample's, which are as many as those of ROCStories.

    fine-tuning    a training and a prediction step, in every precision, against the others of
                   finetune.py; the memory; the share of the rate that the card reaches in one
                   large product
    command        `train.py --dataset rocstories --submit --analysis`
    pre-training   tokens a second at n_ctx 512, against the others of benchmarks/pretrain.py
    compile        torch.compile on and off
    replicas       nn.DataParallel on the same GPU twice computes the same gradients
    deterministic  two runs with --deterministic write the same bytes
    fp16           a run that begins with a loss scale that is too large skips steps and goes on
    memory         a run on a part of the GPU's memory halves its steps and goes on

Each part runs in a process of its own with a time limit. A part that fails is reported, and the
others go on. The exit status is 1 if a part or a check failed.
"""

import argparse
import dataclasses
import functools
import gc
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import torch

from benchmarks import finetune, full_size, measuring, others, pretrain
from gpt1.run import parallel
from gpt1.run import precision as precisions
from loss import JointLoss
from model_pytorch import Config, DoubleHeadModel
from utils import whole_file

COMMAND_SECONDS, TRAINING_SECONDS = 20, 4  # the bounds for the whole command, in bf16
TOO_LARGE_SCALE = 2.0**40
SOME_MEMORY = 4 << 30  # bytes: enough for the model, not for a step of 64 stories
BEST = os.path.join('save', 'rocstories', 'best_params')
SUBMISSION = os.path.join('submission', 'ROCStories.tsv')


@dataclass
class Setup:
    """How large everything is. The values are those of the real thing; `tiny` is a dry run."""

    folder: str  # for weights, data and what the runs write
    dry_run: bool
    n_steps: int = 8
    batches: tuple[int, ...] = (8, 64)  # stories a step
    size: pretrain.Size = pretrain.SIZES['full']._replace(n_windows=16)
    precisions: tuple[str, ...] = ('fp32', 'tf32', 'bf16', 'fp16')
    n_stories: int = 1871  # in each of the two files
    n_epochs: int = 3

    @property
    def device(self) -> torch.device:
        return torch.device('cpu') if self.dry_run else torch.device('cuda', 0)

    def config(self) -> Config:
        """The model that is fine-tuned: sequences as long as the longest of ROCStories."""
        n_layer, n_embd, n_head, _, _, n_vocab = self.size
        return Config(n_vocab=n_vocab, n_ctx=77, n_embd=n_embd, n_head=n_head, n_layer=n_layer)

    def fine_tuning(self, n_batch: int) -> finetune.FineTuning:
        return finetune.make_task(self.config(), self.device, n_batch, self.n_steps)

    def pre_training(self) -> pretrain.PreTraining:
        return pretrain.make_task(self.size, self.device, self.n_steps)


def tiny(folder: str) -> Setup:
    return Setup(
        folder, True, 1, (2,), pretrain.SIZES['tiny'], ('tf32', 'fp16'), n_stories=24, n_epochs=1
    )


@dataclass
class Part:
    """What a part of the report says."""

    rows: list[dict] = field(default_factory=list)  # of one table: the same keys in each
    checks: list[tuple[str, bool]] = field(default_factory=list)  # what was expected; whether it is
    remarks: list[str] = field(default_factory=list)


def prepare(setup: Setup) -> Part:
    """Write weights and a vocabulary, and the stories."""
    full_size.copy_stories(setup.folder, setup.n_stories)
    return Part(remarks=[f'{full_size.write_model(setup.folder, setup.size):,} parameters'])


# --------------------------------------------------------------------------------------- the steps


def median_seconds(step: Callable, items: list, device: torch.device) -> float:
    """Return the median time of `step(item)`, after a warm-up with each item."""
    for item in items:
        step(item)
    return statistics.median(measuring.clock(device, step, item)[0] for item in items)


def card_rate(precision: str, setup: Setup) -> float:
    """Return the FLOP a second of one large product [n, n] [n, n] in a precision."""
    n = 64 if setup.dry_run else 8192
    a = torch.randn(n, n, device=setup.device)
    a = a.to(precisions.DTYPES.get(precision, torch.float32))
    return 2 * n**3 / median_seconds(lambda _: a @ a, [None] * 10, setup.device)


def measure_steps(setup: Setup, task: measuring.Task, names: list[str]) -> list[dict]:
    """Time the steps of some variants, named without their precision, in every precision."""
    if measuring.transformers_version() is None:
        names = [name for name in names if 'transformers' not in name]
    rows = []
    for precision in setup.precisions:
        torch.set_float32_matmul_precision('high' if precision == 'tf32' else 'highest')
        rate = card_rate(precision, setup)
        some = {name: measure(task, f'{name} {precision}', rate) for name in names}
        for row in some.values():
            for kind in task.kinds:
                for other, name in task.references(names).items():
                    row[f'{kind} x {other}'] = some[name][f'{kind} ms'] / row[f'{kind} ms']
        rows += some.values()
    return rows


def measure(task: measuring.Task, name: str, rate: float) -> dict:
    """Return a row about a variant. `rate` is what the card reaches in one large product."""
    device, first = task.device, task.kinds[0]
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    variant = task.make([name])[name]
    ms = {
        kind: 1e3 * median_seconds(getattr(variant, kind), task.items, device)
        for kind in task.kinds
    }
    needed = measuring.flop(task.products(name, first, task.items[0]))
    size = task.size(task.items[0])
    return {
        task.unit: size,
        'variant': name,
        **{f'{kind} ms': value for kind, value in ms.items()},
        f'{task.unit}/s': 1e3 * size / ms[first],
        'share of the rate %': 1e5 * needed / ms[first] / rate,
        'peak GB': measuring.peak_bytes(device) / 1e9 if device.type == 'cuda' else math.nan,
    }


def fine_tuning(setup: Setup) -> Part:
    names = ['separate', 'shared', 'padded', 'transformers']
    part = Part()
    for n_batch in setup.batches:
        part.rows += measure_steps(setup, setup.fine_tuning(n_batch), names)
    return part


def pre_training(setup: Setup) -> Part:
    names = ['ours dropout', 'nanogpt dropout', 'transformers dropout']
    return Part(measure_steps(setup, setup.pre_training(), names))


def compiled(setup: Setup) -> Part:
    """Time our steps in bf16 as they are and with torch.compile."""
    options = {'backend': 'eager'} if setup.dry_run else {}  # no compiler is needed then
    tasks = {
        'ours dropout bf16': setup.pre_training(),
        'shared bf16': setup.fine_tuning(setup.batches[-1]),
    }
    part = Part()
    for name, task in tasks.items():
        for mode in ('off', 'on'):
            variant = task.make([name])[name]
            start = time.perf_counter()
            if mode == 'on':
                variant.model.compile(**options)
            try:
                seconds = median_seconds(getattr(variant, task.kinds[0]), task.items, setup.device)
            except Exception as error:
                part.checks.append((f'{name} with torch.compile: {first_line(error)}', False))
                continue
            whole = time.perf_counter() - start
            row = {'variant': name, 'torch.compile': mode, 'step ms': 1e3 * seconds}
            part.rows.append(row | {'all, with compiling s': whole})
    return part


def replicas(setup: Setup) -> Part:
    """Compare the gradients of nn.DataParallel on one GPU twice with those of one replica."""
    if setup.dry_run:
        return Part(remarks=['needs a GPU'])  # nn.DataParallel has no replicas on a CPU
    part = Part()
    for precision, limit in {'fp32': 1e-4, 'bf16': 3e-2}.items():
        one, two = (replicated_gradients(setup, precision, n, part) for n in (1, 2))
        difference = float((two - one).norm() / one.norm())
        what = f'{precision}: gradients differ by {difference:.1e}, at most {limit:g}, relative'
        part.checks.append((what, difference < limit))
    return part


def replicated_gradients(setup: Setup, precision: str, n: int, part: Part) -> torch.Tensor:
    """Return all gradients of a step on n replicas. Adds a row with its time to the part."""
    config = dataclasses.replace(pretrain.without_dropout(setup.config()), clf_pdrop=0)
    stories = finetune.make_task(config, setup.device, 16, 1).items[0]
    model = DoubleHeadModel(config)
    model.load_state_dict(others.make_weights(DoubleHeadModel, config))
    module = JointLoss(model.to(setup.device), others.LM_COEF)
    calls = parallel.ParallelModule(module, parallel.Ranks([setup.device] * n))
    cuts = [stories] if n == 1 else [stories[:9], stories[9:]]
    scaled = precisions.Precision(precision, setup.device)

    def step(_):
        module.zero_grad()
        batches = [finetune.lay_out(cut, config, False) for cut in cuts]
        losses = calls(batches, scaled.name, last=True)
        scaled.scale(losses.sum() / len(stories)).backward()

    seconds = median_seconds(step, range(setup.n_steps), setup.device)
    part.rows.append({'precision': precision, 'replicas': n, 'step ms': 1e3 * seconds})
    return torch.cat([p.grad.flatten() for p in module.parameters()])


# ------------------------------------------------------------------------------------- whole runs


def run_train(setup: Setup, name: str, *options, before: Callable | None = None):
    """Run train.py on ROCStories; it writes to `folder/name`. See `full_size.run_train`."""
    values = {
        'dataset': 'rocstories',
        'data_dir': setup.folder,
        'model_dir': setup.folder,
        'device': setup.device,
        'n_iter': 1,
        'n_valid': setup.n_stories // 5,
        'n_gpu': 1,
        'n_batch': setup.batches[-1],
        'n_layer': setup.size.n_layer,
        'n_head': setup.size.n_head,
        'n_embd': setup.size.n_embd,
        **{f'{what}_dir': os.path.join(setup.folder, name, what) for what in full_size.FOLDERS},
    }
    argv = [f'--{option}={value}' for option, value in values.items()]
    # In a dry run, a fork saves the imports. With CUDA it fails if a library has looked for a GPU.
    method = 'fork' if setup.dry_run else 'spawn'
    return full_size.run_train(['--submit', *argv, *options], before, method)


def command(setup: Setup) -> Part:
    """Run the command of the paper's ROCStories at full size."""
    run = run_train(
        setup, 'command', '--analysis', '--precision=bf16', f'--n_iter={setup.n_epochs}'
    )
    training = sum(run.updates)
    part = Part([{'process s': run.seconds, 'updates': len(run.updates), 'updates s': training}])
    part.rows[0]['peak GB'] = run.peak_bytes / 1e9
    if not setup.dry_run:
        part.checks = [
            (f'the whole command in {COMMAND_SECONDS} s', run.seconds <= COMMAND_SECONDS),
            (f'its training in {TRAINING_SECONDS} s', training <= TRAINING_SECONDS),
        ]
    return part


def deterministic(setup: Setup) -> Part:
    """Run twice with --deterministic, and compare the bytes."""
    part = Part()
    for precision in ('bf16',) if setup.dry_run else ('fp32', 'bf16'):
        for name in ('first', 'second'):
            run_train(setup, name, '--deterministic', f'--precision={precision}')
        for path in (BEST, SUBMISSION):
            one, two = (Path(setup.folder, name, path).read_bytes() for name in ('first', 'second'))
            part.checks.append((f'{precision}: the same {path} twice', one == two))
    return part


def _begin_with_a_large_scale(allow: bool) -> None:
    precisions.INITIAL_SCALE = TOO_LARGE_SCALE
    if allow:
        parallel.check_precision = lambda precision, devices: None


def overflow(setup: Setup) -> Part:
    """Let the gradients of fp16 overflow."""
    before = functools.partial(_begin_with_a_large_scale, setup.dry_run)
    errors = run_train(setup, 'fp16', '--precision=fp16', before=before).errors
    skipped = 'the step is skipped' in errors
    return Part(checks=[('a run in fp16 skips steps that overflow, and ends', skipped)])


def _allow_some_memory() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(SOME_MEMORY / total)


def _allow_one_story() -> None:
    forward = DoubleHeadModel.forward

    def failing(self, batch, lm=True):
        if len(batch.clf) > 1 and self.training:
            raise torch.OutOfMemoryError('made to fail')
        return forward(self, batch, lm)

    DoubleHeadModel.forward = failing


def out_of_memory(setup: Setup) -> Part:
    """Run with too little memory for a step."""
    before = _allow_one_story if setup.dry_run else _allow_some_memory
    errors = run_train(setup, 'memory', before=before).errors
    halved = [line for line in errors.splitlines() if 'out of memory: continuing' in line]
    what = 'a run that is short of memory halves its steps, and ends'
    return Part(checks=[(what, bool(halved))], remarks=halved)


# ------------------------------------------------------------------------------------- the report

PARTS = {  # title -> function and its time limit in seconds
    'preparations': (prepare, 60),
    'fine-tuning': (fine_tuning, 150),
    'command': (command, 90),
    'pre-training': (pre_training, 90),
    'replicas': (replicas, 60),
    'deterministic': (deterministic, 150),
    'fp16': (overflow, 60),
    'memory': (out_of_memory, 60),
    'compile': (compiled, 150),
}
BUDGET = 570  # seconds for all of them: no part begins after that
PRELOADED = (  # by the server that starts the processes of a dry run; what is missing is left out
    'benchmarks.gpu',
    'torch._dynamo',
    'spacy.lang.en',
    'transformers.models.openai.modeling_openai',
)


def first_line(error: BaseException) -> str:
    line, _, _ = str(error).strip().partition('\n')
    return f'{type(error).__name__}: {line}'[:300]


def _work(function: Callable, setup: Setup, connection) -> None:
    if setup.dry_run:
        os.environ['GPT1_PATH'] = 'cuda'
    try:
        connection.send(function(setup))
    except Exception as error:
        traceback.print_exc()
        connection.send(f'failed: {first_line(error)}')


def run_part(function: Callable, setup: Setup, limit: float) -> Part | str:
    """Return what a part found, or a line about its failure."""
    context = multiprocessing.get_context('forkserver' if setup.dry_run else 'spawn')
    if setup.dry_run:
        context.set_forkserver_preload(list(PRELOADED))
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(function, setup, theirs))
    process.start()
    theirs.close()
    result = f'failed: it was stopped after {limit:.0f} s'
    if ours.poll(limit):
        try:
            result = ours.recv()
        except EOFError:
            process.join()
            result = f'failed: its process ended with {process.exitcode}'
    else:
        process.kill()
    process.join()
    return result


def markdown_of(machine: str, parts: dict[str, Part | str], seconds: dict[str, float]) -> str:
    """Return the report."""
    lines = [f'# {machine}', '']
    for title, part in parts.items():
        lines += [f'## {title} ({seconds[title]:.0f} s)', '']
        if isinstance(part, str):
            lines += [part, '']
            continue
        if part.rows:
            columns = list(part.rows[0])
            lines += ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
            for row in part.rows:
                lines.append('| ' + ' | '.join(shown(row[column]) for column in columns) + ' |')
            lines.append('')
        for what, is_true in part.checks:
            lines.append(f'- {"ok" if is_true else "**NOT SO**"}: {what}')
        lines += [f'- {remark}' for remark in part.remarks]
        lines.append('')
    return '\n'.join(lines)


def shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ''
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def run_parts(setup: Setup, titles: list[str], out: str) -> dict[str, Part | str]:
    """Run the parts, and write the report after each, so that what was found is not lost."""
    machine = measuring.machine_name(setup.device)
    machine += f', torch {torch.__version__}, CUDA {torch.version.cuda}'
    parts, seconds, start = {}, {}, time.perf_counter()
    for title in titles:
        function, limit = PARTS[title]
        began = time.perf_counter()
        left = BUDGET - (began - start)
        if setup.dry_run:  # the machine may be busy
            limit, left = 10 * limit, math.inf
        print(f'{title} ...', flush=True)
        parts[title] = run_part(function, setup, max(min(limit, left), 1))
        seconds[title] = time.perf_counter() - began
        report = markdown_of(machine, parts, seconds)
        with whole_file(f'{out}.md') as f:
            f.write(report)
        with whole_file(f'{out}.json') as f:
            json.dump({'machine': machine, 'seconds': seconds, 'parts': parts}, f, default=vars)
    print(report)
    return parts


def main(argv: list[str] | None = None) -> int:
    """Run all parts, or some. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', default='gpu', help='write OUT.md and OUT.json')
    parser.add_argument('--dry_run', action='store_true', help='tiny sizes, on the CPU')
    parser.add_argument('--parts', nargs='+', choices=list(PARTS), help='only these')
    args = parser.parse_args(argv)
    if not args.dry_run and not torch.cuda.is_available():
        parser.exit(2, 'gpu.py: error: there is no GPU here; --dry_run tries everything without\n')
    wanted = args.parts or PARTS
    titles = [title for title in PARTS if title in wanted or title == 'preparations']
    with tempfile.TemporaryDirectory() as folder:
        setup = tiny(folder) if args.dry_run else Setup(folder, False)
        parts = run_parts(setup, titles, args.out)
    good = all(
        isinstance(part, Part) and all(is_true for _, is_true in part.checks)
        for part in parts.values()
    )
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
