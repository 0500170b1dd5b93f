"""Check and measure this program on one GPU, in one command and about ten minutes.

    python benchmarks/gpu.py > gpu.md
    python benchmarks/gpu.py --dry_run    # tiny sizes, the GPU's path on a CPU

It needs nothing but this repository: the weights are random, the vocabulary has the published size,
and the stories are the sample's, which are as many as those of ROCStories.

    values         the GPU's path computes the losses and gradients of the plain forms, also with
                   nn.DataParallel on the same GPU twice
    deterministic  two runs with --deterministic write the same bytes
    fp16           a run that begins with a loss scale that is too large skips steps, and ends
    memory         a run on a part of the GPU's memory halves its steps, and ends
    command        `train.py --dataset rocstories --submit --analysis` at full size: its time
    fine_tuning    the table of finetune.py, in every precision
    pre_training   the table of pretrain.py

Each part runs in a process of its own. A part that fails is reported, and the others go on. The
exit status is 1 if a part or a check failed.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import argparse
import contextlib
import io
import multiprocessing
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

SMALL = '--dry_run' in sys.argv
SIZE = pretrain.SIZES['tiny' if SMALL else 'full']
SIZES = [f'--{name}={getattr(SIZE, name)}' for name in ('n_layer', 'n_embd', 'n_head')]
DEVICE = torch.device('cpu') if SMALL else torch.device('cuda', 0)
FEW_STEPS = ['--steps=1', '--variants=fp32'] if SMALL else ['--steps=8']


def run_train(folder: str, name: str, *options: str) -> str:
    """Run train.py on ROCStories; it writes to `folder/name`. Returns its warnings."""
    commands.prepare(folder, 24 if SMALL else 1871, SIZE.n_vocab)
    argv = '--dataset=rocstories --submit --n_iter=1 --n_transfer=-1 --n_gpu=1'.split()
    argv += [f'--data_dir={folder}', f'--model_dir={folder}', f'--device={DEVICE}', *SIZES]
    argv += ['--n_valid=4', '--n_batch=2'] if SMALL else ['--n_valid=374', '--n_batch=64']
    for what in ('log', 'save', 'submission', 'analysis'):
        argv.append(f'--{what}_dir={folder}/{name}/{what}')
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = train.main([*argv, *options])
    if status:
        sys.exit(f'train.py failed: {errors.getvalue()[-500:]}')
    return errors.getvalue()


def gradients(precision: str, n_replicas: int = 1, path: str = '') -> torch.Tensor:
    """Return the mean loss of 16 stories and all its gradients without dropout, in one vector."""
    config = pretrain.without_dropout(replace(SIZE, n_ctx=77, clf_pdrop=0))
    [(trees, labels)] = finetune.make_task(config, DEVICE, 16, 1).items
    model = others.make_model(DoubleHeadModel, config)
    module = JointLoss(model.to(DEVICE), others.LM_COEF)
    calls = parallel.ParallelModule(module, parallel.Ranks([DEVICE] * n_replicas))
    cuts = [slice(None)] if n_replicas == 1 else [slice(9), slice(9, None)]
    batches = [collate(trees[cut], config.first_position, False, labels[cut]) for cut in cuts]
    scaled = precisions.Precision(precision, DEVICE)
    with mock.patch.dict(os.environ, {'GPT1_PATH': path} if path else {}):
        loss = calls(batches, scaled.name, True).mean()
        scaled.scaler.scale(loss).backward()
    gradients = (p.grad.flatten() / scaled.scaler.get_scale() for p in module.parameters())
    return torch.cat([loss.detach()[None], *gradients]).float().cpu()


checks = []  # of this process


def check(what: str, is_true: bool) -> None:
    print('ok:' if is_true else 'NOT SO:', what)
    checks.append(is_true)


def values(folder: str) -> None:
    expected = gradients('fp32', path='plain')
    for precision, limit in {'fp32': 1e-4, 'tf32': 1e-2, 'bf16': 5e-2, 'fp16': 1e-2}.items():
        for n in (1,) if SMALL else (1, 2):
            error = float((gradients(precision, n) - expected).norm() / expected.norm())
            what = f'{precision}, replicas: {n}: differ by {error:.1e}, at most {limit:g}, relative'
            check(what, error < limit)


def deterministic(folder: str) -> None:
    for precision in ('bf16',) if SMALL else ('fp32', 'bf16'):
        for name in ('first', 'second'):
            run_train(folder, name, '--deterministic', f'--precision={precision}')
        for path in ('save/rocstories/best_params', 'submission/ROCStories.tsv'):
            one, two = (Path(folder, name, path).read_bytes() for name in ('first', 'second'))
            check(f'{precision}: the same {path} twice', one == two)


def fp16(folder: str) -> None:
    precisions.INITIAL_SCALE = 2.0**40
    if SMALL:
        parallel.check_precision = lambda precision, devices: None
    warnings = run_train(folder, 'fp16', '--precision=fp16')
    check('steps in fp16 that overflow are skipped', 'the step is skipped' in warnings)


def memory(folder: str) -> None:
    if SMALL:
        forward = DoubleHeadModel.forward

        def failing(self, batch, lm=True):
            if len(batch.clf) > 1 and self.training:
                raise torch.OutOfMemoryError('made to fail')
            return forward(self, batch, lm)

        DoubleHeadModel.forward = failing
    else:  # 4 GiB are enough for the model, not for a step of 64 stories
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((4 << 30) / total)
    warnings = run_train(folder, 'memory')
    check('steps that do not fit the memory are halved', 'out of memory: continuing' in warnings)


def command(folder: str) -> None:
    """The command of the paper's ROCStories, twice: the first one prepares the GPU."""
    for turn in ('first', 'second'):
        start = time.perf_counter()
        run_train(folder, turn, '--analysis', '--precision=bf16', '--n_iter=3')
        seconds = time.perf_counter() - start
        peak = 0 if SMALL else torch.cuda.max_memory_allocated(DEVICE) / 1e9
        print(f'{turn} run: {seconds:.1f} s, peak {peak:.2f} GB')


def fine_tuning(folder: str) -> None:
    for n_batch in (2,) if SMALL else (8, 64):
        argv = [f'--n_batch={n_batch}', f'--n_vocab={SIZE.n_vocab}', *SIZES, f'--device={DEVICE}']
        finetune.main([*argv, *FEW_STEPS])


def pre_training(folder: str) -> None:
    argv = ['--sizes', 'tiny'] if SMALL else ['--sizes', 'small', 'full', '--n_windows=16']
    pretrain.main([*argv, f'--device={DEVICE}', *FEW_STEPS])


PARTS = {
    part.__name__: part
    for part in (values, deterministic, fp16, memory, command, fine_tuning, pre_training)
}


def run_part(name: str) -> None:
    """Run a part in this process, and end it with status 1 if a check fails."""
    with tempfile.TemporaryDirectory() as folder:
        PARTS[name](folder)
    sys.exit(not all(checks))


def main() -> int:
    """Run all parts, or some. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--dry_run', action='store_true', help='tiny sizes, on the CPU')
    parser.add_argument('--parts', nargs='+', choices=list(PARTS), default=list(PARTS))
    args = parser.parse_args()
    if SMALL:
        os.environ['GPT1_PATH'] = 'cuda'
    elif not torch.cuda.is_available():
        parser.exit(2, 'gpu.py: error: there is no GPU here; --dry_run tries everything without\n')
    print(f'# {measuring.machine_name(DEVICE)}, torch {torch.__version__}')
    status = 0
    for name in args.parts:
        print(f'\n## {name}\n', flush=True)
        start = time.perf_counter()
        process = multiprocessing.get_context('spawn').Process(target=run_part, args=(name,))
        process.start()
        process.join()
        status |= process.exitcode != 0
        result = 'FAILED' if process.exitcode else 'ok'
        print(f'{name}: {result} ({time.perf_counter() - start:.0f} s)', flush=True)
    return status


if __name__ == '__main__':
    sys.exit(main())
