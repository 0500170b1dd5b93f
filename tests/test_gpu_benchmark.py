"""benchmarks/gpu.py, so that a GPU's ten minutes are not spent on a mistake in it."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from test_cuda_path import CPUReplicas

sys.path.insert(0, ROOT)
from benchmarks import gpu, pretrain

SCRIPT = os.path.join(ROOT, 'benchmarks', 'gpu.py')


def test_a_dry_run_of_a_part_that_runs_train_py(tmp_path):
    """In a process of its own, on the path of a GPU, at a tiny size."""
    command = [sys.executable, SCRIPT, '--dry_run', '--out', 'gpu', '--parts', 'fp16']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / 'gpu.md').read_text()
    assert '## fp16: ok' in report and 'ok: a run in fp16 skips steps that overflow' in report


def test_gradients_are_compared(monkeypatch, capsys):
    """Also those of replicas, here on the CPU."""
    monkeypatch.setenv('GPT1_PATH', 'cuda')
    monkeypatch.setattr(gpu.parallel, '_Devices', CPUReplicas)
    monkeypatch.setattr(gpu, 'DEVICE', torch.device('cpu'))
    monkeypatch.setattr(gpu, 'SIZE', pretrain.SIZES['tiny'])
    assert gpu.values('') and gpu.replicas('')
    assert capsys.readouterr().out.count('ok:') == 6
    assert not gpu.compare('two vectors', torch.ones(2), torch.tensor([1, 1.1]), 1e-2)


@pytest.mark.parametrize('limit, message', [(60, 'NameError'), (1, 'NOT SO: it ends within 1 s')])
def test_a_part_that_fails_is_reported(limit, message, monkeypatch):
    monkeypatch.setitem(gpu.PARTS, 'values', (None, limit))
    wait = 'import time; time.sleep(30)' if limit == 1 else 'unknown'
    good, text = gpu.run_part('values', [sys.executable, '-c', wait])
    assert not good and message in text


def test_without_a_gpu_it_says_so():
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith('gpu.py: error: there is no GPU here')
