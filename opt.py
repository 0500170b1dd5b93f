"""OpenAI's Adam and its learning-rate schedules."""

import math

import torch


def warmup_linear(x, warmup=0.002):
    """x = share of all updates done, in (0, 1]. Up to 1 within `warmup`; falls to 0 along 1 - x, also while it warms up."""
    return (x / warmup if x <= warmup else 1) * (1 - x)


def warmup_cosine(x, warmup=0.002):
    return x / warmup if x <= warmup else 0.5 * (1 + math.cos(math.pi * x))


def warmup_constant(x, warmup=0.002):
    return x / warmup if x <= warmup else 1.0


def warmup_cosine_to_zero(x, warmup=0.002):
    """The paper's for pre-training (section 4.1): up to 1 within `warmup`, then down along half a cosine; `warmup_cosine` jumps between the two."""
    return (
        x / warmup if x <= warmup else 0.5 * (1 + math.cos(math.pi * (x - warmup) / (1 - warmup)))
    )


SCHEDULES = {
    'warmup_linear': warmup_linear,
    'warmup_cosine': warmup_cosine,
    'warmup_constant': warmup_constant,
    'warmup_cosine_to_zero': warmup_cosine_to_zero,
}


class OpenAIAdam(torch.optim.AdamW):
    """The original's `opt.adam`: clipping by the global norm, a schedule, bias-corrected Adam with decoupled decay.

    The original corrects only the step size for bias, so its `e` is added to an uncorrected square root, and decay is scaled by the corrected
    step size. Written as `torch.optim.AdamW` (whose fused kernel then does the work), update t has
    lr = lr * schedule(t / t_total), eps = e / sqrt(1 - b2^t), weight_decay = l2 * sqrt(1 - b2^t) / (1 - b1^t).

    Decay applies to parameters of more than one dimension (every `w` and the embedding), or to all with `vector_l2`.
    """

    def __init__(
        self,
        params,
        lr,
        schedule,
        warmup,
        t_total,
        b1=0.9,
        b2=0.999,
        e=1e-8,
        l2=0.01,
        vector_l2=False,
        max_grad_norm=1,
    ):
        params = list(params)
        decayed = [p for p in params if vector_l2 or p.dim() > 1]
        others = [p for p in params if not (vector_l2 or p.dim() > 1)]
        super().__init__(
            [{'params': decayed, 'l2': l2}, {'params': others, 'l2': 0}],
            lr=lr,
            betas=(b1, b2),
            eps=e,
            fused=True,
        )
        self.lr, self.e, self.schedule, self.warmup, self.t_total = (
            lr,
            e,
            SCHEDULES[schedule],
            warmup,
            t_total,
        )
        self.max_grad_norm = max_grad_norm
        self.t = 0  # updates done

    def step(self):
        """One update from the gradients there are. Returns their global norm before clipping, a scalar tensor."""
        self.t += 1
        grads = [
            p.grad for group in self.param_groups for p in group['params'] if p.grad is not None
        ]
        # Row by row: summed in one go, the squares of 31 million entries lose the norm's fourth digit on a CPU.
        norm = torch.nn.utils.get_total_norm(
            [torch.linalg.vector_norm(grad, dim=-1) for grad in grads]
        )
        for group in self.param_groups:
            b1, b2 = group['betas']
            correction = math.sqrt(1 - b2**self.t)
            group['lr'] = self.lr * self.schedule(self.t / self.t_total, self.warmup)
            group['eps'] = self.e / correction
            group['weight_decay'] = group['l2'] * correction / (1 - b1**self.t)
        if self.max_grad_norm > 0:
            # The fused kernel divides every gradient by `grad_scale` as it reads it: clipping costs no pass of its own.
            self.grad_scale = torch.clamp(norm.float() / self.max_grad_norm, min=1)
        super().step()
        return norm

    def state_dict(self):
        """What a run changes: the updates done and the moments."""
        return {'t': self.t, 'state': super().state_dict()['state']}

    def load_state_dict(self, state):
        self.t = state['t']
        super().load_state_dict({**super().state_dict(), 'state': state['state']})

    def form(self):
        """A state_dict after some updates, as to its keys and shapes."""
        params = [p for group in self.param_groups for p in group['params']]
        return {
            't': 0,
            'state': {
                i: {'step': torch.zeros(()), 'exp_avg': p, 'exp_avg_sq': p}
                for i, p in enumerate(params)
            },
        }
