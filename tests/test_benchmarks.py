"""What the benchmarks compare computes the same; the family of the processor."""

import math
import sys

import pytest
import torch
from conftest import ROOT
from test_cuda_path import CPUReplicas

sys.path.insert(0, ROOT)
from benchmarks import finetune, gpu, measuring, pretrain
from gpt1.ops import functional
from model_pytorch import Config, DoubleHeadModel

CPU = torch.device('cpu')
WINDOWS = pretrain.make_task(pretrain.SIZES['tiny'], CPU, 2, 2)
STORIES = finetune.make_task(Config(300, 77, n_embd=32, n_head=2, n_layer=2), CPU, 2, 2)
IN_FP32 = [f'{name} fp32' for name in ('separate', 'shared', 'padded', 'transformers')]


@pytest.mark.parametrize(
    'task, names',
    [
        (WINDOWS, ['ours exact fp32', 'nanogpt exact fp32', 'transformers exact fp32']),
        (WINDOWS, ['ours exact bf16', 'nanogpt exact bf16']),
        (STORIES, [*IN_FP32, 'separate bf16', 'shared bf16']),
    ],
)
def test_all_compute_the_same_losses_and_learn(task, names):
    losses = {}
    for name in names:
        turns = measuring.Turns(task, name)
        losses[name] = turns.losses()
        turns.warm_up('train')
        turns.warm_up('train')
        seconds, floor = turns.time('train', 0)
        assert seconds > 0 and (floor > 0) == turns.is_ours
        assert turns.losses().mean() < losses[name].mean()
    for name, difference in measuring.loss_differences(losses).items():
        assert difference < (1e-5 if name.endswith('fp32') else 0.05)
    losses[names[-1]] += 1
    with pytest.raises(SystemExit, match=names[-1]):
        measuring.loss_differences(losses)


def test_a_table_of_two_processes_that_take_turns(capsys):
    """Ratios are medians over the turns, of the seconds of a step and of its products."""
    measuring.compare(WINDOWS, ['ours dropout fp32', 'nanogpt exact fp32'])
    header, ours, theirs, _ = capsys.readouterr().out.splitlines()
    assert all(title in header for title in ('x nanogpt', 'x floor', 'peak GB'))
    assert ours.startswith('ours dropout fp32') and ' 1.00 ' in theirs
    timings = {
        ('train', 'ours'): [(1.0, 0.5), (3.0, 1.0)],
        ('train', 'nanogpt'): [(2.0, math.nan), (3.0, math.nan)],
    }
    row = measuring.row_of(WINDOWS, timings, 'train', 'ours')
    assert (row['x nanogpt'], row['x floor'], row['tokens/s']) == ('1.50', '2.50', '32.0')


def test_the_checks_of_a_gpu(monkeypatch, tmp_path, capfd):
    """They run on its path, here on the CPU; a dry run has a process for each part."""
    tiny = pretrain.SIZES['tiny']
    sizes = [f'--{name}={getattr(tiny, name)}' for name in ('n_layer', 'n_embd', 'n_head')]
    monkeypatch.setenv('GPT1_PATH', 'cuda')
    monkeypatch.setattr(gpu.parallel, '_Devices', CPUReplicas)
    for name, value in dict(DEVICE=CPU, SIZE=tiny, SIZES=sizes).items():
        monkeypatch.setattr(gpu, name, value)
    gpu.values('')
    monkeypatch.setattr(gpu, 'SMALL', True)
    for owner, name in [
        (gpu.precisions, 'INITIAL_SCALE'),
        (gpu.parallel, 'check_precision'),
        (DoubleHeadModel, 'forward'),
    ]:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # for its end
    gpu.fp16(str(tmp_path))
    gpu.memory(str(tmp_path))
    assert capfd.readouterr().out.count('ok:') == 8 + 2 and all(gpu.checks)
    monkeypatch.setattr(sys, 'argv', 'gpu.py --dry_run --parts deterministic'.split())
    assert gpu.main() == 0
    printed = capfd.readouterr().out
    assert 'ok: bf16: the same submission' in printed and 'deterministic: ok' in printed


def test_the_family_of_an_amd_processor(tmp_path, monkeypatch):
    path = tmp_path / 'cpuinfo'
    for text, family in {
        'vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n': 26,
        'vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n': 0,
    }.items():
        path.write_text(text)
        assert functional.amd_family(str(path)) == family
    # On Windows, there is no such file.
    name = 'AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD'
    monkeypatch.setattr(functional.platform, 'processor', lambda: name)
    assert functional.amd_family('nowhere') == 26
