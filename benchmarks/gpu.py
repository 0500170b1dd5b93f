"""Check and measure this program on one GPU, in one command and about ten minutes.

    python benchmarks/gpu.py                        # writes gpu.md
    python benchmarks/gpu.py --dry_run --out dry    # tiny sizes, the GPU's path on a CPU

It needs nothing but this repository: the weights are random, the vocabulary has the published size,
and the stories are the sample's, which are as many as those of ROCStories.

    values         the GPU's path computes the losses and gradients of the plain forms
    replicas       nn.DataParallel on the same GPU twice computes the same gradients
    deterministic  two runs with --deterministic write the same bytes
    fp16           a run that begins with a loss scale that is too large skips steps and goes on
    memory         a run on a part of the GPU's memory halves its steps and goes on
    command        `train.py --dataset rocstories --submit --analysis` at full size: its time
    fine-tuning    the table of finetune.py, in every precision
    pre-training   the table of pretrain.py

Each part runs in a process of its own with a time limit. A part that fails is reported, and the
others go on. The exit status is 1 if a part or a check failed.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import argparse
import contextlib
import io
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

import train
from benchmarks import commands, finetune, measuring, others, pretrain
from gpt1.ops.batches import collate
from gpt1.run import parallel
from gpt1.run import precision as precisions
from loss import JointLoss
from model_pytorch import DoubleHeadModel
from utils import whole_file

TOO_LARGE_SCALE = 2.0**40
SOME_MEMORY = 4 << 30  # bytes: enough for the model, not for a step of 64 stories


SMALL = '--dry_run' in sys.argv
SIZE = pretrain.SIZES['tiny' if SMALL else 'full']
SIZES = [f'--{name}={getattr(SIZE, name)}' for name in ('n_layer', 'n_embd', 'n_head')]
DEVICE = torch.device('cpu') if SMALL else torch.device('cuda', 0)
FEW_STEPS = ['--steps=1', '--no_memory', '--variants=fp32'] if SMALL else ['--steps=8']


def run_train(folder: str, name: str, *options: str) -> str:
    """Run train.py on ROCStories; it writes to `folder/name`. Returns what it says.

    Raises RuntimeError if it fails.
    """
    commands.prepare(folder, 24 if SMALL else 1871, SIZE.n_vocab)
    argv = '--dataset=rocstories --submit --n_iter=1 --n_transfer=-1 --n_gpu=1'.split()
    argv += [f'--data_dir={folder}', f'--model_dir={folder}', f'--device={DEVICE}', *SIZES]
    argv += ['--n_valid=4', '--n_batch=2'] if SMALL else ['--n_valid=374', '--n_batch=64']
    for what in ('log', 'save', 'submission', 'analysis'):
        argv.append(f'--{what}_dir={folder}/{name}/{what}')
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = train.main([*argv, *options])
    if status:
        raise RuntimeError(f'train.py ended with {status}: {errors.getvalue()[-500:]}')
    return errors.getvalue()


def check(what: str, is_true: bool) -> bool:
    print('ok:' if is_true else 'NOT SO:', what)
    return is_true


def gradients(precision: str, n_replicas: int = 1, path: str = '') -> torch.Tensor:
    """Return the mean loss of 16 stories and all its gradients without dropout, in one vector."""
    config = pretrain.without_dropout(replace(SIZE, n_ctx=77, clf_pdrop=0))
    [(trees, labels)] = finetune.make_task(config, DEVICE, 16, 1).items
    model = DoubleHeadModel(config)
    model.load_state_dict(others.make_weights(DoubleHeadModel, config))
    module = JointLoss(model.to(DEVICE), others.LM_COEF)
    calls = parallel.ParallelModule(module, parallel.Ranks([DEVICE] * n_replicas))
    cuts = [slice(None)] if n_replicas == 1 else [slice(9), slice(9, None)]
    batches = [collate(trees[cut], config.first_position, False, labels[cut]) for cut in cuts]
    scaled = precisions.Precision(precision, DEVICE)
    with mock.patch.dict(os.environ, {'GPT1_PATH': path} if path else {}):
        loss = calls(batches, scaled.name, True).mean()
        scaled.scale(loss).backward()
    gradients = (p.grad.flatten() / scaled.scaler.get_scale() for p in module.parameters())
    return torch.cat([loss.detach()[None], *gradients]).float().cpu()


def compare(what: str, one: torch.Tensor, other: torch.Tensor, limit: float) -> bool:
    difference = float((one - other).norm() / one.norm())
    return check(
        f'{what}: differ by {difference:.1e}, at most {limit:g}, relative', difference < limit
    )


def values(folder: str) -> bool:
    """The losses and gradients of the GPU's path are those of the plain forms in float32."""
    limits = {'fp32': 1e-4, 'tf32': 1e-2, 'bf16': 5e-2, 'fp16': 1e-2}
    expected = gradients('fp32', path='plain')
    found = {name: gradients(name) for name in limits}
    results = [compare(name, expected, found[name], limits[name]) for name in limits]
    return all(results)


def replicas(folder: str) -> bool:
    """The gradients of nn.DataParallel on one GPU twice are those of one replica."""
    if SMALL:
        return check('nn.DataParallel has no replicas on a CPU', True)
    limits = {'fp32': 1e-4, 'bf16': 3e-2}
    results = [compare(n, *(gradients(n, k) for k in (1, 2)), limits[n]) for n in limits]
    return all(results)


def deterministic(folder: str) -> bool:
    """Two runs with --deterministic write the same bytes."""
    results = []
    for precision in ('bf16',) if SMALL else ('fp32', 'bf16'):
        for name in ('first', 'second'):
            run_train(folder, name, '--deterministic', f'--precision={precision}')
        for path in ('save/rocstories/best_params', 'submission/ROCStories.tsv'):
            one, two = (Path(folder, name, path).read_bytes() for name in ('first', 'second'))
            results.append(check(f'{precision}: the same {path} twice', one == two))
    return all(results)


def fp16(folder: str) -> bool:
    """A run whose gradients overflow skips steps, and ends."""
    precisions.INITIAL_SCALE = TOO_LARGE_SCALE
    if SMALL:
        parallel.check_precision = lambda precision, devices: None
    said = run_train(folder, 'fp16', '--precision=fp16')
    return check('a run in fp16 skips steps that overflow, and ends', 'the step is skipped' in said)


def memory(folder: str) -> bool:
    """A run with too little memory for a step halves it, and ends."""
    if SMALL:
        forward = DoubleHeadModel.forward

        def failing(self, batch, lm=True):
            if len(batch.clf) > 1 and self.training:
                raise torch.OutOfMemoryError('made to fail')
            return forward(self, batch, lm)

        DoubleHeadModel.forward = failing
    else:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(SOME_MEMORY / total)
    said = run_train(folder, 'memory')
    what = 'a run that is short of memory halves its steps, and ends'
    return check(what, 'out of memory: continuing' in said)


def command(folder: str) -> bool:
    """The command of the paper's ROCStories, twice: the first one prepares the GPU."""
    for turn in ('first', 'second'):
        start = time.perf_counter()
        run_train(folder, turn, '--analysis', '--precision=bf16', '--n_iter=3')
        seconds = time.perf_counter() - start
        print(f'{turn} run: {seconds:.1f} s, peak {measuring.peak_bytes(DEVICE) / 1e9:.2f} GB')
    return True


def fine_tuning(folder: str) -> bool:
    for n_batch in (2,) if SMALL else (8, 64):
        argv = [f'--n_batch={n_batch}', f'--n_vocab={SIZE.n_vocab}', *SIZES, f'--device={DEVICE}']
        finetune.main([*argv, *FEW_STEPS])
    return True


def pre_training(folder: str) -> bool:
    argv = ['--sizes', 'tiny'] if SMALL else ['--sizes', 'small', 'full', '--n_windows=16']
    pretrain.main([*argv, f'--device={DEVICE}', *FEW_STEPS])
    return True


PARTS = {  # title -> function and its time limit in seconds
    'values': (values, 90),
    'replicas': (replicas, 90),
    'deterministic': (deterministic, 150),
    'fp16': (fp16, 60),
    'memory': (memory, 60),
    'command': (command, 120),
    'fine-tuning': (fine_tuning, 400),
    'pre-training': (pre_training, 400),
}


def run_part(title: str, command: list[str]) -> tuple[bool, str]:
    """Run a part in a process of its own. Returns whether it ended well, and what it says."""
    environment = {**os.environ, 'GPT1_PATH': 'cuda'} if SMALL else None
    limit = PARTS[title][1] * (10 if SMALL else 1)  # the machine of a dry run may be busy
    with tempfile.TemporaryFile('w+') as output:
        how = dict(stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            good, more = subprocess.run(command, timeout=limit, **how).returncode == 0, ''
        except subprocess.TimeoutExpired:
            good, more = False, f'NOT SO: it ends within {limit} s\n'
        output.seek(0)
        return good, output.read() + more


def main() -> int:
    """Run all parts, or some. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', default='gpu', help='write OUT.md (default: gpu)')
    parser.add_argument('--dry_run', action='store_true', help='tiny sizes, on the CPU')
    parser.add_argument('--parts', nargs='+', choices=list(PARTS), default=list(PARTS))
    parser.add_argument('--part', choices=list(PARTS), help='run it in this process')
    args = parser.parse_args()
    if not SMALL and not torch.cuda.is_available():
        parser.exit(2, 'gpu.py: error: there is no GPU here; --dry_run tries everything without\n')
    if args.part:
        with tempfile.TemporaryDirectory() as folder:
            return 0 if PARTS[args.part][0](folder) else 1
    report = f'# {measuring.machine_name(DEVICE)}, torch {torch.__version__}\n'
    results = []
    for title in args.parts:
        print(f'{title} ...', flush=True)
        start = time.perf_counter()
        command = [sys.executable, os.path.abspath(__file__), '--part', title]
        good, text = run_part(title, command + ['--dry_run'] * SMALL)
        results.append(good)
        status = 'ok' if good else 'FAILED'
        report += f'\n## {title}: {status} ({time.perf_counter() - start:.0f} s)\n\n'
        report += f'```text\n{text}```\n'
        with whole_file(f'{args.out}.md') as f:  # after each, so that nothing is lost
            f.write(report)
    print(report)
    return 0 if all(results) else 1


if __name__ == '__main__':
    sys.exit(main())
