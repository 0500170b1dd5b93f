"""What the benchmarks compare computes the same, and products.py finds out the processor."""

import json
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
WINDOWS = pretrain.make_task(pretrain.SIZES['tiny'], CPU, n_updates=2)
STORIES = finetune.make_task(Config(300, 77, n_embd=32, n_head=2, n_layer=2), CPU, 2, n_steps=2)


@pytest.mark.parametrize(
    'task, names',
    [
        (WINDOWS, ['ours exact fp32', 'nanogpt exact fp32', 'transformers exact fp32']),
        (WINDOWS, ['ours exact bf16', 'nanogpt exact bf16']),
        (STORIES, list(finetune.VARIANTS)),
    ],
)
def test_all_compute_the_same_losses_and_learn(task, names):
    losses = {}
    for name in names:
        variants = measuring.Variants(task, keep=False)
        variants.make([name])
        losses[name] = variants.losses(name)
        for _ in range(3):
            assert variants.time(name, 'train', 0).wall > 0
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


def test_a_row_of_the_table(capsys):
    """Wall, processor and floor seconds of two steps, and the FLOP of the floor."""
    timings = {
        'ours exact fp32': [
            measuring.Timing(1.0, 0.9, 0.5, 2e9),
            measuring.Timing(3.0, 2.9, 1, 4e9),
        ],
        'nanogpt exact fp32': [measuring.Timing(2.0, 1.9), measuring.Timing(3.0, 2.9)],
    }
    rows = [measuring.row_of(WINDOWS, 'train', name, timings) for name in timings]
    assert rows[0]['times_nanogpt'] == 1.5
    assert rows[0]['times_floor'] == 2.5
    assert rows[0]['matmul_gflop_per_s'] == 4
    assert rows[0]['tokens_per_s'] == 32
    json.dumps(measuring.print_table(WINDOWS, list(timings), iter(rows)))
    _, header, ours, theirs = capsys.readouterr().out.splitlines()
    assert 'x nanogpt' in header and '1.50' in ours and theirs.endswith(' 1.00')


def test_the_products_of_both_libraries_are_measured(capsys):
    measuring.print_products([measuring.Product(64, 32, 96, 2), measuring.Product(32, 64, 96, 2)])
    out = capsys.readouterr().out
    assert '64 x 32 x 96' in out and 'by MKL' in out
    assert ('by oneDNN' in out) == torch.backends.mkldnn.is_available()


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


def test_the_floor_counts_half_of_the_products_of_attention():
    item, config = WINDOWS.items[0], WINDOWS.config
    every = WINDOWS.products('ours exact fp32', 'train', item)
    half = config.n_layer * 6 * item.shape[0] * item.shape[1] ** 2 * config.n_embd
    assert measuring.flop([some for some in every if some.batch]) == half
    assert math.isfinite(measuring.Floor(every, torch.float32, CPU).seconds())
