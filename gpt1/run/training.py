"""The training loop, for fine-tuning and pre-training.

`Trainer.update` is an update: forward and backward of each step, and the step of the optimizer.
On one device in float32, and without what makes it fit the memory, it is

    for cut in steps:
        losses = module(batch_of(items[cut]))           # loss.JointLoss or model_pytorch.LMModel
        (losses.sum() / len(items)).backward()
    opt.step()                                          # opt.OpenAIAdam
    opt.zero_grad()

`Trainer.run` does the updates, evaluations and checkpoints of a run. It knows nothing of stories or
windows of text: that is the `Job` of train.py or pretrain.py.

The random numbers of dropout follow from the seed, the update and the place in the batch, and the
order of an epoch from the seed and the epoch. So a checkpoint holds no random state, and an update
is the same on any number of devices.
"""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm

from gpt1.ops.batches import Batch
from gpt1.ops.masks import DropoutMasks, dropout_seed
from gpt1.run.checkpoint import Saver, StopSignals, check_identity, same_form
from gpt1.run.parallel import Ranks, StepSize, step_cuts
from gpt1.run.precision import Precision
from opt import OpenAIAdam
from utils import BAR, InputError, ResultLogger, Stopped, is_out_of_memory


class Job:
    """What a script trains. `Trainer` calls these methods; an item is an example or a window."""

    unit = 'items'  # for messages

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the items of each update of an epoch."""
        raise NotImplementedError

    def collate(self, items: Sequence[int]) -> Batch:
        """Return a batch of some items for one device, on the CPU."""
        raise NotImplementedError

    def masks(self, batch: Batch, seed: int, n_updates: int, place: int) -> DropoutMasks:
        """Return the source of the dropout masks of a step: see `dropout_seed`.

        A job that overrides this can replay the masks of another program.
        """
        return DropoutMasks(dropout_seed(seed, n_updates, place))

    def names(self, items: Sequence[int]) -> list[str]:
        """Return what to call items in an error message."""
        return [str(item) for item in items]

    def due(self, n_updates: int) -> bool:
        """Return whether to evaluate after this many updates."""
        raise NotImplementedError

    def evaluate(self, trainer: 'Trainer') -> dict:
        """Evaluate and return a line for the log. Called on every rank."""
        raise NotImplementedError

    def report(self, line: dict, log: list[dict]) -> None:
        """Show a new line of the log. Called on the first rank."""

    def state(self) -> dict:
        """Return what a checkpoint keeps of the job, as JSON values."""
        return {}

    def load_state(self, state: dict) -> None:
        """Continue from a `state`. Raises an exception if it is not one."""


class Trainer:
    """A run: a module that returns losses, its optimizer, and how far it is."""

    def __init__(
        self,
        job: Job,
        module: torch.nn.Module,
        opt: OpenAIAdam,
        ranks: Ranks,
        steps: StepSize,
        updates_per_epoch: int,
        n_epochs: int,
        seed: int,
        precision: str,
        identity: dict,
    ):
        """
        module    module(batch) returns the loss of each item of a batch; an update minimizes
                  their mean
        steps     how many items a device takes at a time
        identity  what a run must have in common with one that it resumes: name -> value
        """
        self.job, self.module, self.opt, self.ranks, self.steps = job, module, opt, ranks, steps
        self.step_size = steps.size  # the same on all ranks, also when one of them halves its own
        self.updates_per_epoch, self.n_epochs = updates_per_epoch, n_epochs
        self.n_updates_total = updates_per_epoch * n_epochs
        self.seed, self.identity = seed, identity
        self.parallel = ranks.parallel(module)
        self.model = getattr(module, 'model', module)  # a `JointLoss` contains the model
        self.device = ranks.devices[0]
        self.precision = Precision(precision, self.device, ranks.first)
        self.saver = Saver(background=self.device.type == 'cuda')
        self.meter = LossMeter(job.unit, job.names, lag=2 if self.device.type == 'cuda' else 0)
        self.n_updates = 0
        self.evaluated = 0  # the update after which the last evaluation was
        self.seconds = 0.0  # spent in updates since then, also before the run was resumed

    # ------------------------------------------------------------------------------------ update

    def update(self, items: np.ndarray) -> torch.Tensor:
        """Do one update. Returns the loss of each item and the gradients' norm: [items + 1].

        The items are cut into smaller steps if a device runs out of memory. The update is repeated
        with a smaller loss scale if the gradients overflow, see `Precision`.
        """
        norm = None
        while norm is None:
            losses = self.steps.fit(lambda size: self._add_gradients(items, size), self.parallel)
            norm = self.precision.step(self.opt, losses)  # opt.step(), if no gradient overflows
            self.parallel.zero_grad()
        self.n_updates += 1
        return torch.cat([losses, norm.float().view(1)])

    def _add_gradients(self, items, step_size):
        """Forward and backward, step by step (a "tower" of the original). Returns the losses.

        The ranks share the steps. Where a process has several devices, each does a step of a group.
        """
        self.module.train()
        losses = torch.zeros(len(items), device=self.device)
        ranks, n_devices = self.ranks, len(self.ranks.devices)
        cuts = step_cuts(len(items), self.step_size, step_size, ranks.rank, ranks.size)
        groups = [cuts[i : i + n_devices] for i in range(0, len(cuts), n_devices)]
        # The ranks take the mean of their gradients, so the sum is multiplied by their number.
        weight = ranks.size / len(items)
        if not groups:  # a rank without a step takes part in the mean
            groups, weight = [[slice(0, 1)]], 0.0
        for group in groups:
            batches = [self._batch(items, cut) for cut in group]
            # In the precision of the run. The last backward pass takes the mean over the ranks.
            step_losses = self.parallel(batches, self.precision.name, last=group is groups[-1])
            self.precision.scale(step_losses.sum() * weight).backward()
            if weight:
                losses[group[0].start : group[-1].stop] = step_losses.detach()
            del step_losses  # and its graph, before the next step
        return ranks.sum_(losses)

    def _batch(self, items, cut):
        """Return the batch of a step. Its dropout masks depend on its place in the update alone."""
        batch = self.job.collate(items[cut])
        batch.masks = self.job.masks(batch, self.seed, self.n_updates, cut.start)
        return batch

    # --------------------------------------------------------------------------------------- run

    def run(self, logger: ResultLogger, checkpoint_path: str, save_every: int) -> None:
        """Do all updates that are left, evaluate, log, and write checkpoints.

        save_every  updates between checkpoints, besides those after each evaluation; 0: none

        Raises InputError if a loss is not finite, and Stopped, with a checkpoint written, after a
        signal.
        """

        def save():
            self._save(checkpoint_path, logger)

        with StopSignals(self.ranks.size > 1) as signals, self.saver:
            while True:
                due = self.job.due(self.n_updates)
                if due and self.evaluated != self.n_updates:
                    self._evaluate(logger, save)
                if self.n_updates == self.n_updates_total:
                    break
                self._updates(signals, save, save_every)
            self.saver.wait()
            if self.ranks.total(signals.received) > 0:  # since the last update
                self._stop(signals)

    def _updates(self, signals, save, save_every):
        """Do the updates up to the next evaluation or the end of the epoch."""
        epoch, done = divmod(self.n_updates, self.updates_per_epoch)
        for number, items in enumerate(self.job.batches(epoch)):
            if number < done:
                continue
            if number == done:
                bar = self._bar(epoch, done, len(items))
            started = time.monotonic()
            values = self.update(items)
            stop = self.ranks.total(signals.received)
            self.meter.add(self.n_updates, items, torch.cat([values, stop]))
            self.seconds += time.monotonic() - started
            lr = self.opt.param_groups[0]['lr']
            bar.set_postfix(loss=f'{self.meter.loss:.3f}', lr=f'{lr:.1e}', refresh=False)
            bar.update(len(items))
            if self.meter.stop:
                bar.close()
                self.meter.drain()
                save()
                self._stop(signals)
            if self.job.due(self.n_updates):
                break
            if save_every and self.n_updates % save_every == 0:
                self.meter.drain()
                save()
        bar.close()
        self.meter.drain()

    def _stop(self, signals):
        """Leave the run when the checkpoint is written: torchrun ends all when one has left."""
        self.saver.wait()
        self.ranks.wait()
        raise Stopped(signals.received or signal.SIGTERM)

    def _bar(self, epoch, done, n_items):
        return tqdm(
            total=self.updates_per_epoch * n_items,
            initial=done * n_items,
            unit=f' {self.job.unit}',
            unit_scale=True,
            desc=f'epoch {epoch + 1}/{self.n_epochs}',
            bar_format=BAR,
            leave=False,
            dynamic_ncols=True,
            disable=None if self.ranks.first else True,
        )

    def _evaluate(self, logger, save):
        """Evaluate. Nothing that can fail comes between the line of scores and its checkpoint."""
        line = {**self.job.evaluate(self), **self.precision.log_values()}
        self.evaluated = self.n_updates
        self.meter.reset()
        self.seconds = 0.0
        if self.ranks.first:
            logger.add(**line)
        save()
        if self.ranks.first:
            logger.write()
            self.job.report(line, logger.lines[1:])
            sys.stdout.flush()

    # ------------------------------------------------------------------------------- checkpoints

    def _save(self, path, logger):
        if not self.ranks.first:
            return
        run = {
            'n_updates': self.n_updates,
            'evaluated': self.evaluated,
            'losses': [self.meter.sum, self.meter.n],
            'seconds': self.seconds,
            'precision': self.precision.state_dict(),
            'job': self.job.state(),
            'log': logger.lines,
            'identity': self.identity,
        }
        state = {
            'model': self.model.state_dict(),
            'opt': self.opt.state_dict(),
            'run': json.dumps(run),
        }
        self.saver.save(path, state)

    def resume(self, checkpoint: dict, path: str) -> list[dict]:
        """Continue from a checkpoint, as read from `path`. Returns the lines of its log.

        Raises InputError if it is damaged or another run's.
        """
        try:
            run = json.loads(checkpoint['run'])
            check_identity(run['identity'], self.identity, path)
            form = {'model': self.model.state_dict(), 'opt': self.opt.state_dict(), 'run': ''}
            if not same_form(checkpoint, form):
                raise ValueError('its tensors are not those of this model')
            n_updates, evaluated, log = run['n_updates'], run['evaluated'], run['log']
            counts = 0 <= evaluated <= n_updates == checkpoint['opt']['t'] <= self.n_updates_total
            if type(n_updates) is not int or not counts:
                raise ValueError('its counters do not agree')
            if not log or not all(isinstance(line, dict) for line in log):
                raise ValueError('its log is not valid')
            self.meter.sum, self.meter.n = float(run['losses'][0]), int(run['losses'][1])
            self.seconds = float(run.get('seconds', 'nan'))  # earlier versions did not keep them
            self.precision.load_state_dict(run['precision'])
            self.job.load_state(run['job'])
            self.model.load_state_dict(checkpoint['model'])
            self.opt.load_state_dict(checkpoint['opt'])
        except InputError:
            raise
        except Exception as error:  # a damaged checkpoint can fail in any exception
            if is_out_of_memory(error):
                raise
            reason = ' '.join(str(error).split())[:100]
            raise InputError(
                f'{path} is damaged or not a checkpoint of this version of the program ({reason})'
            ) from error
        self.n_updates, self.evaluated = n_updates, evaluated
        return log


# ---------------------------------------------------------------------------------------- losses


class LossMeter:
    """The losses of each update on their way from the device.

    They are read `lag` updates later, so that nothing waits for a GPU. The lag is a fixed number,
    not "what has arrived", so that all ranks stop after the same update.
    """

    def __init__(self, unit: str, names: Callable, lag: int):
        """`unit` and `names(items)` are what to call the items in an error message."""
        self.unit, self.names, self.lag = unit, names, lag
        self.pending = []  # (update, its items, values on the host, event: they have arrived)
        self.loss = math.nan  # mean of the newest update that was read
        self.stop = False  # whether a rank was asked to stop
        self.reset()

    def reset(self) -> None:
        """Forget the losses before an evaluation."""
        self.sum, self.n = 0.0, 0

    @property
    def mean(self) -> float:
        """The mean loss of the updates since the last evaluation."""
        return self.sum / max(self.n, 1)

    def add(self, n_updates: int, items: np.ndarray, values: torch.Tensor) -> None:
        """Add an update. values [items + 2]: losses, the gradients' norm, a signal or 0."""
        event = None
        if values.is_cuda:
            device = values.device  # it may be another one than PyTorch's current device
            host = torch.empty_like(values, device='cpu', pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
        self.pending.append((n_updates, items, values, event))
        while len(self.pending) > self.lag:
            self._read()

    def drain(self) -> None:
        """Read all that is pending."""
        while self.pending:
            self._read()

    def _read(self):
        n_updates, items, values, event = self.pending.pop(0)
        if event:
            event.synchronize()
        *losses, norm, stop = values.tolist()
        self.loss = sum(losses) / len(losses)
        self.stop = self.stop or stop > 0
        self.sum += self.loss
        self.n += 1
        if not math.isfinite(self.loss) or not math.isfinite(norm):
            raise InputError(self._not_finite(n_updates, items, losses, norm))

    def _not_finite(self, n_updates, items, losses, norm):
        wrong = [i for i, loss in zip(items, losses) if not math.isfinite(loss)]
        what = f'the loss is {self.loss}' if wrong else f"the gradients' norm is {norm}"
        names = self.names(wrong or items)
        more = f' and {len(names) - 8} more' if len(names) > 8 else ''
        return (
            f'update {n_updates}: {what} ({self.unit} {", ".join(names[:8])}{more}); earlier '
            'checkpoints are kept. A lower --lr may help'
        )
