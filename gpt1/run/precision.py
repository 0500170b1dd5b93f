"""The precision of the matrix products, and the loss scale that float16 needs.

    fp32  float32
    tf32  float32 whose products round the factors to 10 binary digits (CUDA)
    bf16  bfloat16 with autocast: the range of float32, 7 binary digits
    fp16  float16 with autocast and a loss scale: 10 binary digits, numbers up to 65,504 (CUDA)

Parameters, gradients of parameters, Adam and all sums over many terms are float32 in each of them.
"""

import math
import sys

import torch
from tqdm import tqdm

from utils import InputError

DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}
INITIAL_SCALE = 2.0**16  # GradScaler's
MIN_SCALE = 2.0**-14  # a gradient that overflows with a smaller one is not finite


def check_precision(precision: str, devices: list[torch.device]) -> None:
    """Raise InputError if one of the devices does not compute products in this precision."""
    option = f'--precision {precision}'
    for device in devices:
        if device.type == 'cpu':
            if precision in ('tf32', 'fp16'):
                raise InputError(f'{option} needs a CUDA device; on the CPU, expected fp32 or bf16')
        # GPUs before Ampere (2020), such as T4 and V100, have units for float16 only.
        elif precision in ('tf32', 'bf16') and torch.cuda.get_device_capability(device) < (8, 0):
            name = torch.cuda.get_device_name(device)
            raise InputError(f'{option}: {name} does not compute in it; expected fp32 or fp16')


def set_tf32(precision: str) -> None:
    """Set whether a GPU may round the factors of float32 products, for the whole process."""
    # Without warnings in all versions; the newer `fp32_precision` must not be mixed with them.
    torch.set_float32_matmul_precision('high' if precision == 'tf32' else 'highest')
    # Of the LSTM. On by default, and also in bf16: there the LSTM computes in float32.
    torch.backends.cudnn.allow_tf32 = precision != 'fp32'


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which a forward pass computes its products in the given precision."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


class Precision:
    """The precision of a run, and its loss scale.

    Small gradients of fp16 would become 0, so the loss is multiplied by a scale and the gradients
    are divided by it before they are clipped. If they overflow, on all ranks since their sum does,
    the scale is halved and the update is done again, with the same dropout masks. After 2,000
    updates without a skipped step, it doubles.
    """

    def __init__(self, name: str, device: torch.device, first: bool = True):
        """`device` is that of the parameters; `first`: this process reports skipped steps."""
        self.name, self.first = name, first
        self.n_skipped = 0
        # Disabled, it passes on the loss and the step of the optimizer, and its state is empty.
        self.scaler = torch.amp.GradScaler(device.type, INITIAL_SCALE, enabled=name == 'fp16')
        set_tf32(name)

    def step(self, opt: torch.optim.Optimizer, losses: torch.Tensor) -> torch.Tensor | None:
        """Return `opt.step()`, or None if the gradients overflow: the update is to be repeated.

        If the losses are not finite, or the scale is the smallest, no repeat helps: infinity.
        """
        norm = self.scaler.step(opt)  # divides by the scale; None: a gradient is not finite
        self.scaler.update()
        if norm is not None:
            return norm
        self.n_skipped += 1
        scale = self.scaler.get_scale()
        if scale < MIN_SCALE or not losses.isfinite().all():
            return losses.new_full((), math.inf)
        if self.first:
            tqdm.write(
                f'fp16: the gradients of update {opt.t + 1:,} overflow: the step is skipped, and '
                f'done again with a loss scale of {scale:g}',
                file=sys.stderr,
            )
        return None

    def log_values(self) -> dict:
        """Return what a line of the log tells about the loss scale."""
        values = {'n_skipped': self.n_skipped, 'loss_scale': self.scaler.get_scale()}
        return values if self.scaler.is_enabled() else {}

    def state_dict(self) -> dict:
        return {'n_skipped': self.n_skipped, 'scaler': self.scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.n_skipped = state['n_skipped']
        self.scaler.load_state_dict(state['scaler'])
