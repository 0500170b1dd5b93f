"""What the benchmarks compare computes the same, and functional.py finds out the processor."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.insert(0, ROOT)
from benchmarks import finetune, pretrain
from gpt1.ops import functional

CPU = torch.device('cpu')
NAMES = ['ours', 'nanogpt']
TASK = pretrain.make_task(pretrain.SIZES['tiny'], CPU, n_updates=2)


@pytest.mark.parametrize('precision, tolerance', [('fp32', 1e-5), ('bf16', 0.05)])
def test_the_ways_to_pre_train_compute_the_same_losses(precision, tolerance):
    losses = {}
    for name in NAMES:
        model = pretrain.make_variant(f'{name} exact {precision}', TASK.config, CPU)
        losses[name] = model.losses(TASK.windows[0]).detach()
        for _ in range(3):
            model.update(TASK.windows[0])
        assert model.losses(TASK.windows[0]).mean() < losses[name].mean()
    torch.testing.assert_close(losses['ours'], losses['nanogpt'], rtol=0, atol=tolerance)


@pytest.mark.parametrize('name', NAMES)
def test_dropout_changes_the_losses_of_pre_training(name):
    model = pretrain.make_variant(f'{name} dropout fp32', TASK.config, CPU)
    with torch.no_grad():
        in_training = model.losses(TASK.windows[0])
        model.model.eval()
        assert not torch.allclose(model.losses(TASK.windows[0]), in_training)


def test_the_figures_of_a_variant():
    """Wall, processor and floor seconds of two updates to a row and a line of the table."""
    seconds = {
        'ours exact fp32': [[1.0, 0.9, 0.5], [3.0, 2.9, 1.0]],
        'nanogpt exact fp32': [[2.0, 1.9], [3.0, 2.9]],
    }
    peaks = {'ours exact fp32': 100, 'nanogpt exact fp32': 200}
    row = pretrain.row_of('ours exact fp32', seconds, peaks, 64, TASK, {})
    assert row['times_nanogpt'] == 1.5
    assert row['times_floor'] == 2.5
    assert row['memory_of_nanogpt'] == 0.5
    assert row['tokens_per_s'] == 32
    line = pretrain.line_of(row)
    assert '1.50' in line and 'nan' in line  # there are no figures of transformers
    json.dumps(row)


def test_the_products_of_both_libraries_are_measured(capsys):
    shapes = [(64, 32, 96, 2), (32, 64, 96, 2)]
    rows = finetune.print_products(shapes)
    assert [(row['m'], row['k'], row['n'], row['count']) for row in rows] == shapes
    assert all(row['mkl'] > 0 and row['used'] == 'MKL' for row in rows)
    if torch.backends.mkldnn.is_available():
        assert all(row['onednn'] > 0 for row in rows)
    assert '64 x 32 x 96' in capsys.readouterr().out


@pytest.mark.parametrize(
    'text, family',
    [
        ('vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n', 26),
        ('vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n', 25),
        ('vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n', 0),
        ('processor\t: 0\nBogoMIPS\t: 50.00\n', 0),
        ('', 0),
    ],
)
def test_the_family_of_an_amd_processor(tmp_path, text, family):
    path = tmp_path / 'cpuinfo'
    path.write_text(text)
    assert functional.amd_family(str(path)) == family


def test_the_family_on_windows(monkeypatch):
    monkeypatch.setattr(
        functional.platform,
        'processor',
        lambda: 'AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD',
    )
    assert functional.amd_family('nowhere') == 26


def test_the_floor_counts_half_of_the_products_of_attention():
    floor = pretrain.PretrainFloor(TASK, torch.float32)
    config, (n_windows, length) = TASK.config, TASK.windows[0].shape
    linear = pretrain.flop_of(pretrain.product_shapes(TASK))
    whole = config.n_layer * 6 * 2 * n_windows * length**2 * config.n_embd
    assert floor.flop - linear == whole / 2
    assert math.isfinite(floor.seconds(lambda function: (function(), 1.0)[1:]))
    assert np.shape(TASK.windows) == (2, 2, 32)
