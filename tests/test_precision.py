"""precision.py: which device can do what, and the loss scale of float16 with its skipped steps.

float16 is refused on the CPU, where it is slow. These tests allow it: PyTorch has the same
operations there, and its GradScaler too.
"""

import json
import math
import re

import pytest
import torch

import pretrain
import train
from gpt1.run import parallel, precision
from gpt1.run.precision import MIN_SCALE, Precision, check_precision
from opt import OpenAIAdam
from utils import InputError

CPU = torch.device('cpu')
TOO_LARGE = 2.0**30  # a loss scale with which every gradient overflows
ADAM = {'lr': 0.1, 'schedule': 'warmup_linear', 'warmup': 0.3, 't_total': 10, 'max_grad_norm': 0.5}
RUN = ('--precision', 'fp16', '--n_iter', 1)


def test_the_cpu_refuses_what_it_cannot_compute(command, capsys):
    out = command.folder / 'out'
    pre_train = ['--text', __file__, '--out', str(out), '--device', 'cpu']
    for script, argv, name in ((train, command.argv(), 'tf32'), (pretrain, pre_train, 'fp16')):
        assert script.main([*argv, '--precision', name]) == 2
        assert capsys.readouterr().err.endswith(
            f'error: --precision {name} needs a CUDA device; on the CPU, expected fp32 or bf16\n'
        )
    assert not out.exists()


@pytest.mark.parametrize('capability, refused', [((7, 5), {'tf32', 'bf16'}), ((8, 0), set())])
def test_a_gpu_before_ampere_knows_float16_only(monkeypatch, capability, refused):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Tesla T4')
    devices = [torch.device('cuda', i) for i in range(2)]
    for name in ('fp32', 'tf32', 'bf16', 'fp16'):
        if name in refused:
            with pytest.raises(InputError, match=f'{name}: Tesla T4 .* expected fp32 or fp16'):
                check_precision(name, devices)
        else:
            check_precision(name, devices)


@pytest.mark.filterwarnings('error')
def test_tf32_is_a_setting_of_pytorch():
    assert torch.get_float32_matmul_precision() == 'highest'
    try:
        Precision('tf32', CPU)
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision('highest')
    for name in ('fp32', 'bf16', 'fp16'):
        Precision(name, CPU)
        assert not torch.backends.cuda.matmul.allow_tf32
        # cuDNN's LSTM in bf16 computes in float32, and may round as bf16 does.
        assert torch.backends.cudnn.allow_tf32 == (name != 'fp32')
    torch.backends.cudnn.allow_tf32 = True
    parallel.find_devices('cpu', 1)  # of predict.py, which has no `Precision`
    assert not torch.backends.cudnn.allow_tf32


def parameter_and_adam():
    p = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    return p, OpenAIAdam([p], **ADAM)


def loss_of(p, slope=1.0):
    return (p**2).sum() * slope


def test_gradients_are_divided_by_the_scale_before_they_are_clipped():
    """The norm is that of the true gradients. A power of two rounds nothing."""
    results = []
    for name in ('fp32', 'fp16'):
        p, opt = parameter_and_adam()
        scaled = Precision(name, CPU)
        for _ in range(3):
            loss = loss_of(p)
            scaled.scaler.scale(loss).backward()
            norm = scaled.step(opt, loss.detach())
            opt.zero_grad()
        results.append([*p.flatten().tolist(), norm.item()])
    assert results[0] == results[1]


def test_no_repeat_where_it_would_not_help():
    """The norm is then infinite, which ends the run with one line about the update."""
    for losses, scale in ((torch.tensor([1.0, math.nan]), 2.0**16), (torch.ones(2), MIN_SCALE)):
        p, opt = parameter_and_adam()
        scaled = Precision('fp16', CPU)
        state = scaled.state_dict()
        scaled.load_state_dict({**state, 'scaler': {**state['scaler'], 'scale': scale}})
        scaled.scaler.scale(loss_of(p, math.inf)).backward()
        assert scaled.step(opt, losses) == math.inf
        assert opt.t == 0


def test_the_scale_grows_after_many_steps_also_across_a_checkpoint():
    p, opt = parameter_and_adam()
    scaled = Precision('fp16', CPU)
    scaled.scaler.set_growth_interval(4)
    for i in range(4):
        if i == 2:
            state = json.loads(json.dumps(scaled.state_dict()))
            scaled = Precision('fp16', CPU)
            scaled.load_state_dict(state)
            assert scaled.state_dict() == state
        opt.zero_grad()
        scaled.scaler.scale(loss_of(p)).backward()
        scaled.step(opt, torch.ones(1))
    assert scaled.log_values()['loss_scale'] == 2.0**17


@pytest.fixture
def fp16(monkeypatch):
    """Allows float16 on the CPU; call it to begin with another loss scale."""
    monkeypatch.setenv('GPT1_PATH', 'cuda')
    monkeypatch.setattr(parallel, 'check_precision', lambda name, devices: None)
    return lambda scale: monkeypatch.setattr(precision, 'INITIAL_SCALE', scale)


def skipped(text):
    return re.findall(r'gradients of update (\d+) overflow: .* loss scale of (\S+)', text)


def test_skipped_steps_are_done_again_and_do_not_count(command, other_command, fp16, capsys):
    """Dropout is on: a repeated update has the same masks.

    The end is, to the bit, that of a run that begins with the scale of the first update.
    """
    fp16(TOO_LARGE)
    assert train.main(command.argv(*RUN)) == 0
    reported = skipped(capsys.readouterr().err)
    line = command.log()[1]
    assert len(reported) == line['n_skipped'] > 0
    assert float(reported[-1][1]) == line['loss_scale'] < TOO_LARGE
    assert line['n_updates'] == 10
    first = [float(scale) for update, scale in reported if update == '1']
    fp16(first[-1])
    assert train.main(other_command.argv(*RUN)) == 0
    other = other_command.log()[1]
    assert other['n_skipped'] == line['n_skipped'] - len(first)
    assert other['va_cost'] == line['va_cost']
    best = command.read('save', 'rocstories', 'best_params')
    assert best == other_command.read('save', 'rocstories', 'best_params')
