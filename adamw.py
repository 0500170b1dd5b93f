"""PyTorch's AdamW without PyTorch's compiler."""

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` whose methods do not import `torch._dynamo`, which takes seconds.

    PyTorch wraps these methods to exclude them from compilation. Here, nothing is compiled.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
