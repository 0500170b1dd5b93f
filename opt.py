"""OpenAI's Adam and its learning-rate schedules."""

import inspect
import math
from collections.abc import Iterable

import numpy as np
import torch

# A schedule gives the factor of the peak learning rate for x, the share of all updates, from 0 to
# 1. Each of them rises to 1 within `warmup`, which is a share too; 0 means no warm-up.


def _is_warmup(x: float, warmup: float) -> bool:
    return warmup > 0 and x <= float(np.float32(warmup))


def warmup_linear(x: float, warmup: float = 0.002) -> float:
    """Fall to 0 along 1 - x, which also acts in the warm-up."""
    return warmup_constant(x, warmup) * (1 - x)


def warmup_cosine(x: float, warmup: float = 0.002) -> float:
    """After the warm-up, follow half a cosine from x = 0. It jumps in between."""
    return x / warmup if _is_warmup(x, warmup) else 0.5 * (1 + math.cos(math.pi * x))


def warmup_constant(x: float, warmup: float = 0.002) -> float:
    """Stay at 1."""
    return x / warmup if _is_warmup(x, warmup) else 1.0


def warmup_cosine_to_zero(x: float, warmup: float = 0.002) -> float:
    """Fall from 1 to 0 along half a cosine (paper, section 4.1)."""
    if _is_warmup(x, warmup):
        return x / warmup
    return 0.5 * (1 + math.cos(math.pi * (x - warmup) / (1 - warmup)))


ALL = (warmup_linear, warmup_cosine, warmup_constant, warmup_cosine_to_zero)
SCHEDULES = {schedule.__name__: schedule for schedule in ALL}


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` whose methods do not import `torch._dynamo`, which takes seconds.

    PyTorch wraps these methods to exclude them from compilation. Here, nothing is compiled.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)


class OpenAIAdam(AdamW):
    """The original's `opt.adam`: clipping by the global norm, a schedule, Adam, decoupled decay.

    The original adds `e` to a root that is not corrected for bias, and the corrected step size
    scales the decay. `torch.optim.AdamW`, with its fused kernel, does the same in update t with

        lr = lr * schedule(x)    eps = e / sqrt(1 - b2^t)
        weight_decay = l2 * sqrt(1 - b2^t) / (1 - b1^t)

    Decay acts on parameters of more than one dimension, or on all with `vector_l2`.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        schedule: str,
        warmup: float,
        t_total: int,
        b1: float = 0.9,
        b2: float = 0.999,
        e: float = 1e-8,
        l2: float = 0.01,
        vector_l2: bool = False,
        max_grad_norm: float = 1,
        schedule_t: str = 'after',
    ):
        """
        schedule       one of `SCHEDULES`
        warmup         share of the updates in which the learning rate rises
        t_total        number of all updates
        max_grad_norm  the global norm to clip the gradients to; 0 or less: do not clip
        schedule_t     the schedule sees the number of updates 'before' this one, or 'after' it.
                       In the original nothing orders the two: README, "Exact"
        """
        matrices, vectors = [], []
        for p in params:
            (matrices if p.dim() > 1 else vectors).append(p)
        groups = [{'params': matrices, 'l2': l2}, {'params': vectors, 'l2': l2 if vector_l2 else 0}]
        super().__init__(groups, lr=lr, betas=(b1, b2), eps=e, fused=True)
        # AdamW would allocate the moments in the first update, scattered among what a step frees.
        for p in [*matrices, *vectors]:
            moments = {name: torch.zeros_like(p) for name in ('exp_avg', 'exp_avg_sq')}
            self.state[p] = {'step': torch.zeros((), device=p.device), **moments}
        # GradScaler then skips `step` itself, and does not use `grad_scale`.
        self._step_supports_amp_scaling = False
        self.lr, self.e = lr, e
        self.schedule, self.warmup, self.t_total = SCHEDULES[schedule], warmup, t_total
        self.schedule_t = schedule_t
        self.max_grad_norm = max_grad_norm
        self.t = 0  # updates done

    def learning_rate(self) -> float:
        """Return the learning rate of update `t`.

        x is computed in float32 as TensorFlow does, which multiplies by 1 / t_total: x of 3
        updates in 30 is 0.10000001, after the end of a warm-up of 0.1.
        """
        t = self.t - 1 if self.schedule_t == 'before' else self.t
        x = np.float32(t) * (np.float32(1) / np.float32(self.t_total))
        return self.lr * self.schedule(min(float(x), 1.0), self.warmup)

    def step(self) -> torch.Tensor:
        """Do one update with the present gradients. Return their global norm before clipping."""
        self.t += 1
        params = [p for group in self.param_groups for p in group['params']]
        grads = [p.grad for p in params if p.grad is not None]
        # Row by row: the sum of 31 million squares in one go is wrong in its fourth digit.
        norms = [torch.linalg.vector_norm(grad, dim=-1) for grad in grads]
        norm = torch.nn.utils.get_total_norm(norms)
        for group in self.param_groups:
            b1, b2 = group['betas']
            correction = math.sqrt(1 - b2**self.t)
            group['lr'] = self.learning_rate()
            group['eps'] = self.e / correction
            group['weight_decay'] = group['l2'] * correction / (1 - b1**self.t)
        if self.max_grad_norm > 0:
            # The fused kernel divides each gradient by `grad_scale` while it reads it.
            self.grad_scale = torch.clamp(norm.float() / self.max_grad_norm, min=1)
        super().step()
        return norm

    def state_dict(self) -> dict:
        """Return what training changes: the number of updates and the moments."""
        return {'t': self.t, 'state': super().state_dict()['state']}

    def load_state_dict(self, state: dict) -> None:
        """Copy what `state_dict` returned. AdamW would keep its tensors, mapped from a file."""
        self.t = state['t']
        params = [p for group in self.param_groups for p in group['params']]
        for i, p in enumerate(params):
            for name, value in self.state[p].items():
                value.copy_(state['state'][i][name])
