"""OpenAI's Adam against its formula, a parameter and an update at a time."""

import math

import numpy as np
import pytest
import torch

from opt import SCHEDULES, OpenAIAdam

SHAPES = {'w': (3, 4), 'b': (4,)}


def slow_adam(
    parameters, gradients, lr, schedule, warmup, t_total, b1, b2, e, l2, vector_l2, max_grad_norm
):
    """Update t of the original, in float64, for a list of gradients of each update."""
    m = {k: np.zeros_like(p) for k, p in parameters.items()}
    v = {k: np.zeros_like(p) for k, p in parameters.items()}
    for t, g in enumerate(gradients, 1):
        norm = math.sqrt(sum((x**2).sum() for x in g.values()))
        scale = max_grad_norm / norm if max_grad_norm > 0 and norm > max_grad_norm else 1
        lr_t = lr * SCHEDULES[schedule](t / t_total, warmup) * math.sqrt(1 - b2**t) / (1 - b1**t)
        for k, p in parameters.items():
            m[k] = b1 * m[k] + (1 - b1) * scale * g[k]
            v[k] = b2 * v[k] + (1 - b2) * (scale * g[k]) ** 2
            decay = l2 * p if vector_l2 or p.ndim > 1 else 0
            parameters[k] = p - lr_t * (m[k] / (np.sqrt(v[k]) + e) + decay)
    return parameters


@pytest.mark.parametrize(
    'change',
    [
        {},
        {'schedule': 'warmup_cosine'},
        {'schedule': 'warmup_constant'},
        {'vector_l2': True},
        {'max_grad_norm': -1},
        {'max_grad_norm': 100},
        {'b2': 0.9},
        {'e': 1e-2},
        {'l2': 0},
        {'warmup': 0},
        {'warmup': 1},
    ],
)
def test_updates_are_those_of_the_formula(change):
    settings = {
        **dict(
            lr=0.01,
            schedule='warmup_linear',
            warmup=0.3,
            t_total=12,
            b1=0.9,
            b2=0.999,
            e=1e-8,
            l2=0.1,
            vector_l2=False,
            max_grad_norm=1,
        ),
        **change,
    }
    random = np.random.RandomState(0)
    start = {k: random.randn(*shape) for k, shape in SHAPES.items()}
    gradients = [{k: random.randn(*shape) for k, shape in SHAPES.items()} for _ in range(12)]
    expected = slow_adam(dict(start), gradients, **settings)

    parameters = {k: torch.nn.Parameter(torch.tensor(p)) for k, p in start.items()}
    opt = OpenAIAdam(parameters.values(), **settings)
    for g in gradients:
        for k, p in parameters.items():
            p.grad = torch.tensor(g[k])
        norm = opt.step()
        assert norm.item() == pytest.approx(math.sqrt(sum((x**2).sum() for x in g.values())))
    for k, p in parameters.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[k], rtol=0, atol=1e-7)


def test_state_goes_on():
    """A saved and loaded optimizer makes the same updates."""

    def run(interrupt):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(3, 4))
        make = lambda: OpenAIAdam([p], lr=0.1, schedule='warmup_linear', warmup=0.1, t_total=10)
        opt = make()
        for t in range(10):
            if t == interrupt:
                state = opt.state_dict()
                opt = make()
                opt.load_state_dict(state)
            p.grad = torch.randn(3, 4)
            opt.step()
        return p.detach()

    assert torch.equal(run(None), run(4))


@pytest.mark.parametrize(
    'schedule, x, warmup, value',
    [
        ('warmup_linear', 0.05, 0.1, 0.5 * 0.95),
        ('warmup_linear', 0.1, 0.1, 0.9),
        ('warmup_linear', 1, 0.1, 0),
        ('warmup_cosine', 0.05, 0.1, 0.5),
        ('warmup_cosine', 0.5, 0.1, 0.5),
        ('warmup_constant', 0.05, 0.1, 0.5),
        ('warmup_constant', 0.7, 0.1, 1),
    ],
)
def test_schedules(schedule, x, warmup, value):
    assert SCHEDULES[schedule](x, warmup) == pytest.approx(value)


def test_the_norm_of_a_matrix_as_large_as_the_embedding():
    """Clipping scales all gradients by it: to fp32 precision, which a single fp32 sum of so many squares has not."""
    p = torch.nn.Parameter(torch.zeros(40558, 300))
    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    expected = p.grad.double().norm().item()
    norm = OpenAIAdam([p], lr=0, schedule='warmup_constant', warmup=0.1, t_total=10).step()
    assert norm.item() == pytest.approx(expected, rel=1e-6)
