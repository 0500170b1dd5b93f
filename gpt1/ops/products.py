"""Matrix products on a CPU: which library computes them."""

import platform
import re

import torch

ZEN_5 = 26  # the family of AMD's processors in which AVX-512 has units of its full width


def amd_family(cpuinfo: str = '/proc/cpuinfo') -> int:
    """Return the family of this processor if it is made by AMD, else 0."""
    try:
        with open(cpuinfo, encoding='ascii', errors='replace') as f:
            text = f.read(4096)
    except OSError:  # not Linux
        text = platform.processor()
    family = re.search(r'family\s*:?\s*(\d+)', text, re.IGNORECASE)
    return int(family.group(1)) if family and 'AuthenticAMD' in text else 0


# PyTorch computes float32 products with Intel's MKL, which does not use AVX-512 on AMD's
# processors. oneDNN, which PyTorch uses for bfloat16, does. On Zen 5 it is twice as fast as MKL.
# On Zen 4, which has the same instructions but executes each in two halves, and on Zen 3, which has
# none, MKL is faster (benchmarks/finetune.py measures both). So the family decides, and not the
# instructions. A measurement would be right more often, but its noise would change results from
# run to run.
ONEDNN = (
    torch.backends.mkldnn.is_available()
    and amd_family() >= ZEN_5
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
)
ONEDNN_MIN_SIZE = 1 << 24  # multiply-adds; preparing a new shape costs oneDNN half a millisecond


def uses_onednn(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Return whether oneDNN computes the product x w: large float32 products on a CPU."""
    return (
        ONEDNN
        and x.dtype == torch.float32
        and x.device.type == 'cpu'
        and len(x) * w.numel() >= ONEDNN_MIN_SIZE
        and not torch.is_autocast_enabled('cpu')
    )


def onednn_product(
    a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return a b, plus `bias` if given, by oneDNN: a [n, k], b [k, m], bias [m], all float32."""
    if not (b.is_contiguous() or b.t().is_contiguous()):
        b = b.contiguous()  # oneDNN is a thousand times slower on a slice of a matrix
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, 'none', [], '')


def product(
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return a b, plus `bias` if given, by the faster library. Records no gradient.

    a [n, k], b [k, m], bias [m]; the result [n, m] is written to `out` if given.
    """
    if not uses_onednn(a, b):
        if bias is None:
            return torch.mm(a, b, out=out)
        return torch.addmm(bias, a, b, out=out)
    result = onednn_product(a, b, bias)
    return result if out is None else out.copy_(result)
