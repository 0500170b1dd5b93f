"""What the benchmarks compare computes the same; the family of the processor."""

import math
import sys

import pytest
import torch
from conftest import ROOT

sys.path.insert(0, ROOT)
from benchmarks import finetune, measuring, pretrain
from gpt1.ops import functional
from model_pytorch import Config

CPU = torch.device('cpu')
WINDOWS = pretrain.make_task(pretrain.SIZES['tiny'], CPU, n_windows=2, n_updates=2)
STORIES = finetune.make_task(Config(300, 77, n_embd=32, n_head=2, n_layer=2), CPU, 2, n_steps=2)
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
        variants = measuring.Variants(task, [name])
        losses[name] = variants.losses(name)
        variants.warm_up(name, 'train')
        variants.warm_up(name, 'train')
        wall, _, floor = variants.time(name, 'train', 0)
        assert wall > 0 and (floor > 0) == variants.is_ours
        assert variants.losses(name).mean() < losses[name].mean()
    differences = measuring.loss_differences(losses)
    assert all(
        value < (1e-5 if name.endswith('fp32') else 0.05) for name, value in differences.items()
    )
    losses[names[-1]] += 1
    with pytest.raises(SystemExit, match=names[-1]):
        measuring.loss_differences(losses)


@pytest.mark.parametrize('name', ['ours dropout fp32', 'nanogpt dropout fp32'])
def test_dropout_changes_the_losses_of_pre_training(name):
    variant = WINDOWS.make([name])[name]
    with torch.no_grad():
        in_training = variant.losses(WINDOWS.items[0])
        variant.model.eval()
        assert not torch.allclose(variant.losses(WINDOWS.items[0]), in_training)


def test_a_table_of_two_processes_that_take_turns(capsys):
    measuring.compare(WINDOWS, ['ours exact fp32', 'nanogpt exact fp32'], memory=False)
    header, ours, theirs, _ = capsys.readouterr().out.splitlines()
    assert 'x nanogpt' in header and 'x floor' in header
    assert ours.startswith('ours exact fp32') and ' 1.00 ' in theirs


def test_ratios_are_medians_over_the_turns():
    """Of wall, processor and floor seconds."""
    timings = {
        ('train', 'ours'): [(1.0, 0.9, 0.5), (3.0, 2.9, 1.0)],
        ('train', 'nanogpt'): [(2.0, 1.9, math.nan), (3.0, 2.9, math.nan)],
    }
    row = measuring.row_of(WINDOWS, timings, 'train', 'ours')
    assert (row['x nanogpt'], row['x floor'], row['tokens/s']) == ('1.50', '2.50', '32.0')
    assert measuring.row_of(WINDOWS, timings, 'train', 'nanogpt')['x floor'] == ''


def test_the_matrix_products_of_a_step_are_counted():
    a, b, bias = torch.randn(5, 3), torch.randn(3, 4), torch.randn(4)
    with measuring.Products() as products:
        torch.addmm(bias, a, b) @ b.t()
        a.bfloat16() @ b.bfloat16()
    counts = products.counts
    assert counts[(5, 3), (3, 4), torch.float32] == counts[(5, 4), (4, 3), torch.float32] == 1
    assert counts[(5, 3), (3, 4), torch.bfloat16] == 1 and len(counts) == 3


@pytest.mark.parametrize(
    'text, family',
    [
        ('vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n', 26),
        ('vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n', 25),
        ('vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n', 0),
        ('', 0),
    ],
)
def test_the_family_of_an_amd_processor(tmp_path, text, family):
    path = tmp_path / 'cpuinfo'
    path.write_text(text)
    assert functional.amd_family(str(path)) == family


def test_the_family_on_windows(monkeypatch):
    name = 'AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD'
    monkeypatch.setattr(functional.platform, 'processor', lambda: name)
    assert functional.amd_family('nowhere') == 26
