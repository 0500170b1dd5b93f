"""The training loop, for fine-tuning and pre-training.

`Trainer.update` is an update: forward and backward of each step, and the step of the optimizer.
On one device in float32, and without what makes it fit the memory, it is

    for cut in steps:
        losses = module(batch_of(items[cut]))           # loss.JointLoss or model_pytorch.LMModel
        (losses.sum() / len(items)).backward()
    opt.step()                                          # opt.OpenAIAdam
    opt.zero_grad()

The loop knows nothing of stories or windows of text: that is the `Job` of train.py or pretrain.py.

The random numbers of dropout follow from the seed, the update and the place in the batch, and the
order of an epoch from the seed and the epoch. So a checkpoint holds no random state, and an update
is the same on any number of devices.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from gpt1.ops.batches import Batch
from gpt1.ops.masks import DropoutMasks, dropout_seed
from gpt1.run.checkpoint import Saver, StopSignals, check_identity, same_form
from gpt1.run.parallel import ParallelModule, StepSize, step_cuts
from gpt1.run.precision import Precision
from gpt1.run.progress import LossMeter, Mean, Speaker
from opt import OpenAIAdam
from utils import BAR, InputError, ResultLogger, Stopped, format_table, is_out_of_memory


class Trainer:
    """A run: a module that returns losses, its optimizer, and how far it is."""

    def __init__(
        self, job: 'Job', module: torch.nn.Module, opt: OpenAIAdam, steps: StepSize, identity: dict
    ):
        """`identity` is what a run must have in common with one that it resumes: name -> value."""
        args, ranks = job.args, job.ranks
        self.job, self.module, self.opt, self.ranks, self.steps = job, module, opt, ranks, steps
        self.args, self.identity = args, identity
        self.step_size = steps.size  # the same on all ranks, also when one of them halves its own
        self.n_updates_total = job.updates_per_epoch * args.n_iter
        self.parallel = ParallelModule(module, ranks)
        self.model = getattr(module, 'model', module)  # a `JointLoss` contains the model
        self.device = ranks.devices[0]
        self.precision = Precision(args.precision, self.device, ranks.first)
        self.saver = Saver(background=self.device.type == 'cuda')
        every = args.log_every or max(self.n_updates_total // 100, 1)
        self.meter = LossMeter(job, every, lag=2 if self.device.type == 'cuda' else 0)
        self.n_updates = 0
        self.evaluated = -1  # the update after which the last evaluation was
        self.seconds = 0.0  # spent in updates since then, also before the run was resumed

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
        """Forward and backward, step by step (a "tower" of the original). Returns the losses."""
        self.module.train()
        losses = torch.zeros(len(items), device=self.device)
        ranks, n_devices = self.ranks, len(self.ranks.devices)
        cuts = step_cuts(len(items), self.step_size, step_size, ranks.rank, ranks.size)
        # Each device does a step of a group.
        groups = [cuts[i : i + n_devices] for i in range(0, len(cuts), n_devices)]
        # The ranks take the mean of their gradients, so the sum is multiplied by their number.
        weight = ranks.size / len(items)
        if not groups:  # a rank without a step takes part in the mean
            groups, weight = [[slice(0, 1)]], 0.0
        for group in groups:
            batches = [self._batch(items, cut) for cut in group]
            # In the precision of the run. The last backward pass takes the mean over the ranks.
            step_losses = self.parallel(batches, self.precision.name, last=group is groups[-1])
            self.precision.scaler.scale(step_losses.sum() * weight).backward()
            if weight:
                losses[group[0].start : group[-1].stop] = step_losses.detach()
            del step_losses  # and its graph, before the next step
        return ranks.sum_(losses)

    def _batch(self, items, cut):
        batch = self.job.collate(items[cut])
        batch.masks = self.job.masks(batch, self.args.seed, self.n_updates, cut.start)
        return batch

    def begin(self, path: str, lines: list[dict], facts: dict, table: list) -> ResultLogger:
        """Print what the run is, and return its log. Called on the first rank.

        Of a resumed run, `lines` is the log; `facts` is the start record of a new one.
        """
        logger = ResultLogger(path, lines, self.args.tensorboard, **facts)
        job, chosen = self.job, os.environ.get('GPT1_PATH')
        batch = f'{job.batch_size} {job.unit} an update, in steps of {self.steps.size}, {job.rows}'
        updates = f'{job.updates_per_epoch:,} updates an epoch, {self.n_updates_total:,} in all'
        table = [
            *table,
            ('batch', f'{batch}; {updates}'),
            ('device', self.ranks.describe(self.args.precision)),
            *([('path', f'GPT1_PATH is {chosen}')] if chosen else []),
        ]
        print(format_table(table), flush=True)
        if lines:
            print(f'resumed after update {self.n_updates:,} of {self.n_updates_total:,}')
        print(' '.join(job.columns))
        return logger

    def run(self, logger: ResultLogger | None, checkpoint_path: str) -> None:
        """Do all updates that are left, evaluate, log, and write checkpoints.

        Only the first rank has a logger. Raises Stopped, with a checkpoint written, after a signal.
        """

        def save():
            if logger:
                self._save(checkpoint_path, logger)
                logger.write()

        if logger:
            self.meter.log = logger.add
        speaker = Speaker(self.job, self.n_updates, self.n_updates_total, logger)
        with contextlib.ExitStack() as stack:
            signals = stack.enter_context(StopSignals(self.ranks.size > 1))
            stack.callback(self.saver.wait)
            while True:
                if self.job.due(self.n_updates) and self.evaluated != self.n_updates:
                    self._evaluate(logger, save)
                if self.n_updates == self.n_updates_total:
                    break
                self._updates(speaker, signals, save)
            self.saver.wait()
            if self.ranks.total(signals.received) > 0:  # since the last update
                self._stop(signals)

    def _updates(self, speaker, signals, save):
        """Do the updates up to the next evaluation or the end of the epoch."""
        epoch, done = divmod(self.n_updates, self.job.updates_per_epoch)
        with tqdm(
            total=self.job.updates_per_epoch * self.job.batch_size,
            initial=done * self.job.batch_size,
            unit=f' {self.job.unit}',
            unit_scale=True,
            desc=f'epoch {epoch + 1}/{self.args.n_iter}',
            bar_format=BAR,
            leave=False,
            dynamic_ncols=True,
            disable=None if self.ranks.first else True,
        ) as bar:
            for items in itertools.islice(self.job.batches(epoch), done, None):
                started = time.monotonic()
                values = self.update(items)
                stop = self.ranks.total(signals.received)
                lr = self.opt.learning_rate()
                self.meter.add(self.n_updates, items, torch.cat([values, stop]), lr)
                self.seconds += time.monotonic() - started
                bar.set_postfix(loss=f'{self.meter.loss:.3f}', lr=f'{lr:.1e}', refresh=False)
                bar.update(len(items))
                speaker.say(self.n_updates, self.meter.loss)
                due, every = self.job.due(self.n_updates), self.args.save_every
                if self.meter.stop or (every and not due and self.n_updates % every == 0):
                    self.meter.read()
                    save()
                if self.meter.stop:
                    bar.close()
                    self._stop(signals)
                if due:
                    break
        self.meter.read()

    def _stop(self, signals):
        """Leave the run when the checkpoint is written: torchrun ends all when one has left."""
        self.saver.wait()
        with contextlib.suppress(RuntimeError):  # a rank has ended
            self.ranks.gather(None)
        raise Stopped(signals.received or signal.SIGTERM)

    def _evaluate(self, logger, save):
        """Evaluate. Nothing that can fail comes between the line of scores and its checkpoint."""
        line = {**self.job.evaluate(self), **self.precision.log_values()}
        self.evaluated, self.meter.since_evaluation = self.n_updates, Mean()
        self.seconds = 0.0
        if logger:
            logger.add(**line)
        save()
        if logger:
            words = [
                f'{format(line[name], form) if name in line else "-":>{len(name)}}'
                for name, form in self.job.columns.items()
            ]
            tqdm.write(' '.join(words), file=sys.stdout)
            self.job.report(line, logger.lines)
            sys.stdout.flush()

    def _save(self, path, logger):
        run = {
            'n_updates': self.n_updates,
            'evaluated': self.evaluated,
            'losses': self.meter.since_evaluation,
            'progress': self.meter.since_line,
            'seconds': self.seconds,
            'precision': self.precision.state_dict(),
            'job': self.job.state(),
            'log': logger.lines,
            'identity': self.identity,
        }
        state = {'model': self.model.state_dict(), 'opt': self.opt.state_dict()}
        self.saver.save(path, {**state, 'run': json.dumps(run)})

    def remove_checkpoint(self, path: str) -> None:
        """Remove the checkpoint of a run that has come to its end, unless it is to be kept."""
        if not self.args.keep_checkpoint:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def resume(self, checkpoint: dict, path: str) -> list[dict]:
        """Continue from a checkpoint, as read from `path`. Returns the lines of its log."""
        try:
            run = json.loads(checkpoint['run'])
            check_identity(run['identity'], self.identity, path)
            self._restore(checkpoint, run)
        except Exception as error:  # a damaged checkpoint can fail in any exception
            if isinstance(error, InputError) or is_out_of_memory(error):
                raise
            reason = ' '.join(str(error).split())[:100]
            raise InputError(
                f'{path} is damaged or not a checkpoint of this version of the program ({reason})'
            ) from error
        return run['log']

    def _restore(self, checkpoint, run):
        form = {'model': self.model.state_dict(), 'opt': self.opt.state_dict(), 'run': ''}
        if not same_form(checkpoint, form):
            raise ValueError('its tensors are not those of this model')
        n_updates, evaluated, log = run['n_updates'], run['evaluated'], run['log']
        counts = -1 <= evaluated <= n_updates == checkpoint['opt']['t'] <= self.n_updates_total
        if type(n_updates) is not int or not counts:
            raise ValueError('its counters do not agree')
        if not log or not all(isinstance(line, dict) for line in log):
            raise ValueError('its log is not valid')
        losses, progress = (
            Mean(float(total), int(n)) for total, n in (run['losses'], run.get('progress', (0, 0)))
        )  # earlier versions did not keep the second one
        self.meter.since_evaluation, self.meter.since_line = losses, progress
        self.seconds = float(run.get('seconds', 'nan'))
        self.precision.load_state_dict(run['precision'])
        self.job.load_state(run['job'])
        self.model.load_state_dict(checkpoint['model'])
        self.opt.load_state_dict(checkpoint['opt'])
        self.n_updates, self.evaluated = n_updates, evaluated


class Job:
    """What a script trains. An item is an example or a window. A job must have

    args                 the options of train.py or pretrain.py
    ranks                the processes of the run
    columns              what is printed of an evaluation: name in the log -> format
    rows                 in words, what kind of rows a batch has
    speed                what is counted as the speed of a run: so many an update, and their name
    batch_size           items of an update
    updates_per_epoch
    batches(epoch)       yields the items of each update of an epoch
    collate(items)       returns a batch of some items for one device, on the CPU
    due(n_updates)       returns whether to evaluate after this many updates
    evaluate(trainer)    evaluates, on every rank, and returns a line for the log

    and may replace what follows.
    """

    unit = 'items'  # for messages

    def masks(self, batch: Batch, seed: int, n_updates: int, place: int) -> DropoutMasks:
        """Return the source of the dropout masks of a step: see `dropout_seed`."""
        return DropoutMasks(dropout_seed(seed, n_updates, place))

    def names(self, items: Sequence[int]) -> list[str]:
        """Return what to call items in an error message."""
        return [str(item) for item in items]

    def report(self, line: dict, log: list[dict]) -> None:
        """Show a new line of the log, after its columns are printed. Called on the first rank."""

    def state(self) -> dict:
        """Return what a checkpoint keeps of the job, as JSON values."""
        return {}

    def load_state(self, state: dict) -> None:
        """Continue from a `state`. Raises an exception if it is not one."""
