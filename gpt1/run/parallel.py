"""Devices and processes: one update on whatever hardware there is.

A process drives one CPU, one CUDA device, or several with `nn.DataParallel`. `torchrun` starts
several processes, which `DistributedDataParallel` joins. The update is the same.
"""

import contextlib
import ctypes
import functools
import gc
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from tqdm import tqdm

from gpt1.ops.batches import Batch, collate
from gpt1.ops.functional import PATHS
from gpt1.run.encoding import EncodedDataset
from gpt1.run.precision import autocast, check_precision, set_tf32
from gpt1.text.workers import available_cores
from utils import InputError, OutOfMemory, Stopped, is_out_of_memory

PREDICT_BATCH = 64  # examples; no result depends on it
WORK_OF_A_THREAD = 1 << 23  # multiply-adds of a product that are worth a thread of their own
WORK_OF_A_STEP = 1 << 26  # multiply-adds of a product; with fewer, PyTorch's own work weighs more
TIMEOUT = timedelta(hours=2)  # the first process may encode and load for long


def find_devices(device: str, n_gpu: int, precision: str = 'fp32') -> list[torch.device]:
    """Return the devices to run on: the CPU, one named CUDA device, or up to `n_gpu` of them.

    device     'auto' (CUDA if there is a device), 'cpu', 'cuda', or one device such as 'cuda:1'
    precision  what they must be able to compute in
    """
    chosen = os.environ.get('GPT1_PATH')
    if chosen and chosen not in PATHS:
        raise InputError(f'GPT1_PATH is {chosen!r}, expected one of {", ".join(PATHS)}')
    devices = _named_devices(device, n_gpu)
    if devices[0].type == 'cuda' and chosen == 'cpu':
        raise InputError('GPT1_PATH=cpu computes on the CPU only: add --device cpu, or unset it')
    check_precision(precision, devices)
    set_tf32(precision)
    return devices


def _named_devices(device, n_gpu):
    n_found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == 'auto':
        device = 'cuda' if n_found else 'cpu'
    if device == 'cpu':
        return [torch.device('cpu')]
    if not re.fullmatch(r'cuda(:\d+)?', device, re.ASCII):
        raise InputError(f'--device {device}: expected auto, cpu, cuda, or for instance cuda:1')
    first, end = (0, n_gpu) if device == 'cuda' else (int(device[5:]), int(device[5:]) + 1)
    if first >= n_found:
        raise InputError(f'--device {device}: the number of CUDA devices here is {n_found}')
    return [torch.device('cuda', i) for i in range(first, min(end, n_found))]


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory, which the kernel would otherwise clear in each step."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Windows: a TypeError
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped on its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free bytes at the end of the heap


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to a device, asynchronously if that is a GPU."""
    if device.type == 'cuda':
        batch = batch.pin_memory()
    return batch.to(device)


def _product_work(n_tokens, n_embd):  # of the largest product of a layer, [n, d] x [d, 4 d]
    return 4 * n_tokens * n_embd**2


class Ranks:
    """The processes of a run: this is `rank` of `size`. Without torchrun, rank 0 of 1.

    Used as a context: entering it joins the processes, leaving it ends the process group.
    """

    def __init__(self, devices: list[torch.device]):
        """`devices` are those of this machine. If it has several ranks, each takes one."""
        self.rank, self.size, self.devices = 0, 1, devices
        self.threads = ''  # of the CPU: how many, and why
        self.modules = []  # each `ParallelModule`
        self._store = None
        # Whether torchrun holds the store of its processes, from one attempt to the next
        self._has_agent = os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
        size = os.environ.get('WORLD_SIZE') or '1'
        if size == '1':  # other launchers may have left a RANK
            return
        try:
            self.rank, self.size = int(os.environ['RANK']), int(size)
            local_rank = int(os.environ['LOCAL_RANK'])
            address = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
        except (KeyError, ValueError) as error:
            raise InputError(
                f'WORLD_SIZE is {size}, as for one of several processes, but not all variables '
                f'that torchrun sets are there ({error}): start with torchrun, or unset WORLD_SIZE'
            ) from error
        if devices[0].type == 'cuda':
            n_found = torch.cuda.device_count()
            if local_rank >= n_found:
                raise InputError(
                    f'more processes than the {n_found} CUDA devices here: lower --nproc_per_node'
                )
            self.devices = [torch.device('cuda', local_rank)]
            torch.cuda.set_device(local_rank)
        self._store = dist.TCPStore(
            *address,
            is_master=self.first and not self._has_agent,
            timeout=TIMEOUT,
            wait_for_workers=False,
            use_libuv=os.environ.get('USE_LIBUV', '1') == '1',  # as PyTorch reads it
        )

    @property
    def first(self) -> bool:
        """Whether this is the process that reads, writes and prints."""
        return self.rank == 0

    def __enter__(self) -> 'Ranks':
        if self.size == 1:
            return self
        backend = 'nccl' if self.devices[0].type == 'cuda' else 'gloo'
        try:
            store = dist.PrefixStore(self._attempt(), self._store)
            if self.first:
                store.set('backend', backend)
            elif store.get('backend').decode() != backend:
                raise InputError(
                    f'this process has the device {self.devices[0]}, the first one another kind: '
                    'all need the same --device'
                )
            dist.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.size, timeout=TIMEOUT
            )
        except dist.DistError as error:
            raise self._lost() from error
        return self

    def _attempt(self):
        """Return a name that all processes of this attempt agree on, and no earlier attempt had.

        After a restart, torchrun's store still holds what the dead processes wrote, and each
        machine's torchrun counts the restarts by itself. So every rank asks under a new name, and
        the first one answers whatever is asked until all have its answer.
        """
        store, mine = self._store, uuid.uuid4().hex
        if not self.first:
            store.set(f'question {self.rank}', mine)
            attempt = store.get(f'answer {mine}').decode()
            store.set(f'{attempt} {self.rank}', '')
            return attempt
        end = time.monotonic() + TIMEOUT.total_seconds()
        for rank in range(1, self.size):
            while not store.check([f'{mine} {rank}']):
                if store.check([f'question {rank}']):
                    question = store.get(f'question {rank}').decode()
                    store.set(f'answer {question}', mine)
                if time.monotonic() > end:
                    raise InputError(f'process {rank} of {self.size} did not start')
                time.sleep(0.05)
        return mine

    def begin(self) -> None:
        """Note that this run has begun in its folder: an earlier one there is set aside."""
        if self._store:
            self._store.set('begun', '')

    @property
    def restarted(self) -> bool:
        """Whether torchrun starts this run again, which is to be resumed. The first rank decides.

        An attempt that ended before `begin` does not count: it may have refused to touch the
        checkpoint of an earlier run.
        """
        if self._store and self._has_agent:
            return self._store.check(['begun'])
        return os.environ.get('TORCHELASTIC_RESTART_COUNT', '') not in ('', '0')

    def _lost(self):
        error = InputError('another process of this run ended; its message says why')
        error.is_told = not self.first
        return error

    def __exit__(self, kind, error, _):
        if self.size == 1:
            return
        if isinstance(error, InputError | Stopped) and not isinstance(error, OutOfMemory):
            error.is_told = not self.first  # it is that of all ranks
        if kind is None:
            try:
                dist.barrier()  # no rank leaves while another one still talks to it
            except RuntimeError as error:
                raise self._lost() from error
            # A DistributedDataParallel holds the process group and, while it is destroyed,
            # Python's lock, for which the group's threads may wait (torch 2.11 to 2.13): so all
            # of them are destroyed before the group.
            for module in self.modules:
                module.wrapper = None
            gc.collect()
            dist.destroy_process_group()
        elif kind is dist.DistBackendError or (kind is RuntimeError and 'gloo' in str(error)):
            # After an error the other ranks may be anywhere: this one ends, and torchrun ends them.
            raise self._lost() from error

    def join_steps(self, n_batch: int, n_update: int, n_tokens: int, n_embd: int) -> int:
        """Return how many items of `n_tokens` tokens a step takes here, of `n_update` in an update.

        They are `n_batch`, as the user asked. But on a CPU, small steps are joined.
        """
        if self.devices[0].type == 'cpu':
            while n_batch < n_update and _product_work(n_batch * n_tokens, n_embd) < WORK_OF_A_STEP:
                n_batch *= 2
        return min(n_batch, n_update)

    def use_threads(self, n_tokens: int, n_embd: int) -> None:
        """Use as many threads of the CPU as a step of `n_tokens` tokens keeps busy.

        If a thread has too little to do, waiting for the others takes longer than the work.
        """
        n_most = min(torch.get_num_threads(), available_cores())
        n_useful = max(1, _product_work(n_tokens, n_embd) // WORK_OF_A_THREAD)
        if 'OMP_NUM_THREADS' in os.environ:
            n, why = torch.get_num_threads(), 'OMP_NUM_THREADS'
        elif n_useful < n_most:
            n, why = n_useful, f'of {n_most}: the steps are small'
        else:
            n, why = n_most, 'all cores'
        torch.set_num_threads(n)
        self.threads = f'{n} thread{"s" if n > 1 else ""} ({why})'

    def describe(self, precision: str) -> str:
        """Describe the hardware in use in one line."""
        text = f'CPU, {self.threads}'
        if self.devices[0].type == 'cuda':
            name = torch.cuda.get_device_name(self.devices[0])
            text = f'{len(self.devices) * self.size} x {name}'
        if self.size > 1:
            text += f', {self.size} processes'
        return f'{text}; {precision}'

    def from_first(self, make: Callable):
        """Call `make` on rank 0 and return its result, or raise its InputError, on every rank."""
        if self.size == 1:
            return make()
        result = [None]
        if self.first:
            try:
                result = [make()]
            except InputError as error:
                result = [error]
        dist.broadcast_object_list(result)
        if isinstance(result[0], InputError):
            raise result[0]
        return result[0]

    def copy_from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Copy the values that the tensors have on rank 0 to all ranks."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def gather(self, value) -> list:
        """Return the values of all ranks, in their order, on every rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, number: float) -> torch.Tensor:
        """Return the sum of a number over the ranks: a tensor [1] on this rank's device."""
        # `torch.tensor` would copy from the host, which waits for all that the device has to do.
        return self.sum_(torch.full((1,), float(number), device=self.devices[0]))


class _InPrecision(nn.Module):
    """Calls a module in autocast. A thread of `nn.DataParallel` does not inherit its type."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, batch: Batch, precision: str) -> torch.Tensor:
        with autocast(batch.ids.device, precision):
            return self.module(batch)


class _Devices(DataParallel):
    """`nn.DataParallel` over batches that are already cut: one for each device."""

    def scatter(self, batches, kwargs, device_ids):
        moved = [(to_device(batch, device),) for batch, device in zip(batches, device_ids)]
        return moved, [kwargs for _ in moved]


class ParallelModule:
    """A module that is called with batches, one for each device of this process."""

    def __init__(self, module: nn.Module, ranks: Ranks):
        self.module, self.devices = module, ranks.devices
        self.is_distributed = ranks.size > 1
        self.exchanging = False  # whether the ranks may be exchanging gradients
        self.wrapper = _InPrecision(module)  # nothing else holds it, so that `Ranks` can destroy it
        if self.is_distributed:
            # It also copies the parameters of rank 0 to all ranks.
            self.wrapper = DistributedDataParallel(self.wrapper, gradient_as_bucket_view=True)
        elif len(self.devices) > 1:
            self.wrapper = _Devices(self.wrapper, self.devices)
        ranks.modules.append(self)

    def __call__(self, batches: Sequence[Batch], precision: str, last: bool) -> torch.Tensor:
        """Return the losses of all batches, [items].

        last  whether the backward pass takes the mean of the gradients over the ranks
        """
        if self.is_distributed:
            self.wrapper.require_backward_grad_sync = last
        if len(self.devices) == 1:
            batches = [to_device(batch, self.devices[0]) for batch in batches]
        losses = self.wrapper(*batches, precision=precision)
        self.exchanging = self.is_distributed and last
        return losses

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of an update: the next one begins."""
        self.module.zero_grad(set_to_none)
        self.exchanging = False


def step_cuts(n: int, size: int, own_size: int, rank: int, n_ranks: int) -> list[slice]:
    """Return the steps of a rank, of at most `own_size` of n items.

    size  of a step, the same on all ranks: the shares of the ranks follow from it, and are whole
          steps if there is one for every rank. A rank whose memory is short cuts its own share
          finer.
    """
    n_steps = math.ceil(n / size)
    if n_steps >= n_ranks:
        start, stop = (min(n_steps * r // n_ranks * size, n) for r in (rank, rank + 1))
    else:
        start, stop = (n * r // n_ranks for r in (rank, rank + 1))
    return [slice(i, min(i + own_size, stop)) for i in range(start, stop, own_size)]


@dataclass
class StepSize:
    """How many examples or windows a device takes at a time. Halved when it is out of memory."""

    size: int = PREDICT_BATCH
    unit: str = 'examples'
    option: str = ''  # what a user can do instead, for a message
    same: str = 'the results are the same'  # although the size changes, for a message

    def fit(self, attempt: Callable, module: ParallelModule | nn.Module):
        """Return `attempt(size)`. When it runs out of memory, repeat it with half the size.

        The gradients of `module` are cleared in between. Other ranks wait meanwhile, so it can
        not be repeated once the ranks exchange gradients.
        """
        while True:
            try:
                return attempt(self.size)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if getattr(module, 'exchanging', False):
                    raise OutOfMemory(
                        f'out of memory with {self.size} {self.unit} at a time, while the '
                        'processes were exchanging gradients; continue with --resume and '
                        f'{self.option}'
                    ) from error
                if self.size == 1:
                    raise OutOfMemory(
                        f'out of memory with 1 of the {self.unit} at a time; nothing smaller is '
                        'possible'
                    ) from error
            self.size = (self.size + 1) // 2
            # After the except clause, so that the error no longer keeps the tensors alive.
            module.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            tqdm.write(
                f'out of memory: continuing with steps of {self.size} {self.unit}; {self.same}',
                file=sys.stderr,
            )


@torch.inference_mode()
def predict(
    model: nn.Module,
    data: EncodedDataset,
    ranks: Ranks | None = None,
    precision: str = 'fp32',
    steps: StepSize | None = None,
) -> torch.Tensor:
    """Return the task's logits of examples, [examples, n], float32 on the CPU, on every rank.

    Examples of similar length form a batch, in shared rows if the model can read those.
    """
    model.eval()
    steps = steps or StepSize()
    rank, size = (ranks.rank, ranks.size) if ranks else (0, 1)
    device, config = next(model.parameters()).device, model.config
    order = np.argsort(data.lengths.sum(1), kind='stable')
    batches = [order[i : i + PREDICT_BATCH] for i in range(0, len(order), PREDICT_BATCH)]
    logits = torch.full((len(data), data.n_scores), -torch.inf)

    def fill(places, step_size):
        for start in range(0, len(places), step_size):
            step = places[start : start + step_size]
            trees = [data.tree(i) for i in step]
            batch = collate(trees, config.first_position, not config.separate_rows)
            with autocast(device, precision):
                scores, _ = model(to_device(batch, device), lm=False)
            logits[step, : scores.shape[1]] = scores.float().cpu()

    for places in batches[rank::size]:
        steps.fit(functools.partial(fill, places), model)
    if size > 1:
        mine = np.concatenate([order[:0], *batches[rank::size]])
        for places, scores in ranks.gather((mine, logits[mine])):
            logits[places] = scores
    return logits
