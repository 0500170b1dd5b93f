"""Measure and check this program on one GPU, in one command and under ten minutes.

    python benchmarks/gpu.py --out gpu              # writes gpu.md and gpu.json
    python benchmarks/gpu.py --out dry --dry_run    # tiny sizes, the GPU's path on a CPU

It needs nothing but this repository: weights and vocabulary have the published sizes and random
content, and the stories are the sample's, which are as many as those of ROCStories.

    fine-tuning    a training and a prediction step, in every precision, against the padded way and
                   `transformers` (the implementations of finetune.py); the memory; the share of
                   the rate that the card reaches in one large product
    command        `train.py --dataset rocstories --submit --analysis`, by phase
    pre-training   tokens a second at n_ctx 512, against the other two of benchmarks/pretrain.py
    compile        torch.compile on and off
    replicas       nn.DataParallel on the same GPU twice computes the same gradients
    deterministic  two runs with --deterministic write the same bytes
    fp16           a run that begins with a loss scale that is too large skips steps and goes on
    memory         a run on a part of the GPU's memory halves its steps and goes on

Each part runs in a process of its own with a time limit. A part that fails is reported, and the
others go on. The exit status is 1 if a part or a check failed.
"""

import argparse
import contextlib
import dataclasses
import functools
import gc
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, 'benchmarks')]
import gpt1.startup  # noqa: F401 (before the import of any library)

import full_size
import numpy as np
import torch

import train
from benchmarks import finetune, pretrain
from gpt1.files import ENCODER_FILE, MERGES_FILE, SAMPLE_MODEL
from gpt1.run import parallel
from gpt1.run import precision as precisions
from gpt1.weights.openai import save_openai_shards
from model_pytorch import Config, DoubleHeadModel
from utils import whole_file

PRECISIONS = ('fp32', 'tf32', 'bf16', 'fp16')
N_SYMBOLS = 40478  # of OpenAI's vocabulary
COMMAND_SECONDS, TRAINING_SECONDS = 20, 4  # the bounds for the whole command, in bf16
TOO_LARGE_SCALE = 2.0**40
SOME_MEMORY = 4 << 30  # bytes: enough for the model, not for a step of 64 stories


@dataclass
class Setup:
    """How large everything is. The values are those of the real thing; `tiny` is a dry run."""

    folder: str  # for weights, data and what the runs write
    dry_run: bool
    n_steps: int = 8
    batches: tuple[int, ...] = (8, 64)  # stories a step
    size: pretrain.Size = field(
        default_factory=lambda: pretrain.SIZES['full']._replace(n_windows=16)
    )
    precisions: tuple[str, ...] = PRECISIONS
    n_stories: int = 1871  # in each of the two files
    n_epochs: int = 3

    @property
    def device(self) -> torch.device:
        return torch.device('cpu') if self.dry_run else torch.device('cuda', 0)

    @property
    def model_dir(self) -> str:
        return os.path.join(self.folder, 'model')

    @property
    def data_dir(self) -> str:
        return os.path.join(self.folder, 'data')

    def config(self) -> Config:
        """The model that is fine-tuned: sequences as long as the longest of ROCStories."""
        n_layer, n_embd, n_head, _, _, n_vocab = self.size
        return Config(n_vocab=n_vocab, n_ctx=77, n_embd=n_embd, n_head=n_head, n_layer=n_layer)


def tiny(folder: str) -> Setup:
    return Setup(
        folder, True, 1, (2,), pretrain.SIZES['tiny'], ('tf32', 'fp16'), n_stories=24, n_epochs=1
    )


@dataclass
class Part:
    """What a part of the report says."""

    rows: list[dict] = field(default_factory=list)  # of one table: the same keys in each
    checks: list[tuple[str, bool]] = field(default_factory=list)  # what was expected; whether it is
    notes: list[str] = field(default_factory=list)


# ----------------------------------------------------------------------------------- preparations


def prepare(setup: Setup) -> Part:
    """Write weights and a vocabulary of the published sizes, and the stories."""
    os.makedirs(setup.model_dir)
    os.makedirs(setup.data_dir)
    full_size.copy_stories(setup.data_dir, setup.n_stories)
    with open(os.path.join(SAMPLE_MODEL, ENCODER_FILE), encoding='utf-8') as f:
        symbols = json.load(f)
    if not setup.dry_run:
        for i in range(len(symbols), N_SYMBOLS):  # symbols that no text has
            symbols[f'<{i}>'] = i
    with open(os.path.join(setup.model_dir, ENCODER_FILE), 'w', encoding='utf-8') as f:
        json.dump(symbols, f)
    with (
        open(os.path.join(SAMPLE_MODEL, MERGES_FILE), encoding='utf-8') as source,
        open(os.path.join(setup.model_dir, MERGES_FILE), 'w', encoding='utf-8') as target,
    ):
        target.write(source.read())
    config = Config(
        n_vocab=len(symbols),
        n_ctx=512,
        n_embd=setup.size.n_embd,
        n_head=setup.size.n_head,
        n_layer=setup.size.n_layer,
    )
    model = pretrain.LMModel(config)
    model.load_state_dict(pretrain.make_weights(config))
    save_openai_shards(model, setup.model_dir)
    return Part(notes=[f'{sum(p.numel() for p in model.parameters()):,} parameters'])


# --------------------------------------------------------------------------------------- the steps


def synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize()


def median_seconds(step: Callable, items: list, device: torch.device) -> float:
    """Return the median time of `step(item)`, after a warm-up with each item."""
    for item in items:
        step(item)
    seconds = []
    for item in items:
        synchronize(device)
        start = time.perf_counter()
        step(item)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def card_rate(precision: str, device: torch.device, n: int) -> float:
    """Return the FLOP a second of one large product [n, n] [n, n] in a precision."""
    a = torch.randn(n, n, device=device).to(precisions.DTYPES.get(precision, torch.float32))
    with in_precision(precision, device, cast=False):
        return 2 * n**3 / median_seconds(lambda _: a @ a, [None] * 10, device)


@contextlib.contextmanager
def in_precision(precision: str, device: torch.device, cast: bool = True) -> Iterator[None]:
    """Compute products in a precision, by PyTorch's setting and with `cast` by autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high' if precision == 'tf32' else 'highest')
    try:
        with precisions.autocast(device, precision if cast else 'fp32'):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict]:
    """Put the most memory that was in use within this context into the dict: `bytes`."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    result = {'bytes': math.nan}
    yield result
    if device.type == 'cuda':
        result['bytes'] = torch.cuda.max_memory_allocated()


def has_transformers() -> bool:
    with contextlib.suppress(ImportError):
        import transformers

        transformers.logging.set_verbosity_error()
        return True
    return False


def fine_tuning(setup: Setup) -> Part:
    """Time the steps of fine-tuning. The others run in the same precision, and in fp32."""
    config, device = setup.config(), setup.device
    weights = finetune.make_weights(config)
    variants = {
        'separate': functools.partial(finetune.Ours, share_context=False),
        'shared': functools.partial(finetune.Ours, share_context=True),
        'padded': finetune.Padded,
        'transformers': finetune.HuggingFace,
    }
    if not has_transformers():
        del variants['transformers']
    part = Part()
    for n_batch in setup.batches:
        batches = [
            finetune.make_stories(n_batch, config, np.random.RandomState(seed))
            for seed in range(setup.n_steps)
        ]
        for precision in setup.precisions:
            rate = card_rate(precision, device, 64 if setup.dry_run else 8192)
            rows = {}
            for name, variant in variants.items():
                ours = name in ('separate', 'shared')
                with (
                    in_precision(precision, device, cast=not ours),
                    peak_memory(device) as peak,
                ):
                    options = {'precision': precision} if ours else {}
                    model = variant(config, device, weights, **options)
                    train_s = median_seconds(model.train, batches, device)
                    predict_s = median_seconds(model.predict, batches, device)
                    del model
                flop = finetune.flop(
                    finetune.product_shapes('train', batches[0], name == 'shared', config, device)
                )
                rows[name] = {
                    'stories': n_batch,
                    'precision': precision,
                    'variant': name,
                    'train ms': 1e3 * train_s,
                    'predict ms': 1e3 * predict_s,
                    'share of the rate %': 100 * flop / train_s / rate if ours else math.nan,
                    'peak GB': peak['bytes'] / 1e9,
                }
            part.rows += add_ratios(rows, ('train ms', 'predict ms'), ('padded', 'transformers'))
    return part


def add_ratios(rows: dict[str, dict], what: tuple[str, ...], others: tuple[str, ...]) -> list[dict]:
    """Return the rows with how many times longer the others take, for each time in `what`."""
    for row in rows.values():
        for column in what:
            kind = column.split()[0]
            for other in others:
                ratio = rows[other][column] / row[column] if other in rows else math.nan
                row[f'{kind} x {other}'] = ratio
    return list(rows.values())


def pre_training(setup: Setup) -> Part:
    """Time updates of pre-training, with dropout."""
    device, part = setup.device, Part()
    task = pretrain.make_task(setup.size, device, setup.n_steps)
    names = ['ours', 'nanogpt'] + ['transformers'] * has_transformers()
    for precision in setup.precisions:
        rows = {}
        rate = card_rate(precision, device, 64 if setup.dry_run else 8192)
        flop = pretrain.flop_of(pretrain.product_shapes(task))
        for name in names:
            with (
                in_precision(precision, device, cast=False),
                peak_memory(device) as peak,
            ):
                model = pretrain.make_variant(f'{name} dropout {precision}', task.config, device)
                seconds = median_seconds(model.update, task.windows, device)
                del model
            rows[name] = {
                'precision': precision,
                'variant': name,
                'update ms': 1e3 * seconds,
                'tokens/s': task.windows[0].size / seconds,
                'share of the rate %': 100 * flop / seconds / rate,
                'peak GB': peak['bytes'] / 1e9,
            }
        part.rows += add_ratios(rows, ('update ms',), ('nanogpt', 'transformers'))
    n_windows, n_ctx = task.windows[0].shape
    part.notes.append(f'{n_windows} windows of {n_ctx} tokens an update')
    return part


def compiled(setup: Setup) -> Part:
    """Time our steps in bf16 as they are and with torch.compile."""
    config, device = setup.config(), setup.device
    options = {'backend': 'eager'} if setup.dry_run else {}  # no compiler is needed then
    stories = [
        finetune.make_stories(setup.batches[-1], config, np.random.RandomState(seed))
        for seed in range(setup.n_steps)
    ]
    task = pretrain.make_task(setup.size, device, setup.n_steps)
    kinds = {
        'pre-training': lambda: pretrain.Ours(task.config, device, 'bf16'),
        'fine-tuning': lambda: finetune.Ours(
            config, device, finetune.make_weights(config), True, 'bf16'
        ),
    }
    part = Part()
    for kind, make in kinds.items():
        for compile_it in (False, True):
            model = make()
            start = time.perf_counter()
            if compile_it:
                model.model.compile(**options)
            step = model.update if kind == 'pre-training' else model.train
            items = task.windows if kind == 'pre-training' else stories
            try:
                seconds = median_seconds(step, items, device)
            except Exception as error:
                part.notes.append(f'{kind} with torch.compile fails: {first_line(error)}')
                continue
            part.rows.append(
                {
                    'step': kind,
                    'torch.compile': 'on' if compile_it else 'off',
                    'ms': 1e3 * seconds,
                    'all, with compiling s': time.perf_counter() - start,
                }
            )
    return part


# ------------------------------------------------------------------------------------ whole runs


def command_line(setup: Setup, name: str, *options) -> list[str]:
    """Return the options of train.py for a run that writes to `folder/name`."""
    size = setup.size
    sizes = {'n_layer': size.n_layer, 'n_embd': size.n_embd, 'n_head': size.n_head}
    folders = {
        f'{what}_dir': os.path.join(setup.folder, name, what)
        for what in ('log', 'save', 'submission', 'analysis')
    }
    values = {
        'dataset': 'rocstories',
        'data_dir': setup.data_dir,
        'model_dir': setup.model_dir,
        'device': str(setup.device),
        'n_iter': 1,
        'n_valid': setup.n_stories // 5,
        'n_gpu': 1,
        'n_batch': setup.batches[-1],
        **sizes,
        **folders,
    }
    argv = [f'--{option}={value}' for option, value in values.items()]
    return ['--submit', *argv, *map(str, options)]


def command(setup: Setup) -> Part:
    """Run the command of the paper's ROCStories at full size, and report its phases."""
    path = os.path.join(setup.folder, 'phases.json')
    argv = command_line(setup, 'command', '--analysis', '--precision=bf16')
    argv.append(f'--n_iter={setup.n_epochs}')
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, 'benchmarks', 'run.py'), '--json', path, *argv],
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f'train.py ended with {done.returncode}: {done.stderr[-500:]}')
    with open(path, encoding='utf-8') as f:
        figures = json.load(f)
    training = sum(s for name, s in figures['seconds'].items() if name.endswith('updates'))
    part = Part([{'phase': name, 's': s} for name, s in figures['seconds'].items()])
    part.rows.append({'phase': 'the process, from start to end', 's': wall})
    if not setup.dry_run:
        part.checks = [
            (f'the whole command in {COMMAND_SECONDS} s', wall <= COMMAND_SECONDS),
            (f'its training in {TRAINING_SECONDS} s', training <= TRAINING_SECONDS),
        ]
    part.notes.append(f'all updates: {training:.2f} s')
    return part


def run_of_train(argv: list[str], errors: str, before: Callable | None = None) -> int:
    """Run train.py in this process, its errors written to a file. Returns the exit status."""
    handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if before:
        before()
    return train.main(argv)


def train_in_child(setup: Setup, name: str, *options, before: Callable | None = None) -> str:
    """Run train.py in a process of its own. Returns its errors; raises if it failed."""
    errors = os.path.join(setup.folder, f'{name}.stderr')
    argv = command_line(setup, name, *options)
    # In a dry run, a fork saves the imports. With CUDA it fails if a library has looked for a GPU.
    context = multiprocessing.get_context('fork' if setup.dry_run else 'spawn')
    process = context.Process(target=_exit_with, args=(run_of_train, argv, errors, before))
    process.start()
    process.join()
    with open(errors, encoding='utf-8') as f:
        text = f.read()
    if process.exitcode:
        raise RuntimeError(f'train.py ended with {process.exitcode}: {text[-500:]}')
    return text


def _exit_with(function: Callable, *args) -> None:
    sys.exit(function(*args))


def written(setup: Setup, name: str) -> dict[str, bytes]:
    """Return what a run wrote that depends on its arithmetic alone."""
    paths = ('save/rocstories/best_params', 'submission/ROCStories.tsv')
    result = {}
    for path in paths:
        with open(os.path.join(setup.folder, name, path), 'rb') as f:
            result[path] = f.read()
    return result


def deterministic(setup: Setup) -> Part:
    """Run twice with --deterministic, and compare the bytes."""
    part = Part()
    for precision in ('bf16',) if setup.dry_run else ('fp32', 'bf16'):
        for name in ('first', 'second'):
            train_in_child(setup, name, '--deterministic', f'--precision={precision}')
        first, second = written(setup, 'first'), written(setup, 'second')
        for path in first:
            part.checks.append((f'{precision}: the same {path} twice', first[path] == second[path]))
    return part


def _begin_with_a_large_scale(allow: bool) -> None:
    precisions.INITIAL_SCALE = TOO_LARGE_SCALE
    if allow:
        parallel.check_precision = lambda precision, devices: None


def overflow(setup: Setup) -> Part:
    """Let the gradients of fp16 overflow."""
    before = functools.partial(_begin_with_a_large_scale, setup.dry_run)
    errors = train_in_child(setup, 'fp16', '--precision=fp16', before=before)
    n_skipped = errors.count('the step is skipped')
    return Part(checks=[('a run in fp16 skips steps that overflow, and ends', n_skipped > 0)])


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
    errors = train_in_child(setup, 'memory', before=before)
    halved = [line for line in errors.splitlines() if 'out of memory: continuing' in line]
    what = 'a run that is short of memory halves its steps, and ends'
    return Part(checks=[(what, bool(halved))], notes=halved)


def replicas(setup: Setup) -> Part:
    """See `compare_replicas`. nn.DataParallel has no replicas on a CPU."""
    return Part(notes=['needs a GPU']) if setup.dry_run else compare_replicas(setup)


def compare_replicas(setup: Setup) -> Part:
    """Compare the gradients of nn.DataParallel on one GPU twice with those of one replica."""
    config = dataclasses.replace(pretrain.without_dropout(setup.config()), clf_pdrop=0)
    device, part = setup.device, Part()
    stories = finetune.make_stories(16, config, np.random.RandomState(0))
    for precision in ('fp32', 'bf16'):
        results = {}
        for n in (1, 2):
            model = DoubleHeadModel(config)
            model.load_state_dict(finetune.make_weights(config))
            module = finetune.JointLoss(model.to(device), finetune.LM_COEF)
            calls = parallel.ParallelModule(module, parallel.Ranks([device] * n))
            cuts = [stories] if n == 1 else [stories[:9], stories[9:]]
            scaled = precisions.Precision(precision, device)

            def step(_, module=module, calls=calls, cuts=cuts, scaled=scaled):
                module.zero_grad()
                batches = [finetune.lay_out(cut, config, False) for cut in cuts]
                losses = calls(batches, scaled.name, last=True)
                scaled.scale(losses.sum() / len(stories)).backward()
                return losses.detach()

            seconds = median_seconds(step, range(setup.n_steps), device)
            gradients = torch.cat([p.grad.flatten() for p in module.parameters()])
            results[n] = gradients, step(None)
            part.rows.append({'precision': precision, 'replicas': n, 'step ms': 1e3 * seconds})
        difference = (results[2][0] - results[1][0]).norm() / results[1][0].norm()
        limit = 1e-4 if precision == 'fp32' else 3e-2
        what = f'{precision}: gradients differ by at most {limit:g}, relative'
        part.checks.append((what, bool(difference < limit)))
        part.notes.append(f'{precision}: difference of the gradients {difference:.1e}')
    return part


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


def processes(setup: Setup):
    """Return what starts a process: a new one, or in a dry run a fork of one with all imports."""
    if not setup.dry_run:
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    # What cannot be imported is left out.
    context.set_forkserver_preload(
        [
            'train',
            'benchmarks.gpu',
            'torch._dynamo',
            'spacy.lang.en',
            'transformers.models.openai.modeling_openai',
        ]
    )
    return context


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
    ours, theirs = multiprocessing.Pipe()
    process = processes(setup).Process(target=_work, args=(function, setup, theirs))
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
        lines += [f'- {note}' for note in part.notes]
        lines.append('')
    return '\n'.join(lines)


def shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ''
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def machine_name(device: torch.device) -> str:
    name = finetune.machine_name(device)
    return f'{name}, torch {torch.__version__}, CUDA {torch.version.cuda}'


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
    parts, seconds, start = {}, {}, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        setup = tiny(folder) if args.dry_run else Setup(folder, False)
        machine = machine_name(setup.device)
        for title, (function, limit) in PARTS.items():
            if args.parts and title not in (*args.parts, 'preparations'):
                continue
            began = time.perf_counter()
            left = BUDGET - (began - start)
            if args.dry_run:  # the machine may be busy
                limit, left = 10 * limit, math.inf
            print(f'{title} ...', flush=True)
            parts[title] = run_part(function, setup, max(min(limit, left), 1))
            seconds[title] = time.perf_counter() - began
            # After each part, so that what was found is not lost.
            with whole_file(f'{args.out}.md') as f:
                f.write(markdown_of(machine, parts, seconds))
            with whole_file(f'{args.out}.json') as f:
                result = {
                    title: part if isinstance(part, str) else vars(part)
                    for title, part in parts.items()
                }
                json.dump({'machine': machine, 'seconds': seconds, 'parts': result}, f, indent=1)
    print(markdown_of(machine, parts, seconds))
    good = (
        isinstance(part, Part) and all(is_true for _, is_true in part.checks)
        for part in parts.values()
    )
    return 0 if all(good) else 1


if __name__ == '__main__':
    sys.exit(main())
