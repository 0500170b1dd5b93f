"""benchmarks/gpu.py, so that a GPU's ten minutes are not spent on a mistake in it."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from test_cuda_path import CPUReplicas

sys.path.insert(0, ROOT)
from benchmarks import gpu


def test_a_dry_run(tmp_path):
    """On the path of a GPU, at tiny sizes. torch.compile, which takes longest, is left out."""
    out = str(tmp_path / 'gpu')
    parts = [title for title in gpu.PARTS if title not in ('preparations', 'compile')]
    assert gpu.main(['--dry_run', '--out', out, '--parts', *parts]) == 0
    with open(f'{out}.json', encoding='utf-8') as f:
        result = json.load(f)
    assert list(result['parts']) == ['preparations', *parts]
    checks = [check for part in result['parts'].values() for check in part['checks']]
    assert len(checks) == 4 and all(is_true for _, is_true in checks)
    steps = result['parts']['fine-tuning']['rows']
    assert {row['variant'].split()[1] for row in steps} == {'tf32', 'fp16'}
    assert all(row['train ms'] > 0 and row['predict ms'] > 0 for row in steps)
    with open(f'{out}.md', encoding='utf-8') as f:
        report = f.read()
    assert '| tokens | variant | train ms |' in report
    assert '- ok: a run in fp16 skips steps' in report


def test_replicas(monkeypatch):
    """The part that a dry run leaves out, with replicas on the CPU."""
    monkeypatch.setenv('GPT1_PATH', 'cuda')
    monkeypatch.setattr(gpu.parallel, '_Devices', CPUReplicas)
    monkeypatch.setattr(gpu.Setup, 'device', torch.device('cpu'))
    setup = gpu.tiny('nowhere')
    setup.dry_run = False
    part = gpu.replicas(setup)
    assert [row['replicas'] for row in part.rows] == [1, 2, 1, 2]
    assert len(part.checks) == 2 and all(is_true for _, is_true in part.checks)


def fails(setup):
    raise ValueError('a line\nand another one')


def ends(setup):
    os._exit(7)


def hangs(setup):
    import time

    time.sleep(60)


@pytest.mark.parametrize(
    'function, limit, message',
    [
        (fails, 60, 'failed: ValueError: a line'),
        (ends, 60, 'failed: its process ended with 7'),
        (hangs, 1, 'failed: it was stopped after 1 s'),
    ],
)
def test_a_part_that_fails_is_reported(function, limit, message, capfd):
    assert gpu.run_part(function, gpu.tiny('nowhere'), limit) == message


def test_without_a_gpu_it_says_so():
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, 'benchmarks', 'gpu.py')],
        capture_output=True,
        text=True,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
    )
    assert done.returncode == 2
    assert done.stderr == (
        'gpu.py: error: there is no GPU here; --dry_run tries everything without\n'
    )
