"""One global batch on whatever devices there are: the cut, the gradients' sum, and the figures on their way back.

A process drives one CPU, one CUDA device, or several with `nn.DataParallel`; `torchrun` starts several processes, which
`DistributedDataParallel` joins. The update is the same.
"""

import math
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DataParallel, DistributedDataParallel
from tqdm import tqdm

from utils import InputError, OutOfMemory


class Ranks:
    """The processes of this run: `rank` of `size`. Outside `torchrun`, rank 0 of 1."""

    def __init__(self, devices):
        """`devices`: those found on this machine (`utils.find_devices`). Of several ranks here, each takes one."""
        self.rank, self.size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        self.devices = devices
        if self.size > 1:
            use_cuda = devices[0].type == 'cuda'
            if use_cuda:
                local_rank = int(os.environ['LOCAL_RANK'])
                if local_rank >= torch.cuda.device_count():
                    raise InputError(
                        f'{local_rank + 1} processes or more on a machine with {torch.cuda.device_count()} CUDA devices; lower --nproc_per_node'
                    )
                self.devices = [torch.device('cuda', local_rank)]
                torch.cuda.set_device(local_rank)
            limit = timedelta(hours=2)  # rank 0 may load and encode for long
            store, _, _ = next(dist.rendezvous('env://', timeout=limit))
            # After a restart, torchrun's store still has the dead processes' addresses: each attempt gets keys of its own.
            store = dist.PrefixStore(
                f'attempt {os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}', store
            )
            dist.init_process_group(
                'nccl' if use_cuda else 'gloo',
                store=store,
                rank=self.rank,
                world_size=self.size,
                timeout=limit,
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        """Every `parallel_model` must be gone by then. The last to let go of the process group waits for its threads, which may wait for Python's lock:
        `DistributedDataParallel` holds it meanwhile (torch 2.11 to 2.13), and so the process would never end."""
        if (
            self.size > 1 and kind is None
        ):  # after an error the others may be anywhere: end, and let torchrun end them
            dist.destroy_process_group()
        if self.size > 1 and (
            kind is dist.DistBackendError or kind is RuntimeError and 'gloo' in str(error)
        ):
            raise InputError(
                'another process of this run has ended; its own message says why'
            ) from error

    @property
    def first(self):
        """Whether this is the process that reads, writes and prints."""
        return self.rank == 0

    def share(self, items):
        """This rank's part of a list: contiguous, as even as can be."""
        return items[
            len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size
        ]

    def from_first(self, make):
        """What `make()` returns on rank 0, on every rank; where it raises InputError, every rank does."""
        if self.size == 1:
            return make()
        made = [None, None]
        if self.first:
            try:
                made[0] = make()
            except InputError as error:
                made[1] = error
        dist.broadcast_object_list(made)
        if made[1] is not None:
            raise made[1]
        return made[0]

    def copy_from_first(self, tensors):
        """Give all ranks the numbers that the tensors have on rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def gather(self, value):
        """The values of all ranks, in their order, on every rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum_(self, tensor):
        """Sum a tensor over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, number):
        """The sum of a number over the ranks, a tensor [1] on this rank's device."""
        return self.sum_(torch.tensor([float(number)], device=self.devices[0]))


class DevicesModel(DataParallel):
    """`nn.DataParallel` over batches that are already cut: one for each device."""

    def scatter(self, batches, kwargs, device_ids):
        return [(batch.to(device),) for batch, device in zip(batches, device_ids)], [
            kwargs for _ in batches
        ]


class RanksModel(DistributedDataParallel):
    """`DistributedDataParallel` that knows whether the ranks may be exchanging the gradients of an update."""

    exchanging = False

    def forward(self, *inputs, **kwargs):
        self.exchanging = False
        outputs = super().forward(*inputs, **kwargs)
        self.exchanging = self.require_backward_grad_sync  # False within no_sync
        return outputs


def parallel_model(model, devices, ranks):
    """The model as training calls it, on batches for each of `devices`."""
    if ranks.size > 1:
        return RanksModel(
            model, gradient_as_bucket_view=True
        )  # also copies rank 0's parameters to all
    if len(devices) > 1:
        return DevicesModel(model, devices)
    return model


class StepSize:
    """How many stories or windows a device takes at a time: half as many each time that it runs out of memory."""

    def __init__(self, size, unit, option, same):
        """`unit`: 'stories' or 'windows'; `option`, which sets the size; `same`: what the size does not change."""
        self.size, self.unit, self.option, self.same = size, unit, option, same

    def fit(self, attempt, model):
        """What `attempt(size)` returns. As long as the device runs out of memory, `model`'s gradients are cleared and it is made again with half the size.

        That is this rank's own affair, the others only wait; but once they exchange the gradients it cannot be made again. Raises OutOfMemory.
        """
        model.exchanging = False  # a `RanksModel` will say
        while True:
            try:
                return attempt(self.size)
            except torch.OutOfMemoryError as error:
                if model.exchanging:
                    raise OutOfMemory(
                        f'out of memory with {self.size} {self.unit} at a time, when the processes had begun to exchange the gradients; '
                        f'go on with --resume and {self.option}'
                    ) from error
                if self.size == 1:
                    raise OutOfMemory(
                        f'out of memory with one of the {self.unit} at a time; --precision bf16 may help'
                    ) from error
                self.size = (self.size + 1) // 2
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            tqdm.write(
                f'out of memory: going on with steps of {self.size} {self.unit}; {self.same}',
                file=sys.stderr,
            )


class LossMeter:
    """The figures of each update on their way from the device: read `lag` updates later, so that the device is not waited for.

    The lag is a fixed number, not "whatever has arrived", so that all ranks act on the same update.
    """

    def __init__(self, lag, unit='stories'):
        self.lag, self.unit = lag, unit
        self.pending = []  # (update, its stories' or windows' names, figures on the host, event after which they are there)
        self.loss = math.nan  # the newest that was read, mean over the stories
        self.stop = False  # whether a rank was asked to stop

    def add(self, n_updates, ids, figures):
        """figures [ids + 2]: the loss of each of `ids`, the gradients' norm, and the signal received, or 0."""
        event = None
        if figures.is_cuda:
            figures = torch.empty_like(figures, device='cpu', pin_memory=True).copy_(
                figures, non_blocking=True
            )
            event = torch.cuda.Event()
            event.record()
        self.pending.append((n_updates, ids, figures, event))
        while len(self.pending) > self.lag:
            self._read()

    def drain(self):
        """Read all that is pending."""
        while self.pending:
            self._read()

    def _read(self):
        """Raises InputError if a loss or the norm is not finite, naming the update and the stories or windows."""
        n_updates, ids, figures, event = self.pending.pop(0)
        if event:
            event.synchronize()
        *losses, norm, stop = figures.tolist()
        self.loss, self.stop = sum(losses) / len(losses), self.stop or stop > 0
        if not math.isfinite(self.loss) or not math.isfinite(norm):
            wrong = [i for i, loss in zip(ids, losses) if not math.isfinite(loss)]
            what = f'the loss is {self.loss}' if wrong else f"the gradients' norm is {norm}"
            wrong = wrong or ids
            more = f' and {len(wrong) - 8} more' if len(wrong) > 8 else ''
            raise InputError(
                f'update {n_updates}: {what} ({self.unit} {", ".join(map(str, wrong[:8]))}{more}); '
                f'what was saved before is kept. A lower --lr may help'
            )
