"""OpenAI's Adam against its formula, one parameter and one update at a time."""

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

from opt import OpenAIAdam, schedule_factor

SHAPES = {'w': (3, 4), 'b': (4,)}
SETTINGS = {'lr': 0.01, 'schedule': 'warmup_linear', 'warmup': 0.3, 't_total': 12}
SETTINGS |= {'b1': 0.9, 'b2': 0.999, 'e': 1e-8, 'l2': 0.1, 'vector_l2': False, 'max_grad_norm': 1}


def slow_adam(parameters, gradients, settings):
    """Return the parameters after the updates of the original, in float64."""
    b1, b2, e, limit = (settings[name] for name in ('b1', 'b2', 'e', 'max_grad_norm'))
    parameters = dict(parameters)
    m, v = dict.fromkeys(parameters, 0), dict.fromkeys(parameters, 0)
    for t, grads in enumerate(gradients, 1):
        norm = global_norm(grads)
        scale = limit / norm if limit > 0 and norm > limit else 1
        seen = t - 1 if settings.get('schedule_t') == 'before' else t
        x = seen / settings['t_total']
        lr = settings['lr'] * schedule_factor(settings['schedule'], x, settings['warmup'])
        lr *= math.sqrt(1 - b2**t) / (1 - b1**t)
        for name, p in parameters.items():
            g = scale * grads[name]
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            is_decayed = settings['vector_l2'] or p.ndim > 1
            decay = settings['l2'] * p if is_decayed else 0
            parameters[name] = p - lr * (m[name] / (np.sqrt(v[name]) + e) + decay)
    return parameters


def global_norm(grads):
    return math.sqrt(sum((g**2).sum() for g in grads.values()))


def random_arrays(random):
    return {name: random.randn(*shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    'change',
    [
        {},
        {'schedule': 'warmup_cosine'},
        {'schedule': 'warmup_constant'},
        {'schedule': 'warmup_cosine_to_zero'},
        {'schedule_t': 'before'},
        {'vector_l2': True},
        {'max_grad_norm': 0},
        {'max_grad_norm': 100},
        {'e': 1e-2},
        {'warmup': 0},
        {'warmup': 1},
    ],
    ids=str,
)
def test_updates_are_those_of_the_formula(change):
    settings = {**SETTINGS, **change}
    random = np.random.RandomState(0)
    start = random_arrays(random)
    gradients = [random_arrays(random) for _ in range(12)]
    parameters = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in start.items()}
    opt = OpenAIAdam(parameters.values(), **settings)
    for grads in gradients:
        for name, p in parameters.items():
            p.grad = torch.tensor(grads[name])
        norm = opt.step()
        assert norm.item() == pytest.approx(global_norm(grads))
    for name, expected in slow_adam(start, gradients, settings).items():
        np.testing.assert_allclose(parameters[name].detach(), expected, rtol=0, atol=1e-7)


def test_the_norm_of_a_matrix_as_large_as_the_embedding():
    """It scales all gradients. A single float32 sum of so many squares is not exact enough."""
    p = torch.nn.Parameter(torch.zeros(40558, 300))
    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    expected = p.grad.double().norm().item()
    norm = OpenAIAdam([p], lr=0, schedule='warmup_constant', warmup=0.1, t_total=10).step()
    assert norm.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    'schedule, values',
    [
        ('warmup_linear', {0.05: 0.5 * 0.95, 0.1: 0.9}),
        ('warmup_cosine', {0.05: 0.5, 0.5: 0.5}),
        ('warmup_constant', {0.05: 0.5, 0.7: 1}),
        ('warmup_cosine_to_zero', {0.05: 0.5, 0.1: 1, 1: 0}),
    ],
)
def test_values_of_the_schedules(schedule, values):
    found = {x: schedule_factor(schedule, x, 0.1) for x in values}
    assert found == pytest.approx(values, abs=1e-12)
    for warmup, t_total in itertools.product((0, 0.002, 1 / 3, 1), (1, 3, 30, 1000)):
        rates = learning_rates(schedule, warmup, t_total, 'after')
        assert all(0 <= rate <= 1 + 1e-6 for rate in rates)  # also false for NaN


def learning_rates(schedule, warmup, t_total, schedule_t):
    """Return the learning rate of every update. The peak is 1."""
    p = torch.nn.Parameter(torch.zeros(1))
    opt = OpenAIAdam([p], 1, schedule, warmup, t_total, schedule_t=schedule_t)
    rates = []
    for opt.t in range(1, t_total + 1):
        rates.append(opt.learning_rate())
    return rates


def test_the_share_of_updates_is_a_float32():
    """3 * (1 / 30) is 0.10000001 in float32: TensorFlow is then past a warm-up of 0.1."""
    rates = learning_rates('warmup_cosine', 0.1, 30, 'after')
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 0.9755], abs=1e-4)
    assert learning_rates('warmup_cosine', 0.1, 30, 'before') == [0, *rates[:-1]]


def test_a_loaded_state_gives_the_same_updates():
    def run(interrupt):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(3, 4))
        unused = torch.nn.Parameter(torch.ones(2))  # without a gradient it stays
        opt = OpenAIAdam([p, unused], **SETTINGS)
        for t in range(10):
            if t == interrupt:
                state = opt.state_dict()
                opt = OpenAIAdam([p, unused], **SETTINGS)
                opt.load_state_dict(state)
            opt.zero_grad()
            p.grad = torch.randn(3, 4)
            opt.step()
        assert opt.t == 10 and (unused == 1).all()
        return p.detach()

    assert torch.equal(run(None), run(4))


def test_an_update_does_not_import_the_compiler():
    """PyTorch's own AdamW would: it takes seconds at the start of every run."""
    code = """
import sys, test_opt
test_opt.test_a_loaded_state_gives_the_same_updates()
sys.exit('torch._dynamo' in sys.modules)
"""
    subprocess.run([sys.executable, '-c', code], cwd=os.path.join(ROOT, 'tests'), check=True)
