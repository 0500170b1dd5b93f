"""OpenAI's Adam and its learning-rate schedules."""

import inspect
import math
from collections.abc import Iterable

import numpy as np
import torch


def schedule_factor(schedule: str, x: float, warmup: float) -> float:
    """Return the factor of the peak learning rate at x, the share of all updates, from 0 to 1.

    It rises to 1 within `warmup`, which is a share too; 0 means no warm-up. Then it falls along
    1 - x (linear), which also acts in the warm-up; along half a cosine from x = 0, so that it jumps
    in between (cosine), or from the end of the warm-up (cosine_to_zero: paper, section 4.1).
    """
    is_warmup = warmup > 0 and x <= float(np.float32(warmup))
    rise = x / warmup if is_warmup else 1.0
    if schedule == 'warmup_linear':
        return rise * (1 - x)
    if is_warmup or schedule == 'warmup_constant':
        return rise
    start = {'warmup_cosine': 0, 'warmup_cosine_to_zero': warmup}[schedule]
    return 0.5 * (1 + math.cos(math.pi * (x - start) / (1 - start)))


class OpenAIAdam(torch.optim.AdamW):
    """The original's `opt.adam`: clipping by the global norm, a schedule, Adam, decoupled decay.

    The original adds `e` to a root that is not corrected for bias, and the corrected step size
    scales the decay. `torch.optim.AdamW`, with its fused kernel, does the same in update t with

        lr = lr * schedule_factor(x)    eps = e / sqrt(1 - b2^t)
        weight_decay = l2 * sqrt(1 - b2^t) / (1 - b1^t)

    Decay acts on parameters of more than one dimension, or on all with `vector_l2`.
    """

    # PyTorch wraps these methods to exclude them from compilation, and imports its compiler to do
    # so, which takes seconds. Here, nothing is compiled.
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    adam_step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))

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
        schedule       see `schedule_factor`; `warmup` is a share of all `t_total` updates
        max_grad_norm  the global norm to clip the gradients to; 0 or less: do not clip
        schedule_t     the schedule sees the number of updates 'before' this one, or 'after' it.
                       In the original nothing orders the two: README, "Exact"
        """
        params = list(params)
        matrices = [p for p in params if p.dim() > 1]
        vectors = [p for p in params if p.dim() <= 1]
        groups = [{'params': matrices, 'l2': l2}, {'params': vectors, 'l2': l2 if vector_l2 else 0}]
        super().__init__(groups, lr=lr, betas=(b1, b2), eps=e, fused=True)
        # AdamW would allocate the moments in the first update, scattered among what a step frees.
        for p in [*matrices, *vectors]:
            self.state[p] = {
                'step': torch.zeros((), device=p.device),
                'exp_avg': torch.zeros_like(p),
                'exp_avg_sq': torch.zeros_like(p),
            }
        # GradScaler then skips `step` itself, and does not use `grad_scale`.
        self._step_supports_amp_scaling = False
        self.lr, self.e = lr, e
        self.schedule, self.warmup, self.t_total = schedule, warmup, t_total
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
        return self.lr * schedule_factor(self.schedule, min(float(x), 1.0), self.warmup)

    def step(self) -> torch.Tensor:
        """Do one update with the present gradients. Return their global norm before clipping."""
        self.t += 1
        grads = [p.grad for p in self.state if p.grad is not None]
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
        self.adam_step()
        return norm

    def state_dict(self) -> dict:
        """Return what training changes: the number of updates and the moments."""
        return {'t': self.t, 'state': dict(enumerate(self.state.values()))}

    def load_state_dict(self, state: dict) -> None:
        """Copy what `state_dict` returned. AdamW would keep its tensors, mapped from a file."""
        self.t = state['t']
        for i, values in enumerate(self.state.values()):
            for name, value in values.items():
                value.copy_(state['state'][i][name])
